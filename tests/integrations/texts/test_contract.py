"""Our requests and the stand-in's answers, both judged by Twilio's own published description (ruling 20)."""

import json
from pathlib import Path

import pytest
import requests
from openapi_core import OpenAPI
from openapi_core.contrib.requests import RequestsOpenAPIRequest, RequestsOpenAPIResponse
from openapi_core.exceptions import OpenAPIError

from integrations.ports import OutgoingText, Unsure

DESCRIPTION = Path(__file__).parents[2] / "contract" / "twilio_messages_openapi.json"
TO = "+447700900123"
TEXT = OutgoingText("attempt-1", TO, "Harbour Post: mae gennym ddiweddariad i chi. Cyf 7K3F9X")


@pytest.fixture(scope="module")
def openapi():
    """Twilio's description, for a server on any loopback port."""
    plain = json.loads(DESCRIPTION.read_text(encoding="utf-8"))
    for path in plain["paths"].values():
        path.pop("servers", None)
    loopback = {"url": "http://127.0.0.1:{port}", "variables": {"port": {"default": "80"}}}
    return OpenAPI.from_dict({**plain, "servers": [loopback]})


@pytest.fixture
def judge(openapi):
    """Collects what goes over a sender's wire, and holds every exchange against the description."""

    class Judge:
        def __init__(self):
            self.exchanges = []

        def listen(self, sender):
            sender.http.session.hooks["response"].append(lambda answer, **_: self.exchanges.append(answer))

        def check(self, count):
            assert len(self.exchanges) == count
            for answer in self.exchanges:
                asked = RequestsOpenAPIRequest(answer.request)
                openapi.validate_request(asked)
                openapi.validate_response(asked, RequestsOpenAPIResponse(answer))

    return Judge()


def test_every_call_we_make_and_every_answer_of_the_stand_in_is_twilios(standin, sender, judge):
    _, url = standin()
    twilio = sender(url)
    judge.listen(twilio)
    accepted = twilio.send(TEXT)
    assert len(twilio.find(TEXT)) == 1
    twilio.status(accepted.provider_id)
    twilio.redact(accepted.provider_id)
    judge.check(4)


@pytest.mark.parametrize("fault", [30003, 30005, 30006])
def test_a_failed_text_too_is_shown_as_twilio_shows_it(standin, sender, judge, fault):
    provider, url = standin(forced={TO: fault}, step_seconds=0)
    twilio = sender(url)
    sid = twilio.send(TEXT).provider_id
    judge.listen(twilio)
    for _ in range(200):
        if provider.messages[sid].error_code:
            break
        twilio.status(sid)
    assert twilio.status(sid).error_code == str(fault)
    judge.check(len(judge.exchanges))


def test_an_answer_without_an_id_still_has_twilios_shape_so_only_the_id_tells(standin, sender, judge):
    _, url = standin(forced={TO: "no_sid"})
    twilio = sender(url)
    judge.listen(twilio)
    with pytest.raises(Unsure):
        twilio.send(TEXT)
    judge.check(1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("MessagingServiceSid=MG", "MessagingServiceSid=XX"),
        ("ValidityPeriod=36000", "ValidityPeriod=long"),
        ("To=", "Tu="),
    ],
)
def test_the_judge_does_refuse_a_wrong_request(standin, sender, judge, openapi, old, new):
    _, url = standin()
    twilio = sender(url)
    judge.listen(twilio)
    twilio.send(TEXT)
    sent = judge.exchanges[0].request
    assert old in sent.body
    sent.body = sent.body.replace(old, new)
    with pytest.raises(OpenAPIError):
        openapi.validate_request(RequestsOpenAPIRequest(sent))


def test_the_judge_does_refuse_a_wrong_answer(standin, sender, judge, openapi):
    _, url = standin()
    twilio = sender(url)
    judge.listen(twilio)
    twilio.send(TEXT)
    answer: requests.Response = judge.exchanges[0]
    answer._content = answer.content.replace(b'"accepted"', b'"enqueued"')
    with pytest.raises(OpenAPIError):
        openapi.validate_response(RequestsOpenAPIRequest(answer.request), RequestsOpenAPIResponse(answer))
