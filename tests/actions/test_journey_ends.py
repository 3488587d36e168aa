"""It takes longer than usual, and it is time to order again: the two texts that no result decides alone."""

from datetime import date, timedelta

import pytest
from sqlmodel import select

from models.actions.owed import stop_retest_texts
from models.actions.release import expire_holds
from models.rules.clinic import CaseKind, CaseOutcome
from models.rules.text import TextClass, TextPurpose, read_values, window_of
from models.rules.vocabulary import Outcome, Site, Test
from models.rules.working_days import london_day
from models.tables.clinic import ClinicCase
from models.tables.kit import Kit, KitTest
from models.tables.person import ChoiceOfTexts, ChoiceSource, SafeguardingNote, TextChoice
from models.tables.text import Text, TextState
from tests.actions.test_clinic import close
from tests.support import build
from tests.support.texts import NOW, hold_mobile, services

CHLAMYDIA, GONORRHOEA = (Test.CHLAMYDIA, Site.VAGINAL), (Test.GONORRHOEA, Site.VAGINAL)
YOUNG, OLDER = date(2004, 5, 6), date(2001, 11, 24)


def sent_out(session, *, born=YOUNG, outcomes=None, **contact):
    of = build.person(session, date_of_birth=born.isoformat())
    to = build.contact(session, of, **contact)
    hold_mobile(session, to)
    kit = build.dispatched_kit(session, of=of, to=to)
    asked = [(each.test, each.site) for each in session.exec(select(KitTest).where(KitTest.kit_id == kit.id))]
    build.results(session, kit, outcomes or {each: Outcome.POSITIVE if each[0] is Test.CHLAMYDIA else Outcome.NEGATIVE
                                             for each in asked})  # fmt: skip
    return kit


def texts_of(begin, purpose):
    with begin() as session:
        return session.exec(select(Text).where(Text.purpose == purpose).order_by(Text.id)).all()


def treat(begin, kit):
    with begin() as session:
        ref = session.exec(select(ClinicCase.ref).where(ClinicCase.kit_id == kit.id)).one()
    close(begin, ref, CaseOutcome.TREATED)


def said(text):
    return read_values(text.purpose, build.cipher().decrypt("text", "values", text.ref, text.values))


def test_a_young_person_treated_for_chlamydia_is_asked_to_order_again_about_three_months_later(begin):
    with begin() as session:
        kit = sent_out(session)
    treat(begin, kit)

    [text] = texts_of(begin, TextPurpose.RETEST_DUE)
    assert (text.kit_id, text.order_id, text.state) == (None, kit.order_id, TextState.OWED)
    assert timedelta(days=90) < text.not_before - NOW < timedelta(days=93)
    assert window_of(text.purpose, build.service().texts) == build.service().texts.routine_window


@pytest.mark.parametrize(
    "why", ["aged 25 that day", "no texts", "said STOP", "safeguarding note", "service never asks"]
)
def test_nobody_else_is_asked_to_order_again(begin, why, monkeypatch):
    with begin() as session:
        kit = sent_out(session, born=OLDER if why == "aged 25 that day" else YOUNG, text_consent=why != "no texts")
        person = {"service_id": "larkfield", "person_id": kit.person_id}
        if why == "said STOP":
            session.add(TextChoice(**person, choice=ChoiceOfTexts.OPT_OUT, source=ChoiceSource.REPLY, occurred_at=NOW))
        if why == "safeguarding note":
            session.add(SafeguardingNote(**person, order_id=kit.order_id, ref="0" * 32, flags=1, note=b"sealed"))
    if why == "service never asks":
        never = build.service(texts=type(build.service().texts)(retest_after_days=0))
        monkeypatch.setattr(build, "service", lambda: never)
    treat(begin, kit)

    assert texts_of(begin, TextPurpose.RETEST_DUE) == []


def test_a_new_order_stops_the_text_that_asks_for_one(begin):
    with begin() as session:
        kit = sent_out(session)
    treat(begin, kit)
    with begin() as session:
        stop_retest_texts(session, kit.person_id + 1, now=NOW)
    assert [text.state for text in texts_of(begin, TextPurpose.RETEST_DUE)] == [TextState.OWED]
    with begin() as session:
        stop_retest_texts(session, kit.person_id, now=NOW)

    [text] = texts_of(begin, TextPurpose.RETEST_DUE)
    assert (text.state, text.cancelled_because) == (TextState.CANCELLED, "ordered_again")


def expire(begin, now):
    with begin() as session:
        return expire_holds(
            session, limit=10, now=now, actor="flow:test", services=services(begin), cipher=build.cipher()
        )


def test_a_wait_that_is_over_tells_the_resident_once_that_it_takes_longer_and_until_when(begin):
    with begin() as session:
        sent_out(session, outcomes={CHLAMYDIA: Outcome.NEGATIVE})
    later = NOW + timedelta(days=30)
    expire(begin, later)
    expire(begin, later + timedelta(days=30))

    [text] = texts_of(begin, TextPurpose.DELAYED)
    with begin() as session:
        [case] = session.exec(select(ClinicCase).where(ClinicCase.kind == CaseKind.RESULTS_OVERDUE)).all()
    assert said(text).by_on == london_day(case.due_at)


def test_whoever_wants_no_texts_is_not_told_of_a_delay(begin):
    with begin() as session:
        sent_out(session, outcomes={CHLAMYDIA: Outcome.NEGATIVE}, text_consent=False)
    expire(begin, NOW + timedelta(days=30))

    assert texts_of(begin, TextPurpose.DELAYED) == []


def test_an_answer_stops_an_unsent_word_of_delay(begin):
    with begin() as session:
        kit = sent_out(session, outcomes={CHLAMYDIA: Outcome.NEGATIVE})
    expire(begin, NOW + timedelta(days=30))
    with begin() as session:
        asked = [(each.test, each.site) for each in session.exec(select(KitTest).where(KitTest.kit_id == kit.id))]
        kit = session.get_one(Kit, kit.id)
        build.results(session, kit, {each: Outcome.NEGATIVE for each in asked if each != CHLAMYDIA})

    assert [text.state for text in texts_of(begin, TextPurpose.DELAYED)] == [TextState.CANCELLED]


def test_both_are_of_the_routine_class():
    from models.rules.text import CLASS_OF

    assert {CLASS_OF[TextPurpose.DELAYED], CLASS_OF[TextPurpose.RETEST_DUE]} == {TextClass.ROUTINE}
