"""Lab files and messages: store's incoming folders -> stored versions, quarantine, decisions.

One run takes every file that waits, and looks again before it ends (ruling 13). A file is a unit
that can be resumed: each chunk of messages is one transaction that also moves the file's position,
so a run killed at any line is taken up where it stood, and nothing is doubled.
"""

import gc
import logging
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import islice
from typing import Final

from prefect import flow
from sqlmodel import Session

from app.lab_arrivals import companions_of, find_arrivals, find_unread, stops_no_other
from app.lab_messages import file_messages
from app.lab_reading import Ingest, ingest_of
from app.prefect.events import TEXT_OWED, tell
from app.wiring import connect, lab_files
from flows.guard import guarded
from models.actions import lab_file, release
from models.actions.lab_receipt import receipt_of
from models.actions.result import ChunkTally, Desk, FileRef, move_position
from models.actions.service import keep_lab_map_version
from models.rules.errors import Code, ServiceError
from models.rules.lab import Fault, LabMap, LabMessage
from models.rules.lab_receipt import receipt_as_json, receipt_as_text
from models.rules.quarantine import MOST_ROWS, is_too_many
from models.rules.vocabulary import Quarantine

ACTOR: Final = "flow:ingest_results"
log: Final = logging.getLogger("kitpost")
MESSAGES_A_CHUNK: Final = 1_000
"""One transaction each: large enough for set-based work, small enough to hold few kits locked."""


@dataclass(slots=True)
class Tally:
    """Counts of one run: all that Prefect is told."""

    files: int = 0
    held: int = 0
    duplicates: int = 0
    messages: int = 0
    rows: int = 0
    stored: int = 0
    repeated: int = 0
    quarantined: int = 0
    details: int = 0
    replayed: int = 0
    decided: int = 0
    waits_ended: int = 0

    def add(self, chunk: ChunkTally) -> None:
        """Adds one chunk's counts."""
        for each in fields(chunk):
            setattr(self, each.name, getattr(self, each.name) + getattr(chunk, each.name))


def ingest_waiting_files(ingest: Ingest, *, limit: int) -> Tally:
    """Takes up to `limit` files, ends waits that are over, and puts finished files away.

    A file that can't be read through stops no other: it is tried again once its lease is over. Nor does one
    that can't be found, noted or put away. The run fails at its end with the first such error.
    """
    tally = Tally()
    failures: list[Exception] = []
    _sweep(ingest, failures)
    while tally.files < limit:
        with ingest.begin() as session:
            file = lab_file.claim_file(session, labs=ingest.maps)
        if file is None:
            if not _sweep(ingest, failures):
                break
            continue
        with stops_no_other(failures, f"file {file.ref}"):
            read_file(ingest, file, tally)
        put_away(ingest, failures)
    put_away(ingest, failures)
    with stops_no_other(failures, "what lies unread in the store"):
        find_unread(ingest.begin, ingest.store, ingest.maps)
    with ingest.begin() as session:
        tally.waits_ended = release.expire_holds(
            session,
            limit=limit,
            now=ingest.clock(),
            actor=ACTOR,
            services=ingest.services,
            cipher=ingest.cipher,
        )
    if failures:
        raise failures[0]
    return tally


def _sweep(ingest: Ingest, failures: list[Exception]) -> int:
    with stops_no_other(failures, "messages that came one by one"):
        file_messages(ingest)
    return find_arrivals(ingest.begin, ingest.store, ingest.maps, now=ingest.clock(), failures=failures)


def read_file(ingest: Ingest, file: lab_file.ClaimedFile, tally: Tally) -> None:
    """Reads one file to its verdict: done, held or a known duplicate."""
    tally.files += 1
    try:
        _read_to_its_end(ingest, file, tally)
    except _Deleted:
        with ingest.begin() as session:
            _hold(ingest, session, file, _DELETED, tally)


def _read_to_its_end(ingest: Ingest, file: lab_file.ClaimedFile, tally: Tally) -> None:
    lab_map = ingest.maps[file.lab]
    now = ingest.clock()
    verdict = lab_files.check_file(_bytes_of(ingest, file), lab_map, control=_control_of(ingest, file))
    with ingest.begin() as session:
        version_id = keep_lab_map_version(session, file.lab, lab_map.version)
        known = lab_file.note_content(
            session,
            file,
            content_sha256=verdict.sha256.hex(),
            control_id=verdict.control_id,
            complete=verdict.is_complete,
            lab_map_version_id=version_id,
        )
        if known is not None:
            tally.duplicates += 1
            lab_file.end_as_duplicate(session, file, of=known, now=now, actor=ACTOR)
            return
        fault = verdict.held
        if fault is None and verdict.control_id and lab_file.has_control_id(session, file, verdict.control_id):
            fault = Fault(
                Quarantine.CONTROL_ID_REUSE,
                "Another file with other content carried this control id: send it again under a new one.",
            )
        may_go_on = lab_file.may_go_on(session, file, verdict.sha256.hex())
        if fault is None and verdict.seen > MOST_ROWS and not may_go_on:
            fault = Fault(Quarantine.TOO_MANY_QUARANTINED, f"The file holds more than {MOST_ROWS} messages or rows.")
        if fault is not None:
            _hold(ingest, session, file, fault, tally)
            return
    percent = 100 if may_go_on else lab_map.max_quarantined_percent
    read = file.messages_read
    try:
        for chunk in _chunks(ingest, file, lab_map):
            read += len(chunk)
            ref = lab_file.as_file_ref(file, version_id)
            tally.add(_store(ingest, ref, lab_map, chunk, read=read, now=now, percent=percent))
    except _TooMany:
        fault = Fault(Quarantine.TOO_MANY_QUARANTINED, f"More than {percent} in 100 results can't be used.")
        with ingest.begin() as session:
            _hold(ingest, session, file, fault, tally)
        return
    except lab_files.BrokenFile as broken:
        # What its check let pass and its reader does not: nested one level too deep, say.
        with ingest.begin() as session:
            _hold(ingest, session, file, broken.fault, tally)
        return
    with ingest.begin() as session:
        lab_file.end_as_done(session, file, now=ingest.clock(), actor=ACTOR)


class _TooMany(Exception):  # noqa: N818 - takes a chunk back, so that nothing of it is told
    """So much of a file can't be used that the file is wrong, and not its rows."""


class _Deleted(Exception):  # noqa: N818 - as above
    """The very version of a file that was noted is gone: it would be looked for in vain for ever."""


_DELETED: Final = Fault(
    Quarantine.INCOMPLETE_FILE, "The file was deleted before it was read to its end: send it again."
)


def _hold(ingest: Ingest, session: Session, file: lab_file.ClaimedFile, fault: Fault, tally: Tally) -> None:
    if lab_file.end_as_held(session, file, fault, now=ingest.clock(), actor=ACTOR, services=ingest.services):
        tally.held += 1
        log.error("ingest-results: file %s of %s is held: %s", file.ref, file.lab, fault.reason)


def _store(
    ingest: Ingest, file: FileRef, lab_map: LabMap, chunk: list[LabMessage], *, read: int, now: datetime, percent: int
) -> ChunkTally:
    with ingest.begin() as session:
        desk = Desk(file, lab_map, now, ACTOR, ingest.services, ingest.indexes, ingest.cipher)
        stored = release.take_chunk(session, chunk, desk)
        quarantined, results = move_position(
            session, file, stored, messages_read=read, lease_seconds=lab_file.LEASE_SECONDS
        )
        if is_too_many(quarantined, results, percent):
            raise _TooMany
    return stored


def _chunks(ingest: Ingest, file: lab_file.ClaimedFile, lab_map: LabMap) -> Iterator[list[LabMessage]]:
    messages = lab_files.read_messages(_bytes_of(ingest, file), lab_map, skip_messages=file.messages_read)
    while chunk := list(islice(messages, MESSAGES_A_CHUNK)):
        yield chunk


def _bytes_of(ingest: Ingest, file: lab_file.ClaimedFile) -> Iterator[bytes]:
    try:
        yield from ingest.store.stream(file.key, file.version_id)
    except ServiceError as error:
        if error.code is Code.NOT_FOUND:
            raise _Deleted from error
        raise


def _control_of(ingest: Ingest, file: lab_file.ClaimedFile) -> bytes | None:
    """The control file beside a file, if the lab wrote one."""
    beside = companions_of(ingest.store, file.key).get(".ctl")
    if beside is None:
        return None
    try:
        return ingest.store.read(beside)
    except ServiceError as error:
        if error.code is Code.NOT_FOUND:
            return None
        raise


def put_away(ingest: Ingest, failures: list[Exception]) -> None:
    """Moves finished files out of incoming/, each with its receipt.

    Repeating a move or a receipt changes nothing, so a kill in between is harmless.
    """
    with ingest.begin() as session:
        waiting = lab_file.files_to_move(session, limit=100)
    for file in waiting:
        with stops_no_other(failures, f"putting away file {file.ref}"):
            _put_away(ingest, file)


def _put_away(ingest: Ingest, file: lab_file.FileToMove) -> None:
    place = file.place
    _move(ingest, file.key, place, file.version_id)
    # The lab may have sent another file under the same name meanwhile: what stands beside it is then its own.
    if not any(each.key == file.key for each in ingest.store.list(file.key)):
        for ending, beside in companions_of(ingest.store, file.key).items():
            _move(ingest, beside, place + ending)
    _leave_receipt(ingest, file.id, place)
    with ingest.begin() as session:
        lab_file.note_moved(session, file.id)


def _leave_receipt(ingest: Ingest, file_id: int, place: str) -> None:
    """Says beside a finished file what became of it. Made from rows alone, so a second time it says the same."""
    with ingest.begin() as session:
        receipt = receipt_of(session, file_id)
    ingest.store.put(f"{place}.receipt.json", receipt_as_json(receipt), "application/json")
    ingest.store.put(f"{place}.receipt.txt", receipt_as_text(receipt), "text/plain; charset=utf-8")


def _move(ingest: Ingest, key: str, to: str, version_id: str = "") -> None:
    try:
        ingest.store.move(key, to, version_id)
    except ServiceError as error:
        if error.code is not Code.NOT_FOUND:
            raise


def settle_memory() -> None:
    """What stands now stays to the end of the process, and what a chunk makes is freed without the collector.

    It would walk through all of it again and again: a tenth of the time that a file takes.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@flow(name="ingest-results", retries=0)
@guarded("ingest-results")
def ingest_results(limit: int = 50) -> None:
    """Reads waiting lab files, and wakes the sender when something may be owed."""
    product = connect()
    settle_memory()
    tally = ingest_waiting_files(ingest_of(product), limit=limit)
    log.info("ingest-results: %s", tally)
    if tally.decided or tally.waits_ended:
        tell(TEXT_OWED)
