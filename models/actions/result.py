"""Stores one chunk of a lab file: every row a version, a repeat, or kept for a person (laws 1, 2, 6, 9).

Set-based: a few statements a chunk, whatever its size. Order of work: known messages are dropped,
kits locked in ascending id (ruling 2), each row matched and compared by pure rules, everything written in
bulk, the file's position moved in the same commit. `models.actions.release` decides what follows.
"""

import json
import secrets
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final, NamedTuple

from sqlmodel import Session

from models.actions.lab_request import take_answer
from models.actions.owed import OwedCase, owe_cases, result_case_key
from models.rules.beside import EARLY_REFLEX, held
from models.rules.clinic import CaseKind, due_at
from models.rules.errors import Code, ServiceError
from models.rules.kit import KIT_STATES, KitState
from models.rules.lab import ORDER_ONLY, Fault, LabMap, LabMessage, LabRow
from models.rules.matching import (
    ANOTHERS_ACCESSION,
    CROSSED,
    SECOND_ACCESSION,
    KitFacts,
    Mismatch,
    Reported,
    Tube,
    check_match,
)
from models.rules.reading import Detail, Finding, Quarantined, Reading, follows, refused
from models.rules.release import Current, Target, target_of
from models.rules.result import interpret
from models.rules.secrets import ADDRESS, KIT_BORN, KIT_FAMILY, BlindIndex, Cipher, kit_born, kit_family
from models.rules.service import LabContract, Services
from models.rules.versions import Change, Word, compare
from models.rules.vocabulary import SITE_OF, Outcome, Quarantine, ReportStatus, Specimen
from models.tables.bulk import NULL, as_array, as_ids, as_text, copy, copy_text, cursor, next_ids

IDENTITY_DOUBTS: Final = frozenset(
    {
        Quarantine.TUBE_MISMATCH,
        Quarantine.IDENTITY_MISSING,
        Quarantine.IDENTITY_MISMATCH,
        Quarantine.IDENTITY_CONFLICT,
        Quarantine.CROSSED_SAMPLES,
        Quarantine.SECOND_ACCESSION,
        Quarantine.SPECIMEN_CONFLICT,
        Quarantine.NEVER_DISPATCHED,
    }
)
"""Reasons that may mean somebody else's sample: the kit's case goes to a clinician as an identity problem."""

_TUBE_OF: Final = {specimen.value: Tube(SITE_OF[specimen]) for specimen in Specimen}
_LONGEST_ID: Final = 80
_LONGEST_SUB_ID: Final = 40
"""Characters of an accession, message id and sub-id that are stored: far more than any lab uses."""


@dataclass(frozen=True, slots=True)
class ReadMessage:
    """One message and what its rows were read as."""

    message: LabMessage
    readings: Sequence[Reading]


@dataclass(frozen=True, slots=True)
class FileRef:
    """The file a chunk is from."""

    id: int
    ref: str
    lab: str
    lab_map_version_id: int


@dataclass(frozen=True, slots=True)
class Desk:
    """What storing the rows of one file needs: where they are from, how the lab is read, whose rules hold, and keys."""

    file: FileRef
    lab_map: LabMap
    now: datetime
    actor: str
    services: Services
    indexes: BlindIndex
    cipher: Cipher


@dataclass(slots=True)
class ChunkTally:
    """Counts of one chunk, for the run's own report. No ids, no values."""

    messages: int = 0
    rows: int = 0
    stored: int = 0
    repeated: int = 0
    quarantined: int = 0
    details: int = 0
    replayed: int = 0
    decided: int = 0


@dataclass(frozen=True, slots=True)
class NewArrival:
    """A kit whose first matched row this chunk held: its sample is now known to be at the lab."""

    kit_id: int
    service_id: str
    order_id: int
    contact_id: int
    at: datetime
    """When the lab says that it came."""


class Standing(NamedTuple):
    """What a kit was asked for, and what stands about it now."""

    requested: frozenset[Target]
    current: Mapping[Target, Current]
    collected_at: Mapping[Target, datetime | None]


@dataclass(frozen=True, slots=True)
class Stored:
    """What one chunk came to: its counts, why which kits must be decided about, and which have just arrived."""

    tally: ChunkTally
    triggers: Mapping[int, str]
    arrivals: Sequence[NewArrival]
    kept: Mapping[tuple[int, str], Quarantine]
    """Position and key of every row that was quarantined, and why."""
    standing: Mapping[int, Standing]
    """Of every kit that is locked: as the chunk found it and left it, so that nobody need read it again."""


@dataclass(slots=True)
class _Head:
    """The current version of one (test, site) of one kit, as this chunk has it so far."""

    series_id: int
    accession: str
    sub_id: str
    tube_code: str
    version_id: int
    word: Word
    corrected: bool
    collected_at: datetime | None
    is_new: bool
    is_changed: bool = False


@dataclass(slots=True)
class _Kit:
    """One kit that rows of this chunk name."""

    id: int
    code: str
    service_id: str
    order_id: int
    contact_id: int
    state: KitState
    contract: LabContract | None
    facts: KitFacts
    received_at: datetime | None
    born: frozenset[bytes] = frozenset()
    family: frozenset[bytes] = frozenset()
    heads: dict[Target, _Head] = field(default_factory=dict)
    compared: dict[tuple[date, str | None], tuple[bool, bool]] = field(default_factory=dict)
    """Whether a date of birth and a family name are this kit's: the rows of a message say the same ones."""

    def standing(self) -> Standing:
        """What stands about it once the chunk is written."""
        heads = self.heads.items()
        return Standing(
            frozenset(self.facts.requested),
            {
                target: Current(head.word.outcome, head.version_id, head.corrected, head.word.note_review)
                for target, head in heads
            },
            {target: head.collected_at for target, head in heads},
        )


@dataclass(slots=True)
class _Chunk:
    """What a chunk will write."""

    owner_of: dict[str, int]
    """Which kit each accession of this lab already belongs to."""
    version_ids: Iterator[int]
    series_ids: Iterator[int]
    versions: list[tuple[str, ...]] = field(default_factory=list)
    """As text: most of what is written is these."""
    repeats: list[tuple[object, ...]] = field(default_factory=list)
    quarantined: dict[tuple[int, str, int | None], tuple[Quarantined, _Kit | None, LabRow | None]] = field(
        default_factory=dict
    )
    changes: dict[int, list[tuple[Change, Finding, int]]] = field(default_factory=dict)
    """What each kit's new versions changed, for its timeline."""
    triggers: dict[int, str] = field(default_factory=dict)
    frozen: set[int] = field(default_factory=set)
    doubted: list[tuple[Finding, _Kit, LabRow | None]] = field(default_factory=list)
    """Rows whose date of birth is not that of the kit they name: perhaps another's."""
    crossed: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Kits that a row fits in part, and the codes of the others that it fits."""
    touched: dict[int, datetime | None] = field(default_factory=dict)
    """Kits that a matched row proves received, with the lab's own time of receipt."""

    def keep(self, row: Quarantined, kit: _Kit | None, raw: LabRow | None) -> None:
        """Quarantines a row once for a kit, however many results it holds: for the worst of them."""
        place = (row.position, row.row_key, kit.id if kit else None)
        known = self.quarantined.get(place)
        if known is None or (row.may_be_non_negative and not known[0].may_be_non_negative):
            self.quarantined[place] = (row, kit, raw)

    def refuse(self, found: Finding, mismatch: Mismatch, kit: _Kit | None, raw: LabRow | None) -> None:
        """Quarantines a row that was understood and can't be used; one with another's date of birth is looked at."""
        self.keep(refused(found, mismatch.reason, mismatch.detail), kit, raw)
        if kit is not None and mismatch.reason is Quarantine.IDENTITY_MISMATCH:
            self.doubted.append((found, kit, raw))

    def cross(self, row: Quarantined, kits: Sequence[_Kit], raw: LabRow | None) -> None:
        """Stops every kit that a row fits in part, for one reason, each case naming the other kit."""
        codes = {kit.code for kit in kits}
        for kit in kits:
            place = (row.position, row.row_key, kit.id)
            self.quarantined[place] = (row._replace(reason=CROSSED.reason, detail=CROSSED.detail), kit, raw)
            self.crossed[kit.id] |= codes - {kit.code}


def store_chunk(session: Session, messages: Sequence[LabMessage], desk: Desk) -> Stored:
    """Stores every row of these messages as a version, a repeat or a quarantined row.

    Rows in = versions + repeats + quarantined + details + replays; nothing else can happen to a row.
    Messages already known (same lab, id and content) are replays: no row, no text, no task (H9).
    """
    fresh = _drop_known(session, messages, desk.file)
    stored = store_readings(session, [ReadMessage(each, interpret(each, desk.lab_map)) for each in fresh], desk)
    tally = stored.tally
    tally.messages, tally.rows = len(messages), sum(len(each.rows) for each in messages)
    tally.replayed = tally.rows - sum(len(each.rows) for each in fresh)
    return stored


class _UnlockedKitsError(Exception):
    """Kits that must be locked too, by code. Locks are taken in ascending id, so all are let go of and taken anew."""

    def __init__(self, codes: set[str]) -> None:
        super().__init__("more kits are needed")
        self.codes = codes


def store_readings(session: Session, fresh: Sequence[ReadMessage], desk: Desk) -> Stored:
    """Stores these readings, whether or not their message came before: a row may be read again under a new map."""
    # To the end of the transaction all is found by keys, one by one. What the planner knows of the tables' sizes is
    # older than a file that doubles them, and to join a thousand kits with their people it would rather walk through
    # all people there are.
    for way in ("seqscan", "hashjoin", "mergejoin"):
        cursor(session).execute(f"SET LOCAL enable_{way} = off")
    codes = _codes_named(fresh)
    while True:
        try:
            with session.begin_nested():
                return _store(session, fresh, _lock_kits(session, codes, desk), desk)
        except _UnlockedKitsError as more:
            codes |= more.codes


def _store(session: Session, fresh: Sequence[ReadMessage], kits: dict[str, _Kit], desk: Desk) -> Stored:
    tally = ChunkTally()
    chunk = _Chunk(
        owner_of=_owners(session, fresh, lab=desk.file.lab),
        version_ids=iter(next_ids(session, "result_version", _count(fresh))),
        series_ids=iter(next_ids(session, "result_series", _count(fresh))),
    )
    for each in fresh:
        sent = _SentRows(each)
        for reading in each.readings:
            match reading:
                case Finding():
                    tally.details += _take(reading, kits.get(reading.kit_code), sent, chunk, desk)
                case Detail():
                    unplaced = _take_answer(session, each.message, desk)
                    if unplaced:
                        chunk.keep(unplaced, None, sent.row_of(unplaced))
                    else:
                        tally.details += 1
                case Quarantined():
                    named = [kits[code] for code in _kits_named(reading) if code in kits]
                    if len(named) > 1:
                        chunk.cross(reading, named, sent.row_of(reading))
                    else:
                        chunk.keep(reading, named[0] if named else None, sent.row_of(reading))
    if chunk.doubted:
        _look_for_a_swap(session, chunk, kits, desk)
    tally.stored, tally.repeated = len(chunk.versions), len(chunk.repeats)
    tally.quarantined = len({place[:2] for place in chunk.quarantined})
    _write(session, chunk, kits, desk)
    _tell_timelines(session, chunk, kits, desk)
    _open_row_cases(session, chunk, desk)
    kept = {place[:2]: row.reason for place, (row, _, _) in chunk.quarantined.items()}
    standing = {kit.id: kit.standing() for kit in kits.values()}
    return Stored(tally, chunk.triggers, _arrived(chunk, kits, desk), kept, standing)


def move_position(
    session: Session, file: FileRef, tally: ChunkTally, *, messages_read: int, lease_seconds: int
) -> tuple[int, int]:
    """Moves the file's resumable position in the chunk's own transaction, and keeps the claim alive (law 9).

    Returns how many results of the file were not used so far, and of how many. Raises ServiceError(CONFLICT), which
    takes the chunk back, where the file was brought to its end by another reader: this one was silent for too long.
    """
    on = cursor(session)
    on.execute(
        """
        UPDATE lab_file
        SET messages_read = %s, rows_read = rows_read + %s, rows_detail = rows_detail + %s,
            rows_replayed = rows_replayed + %s, rows_quarantined = rows_quarantined + %s,
            claimed_until = clock_timestamp() + make_interval(secs => %s)
        WHERE id = %s AND state = 'reading' RETURNING rows_quarantined, rows_read - rows_detail - rows_replayed
        """,
        (messages_read, tally.rows, tally.details, tally.replayed, tally.quarantined, lease_seconds, file.id),
    )
    moved = on.fetchone()
    if moved is None:
        raise ServiceError(Code.CONFLICT, "Another reader brought this file to its end meanwhile.")
    quarantined, results = moved
    return quarantined, results


# ── Before the rows ──────────────────────────────────────────────────────────────────────────


def _drop_known(session: Session, messages: Sequence[LabMessage], file: FileRef) -> list[LabMessage]:
    """The messages that were never taken before, each once. Keys in one order, so that two readers can't deadlock."""
    key_of = [(each.content_sha256, _as_label(each.message_id)) for each in messages]
    keys = sorted(set(key_of))
    on = cursor(session)
    on.execute(
        """
        INSERT INTO lab_message_key (lab, content_sha256, message_id, file_id)
        SELECT %s, content_sha256, message_id, %s FROM unnest(%s::bytea[], %s::text[]) AS m (content_sha256, message_id)
        ON CONFLICT DO NOTHING RETURNING content_sha256, message_id
        """,
        (
            file.lab,
            file.id,
            as_array(f"\\x{sha.hex()}" for sha, _ in keys),
            as_array(message_id for _, message_id in keys),
        ),
    )
    new = {(bytes(sha), message_id) for sha, message_id in on.fetchall()}
    fresh = []
    for each, key in zip(messages, key_of, strict=True):
        if key in new:
            new.discard(key)
            fresh.append(each)
    return fresh


class _SentRows:
    """The rows of one message as they were sent, looked up by their key only where one is kept for a person."""

    __slots__ = ("_by_key", "_message", "_readings")

    def __init__(self, read: ReadMessage) -> None:
        self._message = read.message
        self._readings = read.readings
        self._by_key: dict[str, LabRow] = {}

    def has_final_head(self, number: str) -> bool:
        """Whether the message has a final order of this number that was read as the mere head of a panel."""
        heads = {reading.row_key for reading in self._readings if isinstance(reading, Detail)}
        return any(
            row.row_key in heads
            and row.value_type == ORDER_ONLY
            and row.accession == number
            and row.report_status_raw in {"F", "final"}
            for row in self._message.rows
        )

    def row_of(self, reading: Finding | Quarantined) -> LabRow | None:
        """What a reading was read from."""
        if not self._by_key:
            self._by_key = {row.row_key: row for row in self._message.rows}
        return self._by_key.get(reading.row_key)


_ANSWERS_NOTHING: Final = Fault(
    Quarantine.MALFORMED, "MSA-2 is the control id of no request of ours that waits for an answer."
)


def _take_answer(session: Session, message: LabMessage, desk: Desk) -> Quarantined | None:
    """Settles the request that a message answers, if it answers one. An answer to none is a row for a person."""
    if message.answer is None or take_answer(session, message.answer, lab=desk.file.lab, now=desk.now):
        return None
    [row] = interpret(message._replace(fault=_ANSWERS_NOTHING), desk.lab_map)
    assert isinstance(row, Quarantined)  # a fault holds every row
    return row


def _count(messages: Iterable[ReadMessage]) -> int:
    return sum(isinstance(reading, Finding) for each in messages for reading in each.readings)


def _kits_named(reading: Reading) -> tuple[str, ...]:
    """Every kit that a row names: each is stopped where the row can't be used."""
    match reading:
        case Detail():
            return ()
        case Finding():
            return (reading.kit_code,)
        case Quarantined():
            return reading.kits_named or ((reading.kit_code,) if reading.kit_code else ())


def _codes_named(messages: Sequence[ReadMessage]) -> set[str]:
    return {code for each in messages for reading in each.readings for code in _kits_named(reading)}


def _lock_kits(session: Session, codes: Collection[str], desk: Desk) -> dict[str, _Kit]:
    """The kits of these codes, by code; their rows locked in ascending id."""
    on = cursor(session)
    on.execute(
        """
        SELECT id, code, service_id, order_id, contact_id, state, lab, dispatched_at, received_at
        FROM kit WHERE code = ANY(%s::text[]) ORDER BY id FOR UPDATE
        """,
        (as_array(codes),),
    )
    contracts = {name: each.service.contract(desk.file.lab) for name, each in desk.services.items()}
    kits: dict[int, _Kit] = {}
    tubes: dict[int, dict[str, Tube]] = defaultdict(dict)
    requested: dict[int, dict[Target, str]] = defaultdict(dict)
    for kit_id, code, service_id, order_id, contact_id, state, kit_lab, dispatched_at, received_at in on.fetchall():
        facts = KitFacts(kit_lab, dispatched_at, tubes[kit_id], requested[kit_id])
        kits[kit_id] = _Kit(
            kit_id, code, service_id, order_id, contact_id, KIT_STATES[state], contracts.get(service_id), facts,
            received_at,
        )  # fmt: skip
    ids = as_ids(kits)
    on.execute("SELECT kit_id, tube_code, specimen FROM kit_sample WHERE kit_id = ANY(%s::bigint[])", (ids,))
    for kit_id, tube_code, specimen in on.fetchall():
        tubes[kit_id][tube_code] = _TUBE_OF[specimen]
    on.execute("SELECT kit_id, test, site, tube_code FROM kit_test WHERE kit_id = ANY(%s::bigint[])", (ids,))
    for kit_id, test, site, tube_code in on.fetchall():
        requested[kit_id][target_of(test, site)] = tube_code
    on.execute("SELECT kit_id, date_of_birth, family_name FROM kit_identity WHERE kit_id = ANY(%s::bigint[])", (ids,))
    for kit_id, born, family in on.fetchall():
        kit = kits[kit_id]
        kit.born |= {born}
        kit.family |= {family}
    _read_heads(on, kits, desk.cipher)
    return {kit.code: kit for kit in kits.values()}


def _owners(session: Session, messages: Sequence[ReadMessage], *, lab: str) -> dict[str, int]:
    """Which kit the accessions of these messages were reported for before: one accession is one person's."""
    named = {_accession(r) for each in messages for r in each.readings if isinstance(r, Finding)}
    on = cursor(session)
    on.execute(
        "SELECT accession, kit_id FROM result_series WHERE lab = %s AND accession = ANY(%s::text[])",
        (lab, as_array(name for name in named if name.isprintable())),
    )
    return dict(on.fetchall())


def _is_storable(accession: str, sub_id: str) -> bool:
    return (
        len(accession) <= _LONGEST_ID
        and len(sub_id) <= _LONGEST_SUB_ID
        and accession.isprintable()
        and sub_id.isprintable()
    )


def _as_label(text: str) -> str:
    """A word of the lab's that names something and is compared with nothing, as the database can hold it."""
    if text.isprintable():
        return text[:_LONGEST_ID]
    return "".join(filter(str.isprintable, text))[:_LONGEST_ID]


def _accession(found: Finding) -> str:
    """The lab's own number; where a lab has none, the kit's code stands in its place (ruling 16)."""
    return found.accession or found.kit_code


def _read_heads(on: Any, kits: Mapping[int, _Kit], cipher: Cipher) -> None:
    on.execute(
        """
        SELECT s.id, s.kit_id, s.test, s.site, s.accession, s.sub_id, s.tube_code, s.current_version_id, s.outcome,
               s.status, s.lab_time, s.note_review, s.corrected, s.collected_at, v.comment,
               concat_ws(':', f.ref, v.position, v.row_key)
        FROM result_series s
        LEFT JOIN result_version v ON s.note_review AND v.id = s.current_version_id
        LEFT JOIN lab_file f ON f.id = v.file_id
        WHERE s.kit_id = ANY(%s::bigint[]) ORDER BY s.id
        """,
        (as_ids(kits),),
    )
    for row in on.fetchall():
        series_id, kit_id, test, site, accession, sub_id, tube_code, version_id = row[:8]
        outcome, status, lab_time, note_review, corrected, collected_at, sealed, place = row[8:]
        comment = cipher.decrypt("result_version", "comment", place, sealed) if sealed else ""
        kits[kit_id].heads[target_of(test, site)] = _Head(
            series_id,
            accession,
            sub_id,
            tube_code,
            version_id,
            Word(Outcome(outcome), ReportStatus(status), lab_time, note_review, comment),
            corrected,
            collected_at,
            is_new=False,
        )


# ── One row ──────────────────────────────────────────────────────────────────────────────────


def _take(found: Finding, kit: _Kit | None, sent: _SentRows, chunk: _Chunk, desk: Desk) -> bool:
    """What one understood row comes to: a version, a repeat, or a quarantined row. True for a mere detail."""
    target = (found.test, found.site)
    if found.outcome is Outcome.NOT_REQUESTED and (kit is None or target not in kit.facts.requested):
        return True
    mismatch = _whose(found, kit, desk)
    if kit is not None and mismatch is None:
        mismatch = _check_accession(found, kit, chunk)
    if mismatch is None and found.outcome is Outcome.NOT_REQUESTED:
        mismatch = Mismatch(Quarantine.NOT_REQUESTED, "This test was requested, and the row says it was not.")
    if kit is None or mismatch is not None:
        assert mismatch is not None  # no kit is always a mismatch
        chunk.refuse(found, mismatch, kit, sent.row_of(found))
        return False
    chunk.touched.setdefault(kit.id, found.received_at)
    head = kit.heads.get(target)
    found = _held_if_early(found, head, sent)
    comment_to_read = found.comment.encode(errors="replace").decode() if found.note_review else ""
    word = Word(found.outcome, found.status, found.lab_time, found.note_review, comment_to_read, found.order_corrected)
    change = compare(word, head.word if head else None)
    if change is Change.CONFLICT:
        mismatch = Mismatch(Quarantine.CONFLICTING_VALUES, "Two different final values that no time orders.")
        chunk.keep(refused(found, mismatch.reason, mismatch.detail), kit, sent.row_of(found))
        return False
    if change is Change.REPEAT:
        assert head is not None  # only a current version can be repeated
        chunk.repeats.append((head.version_id, desk.file.id, found.position, found.row_key))
        return False
    version_id = next(chunk.version_ids)
    previous_id = head.version_id if head else None
    if head is None:
        head = kit.heads[target] = _Head(
            next(chunk.series_ids), _accession(found), found.sub_id, found.tube_code or "", version_id, word,
            found.status in _SAYS_IT_CHANGED or found.order_corrected, found.collected_at, is_new=True,
        )  # fmt: skip
    elif change in _BECOMES_CURRENT:
        head.version_id, head.word, head.collected_at = version_id, word, found.collected_at or head.collected_at
        head.corrected = head.corrected or change is Change.CORRECTION
        head.is_changed = True
    comment = NULL
    if found.note_review:
        place = f"{desk.file.ref}:{found.position}:{found.row_key}"
        comment = "\\x" + desk.cipher.encrypt("result_version", "comment", place, word.comment).hex()
    chunk.versions.append(
        (
            str(version_id), str(head.series_id), str(kit.id), kit.service_id, found.test, found.site,
            str(desk.file.id), str(found.position), found.row_key, found.outcome, found.status, change,
            NULL if previous_id is None else str(previous_id), "t" if found.note_review else "f", comment,
            as_text(found.lab_time), as_text(found.collected_at), as_text(found.received_at),
            as_text(found.authorised_at), str(desk.file.lab_map_version_id),
        )
    )  # fmt: skip
    chunk.changes.setdefault(kit.id, []).append((change, found, version_id))
    if change is Change.FROZEN:
        chunk.frozen.add(kit.id)
        chunk.triggers[kit.id] = f"frozen:{version_id}"
    elif change is not Change.OUT_OF_ORDER:
        chunk.triggers.setdefault(kit.id, "results")
    return False


_SAYS_IT_CHANGED: Final = frozenset({ReportStatus.CORRECTED, ReportStatus.WITHDRAWN})
_BECOMES_CURRENT: Final = frozenset({Change.PROGRESS, Change.CORRECTION})


def _whose(found: Finding, kit: _Kit | None, desk: Desk) -> Mismatch | None:
    """Why this row may not be this kit's, or None when everything that must agree does."""
    if kit is None:
        return check_match(_reported(found, born=False, family=False), None, None, now=desk.now)
    said = (found.dob, found.family_name)
    if said not in kit.compared:
        kit.compared[said] = _compare_person(kit, *said, desk.indexes)
    born, family = kit.compared[said]
    reported = _reported(found, born=born, family=family)
    mismatch = check_match(reported, kit.facts, kit.contract, now=desk.now)
    head = kit.heads.get((found.test, found.site))
    if mismatch is None and head is not None and head.accession != _accession(found):
        mismatch = None if follows(found, head.accession, desk.lab_map.reflex_suffixes) else SECOND_ACCESSION
    return mismatch


def _compare_person(kit: _Kit, dob: date, family_name: str | None, indexes: BlindIndex) -> tuple[bool, bool]:
    """(date of birth agrees, family name agrees), by their blind indexes."""
    born = indexes.live(KIT_BORN, kit.service_id, kit_born(kit.code, dob.isoformat()))
    family = indexes.live(KIT_FAMILY, kit.service_id, kit_family(kit.code, family_name)) if family_name else ()
    return not kit.born.isdisjoint(born), not kit.family.isdisjoint(family)


def _look_for_a_swap(session: Session, chunk: _Chunk, kits: dict[str, _Kit], desk: Desk) -> None:
    """Where a row's person is that of another kit in the file or the household, both kits are stopped (idea 11).

    A date of birth alone names nobody: without a family name only the household and other doubted
    kits are asked. Raises _UnlockedKitsError where kits of the household are not locked yet.
    """
    household = _household(session, {kit.id for _, kit, _ in chunk.doubted})
    if missing := {code for codes in household.values() for code in codes} - kits.keys():
        raise _UnlockedKitsError(missing)
    doubted = {kit.code for _, kit, _ in chunk.doubted}
    for found, kit, raw in chunk.doubted:
        near = doubted | household.get(kit.id, set()) if found.family_name is None else kits.keys()
        others = [
            kits[code] for code in near if code in kits and code != kit.code and _is_person_of(found, kits[code], desk)
        ]
        if others:
            chunk.cross(refused(found, CROSSED.reason, CROSSED.detail), [kit, *others], raw)


def _household(session: Session, kit_ids: Collection[int]) -> dict[int, set[str]]:
    """The dispatched kits of other people at the addresses of these kits' people."""
    on = cursor(session)
    on.execute(
        """
        SELECT mine.id, other.code FROM kit mine
        JOIN person_index lives ON lives.person_id = mine.person_id AND lives.domain = %s
        JOIN person_index there ON there.service_id = lives.service_id AND there.domain = lives.domain
             AND there.key_version = lives.key_version AND there.digest = lives.digest
        JOIN kit other ON other.person_id = there.person_id AND other.dispatched_at IS NOT NULL
        WHERE mine.id = ANY(%s) AND there.person_id <> lives.person_id
        """,
        (ADDRESS, list(kit_ids)),
    )
    found: dict[int, set[str]] = defaultdict(set)
    for kit_id, code in on:
        found[kit_id].add(code)
    return found


def _is_person_of(found: Finding, kit: _Kit, desk: Desk) -> bool:
    said = (found.dob, found.family_name)
    if said not in kit.compared:
        kit.compared[said] = _compare_person(kit, *said, desk.indexes)
    born, family = kit.compared[said]
    return born and (found.family_name is None or family)


def _check_accession(found: Finding, kit: _Kit, chunk: _Chunk) -> Mismatch | None:
    """One accession is one kit's: the first that it was reported for."""
    accession = _accession(found)
    if not _is_storable(accession, found.sub_id):
        return Mismatch(Quarantine.MALFORMED, "The accession or sub-id is too long, or holds characters of no id.")
    if chunk.owner_of.setdefault(accession, kit.id) != kit.id:
        return ANOTHERS_ACCESSION
    return None


def _reported(found: Finding, *, born: bool, family: bool) -> Reported:
    return Reported(
        tube_code=found.tube_code,
        test=found.test,
        site=found.site,
        collected_at=found.collected_at,
        received_at=found.received_at,
        born_known=True,
        born_agrees=born,
        family_known=found.family_name is not None,
        family_agrees=family,
    )


def _held_if_early(found: Finding, head: _Head | None, sent: _SentRows) -> Finding:
    """A reflex, under a number of its own, to a screen that has not come to anything yet: a person decides.

    What waited may have been the head of a panel, which this very message calls final beside its results.
    """
    if head is None or head.word.outcome is not Outcome.PENDING or found.outcome is Outcome.PENDING:
        return found
    is_reflex = head.accession != _accession(found) and not sent.has_final_head(head.accession)
    return held(found, EARLY_REFLEX) if is_reflex else found


# ── Writing ──────────────────────────────────────────────────────────────────────────────────

_VERSION: Final = (
    "id", "series_id", "kit_id", "service_id", "test", "site", "file_id", "position", "row_key", "outcome", "status",
    "effect", "previous_id", "note_review", "comment", "lab_time", "collected_at", "received_at", "authorised_at",
    "lab_map_version_id",
)  # fmt: skip
_SERIES: Final = (
    "id", "service_id", "lab", "accession", "test", "site", "sub_id", "kit_id", "tube_code", "current_version_id",
    "outcome", "status", "lab_time", "collected_at", "note_review", "corrected",
)  # fmt: skip
_QUARANTINED: Final = (
    "ref", "file_id", "lab", "position", "row_key", "message_id", "reason", "detail", "accession", "kit_id",
    "service_id", "test", "site", "may_be_non_negative", "raw", "owner_role", "due_at", "resolution",
)  # fmt: skip


def _write(session: Session, chunk: _Chunk, kits: Mapping[str, _Kit], desk: Desk) -> None:
    heads = [(kit, target, head) for kit in kits.values() for target, head in kit.heads.items()]
    copy_text(
        session,
        "result_series",
        _SERIES,
        [
            (
                str(head.series_id), kit.service_id, desk.file.lab, head.accession, test, site, head.sub_id,
                str(kit.id), head.tube_code, str(head.version_id), head.word.outcome, head.word.status,
                as_text(head.word.lab_time), as_text(head.collected_at), "t" if head.word.note_review else "f",
                "t" if head.corrected else "f",
            )
            for kit, (test, site), head in heads
            if head.is_new
        ],
    )  # fmt: skip
    cursor(session).executemany(
        """
        UPDATE result_series SET current_version_id = %s, outcome = %s, status = %s, lab_time = %s, collected_at = %s,
                                 note_review = %s, corrected = %s
        WHERE id = %s
        """,
        [
            (
                head.version_id, head.word.outcome.value, head.word.status.value, head.word.lab_time,
                head.collected_at, head.word.note_review, head.corrected, head.series_id,
            )
            for _, _, head in heads
            if head.is_changed and not head.is_new
        ],
    )  # fmt: skip
    copy_text(session, "result_version", _VERSION, chunk.versions)
    copy(session, "result_repeat", ("version_id", "file_id", "position", "row_key"), chunk.repeats)
    copy(
        session,
        "quarantined_row",
        _QUARANTINED,
        [
            _quarantined_values(row, kit, raw, number, chunk, desk)
            for number, (row, kit, raw) in enumerate(chunk.quarantined.values())
        ],
    )
    if chunk.frozen:
        cursor(session).execute(
            "UPDATE kit SET frozen_at = coalesce(frozen_at, %s) WHERE id = ANY(%s)", (desk.now, list(chunk.frozen))
        )


def _tell_timelines(session: Session, chunk: _Chunk, kits: Mapping[str, _Kit], desk: Desk) -> None:
    """One line for each kit that has new versions, after one for its sample's arrival where this proves it."""
    lines = []
    for kit in kits.values():
        if kit.id in chunk.touched and kit.received_at is None:
            at = chunk.touched[kit.id] or desk.now
            lines.append((str(kit.id), kit.service_id, "lab.received", "{}", desk.actor, as_text(at)))
        if kit.id in chunk.changes:
            changes = chunk.changes[kit.id]
            at = max([found.lab_time for _, found, _ in changes if found.lab_time], default=desk.now)
            lines.append((str(kit.id), kit.service_id, "results.stored", _said(changes), desk.actor, as_text(at)))
    copy_text(session, "kit_event", ("kit_id", "service_id", "kind", "detail", "actor", "occurred_at"), lines)


def _said(changes: Iterable[tuple[Change, Finding, int]]) -> str:
    """JSON of each version's test, site and effect. Words of ours and numbers: nothing in them needs escaping."""
    said: dict[str, list[str]] = defaultdict(list)
    for change, found, version_id in changes:
        said[change].append(f'"{found.test} {found.site}"')
        said["versions"].append(str(version_id))
    return "{" + ",".join([f'"{what}":[{",".join(of)}]' for what, of in said.items()]) + "}"


def _quarantined_values(
    row: Quarantined, kit: _Kit | None, raw: LabRow | None, number: int, chunk: _Chunk, desk: Desk
) -> tuple[object, ...]:
    ref = secrets.token_hex(16)
    role, due = _row_owner(row, kit, desk)
    if kit is not None:
        # A row that names this kit stops it from being told anything, whatever was decided before.
        chunk.triggers[kit.id] = f"quarantine:{desk.file.id}:{row.position}:{number}"
    text = json.dumps(raw._asdict() if raw else {}, default=str)
    return (
        ref, desk.file.id, desk.file.lab, row.position, row.row_key, _as_label(row.message_id), row.reason.value,
        row.detail[:400], _as_label(row.accession), kit.id if kit else None, kit.service_id if kit else "",
        row.test.value if row.test else None, row.site.value if row.site else None, row.may_be_non_negative,
        desk.cipher.encrypt("quarantined_row", "raw", ref, text), role, due, "",
    )  # fmt: skip


def _row_owner(row: Quarantined, kit: _Kit | None, desk: Desk) -> tuple[str, datetime]:
    """Who owns a quarantined row, and by when: a clinician the same day if it may be bad news (lab-messages.md 7)."""
    service_id = kit.service_id if kit else _a_service_of(desk)
    kind = _kind_of_row(row) if kit else CaseKind.LAB_ROW
    policy = desk.services[service_id].service.clinic
    role = "clinician" if row.may_be_non_negative or kind is CaseKind.IDENTITY else "lab_liaison"
    return role, due_at(kind, desk.now, policy)


def _a_service_of(desk: Desk) -> str:
    """The service that looks after a row which names no kit of ours: the first with a contract with this lab."""
    held = [each.service.id for each in desk.services.values() if each.service.contract(desk.file.lab) is not None]
    return min(held or desk.services)


def _kind_of_row(row: Quarantined) -> CaseKind:
    return CaseKind.IDENTITY if row.reason in IDENTITY_DOUBTS else CaseKind.RESULT_REVIEW


def _open_row_cases(session: Session, chunk: _Chunk, desk: Desk) -> None:
    """Every quarantined row has a case: its kit's, or one of the lab for rows alike that name no kit of ours."""
    cases: dict[str, dict[str, OwedCase]] = defaultdict(dict)
    for row, kit, _ in chunk.quarantined.values():
        if kit is not None:
            owed = OwedCase(
                key=result_case_key(kit.id),
                kind=_kind_of_row(row),
                order_id=kit.order_id,
                kit_id=kit.id,
                detail={"quarantine": row.reason.value}
                | ({"crossed_with": sorted(chunk.crossed[kit.id])} if kit.id in chunk.crossed else {}),
            )
            cases[kit.service_id][owed.key] = owed
        else:
            role = "clinician" if row.may_be_non_negative else "lab_liaison"
            owed = OwedCase(
                key=f"file:{desk.file.id}:{row.reason.value}:{role}",
                kind=CaseKind.LAB_ROW,
                lab=desk.file.lab,
                detail={"quarantine": row.reason.value, "file_ref": desk.file.ref},
                owner_role=role,
            )
            cases[_a_service_of(desk)][owed.key] = owed
    for service_id, owed_cases in cases.items():
        owe_cases(
            session,
            list(owed_cases.values()),
            service=desk.services[service_id].service,
            now=desk.now,
            actor=desk.actor,
        )


def _arrived(chunk: _Chunk, kits: Mapping[str, _Kit], desk: Desk) -> list[NewArrival]:
    """Kits whose first matched row this is, which proves their receipt (ruling 10; FEATURES 27)."""
    return [
        NewArrival(kit.id, kit.service_id, kit.order_id, kit.contact_id, chunk.touched[kit.id] or desk.now)
        for kit in kits.values()
        if kit.id in chunk.touched and kit.received_at is None
    ]
