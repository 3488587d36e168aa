"""SIGKILL at every commit and every call of the sender, with a provider that misbehaves: judged by its ledger.

Ruling 20; H9, H23, H29; FEATURES 52. The product's own tables are not asked whether a text was doubled or lost.
"""

import json
import threading
import time
from collections import Counter, defaultdict
from random import Random

import pytest
import uvicorn
from fastapi import FastAPI
from sqlmodel import select

from app.demo.sms_provider import SmsProvider, listen
from app.web.callbacks import Callbacks, callbacks_router
from integrations.texts.twilio import TwilioSender
from models.actions.text_moves import short_ref
from models.tables.clinic import ClinicCase
from models.tables.person import Contact
from models.tables.text import Text, TextState
from tests.support import build
from tests.support.killable import KILLED, Killable
from tests.support.texts import NOW, owed_journey_text, owed_result, pass_machine_time

pytestmark = [pytest.mark.proof, pytest.mark.timeout(900)]

ACCOUNT, SERVICE, TOKEN = "AC" + "0" * 32, "MG" + "0" * 32, "a-token-for-tests"
FAULTS = 0.2


def serve(app):
    listening = listen(0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    return server, thread, f"http://127.0.0.1:{listening.getsockname()[1]}"


class World:
    """The provider, our callback page and a sender that can be killed, round one database."""

    def __init__(self, db, begin, folder, seed):
        self.begin = begin
        self.provider = SmsProvider(
            ledger=folder / "ledger.jsonl",
            auth_token=TOKEN,
            seed=seed,
            faults=FAULTS,
            hold_seconds=0.8,
            step_seconds=0.01,
            late_seconds=0.2,
            listing_lag_seconds=0.5,
        )
        page, self.servers = FastAPI(), []
        *stop, callbacks = serve(page)
        self.servers.append(stop)
        *stop, provider = serve(self.provider.app)
        self.servers.append(stop)
        reader = TwilioSender(
            account_sid=ACCOUNT, auth_token=TOKEN, messaging_service_sid=SERVICE, public_base_url=callbacks
        )
        self.reader = reader
        page.include_router(
            callbacks_router(
                Callbacks(begin, lambda: NOW, {reader.name: reader}, build.cipher(), build.indexes(), callbacks)
            )
        )
        self.worker = Killable(
            "notify_worker",
            database=db.url,
            account=ACCOUNT,
            token=TOKEN,
            messaging_service=SERVICE,
            callbacks=callbacks,
            provider=provider,
        )

    def run(self, *, hours=0, **death):
        """One run of the sender: its exit code and how many boundaries it passed."""
        return self.worker.run(hours, **death)

    def owe(self, many):
        with self.begin() as session:
            for number in range(many):
                owed_journey_text(session) if number % 3 == 2 else owed_result(session)

    def settle(self):
        """Runs until nothing is under way, letting machine time pass between the runs."""
        for turn in range(240):  # far more than any text takes: only what would never end is stopped by it
            # The provider answers, lists and calls back in real time: half a second is its longest lag.
            time.sleep(0.6)
            pass_machine_time(self.begin, minutes=40)
            # First what is unsure; then the days on which some are sent once more.
            code, _ = self.run(hours=max(0, turn - 10) * 3)
            assert code == 0
            if not self.under_way():
                return
        raise AssertionError("texts are still under way")

    def under_way(self):
        with self.begin() as session:
            return [
                text.id
                for text in session.exec(select(Text))
                if text.state in {TextState.OWED, TextState.SENDING, TextState.UNSURE, TextState.ACCEPTED}
            ]

    def close(self):
        self.worker.close()
        self.reader.http.session.close()
        for server, _ in self.servers:
            server.should_exit = True
        for _, thread in self.servers:
            thread.join(10)


@pytest.fixture
def world(db, begin, tmp_path):
    made = World(db, begin, tmp_path, seed=7)
    yield made
    made.close()


def judge(world):
    """By the provider's ledger: nobody got the same words twice, and nobody's text is missing without a case."""
    lines = [json.loads(line) for line in world.provider.ledger.read_text().splitlines()]
    accepted = {line["sid"]: line for line in lines if line["kind"] == "accepted"}
    last = {line["sid"]: line["status"] for line in lines if line["kind"] == "status"}
    failed = {sid for sid, status in last.items() if status in {"failed", "undelivered"}}
    times = Counter((line["to"], line["body"]) for sid, line in accepted.items() if sid not in failed)
    doubled = [text for text, n in times.items() if n > 1]

    # By reference and number: among thousands of texts two references may be alike.
    sids_of = defaultdict(list)
    for sid, line in accepted.items():
        sids_of[line["body"].rsplit(" ", 1)[-1], line["to"]].append(sid)
    with world.begin() as session:
        texts = session.exec(select(Text)).all()
        mobile_of = {
            contact.id: build.cipher().decrypt("contact", "mobile", contact.ref, contact.mobile)
            for contact in session.exec(select(Contact))
        }
        cased = {case.detail["text"] for case in session.exec(select(ClinicCase))}
    lost = []
    for text in texts:
        arrived = any(last.get(sid) == "delivered" for sid in sids_of[short_ref(text.ref), mobile_of[text.contact_id]])
        is_result = text.decision_id is not None
        if not arrived and (text.ref not in cased if is_result else text.state is not TextState.FAILED):
            lost.append(text.id)
        assert arrived or text.state is not TextState.DELIVERED, "told of a delivery that the provider knows nothing of"
    return doubled, lost, len(texts), len(accepted)


def test_a_sender_killed_at_every_commit_and_every_call_doubles_none_and_loses_none(world):
    code, die_at, deaths = KILLED, 0, 0
    while code == KILLED:
        die_at += 1
        world.owe(4)
        code, passed = world.run(die_at=die_at)
        deaths += code == KILLED
        assert code in {0, KILLED}
        assert code == 0 or passed == die_at
        pass_machine_time(world.begin, minutes=3)  # its lease is over
        assert world.run()[0] == 0  # the restarted run really runs
    world.settle()

    doubled, lost, owed, accepted = judge(world)

    assert (doubled, lost) == ([], [])
    assert deaths >= 20
    assert accepted >= owed * 0.8  # nearly all numbers can be texted: the judge had something to judge


def test_a_sender_killed_at_ten_random_moments_doubles_none_and_loses_none(world):
    """Each is killed within the time that a whole run takes on this machine, until ten were caught at work."""
    world.owe(12)
    assert world.run()[0] == 0  # which starts the worker, too
    world.owe(12)
    began = time.monotonic()
    assert world.run()[0] == 0
    longest_ms = 1 + int(1000 * (time.monotonic() - began))
    dice, killed = Random(20), 0
    while killed < 10:
        world.owe(12)
        code, _ = world.run(kill_after_ms=dice.randrange(1, longest_ms + 1))
        killed += code == KILLED
        assert code in {0, KILLED}
        pass_machine_time(world.begin, minutes=3)
    world.settle()

    doubled, lost, _, _ = judge(world)

    assert (doubled, lost) == ([], [])


def test_the_judge_sees_a_doubled_and_a_lost_text(world):
    world.owe(6)
    world.settle()
    with world.begin() as session:
        world_text = session.exec(select(Text).where(Text.state == TextState.DELIVERED)).first()
    line = next(
        json.loads(line) for line in world.provider.ledger.read_text().splitlines() if short_ref(world_text.ref) in line
    )
    with world.provider.ledger.open("a") as ledger:
        ledger.write(json.dumps({**line, "sid": "SM" + "f" * 32}) + "\n")
    with world.begin() as session:
        unsent = owed_result(session)

    doubled, lost, _, _ = judge(world)

    assert doubled == [(line["to"], line["body"])]
    assert lost == [unsent.id]
