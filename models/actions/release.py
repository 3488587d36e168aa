"""Decides about kits and owes what follows: one transaction, the decision with its text or case (laws 3-6).

The caller holds the kits' row locks (ruling 2) and commits. The same inputs never decide twice for
the same trigger: the unique key on the decision stops a rerun before it owes anything (ruling 3).
"""

from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, Final

from sqlmodel import Session

from models.actions.owed import (
    DECIDED_AGAIN,
    CaseItemDue,
    OwedCase,
    OwedText,
    cancel_texts,
    owe_cases,
    owe_texts,
    result_case_key,
)
from models.actions.result import ChunkTally, Desk, NewArrival, Standing, Stored, store_chunk
from models.actions.text_choice import OPTED_OUT
from models.rules.clinic import due_at, kind_for
from models.rules.errors import Code, ServiceError
from models.rules.kit import KIT_STATES, KitState
from models.rules.lab import LabMessage
from models.rules.person import age_on
from models.rules.release import (
    RULE_VERSION,
    Current,
    KitResults,
    ReleaseDecision,
    ReleaseKind,
    Target,
    decide_release,
    digest,
    target_of,
    waits_for_a_person,
)
from models.rules.secrets import Cipher
from models.rules.service import Service, ServiceInForce, Services
from models.rules.text import (
    AllClear,
    Delayed,
    ExpectCall,
    FailedSample,
    FailedTest,
    ReceivedAtLab,
    SwabInfection,
    SwabPositive,
    TellableFailure,
    TextPurpose,
    TextValues,
    retest_from,
)
from models.rules.vocabulary import NON_NEGATIVE, SAMPLE_FAILURES, Outcome, Site, Test
from models.rules.working_days import add_working_hours, london_day
from models.tables.bulk import as_array, as_ids, as_json, as_text, copy, copy_text, cursor, next_ids
from models.tables.text import TextState

RESULT_TEXTS: Final = (TextPurpose.ALL_CLEAR, TextPurpose.SWAB_POSITIVE, TextPurpose.FAILED_SAMPLE)
CONTACT_TEXTS: Final = (*RESULT_TEXTS, TextPurpose.PLEASE_EXPECT_OUR_CALL)
_DECIDED: Final = (*RESULT_TEXTS, TextPurpose.DELAYED)
"""Texts that stand on a decision: unsent, they stop when the kit is decided about again."""
_WAITING: Final = (TextState.OWED, TextState.CANCELLED)
_OUTCOME: Final = {outcome.value: outcome for outcome in Outcome}
"""Looked up for every stored result of a chunk, which an enum's own call is too slow for."""


@dataclass(slots=True)
class _Case:
    """All that is known of one kit at the moment of its decision."""

    kit_id: int
    service_id: str
    order_id: int
    contact_id: int
    state: KitState
    hold_until: datetime | None
    dispatched_at: datetime | None
    last_risk_on: date | None
    born_on: date
    results: KitResults
    stands_on: str
    """The digest of its current results."""
    collected_at: Mapping[Target, datetime | None] = field(default_factory=dict)
    kept_aside: tuple[CaseItemDue, ...] = ()
    """Versions that froze the kit: not current, and not to be lost (ruling 1)."""


def take_chunk(session: Session, messages: Sequence[LabMessage], desk: Desk) -> ChunkTally:
    """Stores one chunk of a lab file and decides about every kit it touches: one transaction (laws 3-6)."""
    stored = store_chunk(session, messages, desk)
    stored.tally.decided = len(decide_stored(session, stored, desk))
    return stored.tally


def decide_stored(
    session: Session,
    stored: Stored,
    desk: Desk,
    *,
    also: Mapping[int, str] | None = None,
    in_touch: Collection[int] = (),
) -> dict[int, ReleaseDecision]:
    """Decides about every kit that stored rows touch, and about `also`, and says that a sample arrived.

    `in_touch`: kits whose case somebody has taken up, so that no result text leaves by itself.
    """
    decided = decide_kits(
        session,
        {**(also or {}), **stored.triggers},
        now=desk.now,
        actor=desk.actor,
        services=desk.services,
        cipher=desk.cipher,
        in_touch=in_touch,
        received={kit.kit_id: kit.at for kit in stored.arrivals},
        standing=stored.standing,
    )
    cancel_texts(
        session,
        [kit.kit_id for kit in stored.arrivals],
        because="sample_at_lab",
        now=desk.now,
        purposes=(TextPurpose.RETURN_REMINDER, TextPurpose.KIT_LAPSED),
    )
    _tell_of_receipt(session, stored.arrivals, decided, desk)
    return decided


def decide_kits(  # noqa: PLR0913 - what may be looked at, and on whose behalf
    session: Session,
    triggers: Mapping[int, str],
    *,
    now: datetime,
    actor: str,
    services: Services,
    cipher: Cipher,
    hold_expired: bool = False,
    in_touch: Collection[int] = (),
    received: Mapping[int, datetime] | None = None,
    standing: Mapping[int, Standing] | None = None,
) -> dict[int, ReleaseDecision]:
    """Decides about each kit whose trigger has not decided on the same results before, and owes what follows.

    `triggers` says for each kit id why it is looked at; `received` when a sample came that nobody knew to
    have come, of kits with new results; `standing` what stands about kits that were just read, and is read
    of all others. Returns the new decisions by kit id. Kit rows must be locked by
    the caller, in ascending id.
    """
    cases = _gather(
        session,
        sorted(triggers),
        now=now,
        services=services,
        cipher=cipher,
        hold_expired=hold_expired,
        standing=standing or {},
    )
    for case in cases:
        if case.kit_id in in_touch:
            case.results = replace(case.results, in_touch=True)
    decided = _decide(cases)
    fresh = _record(session, decided, triggers=triggers, now=now, actor=actor, services=services)
    by_service: dict[str, list[tuple[_Case, ReleaseDecision, int]]] = defaultdict(list)
    for case, decision in decided:
        if case.kit_id in fresh:
            by_service[case.service_id].append((case, decision, fresh[case.kit_id]))
    for service_id, made in by_service.items():
        _follow(
            session,
            made,
            service=services[service_id].service,
            now=now,
            actor=actor,
            cipher=cipher,
            received=received or {},
        )
    return {case.kit_id: decision for made in by_service.values() for case, decision, _ in made}


def _decide(cases: Sequence[_Case]) -> list[tuple[_Case, ReleaseDecision]]:
    """The rule's answer for each kit, asked once for all kits of one shape."""
    answers: dict[Hashable, ReleaseDecision] = {}
    decided = []
    for case in cases:
        shape = case.results.shape()
        if shape not in answers:
            answers[shape] = decide_release(case.results)
        decided.append((case, answers[shape]))
    return decided


def review(
    session: Session,
    *,
    kit_id: int,
    actor: str,
    now: datetime,
    service: Service,
    service_version_id: int,
    cipher: Cipher,
) -> ReleaseDecision:
    """A named person read every comment on this kit's current results: decide again with that known (ruling 8).

    Raises ServiceError(NOT_NOW) when no comment waits, or when these results were reviewed already.
    """
    on = cursor(session)
    on.execute("SELECT id FROM kit WHERE id = %s AND service_id = %s FOR UPDATE", (kit_id, service.id))
    if on.fetchone() is None:
        raise ServiceError(Code.NOT_FOUND, "There is no such kit in this service.")
    on.execute(
        """
        INSERT INTO comment_review (kit_id, version_id, actor, reviewed_at)
        SELECT s.kit_id, s.current_version_id, %s, %s FROM result_series s WHERE s.kit_id = %s AND s.note_review
        ON CONFLICT DO NOTHING RETURNING version_id
        """,
        (actor, now, kit_id),
    )
    if not on.fetchall():
        raise ServiceError(Code.NOT_NOW, "No comment on this kit waits to be read.")
    decisions = decide_kits(
        session,
        {kit_id: "person"},
        now=now,
        actor=actor,
        services={service.id: ServiceInForce(service, service_version_id)},
        cipher=cipher,
    )
    if kit_id not in decisions:
        raise ServiceError(Code.NOT_NOW, "These results were decided after review already.")
    return decisions[kit_id]


def expire_holds(session: Session, *, limit: int, now: datetime, actor: str, services: Services, cipher: Cipher) -> int:
    """Hands kits whose wait for pending results is over to a person, and says how many (FEATURES 47; H2)."""
    on = cursor(session)
    on.execute(
        """
        SELECT id, hold_until FROM kit WHERE hold_until <= %s AND service_id = ANY(%s)
        ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
        """,
        (now, list(services), limit),
    )
    due = on.fetchall()
    for kit_id, until in due:
        # One at a time: the trigger names the wait that ended, so that a rerun finds its own decision.
        decide_kits(
            session,
            {kit_id: f"hold:{until.isoformat()}"},
            now=now,
            actor=actor,
            services=services,
            cipher=cipher,
            hold_expired=True,
        )
    on.execute("UPDATE kit SET hold_until = NULL WHERE id = ANY(%s)", ([kit_id for kit_id, _ in due],))
    return len(due)


def close_finished_kits(session: Session, *, limit: int, now: datetime, actor: str) -> int:
    """Closes reported kits about which nothing is left to do: every text settled, no case open (FEATURES 34)."""
    on = cursor(session)
    on.execute(
        """
        SELECT k.id, k.service_id FROM kit k
        WHERE k.state = 'reported' AND k.frozen_at IS NULL
          AND NOT EXISTS (SELECT FROM clinic_case c WHERE c.kit_id = k.id AND c.closed_at IS NULL)
          AND NOT EXISTS (SELECT FROM quarantined_row q WHERE q.kit_id = k.id AND q.resolved_at IS NULL)
          AND NOT EXISTS (SELECT FROM text t
                          WHERE t.kit_id = k.id AND t.state IN ('owed', 'sending', 'unsure', 'accepted'))
          AND (EXISTS (SELECT FROM text t WHERE t.kit_id = k.id AND t.state = 'delivered' AND t.purpose = ANY(%s))
               OR EXISTS (SELECT FROM clinic_case c WHERE c.kit_id = k.id AND c.closed_at IS NOT NULL))
        ORDER BY k.id LIMIT %s FOR UPDATE OF k SKIP LOCKED
        """,
        ([purpose.value for purpose in CONTACT_TEXTS], limit),
    )
    done = on.fetchall()
    on.execute(
        "UPDATE kit SET state = 'closed', closed_at = %s, closed_reason = 'told' WHERE id = ANY(%s)",
        (now, [kit_id for kit_id, _ in done]),
    )
    copy(
        session,
        "kit_event",
        ("kit_id", "service_id", "kind", "detail", "actor", "occurred_at"),
        [(kit_id, service_id, "kit.closed", as_json({"reason": "told"}), actor, now) for kit_id, service_id in done],
    )
    return len(done)


def _tell_of_receipt(
    session: Session, arrivals: Sequence[NewArrival], decided: Mapping[int, ReleaseDecision], desk: Desk
) -> None:
    """A kit that arrived and has to wait is told that it arrived; one with an answer is told that (FEATURES 26)."""
    texts: dict[str, list[OwedText]] = defaultdict(list)
    for kit in arrivals:
        decision = decided.get(kit.kit_id)
        if decision is not None and decision.kind is ReleaseKind.WAIT:
            once = f"kit:{kit.kit_id}:1"  # an order may have had another kit before (ruling 3)
            texts[kit.service_id].append(OwedText(kit.order_id, kit.kit_id, kit.contact_id, ReceivedAtLab(), once))
    for service_id, owed in texts.items():
        owe_texts(session, owed, service=desk.services[service_id].service, now=desk.now, cipher=desk.cipher)


# ── Reading ──────────────────────────────────────────────────────────────────────────────────


def _gather(
    session: Session,
    kit_ids: Sequence[int],
    *,
    now: datetime,
    services: Services,
    cipher: Cipher,
    hold_expired: bool,
    standing: Mapping[int, Standing],
) -> list[_Case]:
    ids = as_ids(kit_ids)
    on = cursor(session)
    # Not EXISTS for mobile_holder: the planner would hash everybody's mobiles for it.
    on.execute(
        f"""
        SELECT k.id, k.service_id, k.order_id, k.contact_id, k.state, k.frozen_at IS NOT NULL, k.hold_until,
               k.dispatched_at, o.last_risk_on, p.ref, p.date_of_birth,
               c.text_consent AND NOT {OPTED_OUT.format("k.person_id")}, c.mobile_proved_at,
               coalesce((SELECT true FROM mobile_holder m WHERE m.person_id = k.person_id AND m.frozen_at IS NOT NULL
                         LIMIT 1), false),
               EXISTS (SELECT FROM quarantined_row q WHERE q.kit_id = k.id AND q.resolved_at IS NULL)
        FROM kit k
        JOIN kit_order o ON o.id = k.order_id
        JOIN person p ON p.id = k.person_id
        JOIN contact c ON c.id = k.contact_id
        WHERE k.id = ANY(%s::bigint[]) ORDER BY k.id
        """,  # noqa: S608 - a constant
        (ids,),
    )
    kits = on.fetchall()
    unread = [kit_id for kit_id in kit_ids if kit_id not in standing]
    if unread:
        standing = {**standing, **read_standing(on, unread)}
    aside: dict[int, list[CaseItemDue]] = defaultdict(list)
    on.execute(
        """
        SELECT kit_id, id, test, site, outcome FROM result_version
        WHERE kit_id = ANY(%s::bigint[]) AND effect = 'frozen'
        """,
        (ids,),
    )
    for kit_id, version_id, test, site, outcome in on.fetchall():
        aside[kit_id].append(CaseItemDue(version_id, Test(test), Site(site), Outcome(outcome)))
    told, in_touch = _already_sent(on, ids)
    read: dict[int, set[int]] = defaultdict(set)
    on.execute("SELECT kit_id, version_id FROM comment_review WHERE kit_id = ANY(%s::bigint[])", (ids,))
    for kit_id, version_id in on.fetchall():
        read[kit_id].add(version_id)

    today = london_day(now)
    found = []
    for row in kits:
        (kit_id, service_id, order_id, contact_id, state, frozen, hold_until) = row[:7]
        (dispatched_at, last_risk_on, person_ref, sealed, consent, proved_at, number_frozen, quarantine) = row[7:]
        service = services[service_id].service
        born_on = date.fromisoformat(cipher.decrypt("person", "date_of_birth", person_ref, sealed))
        requested, current, collected = standing[kit_id]
        found.append(
            _Case(
                kit_id,
                service_id,
                order_id,
                contact_id,
                KIT_STATES[state],
                hold_until,
                dispatched_at,
                last_risk_on,
                born_on,
                KitResults(
                    requested=requested,
                    current=current,
                    state=KIT_STATES[state],
                    told=kit_id in told,
                    in_touch=kit_id in in_touch,
                    frozen=frozen,
                    open_quarantine=quarantine,
                    comments_read=frozenset(read[kit_id]),
                    text_consent=consent,
                    number_fresh=not number_frozen
                    and (now - proved_at).days <= service.release.number_proof_max_age_days,
                    age_years=age_on(born_on, today),
                    minimum_age_years=service.orders.minimum_age_years,
                    hold_expired=hold_expired,
                ),
                digest(current),
                collected,
                tuple(aside[kit_id]),
            )
        )
    return found


def read_standing(on: Any, kit_ids: Collection[int]) -> dict[int, Standing]:
    """What stands about these kits, from the database."""
    ids = as_ids(kit_ids)
    requested: dict[int, set[Target]] = defaultdict(set)
    on.execute("SELECT kit_id, test, site FROM kit_test WHERE kit_id = ANY(%s::bigint[])", (ids,))
    for kit_id, test, site in on.fetchall():
        requested[kit_id].add(target_of(test, site))
    current: dict[int, dict[Target, Current]] = defaultdict(dict)
    collected: dict[int, dict[Target, datetime | None]] = defaultdict(dict)
    on.execute(
        """
        SELECT kit_id, test, site, outcome, current_version_id, corrected, note_review, collected_at
        FROM result_series WHERE kit_id = ANY(%s::bigint[]) ORDER BY id
        """,
        (ids,),
    )
    for kit_id, test, site, outcome, version_id, corrected, note_review, collected_at in on.fetchall():
        target = target_of(test, site)
        current[kit_id][target] = Current(_OUTCOME[outcome], version_id, corrected, note_review)
        collected[kit_id][target] = collected_at
    return {kit_id: Standing(frozenset(requested[kit_id]), current[kit_id], collected[kit_id]) for kit_id in kit_ids}


def _already_sent(on: Any, ids: str) -> tuple[set[int], set[int]]:
    """Kits with a result text that left or may have left, and kits whose person was asked to expect a call."""
    told: set[int] = set()
    in_touch: set[int] = set()
    on.execute("SELECT kit_id, purpose, state FROM text WHERE kit_id = ANY(%s::bigint[])", (ids,))
    for kit_id, purpose, state in on.fetchall():
        if purpose in RESULT_TEXTS and state not in _WAITING:
            told.add(kit_id)
        if purpose == TextPurpose.PLEASE_EXPECT_OUR_CALL and state != TextState.CANCELLED:
            in_touch.add(kit_id)
    return told, in_touch


# ── Writing ──────────────────────────────────────────────────────────────────────────────────


def _record(
    session: Session,
    decided: Sequence[tuple[_Case, ReleaseDecision]],
    *,
    triggers: Mapping[int, str],
    now: datetime,
    actor: str,
    services: Services,
) -> dict[int, int]:
    """Stores and audits the decisions that are new for their trigger, and returns the id of each by kit."""
    if not decided:
        return {}
    on = cursor(session)
    # The kits are locked: what is not there now can't come before our commit. The unique key stands behind it.
    on.execute(
        "SELECT kit_id, digest, trigger FROM release_decision WHERE kit_id = ANY(%s::bigint[])",
        (as_ids(case.kit_id for case, _ in decided),),
    )
    known = set(on.fetchall())
    rows = []
    fresh: dict[int, int] = {}
    for (case, decision), identity in zip(decided, next_ids(session, "release_decision", len(decided)), strict=True):
        trigger = triggers[case.kit_id]
        if (case.kit_id, case.stands_on, trigger) in known:
            continue
        fresh[case.kit_id] = identity
        # Words of ours and numbers: nothing in the JSON needs escaping.
        inputs = sorted([f'["{test}","{site}",{c.version_id}]' for (test, site), c in case.results.current.items()])
        rows.append(
            (
                str(identity), str(case.kit_id), case.service_id, decision.kind, as_array(decision.reasons),
                case.stands_on, f"[{','.join(inputs)}]", _purpose(decision), "t" if decision.case else "f", trigger,
                RULE_VERSION, str(services[case.service_id].version_id), actor, as_text(now),
            )
        )  # fmt: skip
    if not fresh:
        return fresh
    copy_text(session, "release_decision", _DECISION, rows)
    copy_text(
        session,
        "audit",
        ("service_id", "actor", "action", "subject", "subject_id", "because", "detail", "occurred_at"),
        [
            (
                case.service_id,
                actor,
                "release.decided",
                "kit",
                str(case.kit_id),
                "",
                f'{{"decision_id":{fresh[case.kit_id]},"kind":"{decision.kind}","rule":"{RULE_VERSION}"}}',
                as_text(now),
            )
            for case, decision in decided
            if case.kit_id in fresh
        ],
    )
    return fresh


_DECISION: Final = (
    "id", "kit_id", "service_id", "kind", "reasons", "digest", "inputs", "owes_text", "owes_case", "trigger",
    "rule_version", "service_version_id", "actor", "decided_at",
)  # fmt: skip


def _purpose(decision: ReleaseDecision) -> str:
    """The purpose of the text that a decision owes, as reconciliation looks for it; '' for none."""
    match decision.kind:
        case ReleaseKind.ALL_CLEAR:
            return TextPurpose.ALL_CLEAR.value
        case ReleaseKind.SWAB_POSITIVE:
            return TextPurpose.SWAB_POSITIVE.value
        case ReleaseKind.FAILED_SAMPLE:
            return TextPurpose.FAILED_SAMPLE.value
        case ReleaseKind.CALL | ReleaseKind.PERSON | ReleaseKind.WAIT:
            return TextPurpose.PLEASE_EXPECT_OUR_CALL.value if decision.neutral_text else ""


def _follow(
    session: Session,
    made: Sequence[tuple[_Case, ReleaseDecision, int]],
    *,
    service: Service,
    now: datetime,
    actor: str,
    cipher: Cipher,
    received: Mapping[int, datetime],
) -> None:
    """What each decision means: unsent older words are stopped, the new text or case is owed, the kit moves on."""
    # The neutral text says nothing that a new decision could change: once owed it stays owed.
    cancel_texts(session, [case.kit_id for case, _, _ in made], because=DECIDED_AGAIN, now=now, purposes=_DECIDED)
    texts = []
    cases = []
    for case, decision, decision_id in made:
        says = _says(case, decision, service)
        if says is not None:
            texts.append(
                OwedText(
                    case.order_id, case.kit_id, case.contact_id, says, _tells(case, says, decision_id), decision_id
                )
            )
        if decision.case:
            cases.append(_owed_case(case, decision, decision_id))
        if waits_for_a_person(decision) and _may_hear_of_delay(case.results):
            by = Delayed(london_day(due_at(kind_for(decision, case.results.outcomes()), now, service.clinic)))
            texts.append(OwedText(case.order_id, case.kit_id, case.contact_id, by, f"kit:{case.kit_id}:1"))
    owe_texts(session, texts, service=service, now=now, cipher=cipher)
    owe_cases(session, cases, service=service, now=now, actor=actor)
    _move_on(session, made, service=service, now=now, actor=actor, received=received)


def _may_hear_of_delay(kit: KitResults) -> bool:
    """Whoever agreed to texts, has been told nothing yet, and is in nobody's hands."""
    return kit.text_consent and not kit.told and not kit.in_touch


def _says(case: _Case, decision: ReleaseDecision, service: Service) -> TextValues | None:
    """The text a decision owes, or None. There is no way from a reactive to anything but ExpectCall (law 5)."""
    if decision.kind is ReleaseKind.ALL_CLEAR:
        return AllClear(tuple(sorted(case.results.requested)), _retest_on(case, case.results.requested, service))
    if decision.kind is ReleaseKind.SWAB_POSITIVE:
        return SwabPositive(frozenset(SwabInfection(test.value) for test in decision.found), decision.so_far)
    if decision.kind is ReleaseKind.FAILED_SAMPLE:
        failed = tuple(
            FailedTest(test, site, TellableFailure.of(result.outcome))
            for (test, site), result in sorted(case.results.current.items())
            if result.outcome in SAMPLE_FAILURES
        )
        negative = tuple(
            sorted(target for target, result in case.results.current.items() if result.outcome is Outcome.NEGATIVE)
        )
        return FailedSample(failed, negative, _retest_on(case, negative, service))
    return ExpectCall() if decision.neutral_text else None


def _tells(case: _Case, says: TextValues, decision_id: int) -> str:
    """A result text is unique by the versions it tells; the neutral one tells nothing and is one for each decision."""
    return f"decision:{decision_id}" if isinstance(says, ExpectCall) else case.stands_on


def _retest_on(case: _Case, tested: Collection[Target], service: Service) -> date | None:
    """From the earliest sample: the day from which a negative counts for every tested infection (H18; FEATURES 61)."""
    known = [at for target in tested if (at := case.collected_at.get(target)) is not None]
    sampled = min(known) if known else case.dispatched_at
    if sampled is None or not tested:
        return None
    return retest_from(
        tested,
        sampled_on=london_day(sampled),
        last_risk_on=case.last_risk_on,
        window_days=service.release.window_days,
    )


def _owed_case(case: _Case, decision: ReleaseDecision, decision_id: int) -> OwedCase:
    items = tuple(
        CaseItemDue(result.version_id, test, site, result.outcome)
        for (test, site), result in sorted(case.results.current.items())
        if result.outcome in NON_NEGATIVE
    )
    return OwedCase(
        key=result_case_key(case.kit_id),
        kind=kind_for(decision, case.results.outcomes()),
        order_id=case.order_id,
        kit_id=case.kit_id,
        decision_id=decision_id,
        items=items + case.kept_aside,
        detail={"reasons": [reason.value for reason in decision.reasons]},
    )


def _move_on(
    session: Session,
    made: Sequence[tuple[_Case, ReleaseDecision, int]],
    *,
    service: Service,
    now: datetime,
    actor: str,
    received: Mapping[int, datetime],
) -> None:
    """The decision becomes its kit's current one; a kit with every answer is reported, one that waits has a limit.

    A kit that results prove received is at the lab, reported or not (ruling 10; FEATURES 27). One change of the
    kit's row for all of this: each is written into every index of the table.
    """
    hours = 8 * service.release.partial_hold_working_days
    until = add_working_hours(now, hours, service.clinic.opens, service.clinic.closes)
    moved = {case.kit_id: case for case, decision, _ in made if _becomes_reported(case, decision)}
    rows = [
        (
            case.kit_id,
            decision_id,
            case.kit_id in moved,
            (case.hold_until or until) if decision.kind is ReleaseKind.WAIT else None,
            received.get(case.kit_id),
        )
        for case, decision, decision_id in made
    ]
    cursor(session).execute(
        """
        UPDATE kit SET current_decision_id = made.decision_id, hold_until = made.hold_until,
                       received_at = coalesce(kit.received_at, made.received_at),
                       state = CASE WHEN made.reported THEN 'reported'
                                    WHEN made.received_at IS NOT NULL AND kit.state IN ('dispatched', 'coming_back')
                                    THEN 'at_lab' ELSE kit.state END,
                       reported_at = coalesce(kit.reported_at, CASE WHEN made.reported THEN %s::timestamptz END),
                       closed_at = CASE WHEN made.reported THEN NULL ELSE kit.closed_at END,
                       closed_reason = CASE WHEN made.reported THEN '' ELSE kit.closed_reason END
        FROM unnest(%s::bigint[], %s::bigint[], %s::bool[], %s::timestamptz[], %s::timestamptz[])
             AS made (kit_id, decision_id, reported, hold_until, received_at)
        WHERE kit.id = made.kit_id
        """,
        (now, *(as_array(column) for column in zip(*rows, strict=True))),
    )
    copy_text(
        session,
        "kit_event",
        ("kit_id", "service_id", "kind", "detail", "actor", "occurred_at"),
        [(str(case.kit_id), case.service_id, "kit.reported", "{}", actor, as_text(now)) for case in moved.values()],
    )


_BEFORE_REPORTED: Final = frozenset({KitState.DISPATCHED, KitState.COMING_BACK, KitState.AT_LAB})
"""A lapsed, cancelled or replaced kit keeps its state: its case tells the rest (ruling 10)."""


def _becomes_reported(case: _Case, decision: ReleaseDecision) -> bool:
    """Whether every request has its answer, or a closed kit has news for a person."""
    if case.state is KitState.CLOSED:
        return decision.case
    current = case.results.current
    return (
        case.state in _BEFORE_REPORTED
        and bool(case.results.requested)
        and current.keys() >= case.results.requested
        and not any(result.outcome is Outcome.PENDING for result in current.values())
    )
