"""The GOV.UK Notify adapter against its stand-in over real HTTP, both held to Notify's documented shapes."""

import json
import logging
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from notifications_python_client.errors import HTTPError
from openapi_core import OpenAPI
from openapi_core.contrib.requests import RequestsOpenAPIRequest, RequestsOpenAPIResponse
from openapi_core.exceptions import OpenAPIError
from requests import Response
from starlette.applications import Starlette
from starlette.responses import Response as Answer
from starlette.routing import Route

from app.demo.notify_provider import NotifyProvider
from integrations.ports import Accepted, NotSent, OutgoingText, RefusalKind, Refused, Unsure
from integrations.texts.govuk_notify import FAILURES, STATUS, GovukNotifySender, _verdict
from models.rules.errors import Code, ServiceError
from models.rules.vocabulary import DeliveryStatus
from tests.integrations.texts.conftest import serve

DESCRIPTION = Path(__file__).parents[2] / "contract" / "govuk_notify_openapi.json"
SECRET = "11111111-2222-4333-8444-555555555555"
TO = "+447700900123"
TEXT = OutgoingText("attempt-1", TO, "Harbour Post: we have an update about your order. Ref 7K3F9X")
TOKEN, NEXT_TOKEN = "a-bearer-for-tests", "the-next-bearer"


@pytest.fixture
def notify(tmp_path, served):
    """Starts a stand-in with the faults a test asks for, and a sender that points at it."""
    before, senders = len(served), []

    def start(*, timeout_seconds=5.0, template_id="", secret=SECRET, **faults):
        options = {"ledger": tmp_path / "ledger.jsonl", "auth_token": SECRET, "step_seconds": 0.01, **faults}
        provider = NotifyProvider(**options)
        server, thread, url = serve(provider.app)
        served.append((server, thread))
        senders.append(
            sender_to(url, key=provider.api_key.replace(SECRET, secret), timeout_seconds=timeout_seconds,
                      template_id=template_id or provider.template_id)
        )  # fmt: skip
        return provider, senders[-1]

    yield start
    for each in senders:
        each.http.close()
    for server, _ in served[before:]:
        server.should_exit = True


def sender_to(url, *, key=f"stand_in-00000000-0000-4000-8000-000000000001-{SECRET}", **options):
    given = {"template_id": "00000000-0000-4000-8000-000000000002", "timeout_seconds": 5.0, **options}
    return GovukNotifySender(
        api_key=key, callback_token=TOKEN, secondary_callback_token=NEXT_TOKEN, base_url=url, **given
    )


# ── Sending ──────────────────────────────────────────────────────────────────────────────────


def test_an_accepted_text_gets_its_id_and_carries_the_attempt_as_its_reference(notify):
    provider, sender = notify()

    accepted = sender.send(TEXT)

    [held] = provider.messages.values()
    assert accepted == Accepted(held.sid, DeliveryStatus.IN_FLIGHT)
    assert (held.to, held.body, held.messaging_service_sid) == (TO, TEXT.body, "attempt-1")


@pytest.mark.parametrize("fault", ["no_answer", "drop_before", "drop_after", "error_before", "error_after", "no_sid"])
def test_whatever_may_have_gone_is_unsure_and_tried_once(notify, fault):
    provider, sender = notify(forced={TO: fault}, hold_seconds=1.0, timeout_seconds=0.5 if fault == "no_answer" else 5)

    with pytest.raises(Unsure):
        sender.send(TEXT)

    assert len(provider.messages) == (0 if fault.endswith("before") else 1)


def test_too_many_requests_were_not_sent(notify):
    provider, sender = notify(forced={TO: "too_many"})

    with pytest.raises(NotSent) as held_back:
        sender.send(TEXT)

    assert (held_back.value.code, held_back.value.alarm) == ("RateLimitError", False)
    assert provider.messages == {}


def test_a_refused_connection_was_not_sent():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    sender = sender_to(f"http://127.0.0.1:{port}")
    with pytest.raises(NotSent):
        sender.send(TEXT)
    sender._template_is_bare = True
    with pytest.raises(NotSent) as held_back:
        sender.send(TEXT)
    assert held_back.value.code == "no_connection"


def test_a_number_that_notify_refuses_says_why(notify):
    _, sender = notify(forced={TO: 21614})
    with pytest.raises(Refused) as landline:
        sender.send(TEXT)
    with pytest.raises(Refused) as foreign:
        sender.send(OutgoingText("attempt-2", "+353850000000", TEXT.body))
    assert (landline.value.kind, foreign.value.kind) == (RefusalKind.LANDLINE, RefusalKind.BAD_NUMBER)


def test_a_wrong_key_holds_the_queue_and_rings(notify):
    _, sender = notify(secret=SECRET.replace("1", "9"))
    with pytest.raises(NotSent) as held_back:
        sender.send(TEXT)
    assert held_back.value.alarm


@pytest.mark.parametrize("trouble", [{"prefix": "Sexual Health: "}, {"template_id": SECRET}])
def test_a_template_that_adds_words_or_is_not_there_sends_nothing_and_rings(notify, trouble):
    """A prefix with the service's name would stand on lock screens (ruling 14)."""
    provider, sender = notify(**trouble)

    with pytest.raises(NotSent) as held_back:
        sender.send(TEXT)

    assert held_back.value.alarm
    assert provider.messages == {}


def answered(status, error, message):
    response = Response()
    response.status_code = status
    response._content = json.dumps({"status_code": status, "errors": [{"error": error, "message": message}]}).encode()
    return HTTPError(response)


@pytest.mark.parametrize(
    ("status", "error", "message", "kind"),
    [
        (400, "BadRequestError", "Can’t send to this recipient using a team-only API key", NotSent),
        (400, "BadRequestError", "Can’t send to this recipient when service is in trial mode", NotSent),
        (400, "BadRequestError", "Template not found", NotSent),
        (400, "BadRequestError", "Missing personalisation: message", NotSent),
        (403, "AuthError", "Error: Your system clock must be accurate to within 30 seconds", NotSent),
        (429, "TooManyRequestsError", "Exceeded send limits (sms: 250000) for today", NotSent),
        (400, "ValidationError", "phone_number Not a UK mobile number", Refused),
        (400, "Novelty", "Something that nobody has seen", Refused),
        (500, "Exception", "Internal server error", Unsure),
        (503, "Exception", "phone_number", Unsure),
        (302, "Moved", "phone_number", Unsure),
    ],
)
def test_every_answer_has_its_verdict_and_an_unknown_refusal_goes_to_a_person(status, error, message, kind):
    verdict = _verdict(answered(status, error, message))

    assert type(verdict) is kind
    if kind is NotSent:
        assert verdict.alarm
    if error == "Novelty":
        assert verdict.kind is RefusalKind.UNKNOWN_CODE


def test_no_number_and_no_word_gets_into_logs_or_errors(notify, caplog):
    _, sender = notify(forced={TO: 21614})
    caplog.set_level(logging.DEBUG)
    for name in ("notifications_python_client.base", "urllib3.connectionpool"):
        caplog.set_level(logging.DEBUG, logger=name)

    with pytest.raises(Refused) as refused:
        sender.send(TEXT)
    with pytest.raises(Refused):
        sender.send(OutgoingText("attempt-2", "+353850000000", TEXT.body))

    seen = "".join(caplog.messages) + repr(refused.value) + repr(refused.value.__cause__)
    assert "7700900" not in seen
    assert "update" not in seen
    assert refused.value.__suppress_context__


# ── Looking a text up ────────────────────────────────────────────────────────────────────────


def test_an_unsure_text_is_found_by_its_attempt_and_no_other_is_taken_for_it(notify):
    provider, sender = notify(forced={TO: "error_after"})
    with pytest.raises(Unsure):
        sender.send(TEXT)

    [seen] = sender.find(TEXT)

    assert seen.provider_id in provider.messages
    assert datetime.now(UTC) - timedelta(minutes=1) < seen.created_at <= datetime.now(UTC)
    assert sender.find(OutgoingText("attempt-2", TO, TEXT.body)) == []


def test_one_text_can_be_asked_about_and_an_unknown_one_is_refused(notify):
    _, sender = notify(step_seconds=60)
    accepted = sender.send(TEXT)

    assert sender.status(accepted.provider_id).status is DeliveryStatus.IN_FLIGHT
    with pytest.raises(Refused):
        sender.status(SECRET)


def test_all_numbers_texted_since_an_instant_are_listed_over_every_page(notify, monkeypatch):
    monkeypatch.setattr("app.demo.notify_provider.PAGE", 2)
    provider, sender = notify(step_seconds=60)
    for number in range(5):
        sender.send(OutgoingText(f"attempt-{number}", f"+44770090010{number}", TEXT.body))
    old = next(iter(provider.messages.values()))
    old.created_at -= timedelta(hours=2)

    found = sender.texted_since(datetime.now(UTC) - timedelta(hours=1))

    assert sorted(found.values()) == [f"+44770090010{number}" for number in range(1, 5)]
    assert found.keys() == provider.messages.keys() - {old.sid}


@pytest.mark.parametrize(
    "ask",
    [lambda s: s.find(TEXT), lambda s: s.status(SECRET), lambda s: s.texted_since(datetime.now(UTC))],
    ids=["find", "status", "texted_since"],
)
def test_a_question_that_cannot_be_asked_now_was_not_sent(ask):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(NotSent):
        ask(sender_to(f"http://127.0.0.1:{port}"))


# ── Delivery receipts ────────────────────────────────────────────────────────────────────────

RECEIPT = {"id": SECRET, "reference": "attempt-1", "to": TO, "status": "delivered"}


@pytest.mark.parametrize("token", [TOKEN, NEXT_TOKEN])
def test_a_receipt_with_either_token_is_read(token):
    event = sender_to("http://127.0.0.1:1").parse_status("", f"Bearer {token}", RECEIPT)

    assert (event.attempt_ref, event.provider_id, event.status) == ("attempt-1", SECRET, DeliveryStatus.DELIVERED)
    assert (event.status_raw, event.error_code) == ("delivered", None)


def test_a_failure_keeps_its_word_as_the_code():
    event = sender_to("http://127.0.0.1:1").parse_status(
        "", f"Bearer {TOKEN}", RECEIPT | {"status": "permanent-failure"}
    )

    assert (event.status, event.error_code) == (DeliveryStatus.FAILED, "permanent-failure")


@pytest.mark.parametrize(
    ("bearer", "form", "code"),
    [
        ("", RECEIPT, Code.BAD_SIGNATURE),
        (TOKEN, RECEIPT, Code.BAD_SIGNATURE),
        ("Bearer another", RECEIPT, Code.BAD_SIGNATURE),
        ("Bearer £", RECEIPT, Code.BAD_SIGNATURE),
        (f"Bearer {TOKEN}", RECEIPT | {"reference": ""}, Code.BAD_INPUT),
        (f"Bearer {TOKEN}", {"reference": "attempt-1"}, Code.BAD_INPUT),
    ],
)
def test_a_forged_or_senseless_receipt_is_refused(bearer, form, code):
    with pytest.raises(ServiceError) as refused:
        sender_to("http://127.0.0.1:1").parse_status("", bearer, form)
    assert refused.value.code is code


def test_only_one_word_means_delivered_and_every_failure_has_its_word():
    assert [word for word, status in STATUS.items() if status is DeliveryStatus.DELIVERED] == ["delivered"]
    assert {word for word, status in STATUS.items() if status is DeliveryStatus.FAILED} == FAILURES


# ── Notify's own shapes ──────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def openapi():
    plain = json.loads(DESCRIPTION.read_text(encoding="utf-8"))
    loopback = {"url": "http://127.0.0.1:{port}", "variables": {"port": {"default": "80"}}}
    return OpenAPI.from_dict({**plain, "servers": [loopback]})


@pytest.fixture
def exchanges():
    return []


def listening(sender, exchanges):
    sender.http.hooks["response"].append(lambda answer, **_: exchanges.append(answer))
    return sender


def judge(openapi, exchanges, many):
    assert len(exchanges) == many
    for answer in exchanges:
        asked = RequestsOpenAPIRequest(answer.request)
        openapi.validate_request(asked)
        openapi.validate_response(asked, RequestsOpenAPIResponse(answer))


def test_every_call_we_make_and_every_answer_of_the_stand_in_is_notifys(notify, openapi, exchanges):
    _, sender = notify()
    listening(sender, exchanges)
    accepted = sender.send(TEXT)
    sender.find(TEXT)
    sender.status(accepted.provider_id)
    sender.texted_since(datetime.now(UTC) - timedelta(hours=1))
    with pytest.raises(Refused):
        sender.status(SECRET)
    with pytest.raises(Refused):
        sender.send(OutgoingText("attempt-2", "+353850000000", TEXT.body))

    judge(openapi, exchanges, 8)  # the look at the template, and a second page that is empty


@pytest.mark.parametrize("code", [30003, 30005])
def test_the_receipt_of_an_end_has_the_documented_members_and_is_read(notify, openapi, served, code):
    heard = []

    async def receive(request):
        heard.append((request.headers["authorization"], await request.json()))
        return Answer(status_code=204)

    server, thread, url = serve(Starlette(routes=[Route("/r", receive, methods=["POST"])]))
    served.append((server, thread))
    provider, sender = notify(forced={TO: code}, step_seconds=0, receipts=f"{url}/r", receipt_token=TOKEN)
    sender.send(TEXT)
    for _ in range(500):
        if heard and not provider.going:
            break
        sender.find(TEXT)
    server.should_exit = True

    [(bearer, told)] = heard
    event = sender.parse_status("", bearer, {name: str(value) for name, value in told.items()})
    shape = json.loads(DESCRIPTION.read_text(encoding="utf-8"))["components"]["schemas"]["receipt"]
    assert told.keys() == set(shape["required"])
    assert told["status"] in shape["properties"]["status"]["enum"]
    assert (event.attempt_ref, event.status) == ("attempt-1", DeliveryStatus.FAILED)


def test_the_judge_does_refuse_a_wrong_request_and_a_wrong_answer(notify, openapi, exchanges):
    _, sender = notify()
    listening(sender, exchanges).send(TEXT)
    sent = exchanges[-1]
    asked = RequestsOpenAPIRequest(sent.request)
    sent._content = sent.content.replace(b'"from_number"', b'"from"')
    with pytest.raises(OpenAPIError):
        openapi.validate_response(asked, RequestsOpenAPIResponse(sent))
    sent.request.body = sent.request.body.replace('"template_id"', '"template"')
    with pytest.raises(OpenAPIError):
        openapi.validate_request(RequestsOpenAPIRequest(sent.request))
