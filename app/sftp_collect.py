"""Files fetched from laboratories' SFTP servers: into the store first, put aside there after, receipts back."""

import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from app.lab_reading import Ingest
from integrations.ports import LabDrop
from models.actions.lab_receipt import finished_file, receipt_of
from models.rules.errors import Code, ServiceError
from models.rules.lab import COMPANIONS, LabMap, as_agreed, is_companion, is_under_way
from models.rules.lab_receipt import receipt_as_json, receipt_as_text

IN_MEMORY_BYTES: Final = 8 << 20
"""Larger files pass through a nameless temporary file."""

_ODD: Final = re.compile(r"[^A-Za-z0-9._-]")
_DIGEST_CHARACTERS: Final = 12
_LONGEST_NAME: Final = 120
_PUT_ASIDE: Final = re.compile(rf"[0-9a-f]{{{_DIGEST_CHARACTERS}}}-", re.ASCII)
"""How every name begins that we gave in collected/."""


@dataclass(slots=True)
class Collected:
    """What one visit to a server did."""

    files: int = 0
    receipts: int = 0
    passed_over: int = 0
    """Links, folders and other things that are no files."""
    failed: list[str] = field(default_factory=list)
    """A sentence for each file that the server refused."""

    @contextmanager
    def each_by_itself(self, name: str) -> Iterator[None]:
        """What goes wrong with one file keeps no other, and is told at the end.

        The file is named by a hash of its name, in which a laboratory may have put a person's (law 8).
        """
        try:
            yield
        except ServiceError as error:
            if error.code is not Code.BAD_INPUT:
                raise
            mark = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGEST_CHARACTERS]
            self.failed.append(f"A file was left as it is (SHA-256 of its name: {mark}…). {error.message}")


async def collect_files(ingest: Ingest, lab: str, drop: LabDrop) -> Collected:
    """Takes every whole file from one laboratory's server, and leaves the receipts of those read since.

    A file is put aside only after the store has it. Killed in between, it is fetched again under the same
    name, and the same bytes twice have no effect. A file that the server refuses is left, and told.
    Raises ServiceError(NOT_NOW | STORE_DOWN).
    """
    listing = await drop.look()
    done = Collected(passed_over=listing.passed_over)
    names = listing.names
    spelt = {as_agreed(name): name for name in names}
    for name in whole_files(names, ingest.maps[lab]):
        beside = {ending: spelt[name + ending] for ending in COMPANIONS if name + ending in spelt}
        with done.each_by_itself(name):
            await _take(ingest, lab, drop, {"": name, **beside})
            done.files += 1
    left = set(await drop.receipts())
    for name in await drop.collected():
        if f"{name}.receipt.txt" not in left and _PUT_ASIDE.match(name) and not is_companion(name):
            with done.each_by_itself(name):
                done.receipts += await _leave_receipt(ingest, lab, drop, name)
    return done


def whole_files(names: Sequence[str], lab_map: LabMap) -> list[str]:
    """The files that are there whole, by their names: not under way, and with what the lab writes last beside them."""
    there = {as_agreed(name) for name in names}
    return [
        name
        for name in names
        if not is_under_way(name) and not is_companion(name) and name + lab_map.companion_of(name) in there
    ]


async def _take(ingest: Ingest, lab: str, drop: LabDrop, names: Mapping[str, str]) -> None:
    """One file and, by their endings, those beside it. What says that it is whole comes last here too."""
    stored = ""
    for ending, name in names.items():
        with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as content:
            digest = await drop.fetch(name, content)
            stored = stored or f"{digest[:_DIGEST_CHARACTERS]}-{_ODD.sub('_', name)[-_LONGEST_NAME:]}"
            content.seek(0)
            ingest.store.put_file(f"{lab}/incoming/{stored}{ending}", content)
    for ending, name in names.items():
        await drop.put_aside(name, stored + ending)


async def _leave_receipt(ingest: Ingest, lab: str, drop: LabDrop, name: str) -> int:
    digest = name[:_DIGEST_CHARACTERS]
    with ingest.begin() as session:
        file_id = finished_file(session, lab=lab, digest=digest)
        if file_id is None:
            return 0
        receipt = receipt_of(session, file_id)
    # The one that tells that both are there comes last.
    await drop.leave(f"{name}.receipt.json", receipt_as_json(receipt))
    await drop.leave(f"{name}.receipt.txt", receipt_as_text(receipt))
    return 1
