"""How fast lab results go from file to decision, against the floor: COPY of the same rows (ARCHITECTURE 6).

Floor and ingest take turns on the same server with PostgreSQL's own durability, so that the ratio holds where the
absolute figures drift. Files are streamed from disk in pieces of a megabyte, as the store does; S3 itself is left out.
Every worker is a process of its own, warm before the clock starts. Seeding is followed by ANALYZE, as autovacuum does
for a database that is in use.
"""

import multiprocessing
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import Empty
from typing import Any, Final

from psycopg.errors import UniqueViolation
from sqlalchemy import Engine, NullPool, create_engine, text

from app.database import Begin, begin_on, make_engine
from flows.ingest_results import ingest_waiting_files, settle_memory
from integrations.ports import StoredObject
from models.rules.errors import Code, ServiceError
from models.rules.result import interpret
from models.tables.bulk import copy
from tests.support.ingesting import ask, ingest, lab_maps, larkfield
from tests.support.lab_files import LONG, control_file, hl7, long_table
from tests.support.many_kits import Sent, send_kits

RESULTS_A_KIT: Final = 4
KITS_AT_ONCE: Final = 20_000
PIECE: Final = 1 << 20
FLOOR: Final = """
    CREATE TABLE IF NOT EXISTS floor (
        id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, lab text, accession text, test text, site text, sub_id text,
        kit_code text, tube_code text, outcome text, status text, lab_time timestamptz, collected_at timestamptz,
        UNIQUE (lab, accession, test, site, sub_id)
    );
    CREATE INDEX IF NOT EXISTS floor_kit ON floor (kit_code);
    CREATE INDEX IF NOT EXISTS floor_time ON floor (lab_time);
    GRANT ALL ON floor TO kitpost_app;
"""
COLUMNS: Final = (
    "lab", "accession", "test", "site", "sub_id", "kit_code", "tube_code", "outcome", "status", "lab_time",
    "collected_at",
)  # fmt: skip


class DiskStore:
    """A FileStore in a folder: files of any size are streamed, and every process sees the same ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        return self.folder / key

    def put(self, key: str, body: bytes, content_type: str = "") -> str:  # noqa: ARG002 - the port has it
        self.path(key).parent.mkdir(parents=True, exist_ok=True)
        self.path(key).write_bytes(body)
        return "1"

    def list(self, prefix: str) -> Iterator[StoredObject]:
        for path in sorted(self.folder.rglob("*")):
            key = str(path.relative_to(self.folder))
            # Another process may be moving it.
            with suppress(FileNotFoundError):
                if key.startswith(prefix) and path.is_file():
                    yield self._as_it_is(key)

    def names(self, folder: str) -> Iterator[str]:
        for path in sorted(self.path(folder).iterdir()):
            yield f"{folder}{path.name}{'/' if path.is_dir() else ''}"

    def pin(self, key: str) -> StoredObject:
        try:
            return self._as_it_is(key)
        except FileNotFoundError:
            raise ServiceError(Code.NOT_FOUND, "There is no such object.") from None

    def _as_it_is(self, key: str) -> StoredObject:
        found = self.path(key).stat()
        return StoredObject(key, "1", found.st_size, datetime.fromtimestamp(int(found.st_mtime), UTC))

    def stream(self, key: str, version_id: str = "") -> Iterator[bytes]:  # noqa: ARG002 - the port has it
        with self.path(key).open("rb") as body:
            while piece := body.read(PIECE):
                yield piece

    def read(self, key: str, version_id: str = "") -> bytes:  # noqa: ARG002 - the port has it
        try:
            return self.path(key).read_bytes()
        except FileNotFoundError:
            raise ServiceError(Code.NOT_FOUND, "There is no such object.") from None

    def move(self, key: str, to: str, version_id: str = "") -> None:  # noqa: ARG002 - the port has it
        self.path(to).parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # moved before, or by another process
            self.path(key).rename(self.path(to))


class Bench:
    """One server, one store, and kits that were dispatched."""

    def __init__(self, url: str, owner_url: str, folder: Path) -> None:
        self.url = url
        self.owner: Engine = create_engine(owner_url, poolclass=NullPool)
        self.engine = make_engine(url)
        self.begin: Begin = begin_on(self.engine)
        self.store = DiskStore(folder)
        self._seed = 0
        self._files = 0
        with self.owner.begin() as connection:
            connection.execute(text(FLOOR))

    def close(self) -> None:
        self.engine.dispose()
        self.owner.dispose()

    def kits(self, count: int) -> Iterator[list[Sent]]:
        """New dispatched kits, some thousands at a time."""
        while count:
            share = min(KITS_AT_ONCE, count)
            yield self._send(share)
            count -= share

    def _send(self, count: int) -> list[Sent]:
        """Among a million random codes two may be the same: then these kits are made again, a few times."""
        for left in reversed(range(5)):
            self._seed += 1
            try:
                with self.begin() as session:
                    return send_kits(session, count, seed=self._seed)
            except UniqueViolation:
                if not left:
                    raise
        raise AssertionError

    def analyze(self) -> None:
        with self.owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE"))

    def drop_hl7(self, kits: Sequence[Sent]) -> bytes:
        """One HL7 file of everything about these kits lands."""
        self._files += 1
        body = hl7([row for kit in kits for row in kit.rows()], control_id=f"F{self._files}")
        self.store.put(f"NORTHLAB/incoming/{self._files:06d}.hl7", body)
        return body

    def drop_csv(self, kits: Sequence[Sent]) -> None:
        """The same as a table, with its control file."""
        self._files += 1
        body = long_table([row for kit in kits for row in kit.rows(LONG)])
        key = f"NORTHLAB/incoming/{self._files:06d}.csv"
        self.store.put(key, body)
        self.store.put(f"{key}.ctl", control_file(body))

    def floor(self, kits: Sequence[Sent]) -> float:
        """COPY alone, in rows a second."""
        rows = [
            ("NORTHLAB", row.accession, row.test, row.site, "", kit.code, row.tube, "negative", "final", row.at, row.at)
            for kit in kits
            for row in kit.rows()
        ]
        started = time.perf_counter()
        with self.begin() as session:
            copy(session, "floor", COLUMNS, rows)
        return len(rows) / (time.perf_counter() - started)

    def read_all(self, workers: int, *, fresh: bool = False) -> "Reading":
        """Every waiting file is read, by so many processes at once; `fresh` ones share no memory with this one."""
        context = multiprocessing.get_context("spawn" if fresh else "fork")
        lab_maps(), larkfield()
        self.engine.dispose()
        at_once, told = context.Barrier(workers + 1), context.Queue()
        processes = [
            context.Process(target=_worker, args=(self.url, self.store, at_once, told)) for _ in range(workers)
        ]
        for each in processes:
            each.start()
        at_once.wait()
        started = time.perf_counter()
        answers = [_answer(told, processes) for _ in processes]
        seconds = time.perf_counter() - started
        for each in processes:
            each.join()
            assert each.exitcode == 0
        return Reading(seconds, [Worked(**answer) for answer in answers])

    def rows_written(self) -> dict[str, float]:
        """Rows in each table for one stored result: what the design writes beyond the floor's one."""
        tables = (
            "result_version", "result_series", "kit_event", "audit", "release_decision", "text", "lab_message_key",
            "clinic_case",
        )  # fmt: skip
        counts = {table: ask(self.begin, f"SELECT count(*) FROM {table}")[0][0] for table in tables}
        return {table: count / counts["result_version"] for table, count in counts.items()}


@dataclass(frozen=True)
class Worked:
    """What one process did."""

    files: int
    stored: int
    replayed: int
    duplicates: int
    cpu_seconds: float
    peak_mb: float


@dataclass(frozen=True)
class Reading:
    """What became of the files that waited."""

    seconds: float
    workers: list[Worked] = field(default_factory=list)

    @property
    def stored(self) -> int:
        return sum(each.stored for each in self.workers)

    @property
    def a_second(self) -> float:
        return self.stored / self.seconds


def _answer(told: "Queue[dict[str, Any]]", processes: Sequence[BaseProcess]) -> dict[str, Any]:
    """The next worker's answer. Raises RuntimeError when one has died without any."""
    while True:
        with suppress(Empty):
            return told.get(timeout=5)
        if died := [each.exitcode for each in processes if each.exitcode]:
            raise RuntimeError(f"a worker died: {died}")


def _peak_mb() -> float:
    """Most resident memory of this program. getrusage would tell of whoever started it too."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def _worker(url: str, store: DiskStore, at_once: Barrier, told: "Queue[dict[str, Any]]") -> None:
    lab_maps(), larkfield()
    begin = begin_on(make_engine(url))
    prepared = ingest(begin, store)
    settle_memory()
    at_once.wait()
    started = time.process_time()
    tally = ingest_waiting_files(prepared, limit=1)
    told.put(
        {
            "files": tally.files,
            "stored": tally.stored,
            "replayed": tally.replayed,
            "duplicates": tally.duplicates,
            "cpu_seconds": time.process_time() - started,
            "peak_mb": _peak_mb(),
        }
    )


def measure(bench: Bench, *, results: int, rounds: int) -> tuple[list[float], dict[int, list[float]]]:
    """(floor, whole path by number of workers), in results a second, taking turns: one file for each worker."""
    floors: list[float] = []
    speeds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for workers, mine in speeds.items():
            [kits] = bench.kits(results // RESULTS_A_KIT)
            bench.analyze()
            share = -(-len(kits) // workers)
            for at in range(0, len(kits), share):
                bench.drop_hl7(kits[at : at + share])
            floors.append(bench.floor(kits))
            reading = bench.read_all(workers)
            assert reading.stored == len(kits) * RESULTS_A_KIT
            assert [each.files for each in reading.workers] == [1] * workers  # never two on one file
            mine.append(reading.a_second)
    return floors, speeds


def reading_share(body: bytes, cpu_seconds: float) -> tuple[float, float]:
    """Which parts of a worker's own time go into reading a file (twice: verdict, then rows) and into its meaning."""
    from app.wiring import lab_files

    northlab = lab_maps()["NORTHLAB"]
    pieces = [body[at : at + PIECE] for at in range(0, len(body), PIECE)]
    started = time.process_time()
    lab_files.check_file(iter(pieces), northlab, control=None)
    messages = list(lab_files.read_messages(iter(pieces), northlab))
    read = time.process_time() - started
    for message in messages:
        interpret(message, northlab)
    meant = time.process_time() - started - read
    return read / cpu_seconds, meant / cpu_seconds


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)
