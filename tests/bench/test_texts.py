"""Texts a second from owed to accepted by a provider that answers in 50 ms: what docs/performance.md reports.

Every attempt is durable before its call. The provider is a process of its own, so its cost is not in the CPU figure.
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.database import begin_on, make_engine
from flows.notify_residents import send_due_texts
from integrations.ports import Pace
from integrations.texts.twilio import TwilioSender
from models.rules.service import TextPolicy
from tests.bench.test_ingest import durable  # noqa: F401 - a fixture
from tests.support import build
from tests.support.texts import notify, owe_many

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

SCALE = float(os.environ.get("BENCH_SCALE", "0.05"))
"""1 drains 100,000 texts; the usual 0.05 drains 5,000."""

ALL = TextPolicy(max_per_run=1_000_000)


@pytest.fixture
def provider():
    """The address of a provider in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.slow_provider"],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    process.stdin.close()
    process.wait(10)
    process.stdout.close()


@pytest.fixture
def ready(durable, provider):  # noqa: F811
    """Opens transactions on a durable database, and what a run needs."""
    engine = make_engine(durable[0])
    sender = TwilioSender(
        account_sid="AC" + "0" * 32,
        auth_token="none",
        messaging_service_sid="MG" + "0" * 32,
        public_base_url="http://127.0.0.1:9",
        base_url=provider,
        pace=Pace(at_once=32, per_second=2_000),
    )
    begin = begin_on(engine)
    yield begin, notify(begin, sender, build.service(texts=ALL))
    sender.http.session.close()
    engine.dispose()


def resident_mb():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def send(prepared, many):
    """Sends what is due and gives (texts a second, milliseconds of CPU a text)."""
    clock, cpu = time.perf_counter(), time.process_time()
    tally = send_due_texts(prepared, limit=many)
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    assert tally.counts["accepted"] == many, tally
    return many / clock, cpu * 1000 / many


def test_texts_a_second_through_a_provider_that_answers_in_50_ms(ready, capsys):
    begin, prepared = ready
    found = []
    for turn in range(4):  # the first warms up
        with begin() as session:
            owe_many(session, 1_000, seed=turn)
        found.append(send(prepared, 1_000))
    speed, cpu = sorted(found[1:])[1]

    with capsys.disabled():
        print(f"\ntexts: {speed:,.0f} a second from one process, {cpu:.2f} ms of its CPU each; turns {found[1:]}")
    assert speed >= 50  # a guard against a step backwards, not the goal


def test_a_long_queue_drains_without_growing_memory(ready, capsys):
    begin, prepared = ready
    many = int(100_000 * SCALE)
    for turn in range(many // 1_000):
        with begin() as session:
            owe_many(session, 1_000, seed=100 + turn)
    send(prepared, 500)
    before = resident_mb()
    speed, cpu = send(prepared, many - 500)
    grown = resident_mb() - before

    with capsys.disabled():
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"\n{many:,} queued: {speed:,.0f} a second, {cpu:.2f} ms CPU each, {grown:+.0f} MB, {most:.0f} MB at most"
        )
    assert grown < 40
