"""Results a second from file to decision, beside the floor: what docs/performance.md reports about ingest."""

import shutil
import tempfile
from pathlib import Path

import pytest

from app import embedded_postgres
from app.database import as_application, migrate
from tests.bench.ingest import measure, rows_written

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

LEAST = 0.02
"""Of the floor with two workers. Far below what is aimed at: a guard against a step backwards, not a goal."""


@pytest.fixture
def durable():
    """(the product's URL, the owner's URL) of a new database whose server waits for the disk."""
    folder = Path(tempfile.mkdtemp(prefix="kitpost-bench-"))
    folder.chmod(0o711)
    try:
        owner_url = embedded_postgres.create_database(embedded_postgres.ensure(folder), "bench")
        migrate(owner_url)
        yield as_application(owner_url), owner_url
    finally:
        embedded_postgres.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)


def test_results_a_second_from_file_to_decision(durable, capsys):
    url, owner_url = durable

    found = measure(url, owner_url, results=20_000, rounds=3)

    with capsys.disabled():
        print(f"\nfloor, COPY alone: {found.floor:,.0f} rows/s")
        for workers, speed in found.ingest.items():
            print(f"ingest, {workers} worker(s): {speed:,.0f} results/s = {found.ratio(workers):.3f} of the floor")
        for table, share in rows_written(url).items():
            print(f"  rows of {table} for each result: {share:.2f}")
    assert found.ratio(2) >= LEAST
