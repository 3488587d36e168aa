"""What the text provider calls back with: checked, kept once, answered, and nothing else."""

import json

import httpx
import pytest
from sqlalchemy import Engine, text
from twilio.request_validator import RequestValidator

from models.tables.inbox import Inbox
from tests.support import build, web

FORM = {
    "MessageSid": "SM" + "1" * 32,
    "MessageStatus": "delivered",
    "To": "+447700900123",
    "From": "",
    "AccountSid": "AC" + "0" * 32,
    "ApiVersion": "2010-04-01",
    "SomethingNew": "tomorrow",
}


def call(site, form=FORM, *, query="a=attempt-1", signed_for=None, signature=None, token=web.TWILIO_TOKEN):
    url = f"{site.url}/callbacks/twilio/status" + (f"?{query}" if query else "")
    made = RequestValidator(token).compute_signature(signed_for or url, form)
    headers = {"X-Twilio-Signature": made if signature is None else signature}
    with httpx.Client(trust_env=False, timeout=30) as provider:
        return provider.post(url, data=form, headers=headers)


def kept(engine: Engine) -> list[dict]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT ref, key, body, state FROM inbox ORDER BY id")).all()
    opened = [json.loads(build.cipher().decrypt("inbox", "body", ref, body)) for ref, _, body, _ in rows]
    return [{"key": row.key, "state": row.state, **body} for row, body in zip(rows, opened, strict=True)]


def test_a_signed_callback_is_kept_whole_and_encrypted_before_it_is_answered(site):
    answer = call(site)

    assert (answer.status_code, answer.content) == (204, b"")
    [stored] = kept(site.db.engine)
    assert stored["key"] == f"attempt-1|{FORM['MessageSid']}|delivered|"
    assert (stored["state"], stored["form"]) == ("waiting", FORM)
    with site.db.engine.connect() as connection:
        assert b"447700900123" not in connection.execute(text("SELECT body FROM inbox")).scalar_one()


def test_the_same_callback_again_is_answered_and_kept_once(site):
    answers = [call(site).status_code for _ in range(3)]

    assert answers == [204, 204, 204]
    assert len(kept(site.db.engine)) == 1


def test_a_callback_is_another_one_when_attempt_message_status_or_error_differ(site):
    call(site)
    call(site, query="a=attempt-2")
    call(site, FORM | {"MessageSid": "SM" + "2" * 32})
    call(site, FORM | {"MessageStatus": "undelivered"})
    call(site, FORM | {"MessageStatus": "undelivered", "ErrorCode": "30005"})

    assert len(kept(site.db.engine)) == 5


def test_a_callback_that_comes_before_its_attempt_is_known_is_kept(site):
    assert call(site, query="a=not-stored-yet").status_code == 204
    assert kept(site.db.engine)[0]["attempt_ref"] == "not-stored-yet"


@pytest.mark.parametrize(
    "wrong",
    [
        {"signature": ""},
        {"signature": "Zm9yZ2Vk"},
        {"token": "f" * 32},
        {"signed_for": "https://elsewhere.example/callbacks/twilio/status?a=attempt-1"},
    ],
)
def test_a_bad_signature_is_refused_with_one_clear_sentence_and_keeps_nothing(site, wrong):
    refused = call(site, **wrong)

    assert refused.status_code == 403
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["detail"] == "The callback is not signed with our Twilio account's token."
    assert kept(site.db.engine) == []


def test_a_changed_or_dropped_field_breaks_the_signature(site):
    url = f"{site.url}/callbacks/twilio/status?a=attempt-1"
    signature = RequestValidator(web.TWILIO_TOKEN).compute_signature(url, FORM)

    for form in (FORM | {"MessageStatus": "failed"}, {k: v for k, v in FORM.items() if v}):
        assert call(site, form, signature=signature).status_code == 403


def test_who_calls_another_host_name_is_judged_by_our_own_address(site):
    path = "/callbacks/twilio/status?a=attempt-1"
    signature = RequestValidator(web.TWILIO_TOKEN).compute_signature(f"http://evil.example{path}", FORM)
    with httpx.Client(trust_env=False, timeout=30) as forger:
        refused = forger.post(
            f"{site.url}{path}",
            data=FORM,
            headers={"X-Twilio-Signature": signature, "Host": "evil.example", "X-Forwarded-Host": "evil.example"},
        )

    assert refused.status_code == 403


@pytest.mark.parametrize("query", ["", "b=1"])
def test_a_signed_callback_that_names_no_attempt_is_refused_with_a_sentence(site, query):
    refused = call(site, query=query)

    assert (refused.status_code, refused.json()["code" if "code" in refused.json() else "title"]) == (422, "bad_input")
    assert kept(site.db.engine) == []


def test_words_too_long_to_be_real_are_refused(site):
    assert call(site, FORM | {"MessageStatus": "x" * 300}).status_code == 422
    assert Inbox.__tablename__ == "inbox"
    assert kept(site.db.engine) == []


def test_a_body_larger_than_any_callback_is_refused_unread(site):
    assert call(site, FORM | {"More": "x" * 300_000}).status_code == 413


# ── GOV.UK Notify ────────────────────────────────────────────────────────────────────────────

RECEIPT = {
    "id": "740e5834-3a29-46b4-9a6f-16142fde533a",
    "reference": "attempt-1",
    "to": "+447700900123",
    "status": "permanent-failure",
    "created_at": "2026-11-24T12:00:00.000000Z",
    "completed_at": "2026-11-24T12:00:02.000000Z",
    "sent_at": None,
    "notification_type": "sms",
    "template_version": 3,
}


def receipt(site, told=RECEIPT, *, bearer=f"Bearer {web.NOTIFY_TOKEN}", content=None):
    with httpx.Client(trust_env=False, timeout=30) as provider:
        return provider.post(
            f"{site.url}/callbacks/notify/status",
            content=json.dumps(told) if content is None else content,
            headers={"Authorization": bearer},
        )


def test_a_receipt_with_our_bearer_is_kept_whole_and_once(site):
    answers = [receipt(site).status_code for _ in range(2)]

    [stored] = kept(site.db.engine)
    assert answers == [204, 204]
    assert stored["key"] == f"attempt-1|{RECEIPT['id']}|permanent-failure|permanent-failure"
    assert stored["status"] == "failed"
    assert stored["form"] == {name: str(value) for name, value in RECEIPT.items() if value is not None}


@pytest.mark.parametrize("bearer", ["", "Bearer another", web.NOTIFY_TOKEN])
def test_a_receipt_without_our_bearer_is_refused_and_keeps_nothing(site, bearer):
    assert receipt(site, bearer=bearer).status_code == 403
    assert kept(site.db.engine) == []


@pytest.mark.parametrize("content", ["", "[]", "{", "\xff", '{"id": "1"}', "null"])
def test_a_receipt_that_can_not_be_read_is_refused_with_a_sentence(site, content):
    assert receipt(site, content=content.encode("latin-1")).status_code == 422
    assert kept(site.db.engine) == []


REPLY = {
    "MessageSid": "SM" + "5" * 32,
    "From": "+447700900123",
    "To": "+447700900999",
    "Body": "STOP",
    "NumMedia": "0",
    "OptOutType": "STOP",
}


def reply(site, form=REPLY, **wrong):
    url = f"{site.url}/callbacks/twilio/message"
    made = RequestValidator(wrong.get("token", web.TWILIO_TOKEN)).compute_signature(url, wrong.get("signed", form))
    with httpx.Client(trust_env=False, timeout=30) as provider:
        return provider.post(url, data=form, headers={"X-Twilio-Signature": made})


def test_a_reply_is_kept_once_encrypted_and_answered_with_silence(site):
    answers = [reply(site) for _ in range(3)]

    assert {(answer.status_code, answer.text) for answer in answers} == {(200, "<Response/>")}
    [stored] = kept(site.db.engine)
    assert stored["key"] == REPLY["MessageSid"]
    assert (stored["from"], stored["body"], stored["provider_word"]) == ("+447700900123", "STOP", "STOP")
    with site.db.engine.connect() as connection:
        assert b"447700900123" not in connection.execute(text("SELECT body FROM inbox")).scalar_one()


@pytest.mark.parametrize("wrong", [{"token": "f" * 32}, {"signed": REPLY | {"Body": "START"}}])
def test_a_forged_reply_is_refused_and_not_kept(site, wrong):
    assert reply(site, **wrong).status_code == 403
    assert kept(site.db.engine) == []


def test_a_reply_without_a_sender_is_refused(site):
    assert reply(site, REPLY | {"From": ""}).status_code == 422


@pytest.mark.parametrize(("bearer", "status", "count"), [(web.NOTIFY_TOKEN, 204, 1), ("another", 403, 0)])
def test_notifys_received_texts_are_kept_when_they_carry_our_bearer(site, bearer, status, count):
    received = {
        "id": "00000000-0000-4000-8000-000000000009",
        "source_number": "447700900123",
        "destination_number": "07700900999",
        "message": "Stopiwch",
        "date_received": "2026-11-24T12:00:00.000000Z",
    }
    with httpx.Client(trust_env=False, timeout=30) as provider:
        url, headers = f"{site.url}/callbacks/notify/message", {"Authorization": f"Bearer {bearer}"}
        answers = {provider.post(url, json=received, headers=headers).status_code for _ in range(2)}

    assert answers == {status}
    assert [(row["from"], row["body"]) for row in kept(site.db.engine)] == [("+447700900123", "Stopiwch")] * count
