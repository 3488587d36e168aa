"""Files fetched from laboratories' SFTP servers: into the store first, put aside there after, receipts back."""

import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Final

from app.lab_reading import Ingest
from app.wiring import lab_files
from integrations.ports import LabDrop
from models.actions.lab_drop import forget_looks, has_lain_still
from models.actions.lab_receipt import finished_file, receipt_of, verdicts_changed
from models.rules.errors import Code, ServiceError
from models.rules.lab import COMPANIONS, LabMap, as_agreed, is_companion, is_under_way
from models.rules.lab_receipt import receipt_as_json, receipt_as_text

IN_MEMORY_BYTES: Final = 8 << 20
"""Larger files pass through a nameless temporary file."""

_PIECE_BYTES: Final = 1 << 20
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
    waiting: int = 0
    """Files that may still be being written: taken by a later visit that finds them just the same."""
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
            mark = hashlib.sha256(_as_bytes(name)).hexdigest()[:_DIGEST_CHARACTERS]
            self.failed.append(f"A file was left as it is (SHA-256 of its name: {mark}…). {error.message}")


async def collect_files(ingest: Ingest, lab: str, drop: LabDrop) -> Collected:
    """Takes every whole file from one laboratory's server, and leaves the receipts of those read since.

    A file is put aside only after the store has it. Killed in between, it is fetched again under the same
    name, and the same bytes twice have no effect. A file that the server refuses is left, and told.
    Raises ServiceError(NOT_NOW | STORE_DOWN).
    """
    visit = _Visit(ingest, lab, drop)
    await visit.take_files()
    await visit.leave_receipts()
    return visit.done


def whole_files(names: Sequence[str], lab_map: LabMap) -> list[str]:
    """The files that are there whole, by their names: not under way, and with what the lab writes last beside them."""
    there = {as_agreed(name) for name in names}
    return [
        name
        for name in names
        if not is_under_way(name) and not is_companion(name) and name + lab_map.companion_of(name) in there
    ]


class _Visit:
    """One visit to one laboratory's server."""

    def __init__(self, ingest: Ingest, lab: str, drop: LabDrop) -> None:
        self._ingest = ingest
        self._lab = lab
        self._map = ingest.maps[lab]
        self._drop = drop
        self._looks: list[bytes] = []
        """Of files that may still be being written."""
        self.done = Collected()

    async def take_files(self) -> None:
        """Takes what is whole. What may not be is remembered for the next visit."""
        listing = await self._drop.look()
        self.done.passed_over = listing.passed_over
        spelt = {as_agreed(name): name for name in listing.names}
        for name in whole_files(listing.names, self._map):
            beside = {ending: spelt[name + ending] for ending in COMPANIONS if name + ending in spelt}
            with self.done.each_by_itself(name):
                self.done.files += await self._take({"": name, **beside})
        with self._ingest.begin() as session:
            forget_looks(session, lab=self._lab, but=self._looks)

    async def _take(self, names: Mapping[str, str]) -> bool:
        """One file and, by their endings, those beside it. What says that it is whole comes last here too."""
        stored = taken = ""
        for ending, name in names.items():
            with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as content:
                digest = await self._drop.fetch(name, content)
                if not stored and not self._is_whole(name, content, digest):
                    return False
                taken = taken or digest
                stored = stored or _stored_name(digest, name)
                content.seek(0)
                self._ingest.store.put_file(f"{self._lab}/incoming/{stored}{ending}", content)
        # The file last: a control file or marker that were left alone would vouch for the next file of that name.
        for ending, name in reversed(list(names.items())):
            await self._drop.put_aside(name, stored + ending)
        await self._keep_what_replaced(names[""], stored, taken)
        return True

    async def _keep_what_replaced(self, name: str, stored: str, taken: str) -> None:
        """What lies put aside may be another file, that took the place of the one we had fetched: it is stored too."""
        with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as content:
            digest = await self._drop.fetch_collected(stored, content)
            if digest != taken:
                content.seek(0)
                self._ingest.store.put_file(f"{self._lab}/incoming/{_stored_name(digest, name)}", content)

    def _is_whole(self, name: str, content: IO[bytes], digest: str) -> bool:
        """Whether nobody writes into a file any more: by what was agreed, by what it counts itself, or by lying still.

        The bytes that were seen lying still are those that are stored, whatever the server says of sizes and times.
        """
        if self._drop.renames or self._map.companion_of(name) or self._proves_itself(content):
            return True
        look = hashlib.sha256(_as_bytes(name) + bytes.fromhex(digest)).digest()
        with self._ingest.begin() as session:
            if has_lain_still(session, lab=self._lab, look=look):
                return True
        self._looks.append(look)
        self.done.waiting += 1
        return False

    def _proves_itself(self, content: IO[bytes]) -> bool:
        """One HL7 message alone does not: cut between two segments it reads as if it were whole (law 2)."""
        content.seek(0)
        verdict = lab_files.check_file(iter(partial(content.read, _PIECE_BYTES), b""), self._map)
        return verdict.held is None and verdict.is_complete

    async def leave_receipts(self) -> None:
        """Leaves the receipts that are missing, and those that tell another verdict than the newest."""
        left = set(await self._drop.receipts())
        names = [each for each in await self._drop.collected() if _PUT_ASIDE.match(each) and not is_companion(each)]
        with self._ingest.begin() as session:
            changed = {_digest_of(sha256) for sha256 in verdicts_changed(session, lab=self._lab)}
        for name in names:
            is_left = f"{name}.receipt.txt" in left
            if not is_left or _digest_of(name) in changed:
                with self.done.each_by_itself(name):
                    self.done.receipts += await self._leave_receipt(name, is_left=is_left)

    async def _leave_receipt(self, name: str, *, is_left: bool) -> bool:
        with self._ingest.begin() as session:
            file_id = finished_file(session, lab=self._lab, digest=_digest_of(name))
            if file_id is None:
                return False
            receipt = receipt_of(session, file_id)
        told = receipt_as_text(receipt)
        if is_left and await self._drop.receipt(f"{name}.receipt.txt") == told:
            return False
        # The one that tells that both are there comes last.
        await self._drop.leave(f"{name}.receipt.json", receipt_as_json(receipt))
        await self._drop.leave(f"{name}.receipt.txt", told)
        return True


def _stored_name(digest: str, name: str) -> str:
    return f"{digest[:_DIGEST_CHARACTERS]}-{_ODD.sub('_', name)[-_LONGEST_NAME:]}"


def _digest_of(name: str) -> str:
    """How a file's SHA-256 begins, and with it every name under which we put it aside."""
    return name[:_DIGEST_CHARACTERS]


def _as_bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
