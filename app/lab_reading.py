"""What reading labs' files needs, and reading rows again: bytes from the store, one file a transaction."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from sqlmodel import Session

from app.database import Begin
from app.lab_arrivals import companions_of
from app.wiring import Clock, Wiring, lab_files
from integrations.ports import FileStore
from models.actions import lab_file, quarantine
from models.actions.quarantine import Again, Which
from models.actions.result import Desk, FileRef, ReadMessage
from models.actions.service import keep_lab_map_version
from models.rules.errors import Code, ServiceError
from models.rules.lab import Fault, LabMap, LabMessage
from models.rules.result import interpret
from models.rules.secrets import BlindIndex, Cipher
from models.rules.service import Services
from models.rules.staff import Actor
from models.rules.vocabulary import Quarantine


@dataclass(frozen=True, slots=True)
class Ingest:
    """All that reading files needs, put together by wiring."""

    begin: Begin
    store: FileStore
    maps: Mapping[str, LabMap]
    services: Services
    indexes: BlindIndex
    cipher: Cipher
    clock: Clock


def ingest_of(product: Wiring) -> Ingest:
    """What reading files needs, from an installation."""
    return Ingest(
        begin=product.begin,
        store=product.store,
        maps=product.lab_maps,
        services=product.services,
        indexes=product.index,
        cipher=product.cipher,
        clock=product.clock,
    )


class UnreadableFileError(ServiceError):
    """One file that can't be read as things are, and why: a reason to leave this file, never to stop at it."""

    def __init__(self, file: lab_file.KeptFile, why: str) -> None:
        super().__init__(Code.NOT_NOW, why, ref=file.ref)


class _OnlyLooked(Exception):  # noqa: N818 - takes everything back after a dry run
    """Nothing is kept."""


def read_rows_again(
    ingest: Ingest,
    *,
    actor: str,
    lab: str = "",
    reason: Quarantine | None = None,
    row_ref: str = "",
    service_ids: Collection[str] | None = None,
    dry_run: bool = False,
) -> Again:
    """Reads rows in quarantine again under today's maps, file by file, each in its own transaction.

    A file that can't be read stops no other: it is told of, and its rows wait as before. With `dry_run`
    everything is tried and taken back. Raises ServiceError(NOT_FOUND) for a lab without a map.
    """
    if lab and lab not in ingest.maps:
        raise ServiceError(Code.NOT_FOUND, f"No lab of that name is configured. There are: {', '.join(ingest.maps)}.")
    total = Again()
    which = Which(lab, reason, row_ref, service_ids)
    with ingest.begin() as session:
        files = quarantine.files_with_rows(session, which)
        kept = lab_file.kept_files(session, file_ids=[each for each, of in files.items() if of in ingest.maps])
    for file in kept:
        try:
            messages, places = _read_rows(ingest, file, which)
        except UnreadableFileError as unreadable:
            total.unread[file.ref] = unreadable.message
            continue
        with suppress(_OnlyLooked), ingest.begin() as session:
            rows = [row for row in quarantine.rows_waiting(session, file.id, which) if row.position in places]
            desk = desk_for(ingest, session, file, actor=actor)
            total.add(quarantine.read_again(session, messages, rows, desk))
            if dry_run:
                raise _OnlyLooked
    return total


def desk_for(ingest: Ingest, session: Session, file: lab_file.KeptFile, *, actor: str) -> Desk:
    """What storing rows of a file that was read before needs: its lab's map as it is today."""
    lab_map = ingest.maps[file.lab]
    ref = FileRef(file.id, file.ref, file.lab, keep_lab_map_version(session, file.lab, lab_map.version))
    return Desk(ref, lab_map, ingest.clock(), actor, ingest.services, ingest.indexes, ingest.cipher)


def _read_rows(ingest: Ingest, file: lab_file.KeptFile, which: Which) -> tuple[list[ReadMessage], set[int]]:
    """The messages of a file in which such rows wait, whole, under today's map; and where those rows stand.

    The store is read between two transactions: nobody waits for it.
    """
    with ingest.begin() as session:
        places = {row.position for row in quarantine.rows_waiting(session, file.id, which)}
    return messages_at(ingest, file, places), places


def messages_at(ingest: Ingest, file: lab_file.KeptFile, positions: Collection[int]) -> list[ReadMessage]:
    """The messages of a file in which these rows stand, whole, under today's map. Raises UnreadableFileError."""
    lab_map = ingest.maps[file.lab]
    return [
        ReadMessage(message, interpret(message, lab_map))
        for message in messages_of(ingest, file, lab_map)
        if any(row.position in positions for row in message.rows)
    ]


_OF_ONE_FILE: Final = frozenset({Code.NOT_FOUND, Code.NOT_NOW})
"""What the store says of one object: it is gone, or archived. Any other error is the store's, for every file alike."""


def messages_of(ingest: Ingest, file: lab_file.KeptFile, lab_map: LabMap) -> Iterator[LabMessage]:
    """Every message of a file that was read before, under a map. Raises UnreadableFileError, at any message."""
    try:
        yield from lab_files.read_messages(ingest.store.stream(file.key, file.version_id), lab_map)
    except lab_files.BrokenFile as broken:
        raise UnreadableFileError(file, _why_broken(broken.fault)) from broken
    except ServiceError as error:
        if error.code not in _OF_ONE_FILE:
            raise
        raise UnreadableFileError(file, error.message) from error


def _why_broken(fault: Fault) -> str:
    """The file was read once, so what stands in its way now is the map."""
    if fault.reason is Quarantine.HEADER_CHANGED:
        return f"The file's columns are those of an earlier map. {fault.detail}"
    return f"The file can't be read under this map. {fault.detail}"


def attach_row(ingest: Ingest, row_ref: str, code: str, *, by: Actor) -> None:
    """Notes the wish to take a row as the kit's of this kit or tube id, if all the rest agrees (law 1)."""
    file = _file_of(ingest, row_ref)
    messages, _ = _read_rows(ingest, file, Which(row_ref=row_ref))
    with ingest.begin() as session:
        quarantine.lock_file(session, file.id)
        desk = desk_for(ingest, session, file, actor=by.audit_name)
        quarantine.propose_attachment(session, row_ref, messages, code, by=by, desk=desk)


def settle_row(ingest: Ingest, row_ref: str, *, approve: bool, by: Actor) -> None:
    """A second person agrees to such a wish, or it is taken back, for which nothing is read."""
    file = _file_of(ingest, row_ref)
    messages = _read_rows(ingest, file, Which(row_ref=row_ref))[0] if approve else []
    with ingest.begin() as session:
        quarantine.lock_file(session, file.id)
        desk = desk_for(ingest, session, file, actor=by.audit_name)
        quarantine.settle_attachment(session, row_ref, messages, approve=approve, by=by, desk=desk)


def _file_of(ingest: Ingest, row_ref: str) -> lab_file.KeptFile:
    """The file of a row that waits. Raises ServiceError(NOT_NOW)."""
    with ingest.begin() as session:
        files = quarantine.files_with_rows(session, Which(row_ref=row_ref))
        file = next(iter(lab_file.kept_files(session, file_ids=list(files))), None)
    if file is None or file.lab not in ingest.maps:
        raise ServiceError(Code.NOT_NOW, "This row waits no longer, or its laboratory has no map: look at it again.")
    return file


def let_in_again(ingest: Ingest, file_ref: str, *, actor: str) -> None:
    """Puts a held file back where labs put theirs, so that the next run reads it anew.

    Raises ServiceError(NOT_FOUND | NOT_NOW), the latter too where there is nothing to put back, and nothing has
    changed. Repeating it after a kill in between changes nothing more.
    """
    with ingest.begin() as session:
        file = next(iter(lab_file.kept_files(session, ref=file_ref)), None)
    if file is None:
        raise ServiceError(Code.NOT_FOUND, "There is no such file.")
    _check_can_be_put_back(ingest.store, file)
    with ingest.begin() as session:
        lab_file.let_in_again(session, file, now=ingest.clock(), actor=actor)
    beside = {file.key: "", **{key: ending for ending, key in companions_of(ingest.store, file.key).items()}}
    for key, ending in beside.items():  # the file first: what says that it is whole is written last
        try:
            ingest.store.move(key, file.incoming + ending)
        except ServiceError as error:
            if error.code is not Code.NOT_FOUND or not ending:
                raise


def _check_can_be_put_back(store: FileStore, file: lab_file.KeptFile) -> None:
    """Raises ServiceError(NOT_NOW) unless the file's bytes are at hand, or lie where they belong already."""
    if file.key == file.incoming:
        raise ServiceError(Code.NOT_NOW, "This file is just being put away: try again in a minute.")
    at_hand, waits = _is_there(store, file.key), _is_there(store, file.incoming)
    if at_hand and waits:
        raise ServiceError(Code.NOT_NOW, "Another file of this name waits to be read: try again after it.")
    if not (at_hand or waits):
        raise ServiceError(
            Code.NOT_NOW,
            "This file is not where it was kept. Unless it was read again since, it is lost: ask for it once more.",
        )


def _is_there(store: FileStore, key: str) -> bool:
    try:
        store.pin(key)
    except ServiceError as error:
        if error.code is Code.NOT_FOUND:
            return False
        raise
    return True
