"""A mobile proved by a code at order time, over HTTP and a real PostgreSQL (H5; FEATURES 53, 54)."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest
from fastapi import FastAPI
from sqlmodel import select

from app.web.api import OrdersApi, orders_router
from app.web.told import load_sentences
from app.web.verifications import VerificationsApi, verifications_router
from app.wiring import TEMPLATES
from integrations.orders import EXAMPLE
from integrations.ports import NotSent, Unsure
from models.actions.text_status import merge_statuses
from models.actions.text_switch import set_class_sending
from models.rules.text import TextClass
from models.rules.verification import CODES_A_DAY, CODES_AN_HOUR, LIFETIME, TRIES
from models.rules.vocabulary import DeliveryStatus
from models.tables.inbox import Inbox, InboxState
from models.tables.person import Contact, MobileVerification
from tests.support import build
from tests.support.fake_sender import FakeSender, WatchedBegin
from tests.support.http import Client
from tests.support.intake import larkfield_intake
from tests.support.texts import callback, catalogue, tools

KEYS = {
    "larkfield/web": "web-key-of-larkfield-0123456789abcdef",
    "larkfield/clinic": "clinic-key-of-larkfield-01234567",
}
MOBILE = EXAMPLE["mobile"]


class Clock:
    now = build.NOW

    def __call__(self):
        return self.now

    def pass_by(self, **time):
        self.now += timedelta(**time)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sender(begin):
    return FakeSender(WatchedBegin(begin))


@pytest.fixture
def channel(begin, clock, sender):
    intake = larkfield_intake(begin)
    application = FastAPI()
    application.include_router(
        verifications_router(
            VerificationsApi(
                sender.watched,
                clock,
                intake,
                KEYS,
                {"fake": sender},
                "fake",
                catalogue().code_words,
                allow_test_numbers=True,
            )
        )
    )
    sentences = load_sentences(TEMPLATES / "pages" / "told.toml")
    application.include_router(orders_router(OrdersApi(begin, clock, intake, sentences, KEYS)))

    def of(name="web"):
        return Client(application, Authorization=f"Bearer {KEYS[f'larkfield/{name}']}")

    return of


@pytest.fixture
def client(channel):
    return channel()


def ask(client, mobile=MOBILE, **more):
    return client.post("/api/verifications", json={"mobile": mobile, **more})


def code_in(sender):
    return re.match(r"\d{6}(?= )", sender.ledger[-1].body).group()


def confirm(client, ref, code):
    return client.post(f"/api/verifications/{ref}/confirm", json={"code": code})


def wrong(code):
    return f"{(int(code) + 1) % 1_000_000:06}"


def order(**changes):
    return {**EXAMPLE, "mobile_proved_at": build.NOW.isoformat(), **changes}


def rows(begin):
    with begin() as session:
        return session.exec(select(MobileVerification).order_by(MobileVerification.id)).all()


def test_a_code_is_texted_at_once_with_its_session_closed_and_is_stored_nowhere(begin, client, sender):
    answer = ask(client)

    [row], [message] = rows(begin), sender.ledger
    assert (answer.status_code, answer.json()["verification_ref"]) == (202, row.ref)
    assert (message.to_e164, message.attempt_ref) == ("+447700900123", row.ref)
    assert code_in(sender).encode() not in row.code_hmac
    assert "code" not in answer.json()


def test_the_right_code_proves_the_number_and_may_be_offered_again(client, sender, clock):
    ref = ask(client).json()["verification_ref"]
    clock.pass_by(minutes=2)
    first = confirm(client, ref, f" {code_in(sender)} ")
    clock.pass_by(hours=2)

    again = confirm(client, ref, code_in(sender))

    assert first.status_code == 200
    assert again.json() == first.json()
    assert confirm(client, ref, wrong(code_in(sender))).status_code == 422


def test_a_code_that_is_wrong_too_often_counts_no_more_even_when_it_is_right(client, sender):
    ref = ask(client).json()["verification_ref"]
    for _ in range(TRIES):
        assert "look at the text again" in confirm(client, ref, wrong(code_in(sender))).json()["detail"]

    assert "ask for a new one" in confirm(client, ref, code_in(sender)).json()["detail"]


def test_a_code_that_is_too_late_proves_nothing(client, sender, clock):
    ref = ask(client).json()["verification_ref"]
    clock.pass_by(seconds=LIFETIME.total_seconds())

    assert confirm(client, ref, code_in(sender)).status_code == 422


def test_another_channel_can_not_offer_a_code_that_it_did_not_ask_for(channel, sender):
    ref = ask(channel("web")).json()["verification_ref"]

    assert confirm(channel("clinic"), ref, code_in(sender)).status_code == 404


def test_without_a_key_nothing_is_sent(client, sender):
    assert client.post("/api/verifications", json={"mobile": MOBILE}, headers={"Authorization": ""}).status_code == 401
    assert sender.ledger == []


@pytest.mark.parametrize("mobile", ["020 7946 0321", "070 1234 5678", "", "07700 90012O"])
def test_a_number_that_is_no_mobile_gets_no_code_and_is_not_quoted(client, sender, mobile):
    answer = ask(client, mobile)

    assert answer.status_code == 422
    assert sender.ledger == []
    assert not mobile or mobile not in answer.text


def test_a_second_code_waits_half_a_minute_and_a_day_has_five(client, sender, clock):
    assert ask(client).status_code == 202
    assert ask(client).status_code == 429
    for _ in range(CODES_A_DAY - 1):
        clock.pass_by(minutes=1)
        assert ask(client).status_code == 202
    clock.pass_by(minutes=1)
    assert ask(client).status_code == 429
    clock.pass_by(days=1)
    assert ask(client).status_code == 202
    assert len(sender.ledger) == CODES_A_DAY + 1


def test_a_leaked_key_can_not_send_a_flood(begin, client, sender):
    with begin() as session:
        session.connection().exec_driver_sql(
            "INSERT INTO mobile_verification (ref, service_id, channel, key_version, digest, code_hmac, state, tries, "
            "provider, provider_id, asked_at, expires_at) SELECT md5(n::text), 'larkfield', 'web', 1, n::text::bytea, "
            "'', 'sent', 0, 'fake', '', %s, %s FROM generate_series(1, %s) n",
            (build.NOW, build.NOW, CODES_AN_HOUR),
        )

    assert ask(client).status_code == 429
    assert sender.ledger == []


def test_a_code_that_certainly_did_not_go_says_so_and_one_that_may_have_gone_still_counts(begin, client, sender, clock):
    sender.troubles.extend([NotSent("no_connection"), Unsure("ReadTimeout")])

    assert ask(client).status_code == 429
    clock.pass_by(minutes=1)
    assert ask(client).status_code == 202
    assert [row.state.value for row in rows(begin)] == ["not_sent", "sent"]
    assert sender.calls["send"] == 2


def test_a_stopped_class_sends_no_code(begin, client, sender):
    with begin() as session:
        set_class_sending(
            session, service_id="larkfield", text_class=TextClass.CODE, stopped=True, actor="staff:a", because="flood",
            now=build.NOW,
        )  # fmt: skip

    assert ask(client).status_code == 429
    assert sender.ledger == []


def test_a_callback_about_a_code_is_no_alarm(begin, client):
    ref = ask(client).json()["verification_ref"]
    with begin() as session:
        callback(session, rows(begin)[0], DeliveryStatus.DELIVERED, attempt_ref=ref)
    with begin() as session:
        _, counts = merge_statuses(session, limit=9, now=build.NOW, tools=tools(begin), actor="flow:test")

    assert counts["alarm"] == 0
    with begin() as session:
        assert session.exec(select(Inbox.state)).one() is InboxState.DONE


def test_an_order_that_names_our_proof_is_believed_by_it_and_not_by_what_the_channel_says(begin, client, sender, clock):
    ref = ask(client).json()["verification_ref"]
    confirm(client, ref, code_in(sender))
    old = (build.NOW - timedelta(days=400)).isoformat()
    clock.pass_by(minutes=5)

    taken = client.post("/api/orders", json=order(mobile_verification_ref=ref, mobile_proved_at=old))

    assert taken.json()["outcome"] == "accepted"
    with begin() as session:
        contact = session.exec(select(Contact)).one()
    assert (contact.mobile_proved_at, contact.mobile_proved_how) == (build.NOW, "one_time_code")


@pytest.mark.parametrize("how", ["not confirmed", "another number", "made up"])
def test_an_order_whose_named_proof_is_not_there_is_refused_whatever_the_channel_says(client, sender, how):
    ref = ask(client, "07700 900124" if how == "another number" else MOBILE).json()["verification_ref"]
    if how == "another number":
        confirm(client, ref, code_in(sender))

    taken = client.post("/api/orders", json=order(mobile_verification_ref="0" * 32 if how == "made up" else ref))

    assert (taken.json()["outcome"], taken.json()["reasons"]) == ("refused", ["mobile_not_proved"])


def test_the_words_of_a_code_are_neutral_short_and_in_both_languages():
    words = catalogue().code_words
    for language in ("en", "cy"):
        body = words("012345", 10, language, replace(build.service(), text_name="Larkfield Post"))
        assert body.startswith("012345 ")
        assert build.service().phone in body
