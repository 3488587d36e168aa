"""What staff do to rows in quarantine: read them again, send them back, take one as a certain kit's.

A row keeps its history: one that is read again is resolved, and what it comes to is a version, or a new
row that waits for its new reason. Nothing is ever taken without the whole way through: match, dedupe,
version, decide (laws 1-6). Every act names a person and leaves an audit entry.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from sqlmodel import Session

from models.actions import audit, release
from models.actions.owed import result_case_key
from models.actions.result import Desk, ReadMessage, Stored, store_readings
from models.actions.seal import break_seal, check_unsealed, is_shut
from models.rules.clinic import CaseKind, CaseOutcome
from models.rules.errors import Code, ServiceError
from models.rules.kit import normalise_kit_code, normalise_tube_code
from models.rules.lab import LabRow
from models.rules.quarantine import SENTENCES
from models.rules.reading import Detail, Finding, Quarantined, Reading
from models.rules.result import interpret
from models.rules.staff import Action, Actor, check_may
from models.rules.vocabulary import Outcome, Quarantine, ReportStatus, Site, Test
from models.tables.bulk import cursor

READ_AGAIN: Final = "read_again"
"""`resolution` of a row that was read again under a newer map."""

_DIFFERS: Final = "Under the lab's present map this row reads differently from what is stored: compare them."

Place = tuple[int, str]
"""Position and key of a row in its file."""


class WaitingRow(NamedTuple):
    """One row in quarantine."""

    id: int
    position: int
    row_key: str
    reason: Quarantine
    kit_id: int | None
    service_id: str

    @property
    def place(self) -> Place:
        """Where it stands in its file."""
        return self.position, self.row_key


@dataclass(slots=True)
class Again:
    """What reading rows again came to: counts, and files by reference."""

    looked_at: int = 0
    used: int = 0
    """Rows that are a version, a repeat or a detail now."""
    other_reason: int = 0
    """Rows that still wait, now for another reason."""
    as_before: int = 0
    decided: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    """How often each outcome was read, held ones apart: what a dry run is asked for."""
    unread: dict[str, str] = field(default_factory=dict)
    """Files whose rows wait as before because the file could not be read, and why."""

    def add(self, other: "Again") -> None:
        """Adds another file's counts."""
        self.looked_at += other.looked_at
        self.used += other.used
        self.other_reason += other.other_reason
        self.as_before += other.as_before
        self.decided += other.decided
        for outcome, count in other.outcomes.items():
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count


@dataclass(frozen=True, slots=True)
class Which:
    """Which rows that wait are meant: all of them, or those of a laboratory, for a reason, one, of some services."""

    lab: str = ""
    reason: Quarantine | None = None
    row_ref: str = ""
    service_ids: Collection[str] | None = None
    """Rows of no kit of ours are everybody's who looks after their laboratory."""

    def binds(self) -> dict[str, object]:
        """For `_CHOSEN`."""
        services = None if self.service_ids is None else [*self.service_ids, ""]
        return {"lab": self.lab, "reason": self.reason or "", "ref": self.row_ref, "services": services}


_CHOSEN: Final = """
    resolved_at IS NULL AND (%(lab)s = '' OR lab = %(lab)s) AND (%(reason)s = '' OR reason = %(reason)s)
    AND (%(ref)s = '' OR ref = %(ref)s) AND (%(services)s::text[] IS NULL OR service_id = ANY(%(services)s))
"""


def files_with_rows(session: Session, which: Which) -> dict[int, str]:
    """The files in which such rows wait, oldest first, and the lab of each."""
    on = cursor(session)
    on.execute(
        f"SELECT DISTINCT file_id, lab FROM quarantined_row WHERE {_CHOSEN} ORDER BY file_id",  # noqa: S608 - a constant
        which.binds(),
    )
    return dict(on.fetchall())


def lock_file(session: Session, file_id: int) -> None:
    """Whoever takes up rows of a file has them alone: its row is locked before any row or kit."""
    cursor(session).execute("SELECT id FROM lab_file WHERE id = %s FOR UPDATE", (file_id,))


def rows_waiting(session: Session, file_id: int, which: Which) -> list[WaitingRow]:
    """The rows of a file that wait. The file is locked."""
    lock_file(session, file_id)
    on = cursor(session)
    on.execute(
        f"""
        SELECT id, position, row_key, reason, kit_id, service_id FROM quarantined_row
        WHERE file_id = %(file)s AND {_CHOSEN} ORDER BY id
        """,  # noqa: S608 - a constant
        {"file": file_id, **which.binds()},
    )
    return [
        WaitingRow(row_id, position, row_key, Quarantine(why), kit_id, service_id)
        for row_id, position, row_key, why, kit_id, service_id in on
    ]


def read_again(session: Session, messages: Iterable[ReadMessage], rows: Sequence[WaitingRow], desk: Desk) -> Again:
    """Takes rows that read differently now through the whole way, and leaves the others as they are.

    `messages` are whole messages of one file, read under the desk's map: a row is never read apart from
    its neighbours. A neighbour that is stored already and reads differently now is quarantined, beside
    what is stored. Doing it again changes nothing.
    """
    waiting: dict[Place, list[WaitingRow]] = defaultdict(list)
    for row in rows:
        waiting[row.place].append(row)
    tally = Again(looked_at=len(waiting))
    chosen = _chosen(session, messages, waiting, desk.file.id)
    _lock_kits(session, rows)
    while chosen:
        with session.begin_nested() as attempt:
            places = {r.place for each in chosen for reading in each.readings for r in waiting.get(_place(reading), ())}
            resolved = [row for place in places for row in waiting[place]]
            _resolve(session, resolved, desk)
            stored = store_readings(session, chosen, desk)
            in_vain = {
                place for place in places if place in stored.kept and stored.kept[place] is waiting[place][0].reason
            }
            if not in_vain:
                _settle(session, stored, resolved, desk, tally)
                tally.other_reason = len(places & stored.kept.keys())
                tally.used = len(places) - tally.other_reason
                tally.outcomes = _outcomes(chosen, places - stored.kept.keys())
                break
            attempt.rollback()
        # These would only wait again for the same reason: they keep their row, their owner and their due time.
        chosen = _without(chosen, in_vain)
    tally.as_before = tally.looked_at - tally.used - tally.other_reason
    return tally


def _place(reading: Reading) -> Place:
    return reading.position, reading.row_key


def _chosen(
    session: Session, messages: Iterable[ReadMessage], waiting: Mapping[Place, Sequence[WaitingRow]], file_id: int
) -> list[ReadMessage]:
    """The readings that may change something: of rows that wait and read differently now, and of their neighbours."""
    changed = [
        (each, wanted)
        for each in messages
        if (
            wanted := [r for r in each.readings if _place(r) in waiting and not _reads_as_before(r, waiting[_place(r)])]
        )
    ]
    stored = _stored_of(session, file_id, [row.position for each, _ in changed for row in each.message.rows])
    chosen = []
    for each, wanted in changed:
        differ = [r for r in each.readings if _place(r) in stored and not _says_what_is_stored(r, stored[_place(r)])]
        chosen.append(ReadMessage(each.message, wanted + [_in_doubt(r) for r in differ]))
    return chosen


def _reads_as_before(reading: Reading, rows: Sequence[WaitingRow]) -> bool:
    return isinstance(reading, Quarantined) and reading.reason in {row.reason for row in rows}


def _says_what_is_stored(reading: Reading, stored: Mapping[tuple[Test, Site], tuple[Outcome, ReportStatus]]) -> bool:
    if isinstance(reading, Finding):
        return stored.get((reading.test, reading.site)) == (reading.outcome, reading.status)
    return isinstance(reading, Detail)


def _in_doubt(reading: Reading) -> Reading:
    """A row whose stored result no longer stands as it was read: a person compares."""
    if not isinstance(reading, Finding):
        return reading
    values = {name: value for name, value in reading._asdict().items() if name in Quarantined._fields}
    return Quarantined(**values, reason=Quarantine.CONFLICTING_VALUES, detail=_DIFFERS, may_be_non_negative=True)


def _stored_of(
    session: Session, file_id: int, positions: Sequence[int]
) -> dict[Place, dict[tuple[Test, Site], tuple[Outcome, ReportStatus]]]:
    """What the rows of a file at these positions said, of those that were used."""
    on = cursor(session)
    on.execute(
        """
        SELECT position, row_key, test, site, outcome, status FROM result_version
        WHERE file_id = %(file)s AND position = ANY(%(at)s)
        UNION ALL
        SELECT r.position, r.row_key, v.test, v.site, v.outcome, v.status
        FROM result_repeat r JOIN result_version v ON v.id = r.version_id
        WHERE r.file_id = %(file)s AND r.position = ANY(%(at)s)
        """,
        {"file": file_id, "at": list(positions)},
    )
    found: dict[Place, dict[tuple[Test, Site], tuple[Outcome, ReportStatus]]] = defaultdict(dict)
    for position, row_key, test, site, outcome, status in on:
        found[position, row_key][Test(test), Site(site)] = (Outcome(outcome), ReportStatus(status))
    return found


def _lock_kits(session: Session, rows: Sequence[WaitingRow]) -> None:
    """In ascending id, before anything is decided about them (ruling 2)."""
    ids = [row.kit_id for row in rows if row.kit_id is not None]
    cursor(session).execute("SELECT id FROM kit WHERE id = ANY(%s) ORDER BY id FOR UPDATE", (ids,))


def _without(chosen: Sequence[ReadMessage], places: set[Place]) -> list[ReadMessage]:
    left = [ReadMessage(each.message, [r for r in each.readings if _place(r) not in places]) for each in chosen]
    return [each for each in left if each.readings]


def _outcomes(chosen: Sequence[ReadMessage], places: set[Place]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for each in chosen:
        for reading in each.readings:
            if isinstance(reading, Finding) and _place(reading) in places:
                counts[reading.word] += 1
    return dict(counts)


def _resolve(session: Session, rows: Sequence[WaitingRow], desk: Desk, how: str = READ_AGAIN) -> None:
    cursor(session).execute(
        "UPDATE quarantined_row SET resolved_at = %s, resolution = %s WHERE id = ANY(%s)",
        (desk.now, how, [row.id for row in rows]),
    )
    for row in rows:
        audit.record(
            session,
            action=f"lab_row.{how}",
            subject="quarantined_row",
            subject_id=row.id,
            actor=desk.actor,
            now=desk.now,
            service_id=row.service_id,
            lab_map_version=desk.file.lab_map_version_id,
        )


# ── Taken as a certain kit's, by two people ──────────────────────────────────────────────────

ATTACHED: Final = "attached"
"""`resolution` of a row that two people took as a certain kit's."""

ATTACHABLE: Final = frozenset(
    {Quarantine.BAD_KIT_ID, Quarantine.UNKNOWN_KIT, Quarantine.IDENTITY_MISSING, Quarantine.TUBE_MISMATCH}
)
"""Rows of which only the kit or tube id may be wrong. Where the person may be another, nobody may attach (law 1)."""

_BY_HAND: Final = (
    "The id on this row was wrong or missing. Two people took it as this kit's: compare it before release."
)


def propose_attachment(
    session: Session, row_ref: str, messages: Iterable[ReadMessage], code: str, *, by: Actor, desk: Desk
) -> None:
    """Somebody wishes to take a row as the kit's of this kit or tube id. A second person must agree.

    Everything else must agree by itself: full date of birth, family name, laboratory, request, dates.
    Raises ServiceError with one sentence where it does not: BAD_INPUT, NOT_FOUND or NOT_NOW; and SEALED before
    anything is compared, because to hear that all agrees is to learn a date of birth that is hidden (H26).
    """
    row = _attachable(session, row_ref)
    kit = _kit_of(session, code, by)
    check_may(by, Action.LIAISE_WITH_LABS, kit.service_id)
    check_unsealed(session, kit.person_id, by, desk.now)
    tube = normalise_tube_code(code) or ""
    _try(session, row, messages, kit.code, tube, desk)
    on = cursor(session)
    on.execute(
        """
        INSERT INTO row_attachment (row_id, kit_id, tube_code, proposed_by, proposed_at, approved, settled_by)
        VALUES (%s, %s, %s, %s, %s, false, '') ON CONFLICT DO NOTHING
        """,
        (row.id, kit.id, tube, by.audit_name, desk.now),
    )
    if not on.rowcount:
        raise ServiceError(Code.CONFLICT, "Somebody has proposed a kit for this row already: look at it again.")
    _audit_attachment(session, "lab_row.attachment_proposed", row, kit, by, desk)


def settle_attachment(
    session: Session, row_ref: str, messages: Iterable[ReadMessage], *, approve: bool, by: Actor, desk: Desk
) -> None:
    """A second person agrees, and the row is taken the whole way; or anybody entitled takes the wish back.

    The result is held for a clinician like any with an unread comment: nothing leaves by itself, because the
    lab's own id was not this kit's. Who agrees knows to which kit: of a sealed record that takes a reason first.
    Raises ServiceError(NOT_NOW | NOT_ALLOWED | SEALED).
    """
    row = _attachable(session, row_ref)
    wish = _wish_of(session, row)
    check_may(by, Action.ATTACH_ROWS if approve else Action.LIAISE_WITH_LABS, wish.kit.service_id)
    if approve and wish.proposed_by == by.audit_name:
        raise ServiceError(Code.NOT_NOW, "You proposed this kit: a second person must agree.")
    if approve:
        check_unsealed(session, wish.kit.person_id, by, desk.now)
    cursor(session).execute(
        "UPDATE row_attachment SET approved = %s, settled_by = %s, settled_at = %s WHERE id = %s",
        (approve, by.audit_name, desk.now, wish.id),
    )
    what = "lab_row.attachment_approved" if approve else "lab_row.attachment_declined"
    _audit_attachment(session, what, row, wish.kit, by, desk)
    if approve:
        of_kits = [row._replace(kit_id=wish.kit.id), row]
        _lock_kits(session, of_kits)
        stored = _attach(session, row, messages, wish.kit.code, wish.tube_code, desk)
        _settle(session, stored, of_kits, desk, Again())


def open_sealed_kit(session: Session, row_ref: str, code: str, *, because: str, by: Actor, now: datetime) -> None:
    """Breaks the seal of the kit that somebody wishes to propose for a row, or, without a code, of the proposed one.

    Raises ServiceError(BAD_INPUT) without a reason. Of a record that is open to them already nothing is written.
    """
    row = _attachable(session, row_ref)
    kit = _kit_of(session, code, by) if code else _wish_of(session, row).kit
    check_may(by, Action.LIAISE_WITH_LABS, kit.service_id)
    if is_shut(session, kit.person_id, by, now):
        break_seal(session, person_id=kit.person_id, service_id=kit.service_id, because=because, by=by, now=now)


def _attachable(session: Session, row_ref: str) -> WaitingRow:
    on = cursor(session)
    on.execute(
        """
        SELECT id, position, row_key, reason, kit_id, service_id FROM quarantined_row
        WHERE ref = %s AND resolved_at IS NULL FOR UPDATE
        """,
        (row_ref,),
    )
    found = on.fetchone()
    if found is None:
        raise ServiceError(Code.NOT_NOW, "This row waits no longer: look at it again.")
    row = WaitingRow(*found)._replace(reason=Quarantine(found[3]))
    if row.reason not in ATTACHABLE:
        raise ServiceError(
            Code.NOT_NOW, "Only a row whose kit or tube id is wrong or missing can be attached to a kit."
        )
    return row


class _Kit(NamedTuple):
    """A kit that a row may be of."""

    id: int
    code: str
    service_id: str
    person_id: int


class _Wish(NamedTuple):
    """Somebody's wish to take a row as a kit's, that nobody has settled."""

    id: int
    proposed_by: str
    tube_code: str
    kit: _Kit


def _kit_of(session: Session, code: str, by: Actor) -> _Kit:
    """The kit behind a kit or tube id, as somebody typed it."""
    tube = normalise_tube_code(code)
    kit_code = tube[:-1] if tube else normalise_kit_code(code)
    if kit_code is None:
        raise ServiceError(Code.BAD_INPUT, "This is no kit or tube id: check each of its characters.")
    on = cursor(session)
    on.execute("SELECT id, code, service_id, person_id FROM kit WHERE code = %s", (kit_code,))
    found = on.fetchone()
    if found is None or found[2] not in by.service_ids:
        raise ServiceError(Code.NOT_FOUND, "There is no such kit in your services.")
    return _Kit(*found)


def _wish_of(session: Session, row: WaitingRow) -> _Wish:
    """The wish that waits for a second person, locked. Raises ServiceError(NOT_NOW) where there is none."""
    on = cursor(session)
    on.execute(
        """
        SELECT a.id, a.proposed_by, a.tube_code, k.id, k.code, k.service_id, k.person_id
        FROM row_attachment a JOIN kit k ON k.id = a.kit_id WHERE a.row_id = %s AND a.settled_at IS NULL FOR UPDATE OF a
        """,
        (row.id,),
    )
    found = on.fetchone()
    if found is None:
        raise ServiceError(Code.NOT_NOW, "Nobody proposes a kit for this row: look at it again.")
    wish_id, proposed_by, tube_code, *kit = found
    return _Wish(wish_id, proposed_by, tube_code, _Kit(*kit))


def _try(
    session: Session, row: WaitingRow, messages: Iterable[ReadMessage], kit_code: str, tube: str, desk: Desk
) -> None:
    """Goes the whole way and takes everything back: what does not agree is said now, to who proposes it."""
    with session.begin_nested() as attempt:
        _attach(session, row, messages, kit_code, tube, desk)
        attempt.rollback()


def _attach(
    session: Session, row: WaitingRow, messages: Iterable[ReadMessage], kit_code: str, tube: str, desk: Desk
) -> Stored:
    """Reads one row with these ids in place of its own, beside its whole message, and stores what it says."""
    message = next((each.message for each in messages if any(_stands_at(r, row) for r in each.message.rows)), None)
    if message is None:
        raise ServiceError(Code.NOT_FOUND, "The file of this row can't be found: ask whoever runs kitpost.")
    tubes = (tube,) if tube else ()
    rows = tuple(
        each._replace(kit_refs=(kit_code,), tube_refs=tubes) if _stands_at(each, row) else each for each in message.rows
    )
    wanted: list[Reading] = []
    for reading in interpret(message._replace(rows=rows), desk.lab_map):
        if _place(reading) == row.place:
            if not isinstance(reading, Finding):
                detail = reading.detail if isinstance(reading, Quarantined) else "It is no result of its own."
                raise ServiceError(Code.NOT_NOW, f"With this kit the row could still not be used. {detail}")
            comment = "\n".join(filter(None, (_BY_HAND, reading.comment)))
            wanted.append(reading._replace(note_review=True, comment=comment))
    _resolve(session, [row], desk, ATTACHED)
    stored = store_readings(session, [ReadMessage(message._replace(rows=rows), wanted)], desk)
    if stored.kept:
        why = SENTENCES[next(iter(stored.kept.values()))].clinician
        raise ServiceError(Code.NOT_NOW, f"This row can't be taken as this kit's. {why}")
    return stored


def _stands_at(raw: LabRow, row: WaitingRow) -> bool:
    return (raw.position, raw.row_key) == row.place


def _audit_attachment(session: Session, action: str, row: WaitingRow, kit: _Kit, by: Actor, desk: Desk) -> None:
    audit.record(
        session,
        action=action,
        subject="quarantined_row",
        subject_id=row.id,
        actor=by.audit_name,
        now=desk.now,
        service_id=kit.service_id,
        kit_id=kit.id,
    )


# ── What follows ─────────────────────────────────────────────────────────────────────────────


def _settle(session: Session, stored: Stored, rows: Sequence[WaitingRow], desk: Desk, tally: Again) -> None:
    """Decides about the kits, and closes the cases about which nothing is left to do and nobody has done anything."""
    kits = {row.kit_id: f"{READ_AGAIN}:{row.id}" for row in rows if row.kit_id is not None}
    decided = release.decide_stored(session, stored, desk, also=kits, in_touch=_in_hand(session, [*kits]))
    tally.decided = len(decided)
    settled = [result_case_key(kit_id) for kit_id, decision in decided.items() if not decision.case]
    _close_untouched(session, [CaseKind.RESULT_REVIEW], settled, desk)
    of_the_lab = {f"file:{desk.file.id}:{row.reason}:{role}" for row in rows for role in _LAB_ROLES}
    _close_untouched(session, [CaseKind.LAB_ROW], sorted(of_the_lab - _still_waiting(session, desk.file.id)), desk)


_LAB_ROLES: Final = ("clinician", "lab_liaison")


def _in_hand(session: Session, kit_ids: Sequence[int]) -> set[int]:
    """Kits whose results case somebody holds or has tried to work, or that is about more than an unread row."""
    on = cursor(session)
    on.execute(
        """
        SELECT c.kit_id FROM clinic_case c WHERE c.key = ANY(%s) AND c.closed_at IS NULL
          AND (c.kind <> 'result_review' OR c.assignee <> ''
               OR EXISTS (SELECT FROM case_attempt a WHERE a.case_id = c.id))
        """,
        ([result_case_key(kit_id) for kit_id in kit_ids],),
    )
    return {kit_id for (kit_id,) in on}


def _still_waiting(session: Session, file_id: int) -> set[str]:
    """Keys of the lab's cases of a file in which a row still waits."""
    on = cursor(session)
    on.execute(
        """
        SELECT DISTINCT 'file:' || file_id || ':' || reason || ':' || owner_role FROM quarantined_row
        WHERE file_id = %s AND kit_id IS NULL AND resolved_at IS NULL
        """,
        (file_id,),
    )
    return {key for (key,) in on}


def _close_untouched(session: Session, kinds: Sequence[CaseKind], keys: Sequence[str], desk: Desk) -> None:
    on = cursor(session)
    on.execute(
        """
        UPDATE clinic_case c SET closed_at = %s, closed_by = %s, outcome = %s, version = version + 1
        WHERE c.key = ANY(%s) AND c.kind = ANY(%s) AND c.closed_at IS NULL AND c.assignee = ''
          AND NOT EXISTS (SELECT FROM case_attempt a WHERE a.case_id = c.id)
        RETURNING id, service_id
        """,
        (desk.now, desk.actor, CaseOutcome.RESOLVED_WITH_LAB, list(keys), [kind.value for kind in kinds]),
    )
    for case_id, service_id in on.fetchall():
        audit.record(
            session,
            action="case.closed",
            subject="clinic_case",
            subject_id=case_id,
            actor=desk.actor,
            now=desk.now,
            service_id=service_id,
            because=READ_AGAIN,
        )
