"""The worklist and case pages: 200 people at work, 40 requests a second, over 100,000 open cases.

STAFF_BENCH_CASES and STAFF_BENCH_SECONDS ask for another size. Locust, the pages and the database share the machine.
"""

import csv
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from app.web.session import UNTIL, SealedSessions
from models.tables.result import LabFile
from tests.support import build
from tests.support.many_kits import send_kits

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

CASES = int(os.environ.get("STAFF_BENCH_CASES", "100000"))
MOST_MS_P95 = 200
"""The issue's target for the worklist and the case page."""
SECONDS = int(os.environ.get("STAFF_BENCH_SECONDS", "90"))
PEOPLE = 200
AT_ONCE = 10_000
SERVERS = 2
ROLES = ("health_adviser", "health_adviser", "senior_health_adviser", "clinician")

REPORTED = """
    WITH wanted AS (
        SELECT t.kit_id, t.test, t.site, t.tube_code,
               CASE WHEN t.test = 'hiv' AND t.kit_id %% 4 = 0 THEN 'reactive'
                    WHEN t.test = 'chlamydia' AND t.kit_id %% 4 > 0 THEN 'positive' ELSE 'negative' END AS outcome,
               nextval('result_series_id_seq') AS series_id, nextval('result_version_id_seq') AS version_id,
               row_number() OVER () AS position
        FROM kit_test t),
    series AS (
        INSERT INTO result_series (id, service_id, lab, accession, test, site, sub_id, kit_id, tube_code,
                                   current_version_id, outcome, status, note_review, corrected)
        SELECT series_id, 'larkfield', 'NORTHLAB', 'A' || kit_id, test, site, '', kit_id, tube_code, version_id,
               outcome, 'final', false, false FROM wanted),
    versions AS (
        INSERT INTO result_version (id, series_id, kit_id, service_id, test, site, file_id, position, outcome, status,
                                    effect, note_review, row_key, lab_time)
        SELECT version_id, series_id, kit_id, 'larkfield', test, site, %(file)s, position, outcome, 'final', 'first',
               false, '', %(now)s FROM wanted),
    cases AS (
        INSERT INTO clinic_case (ref, key, service_id, kind, urgency, order_id, kit_id, lab, detail, owner_role,
                                 assignee, due_at, escalation, opened_at, closed_by, version)
        SELECT md5(k.id::text), 'kit:' || k.id || ':results', 'larkfield',
               CASE WHEN k.id %% 4 = 0 THEN 'reactive' ELSE 'positive' END,
               CASE WHEN k.id %% 4 = 0 THEN 'urgent' ELSE 'soon' END, k.order_id, k.id, '', '{}',
               'health_adviser', '', %(now)s + (k.id %% 2000 - 1000) * interval '3 minutes', 0, %(now)s, '', 1
        FROM kit k RETURNING id, kit_id),
    items AS (
        INSERT INTO case_item (case_id, version_id, test, site, outcome, added_at)
        SELECT cases.id, version_id, test, site, outcome, %(now)s FROM wanted JOIN cases USING (kit_id)
        WHERE outcome <> 'negative')
    SELECT 1
"""


@contextmanager
def pages(db, folder):
    """The application as so many processes, each on a port of its own: a proxy would deal people out to them."""
    with ExitStack() as at_the_end:
        yield [at_the_end.enter_context(one_process(db, folder / f"server-{number}")) for number in range(SERVERS)]


@contextmanager
def one_process(db, log):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = {**os.environ, "BENCH_DATABASE": db.url, "PYTHONPATH": str(Path.cwd())}
    with log.open("w") as said:
        server = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--factory", "tests.bench.staff_door:app", "--port", str(port),
             "--no-access-log", "--log-level", "warning", "--timeout-keep-alive", "60"],
            env=environment, stdout=said, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        give_up = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/health/ready", trust_env=False)
                break
            except httpx.ConnectError:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < give_up, log.read_text()
                time.sleep(0.1)  # the server is another process, and says nothing when it listens
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def cookies():
    """The sealed sessions of so many people: signing in one by one is measured nowhere."""
    seal = SealedSessions(None, secret="the-session-secret-of-the-tests-is-long", over_https=False)
    found = []
    for number in range(PEOPLE):
        who = {
            "sub": f"bench-{number}", "name": "", "roles": [ROLES[number % len(ROLES)]], "services": ["larkfield"],
            "csrf": secrets.token_urlsafe(24),
        }  # fmt: skip
        found.append(f"kitpost={seal._seal({'who': who, UNTIL: time.time() + 3600})}")
    return found


def test_two_hundred_people_over_many_open_cases(begin, db, tmp_path, capsys):
    began = time.monotonic()
    for seed in range(CASES // AT_ONCE or 1):
        with begin() as session:
            send_kits(session, min(AT_ONCE, CASES), seed=seed)
    with begin() as session:
        file = LabFile(
            ref="bench", lab="NORTHLAB", object_key="NORTHLAB/incoming/bench", content_sha256="0" * 64, size_bytes=1,
            arrived_at=build.NOW,
        )  # fmt: skip
        session.add(file)
        session.flush()
        file_id = file.id
    with db.owner_engine.begin() as owner:
        owner.exec_driver_sql("UPDATE kit SET state = 'reported', received_at = dispatched_at, reported_at = %s",
                              (build.NOW,))  # fmt: skip
        owner.exec_driver_sql(REPORTED, {"now": build.NOW, "file": file_id})
        refs = [row[0] for row in owner.exec_driver_sql("SELECT ref FROM clinic_case ORDER BY due_at")]
    with db.owner_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as owner:
        owner.exec_driver_sql("VACUUM ANALYZE")  # as the server itself has done long before so many have gathered
    shift, built = tmp_path / "shift.json", time.monotonic() - began
    with pages(db, tmp_path) as urls:
        given = {"cookies": cookies(), "cases": [f"/cases/{ref}" for ref in refs], "hosts": urls}
        shift.write_text(json.dumps(given))
        ran = subprocess.run(
            [sys.executable, "-m", "locust", "--headless", "-f", str(Path(__file__).with_name("staff_shift.py")),
             "-u", str(PEOPLE), "-r", "10", "-t", f"{SECONDS}s", "--csv", str(tmp_path / "found"),
             "--only-summary", "--reset-stats"],
            env={**os.environ, "BENCH_SHIFT": str(shift)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-4000:]
    with (tmp_path / "found_stats.csv").open() as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    with capsys.disabled():
        print(f"\n{len(refs):,} open cases (made in {built:.0f} s), {PEOPLE} people, {SECONDS} s:")
        for name, row in rows.items():
            print(
                f"  {name}: {float(row['Requests/s']):.1f} a second, median {row['Median Response Time']} ms, "
                f"p95 {row['95%']} ms, slowest {float(row['Max Response Time']):.0f} ms, {row['Failure Count']} failed"
            )
    for page in ("worklist", "case"):
        assert int(rows[page]["95%"]) < MOST_MS_P95, page
