"""How fast lab results go from file to decision, against the floor: COPY of the same rows (ARCHITECTURE 6).

Floor and ingest take turns on the same server with PostgreSQL's own durability, so that the ratio holds where the
absolute figures drift. The file comes from memory: S3 is measured elsewhere.
"""

import multiprocessing
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from multiprocessing.synchronize import Barrier
from typing import Final

from sqlalchemy import NullPool, create_engine, text

from app.database import Begin, begin_on, make_engine
from flows.ingest_results import ingest_waiting_files
from models.tables.bulk import copy
from tests.support.ingesting import ask, drop_bytes, ingest, lab_maps, larkfield
from tests.support.lab_files import hl7
from tests.support.many_kits import Sent, send_kits
from tests.support.memory_store import MemoryStore

RESULTS_A_KIT: Final = 4
FLOOR: Final = """
    CREATE TABLE IF NOT EXISTS floor (
        id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, lab text, accession text, test text, site text, sub_id text,
        kit_code text, tube_code text, outcome text, status text, lab_time timestamptz, collected_at timestamptz,
        UNIQUE (lab, accession, test, site, sub_id)
    );
    CREATE INDEX IF NOT EXISTS floor_kit ON floor (kit_code);
    CREATE INDEX IF NOT EXISTS floor_time ON floor (lab_time);
"""
COLUMNS: Final = (
    "lab", "accession", "test", "site", "sub_id", "kit_code", "tube_code", "outcome", "status", "lab_time",
    "collected_at",
)  # fmt: skip


class WholeStore(MemoryStore):
    """Streams in pieces of a megabyte, as the store does."""

    def stream(self, key: str, version_id: str = "") -> Iterator[bytes]:
        body = BytesIO(self.read(key, version_id))
        while piece := body.read(1 << 20):
            yield piece


@dataclass(frozen=True)
class Measured:
    """Medians, in results a second."""

    floor: float
    ingest: dict[int, float]

    def ratio(self, workers: int) -> float:
        return self.ingest[workers] / self.floor


def measure(url: str, owner_url: str, *, results: int, rounds: int, workers: Sequence[int] = (1, 2)) -> Measured:
    """Medians of floor and ingest over a number of rounds, taking turns."""
    owner = create_engine(owner_url, poolclass=NullPool)
    with owner.begin() as connection:
        connection.execute(text(FLOOR))
        connection.execute(text("GRANT ALL ON floor TO kitpost_app"))
    engine = make_engine(url)
    begin = begin_on(engine)
    floors: list[float] = []
    speeds: dict[int, list[float]] = {number: [] for number in workers}
    for turn in range(rounds):
        for number in workers:
            with begin() as session:
                kits = send_kits(session, results // RESULTS_A_KIT, seed=1000 * turn + number)
            floors.append(_floor(begin, kits))
            speeds[number].append(_ingest(url, kits, number))
    engine.dispose()
    return Measured(statistics.median(floors), {number: statistics.median(speeds[number]) for number in workers})


def _floor(begin: Begin, kits: Sequence[Sent]) -> float:
    rows = [
        ("NORTHLAB", row.accession, row.test, row.site, "", kit.code, row.tube, "negative", "final", row.at, row.at)
        for kit in kits
        for row in kit.rows()
    ]
    started = time.perf_counter()
    with begin() as session:
        copy(session, "floor", COLUMNS, rows)
    return len(rows) / (time.perf_counter() - started)


def _ingest(url: str, kits: Sequence[Sent], workers: int) -> float:
    """One file for each worker; each worker is a process that finds its file by a claim."""
    share = -(-len(kits) // workers)
    files = [
        hl7([row for kit in kits[at : at + share] for row in kit.rows()], control_id=f"{kits[at].code}")
        for at in range(0, len(kits), share)
    ]
    store = WholeStore()  # forked with the workers: each may claim either file
    for content in files:
        drop_bytes(store, content)
    fork = multiprocessing.get_context("fork")
    lab_maps(), larkfield()
    at_once = fork.Barrier(workers + 1)
    processes = [fork.Process(target=_worker, args=(url, store, at_once)) for _ in files]
    for each in processes:
        each.start()
    at_once.wait()
    started = time.perf_counter()
    for each in processes:
        each.join()
    taken = time.perf_counter() - started
    assert all(each.exitcode == 0 for each in processes)
    return len(kits) * RESULTS_A_KIT / taken


def _worker(url: str, store: MemoryStore, at_once: Barrier) -> None:
    prepared = ingest(begin_on(make_engine(url)), store)
    at_once.wait()
    ingest_waiting_files(prepared, limit=1)


def rows_written(url: str) -> dict[str, float]:
    """Rows in each table for one stored result: what the design writes beyond the floor's one."""
    tables = (
        "result_version", "result_series", "kit_event", "audit", "release_decision", "text", "lab_message_key",
        "clinic_case",
    )  # fmt: skip
    engine = make_engine(url)
    counts = {table: ask(begin_on(engine), f"SELECT count(*) FROM {table}")[0][0] for table in tables}
    engine.dispose()
    return {table: count / counts["result_version"] for table, count in counts.items()}
