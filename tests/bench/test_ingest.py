"""What docs/performance.md reports about ingest, beside the floor: COPY of the same rows.

BENCH_SCALE=1 reads files of 1,000,000 results against as many dispatched kits, and grows by 10,000,000 results.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from sqlalchemy import text

from app import embedded_postgres
from app.database import as_application, migrate
from tests.bench.ingest import RESULTS_A_KIT, Bench, measure, median, reading_share

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]

SCALE = float(os.environ.get("BENCH_SCALE", "0.05"))
RESULTS = int(1_000_000 * SCALE)
"""Results of a large file; as many kits are dispatched."""
GROWN = int(10_000_000 * SCALE)
"""Results that are stored already when growth is measured."""
ROUND = 64_000
"""Results of one turn: 32,000 a worker, so that what a process does once weighs as little as in a day's work."""
LEAST = 0.12
"""Of the floor, with two workers (ARCHITECTURE 6), on a quiet machine: four processes want two cores."""
MEMORY_MB = 400


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


@pytest.fixture
def bench(durable, tmp_path):
    """The server with a store of files."""
    made = Bench(*durable, tmp_path)
    yield made
    made.close()


@pytest.fixture
def say(capsys):
    """Prints a line of the report."""

    def said(line):
        with capsys.disabled():
            print(f"\n  {line}", end="")

    return said


def test_two_workers_on_two_files_reach_their_share_of_the_floor(bench, say):
    floors, speeds = measure(bench, results=ROUND, rounds=5)
    ratio = median(speeds[2]) / median(floors)
    say(f"floor, COPY alone: {median(floors):,.0f} rows/s")
    for workers, each in speeds.items():
        say(f"ingest, {workers} worker(s): {median(each):,.0f} results/s = {median(each) / median(floors):.3f} of it")
    for table, share in bench.rows_written().items():
        say(f"  rows of {table} for each result: {share:.2f}")

    assert ratio >= LEAST
    assert median(speeds[2]) > median(speeds[1])


@pytest.mark.parametrize("form", ["csv", "hl7"])
def test_a_large_file_needs_no_more_memory_than_a_small_one(bench, say, form):
    every = RESULTS // RESULTS_A_KIT
    named, small = [], []
    for kits in bench.kits(RESULTS):
        named += kits[: every - len(named)]
        small = kits[-100:]
    bench.analyze()
    drop = bench.drop_csv if form == "csv" else bench.drop_hl7
    drop(small)
    [little] = bench.read_all(1, fresh=True).workers
    drop(named)
    reading = bench.read_all(1, fresh=True)
    [large] = reading.workers
    say(
        f"{form}: {large.stored:,} results of {RESULTS:,} kits in {reading.seconds:,.0f} s = {reading.a_second:,.0f}"
        f" a second, {large.cpu_seconds / large.stored * 1e6:.0f} us of CPU each in Python;"
        f" {large.peak_mb:.0f} MB at most, {little.peak_mb:.0f} MB for 400 results"
    )

    assert large.stored == every * RESULTS_A_KIT
    assert large.peak_mb < MEMORY_MB


def test_a_known_file_and_known_messages_are_passed_over_faster_than_copy(bench, say):
    [kits] = bench.kits(ROUND // RESULTS_A_KIT)
    body = bench.drop_hl7(kits)
    bench.read_all(1)
    floor = bench.floor(kits)
    bench.store.put("NORTHLAB/incoming/again.hl7", body)
    whole = bench.read_all(1)
    bench.drop_hl7(kits)  # the same messages in another envelope
    messages = bench.read_all(1)
    say(f"the same file again: {ROUND / whole.seconds / floor:.1f} of the floor")
    say(f"the same messages in another file: {ROUND / messages.seconds / floor:.2f} of the floor")

    assert (whole.stored, [each.duplicates for each in whole.workers]) == (0, [1])
    assert (messages.stored, [each.replayed for each in messages.workers]) == (0, [ROUND])
    assert ROUND / whole.seconds >= floor


def test_many_stored_results_slow_nothing_down(bench, say):
    _, few = measure(bench, results=ROUND, rounds=3)
    with bench.owner.begin() as owner:
        owner.execute(text(GROW), {"many": GROWN})
    bench.analyze()
    _, many = measure(bench, results=ROUND, rounds=3)
    say(f"with {GROWN:,} results more: {median(many[2]) / median(few[2]):.2f} of the speed")

    assert median(many[2]) >= 0.8 * median(few[2])


GROW = """
    WITH old AS (SELECT array_agg(id) AS ids FROM (SELECT id FROM kit ORDER BY id LIMIT 10000) AS k),
    heads AS (
        INSERT INTO result_series (service_id, lab, accession, test, site, sub_id, kit_id, tube_code,
                                   current_version_id, outcome, status, note_review, corrected)
        SELECT 'larkfield', 'OLDLAB', md5(n::text), 'hiv', 'blood', '', ids[1 + n % 10000 % cardinality(ids)], '',
               1000000000 + n, 'negative', 'final', false, false
        FROM old, generate_series(1, :many) AS n RETURNING id, kit_id, current_version_id
    )
    INSERT INTO result_version (id, series_id, kit_id, service_id, test, site, file_id, position, row_key, outcome,
                                status, effect, note_review)
    SELECT current_version_id, id, kit_id, 'larkfield', 'hiv', 'blood', 1, 1, '', 'negative', 'final', 'first', false
    FROM heads
"""


def test_what_share_of_the_time_is_reading(bench, say):
    [kits] = bench.kits(ROUND // RESULTS_A_KIT)
    bench.analyze()
    body = bench.drop_hl7(kits)
    reading = bench.read_all(1)
    read, meant = reading_share(body, reading.workers[0].cpu_seconds)
    wall = reading.workers[0].cpu_seconds / reading.seconds
    say(
        f"of one worker's own CPU time: reading {read:.0%}, meaning {meant:.0%}; of its wall time {wall:.0%} is its own"
    )

    assert read * wall < 0.5
