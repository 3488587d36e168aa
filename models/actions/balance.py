"""The daily balance: everything accounted for, joined by id both ways; counts alone prove nothing (ruling 6).

Reads only. Each check is one statement that names what does not balance by opaque ids, so that a
person can be told exactly which rows to look at (H4; FEATURES 34; idea 4).
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlmodel import Session

from models.actions.lab_desk import Late, late_kits
from models.actions.stock import running_low
from models.rules.kit import NO_SAMPLE_EXPECTED
from models.rules.service import Services
from models.rules.text_delivery import hears_by
from models.rules.vocabulary import NON_NEGATIVE
from models.tables.bulk import cursor


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that does not balance: which check, and the row ids it is about (the first twenty)."""

    check: str
    says: str
    count: int
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Balance:
    """The figures of one moment and every difference found."""

    figures: Mapping[str, int]
    differences: tuple[Difference, ...]
    late: tuple[Difference, ...] = ()
    """What laboratories owe a word about, and who should have heard: named every day, no fault of the balance."""

    @property
    def is_even(self) -> bool:
        """Whether nothing is missing, doubled or ownerless."""
        return not self.differences


_CHECKS: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "order_decided",
        "every order has exactly one standing decision, and it is its own",
        """
        SELECT o.ref FROM kit_order o LEFT JOIN order_decision d ON d.id = o.current_decision_id AND d.order_id = o.id
        WHERE d.id IS NULL
        """,
    ),
    (
        "accepted_order_has_kit",
        "an accepted order has exactly one kit, any other order has none unless it was accepted before",
        """
        SELECT o.ref FROM kit_order o JOIN order_decision d ON d.id = o.current_decision_id
        LEFT JOIN kit k ON k.order_id = o.id AND k.state <> 'replaced'
        WHERE (d.outcome = 'accepted') <> (k.id IS NOT NULL) AND o.cancelled_at IS NULL
        """,
    ),
    (
        "kit_state_agrees_with_facts",
        "a kit's one state agrees with when it was printed, sent, posted back, received and reported",
        """
        SELECT code FROM kit
        WHERE (state = 'to_pack' AND dispatched_at IS NOT NULL)
           OR (state IN ('printed', 'quarantined') AND dispatched_at IS NOT NULL)
           OR (state = 'dispatched' AND (posted_back_at IS NOT NULL OR received_at IS NOT NULL))
           OR (state = 'coming_back' AND (posted_back_at IS NULL OR received_at IS NOT NULL))
           OR (state = 'at_lab' AND received_at IS NULL)
           OR (state IN ('reported', 'closed') AND (received_at IS NULL OR reported_at IS NULL))
        """,
    ),
    (
        "kit_asks_for_something",
        "every kit has requested tests, and each is answered from one of its own tubes",
        """
        SELECT k.code FROM kit k LEFT JOIN kit_test t ON t.kit_id = k.id
        LEFT JOIN kit_sample s ON s.kit_id = k.id AND s.tube_code = t.tube_code
        WHERE t.kit_id IS NULL OR s.id IS NULL
        """,
    ),
    (
        "file_rows_accounted",
        "every row of every finished lab file is stored, a repeat, quarantined, a detail or a known replay",
        """
        SELECT f.ref FROM lab_file f
        WHERE (f.state = 'done' OR (f.state = 'held' AND f.messages_read > 0))
          AND f.rows_read <> f.rows_detail + f.rows_replayed + (
            SELECT count(*) FROM (
                SELECT position, row_key FROM result_version WHERE file_id = f.id
                UNION SELECT position, row_key FROM result_repeat WHERE file_id = f.id
                UNION SELECT position, row_key FROM quarantined_row WHERE file_id = f.id
            ) AS rows)
        """,
    ),
    (
        "held_file_used_nothing",
        "nothing of a held or duplicate file was used, but for what was read before it had to be held",
        """
        SELECT f.ref FROM lab_file f WHERE (f.state = 'duplicate' OR (f.state = 'held' AND f.messages_read = 0))
          AND (EXISTS (SELECT FROM result_version v WHERE v.file_id = f.id)
               OR EXISTS (SELECT FROM quarantined_row q WHERE q.file_id = f.id))
        """,
    ),
    (
        "held_file_has_case",
        "every held file has a case",
        """
        SELECT f.ref FROM lab_file f WHERE f.state = 'held'
          AND NOT EXISTS (SELECT FROM clinic_case c WHERE c.key = 'file:' || f.id)
        """,
    ),
    (
        "head_is_a_version",
        "every series points at a version of its own that says the same",
        """
        SELECT s.id::text FROM result_series s LEFT JOIN result_version v
          ON v.id = s.current_version_id AND v.series_id = s.id AND v.outcome = s.outcome AND v.kit_id = s.kit_id
        WHERE v.id IS NULL
        """,
    ),
    (
        "non_negative_has_item",
        "every result that is not negative is an item of its kit's case (law 4)",
        """
        SELECT v.id::text FROM result_version v
        WHERE v.outcome = ANY(%(non_negative)s) AND v.effect <> 'out_of_order'
          AND NOT EXISTS (SELECT FROM case_item i JOIN clinic_case c ON c.id = i.case_id
                          WHERE i.version_id = v.id AND c.kit_id = v.kit_id)
        """,
    ),
    (
        "item_has_result",
        "every item of a case is a stored result of that kit, with that outcome",
        """
        SELECT i.id::text FROM case_item i LEFT JOIN clinic_case c ON c.id = i.case_id
        LEFT JOIN result_version v ON v.id = i.version_id AND v.kit_id = c.kit_id AND v.outcome = i.outcome
                                  AND v.test = i.test AND v.site = i.site
        WHERE v.id IS NULL
        """,
    ),
    (
        "quarantined_row_has_case",
        "every row that waits in quarantine has a case: its kit's, or the lab's",
        """
        SELECT q.ref FROM quarantined_row q WHERE q.resolved_at IS NULL AND NOT EXISTS (
            SELECT FROM clinic_case c WHERE c.key = CASE WHEN q.kit_id IS NULL
                THEN 'file:' || q.file_id || ':' || q.reason || ':' || q.owner_role
                ELSE 'kit:' || q.kit_id || ':results' END)
        """,
    ),
    (
        "decision_is_current",
        "every kit with results stands decided on exactly the results it has now (ruling 3)",
        """
        SELECT k.code FROM kit k
        JOIN (SELECT kit_id, encode(sha256(convert_to(string_agg(
                         test || '|' || site || '|' || current_version_id, E'\\n'
                         ORDER BY (test || '|' || site || '|' || current_version_id) COLLATE "C"), 'UTF8')), 'hex')
                     AS digest
              FROM result_series GROUP BY kit_id) AS now ON now.kit_id = k.id
        LEFT JOIN release_decision d ON d.id = k.current_decision_id AND d.kit_id = k.id
        WHERE d.id IS NULL OR d.digest <> now.digest
        """,
    ),
    (
        "owed_text_exists_once",
        "every decision that owes a text has exactly one",
        """
        SELECT d.id::text FROM release_decision d
        WHERE d.owes_text <> '' AND 1 <> (
            SELECT count(*) FROM text t WHERE t.kit_id = d.kit_id AND t.purpose = d.owes_text
              AND (t.decision_id = d.id OR t.tells = d.digest))
        """,
    ),
    (
        "result_text_has_decision",
        "every text about results was owed by a decision that owes one",
        """
        SELECT t.ref FROM text t LEFT JOIN release_decision d ON d.id = t.decision_id AND d.kit_id = t.kit_id
        WHERE t.purpose IN ('all_clear', 'swab_positive', 'failed_sample', 'please_expect_our_call')
          AND (d.id IS NULL OR d.owes_text <> t.purpose)
        """,
    ),
    (
        "owed_case_exists",
        "every decision that needs a person has its kit's case",
        """
        SELECT d.id::text FROM release_decision d WHERE d.owes_case
          AND NOT EXISTS (SELECT FROM clinic_case c WHERE c.key = 'kit:' || d.kit_id || ':results')
        """,
    ),
    (
        "waiting_kit_has_a_limit",
        "a kit whose results are pending has an end to its wait, or a case",
        """
        SELECT k.code FROM kit k JOIN release_decision d ON d.id = k.current_decision_id
        WHERE d.kind = 'wait' AND k.hold_until IS NULL
          AND NOT EXISTS (SELECT FROM clinic_case c WHERE c.kit_id = k.id)
        """,
    ),
    (
        "sent_text_has_one_taker",
        "no text was taken by the provider twice, and every text it took has the attempt that took it (law 7)",
        """
        SELECT t.ref FROM text t
        LEFT JOIN (SELECT text_id, count(*) AS taken,
                          count(*) FILTER (WHERE coalesce(status, '') NOT IN ('failed', 'cancelled')) AS alive
                   FROM text_attempt WHERE provider_id <> '' GROUP BY text_id) AS a ON a.text_id = t.id
        WHERE a.alive > 1
           OR (t.state IN ('accepted', 'delivered') AND coalesce(a.taken, 0) = 0)
           OR (t.state IN ('owed', 'cancelled') AND coalesce(a.taken, 0) > 0
               AND t.retry_at IS NULL AND t.error_code = '')
        """,
    ),
    (
        "failed_text_has_case",
        "every result text that failed or was handed over has a case (FEATURES 51)",
        """
        SELECT t.ref FROM text t WHERE t.state IN ('failed', 'handed_over')
          AND t.purpose IN ('all_clear', 'swab_positive', 'failed_sample', 'please_expect_our_call')
          AND NOT EXISTS (SELECT FROM clinic_case c WHERE c.kit_id = t.kit_id)
        """,
    ),
    (
        "text_not_overdue",
        "no text that may leave waits longer than two days past its window, unless it is held for a person",
        """
        SELECT ref FROM text WHERE state = 'owed' AND not_before < %(now)s - interval '2 days'
          AND held_at IS NULL AND NOT (SELECT sending_stopped FROM installation)
        """,
    ),
    (
        "lab_request_was_sent",
        "every request to a laboratory was sent within two days, and none of a kit in use was refused or long in doubt",
        # Machine time: whether a sender does its work is no matter of service time.
        """
        SELECT r.ref FROM lab_request r JOIN kit k ON k.id = r.kit_id
        WHERE (r.state IN ('owed', 'sending') AND r.recorded_at < clock_timestamp() - interval '2 days')
           OR (k.state <> ALL(%(over)s) AND (
                  r.state = 'refused'
                  OR (r.state = 'unsure' AND r.recorded_at < clock_timestamp() - interval '1 day')))
        """,
    ),
    (
        "lab_request_was_acknowledged",
        "every request to a laboratory that answers was acknowledged within two days, if its kit is in use",
        """
        SELECT r.ref FROM lab_request r JOIN kit k ON k.id = r.kit_id
        WHERE r.state = 'sent' AND r.wants_answer AND r.sent_at < %(now)s - interval '2 days'
          AND k.state <> ALL(%(over)s)
        """,
    ),
    (
        "nothing_waits_unread",
        "nothing that came from outside waits unread for more than two days",
        """
        SELECT ref FROM inbox WHERE state = 'waiting' AND received_at < %(now)s - interval '2 days'
        UNION ALL
        SELECT ref FROM lab_message_in WHERE state <> 'filed' AND received_at < %(now)s - interval '2 days'
        UNION ALL
        SELECT ref FROM lab_file WHERE state IN ('arrived', 'reading')
          AND arrived_at < %(now)s - interval '2 days'
        """,
    ),
    (
        "nothing_lies_unread",
        "nothing lies in the store for more than a day that nobody reads: not whole, or where no laboratory puts files",
        "SELECT ref FROM unread_object WHERE gone_at IS NULL",
    ),
    (
        "reported_kit_is_told_or_owned",
        "every reported kit is told, has a text on its way, or a case (idea 4)",
        """
        SELECT k.code FROM kit k WHERE k.state IN ('reported', 'closed')
          AND NOT EXISTS (SELECT FROM clinic_case c WHERE c.kit_id = k.id)
          AND NOT EXISTS (SELECT FROM text t WHERE t.kit_id = k.id AND t.state <> 'cancelled'
                          AND t.purpose IN ('all_clear', 'failed_sample', 'swab_positive'))
        """,
    ),
    (
        "replaced_kit_has_a_successor",
        "a replaced kit has exactly one kit in its stead, of the same order and person, and the other way round",
        """
        SELECT k.code FROM kit k LEFT JOIN kit n ON n.replaces_kit_id = k.id
        GROUP BY k.id HAVING (k.state = 'replaced') <> (count(n.id) = 1)
          OR bool_or(n.order_id <> k.order_id OR n.person_id <> k.person_id)
        """,
    ),
    (
        "stock_adds_up",
        "every lot holds what its moves add up to, and what it gave to kits is in them",
        """
        SELECT l.ref FROM stock_lot l
        WHERE l.on_hand <> (SELECT coalesce(sum(pieces), 0) FROM stock_move m WHERE m.lot_id = l.id)
           OR (SELECT coalesce(sum(-pieces), 0) FROM stock_move m WHERE m.lot_id = l.id AND m.kit_id IS NOT NULL)
              <> (SELECT coalesce(sum(pieces), 0) FROM kit_part p WHERE p.lot_id = l.id)
        """,
    ),
    (
        "kit_at_counter",
        "every kit for a counter is on its way over it, who it waits for was told, and what is stock is in no kit",
        """
        SELECT k.code FROM kit k JOIN contact c ON c.id = k.contact_id LEFT JOIN collection o ON o.kit_id = k.id
        WHERE c.collection_point <> '' AND k.dispatched_at IS NOT NULL
          AND (o.id IS NULL
               OR (o.state = 'waiting' AND k.state = 'dispatched'
                   AND NOT EXISTS (SELECT FROM text t WHERE t.kit_id = k.id AND t.purpose = 'kit_ready')
                   AND NOT EXISTS (SELECT FROM clinic_case a WHERE a.key = 'kit:' || k.id || ':code_not_texted'))
               OR (o.state = 'back' AND EXISTS (SELECT FROM kit_part p WHERE p.kit_id = k.id AND p.pieces > 0)))
        """,
    ),
    (
        "overdue_case_was_escalated",
        "every open case that passed its due time a working day ago was taken up the ladder (FEATURES 62)",
        """
        SELECT c.ref FROM clinic_case c WHERE c.closed_at IS NULL
          AND c.due_at < %(now)s - interval '4 days'
          AND NOT EXISTS (SELECT FROM escalation e WHERE e.case_id = c.id)
        """,
    ),
)

_FIGURES: Final[Mapping[str, str]] = {
    "orders": "SELECT count(*) FROM kit_order",
    "kits": "SELECT count(*) FROM kit",
    "lab files": "SELECT count(*) FROM lab_file",
    "lab rows read": "SELECT coalesce(sum(rows_read), 0) FROM lab_file",
    "result versions stored": "SELECT count(*) FROM result_version",
    "repeated rows": "SELECT count(*) FROM result_repeat",
    "quarantined rows": "SELECT count(*) FROM quarantined_row",
    "detail rows": "SELECT coalesce(sum(rows_detail), 0) FROM lab_file",
    "replayed rows": "SELECT coalesce(sum(rows_replayed), 0) FROM lab_file",
    "accessions reported": "SELECT count(DISTINCT (lab, accession)) FROM result_series",
    "results that are not negative": "SELECT count(*) FROM result_version WHERE outcome = ANY(%(non_negative)s)",
    "case items": "SELECT count(*) FROM case_item",
    "cases open": "SELECT count(*) FROM clinic_case WHERE closed_at IS NULL",
    "cases closed": "SELECT count(*) FROM clinic_case WHERE closed_at IS NOT NULL",
    "texts": "SELECT count(*) FROM text",
    "texts delivered": "SELECT count(*) FROM text WHERE state = 'delivered'",
    "texts on their way": "SELECT count(*) FROM text WHERE state IN ('owed', 'sending', 'unsure', 'accepted')",
}


def strike_balance(session: Session, *, now: datetime, services: Services | None = None) -> Balance:
    """Looks at everything at one moment (a single snapshot) and says what does not balance.

    With the services' contracts it also says which kits are late at their laboratories (FEATURES 34).
    """
    cursor(session).execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    binds = {
        "non_negative": [outcome.value for outcome in NON_NEGATIVE],
        "over": [state.value for state in NO_SAMPLE_EXPECTED],
        "now": now,
    }
    figures = {name: int(str(_run(session, query, binds)[0][0])) for name, query in _FIGURES.items()}
    differences = []
    for check, says, query in _CHECKS:
        found = [str(row[0]) for row in _run(session, query, binds)]
        if found:
            differences.append(Difference(check, says, len(found), tuple(found[:20])))
    kits: dict[Late, list[str]] = defaultdict(list)
    for kit in late_kits(session, services or {}, now=now):
        kits[kit.what].append(kit.kit_code)
    late = [Difference(what, _LATE[what], len(codes), tuple(codes[:20])) for what, codes in kits.items()]
    unheard = _not_heard_in_time(session, services or {}, now)
    if unheard:
        late.append(Difference("same_day", _SAME_DAY, len(unheard), tuple(unheard[:20])))
    short = [
        f"{service_id}:{low.component}:{low.pieces}"
        for service_id, found in running_low(session, services=services or {}, now=now).items()
        for low in found
    ]
    if short:
        late.append(Difference("low_stock", _LOW_STOCK, len(short), tuple(short[:20])))
    unposted = [str(row[0]) for row in _run(session, _UNPOSTED_SINCE, {"before": now - POSTAGE_WITHIN})]
    if unposted:
        late.append(Difference("postage", _UNPOSTED, len(unposted), tuple(unposted[:20])))
    return Balance(figures, tuple(differences), tuple(late))


POSTAGE_WITHIN: Final = timedelta(days=1)
"""Paper that was released so long ago has its postage: the flow that buys it runs every quarter of an hour."""
_UNPOSTED_SINCE: Final = """
    SELECT reference FROM postage WHERE state IN ('owed', 'buying', 'unsure') AND owed_at < %(before)s ORDER BY id
"""
_UNPOSTED: Final = "a parcel whose paper was released has its postage, or was handed to the courier, within a day"
_LOW_STOCK: Final = "a component of kits has fewer usable pieces than its council wants: order more"
_SAME_DAY: Final = "whoever's result is known hears of it, or has a case with a due time, the same working day"


def _not_heard_in_time(session: Session, services: Services, now: datetime) -> list[str]:
    """Texts about results that have not left by the end of the working day, and no case stands in their place."""
    waiting = _run(
        session,
        """
        SELECT t.ref, t.service_id, t.owed_at FROM text t
        WHERE t.state IN ('owed', 'sending', 'unsure') AND t.owed_at <= %(now)s
          AND t.purpose IN ('all_clear', 'swab_positive', 'failed_sample')
          AND NOT EXISTS (SELECT FROM clinic_case c WHERE c.kit_id = t.kit_id AND c.closed_at IS NULL)
        ORDER BY t.id
        """,
        {"now": now},
    )
    return [
        str(ref)
        for ref, service_id, owed_at in waiting
        if isinstance(owed_at, datetime)
        and str(service_id) in services
        and hears_by(owed_at, services[str(service_id)].service.texts.result_window) < now
    ]


_LATE: Final[Mapping[Late, str]] = {
    Late.NO_RESULT: "a kit at its laboratory has all its final results within the contract's days",
    Late.NOT_BOOKED_IN: "a kit that was posted back is booked in within the contract's days",
    Late.NOT_ACKNOWLEDGED: "a laboratory acknowledges the request for a kit's tests within the contract's days",
    Late.REQUEST_REFUSED: "a laboratory takes the request for a kit's tests",
    Late.REQUEST_IN_DOUBT: "whether the request for a kit's tests arrived is known",
}


def _run(session: Session, query: str, binds: Mapping[str, object]) -> list[tuple[object, ...]]:
    on = cursor(session)
    on.execute(query, binds)
    return on.fetchall()
