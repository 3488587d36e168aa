"""What the lab desk looks at: files by lab and day, rows that wait, what is late, one row beside its reading.

Counts and opaque ids only, but for one row at a time, whose look leaves an audit entry in the
transaction that reads (FEATURES 34, 36, 40; H10).
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlmodel import Session

from models.actions import audit
from models.actions.lab_file import Lying, unread_objects
from models.actions.lab_notice import NoticeLine, notices_since
from models.actions.seal import is_shut
from models.rules.errors import Code, ServiceError
from models.rules.kit import NO_SAMPLE_EXPECTED
from models.rules.secrets import Cipher
from models.rules.service import Services
from models.rules.staff import Action, Actor, check_may, may, services_where
from models.rules.vocabulary import Quarantine, Site, Test
from models.tables.bulk import cursor
from models.tables.lab_message import WayIn

DAYS_SHOWN: Final = 7
PAGE: Final = 50


class Late(StrEnum):
    """What should have come from a laboratory and has not."""

    NO_RESULT = "no_result"
    """At the laboratory, and some requested test has no final result."""
    NOT_BOOKED_IN = "not_booked_in"
    """Posted back, and the laboratory has said nothing of it."""
    NOT_ACKNOWLEDGED = "not_acknowledged"
    """The request for its tests has not left, or was never acknowledged by a laboratory that answers."""
    REQUEST_REFUSED = "request_refused"
    """The laboratory refused the request for its tests: whether it answers by contract or not."""
    REQUEST_IN_DOUBT = "request_in_doubt"
    """The request for its tests may have arrived or not: it is never sent again by itself."""


@dataclass(frozen=True, slots=True)
class LateKit:
    """One kit that should have had word from its laboratory by now."""

    what: Late
    kit_code: str
    service_id: str
    lab: str
    since: datetime
    accessions: tuple[str, ...]


def late_kits(session: Session, services: Services, *, now: datetime) -> list[LateKit]:
    """Every kit about which a laboratory owes a word, longest first, by each contract's days (FEATURES 34; H10).

    A request that was refused or is in doubt waits for nobody but a person: it shows at once, in every contract
    (H34). Of a kit of which no sample is expected any more, what a laboratory was told is nobody's to mend.
    """
    due = [
        (
            each.service.id,
            contract.lab,
            now - timedelta(days=contract.results_within_days),
            now - timedelta(days=contract.booked_in_within_days),
            now - timedelta(days=contract.acknowledged_within_days),
        )
        for each in services.values()
        for contract in each.service.labs
    ]
    on = cursor(session)
    on.execute(
        """
        WITH due AS (SELECT * FROM unnest(%s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[],
                                          %s::timestamptz[])
                     AS due (service_id, lab, received_before, posted_before, requested_before))
        SELECT 'no_result', k.code, k.service_id, k.lab, k.received_at,
               ARRAY(SELECT DISTINCT s.accession::text FROM result_series s WHERE s.kit_id = k.id ORDER BY 1)
        FROM kit k JOIN due USING (service_id, lab)
        WHERE k.state = 'at_lab' AND k.received_at < due.received_before AND EXISTS (
            SELECT FROM kit_test t WHERE t.kit_id = k.id AND NOT EXISTS (
                SELECT FROM result_series s
                WHERE s.kit_id = k.id AND s.test = t.test AND s.site = t.site AND s.outcome <> 'pending'))
        UNION ALL
        SELECT 'not_booked_in', k.code, k.service_id, k.lab, k.posted_back_at, ARRAY[]::text[]
        FROM kit k JOIN due USING (service_id, lab)
        WHERE k.state = 'coming_back' AND k.posted_back_at < due.posted_before
        UNION ALL
        SELECT CASE r.state WHEN 'refused' THEN 'request_refused' WHEN 'unsure' THEN 'request_in_doubt'
                            ELSE 'not_acknowledged' END,
               k.code, r.service_id, r.lab, coalesce(r.sent_at, r.owed_at), ARRAY[]::text[]
        FROM lab_request r JOIN due USING (service_id, lab) JOIN kit k ON k.id = r.kit_id
        WHERE (k.state <> ALL(%s) AND (r.state IN ('refused', 'unsure') OR (
                  r.state = 'sent' AND r.wants_answer AND coalesce(r.sent_at, r.owed_at) < due.requested_before)))
           OR (r.state IN ('owed', 'sending') AND coalesce(r.sent_at, r.owed_at) < due.requested_before)
        ORDER BY 5, 2
        """,
        (
            *(map(list, zip(*due, strict=True)) if due else ([], [], [], [], [])),
            [state.value for state in NO_SAMPLE_EXPECTED],
        ),
    )
    return [
        LateKit(Late(what), code, service_id, lab, since, tuple(accessions))
        for what, code, service_id, lab, since, accessions in on
    ]


# ── Files and rows ───────────────────────────────────────────────────────────────────────────


def labs_of(actor: Actor, services: Services) -> list[str]:
    """The laboratories of the services in which this person looks after laboratories.

    Raises ServiceError(NOT_ALLOWED) for somebody who looks after none anywhere.
    """
    mine = services_where(actor, Action.LIAISE_WITH_LABS)
    if not mine:
        raise ServiceError(Code.NOT_ALLOWED, "Your role does not allow this: ask your service manager.")
    return sorted({contract.lab for each in mine if each in services for contract in services[each].service.labs})


@dataclass(frozen=True, slots=True)
class LabDay:
    """What one laboratory sent on one London day."""

    lab: str
    day: date
    files: int
    held: int
    duplicates: int
    taken: int
    """Results that were used: stored or said again."""
    quarantined: int
    hours_median: float | None
    """From the laboratory's authorisation to the file's arrival here."""
    hours_p95: float | None


@dataclass(frozen=True, slots=True)
class HeldFile:
    """A file that was not used, or not all of it, and waits for somebody."""

    ref: str
    lab: str
    name: str
    because: Quarantine
    detail: str
    arrived_at: datetime


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows alike that wait: of one laboratory, for one reason."""

    lab: str
    reason: Quarantine
    count: int
    clinical: int
    """So many of them may be bad news."""
    oldest_due_at: datetime


@dataclass(frozen=True, slots=True)
class RowLine:
    """One row that waits. What it says is not here."""

    ref: str
    lab: str
    reason: Quarantine
    detail: str
    accession: str
    position: int
    test: Test | None
    site: Site | None
    owner_role: str
    due_at: datetime
    sent_back_at: datetime | None
    proposed_by: str
    """Who wishes to take it as a certain kit's, and waits for a second person."""


@dataclass(frozen=True, slots=True)
class LabDesk:
    """One look at the desk."""

    labs: Sequence[str]
    days: Sequence[LabDay]
    held: Sequence[HeldFile]
    groups: Sequence[RowGroup]
    rows: Sequence[RowLine]
    page: int
    pages: int
    late: Sequence[LateKit]
    unread: Sequence[Lying]
    """What lies in the store for more than a day and is not read."""
    notices: Sequence[NoticeLine]
    """What was wrong with single messages of late."""

    @property
    def refused(self) -> int:
        """So many different messages were refused, and nothing of them is here."""
        return sum(each.messages for each in self.notices if each.refused)


def lab_desk(
    session: Session,
    *,
    by: Actor,
    services: Services,
    now: datetime,
    lab: str = "",
    reason: Quarantine | None = None,
    page: int = 1,
) -> LabDesk:
    """Everything on the desk of this person, for one laboratory or all of theirs."""
    labs = labs_of(by, services)
    chosen = [lab] if lab in labs else labs
    mine = sorted(services_where(by, Action.LIAISE_WITH_LABS))
    groups = _groups(session, chosen, mine)
    total = sum(group.count for group in groups if reason in {None, group.reason})
    late = [each for each in late_kits(session, services, now=now) if each.service_id in mine and each.lab in chosen]
    since = now - timedelta(days=DAYS_SHOWN)
    return LabDesk(
        labs,
        _days(session, chosen, since),
        _held(session, chosen),
        groups,
        _rows(session, chosen, mine, reason, page),
        page,
        max(1, -(-total // PAGE)),
        late,
        unread_objects(session, labs=chosen),
        notices_since(session, chosen, since),
    )


def _days(session: Session, labs: Collection[str], since: datetime) -> list[LabDay]:
    on = cursor(session)
    on.execute(
        """
        WITH files AS (
            SELECT id, lab, (arrived_at AT TIME ZONE 'Europe/London')::date AS day, state, arrived_at,
                   rows_read - rows_detail - rows_replayed - rows_quarantined AS taken, rows_quarantined
            FROM lab_file WHERE lab = ANY(%s) AND arrived_at >= %s
        ), delays AS (
            SELECT f.lab, f.day,
                   percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (
                       ORDER BY extract(epoch FROM f.arrived_at - v.authorised_at) / 3600) AS hours
            FROM files f JOIN result_version v ON v.file_id = f.id
            WHERE v.authorised_at IS NOT NULL GROUP BY f.lab, f.day
        )
        SELECT f.lab, f.day, count(*), count(*) FILTER (WHERE f.state = 'held'),
               count(*) FILTER (WHERE f.state = 'duplicate'), sum(f.taken), sum(f.rows_quarantined),
               d.hours[1], d.hours[2]
        FROM files f LEFT JOIN delays d ON d.lab = f.lab AND d.day = f.day
        GROUP BY f.lab, f.day, d.hours ORDER BY f.day DESC, f.lab
        """,
        (list(labs), since),
    )
    return [LabDay(*row) for row in on]


def _held(session: Session, labs: Collection[str]) -> list[HeldFile]:
    """Held files about which nobody has said yet that they are settled: their case is open."""
    on = cursor(session)
    on.execute(
        """
        SELECT f.ref, f.lab, f.object_key, f.held_because, f.detail, f.arrived_at FROM lab_file f
        WHERE f.state = 'held' AND f.lab = ANY(%s)
          AND EXISTS (SELECT FROM clinic_case c WHERE c.key = 'file:' || f.id AND c.closed_at IS NULL)
        ORDER BY f.id LIMIT %s
        """,
        (list(labs), PAGE),
    )
    return [
        HeldFile(ref, lab, key.rsplit("/", 1)[-1], Quarantine(because), detail, arrived_at)
        for ref, lab, key, because, detail, arrived_at in on
    ]


_MINE: Final = """
    q.resolved_at IS NULL AND q.lab = ANY(%(labs)s) AND (q.service_id = '' OR q.service_id = ANY(%(services)s))
"""
"""Rows that wait at these laboratories, of these services or of no kit of ours."""


def _groups(session: Session, labs: Collection[str], services: Collection[str]) -> list[RowGroup]:
    on = cursor(session)
    on.execute(
        f"""
        SELECT q.lab, q.reason, count(*), count(*) FILTER (WHERE q.may_be_non_negative), min(q.due_at)
        FROM quarantined_row q WHERE {_MINE} GROUP BY q.lab, q.reason ORDER BY min(q.due_at)
        """,  # noqa: S608 - a constant
        {"labs": list(labs), "services": list(services)},
    )
    return [RowGroup(lab, Quarantine(reason), count, clinical, due) for lab, reason, count, clinical, due in on]


def _rows(
    session: Session, labs: Collection[str], services: Collection[str], reason: Quarantine | None, page: int
) -> list[RowLine]:
    on = cursor(session)
    on.execute(
        f"""
        SELECT q.ref, q.lab, q.reason, q.detail, q.accession, q.position, q.test, q.site, q.owner_role, q.due_at,
               q.sent_back_at, coalesce(a.proposed_by, '')
        FROM quarantined_row q LEFT JOIN row_attachment a ON a.row_id = q.id AND a.settled_at IS NULL
        WHERE {_MINE} AND (%(reason)s = '' OR q.reason = %(reason)s) ORDER BY q.due_at, q.id
        LIMIT %(page)s OFFSET %(skip)s
        """,  # noqa: S608 - a constant
        {
            "labs": list(labs),
            "services": list(services),
            "reason": reason or "",
            "page": PAGE,
            "skip": PAGE * (page - 1),
        },
    )
    return [_line(row) for row in on]


def _line(row: Sequence[Any]) -> RowLine:
    ref, lab, reason, detail, accession, position, test, site, owner, due, sent_back_at, proposed_by = row
    return RowLine(
        ref,
        lab,
        Quarantine(reason),
        detail,
        accession,
        position,
        Test(test) if test else None,
        Site(site) if site else None,
        owner,
        due,
        sent_back_at,
        proposed_by,
    )


# ── One row ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class RowView:
    """One row in quarantine, and what this person may do about it. What it says is not here."""

    id: int
    line: RowLine
    row_key: str
    file_id: int
    file_name: str
    arrived_at: datetime
    kit_code: str
    service_id: str
    may_read: bool
    """Rows that may be bad news are for those who may read results."""
    may_approve: bool
    may_see_person: bool
    proposed_kit: str
    resolved_at: datetime | None
    resolution: str
    sealed: bool
    """Its kit's person is sealed to whoever looks: it names no kit."""


def row_view(session: Session, ref: str, *, by: Actor, now: datetime, services: Services) -> RowView:
    """One row for somebody who looks after its laboratory.

    Of a kit whose record is sealed to them it names no kit and is not to be read, so that it is still sent back.
    Raises ServiceError(NOT_FOUND) for any other.
    """
    labs = labs_of(by, services)
    on = cursor(session)
    on.execute(
        """
        SELECT q.ref, q.lab, q.reason, q.detail, q.accession, q.position, q.test, q.site, q.owner_role, q.due_at,
               q.sent_back_at, coalesce(a.proposed_by, ''),
               q.id, q.row_key, q.file_id, f.object_key, f.arrived_at, coalesce(k.code, ''), q.service_id,
               q.may_be_non_negative, coalesce(p.code, ''), q.resolved_at, q.resolution,
               k.person_id, p.person_id
        FROM quarantined_row q JOIN lab_file f ON f.id = q.file_id LEFT JOIN kit k ON k.id = q.kit_id
        LEFT JOIN row_attachment a ON a.row_id = q.id AND a.settled_at IS NULL LEFT JOIN kit p ON p.id = a.kit_id
        WHERE q.ref = %s
        """,
        (ref,),
    )
    row = on.fetchone()
    mine = services_where(by, Action.LIAISE_WITH_LABS)
    if row is None or row[1] not in labs or (row[18] and row[18] not in mine):
        raise ServiceError(Code.NOT_FOUND, "There is no such row: go back to the laboratories.")
    row_id, row_key, file_id, key, arrived_at, kit_code, service_id, may_be_bad, proposed, *rest = row[12:]
    resolved_at, resolution, person_id, proposed_person_id = rest
    sealed = is_shut(session, person_id, by, now)
    if is_shut(session, proposed_person_id, by, now):
        proposed = ""
    where = service_id or _looks_after(row[1], mine, services)
    return RowView(
        row_id,
        _line(row[:12]),
        row_key,
        file_id,
        key.rsplit("/", 1)[-1],
        arrived_at,
        "" if sealed else kit_code,
        where,
        not sealed and may(by, Action.READ_LAB_ROWS, where) and (not may_be_bad or may(by, Action.READ_RESULTS, where)),
        may(by, Action.ATTACH_ROWS, where),
        may(by, Action.REVEAL_CONTACT, where) and bool(service_id or _is_the_only_one(row[1], services)),
        proposed,
        resolved_at,
        resolution,
        sealed,
    )


def _is_the_only_one(lab: str, services: Services) -> bool:
    """Whether a lab's unplaced rows can be of one council's people alone; else nobody is shown whose they are."""
    return sum(each.service.contract(lab) is not None for each in services.values()) == 1


def _looks_after(lab: str, mine: Collection[str], services: Services) -> str:
    """The service that looks after rows of no kit of ours: the first of this person's with this laboratory."""
    return min(each for each in mine if each in services and services[each].service.contract(lab) is not None)


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as the laboratory sent it: its fields by name. Shown once; every look is recorded."""

    fields: Sequence[tuple[str, str]]


_PERSON: Final = frozenset({"family_name", "dob", "nhs_number", "person_notes"})
_NOT_SHOWN: Final = frozenset({"position", "row_key", "fault", "has_person", "order_no"})


def read_row(session: Session, view: RowView, *, by: Actor, now: datetime, cipher: Cipher) -> RawRow:
    """Decrypts one row, with its audit entry. Who may not learn who somebody is sees only that it was given.

    Raises ServiceError(NOT_ALLOWED) for a row that may be bad news to somebody who may not read results.
    """
    if not view.may_read:
        raise ServiceError(Code.NOT_ALLOWED, "Your role does not allow this: ask a clinician to read the row.")
    on = cursor(session)
    on.execute("SELECT raw FROM quarantined_row WHERE id = %s", (view.id,))
    raw = json.loads(cipher.decrypt("quarantined_row", "raw", view.line.ref, on.fetchone()[0]))  # type: ignore[index]
    audit.record(
        session,
        action="lab_row.read",
        subject="quarantined_row",
        subject_id=view.id,
        actor=by.audit_name,
        now=now,
        service_id=view.service_id,
    )
    shown = []
    for name, value in raw.items():
        text = _flat(value)
        if text and name not in _NOT_SHOWN:
            shown.append((name, "given, and not shown to you" if name in _PERSON and not view.may_see_person else text))
    return RawRow(tuple(shown))


def _flat(value: object) -> str:
    """Any value of a row as one line: codes with their words, repetitions apart."""
    if isinstance(value, list):
        if len(value) == 3 and all(isinstance(part, str) for part in value) and value[0] != value[1]:  # noqa: PLR2004
            system, code, text = value
            return " ".join(
                filter(None, (code, f"“{text}”" if text and code else text, f"({system})" if system else ""))
            )
        return "; ".join(filter(None, map(_flat, value)))
    return str(value) if value not in (None, False) else ""


def send_back(session: Session, view: RowView, *, by: Actor, now: datetime) -> None:
    """Puts a row on the list that its laboratory is sent. It waits here until the laboratory has mended it."""
    check_may(by, Action.LIAISE_WITH_LABS, view.service_id)
    on = cursor(session)
    on.execute(
        """
        UPDATE quarantined_row SET sent_back_at = %s, sent_back_by = %s
        WHERE id = %s AND resolved_at IS NULL AND sent_back_at IS NULL
        """,
        (now, by.audit_name, view.id),
    )
    if on.rowcount:
        audit.record(
            session,
            action="lab_row.sent_back",
            subject="quarantined_row",
            subject_id=view.id,
            actor=by.audit_name,
            now=now,
            service_id=view.service_id,
        )


@dataclass(frozen=True, slots=True)
class SentBack:
    """One row of the list that a laboratory is sent, in the laboratory's own identifiers. Nothing about a person."""

    file: str
    """As the laboratory named it; '' for what came as a message, of which the file is ours."""
    line: str
    """Of its file; of a FHIR document the number of the resource; '' for an HL7 message that came alone."""
    accession: str
    reason: str
    what_to_mend: str
    sent_back_on: str
    message_id: str
    """MSH-10 or Bundle.identifier; '' in a table."""
    correlation_id: str
    """Under which it came over HTTP. Over MLLP that is MSH-10."""


def list_for_lab(session: Session, lab: str, *, by: Actor, services: Services, now: datetime) -> list[SentBack]:
    """What a laboratory is sent: its own names for each row, the word, what to mend. Nothing about a person.

    Audited as an export. Raises ServiceError(NOT_FOUND) for a laboratory that is not this person's.
    """
    if lab not in labs_of(by, services):
        raise ServiceError(Code.NOT_FOUND, "There is no such laboratory.")
    on = cursor(session)
    on.execute(
        f"""
        SELECT f.object_key, q.position, q.accession, q.reason, q.detail, q.sent_back_at, q.message_id, m.way, m.key
        FROM quarantined_row q JOIN lab_file f ON f.id = q.file_id
        LEFT JOIN LATERAL (
            SELECT way, key FROM lab_message_in
            WHERE lab = f.lab AND object_key = f.object_key AND object_key <> '' LIMIT 1
        ) m ON true
        WHERE {_MINE} AND q.sent_back_at IS NOT NULL ORDER BY q.id
        """,  # noqa: S608 - a constant
        {"labs": [lab], "services": sorted(services_where(by, Action.LIAISE_WITH_LABS))},
    )
    found = [
        SentBack(
            file="" if way else key.rsplit("/", 1)[-1],
            line="" if way == WayIn.MLLP else str(position),
            accession=accession,
            reason=reason,
            what_to_mend=detail,
            sent_back_on=sent_back_at.date().isoformat(),
            message_id=message_id,
            correlation_id=its_key if way == WayIn.HTTP else "",
        )
        for key, position, accession, reason, detail, sent_back_at, message_id, way, its_key in on
    ]
    audit.record(
        session, action="lab_rows.listed", subject="lab", subject_id=0, actor=by.audit_name, now=now, lab=lab,
        rows=len(found),
    )  # fmt: skip
    return found
