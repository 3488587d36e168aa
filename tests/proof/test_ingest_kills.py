"""SIGKILL at every commit and every HTTP call of ingest, and at random moments: the end is as if nothing had been.

Ruling 20; H9; FEATURES 39, 52. A real S3 on loopback, the real PostgreSQL, a process that really dies. What each kit
must come to is taken from a run that nobody disturbed.
"""

import secrets
import time
from random import Random

import pytest
from sqlalchemy import text

from flows.reconcile import strike
from integrations.store import S3FileStore
from tests.support import aws
from tests.support.ingesting import READ_AT, ask
from tests.support.killable import KILLED, Killable
from tests.support.lab_files import LONG, control_file, hl7, long_table
from tests.support.many_kits import send_kits

pytestmark = [pytest.mark.proof, pytest.mark.timeout(900)]

EARLIER, LATER = "2026-11-02T09:00", "2026-11-03T09:00"
ROLES = ("clear", "positive", "reactive", "unknown word", "partial", "failed", "commented", "corrected")


class World:
    """A store, a database and a reader that can be killed."""

    def __init__(self, db, begin, endpoint):
        self.db, self.begin = db, begin
        bucket = f"kitpost-{secrets.token_hex(4)}"
        client = aws.client("s3", endpoint)
        client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": aws.REGION})
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        self.store = S3FileStore(client, bucket)
        self.rounds = []
        self.worker = Killable("ingest_worker", database=db.url, s3=endpoint, bucket=bucket)
        self.run = self.worker.run

    def let_lease_run_out(self):
        """The dead reader's claim ends, which stands for two minutes passing."""
        with self.db.owner_engine.begin() as owner:
            owner.execute(text("UPDATE lab_file SET claimed_until = claimed_until - interval '5 minutes'"))

    def restart(self):
        """Another reader takes over and ends what the dead one began."""
        self.let_lease_run_out()
        assert self.run()[0] == 0

    def land(self):
        """The same three files about new kits: every kind of result, a table with a correction, and a cut file."""
        number = len(self.rounds)
        with self.begin() as session:
            kits = dict(zip(ROLES, send_kits(session, len(ROLES), seed=number), strict=True))
        self.rounds.append(kits)
        first = {role: kit.rows(at=EARLIER) for role, kit in kits.items()}
        for role, place, change in (
            ("positive", 0, {"value": "DETECTED"}),
            ("reactive", 2, {"value": "Reactive"}),
            ("unknown word", 1, {"value": "Perhaps"}),
            ("failed", 3, {"value": "Insufficient"}),
            ("commented", 0, {"comment": "Repeat advised."}),
        ):
            first[role][place] = first[role][place]._replace(**change)
        first["partial"].pop()
        main = hl7([row for rows in first.values() for row in rows], control_id=f"round {number}")
        table = long_table(
            [
                kits["corrected"].rows(LONG, at=LATER, status="C", value="DETECTED")[0],
                *kits["clear"].rows(LONG, at=LATER),
            ]
        )
        for name, content in (
            ("a.hl7", main),
            ("b.csv", table),
            ("b.csv.ctl", control_file(table)),
            ("c.hl7", hl7(kits["clear"].rows(message_id="cut"), control_id=f"cut {number}")[:-12]),
        ):
            self.store.put(f"NORTHLAB/incoming/{number:04d}{name}", content, "text/plain")

    def came_to(self, number):
        """What became of each kit of a round."""
        return {role: self._of(kit.id) for role, kit in self.rounds[number].items()}

    def _of(self, kit_id):
        queries = (
            "SELECT test, outcome, effect FROM result_version WHERE kit_id = :id ORDER BY test, id",
            "SELECT test, outcome, corrected FROM result_series WHERE kit_id = :id ORDER BY test",
            "SELECT kind, reasons, owes_text FROM release_decision WHERE kit_id = :id ORDER BY id",
            "SELECT purpose, state, cancelled_because FROM text WHERE kit_id = :id ORDER BY purpose",
            "SELECT kind, owner_role FROM clinic_case WHERE kit_id = :id",
            "SELECT reason, row_key FROM quarantined_row WHERE kit_id = :id ORDER BY id",
            "SELECT state, frozen_at IS NULL, hold_until FROM kit WHERE id = :id",
            "SELECT kind, count(*) FROM kit_event WHERE kit_id = :id GROUP BY kind ORDER BY kind",
        )
        return [ask(self.begin, query, id=kit_id) for query in queries]

    def files(self):
        return ask(self.begin, "SELECT state, moved, count(*) FROM lab_file GROUP BY 1, 2 ORDER BY 1")

    def close(self):
        self.worker.close()


@pytest.fixture
def world(db, begin):
    with aws.moto() as endpoint:
        made = World(db, begin, endpoint)
        yield made
        made.close()


def judge(world):
    """Every round came to what the first, undisturbed one came to; nothing is left over, doubled or missing."""
    undisturbed = world.came_to(0)
    for number in range(1, len(world.rounds)):
        came_to = world.came_to(number)
        for role in ROLES:
            assert came_to[role] == undisturbed[role], (number, role)
    rounds = len(world.rounds)
    assert world.files() == [("done", True, 2 * rounds), ("held", True, rounds)]
    assert list(world.store.list("NORTHLAB/incoming/")) == []
    # Two files, one with its control file, and a cut one; each with its receipt for machines and for people.
    assert len(list(world.store.list("NORTHLAB/processed/"))) == (3 + 2 * 2) * rounds
    assert len(list(world.store.list("NORTHLAB/quarantine/"))) == (1 + 2) * rounds
    assert strike(world.begin, lambda: READ_AT).differences == ()


def test_a_reader_killed_at_every_commit_and_every_http_call_ends_as_if_nothing_had_been(world):
    world.land()
    assert world.run()[0] == 0
    die_at = 0
    while True:
        die_at += 1
        world.land()
        code, passed = world.run(die_at=die_at)
        if code == 0:
            break
        assert (code, passed) == (KILLED, die_at)
        world.restart()

    assert die_at > 80
    judge(world)


def test_a_reader_killed_a_hundred_times_at_random_goes_on_where_it_stood(world):
    """Each reader is killed within the time that a round takes, at most a second, and the next finds what it left."""
    world.land()
    assert world.run()[0] == 0  # which starts the worker, too
    world.land()
    began = time.monotonic()
    assert world.run()[0] == 0
    longest_ms = min(1000, int(1000 * (time.monotonic() - began)))
    chance, killed = Random(20), 0
    while killed < 100:
        if not any(world.store.list("NORTHLAB/incoming/")):
            world.land()
        code, _ = world.run(kill_after_ms=chance.randrange(1, longest_ms))
        killed += code == KILLED
        world.let_lease_run_out()
    world.restart()

    judge(world)


def test_the_undisturbed_round_is_what_the_files_say(world):
    world.land()
    assert world.run()[0] == 0

    texts = {role: [(purpose, state) for purpose, state, _ in found[3]] for role, found in world.came_to(0).items()}
    assert texts == {
        "clear": [("all_clear", "owed")],
        "positive": [("swab_positive", "owed")],
        "reactive": [("please_expect_our_call", "owed")],
        "unknown word": [("delayed", "owed")],
        "partial": [("received_at_lab", "owed")],
        "failed": [("failed_sample", "owed")],
        "commented": [("delayed", "owed")],
        "corrected": [("all_clear", "cancelled"), ("please_expect_our_call", "owed")],
    }
    judge(world)
