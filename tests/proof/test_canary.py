"""The privacy canary (law 8; H19): invented people go through every flow, each of which also fails half way.

Then nothing of them may stand in Prefect's tables or storage, in any service's log, or in a file's name.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import boto3
import cloudpickle
import httpx
import psycopg
import pytest

from app import embedded_postgres
from app.demo import laboratory
from app.local import BUCKET, Choices, LocalServices
from app.service import SHIPPED
from models.rules.working_days import add_working_days
from tests.support import courier, s10, web
from tests.support.canary import Markers, spellings_of_mobile
from tests.support.postage_seller import KEY, Seller

pytestmark = [pytest.mark.proof, pytest.mark.timeout(600)]

FLOWS: Final = (
    "take-orders",
    "pack-kits",
    "buy-postage",
    "request-tests",
    "track-returns",
    "ingest-results",
    "notify-residents",
    "follow-up-positives",
    "reconcile",
)
ENDED: Final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass(frozen=True)
class Person:
    """Somebody who does not exist, under words that nothing else contains."""

    given: str
    family: str
    born_on: date
    mobile: str
    street: str
    story: str

    @property
    def markers(self) -> tuple[str, ...]:
        born = self.born_on
        dates = (f"{born:%Y-%m-%d}", f"{born:%d/%m/%Y}", f"{born:%Y%m%d}", f"{born:%d %B %Y}", repr(born))
        return self.given, self.family, self.street, *dates, *spellings_of_mobile(self.mobile)

    def order(self, now: datetime) -> dict[str, Any]:
        return {
            "channel_ref": f"web-{self.mobile[-6:]}",
            "given_name": self.given,
            "family_name": self.family,
            "date_of_birth": self.born_on.isoformat(),
            "mobile": f"0{self.mobile[3:7]} {self.mobile[7:]}",
            "mobile_proved_at": (now - timedelta(minutes=5)).isoformat(),
            "mobile_proved_how": "one_time_code",
            "residence_line_1": f"1 {self.street}",
            "residence_line_2": "London",
            "residence_postcode": "N1 1AA",
            "body_parts": ["vagina"],
            "exposures": ["receptive_oral"],
            "last_risk_on": (now - timedelta(days=30)).date().isoformat(),
            **dict.fromkeys(
                ("symptoms", "pregnancy_risk", "sexual_assault", "known_hiv", "past_syphilis", "letter_consent"), False
            ),
            **dict.fromkeys(("text_consent", "voicemail_consent"), True),
            "safe_times": ["morning"],
            "wording": "named",
            "language": "en",
        }


CLEAR: Final = Person("Quixandra", "Vexlington", date(1987, 3, 19), "+447700900811", "Zebrawood Crescent", "negative")
POSITIVE: Final = Person("Wilhelmzog", "Tuffnellgrave", date(1993, 11, 27), "+447700900822", "Quagga Row", "chlamydia")
REACTIVE: Final = Person("Ottolinear", "Brambleshaw", date(1979, 8, 21), "+447700900833", "Okapi Yard", "hiv_reactive")
LATE: Final = Person("Zenobianka", "Pumpernick", date(1990, 1, 29), "+447700900844", "Axolotl Mews", "negative")
PEOPLE: Final = (CLEAR, POSITIVE, REACTIVE, LATE)

COMMENT: Final = "Residuum quizzaciously leaked"
STRANGE_VALUE: Final = "Plusquamdetectable"
CLINIC: Final = "harbour-clinic"
CLINIC_KEY: Final = "a-clinics-key-of-the-canary-that-is-long"
FINDINGS: Final = ("chlamydia", "gonorrhoea", "syphilis", "hepatitis", "not detected", "non-reactive", "hiv_")
"""'positive', 'reactive' and 'detected' are words of Prefect's own; these are not."""


@dataclass
class Installation:
    """Everything, running; and what was done with it."""

    services: LocalServices
    state: Path
    post: Seller
    clinic: "Clinic"
    codes: list[str] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)

    @property
    def markers(self) -> Markers:
        words = [word for person in PEOPLE for word in person.markers]
        return Markers([*words, COMMENT, STRANGE_VALUE, *self.bodies])

    @property
    def markers_of_prefect(self) -> Markers:
        """Prefect learns less than our own log does: no kit id, no infection."""
        return Markers([*self.markers.spellings.values(), *FINDINGS, *self.codes])

    def connect(self, database: str) -> "psycopg.Connection[Any]":
        admin = embedded_postgres.ensure(self.state)
        url = embedded_postgres.create_database(admin, database)
        return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)

    def owner(self, statement: str) -> None:
        with self.connect("kitpost") as connection:
            connection.execute(statement)

    def kitpost(self, *words: str, typed: str = "") -> str:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", *words],
            env={**os.environ, **self.services.settings},
            input=typed, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submit(self, person: Person, now: datetime) -> str:
        key = json.loads(self.services.settings["KITPOST_API_KEYS"])["larkfield/web"]
        base = self.services.settings["KITPOST_PUBLIC_BASE_URL"]
        answer = httpx.post(
            f"{base}/api/orders", json=person.order(now), headers={"Authorization": f"Bearer {key}"}, timeout=30
        )
        return str(answer.json().get("outcome", answer.status_code))

    @property
    def store(self) -> Any:
        endpoint = self.services.settings["KITPOST_S3_ENDPOINT"]
        return boto3.Session("local", "local", region_name="eu-west-2").client("s3", endpoint_url=endpoint)

    def keys(self, prefix: str = "") -> list[str]:
        return [each["Key"] for each in self.store.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])]

    def prefect(self, path: str, body: object = None, method: str = "POST") -> Any:
        address = self.services.settings["KITPOST_PREFECT_API_URL"]
        answer = httpx.request(method, f"{address}/{path}", json=body if body is not None else {}, timeout=30)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def run(self, *flows: str) -> dict[str, str]:
        """Runs these deployments at once, and says how each ended."""
        started = {name: self._start(name) for name in flows}
        ended: dict[str, str] = {}
        give_up = time.monotonic() + 120
        while len(ended) < len(flows) and time.monotonic() < give_up:
            for name in started.keys() - ended.keys():
                kind = self.prefect(f"flow_runs/{started[name]}", method="GET")["state"]["type"]
                if kind == "CANCELLED":  # a run that an event set off holds the slot: it is as good
                    started[name] = self._at_work(name) or self._start(name)
                elif kind in ENDED:
                    ended[name] = kind
            time.sleep(0.3)
        return ended

    def _start(self, name: str) -> str:
        deployment = self.prefect(f"deployments/name/{name}/{name}", method="GET")["id"]
        return str(self.prefect(f"deployments/{deployment}/create_flow_run")["id"])

    def _at_work(self, name: str) -> str | None:
        busy = {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}}
        found = self.prefect("flow_runs/filter", {"flows": {"name": {"any_": [name]}}, "flow_runs": busy})
        return str(found[0]["id"]) if found else None

    def runs(self, name: str) -> list[tuple[str, str]]:
        """How every run of a flow ended, and in which words."""
        found = self.prefect("flow_runs/filter", {"flows": {"name": {"any_": [name]}}})
        return [(run["state"]["type"], run["state"]["message"] or "") for run in found]

    @contextmanager
    def spilling(self, *, reading: tuple[str, ...] = (), writing: tuple[str, ...] = ()) -> Iterator[None]:
        """The database refuses the product each row of these, in words that hold everything personal.

        As PostgreSQL does when a constraint fails: the row stands in the error's DETAIL.
        """
        spilt = ", ".join(word for person in PEOPLE for word in person.markers) + f", {STRANGE_VALUE}, {COMMENT}"
        fails = f"""LANGUAGE plpgsql AS $$ BEGIN
            RAISE 'new row violates a check' USING ERRCODE = '23514', DETAIL = 'Failing row: {spilt}'; END $$"""
        self.owner(f"CREATE FUNCTION spill_read() RETURNS boolean {fails}")
        self.owner(f"CREATE FUNCTION spill_written() RETURNS trigger {fails}")
        for table in reading:
            self.owner(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
            self.owner(f"CREATE POLICY spilling ON {table} USING (spill_read())")
        for table in writing:
            self.owner(
                f"CREATE TRIGGER spilling BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION spill_written()"
            )
        yield
        for table in reading:
            self.owner(f"DROP POLICY spilling ON {table}")
            self.owner(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
        for table in writing:
            self.owner(f"DROP TRIGGER spilling ON {table}")
        self.owner("DROP FUNCTION spill_read, spill_written")

    @contextmanager
    def talkative_provider(self) -> Iterator[None]:
        """In the SMS provider's place, one that refuses everything and quotes number and words while doing so."""
        port = urlsplit(self.services.settings["KITPOST_TWILIO_BASE_URL"]).port
        provider = self.services._running["texts"]
        provider.kill()
        provider.wait()
        bodies = self.bodies

        class Talkative(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                bodies.extend(form["Body"])
                answer = json.dumps({"code": 20003, "status": 401, "message": f"Not for {form['To']}: {form['Body']}"})
                self.send_response(401)
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        with HTTPServer(("127.0.0.1", port or 0), Talkative) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            yield
            server.shutdown()
            thread.join()
        self.services.start("texts")


@dataclass
class Clinic:
    """Another clinic's system: the first time that it is rung it fails, and says everything while doing so."""

    url: str = ""
    rung: list[bytes] = field(default_factory=list)

    @contextmanager
    def listening(self) -> Iterator["Clinic"]:
        rung = self.rung

        class Bell(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                rung.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(500 if len(rung) == 1 else 204)
                self.end_headers()
                if len(rung) == 1:
                    self.wfile.write(", ".join(REACTIVE.markers).encode())

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        with HTTPServer(("127.0.0.1", 0), Bell) as server:
            self.url = f"http://127.0.0.1:{server.server_port}/bell"
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            yield self
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    state = Path(tempfile.mkdtemp(prefix="kitpost-canary-"))
    state.chmod(0o711)
    choices = Choices(api_keys=("larkfield/web",), faults=0.0, usual_ports=False)
    councils = state / "services"
    councils.mkdir()
    chosen = (SHIPPED / "larkfield.toml").read_text(encoding="utf-8")
    (councils / "larkfield.toml").write_text(chosen.replace('way = "none"', 'way = "click_and_drop"'), "utf-8")
    with courier.selling() as post, Clinic().listening() as clinic, pytest.MonkeyPatch.context() as patch:
        secret = "whsec_" + base64.b64encode(b"the-bell-of-the-canarys-clinic--").decode()
        patch.setenv("KITPOST_CLINIC_KEYS", json.dumps({f"larkfield/{CLINIC}": CLINIC_KEY}))
        patch.setenv("KITPOST_CLINIC_BELLS", json.dumps({f"larkfield/{CLINIC}": {"url": clinic.url, "secret": secret}}))
        patch.setenv("KITPOST_SERVICE_DIR", str(councils))
        patch.setenv("KITPOST_CLICK_AND_DROP_BASE_URL", post.url)
        patch.setenv("KITPOST_CLICK_AND_DROP_KEYS", json.dumps({"larkfield": KEY}))
        patch.delenv("PREFECT_LOGGING_TO_API_ENABLED")  # as an installation has it
        try:
            with LocalServices(state, state / "local.env", pg_bin=None, choices=choices) as services:
                running = Installation(services, state, post.seller, clinic)
                for deployment in running.prefect("deployments/filter"):  # only the runs of this test
                    running.prefect(f"deployments/{deployment['id']}", {"paused": True}, "PATCH")
                live_through_everything(running)
                yield running
        finally:
            embedded_postgres.stop(state)
            shutil.rmtree(state)


def live_through_everything(here: Installation) -> None:
    day = add_working_days(datetime.now(UTC).date() + timedelta(days=1), 1)
    start = datetime(day.year, day.month, day.day, 10, 30, tzinfo=UTC)
    here.kitpost("clock", "forward", start.isoformat())
    for person in (CLEAR, POSITIVE, REACTIVE):
        assert here.submit(person, start) == "accepted"
    here.store.delete_bucket(Bucket=BUCKET)
    with here.spilling(writing=("kit_order",)):
        assert here.submit(LATE, start) == "500"
        here.run("take-orders", "pack-kits")
    here.store.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-2"})
    here.store.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    here.owner("UPDATE print_batch SET claimed_until = clock_timestamp() - interval '1 second'")
    here.run("take-orders")
    here.run("pack-kits")
    forms = [form for key in here.keys("batches/") if key.endswith(".pdf") for form in laboratory.read_packs(
        here.store.get_object(Bucket=BUCKET, Key=key)["Body"].read())]  # fmt: skip
    assert len(forms) == len(PEOPLE)
    with here.spilling(reading=("postage",)):
        here.run("buy-postage")
    here.post.failures = ["talkative"]
    here.run("buy-postage")
    assert len(here.post.orders) == len(PEOPLE) - 1
    tracking = dispatch(here, forms)
    with here.spilling(reading=("lab_request",)):
        here.run("request-tests")
    here.run("request-tests")
    here.codes += [code for form in forms for code in (form.kit, form.kit.replace("-", ""), form.parcel)]
    here.codes += tracking.values()
    with here.talkative_provider():
        here.run("notify-residents")
    later = datetime.combine(add_working_days(day, 5), start.time(), UTC)
    here.kitpost("clock", "forward", later.isoformat())
    post_back(here, tracking, later)
    report(here, forms, later)
    with here.spilling(writing=("courier_event", "result_version")):
        here.run("track-returns", "ingest-results")
    here.owner("UPDATE lab_file SET claimed_until = clock_timestamp() - interval '1 second'")
    here.run("track-returns", "ingest-results")
    with here.spilling(reading=("clinic_case",)):
        here.run("follow-up-positives", "reconcile")
    here.owner("UPDATE text SET retry_at = NULL WHERE state = 'owed'")  # what was refused need not wait minutes
    here.run("notify-residents", "follow-up-positives")
    refer(here)
    for _ in range(2):
        here.run("follow-up-positives")
        here.owner("UPDATE referral SET ring_at = clock_timestamp() - interval '1 day' WHERE ring_at IS NOT NULL")
    hear_of_it(here)
    here.run("reconcile")
    sent = httpx.get(here.services.settings["KITPOST_TWILIO_BASE_URL"] + "/_ledger", timeout=30).json()["messages"]
    here.bodies += [message["body"] for message in sent]


def dispatch(here: Installation, forms: list[laboratory.Form]) -> Mapping[str, str]:
    numbers = s10.numbers()
    tracking = {form.kit: next(numbers) for form in forms}
    typed = [
        code
        for form in forms
        for code in (form.kit, *(tube.number for tube in form.tubes), tracking[form.kit], form.parcel)
    ]
    here.kitpost("scan", "--packer", "canary", typed="\n".join([*typed, ""]))
    return tracking


def post_back(here: Installation, tracking: Mapping[str, str], now: datetime) -> None:
    journeys = [
        {"number": number, "events": [["EVDAC", (now - timedelta(days=2)).isoformat()]]} for number in tracking.values()
    ]
    told = httpx.URL(here.services.settings["KITPOST_COURIER_BASE_URL"]).join("/_parcels")
    httpx.post(told, json=journeys, timeout=30).raise_for_status()


def report(here: Installation, forms: list[laboratory.Form], now: datetime) -> None:
    """A good file with a strange row and a comment in it, and one that was cut short."""
    found = []
    for form in forms:
        person = next(each for each in PEOPLE if f"{each.given} {each.family}" == form.name)
        found.append(laboratory.examine(form, person.story))
        if person is LATE:
            found[-1].values[next(iter(found[-1].values))] = STRANGE_VALUE
            found[-1].comment = COMMENT
    for control, cut in (("CANARY1", 0), ("CANARY2", 700)):
        accession = {form.kit: f"26V{control[-1]}{number:04d}" for number, form in enumerate(forms)}
        body = laboratory.as_hl7(
            found, control=control, now=now, collected=(now - timedelta(days=3)).date(), accession=accession
        )
        here.store.put_object(Bucket=BUCKET, Key=f"NORTHLAB/incoming/{control}.hl7", Body=body[: len(body) - cut])


def refer(here: Installation) -> None:
    """A health adviser hands the reaction over to the clinic, with words of their own, a letter and an export."""
    with here.connect("kitpost") as connection:
        [(ref,)] = connection.execute("SELECT ref FROM clinic_case WHERE kind = 'reactive'").fetchall()
    adviser, page = web.Browser(here.services.settings["KITPOST_PUBLIC_BASE_URL"]), f"/cases/{ref}"
    adviser.sign_in("demo-adviser")
    words = f"{REACTIVE.given} {REACTIVE.family} of {REACTIVE.street} prefers mornings. {COMMENT}"
    adviser.send(page, f"{page}/refer", clinic=CLINIC, asked="confirmation", message=words, agreed="true")
    assert adviser.send(page, f"{page}/referral-letter").content.startswith(b"%PDF-")
    assert REACTIVE.family in adviser.send(page, f"{page}/export").text
    adviser.http.close()


def hear_of_it(here: Installation) -> None:
    """The clinic fetches it, and speaks of it with another date of birth, then in words that are none."""
    base = here.services.settings["KITPOST_PUBLIC_BASE_URL"]
    with httpx.Client(base_url=f"{base}/api/clinics/{CLINIC}", timeout=30) as clinic:
        clinic.headers["Authorization"] = f"Bearer {CLINIC_KEY}"
        [listed] = clinic.get("/referrals").json()["entry"]
        assert REACTIVE.family in clinic.get(listed["fullUrl"]).text
        seen = {
            "resourceType": "Appointment",
            "basedOn": [{"identifier": {"system": "urn:kitpost:referral", "value": listed["resource"]["id"]}}],
            "contained": [{"resourceType": "Patient", "birthDate": CLEAR.born_on.isoformat()}],
            "status": "fulfilled",
            "start": datetime.now(UTC).isoformat(),
        }
        for number, body in enumerate(
            (json.dumps(seen), json.dumps(seen)[:-1], f'{{"{COMMENT}": "{REACTIVE.given}"}}')
        ):
            headers = {"Content-Type": "application/fhir+json", "X-Correlation-ID": f"canary-{number}"}
            status = clinic.post("/events", content=body, headers=headers).status_code
            assert status == (202 if number == 0 else 422)


@pytest.mark.parametrize("name", FLOWS)
def test_each_flow_ran_once_well_and_once_failed_with_a_code_and_a_reference_alone(installation, name):
    runs = installation.runs(name)

    assert "COMPLETED" in {kind for kind, _ in runs}, runs
    said = [words for kind, words in runs if kind == "FAILED"]
    assert said, runs
    assert all(
        re.fullmatch(r"Flow run encountered an exception: FlowError: [a-z_]+ [0-9a-f]{8}", each) for each in said
    )


def test_the_journey_really_went_from_parcels_to_texts_and_cases(installation):
    with installation.connect("kitpost") as connection:
        [(people, scans, sent, cases, quarantined)] = connection.execute(
            """
            SELECT (SELECT count(*) FROM person), (SELECT count(*) FROM courier_event),
                   (SELECT count(*) FROM text_attempt WHERE provider_id <> ''),
                   (SELECT count(*) FROM clinic_case WHERE kit_id IS NOT NULL), (SELECT count(*) FROM quarantined_row)
            """
        ).fetchall()

    assert people == scans == len(PEOPLE)
    assert sent >= len(PEOPLE)
    assert cases >= 2
    assert quarantined >= 1
    assert len(installation.bodies) > len(PEOPLE)


def test_the_clinic_was_rung_after_it_had_failed_and_was_told_an_opaque_reference_alone(installation):
    first, again = installation.clinic.rung
    assert first == again
    assert installation.markers_of_prefect.in_bytes(first) == set()


def test_nobody_stands_in_any_table_of_prefect(installation):
    with installation.connect("prefect") as connection:
        [(lines,)] = connection.execute("SELECT count(*) FROM log WHERE message LIKE '%FlowError%'").fetchall()
        found = installation.markers_of_prefect.in_database(connection)

    assert lines  # failures were logged there, so the search had something to find
    assert found == {}


def test_nobody_stands_in_what_prefect_stores_on_disk(installation):
    home = installation.state / "prefect"

    assert any((home / "storage").iterdir())  # the pickled failures
    assert installation.markers_of_prefect.in_files(home) == {}


def test_nobody_stands_in_the_log_of_any_service(installation):
    logs = installation.state / "logs"

    assert {"worker", "web", "prefect", "store", "listener"} <= {path.stem for path in logs.iterdir()}
    assert "IntegrityError 23514" in (logs / "worker.log").read_text()  # our own log tells of failures there
    assert installation.markers.in_files(logs) == {}


def test_nobody_stands_in_the_log_of_the_database_server(installation):
    [log] = installation.state.rglob("server.log")

    assert b"new row violates a check" in log.read_bytes()
    assert installation.markers.in_bytes(log.read_bytes()) == set()


def test_nobody_stands_in_the_name_of_any_file_in_the_store(installation):
    keys = "\n".join(installation.keys())

    assert "processed" in keys
    assert installation.markers_of_prefect.in_bytes(keys.encode()) == set()


def test_the_search_finds_a_number_in_a_line_of_prefects_log(installation):
    with installation.connect("prefect") as connection, connection.transaction(force_rollback=True):
        connection.execute(
            "INSERT INTO log (id, name, level, message, timestamp) VALUES (gen_random_uuid(), 'any', 20, %s, now())",
            [f"A text for {CLEAR.mobile} is due"],
        )
        found = installation.markers_of_prefect.in_database(connection)

    assert found == {"log": {CLEAR.mobile.removeprefix("+44")}}


def test_the_search_finds_a_name_in_an_exception_that_prefect_pickled(installation):
    packed = base64.b64encode(cloudpickle.dumps(ValueError(f"no such person: {POSITIVE.family.upper()}"))).decode()
    planted = installation.state / "prefect" / "storage" / "planted"
    planted.write_text(json.dumps({"result": packed}))

    found = installation.markers_of_prefect.in_files(planted.parent)
    planted.unlink()

    assert found == {"planted": {POSITIVE.family}}
