"""What waits in the labs' incoming folders: found by the sweep, and by whoever hears of a file that landed."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from itertools import chain, islice
from typing import Final

from app.database import Begin
from app.wiring import Clock
from integrations.ports import ArrivalQueue, FileStore, StoredObject
from models.actions import lab_file
from models.rules.errors import Code, ServiceError
from models.rules.lab import COMPANIONS, LabMap, Unread, as_agreed, is_companion, is_under_way
from models.tables.result import LONGEST_KEY

log: Final = logging.getLogger("kitpost")

OURS: Final = ("audit/", "batches/", "sender/")
"""Folders of the bucket in which the product keeps what is no laboratory's."""

OURS_OF_A_LAB: Final = ("processed/", "quarantine/", "outgoing/")
"""Folders of a laboratory in which the product puts things; those of one that has left us stay."""

MOST_IN_ONE_PLACE: Final = 1_000
"""Objects that are named of one misplaced folder: enough to see what it is."""


@contextmanager
def stops_no_other(failures: list[Exception], what: str) -> Iterator[None]:
    """Whatever goes wrong with one thing stands in the log and in `failures`, and what comes after it goes on.

    `what` is our own name for it: what a lab calls its file may name somebody.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, the others go on; the run fails at its end
        # Without the traceback and foreign words, which may show values.
        why = error.message if isinstance(error, ServiceError) else type(error).__name__
        log.error("ingest-results: %s: %s", what, why)  # noqa: TRY400
        failures.append(error)


def find_arrivals(
    begin: Begin, store: FileStore, maps: Mapping[str, LabMap], *, now: datetime, failures: list[Exception]
) -> int:
    """Notes every whole file in every lab's incoming folder, each version once, and says how many are new.

    A lab that can't be looked at, or a file that can't be noted, stops no other: why is added to `failures`.
    """
    new = 0
    for lab, lab_map in maps.items():
        with stops_no_other(failures, f"the incoming folder of {lab}"):
            listed = {as_agreed(each.key): each for each in store.list(f"{lab}/incoming/")}
            for each in listed.values():
                by = _whole_by(each, listed, lab_map)
                if by is not None and _why_unread(each, listed, lab_map) is Unread.NOT_TAKEN:
                    with stops_no_other(failures, f"an object that waits in the incoming folder of {lab}"):
                        new += _note(begin, store, lab, each.key, whole_at=by.modified_at, now=now)
    return new


def hear_of_arrivals(
    queue: ArrivalQueue, begin: Begin, store: FileStore, maps: Mapping[str, LabMap], clock: Clock
) -> int:
    """Waits for word of files that landed, notes them, and says how many are new.

    Every word is taken off the queue, whatever came of it: it is a hint, and would come again for ever. What
    could not be noted is found by the sweep of the ingest flow, which fails of it (ruling 13).
    """
    heard = queue.receive(20)
    new = 0
    if any("/incoming/" in key for _, key in heard):
        new = find_arrivals(begin, store, maps, now=clock(), failures=[])
    for receipt, _ in heard:
        queue.done(receipt)
    return new


def find_unread(begin: Begin, store: FileStore, maps: Mapping[str, LabMap]) -> None:
    """Notes what lies in the store for more than a day and is not read, so that the balance and the lab desk name it.

    The bucket is kitpost's alone: what lies anywhere else in it was meant for us, and put there by mistake.
    """
    lying = {each.key: each for each in chain(_unread_in_place(store, maps), _misplaced(store, maps))}
    with begin() as session:
        lab_file.note_unread(session, list(lying.values()))


def _unread_in_place(store: FileStore, maps: Mapping[str, LabMap]) -> Iterator[lab_file.Lying]:
    for lab, lab_map in maps.items():
        listed = {as_agreed(each.key): each for each in store.list(f"{lab}/incoming/")}
        for each in listed.values():
            why = _why_unread(each, listed, lab_map)
            if why is not None:
                yield lab_file.Lying(lab, each.key, why, each.modified_at)


def _why_unread(each: StoredObject, listed: Mapping[str, StoredObject], lab_map: LabMap) -> Unread | None:
    """Why an object is not read, should it lie for long; None for what only stands beside another, and for folders."""
    if each.key.endswith("/"):
        return None
    if _is_under_way(each):
        return Unread.UNDER_WAY
    if is_companion(each.key):
        return None if each.key.rpartition(".")[0] in listed else Unread.ALONE
    return Unread.NOT_WHOLE if _whole_by(each, listed, lab_map) is None else Unread.NOT_TAKEN


def _misplaced(store: FileStore, maps: Mapping[str, LabMap]) -> Iterator[lab_file.Lying]:
    spelt = {lab.casefold(): lab for lab in maps}
    for place in _odd_places(store, maps):
        lab = spelt.get(place.partition("/")[0].casefold(), "")
        for each in islice(store.list(place), MOST_IN_ONE_PLACE):
            if not each.key.endswith("/"):
                yield lab_file.Lying(lab, each.key, Unread.MISPLACED, each.modified_at)


def _odd_places(store: FileStore, maps: Mapping[str, LabMap]) -> Iterator[str]:
    """Folders, and objects outside any, where neither we nor a laboratory puts anything. No file of ours is listed."""
    for top in store.names(""):
        if not top.endswith("/"):
            yield top
        elif top not in OURS:
            theirs = {f"{top}{each}" for each in OURS_OF_A_LAB} | {f"{lab}/incoming/" for lab in maps}
            yield from (inner for inner in store.names(top) if inner not in theirs)


def _whole_by(each: StoredObject, listed: Mapping[str, StoredObject], lab_map: LabMap) -> StoredObject | None:
    """What says that a file is whole: what its lab writes beside it, unless it is an earlier file's; else itself."""
    by = listed.get(each.key + lab_map.companion_of(each.key))
    return by if by is not None and each.modified_at <= by.modified_at else None


def _is_under_way(each: StoredObject) -> bool:
    return is_under_way(each.key.rpartition("/")[2])


def _note(begin: Begin, store: FileStore, lab: str, key: str, *, whole_at: datetime, now: datetime) -> int:
    """Notes a file as it is now, if what says that it is whole is no older: else that is an earlier file's.

    Within the same second it counts as written after: the store's time knows no less.
    """
    try:
        found = store.pin(key)
    except ServiceError as error:
        if error.code is Code.NOT_FOUND:  # moved away since it was listed: whoever moved it has it
            return 0
        raise
    if found.modified_at > whole_at:
        return 0
    with begin() as session:
        arrival = lab_file.Arrival(lab, key, found.version_id, found.size_bytes)
        return lab_file.take_arrivals(session, [arrival], now=now)


def companions_of(store: FileStore, key: str) -> dict[str, str]:
    """What stands beside a file in the store and says that it is whole: its ending as agreed, and its key."""
    if len(key.encode()) >= LONGEST_KEY:  # S3 refuses even to look for a longer one
        return {}
    beside = {as_agreed(each.key).removeprefix(key): each.key for each in store.list(f"{key}.")}
    return {ending: found for ending, found in beside.items() if ending in COMPANIONS}
