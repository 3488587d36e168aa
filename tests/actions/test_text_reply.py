"""Replies: STOP holds everywhere and never tells anybody, the rest is a person's (H5, H24; FEATURES 55, 56)."""

import secrets
from datetime import timedelta

import pytest
from sqlalchemy.exc import ProgrammingError
from sqlmodel import select

from models.actions.inbox import keep_text_reply
from models.actions.text import claim_texts
from models.actions.text_reply import take_replies
from models.actions.text_switch import may_call
from models.rules.clinic import CaseKind, Urgency
from models.rules.release import ReleaseKind
from models.rules.text import TextClass, TextPurpose
from models.rules.vocabulary import Outcome, RefusalKind
from models.tables.clinic import CaseAttempt, ClinicCase
from models.tables.inbox import Inbox, InboxKind, InboxState
from models.tables.kit import Kit, KitTest
from models.tables.person import ChoiceSource, Contact, MobileHolder, TextChoice
from models.tables.release import ReleaseDecision
from models.tables.text import TextState
from tests.support import build
from tests.support.fake_sender import FakeSender
from tests.support.texts import (
    ACTOR,
    NOW,
    fresh,
    hold_mobile,
    notify,
    of_purpose,
    owed_journey_text,
    owed_result,
    tools,
)


def mobile_of(session, text):
    contact = session.get_one(Contact, text.contact_id)
    return build.cipher().decrypt("contact", "mobile", contact.ref, contact.mobile)


def reply(begin, text, body, *, message_id=None, word=""):
    """A reply from the number of a text, kept as the web application keeps it."""
    with begin() as session:
        return keep_text_reply(
            session,
            provider_id=message_id or "SM" + secrets.token_hex(16),
            from_e164=mobile_of(session, text) if text else "+447700900999",
            body=body,
            provider_word=word,
            form={},
            now=NOW,
            cipher=build.cipher(),
            indexes=build.indexes(),
        )


def take(begin, *, now=NOW):
    with begin() as session:
        return take_replies(session, limit=100, now=now, tools=tools(begin), actor=ACTOR)


def claim(begin):
    with begin() as session:
        return claim_texts(session, service_id="larkfield", limit=10, now=NOW, tools=tools(begin), actor=ACTOR)


def everything(begin, table):
    with begin() as session:
        return session.exec(select(table).order_by(table.id)).all()


@pytest.fixture
def owed(begin):
    with begin() as session:
        return owed_result(session)


def test_a_stop_before_the_claim_hands_the_result_to_the_clinic_and_calls_nobody_told(begin, owed):
    reply(begin, owed, "STOP")
    take(begin)

    assert claim(begin).claimed == ()
    assert fresh(begin, owed).state is TextState.HANDED_OVER
    [case] = everything(begin, ClinicCase)
    assert (case.kind, case.detail["why"]) == (CaseKind.UNDELIVERED_TEXT, "no_consent")


def test_a_stop_between_the_claim_and_the_call_is_heard_before_the_call(begin, owed):
    [claimed] = claim(begin).claimed
    reply(begin, owed, "STOP")
    take(begin)

    with begin() as session:
        asked = {"service_id": "larkfield", "text_class": TextClass.RESULT}
        assert not may_call(session, **asked, person_id=claimed.person_id)
        assert may_call(session, **asked, person_id=claimed.person_id + 1)
        assert may_call(session, **asked)


def test_a_stop_that_comes_while_a_batch_is_called_stops_the_next_text_of_that_person(begin):
    from flows.notify_residents import send_due_texts

    with begin() as session:
        first = owed_journey_text(session)
        second = owed_result(session)

    def answer(_):
        if not everything(begin, TextChoice):
            reply(begin, second, "STOP")
            take(begin)

    from integrations.ports import Pace

    sender = FakeSender(when_called=answer, pace=Pace(at_once=1, per_second=1_000_000.0))
    send_due_texts(notify(begin, sender), limit=10)
    send_due_texts(notify(begin, sender, now=NOW + timedelta(hours=1)), limit=10)

    assert fresh(begin, first).state is TextState.ACCEPTED
    assert fresh(begin, second).state in {TextState.OWED, TextState.HANDED_OVER}
    assert len(sender.ledger) == 1


def test_whoever_opted_out_gets_a_clinician_instead_of_a_text_when_the_result_comes(begin):
    with begin() as session:
        text = owed_journey_text(session)
    reply(begin, text, "stop")
    take(begin)

    with begin() as session:
        kit = session.get_one(Kit, text.kit_id)
        asked = session.exec(select(KitTest).where(KitTest.kit_id == kit.id))
        build.results(session, kit, {(each.test, each.site): Outcome.NEGATIVE for each in asked})
    kinds = [ReleaseKind(decision.kind) for decision in everything(begin, ReleaseDecision)]
    assert ReleaseKind.ALL_CLEAR not in kinds
    assert of_purpose(begin, text, TextPurpose.ALL_CLEAR) == []
    assert [case.kit_id for case in everything(begin, ClinicCase)] == [text.kit_id]


def test_start_lets_texts_leave_again(begin, owed):
    for word in ("STOP", "STOP", "START", "START"):
        reply(begin, owed, word)
    take(begin)

    assert [row.choice for row in everything(begin, TextChoice)] == ["opt_out", "opt_in"]
    assert len(claim(begin).claimed) == 1


def test_a_refusal_that_says_opted_out_is_remembered_for_every_later_order(begin, owed):
    from flows.notify_residents import send_due_texts
    from integrations.ports import Refused

    sender = FakeSender()
    sender.troubles.append(Refused("21610", RefusalKind.OPTED_OUT))
    send_due_texts(notify(begin, sender), limit=10)

    [choice] = everything(begin, TextChoice)
    assert (choice.choice, choice.source) == ("opt_out", ChoiceSource.PROVIDER)


def test_no_choice_can_be_rewritten_by_the_product(begin, owed):
    reply(begin, owed, "STOP")
    take(begin)
    with pytest.raises(ProgrammingError, match="permission denied"), begin() as session:
        session.connection().exec_driver_sql("UPDATE text_choice SET choice = 'opt_in'")


def test_a_question_opens_a_case_whose_note_holds_the_words_encrypted(begin, owed):
    reply(begin, owed, "Can somebody ring me after five?")
    reply(begin, owed, "It is about my order")
    take(begin)

    [case] = everything(begin, ClinicCase)
    assert (case.kind, case.urgency, case.order_id) == (CaseKind.REPLY, Urgency.SOON, owed.order_id)
    notes = everything(begin, CaseAttempt)
    assert [build.cipher().decrypt("case_attempt", "note", note.ref, note.note) for note in notes] == [
        "Can somebody ring me after five?",
        "It is about my order",
    ]
    assert case.version == 3  # a page drawn before either reply is refused


def test_distress_is_due_with_the_most_urgent_even_beside_an_open_question(begin, owed):
    reply(begin, owed, "When do I hear?")
    reply(begin, owed, "I can't cope, I want to die")
    take(begin)

    question, distress = everything(begin, ClinicCase)
    assert (question.urgency, distress.urgency) == (Urgency.SOON, Urgency.URGENT)
    assert distress.due_at <= question.due_at
    assert fresh(begin, owed).state is TextState.OWED  # a result that is owed still leaves


def test_a_reply_after_the_case_was_closed_opens_it_again(begin, owed):
    reply(begin, owed, "Can you ring me?")
    take(begin)
    with begin() as session:
        case = session.exec(select(ClinicCase)).one()
        case.closed_at, case.closed_by, case.outcome = NOW, "staff:x", "told_no_action"
    reply(begin, owed, "Still nobody rang")
    take(begin)

    [case] = everything(begin, ClinicCase)
    assert case.closed_at is None


def test_distress_after_its_case_was_closed_is_as_urgent_as_the_first_time(begin, owed):
    reply(begin, owed, "I want to die")
    take(begin)
    with begin() as session:
        case = session.exec(select(ClinicCase)).one()
        first_due = case.due_at
        case.closed_at, case.closed_by, case.outcome = NOW, "staff:x", "referred"
        case.urgency, case.due_at = Urgency.ROUTINE, NOW + timedelta(days=9)
    reply(begin, owed, "I still want to die")
    take(begin)

    [case] = everything(begin, ClinicCase)
    assert (case.closed_at, case.urgency, case.due_at) == (None, Urgency.URGENT, first_due)


def test_new_words_end_the_rest_of_a_case(begin, owed):
    reply(begin, owed, "Ring me next week please")
    take(begin)
    with begin() as session:
        case = session.exec(select(ClinicCase)).one()
        first_due, case.due_at = case.due_at, NOW + timedelta(days=7)
    reply(begin, owed, "Sorry, can you ring today?")
    take(begin)

    [case] = everything(begin, ClinicCase)
    assert case.due_at == first_due


def test_who_is_this_freezes_the_number_and_goes_to_a_person(begin, owed):
    reply(begin, owed, "Who is this??")
    take(begin)

    assert [holder.frozen_at for holder in everything(begin, MobileHolder)] == [NOW]
    assert claim(begin).claimed == ()
    assert {case.kind for case in everything(begin, ClinicCase)} == {CaseKind.REPLY, CaseKind.UNDELIVERED_TEXT}


def test_thanks_are_read_and_need_nobody(begin, owed):
    reply(begin, owed, "Thank you!")

    assert take(begin)[1] == {"reply_thanks": 1}
    assert everything(begin, ClinicCase) == []


def test_the_same_reply_twice_is_read_once_and_a_shuffled_pair_is_read_as_it_came(begin, owed):
    assert reply(begin, owed, "Ring me", message_id="SM1")
    assert not reply(begin, owed, "Ring me", message_id="SM1")
    take(begin)

    assert take(begin)[0] == 0
    assert len(everything(begin, CaseAttempt)) == 1


def test_a_question_from_a_number_that_nobody_holds_is_kept_for_whoever_runs_the_service(begin, owed):
    reply(begin, None, "Is this the clinic?")
    reply(begin, None, "STOP")
    _, counts = take(begin)

    assert counts["alarm"] == 1
    assert [(row.state, row.reason) for row in everything(begin, Inbox) if row.kind is InboxKind.TEXT_REPLY] == [
        (InboxState.FAILED, "unknown_number"),
        (InboxState.DONE, ""),
    ]


def test_a_number_that_two_services_know_is_silenced_in_both(begin, owed):
    with begin() as session:
        of = build.person(session, service_id="elsewhere")
        mobile = mobile_of(session, owed)
        to = build.contact(session, of, mobile=mobile)
        hold_mobile(session, to)
    reply(begin, owed, "STOP")
    with begin() as session:
        both = tools(begin, build.service(), build.service(id="elsewhere"))
        take_replies(session, limit=10, now=NOW, tools=both, actor=ACTOR)

    assert {row.service_id for row in everything(begin, TextChoice)} == {"larkfield", "elsewhere"}
