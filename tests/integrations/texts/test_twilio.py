"""The adapter against the misbehaving stand-in, over real HTTP on loopback."""

import logging
import socket
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.base.exceptions import TwilioRestException

from app.demo.sms_provider import signature
from integrations.ports import Accepted, NotSent, OutgoingText, RefusalKind, Refused, Unsure
from integrations.texts.twilio import HOLDS, REFUSALS, STATUS, TRY_LATER, _verdict
from models.rules.errors import Code, ServiceError
from models.rules.vocabulary import DeliveryStatus

TO = "+447700900123"
TOKEN = "a-token-for-tests"
TEXT = OutgoingText("attempt-1", TO, "Harbour Post: we have an update about your order. Ref 7K3F9X")


# ── Sending ──────────────────────────────────────────────────────────────────────────────────


def test_an_accepted_text_gets_its_id_and_carries_the_attempt_in_its_callback(standin, sender):
    provider, url = standin()
    accepted = sender(url, public_base_url="http://127.0.0.1:9/").send(TEXT)
    held = provider.messages[accepted.provider_id]
    assert accepted == Accepted(held.sid, DeliveryStatus.IN_FLIGHT)
    assert (held.to, held.body) == (TO, TEXT.body)
    assert held.callback == "http://127.0.0.1:9/callbacks/twilio/status?a=attempt-1"


@pytest.mark.parametrize("fault", ["no_answer", "drop_before", "drop_after", "error_before", "error_after", "no_sid"])
def test_whatever_may_have_gone_is_unsure(standin, sender, fault):
    provider, url = standin(forced={TO: fault}, hold_seconds=1.0)
    with pytest.raises(Unsure):
        sender(url, timeout_seconds=0.5 if fault == "no_answer" else 5.0).send(TEXT)
    assert len(provider.messages) == (0 if fault.endswith("before") else 1), "one try, and no other"


def test_too_many_requests_were_not_sent(standin, sender):
    provider, url = standin(forced={TO: "too_many"})
    with pytest.raises(NotSent) as held_back:
        sender(url).send(TEXT)
    assert (held_back.value.code, held_back.value.alarm) == ("20429", False)
    assert provider.messages == {}


def test_a_refused_connection_was_not_sent(sender):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(NotSent) as held_back:
        sender(f"http://127.0.0.1:{port}").send(TEXT)
    assert held_back.value.code == "no_connection"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (21211, RefusalKind.BAD_NUMBER),
        (21610, RefusalKind.OPTED_OUT),
        (21612, RefusalKind.CONFIGURATION),
        (21614, RefusalKind.LANDLINE),
        (21635, RefusalKind.LANDLINE),
        (21617, RefusalKind.CONTENT),
        (29999, RefusalKind.UNKNOWN_CODE),
    ],
)
def test_a_refusal_says_whose_fault_it_is(standin, sender, code, kind):
    _, url = standin(forced={TO: code})
    with pytest.raises(Refused) as refused:
        sender(url).send(TEXT)
    assert (refused.value.code, refused.value.kind) == (str(code), kind)


@pytest.mark.parametrize("code", [21408, 21608, 63038])
def test_a_fault_of_the_account_holds_the_queue_and_rings(standin, sender, code):
    _, url = standin(forced={TO: code})
    with pytest.raises(NotSent) as held_back:
        sender(url).send(TEXT)
    assert (held_back.value.code, held_back.value.alarm) == (str(code), True)


def test_a_wrong_token_holds_the_queue_and_rings(standin, sender):
    _, url = standin()
    with pytest.raises(NotSent) as held_back:
        sender(url, auth_token="another").send(TEXT)
    assert (held_back.value.code, held_back.value.alarm) == ("20003", True)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"ok"', b"{}"])
def test_an_answer_that_makes_no_sense_is_unsure(sender, body):
    class Answers(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(201)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(Unsure):
            sender(f"http://127.0.0.1:{server.server_port}").send(TEXT)
        thread.join(5)


@given(st.integers(500, 599) | st.integers(300, 399), st.sampled_from([None, 20429, 21211, 21610, 21614]))
def test_outside_4xx_no_code_proves_that_nothing_went(status, code):
    assert isinstance(_verdict(TwilioRestException(status, "/", code=code)), Unsure)


@given(st.integers(20000, 70000))
def test_every_code_has_exactly_one_verdict_and_an_unknown_one_goes_to_a_person(code):
    verdict = _verdict(TwilioRestException(400, "/", code=code))
    if code in TRY_LATER or code in HOLDS:
        assert isinstance(verdict, NotSent)
    else:
        assert isinstance(verdict, Refused)
        assert (verdict.kind is RefusalKind.UNKNOWN_CODE) == (code not in REFUSALS)


def test_the_tables_of_codes_do_not_overlap():
    assert not REFUSALS.keys() & HOLDS
    assert not REFUSALS.keys() & TRY_LATER
    assert not HOLDS & TRY_LATER


# ── Nothing personal gets out ────────────────────────────────────────────────────────────────


def test_no_number_and_no_word_gets_into_logs_or_errors(standin, sender, caplog):
    """Twilio's client logs the lists it asks for, urllib3 their URLs, and its errors quote the number."""
    _, url = standin(forced={"+447700900456": 21211})
    caplog.set_level(logging.DEBUG)
    twilio = sender(url)
    # Whoever sets up logging later may turn it on again.
    for name in ("twilio.http_client", "urllib3.connectionpool"):
        caplog.set_level(logging.DEBUG, logger=name)
    twilio.send(TEXT)
    twilio.find(TEXT)
    with pytest.raises(Refused) as refused:
        twilio.send(OutgoingText("attempt-2", "+447700900456", TEXT.body))
    seen = "".join(caplog.messages) + repr(refused.value) + repr(TEXT) + repr(refused.value.__cause__)
    assert "7700900" not in seen
    assert "update" not in seen
    assert refused.value.__suppress_context__


# ── Looking a text up ────────────────────────────────────────────────────────────────────────


def test_an_unsure_text_is_found_by_its_number_and_its_very_words(standin, sender):
    provider, url = standin(forced={TO: "error_after"})
    twilio = sender(url)
    with pytest.raises(Unsure):
        twilio.send(TEXT)
    [seen] = twilio.find(TEXT)
    assert seen.provider_id in provider.messages
    assert datetime.now(UTC) - timedelta(minutes=1) < seen.created_at <= datetime.now(UTC)


def test_another_text_to_the_same_number_is_not_taken_for_it(standin, sender):
    _, url = standin()
    twilio = sender(url)
    twilio.send(TEXT)
    assert twilio.find(OutgoingText("attempt-2", TO, TEXT.body.replace("7K3F9X", "PXXXXX"))) == []
    assert twilio.find(OutgoingText("attempt-3", "+447700900124", TEXT.body)) == []


def test_a_text_may_be_listed_only_after_a_while(standin, sender):
    provider, url = standin(faults=1.0, forced={TO: "error_after"}, listing_lag_seconds=60)
    twilio = sender(url)
    with pytest.raises(Unsure):
        twilio.send(TEXT)
    assert len(provider.messages) == 1
    assert twilio.find(TEXT) == []


def test_one_text_can_be_asked_about_by_its_id(standin, sender):
    _, url = standin(step_seconds=60)
    twilio = sender(url)
    accepted = twilio.send(TEXT)
    seen = twilio.status(accepted.provider_id)
    assert (seen.status, seen.status_raw, seen.error_code) == (DeliveryStatus.IN_FLIGHT, "accepted", None)


def test_asking_for_a_text_that_is_not_there_is_refused(standin, sender):
    _, url = standin()
    with pytest.raises(Refused):
        sender(url).status("SM" + "0" * 32)


def test_a_redacted_text_has_no_words_left_and_redacting_again_changes_nothing(standin, sender):
    provider, url = standin()
    twilio = sender(url)
    sid = twilio.send(TEXT).provider_id
    twilio.redact(sid)
    twilio.redact(sid)
    assert provider.messages[sid].shown()["body"] == ""
    assert twilio.find(TEXT) == []


def test_redacting_a_text_that_is_gone_is_done(standin, sender):
    _, url = standin()
    sender(url).redact("SM" + "0" * 32)


@pytest.mark.parametrize(
    "ask",
    [lambda t: t.find(TEXT), lambda t: t.status("SM1"), lambda t: t.redact("SM1")],
    ids=["find", "status", "redact"],
)
def test_a_question_that_cannot_be_asked_now_was_not_sent(sender, ask):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(NotSent):
        ask(sender(f"http://127.0.0.1:{port}"))


# ── Callbacks ────────────────────────────────────────────────────────────────────────────────

CALLBACK = "https://kits.example.gov.uk/callbacks/twilio/status?a=attempt-1"
FORM = {"MessageSid": "SM" + "1" * 32, "MessageStatus": "delivered", "To": TO, "From": ""}


@pytest.fixture
def offline(sender):
    return sender("http://127.0.0.1:1", secondary_auth_token="the-next-token")


@pytest.mark.parametrize("token", [TOKEN, "the-next-token"])
def test_a_callback_signed_with_either_token_is_read(offline, token):
    event = offline.parse_status(CALLBACK, signature(token, CALLBACK, FORM), FORM)
    assert (event.attempt_ref, event.provider_id) == ("attempt-1", "SM" + "1" * 32)
    assert (event.status, event.status_raw, event.error_code) == (DeliveryStatus.DELIVERED, "delivered", None)


def test_a_failed_texts_callback_keeps_the_code(offline):
    form = FORM | {"MessageStatus": "undelivered", "ErrorCode": "30006"}
    event = offline.parse_status(CALLBACK, signature(TOKEN, CALLBACK, form), form)
    assert (event.status, event.error_code) == (DeliveryStatus.FAILED, "30006")


@pytest.mark.parametrize(
    ("url", "form", "signed"),
    [
        (CALLBACK, FORM, ""),
        (CALLBACK, FORM, "bm90IGEgc2lnbmF0dXJl"),
        (CALLBACK, FORM, signature("another-token", CALLBACK, FORM)),
        (CALLBACK, FORM | {"MessageStatus": "failed"}, signature(TOKEN, CALLBACK, FORM)),
        (CALLBACK, FORM | {"Extra": "1"}, signature(TOKEN, CALLBACK, FORM)),
        (CALLBACK, {k: v for k, v in FORM.items() if v}, signature(TOKEN, CALLBACK, FORM | {"ErrorMessage": "x"})),
        (CALLBACK.replace("attempt-1", "attempt-2"), FORM, signature(TOKEN, CALLBACK, FORM)),
        (CALLBACK.replace("https", "http"), FORM, signature(TOKEN, CALLBACK, FORM)),
    ],
    ids=["none", "junk", "other token", "changed", "added", "dropped", "other attempt", "other scheme"],
)
def test_a_callback_that_is_not_signed_as_it_stands_is_refused(offline, url, form, signed):
    with pytest.raises(ServiceError) as refused:
        offline.parse_status(url, signed, form)
    assert refused.value.code is Code.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("url", "form"),
    [
        (CALLBACK.split("?", maxsplit=1)[0], FORM),
        (CALLBACK, FORM | {"MessageSid": ""}),
        (CALLBACK, {"MessageSid": "SM" + "1" * 32}),
    ],
    ids=["no attempt", "no message", "no status"],
)
def test_a_signed_callback_without_what_it_is_about_is_bad_input(offline, url, form):
    with pytest.raises(ServiceError) as refused:
        offline.parse_status(url, signature(TOKEN, url, form), form)
    assert refused.value.code is Code.BAD_INPUT


@pytest.mark.parametrize("word", ["partially_delivered", "received", "teleported", "DELIVERED"])
def test_a_status_that_is_not_known_never_counts_as_delivered(offline, word):
    form = FORM | {"MessageStatus": word}
    event = offline.parse_status(CALLBACK, signature(TOKEN, CALLBACK, form), form)
    assert (event.status, event.status_raw) == (DeliveryStatus.UNKNOWN, word)


def test_only_two_words_mean_delivered():
    assert {word for word, status in STATUS.items() if status is DeliveryStatus.DELIVERED} == {"delivered", "read"}
