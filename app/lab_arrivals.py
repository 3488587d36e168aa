"""What waits in the labs' incoming folders: found by the sweep, and by whoever hears of a file that landed."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from app.database import Begin
from integrations.ports import FileStore
from models.actions import lab_file
from models.rules.lab import LabMap

COMPANIONS: Final = (".ctl", ".done")
"""Files that stand beside a file and say that it is whole."""


def find_arrivals(begin: Begin, store: FileStore, maps: Mapping[str, LabMap], *, now: datetime) -> int:
    """Notes every whole file in every lab's incoming folder, each version once, and says how many are new."""
    found = []
    for lab, lab_map in maps.items():
        listed = {each.key: each for each in store.list(f"{lab}/incoming/")}
        for key, each in listed.items():
            if key.endswith(COMPANIONS):
                continue
            if _waits_for_companion(lab_map, key) and not any(key + end in listed for end in COMPANIONS):
                continue
            found.append(lab_file.Arrival(lab, key, each.version_id, each.size_bytes))
    with begin() as session:
        return lab_file.take_arrivals(session, found, now=now)


def _waits_for_companion(lab_map: LabMap, key: str) -> bool:
    """A lab that sends a control file or a marker writes it last: without it the file may be half there."""
    return key.endswith(".csv") and lab_map.csv is not None and lab_map.csv.control_file
