"""What waits in the labs' incoming folders: found by the sweep, and by whoever hears of a file that landed."""

from collections.abc import Mapping
from datetime import datetime

from app.database import Begin
from integrations.ports import FileStore
from models.actions import lab_file
from models.rules.lab import COMPANIONS, LabMap, as_agreed, is_companion, is_under_way


def find_arrivals(begin: Begin, store: FileStore, maps: Mapping[str, LabMap], *, now: datetime) -> int:
    """Notes every whole file in every lab's incoming folder, each version once, and says how many are new."""
    found = []
    for lab, lab_map in maps.items():
        listed = {each.key: each for each in store.list(f"{lab}/incoming/")}
        there = {as_agreed(key) for key in listed}
        for key, each in listed.items():
            if is_companion(key) or is_under_way(key.rpartition("/")[2]):
                continue
            if key + lab_map.companion_of(key) not in there:
                continue
            found.append(lab_file.Arrival(lab, key, each.version_id, each.size_bytes))
    with begin() as session:
        return lab_file.take_arrivals(session, found, now=now)


def companions_of(store: FileStore, key: str) -> dict[str, str]:
    """What stands beside a file in the store and says that it is whole: its ending as agreed, and its key."""
    beside = {as_agreed(each.key).removeprefix(key): each.key for each in store.list(f"{key}.")}
    return {ending: found for ending, found in beside.items() if ending in COMPANIONS}
