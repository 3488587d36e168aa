"""Many texts, one call in five misbehaving, the sender killed fifty times; and the naive way beside it.

Judged by the provider's ledger, as in test_notify_kills (ruling 20; H9, H23, H29).
"""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from random import Random

import pytest

from app.demo.sms_provider import SmsProvider
from integrations.ports import NotSent, OutgoingText, Refused, Unsure
from integrations.texts.twilio import TwilioSender
from tests.proof.test_notify_kills import ACCOUNT, FAULTS, SERVICE, TOKEN, judge, serve, world  # noqa: F401
from tests.support.killable import KILLED
from tests.support.texts import owe_many, pass_machine_time

pytestmark = [pytest.mark.proof, pytest.mark.timeout(1800)]

MANY = int(os.environ.get("PROOF_TEXTS", "5000"))
"""Four minutes; fewer for whoever works on the sender."""

KILLS = 50


def test_many_texts_and_fifty_kills_double_none_and_lose_none(world, capsys):  # noqa: F811
    """Every kind of fault in one call of five, SIGKILL at fifty random commits and calls."""
    dice, killed, each = Random(20), 0, MANY // KILLS
    turns = 0
    while killed < KILLS:
        turns += 1
        with world.begin() as session:
            owe_many(session, each, seed=turns)
        # About six boundaries a text: some die at the first commit, some with most of their texts sent.
        code, _ = world.run(die_at=dice.randrange(1, 5 * each))
        killed += code == KILLED
        assert code in {0, KILLED}
        pass_machine_time(world.begin, minutes=3)
    world.settle()

    doubled, lost, owed, accepted = judge(world)

    with capsys.disabled():
        print(f"\n{owed} texts, {killed} kills, {accepted} accepted: {len(doubled)} doubled, {len(lost)} lost")
    assert (doubled, lost) == ([], [])
    assert owed == each * turns


def test_the_naive_way_beside_it_doubles_many(tmp_path, capsys):
    """For the record: the same provider, and a client that tries again whenever a call fails."""
    provider = SmsProvider(ledger=tmp_path / "ledger.jsonl", auth_token=TOKEN, seed=7, faults=FAULTS, hold_seconds=0.4)
    server, thread, url = serve(provider.app)
    sender = TwilioSender(
        account_sid=ACCOUNT,
        auth_token=TOKEN,
        messaging_service_sid=SERVICE,
        public_base_url="http://127.0.0.1:9",
        base_url=url,
        timeout_seconds=0.3,
    )

    def naive(number):
        text = OutgoingText("naive", f"+4477009{number:05d}", f"Larkfield Post: hello. Ref {number:06X}")
        for _ in range(4):
            with suppress(NotSent, Refused, Unsure):
                return sender.send(text)
        return None

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(naive, range(300)))
    sender.http.session.close()
    server.should_exit = True
    thread.join(10)

    times = Counter(message.to for message in provider.messages.values())
    doubled = sum(n > 1 for n in times.values())
    with capsys.disabled():
        print(f"\nthe naive way: {doubled} of 300 people texted more than once")
    assert doubled >= 10
