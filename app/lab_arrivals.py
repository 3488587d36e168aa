"""What waits in the labs' incoming folders: found by the sweep, and by whoever hears of a file that landed."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from app.database import Begin
from integrations.ports import ArrivalQueue, FileStore
from models.actions import lab_file
from models.rules.errors import Code, ServiceError
from models.rules.lab import COMPANIONS, LabMap, as_agreed, is_companion, is_under_way
from models.tables.result import LONGEST_KEY

log: Final = logging.getLogger("kitpost")


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
                by = listed.get(each.key + lab_map.companion_of(each.key))
                if _is_file(each.key) and by is not None and each.modified_at <= by.modified_at:
                    with stops_no_other(failures, f"an object that waits in the incoming folder of {lab}"):
                        new += _note(begin, store, lab, each.key, whole_at=by.modified_at, now=now)
    return new


def hear_of_arrivals(
    queue: ArrivalQueue, begin: Begin, store: FileStore, maps: Mapping[str, LabMap], *, now: datetime
) -> int:
    """Waits for word of files that landed, notes them, and says how many are new.

    Every word is taken off the queue, whatever came of it: it is a hint, and would come again for ever. What
    could not be noted is found by the sweep of the ingest flow, which fails of it (ruling 13).
    """
    heard = queue.receive(20)
    new = 0
    if any("/incoming/" in key for _, key in heard):
        new = find_arrivals(begin, store, maps, now=now, failures=[])
    for receipt, _ in heard:
        queue.done(receipt)
    return new


def _is_file(key: str) -> bool:
    """Whether an object is a file of results by its name: no folder's marker, no companion, not under way."""
    return not (key.endswith("/") or is_companion(key) or is_under_way(key.rpartition("/")[2]))


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
