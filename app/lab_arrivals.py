"""What waits in the labs' incoming folders: found by the sweep, and by whoever hears of a file that landed."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from app.database import Begin
from integrations.ports import FileStore
from models.actions import lab_file
from models.rules.lab import LabMap, is_under_way

COMPANIONS: Final = (".ctl", ".done")
"""Files that stand beside a file and say that it is whole."""


def find_arrivals(begin: Begin, store: FileStore, maps: Mapping[str, LabMap], *, now: datetime) -> int:
    """Notes every whole file in every lab's incoming folder, each version once, and says how many are new."""
    found = []
    for lab, lab_map in maps.items():
        listed = {each.key: each for each in store.list(f"{lab}/incoming/")}
        for key, each in listed.items():
            if key.endswith(COMPANIONS) or is_under_way(key.rpartition("/")[2]):
                continue
            if key + lab_map.companion_of(key) not in listed:
                continue
            found.append(lab_file.Arrival(lab, key, each.version_id, each.size_bytes))
    with begin() as session:
        return lab_file.take_arrivals(session, found, now=now)
