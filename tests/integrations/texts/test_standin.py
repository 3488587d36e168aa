"""The stand-in misbehaves as it says, from its seed, and its ledger tells the truth."""

import asyncio
import json
import socket
import subprocess
import sys
import time

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from app.demo.sms_provider import SmsProvider
from integrations.ports import NotSent, OutgoingText, Refused, Unsure
from models.rules.vocabulary import DeliveryStatus
from tests.integrations.texts.conftest import ACCOUNT, MESSAGING_SERVICE, TOKEN, serve

TO = "+447700900123"
TEXT = OutgoingText("attempt-1", TO, "Harbour Post: we have an update about your order. Ref 7K3F9X")


def eventually(question):
    """Asks until the answer is yes; the test's own time limit ends the asking."""
    deadline = time.monotonic() + 10
    while not question():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.005)


@pytest.fixture
def heard(served):
    """A web application that hears callbacks: [(url, signature, form)], and its address."""
    callbacks = []

    async def hear(request):
        form = dict(await request.form())
        callbacks.append((str(request.url), request.headers["x-twilio-signature"], form))
        return Response(status_code=204)

    server, thread, url = serve(Starlette(routes=[Route("/callbacks/twilio/status", hear, methods=["POST"])]))
    served.append((server, thread))
    yield callbacks, url
    server.should_exit = True


def test_a_text_is_told_of_step_by_step_in_callbacks_that_the_product_can_read(standin, sender, heard):
    callbacks, address = heard
    provider, url = standin()
    twilio = sender(url, public_base_url=address)
    sid = twilio.send(TEXT).provider_id
    eventually(lambda: provider.messages and not provider.going)
    events = [twilio.parse_status(*callback) for callback in callbacks]
    assert {(event.attempt_ref, event.provider_id) for event in events} == {("attempt-1", sid)}
    assert [event.status for event in events] == [DeliveryStatus.WITH_CARRIER, DeliveryStatus.DELIVERED]


@pytest.mark.parametrize("code", [30003, 30005, 30006])
def test_a_number_that_fails_later_is_told_with_its_code(standin, sender, heard, code):
    callbacks, address = heard
    provider, url = standin(forced={TO: code})
    twilio = sender(url, public_base_url=address)
    twilio.send(TEXT)
    eventually(lambda: provider.messages and not provider.going)
    assert len(callbacks) == 2
    last = twilio.parse_status(*callbacks[-1])
    assert (last.status, last.error_code) == (DeliveryStatus.FAILED, str(code))


def test_callbacks_are_lost_late_doubled_and_shuffled(standin, sender, heard):
    callbacks, address = heard
    provider, url = standin(faults=1.0, forced={TO: ""}, step_seconds=0, late_seconds=0.02)
    twilio = sender(url, public_base_url=address)
    for n in range(24):
        twilio.send(OutgoingText(f"attempt-{n}", TO, TEXT.body))
    eventually(lambda: provider.messages and not provider.going)
    told = {sid: [] for sid in provider.messages}
    for callback in callbacks:
        event = twilio.parse_status(*callback)
        told[event.provider_id].append(event.status_raw)
    assert {tuple(statuses) for statuses in told.values()} == {
        (),
        ("sent", "delivered"),
        ("delivered", "sent"),
        ("sent", "delivered", "sent", "delivered"),
    }


def outcome(twilio, text):
    try:
        twilio.send(text)
    except (NotSent, Refused, Unsure) as error:
        return type(error)
    return None


def test_about_one_create_in_five_goes_wrong_when_asked_and_none_when_not(standin, sender):
    texts = [OutgoingText(f"a{n}", f"+4477009001{n % 100:02}", f"{TEXT.body}{n}") for n in range(60)]
    _, calm = standin(faults=0.0)
    quiet = sender(calm)
    assert {outcome(quiet, text) for text in texts[:20]} == {None}
    _, rough = standin(faults=0.2, seed=7, hold_seconds=0)
    loud = sender(rough)
    met = [outcome(loud, text) for text in texts]
    assert {None, NotSent, Unsure} <= set(met)
    assert 5 <= sum(o is not None for o in met) <= 25


def test_the_same_seed_goes_wrong_in_the_same_way(tmp_path):
    first, again, other = (
        SmsProvider(tmp_path / str(n), TOKEN, seed=seed, faults=0.5) for n, seed in enumerate((1, 1, 2))
    )

    def throws(provider):
        return [
            (provider._request_fault(TO, f"body {n}"), provider._number_fault(f"+4477009{n:05}")) for n in range(60)
        ]

    first_throws = throws(first)
    assert throws(again) == first_throws
    assert throws(other) != first_throws


def test_the_ledger_shows_how_often_each_text_was_accepted(standin, sender):
    _, url = standin(forced={TO: "error_after"})
    twilio = sender(url)
    for _ in range(2):
        with pytest.raises(Unsure):
            twilio.send(TEXT)
    twilio.send(OutgoingText("attempt-3", "+447700900124", TEXT.body))
    ledger = httpx.get(f"{url}/_ledger", timeout=30).json()
    assert sorted((each["to"], each["accepted"]) for each in ledger["texts"]) == [(TO, 2), ("+447700900124", 1)]
    assert {message["body"] for message in ledger["messages"]} == {TEXT.body}


def test_what_was_accepted_outlives_the_stand_in(standin, sender, tmp_path):
    provider, url = standin()
    sid = sender(url).send(TEXT).provider_id
    eventually(lambda: provider.messages[sid].status == "delivered")
    again = SmsProvider(tmp_path / "ledger.jsonl", TOKEN)
    assert again.messages == provider.messages


def test_a_text_accepted_just_before_a_crash_is_still_carried(tmp_path, standin, sender, heard):
    callbacks, address = heard
    line = {
        "kind": "accepted",
        "sid": "SM" + "1" * 32,
        "account_sid": ACCOUNT,
        "to": TO,
        "body": TEXT.body,
        "messaging_service_sid": MESSAGING_SERVICE,
        "callback": f"{address}/callbacks/twilio/status?a=attempt-1",
        "at": "2026-11-24T12:00:00+00:00",
    }
    (tmp_path / "ledger.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    standin()
    eventually(lambda: len(callbacks) == 2)


def test_a_callback_to_nobody_does_no_harm(tmp_path):
    async def carry():
        provider = SmsProvider(tmp_path / "ledger", TOKEN, step_seconds=0)
        async with provider._living(provider.app):
            form = {
                "To": TO,
                "Body": "x",
                "MessagingServiceSid": MESSAGING_SERVICE,
                "StatusCallback": "http://127.0.0.1:1/",
            }
            message = provider._accept(ACCOUNT, form)
            await asyncio.gather(*provider.going)
        return message.status

    assert asyncio.run(carry()) == "delivered"


def test_it_runs_from_the_command_line_and_says_when_its_port_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        command = [sys.executable, "-m", "app.demo.sms_provider", "--port", str(port)]
        command += ["--ledger", str(tmp_path / "ledger.jsonl"), "--auth-token", TOKEN]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert ended.stderr == (
        f"The SMS stand-in can't listen on port {port}: something else does. Give it another --port.\n"
    )
