"""Yesterday's backup, restored over a day of sending: judged by the provider's ledger (FEATURES 80; H29)."""

import json
from collections import Counter
from datetime import timedelta

import pytest
from sqlmodel import col, select

from app.database import begin_on
from app.demo.notify_provider import NotifyProvider
from app.demo.sms_provider import SmsProvider
from flows.notify_residents import RUNS_KEY, send_due_texts
from integrations.ports import OutgoingText
from integrations.texts.govuk_notify import GovukNotifySender
from integrations.texts.twilio import TwilioSender
from models.actions.text import claim_texts
from models.actions.text_switch import caught_up, restored_from
from models.rules.clinic import CaseKind
from models.tables.kit import Kit
from models.tables.person import Contact
from models.tables.service import Installation
from models.tables.text import Text, TextState
from tests.integrations.texts.conftest import ACCOUNT, MESSAGING_SERVICE, NOBODY, TOKEN, serve
from tests.support import build
from tests.support.fake_sender import FakeSender
from tests.support.memory_store import MemoryStore
from tests.support.postgres import fresh_database
from tests.support.texts import (
    ACTOR,
    NOW,
    cases,
    fresh,
    hold_mobile,
    notify,
    owe,
    owed_journey_text,
    owed_result,
    pass_machine_time,
    tools,
)

SECRET = "11111111-2222-4333-8444-555555555555"


@pytest.fixture(params=["twilio", "govuk_notify"])
def world(request, tmp_path):
    """A provider that keeps a ledger, and the sender that speaks to it."""
    options = {"ledger": tmp_path / "ledger.jsonl", "step_seconds": 0.0}
    if request.param == "twilio":
        provider = SmsProvider(auth_token=TOKEN, **options)
    else:
        provider = NotifyProvider(auth_token=SECRET, **options)
    server, thread, url = serve(provider.app)
    if request.param == "twilio":
        sender = TwilioSender(account_sid=ACCOUNT, auth_token=TOKEN, messaging_service_sid=MESSAGING_SERVICE,
                              public_base_url=NOBODY, base_url=url)  # fmt: skip
    else:
        sender = GovukNotifySender(api_key=provider.api_key, template_id=provider.template_id, callback_token=SECRET,
                                   base_url=url)  # fmt: skip
    yield provider, sender
    session = getattr(sender.http, "session", sender.http)
    session.close()
    server.should_exit = True
    thread.join(5)


def run_for_hours(begin, sender, outside, hours):
    tallies = []
    for hour in range(hours):
        tallies.append(
            send_due_texts(notify(begin, sender, now=NOW + timedelta(hours=hour), outside=outside), limit=99)
        )
        pass_machine_time(begin, minutes=31)
    return tallies


def number_of(begin, text):
    with begin() as session:
        contact = session.exec(select(Contact).where(col(Contact.id) == text.contact_id)).one()
        return build.cipher().decrypt("contact", "mobile", contact.ref, contact.mobile)


def owe_in_the_lost_day(begin, kit_id):
    """A result that comes after the backup, told by the day that is lost and found again by the restored database."""
    with begin() as session:
        return owe(session, session.exec(select(Kit).where(col(Kit.id) == kit_id)).one())


def test_a_restored_backup_texts_nobody_again_and_leaves_whoever_may_be_told_to_the_clinic(db, begin, world):
    provider, sender = world
    outside = MemoryStore()
    with begin() as session:
        told = owed_result(session)
    run_for_hours(begin, sender, outside, 2)
    with begin() as session:
        calling, owed, journey = owed_result(session), owed_result(session), owed_journey_text(session)
        later_kit = build.dispatched_kit(session).id
        kit = session.exec(select(Kit).where(col(Kit.id) == later_kit)).one()
        hold_mobile(session, session.exec(select(Contact).where(col(Contact.id) == kit.contact_id)).one())
    box = tools(begin, provider=sender.name)
    with begin() as session:  # the moment of the backup: one text is claimed, its call has not begun
        claimed = claim_texts(session, service_id="larkfield", limit=1, now=NOW, tools=box, actor=ACTOR).claimed[0]
    db.engine.dispose()
    with fresh_database(db.name) as backup:
        # The day that is lost: the claimed call is made, the others leave, a result comes, is told and blanked.
        sender.send(OutgoingText(claimed.attempt_ref, claimed.to_e164, claimed.body))
        owe_in_the_lost_day(begin, later_kit)
        pass_machine_time(begin, minutes=3)
        run_for_hours(begin, sender, outside, 3)
        before = Counter(message.to for message in provider.messages.values())
        assert sorted(before.values()) == [1] * 5

        # The backup, restored; the laboratory's file of the lost day is read again, and one new result comes.
        restored = begin_on(backup.engine)
        again = owe_in_the_lost_day(restored, later_kit)
        with restored() as session:
            new = owed_result(session)
        pass_machine_time(restored, minutes=3)
        tallies = run_for_hours(restored, sender, outside, 5)
        with restored() as session:
            states = {text.id: text.state for text in session.exec(select(Text))}
            caught_up(session, actor="staff:a", because="every case was looked at", now=NOW)
        run_for_hours(restored, sender, outside, 2)

        after = Counter(message.to for message in provider.messages.values())
        assert after - before == Counter([number_of(restored, new)])
        assert max(after.values()) == 1
        assert tallies[0].needs_a_person
        assert [tally.restored for tally in tallies] == [True] * 5
        # Notify finds a call by our reference; Twilio by words that the lost day had already blanked.
        answered = TextState.DELIVERED if sender.name == "govuk_notify" else TextState.HANDED_OVER
        assert states == {
            told.id: TextState.DELIVERED,
            calling.id: answered,
            owed.id: TextState.HANDED_OVER,
            journey.id: TextState.CANCELLED,
            again.id: TextState.HANDED_OVER,
            new.id: TextState.DELIVERED,
        }
        for text in (owed, again):
            assert CaseKind.UNDELIVERED_TEXT in {case.kind for case in cases(restored, text)}


def counted(begin):
    with begin() as session:
        return session.exec(select(Installation.sender_runs)).one()


def test_every_run_is_counted_inside_and_outside_before_anything_is_sent(begin):
    outside = MemoryStore()
    seen = []
    sender = FakeSender(when_called=lambda _: seen.append((counted(begin), json.loads(outside.read(RUNS_KEY)))))
    for _ in range(2):
        with begin() as session:
            owed_result(session)
        send_due_texts(notify(begin, sender, outside=outside), limit=9)

    assert seen == [(1, {"runs": 1}), (2, {"runs": 2})]


def test_a_database_that_counted_as_many_runs_as_the_world_is_not_taken_for_a_backup(begin):
    outside = MemoryStore()
    for _ in range(3):
        assert not send_due_texts(notify(begin, FakeSender(), outside=outside), limit=9).restored


def test_a_run_that_died_between_the_two_counts_is_no_backup_either(begin):
    outside = MemoryStore()
    send_due_texts(notify(begin, FakeSender(), outside=outside), limit=9)
    with begin() as session:
        session.exec(select(Installation)).one().sender_runs += 1

    assert not send_due_texts(notify(begin, FakeSender(), outside=outside), limit=9).restored


def test_a_lost_count_is_treated_as_a_restored_backup(begin):
    send_due_texts(notify(begin, FakeSender(), outside=MemoryStore()), limit=9)

    tally = send_due_texts(notify(begin, FakeSender(), outside=MemoryStore()), limit=9)

    assert tally.restored
    assert tally.needs_a_person


def restore(begin, outside):
    outside.put(RUNS_KEY, json.dumps({"runs": 99}).encode())


def test_a_restored_database_sends_nothing_while_no_provider_says_what_it_took(begin):
    outside, sender = MemoryStore(), FakeSender()
    with begin() as session:
        text = owed_result(session)
    restore(begin, outside)
    sender.mute = True

    tally = send_due_texts(notify(begin, sender, outside=outside), limit=9)

    assert sender.calls["send"] == 0
    assert fresh(begin, text).state is TextState.OWED
    assert tally.needs_a_person


def test_a_provider_that_no_longer_remembers_rules_nobody_out(begin):
    outside, sender = MemoryStore(), FakeSender(remembers=timedelta(0))
    with begin() as session:
        text = owed_result(session)
    restore(begin, outside)

    send_due_texts(notify(begin, sender, outside=outside), limit=9)

    assert sender.calls["send"] == 0
    assert fresh(begin, text).state is TextState.HANDED_OVER
    with begin() as session:
        assert restored_from(session) is not None
