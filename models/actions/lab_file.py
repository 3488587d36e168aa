"""A lab file from arrival to its verdict: every file ends done, held or as a known duplicate (FEATURES 34, 36, 39)."""

import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session

from models.actions import audit
from models.actions.owed import OwedCase, owe_cases
from models.actions.result import FileRef
from models.rules.clinic import CaseKind, CaseOutcome
from models.rules.errors import Code, ServiceError
from models.rules.lab import Fault, Unread
from models.rules.service import Services
from models.rules.vocabulary import Quarantine
from models.tables.bulk import as_ids, cursor
from models.tables.result import LONGEST_KEY, FileState, LabFile

LEASE_SECONDS: Final = 120
"""Machine time a reading process may be silent before another takes the file up where it stood."""

LONGEST_ENDING: Final = ".receipt.json"
"""What is written beside a file that was put away. Its name is cut at the front where both would be too long for S3."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One object found in a lab's incoming folder."""

    lab: str
    key: str
    version_id: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ClaimedFile:
    """A file that this process alone may read until its lease runs out."""

    id: int
    ref: str
    lab: str
    key: str
    version_id: str
    messages_read: int


def take_arrivals(session: Session, arrivals: Sequence[Arrival], *, now: datetime) -> int:
    """Notes files that landed, each version once, and says how many are new."""
    rows = [
        {
            "ref": secrets.token_hex(16),
            "lab": each.lab,
            "object_key": each.key,
            "object_version": each.version_id,
            "size_bytes": each.size_bytes,
            "state": FileState.ARRIVED,
            "content_sha256": "",
            "control_id": "",
            "detail": "",
            "complete": False,
            "messages_read": 0,
            "rows_read": 0,
            "rows_detail": 0,
            "rows_replayed": 0,
            "moved": False,
            "arrived_at": now,
        }
        for each in arrivals
    ]
    if not rows:
        return 0
    statement: sa.UpdateBase = (
        insert(LabFile)
        .on_conflict_do_nothing(index_elements=["lab", "object_key", "object_version"])
        .returning(sa.literal_column("lab_file.id"))
    )
    return len(session.execute(statement, rows).all())


UNREAD_AFTER: Final = timedelta(days=1)
"""Machine time: what still lies in the store then is named until somebody moves, mends or deletes it."""


@dataclass(frozen=True, slots=True)
class Lying:
    """An object that no reading takes up as it stands."""

    lab: str
    key: str
    why: Unread
    since: datetime
    """By the store's clock."""


def note_unread(session: Session, lying: Sequence[Lying]) -> None:
    """Notes all that lies in the store for too long, and that what was noted before and lies no more is gone.

    A file that was noted as such is not among them: it has a verdict, or waits for one. Each key comes once.
    """
    on = cursor(session)
    # Two runs that draw the same picture: one after the other.
    on.execute("SELECT pg_advisory_xact_lock(hashtextextended('unread objects', 0))")
    on.execute(
        """
        INSERT INTO unread_object (ref, lab, object_key, why, lies_since)
        SELECT made.* FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::timestamptz[])
                           AS made (ref, lab, object_key, why, lies_since)
        WHERE made.lies_since < clock_timestamp() - %s AND NOT EXISTS (
            SELECT FROM lab_file f WHERE f.lab = made.lab AND f.object_key = made.object_key AND NOT f.moved)
        ON CONFLICT (object_key) DO UPDATE
        SET lab = excluded.lab, why = excluded.why, lies_since = excluded.lies_since, gone_at = NULL
        RETURNING id
        """,
        (
            [secrets.token_hex(16) for _ in lying],
            [each.lab for each in lying],
            [each.key for each in lying],
            [each.why.value for each in lying],
            [each.since for each in lying],
            UNREAD_AFTER,
        ),
    )
    still = [each for (each,) in on.fetchall()]
    on.execute(
        "UPDATE unread_object SET gone_at = clock_timestamp() WHERE gone_at IS NULL AND id <> ALL(%s)",
        (as_ids(still),),
    )


def unread_objects(session: Session, *, labs: Collection[str] | None = None) -> list[Lying]:
    """What lies in the store for too long and is not read, longest first: of these labs, or all of it."""
    on = cursor(session)
    on.execute(
        """
        SELECT lab, object_key, why, lies_since FROM unread_object
        WHERE gone_at IS NULL AND (%(all)s OR lab = ANY(%(labs)s)) ORDER BY lies_since, id
        """,
        {"all": labs is None, "labs": list(labs or ())},
    )
    return [Lying(lab, key, Unread(why), since) for lab, key, why, since in on]


def claim_file(session: Session, *, labs: Iterable[str]) -> ClaimedFile | None:
    """The oldest file that waits, or whose reader fell silent; claimed for this process alone (ruling 13)."""
    on = cursor(session)
    on.execute(
        """
        UPDATE lab_file SET state = 'reading', claimed_until = clock_timestamp() + make_interval(secs => %s)
        WHERE id = (
            SELECT id FROM lab_file
            WHERE lab = ANY(%s) AND (state = 'arrived' OR (state = 'reading' AND claimed_until < clock_timestamp()))
            ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
        )
        RETURNING id, ref, lab, object_key, object_version, messages_read
        """,
        (LEASE_SECONDS, list(labs)),
    )
    row = on.fetchone()
    return ClaimedFile(*row) if row else None


def note_content(
    session: Session,
    file: ClaimedFile,
    *,
    content_sha256: str,
    control_id: str,
    complete: bool,
    lab_map_version_id: int,
) -> int | None:
    """Stores what the bytes are. The id of the file that already used these very bytes, or None when none did.

    A held file used nothing: the same bytes may come again, and are looked at anew.
    """
    on = cursor(session)
    # Two readers with the same bytes or control id: the lab's lock decides who is first, so that the other one sees it.
    on.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"lab file {file.lab}",))
    on.execute(
        """
        SELECT id FROM lab_file
        WHERE lab = %s AND content_sha256 = %s AND state NOT IN ('duplicate', 'held') AND id <> %s
        """,
        (file.lab, content_sha256, file.id),
    )
    known = on.fetchone()
    if known:
        return int(known[0])
    on.execute(
        """
        UPDATE lab_file SET content_sha256 = %s, control_id = %s, complete = %s, lab_map_version_id = %s
        WHERE id = %s
        """,
        (content_sha256, _as_label(control_id), complete, lab_map_version_id, file.id),
    )
    return None


def has_control_id(session: Session, file: ClaimedFile, control_id: str) -> bool:
    """Whether another file of this lab, with other bytes, was used under this control id (lab-messages.md 2.6).

    A held file used nothing: the lab may send it again, whole, under the same control id.
    """
    on = cursor(session)
    on.execute(
        """
        SELECT EXISTS (SELECT FROM lab_file WHERE lab = %s AND control_id = %s AND id <> %s
                       AND state NOT IN ('duplicate', 'held'))
        """,
        (file.lab, _as_label(control_id), file.id),
    )
    return bool(on.fetchone()[0])  # type: ignore[index]


def may_go_on(session: Session, file: ClaimedFile, content_sha256: str) -> bool:
    """Whether a person saw these very bytes held, and said that they be read all the same."""
    on = cursor(session)
    on.execute(
        "SELECT EXISTS (SELECT FROM lab_file WHERE lab = %s AND content_sha256 = %s AND go_ahead_by <> '')",
        (file.lab, content_sha256),
    )
    return bool(on.fetchone()[0])  # type: ignore[index]


READ_AGAIN: Final = "read_again"
"""Why a held file's case ended: the same bytes came, or were put, under its name again, and have a new verdict."""


def _end_older_holds(session: Session, file: ClaimedFile, *, bytes_of: int, now: datetime, actor: str) -> None:
    """What is known now of a file's bytes stands in place of every earlier hold of it, whoever had it read again."""
    on = cursor(session)
    on.execute(
        """
        UPDATE clinic_case c
        SET closed_at = %(now)s, closed_by = %(actor)s, outcome = %(outcome)s, version = c.version + 1
        FROM lab_file f, lab_file known
        WHERE f.lab = %(lab)s AND f.object_key = %(key)s AND f.id < %(id)s AND f.state = 'held'
          AND known.id = %(bytes_of)s AND f.content_sha256 = known.content_sha256 AND f.content_sha256 <> ''
          AND c.key = 'file:' || f.id AND c.closed_at IS NULL
        RETURNING c.id, c.service_id
        """,
        {
            "now": now,
            "actor": actor,
            "outcome": CaseOutcome.RESOLVED_WITH_LAB,
            "lab": file.lab,
            "key": file.key,
            "id": file.id,
            "bytes_of": bytes_of,
        },
    )
    for case_id, service_id in on.fetchall():
        audit.record(
            session,
            action="case.closed",
            subject="clinic_case",
            subject_id=case_id,
            actor=actor,
            now=now,
            service_id=service_id,
            because=READ_AGAIN,
        )


def _as_label(control_id: str) -> str:
    return "".join(filter(str.isprintable, control_id))[:80]


def end_as_duplicate(session: Session, file: ClaimedFile, *, of: int, now: datetime, actor: str) -> None:
    """The same bytes again: acknowledged, and without any effect (H9)."""
    on = cursor(session)
    on.execute(
        """
        UPDATE lab_file SET state = 'duplicate', duplicate_of_id = %s, finished_at = %s, claimed_until = NULL
        WHERE id = %s AND state = 'reading'
        """,
        (of, now, file.id),
    )
    if not on.rowcount:
        return  # another reader brought it to its end: this one was silent for too long
    audit.record(
        session, action="lab_file.duplicate", subject="lab_file", subject_id=file.id, actor=actor, now=now, of=of
    )
    _end_older_holds(session, file, bytes_of=of, now=now, actor=actor)


def end_as_held(
    session: Session, file: ClaimedFile, fault: Fault, *, now: datetime, actor: str, services: Services
) -> bool:
    """A file that can't be trusted as a whole: nothing more of it is used, and a person has a due time (law 2).

    False, and nothing is changed, where another reader brought it to its end: this one was silent for too long.
    """
    on = cursor(session)
    on.execute(
        """
        UPDATE lab_file SET state = 'held', held_because = %s, detail = %s, finished_at = %s, claimed_until = NULL
        WHERE id = %s AND state = 'reading'
        """,
        (fault.reason.value, fault.detail[:400], now, file.id),
    )
    if not on.rowcount:
        return False
    audit.record(
        session,
        action="lab_file.held",
        subject="lab_file",
        subject_id=file.id,
        actor=actor,
        now=now,
        reason=fault.reason.value,
    )
    held = [each.service for each in services.values() if each.service.contract(file.lab) is not None]
    case = OwedCase(
        key=f"file:{file.id}",
        kind=CaseKind.LAB_ROW,
        lab=file.lab,
        detail={"quarantine": fault.reason.value, "file_ref": file.ref},
    )
    for service in held[:1] or [each.service for each in services.values()][:1]:
        owe_cases(session, [case], service=service, now=now, actor=actor)
    _end_older_holds(session, file, bytes_of=file.id, now=now, actor=actor)
    return True


def end_as_done(session: Session, file: ClaimedFile, *, now: datetime, actor: str) -> None:
    """Every message of the file is committed. Nothing is changed where another reader brought it to its end."""
    on = cursor(session)
    on.execute(
        """
        UPDATE lab_file SET state = 'done', finished_at = %s, claimed_until = NULL
        WHERE id = %s AND state = 'reading'
        """,
        (now, file.id),
    )
    if not on.rowcount:
        return
    audit.record(session, action="lab_file.done", subject="lab_file", subject_id=file.id, actor=actor, now=now)
    _end_older_holds(session, file, bytes_of=file.id, now=now, actor=actor)


@dataclass(frozen=True, slots=True)
class FileToMove:
    """A finished file that still stands in incoming/."""

    id: int
    ref: str
    lab: str
    key: str
    version_id: str
    held: bool
    finished_at: datetime

    @property
    def place(self) -> str:
        """Where the object belongs once the file has its verdict."""
        return _place(self.lab, self.ref, self.key, self.finished_at, held=self.held)


def _place(lab: str, ref: str, key: str, finished_at: datetime, *, held: bool) -> str:
    folder = f"{lab}/quarantine" if held else f"{lab}/processed/{finished_at:%Y/%m/%d}"
    start = f"{folder}/{ref[:12]}-"
    name = key.rsplit("/", 1)[-1].encode()[-(LONGEST_KEY - len(start) - len(LONGEST_ENDING)) :]
    return start + name.decode(errors="ignore")


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A finished file, and where its bytes stand now."""

    id: int
    ref: str
    lab: str
    held_because: Quarantine | None
    incoming: str
    """Where the lab had put it."""
    key: str
    version_id: str


_KEPT: Final = """
    SELECT id, ref, lab, held_because, object_key, object_version, moved, finished_at, state = 'held' FROM lab_file
"""


def kept_files(session: Session, *, file_ids: Collection[int] = (), ref: str = "") -> list[KeptFile]:
    """Finished files by id or by reference, oldest first."""
    on = cursor(session)
    on.execute(
        f"{_KEPT} WHERE (id = ANY(%s) OR ref = %s) AND finished_at IS NOT NULL ORDER BY id", (list(file_ids), ref)
    )
    return _as_kept(on)


def kept_since(session: Session, lab: str, since: datetime) -> list[KeptFile]:
    """The files of a lab that were read since then, oldest first."""
    on = cursor(session)
    on.execute(f"{_KEPT} WHERE lab = %s AND state = 'done' AND arrived_at >= %s ORDER BY id", (lab, since))
    return _as_kept(on)


def _as_kept(on: Iterable[tuple[Any, ...]]) -> list[KeptFile]:
    found = []
    for file_id, its_ref, lab, because, incoming, version_id, moved, finished_at, held in on:
        key = _place(lab, its_ref, incoming, finished_at, held=held) if moved else incoming
        why = Quarantine(because) if because else None
        found.append(KeptFile(file_id, its_ref, lab, why, incoming, key, "" if moved else version_id))
    return found


def let_in_again(session: Session, file: KeptFile, *, now: datetime, actor: str) -> None:
    """Somebody looked at a held file and has it read again; one with too much quarantined is then read row by row.

    Raises ServiceError(NOT_NOW) for a file that is not held, or whose case is over. The caller puts the bytes back
    into incoming/; the case ends once they have been read.
    """
    if file.held_because is None:
        raise ServiceError(Code.NOT_NOW, "Only a file that is held can be read again as a whole.")
    on = cursor(session)
    on.execute("SELECT EXISTS (SELECT FROM clinic_case WHERE key = %s AND closed_at IS NULL)", (f"file:{file.id}",))
    if not on.fetchone()[0]:  # type: ignore[index]
        raise ServiceError(Code.NOT_NOW, "This file's case is over: it was read again since, or settled.")
    if file.held_because is Quarantine.TOO_MANY_QUARANTINED:
        cursor(session).execute("UPDATE lab_file SET go_ahead_by = %s WHERE id = %s", (actor, file.id))
    audit.record(
        session,
        action="lab_file.let_in_again",
        subject="lab_file",
        subject_id=file.id,
        actor=actor,
        now=now,
        reason=file.held_because.value,
    )


def files_to_move(session: Session, *, limit: int) -> list[FileToMove]:
    """Finished files whose objects were not put away yet: the move itself may be repeated."""
    on = cursor(session)
    on.execute(
        """
        SELECT id, ref, lab, object_key, object_version, state = 'held', finished_at FROM lab_file
        WHERE NOT moved AND state IN ('done', 'held', 'duplicate') ORDER BY id LIMIT %s
        """,
        (limit,),
    )
    return [FileToMove(*row) for row in on]


def note_moved(session: Session, file_id: int) -> None:
    """The object stands in processed/ or quarantine/."""
    cursor(session).execute("UPDATE lab_file SET moved = true WHERE id = %s", (file_id,))


def as_file_ref(file: ClaimedFile, lab_map_version_id: int) -> FileRef:
    """What storing its chunks needs to know of a claimed file."""
    return FileRef(file.id, file.ref, file.lab, lab_map_version_id)
