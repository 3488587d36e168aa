"""Openness with whoever was told a result that turned out wrong (H3; law 6). Everybody here is invented."""

from datetime import date, timedelta

import pytest
from sqlmodel import select

from models.actions import clinic
from models.actions.candour import candour_of, record_candour, sign_candour, state_of
from models.rules.candour import Candour, Harm
from models.rules.clinic import AttemptResult, CaseKind, CaseOutcome, EndingDetails, IdentityCheck
from models.rules.errors import Code, ServiceError
from models.rules.staff import Actor, Role
from models.rules.text import TextPurpose
from models.rules.treatment import Treatment
from models.rules.vocabulary import Outcome, Site, Test
from models.tables.audit import Audit
from models.tables.clinic import CaseCandour, ClinicCase
from models.tables.text import Text
from tests.support import build

HIV, SYPHILIS = (Test.HIV, Site.BLOOD), (Test.SYPHILIS, Site.BLOOD)
CHLAMYDIA, GONORRHOEA = (Test.CHLAMYDIA, Site.VAGINAL), (Test.GONORRHOEA, Site.VAGINAL)
ALL_NEGATIVE = dict.fromkeys([HIV, SYPHILIS, CHLAMYDIA, GONORRHOEA], Outcome.NEGATIVE)
ANNA = Actor("anna", frozenset({Role.HEALTH_ADVISER}), frozenset({"larkfield"}))
SIAN = Actor("sian", frozenset({Role.SENIOR_HEALTH_ADVISER}), frozenset({"larkfield"}))
DORA = Actor("dora", frozenset({Role.CLINICIAN}), frozenset({"larkfield"}))
SAID = frozenset({IdentityCheck.FULL_NAME, IdentityCheck.DATE_OF_BIRTH})
LATER = build.NOW + timedelta(days=2)
TREATED = EndingDetails("", date(2026, 11, 26), Treatment.IN_CLINIC)


def corrected(begin, *, told=True):
    """An all-clear that left, or did not, and then a positive."""
    with begin() as session:
        kit = build.dispatched_kit(session)
        build.results(session, kit, ALL_NEGATIVE)
        kit_id = kit.id
    if told:
        build.texts_left(begin)
    with begin() as session:
        kit = session.get_one(build.Kit, kit_id)
        build.results(session, kit, {CHLAMYDIA: Outcome.POSITIVE}, at=LATER)


def act(begin, function, *, by=ANNA, now=LATER, **form):
    with begin() as session:
        case = session.exec(select(ClinicCase)).one()
        return function(session, case.ref, by=by, version=case.version, now=now, **form)


def spoke(begin, now=LATER):
    act(
        begin, clinic.record_attempt, result=AttemptResult.SPOKE, note="", service=build.service(), now=now,
        cipher=build.cipher(), indexes=build.indexes(), identity=SAID,
    )  # fmt: skip


def wrote(begin, by=ANNA, **changes):
    form = {
        "account": "We told her all clear, and it was not.", "harm": Harm.POSSIBLE, "apologised": True,
        "offered_in_writing": True, "cipher": build.cipher(), **changes,
    }  # fmt: skip
    act(begin, record_candour, by=by, **form)


def end(begin, by=DORA, outcome=CaseOutcome.TREATED, details=TREATED):
    return act(
        begin, clinic.close_case, by=by, outcome=outcome, service=build.service(), cipher=build.cipher(),
        details=details,
    )  # fmt: skip


def state(begin):
    with begin() as session:
        case = session.exec(select(ClinicCase)).one()
        return state_of(session, case)


def refused(code, does, *args, **form):
    with pytest.raises(ServiceError) as told:
        does(*args, **form)
    assert told.value.code is code
    return told.value.message


def test_a_case_about_a_result_that_was_told_wrong_ends_only_after_two_people(begin):
    corrected(begin)
    assert state(begin) is Candour.MISSING
    assert "record first what you said" in refused(Code.NOT_NOW, end, begin)
    spoke(begin)
    wrote(begin)
    assert state(begin) is Candour.WRITTEN
    assert "second person's signature" in refused(Code.NOT_NOW, end, begin)

    act(begin, sign_candour, by=SIAN)

    assert state(begin) is Candour.SIGNED
    end(begin)
    with begin() as session:
        case = session.exec(select(ClinicCase)).one()
        assert (case.kind, case.outcome) == (CaseKind.CORRECTION, CaseOutcome.TREATED)
        [line] = candour_of(session, case, build.cipher())
        assert (line.account, line.signed_by, line.counts) == (
            "We told her all clear, and it was not.", "staff:sian", True,
        )  # fmt: skip
        assert b"all clear" not in session.exec(select(CaseCandour)).one().account
        acts = session.exec(select(Audit.actor).where(Audit.action == "case.candour_signed")).all()
        assert acts == ["staff:sian"]


def test_nobody_signs_their_own_account_and_an_adviser_signs_none(begin):
    corrected(begin)
    spoke(begin)
    act(begin, clinic.hand_back, by=ANNA)
    wrote(begin, by=SIAN)
    assert "A second person signs" in refused(Code.NOT_NOW, act, begin, sign_candour, by=SIAN)
    refused(Code.NOT_ALLOWED, act, begin, sign_candour, by=ANNA)
    act(begin, sign_candour, by=DORA)
    assert "Nothing waits" in refused(Code.NOT_NOW, act, begin, sign_candour, by=DORA)


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"apologised": False}, "Say sorry first"), ({"account": " "}, "Say what was wrong"),
     ({"account": "x" * 2001}, "Say what was wrong")],
)  # fmt: skip
def test_an_account_says_what_was_wrong_and_sorry(begin, changes, says):
    corrected(begin)
    spoke(begin)
    assert says in refused(Code.BAD_INPUT, wrote, begin, **changes)


def test_an_account_is_of_a_talk_after_the_news(begin):
    corrected(begin)
    assert "Record first that you spoke" in refused(Code.NOT_NOW, wrote, begin)


def test_where_nobody_was_told_nothing_is_owed(begin):
    corrected(begin, told=False)
    assert state(begin) is Candour.NOT_NEEDED
    refused(Code.NOT_NOW, wrote, begin)
    spoke(begin)
    end(begin, by=ANNA)


def test_who_was_told_by_phone_was_told(begin):
    with begin() as session:
        kit = build.dispatched_kit(session)
        build.results(session, kit, ALL_NEGATIVE | {CHLAMYDIA: Outcome.POSITIVE})
        kit_id = kit.id
    spoke(begin, now=build.NOW + timedelta(hours=1))
    with begin() as session:
        assert session.exec(select(Text).where(Text.purpose == TextPurpose.ALL_CLEAR)).all() == []
        build.results(session, session.get_one(build.Kit, kit_id), {CHLAMYDIA: Outcome.NEGATIVE}, at=LATER)
    assert state(begin) is Candour.MISSING


def test_news_after_an_account_needs_another(begin):
    corrected(begin)
    spoke(begin)
    wrote(begin)
    act(begin, sign_candour, by=SIAN)
    with begin() as session:
        kit = session.exec(select(build.Kit)).one()
        build.results(session, kit, {CHLAMYDIA: Outcome.NEGATIVE}, at=LATER + timedelta(days=1))
    assert state(begin) is Candour.MISSING
