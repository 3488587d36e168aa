"""Cases handed over to a clinic's own record (law 4; H1, H14; issue 6). Everybody here is invented."""

from dataclasses import replace
from datetime import date, timedelta

import pytest
from sqlmodel import col, select

from models.actions import clinic as clinic_acts
from models.actions.casebook import case_view
from models.actions.referral import (
    ClinicSystem,
    claim_rings,
    export_case,
    fetch,
    hear,
    not_rung,
    refer,
    rung,
    waiting_for,
)
from models.rules.clinic import (
    SEEN,
    AttemptResult,
    CaseFacts,
    CaseKind,
    CaseOutcome,
    ClinicSays,
    EndingDetails,
    Step,
    next_step,
)
from models.rules.errors import Code, ServiceError
from models.rules.referral import MOST_RINGS, BellState, ClinicWord, ReferralFor, patience
from models.rules.service import ReferralClinic
from models.rules.staff import Actor, Role
from models.rules.text import TextPurpose
from models.rules.vocabulary import Outcome, Site, Test
from models.rules.working_days import add_working_hours
from models.tables.audit import Audit
from models.tables.clinic import ClinicCase, ClinicWordRow, Referral
from models.tables.text import Text, TextState
from tests.support import build

HARBOUR = ReferralClinic("harbour", "Harbour Clinic", ("5 Harbour Lane", "LS1 4AP"))
COUNCIL = build.service(clinics=(HARBOUR, replace(HARBOUR, id="moor", name="Moor Clinic")))
ANNA = Actor("anna", frozenset({Role.HEALTH_ADVISER}), frozenset({"larkfield"}))
SYSTEM = ClinicSystem("larkfield", "harbour")
BORN = date(1999, 2, 14)
HIV, SYPHILIS = (Test.HIV, Site.BLOOD), (Test.SYPHILIS, Site.BLOOD)
CHLAMYDIA, GONORRHOEA = (Test.CHLAMYDIA, Site.VAGINAL), (Test.GONORRHOEA, Site.VAGINAL)
ALL_NEGATIVE = dict.fromkeys([HIV, SYPHILIS, CHLAMYDIA, GONORRHOEA], Outcome.NEGATIVE)
REACTIVE = ALL_NEGATIVE | {HIV: Outcome.REACTIVE}
POSITIVE = ALL_NEGATIVE | {CHLAMYDIA: Outcome.POSITIVE}
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
NOW = build.NOW


def case_of(session):
    return session.exec(select(ClinicCase).where(ClinicCase.kind != CaseKind.IDENTITY)).one()


def opened(begin, outcomes=REACTIVE):
    with begin() as session:
        build.results(session, build.dispatched_kit(session), outcomes)


def referred(begin, *, has_bell=True, now=NOW + HOUR, **changes):
    with begin() as session:
        case = case_of(session)
        form = {
            "by": ANNA, "version": case.version, "clinic": "harbour", "asked": ReferralFor.CONFIRMATION,
            "message": "Prefers mornings.", "agreed": True, "has_bell": has_bell, "now": now, "service": COUNCIL,
            "cipher": build.cipher(), **changes,
        }  # fmt: skip
        return refer(session, case.ref, **form)


def said(begin, ref, says, *, key="k1", at=NOW + DAY, born=BORN, now=NOW + 2 * DAY, by=SYSTEM):
    with begin() as session:
        return hear(
            session, ClinicWord(ref, says, at, born), key=key, by=by, now=now, service=COUNCIL, cipher=build.cipher()
        )


def due(begin):
    with begin() as session:
        return case_of(session).due_at


@pytest.fixture
def ref(begin):
    """A reactive screen that was handed over."""
    opened(begin)
    return referred(begin)


# ── Handing over ─────────────────────────────────────────────────────────────────────────────


def test_a_referral_leaves_the_case_open_in_the_advisers_hands_and_due_again(begin, ref):
    with begin() as session:
        case = case_of(session)
        assert case.closed_at is None
        assert case.assignee == "staff:anna"
        assert case.due_at >= add_working_hours(NOW + HOUR, 8, COUNCIL.clinic.opens, COUNCIL.clinic.closes)
        [row] = session.exec(select(Referral)).all()
        assert b"mornings" not in row.message
        assert session.exec(select(Audit).where(Audit.action == "case.referred")).one().actor == "staff:anna"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"agreed": False}, Code.BAD_INPUT),
        ({"clinic": "unheardof"}, Code.BAD_INPUT),
        ({"message": "x" * 1001}, Code.BAD_INPUT),
        ({"version": 0}, Code.CONFLICT),
        ({"by": replace(ANNA, roles=frozenset({Role.PACKER}))}, Code.NOT_ALLOWED),
        ({"by": replace(ANNA, service_ids=frozenset({"moorside"}))}, Code.NOT_FOUND),
    ],
)
def test_what_may_not_be_handed_over_is_not(begin, changes, code):
    opened(begin)
    with pytest.raises(ServiceError) as refused:
        referred(begin, **changes)
    assert refused.value.code is code
    with begin() as session:
        assert session.exec(select(Referral)).all() == []


def test_an_export_names_the_person_and_every_result_and_is_audited(begin, ref):
    with begin() as session:
        given = export_case(
            session, case_of(session).ref, by=ANNA, now=NOW + DAY, service=COUNCIL, cipher=build.cipher()
        )
    assert (given.ref, given.given_name, given.born_on, given.clinic) == (ref, "Testina", BORN, "Harbour Clinic")
    assert {(each.test, each.site): each.outcome for each in given.results} == REACTIVE
    assert (given.pending, given.message, given.asked) == ([], "Prefers mornings.", ReferralFor.CONFIRMATION)
    assert "Testina" not in repr(given)
    with begin() as session:
        assert session.exec(select(Audit).where(Audit.action == "case.exported")).one().actor == "staff:anna"


def test_an_export_is_for_who_may_see_whom_it_is_about(begin, ref):
    for role in (Role.LAB_LIAISON, Role.SERVICE_MANAGER, Role.PACKER):
        who = replace(ANNA, roles=frozenset({role}))
        with begin() as session:
            case = case_of(session)
            with pytest.raises(ServiceError) as refused:
                export_case(session, case.ref, by=who, now=NOW, service=COUNCIL, cipher=build.cipher())
        assert refused.value.code is Code.NOT_ALLOWED


# ── The clinic fetches ───────────────────────────────────────────────────────────────────────


def fetched(begin, ref, by=SYSTEM, now=NOW + DAY):
    with begin() as session:
        return fetch(session, ref, by=by, now=now, service=COUNCIL, cipher=build.cipher())


def test_a_clinic_fetches_what_was_made_to_it_and_that_is_its_receipt(begin, ref):
    with begin() as session:
        assert [each.ref for each in waiting_for(session, SYSTEM, limit=9)] == [ref]

    assert fetched(begin, ref).family_name == "Kit"
    fetched(begin, ref, now=NOW + 3 * DAY)

    with begin() as session:
        assert waiting_for(session, SYSTEM, limit=9) == []
        row = session.exec(select(Referral)).one()
        assert (row.fetched_at, row.bell) == (NOW + DAY, BellState.RUNG)
        looks = session.exec(select(Audit.actor).where(Audit.action == "referral.fetched")).all()
    assert looks == ["clinic:larkfield/harbour"] * 2


@pytest.mark.parametrize("by", [ClinicSystem("larkfield", "moor"), ClinicSystem("moorside", "harbour")])
def test_another_clinic_finds_nothing(begin, ref, by):
    with pytest.raises(ServiceError) as refused:
        fetched(begin, ref, by=by)
    assert refused.value.code is Code.NOT_FOUND
    with pytest.raises(ServiceError):
        said(begin, ref, ClinicSays.ATTENDED, by=by)
    with begin() as session:
        assert waiting_for(session, by, limit=9) == []


# ── What the clinic says ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("says", sorted(SEEN))
def test_whoever_was_seen_is_not_chased_and_the_case_stays_open_for_a_persons_outcome(begin, ref, says):
    before = due(begin)

    heard = said(begin, ref, says)

    assert (heard.is_new, heard.of_the_person) == (True, True)
    assert due(begin) > before
    assert due(begin) >= add_working_hours(NOW + 2 * DAY, 24, COUNCIL.clinic.opens, COUNCIL.clinic.closes)
    with begin() as session:
        case = case_of(session)
        assert (case.closed_at, case.escalation) == (None, 0)
        view = case_view(session, case.ref, by=ANNA, now=NOW + 2 * DAY, cipher=build.cipher())
        assert view.facts.clinic_says is says
        assert view.step is Step.CONFIRM, "a reactive still waits for what the sample from the arm said"
        unsent = session.exec(select(Text).where(Text.purpose == TextPurpose.PLEASE_EXPECT_OUR_CALL)).all()
        assert {text.state for text in unsent} == {TextState.CANCELLED}
        treated = {
            "by": ANNA, "version": case.version, "outcome": CaseOutcome.TREATED, "now": NOW + 2 * DAY,
            "service": COUNCIL, "cipher": build.cipher(), "details": EndingDetails(on=date(2026, 11, 25)),
        }  # fmt: skip
        with pytest.raises(ServiceError, match="stays open until a confirmatory outcome"):
            clinic_acts.close_case(session, case.ref, **treated)


def test_whoever_did_not_come_is_due_at_once(begin, ref):
    said(begin, ref, ClinicSays.BOOKED, key="booked", at=NOW + 5 * DAY)
    rested = due(begin)
    assert rested > NOW + 2 * DAY

    said(begin, ref, ClinicSays.DID_NOT_ATTEND, key="no show", at=NOW + 5 * DAY, now=NOW + 5 * DAY)

    assert due(begin) == NOW + 5 * DAY


def test_an_appointment_far_ahead_hides_no_case_for_longer_than_one_may_rest(begin, ref):
    said(begin, ref, ClinicSays.BOOKED, at=NOW + 200 * DAY)

    latest = add_working_hours(NOW + 2 * DAY, 40, COUNCIL.clinic.opens, COUNCIL.clinic.closes)
    assert due(begin) == latest


def test_somebody_who_did_not_come_after_their_case_was_ended_has_an_open_case_again(begin):
    opened(begin, POSITIVE)
    ref = referred(begin, asked=ReferralFor.TREATMENT)
    with begin() as session:
        case = case_of(session)
        clinic_acts.close_case(
            session, case.ref, by=ANNA, version=case.version, outcome=CaseOutcome.TOLD_AND_BOOKED, now=NOW + HOUR,
            service=COUNCIL, cipher=build.cipher(), details=EndingDetails("Harbour Clinic", date(2026, 11, 27)),
        )  # fmt: skip

    said(begin, ref, ClinicSays.DID_NOT_ATTEND, at=NOW + 3 * DAY, now=NOW + 3 * DAY)

    with begin() as session:
        case = case_of(session)
        assert case.closed_at is None
        assert case.due_at <= add_working_hours(NOW + 3 * DAY, 16, COUNCIL.clinic.opens, COUNCIL.clinic.closes)
    said(begin, ref, ClinicSays.ATTENDED, key="came", at=NOW + 4 * DAY, now=NOW + 4 * DAY)
    with begin() as session:
        assert case_of(session).closed_at is None, "only a person ends it"


def test_of_somebody_born_on_another_day_nothing_moves_and_a_clinician_has_the_doubt(begin, ref):
    before = due(begin)

    heard = said(begin, ref, ClinicSays.TREATED, born=date(1999, 2, 15))

    assert not heard.of_the_person
    assert due(begin) == before
    with begin() as session:
        doubt = session.exec(select(ClinicCase).where(ClinicCase.kind == CaseKind.IDENTITY)).one()
        assert (doubt.detail["why"], doubt.owner_role) == ("clinic_means_another", "clinician")
        view = case_view(session, case_of(session).ref, by=ANNA, now=NOW + 2 * DAY, cipher=build.cipher())
        assert view.facts.clinic_says is None
        assert view.referrals[0].said == ()


def test_the_same_word_twice_is_one_and_another_under_its_name_is_a_conflict(begin, ref):
    said(begin, ref, ClinicSays.ATTENDED)
    moved = due(begin)

    again = said(begin, ref, ClinicSays.ATTENDED, now=NOW + 9 * DAY)

    assert (again.is_new, due(begin)) == (False, moved)
    for changes in ({"says": ClinicSays.TREATED}, {"at": NOW + DAY + HOUR}, {"born": date(1999, 2, 15)}):
        with pytest.raises(ServiceError) as refused:
            said(begin, ref, **{"says": ClinicSays.ATTENDED, **changes})
        assert refused.value.code is Code.CONFLICT
    with begin() as session:
        assert len(session.exec(select(ClinicWordRow)).all()) == 1


def test_a_late_word_of_something_earlier_moves_nothing(begin, ref):
    said(begin, ref, ClinicSays.ATTENDED, key="came", at=NOW + 2 * DAY)
    moved = due(begin)

    said(begin, ref, ClinicSays.DID_NOT_ATTEND, key="first", at=NOW + DAY, now=NOW + 3 * DAY)

    assert due(begin) == moved


def test_what_has_not_happened_yet_is_refused(begin, ref):
    with pytest.raises(ServiceError) as refused:
        said(begin, ref, ClinicSays.TREATED, at=NOW + 9 * DAY)
    assert refused.value.code is Code.BAD_INPUT


def test_news_from_the_lab_outdates_what_the_clinic_said(begin, ref):
    said(begin, ref, ClinicSays.TREATED)
    with begin() as session:
        kit = session.get_one(build.Kit, case_of(session).kit_id)
        build.results(session, kit, {SYPHILIS: Outcome.REACTIVE}, at=NOW + 4 * DAY)
    with begin() as session:
        view = case_view(session, case_of(session).ref, by=ANNA, now=NOW + 4 * DAY, cipher=build.cipher())
    assert view.facts.clinic_says is None


# ── The step that policy recommends ──────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("items", "says", "step"),
    [
        ({(Test.CHLAMYDIA, Outcome.POSITIVE)}, ClinicSays.TREATED, Step.END),
        ({(Test.CHLAMYDIA, Outcome.POSITIVE)}, ClinicSays.ATTENDED, Step.TREAT),
        ({(Test.CHLAMYDIA, Outcome.POSITIVE)}, ClinicSays.BOOKED, Step.RING),
        ({(Test.CHLAMYDIA, Outcome.POSITIVE)}, ClinicSays.DID_NOT_ATTEND, Step.RING),
        ({(Test.HIV, Outcome.REACTIVE)}, ClinicSays.TREATED, Step.CONFIRM),
    ],
)
def test_whoever_was_seen_is_never_to_be_rung(items, says, step):
    facts = CaseFacts(
        kind=CaseKind.POSITIVE, items=frozenset(items), attempts={}, confirmed={}, text_consent=True,
        voicemail_consent=True, letter_consent=True, clinic_says=says,
    )  # fmt: skip
    assert next_step(facts) is step
    assert AttemptResult.SPOKE not in facts.attempts


# ── The bell ─────────────────────────────────────────────────────────────────────────────────


def claimed(begin):
    with begin() as session:
        return claim_rings(session, service_id="larkfield", limit=9)


def wait(begin):
    """Every patience ends: machine time can't be moved, so what waits on it is."""
    with begin() as session:
        for row in session.exec(select(Referral)):
            row.ring_at = row.ring_at and row.recorded_at
            row.claimed_until = row.claimed_until and row.recorded_at


def test_a_clinic_is_told_once_and_a_ring_that_was_cut_short_is_rung_again(begin, ref):
    [ring] = claimed(begin)
    assert claimed(begin) == []
    wait(begin)
    assert claimed(begin) == [ring]
    with begin() as session:
        rung(session, ring)
    wait(begin)
    assert claimed(begin) == []


def test_a_clinic_without_a_bell_is_not_rung(begin):
    opened(begin)
    referred(begin, has_bell=False)
    assert claimed(begin) == []


def test_who_does_not_answer_is_rung_ever_more_rarely_for_a_day_and_then_the_case_is_due(begin, ref):
    for number in range(1, MOST_RINGS + 1):
        [ring] = claimed(begin)
        with begin() as session:
            given_up = not_rung(session, ring, "503", for_good=False, now=NOW + 2 * HOUR)
        assert given_up is (number == MOST_RINGS)
        assert claimed(begin) == []
        wait(begin)
    assert due(begin) == NOW + 2 * HOUR
    hours = sum((patience(number) for number in range(1, MOST_RINGS)), timedelta())
    assert timedelta(hours=12) < hours < timedelta(hours=24)


def test_who_refuses_is_not_rung_again_and_the_case_is_due(begin, ref):
    [ring] = claimed(begin)
    with begin() as session:
        assert not_rung(session, ring, "410", for_good=True, now=NOW + 2 * HOUR)
    wait(begin)
    assert claimed(begin) == []
    assert due(begin) == NOW + 2 * HOUR
    with begin() as session:
        assert session.exec(select(Referral.bell).order_by(col(Referral.id))).one() is BellState.GIVEN_UP
