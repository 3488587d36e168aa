"""The clinic's work on its cases, on the database it runs on."""

import threading
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlmodel import Session, col, select

from app.database import Begin
from models.actions import casebook, clinic
from models.actions.clinic import Ending
from models.actions.owed import OwedCase, owe_cases
from models.rules.clinic import (
    FLOOR_REACTIVE_DAYS,
    IDENTITY_FLOOR,
    AttemptResult,
    CaseKind,
    CaseOutcome,
    Confirmation,
    EndingDetails,
    SnoozeReason,
)
from models.rules.errors import Code, ServiceError
from models.rules.order import OrderOutcome
from models.rules.release import ReleaseKind
from models.rules.staff import Actor, Role
from models.rules.text import TextPurpose
from models.rules.treatment import Treatment
from models.rules.vocabulary import Outcome, Quarantine, Site, Test
from models.rules.working_days import add_working_hours
from models.tables.audit import Audit
from models.tables.clinic import CaseAttempt, CaseEnding, ClinicCase, Escalation
from models.tables.kit import Kit
from models.tables.order import OrderDecision
from models.tables.person import Contact, MobileHolder
from models.tables.result import LabFile, QuarantinedRow
from models.tables.text import Text, TextState
from tests.support import build
from tests.support.intake import larkfield_intake

NOW = build.NOW
HIV = (Test.HIV, Site.BLOOD)
SYPHILIS = (Test.SYPHILIS, Site.BLOOD)
CHLAMYDIA = (Test.CHLAMYDIA, Site.VAGINAL)
GONORRHOEA = (Test.GONORRHOEA, Site.VAGINAL)
ALL_NEGATIVE = dict.fromkeys([HIV, SYPHILIS, CHLAMYDIA, GONORRHOEA], Outcome.NEGATIVE)
REACTIVE = ALL_NEGATIVE | {HIV: Outcome.REACTIVE}
POSITIVE = ALL_NEGATIVE | {CHLAMYDIA: Outcome.POSITIVE}


def staff(name: str = "anna", *roles: Role, service_id: str = "larkfield") -> Actor:
    return Actor(name, frozenset(roles or {Role.HEALTH_ADVISER}), frozenset({service_id}))


ANNA = staff("anna")
BELA = staff("bela")
SENIOR = staff("sian", Role.SENIOR_HEALTH_ADVISER)
DOCTOR = staff("dora", Role.CLINICIAN)


def opened(begin: Begin, outcomes=REACTIVE, **changes) -> str:
    """The ref of the results case of a new kit with these results."""
    with begin() as session:
        kit = build.dispatched_kit(session, at=NOW - timedelta(days=5), **changes)
        build.results(session, kit, outcomes)
        return session.exec(select(ClinicCase.ref).where(col(ClinicCase.kit_id) == kit.id)).one()


def found(session: Session, ref: str) -> ClinicCase:
    return session.exec(select(ClinicCase).where(col(ClinicCase.ref) == ref)).one()


def now_version(begin: Begin, ref: str) -> int:
    with begin() as session:
        return found(session, ref).version


def attempt(
    begin: Begin, ref: str, result: AttemptResult, *, by: Actor = ANNA, note: str = "", now=NOW, **more
) -> None:
    identity = IDENTITY_FLOOR if result is AttemptResult.SPOKE else frozenset()
    with begin() as session:
        clinic.record_attempt(
            session,
            ref,
            **{
                "by": by,
                "version": found(session, ref).version,
                "result": result,
                "note": note,
                "now": now,
                "service": build.service(),
                "cipher": build.cipher(),
                "indexes": build.indexes(),
                "identity": identity,
                **more,
            },
        )


def floor(begin: Begin, ref: str) -> None:
    """Everything that was to be tried, each text on its own day and taken by the provider."""
    for day in range(3):
        attempt(begin, ref, AttemptResult.TEXT, now=NOW + timedelta(days=day))
    for result in (AttemptResult.VOICEMAIL, AttemptResult.VOICEMAIL, AttemptResult.LETTER, AttemptResult.NO_ANSWER):
        attempt(begin, ref, result, now=NOW + timedelta(days=3))
    build.texts_left(begin)


def confirm(begin: Begin, ref: str, said: Confirmation, *, test: Test = Test.HIV) -> None:
    with begin() as session:
        clinic.record_confirmation(
            session, ref, by=ANNA, version=found(session, ref).version, test=test, confirmation=said, now=NOW
        )


HOW = {
    CaseOutcome.TREATED: EndingDetails("", NOW.date(), Treatment.IN_CLINIC),
    CaseOutcome.TOLD_AND_BOOKED: EndingDetails("Larkfield clinic", NOW.date()),
    CaseOutcome.REFERRED: EndingDetails("Larkfield clinic", NOW.date()),
    CaseOutcome.SAFEGUARDING_REFERRED: EndingDetails("Larkfield children's services", NOW.date()),
}
"""The details that belong to each outcome that needs some."""


def close(begin: Begin, ref: str, outcome: CaseOutcome, *, by: Actor = ANNA, now=NOW, details=None) -> Ending:
    with begin() as session:
        return clinic.close_case(
            session,
            ref,
            by=by,
            version=found(session, ref).version,
            outcome=outcome,
            now=now,
            service=build.service(),
            cipher=build.cipher(),
            details=details or HOW.get(outcome, EndingDetails()),
        )


def audited(begin: Begin) -> list[tuple[str, str]]:
    with begin() as session:
        return [(a.action, a.actor) for a in session.exec(select(Audit).order_by(col(Audit.id)))]


# ── Taking a case ────────────────────────────────────────────────────────────────────────────


def test_a_claimed_case_is_in_one_persons_hands(begin):
    ref = opened(begin)
    with begin() as session:
        clinic.claim(session, ref, by=ANNA, version=found(session, ref).version, now=NOW)

    with pytest.raises(ServiceError, match="A colleague is working on this case") as refused, begin() as session:
        clinic.claim(session, ref, by=BELA, version=found(session, ref).version, now=NOW)

    assert refused.value.code is Code.CONFLICT
    assert ("case.claimed", "staff:anna") in audited(begin)


def test_a_form_drawn_from_an_older_version_changes_nothing(begin):
    ref = opened(begin)
    old = now_version(begin, ref)
    attempt(begin, ref, AttemptResult.NO_ANSWER)

    with pytest.raises(ServiceError, match="Somebody else changed this case") as refused, begin() as session:
        clinic.claim(session, ref, by=ANNA, version=old, now=NOW)

    assert refused.value.code is Code.CONFLICT


def test_of_two_people_who_claim_at_once_exactly_one_gets_the_case(begin):
    ref = opened(begin)
    version = now_version(begin, ref)
    at_once = threading.Barrier(2)
    told: list[str] = []

    def take(by: Actor) -> None:
        at_once.wait()
        try:
            with begin() as session:
                clinic.claim(session, ref, by=by, version=version, now=NOW)
            told.append("got it")
        except ServiceError as refused:
            told.append(refused.code)

    hands = [threading.Thread(target=take, args=[by]) for by in (ANNA, BELA)]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()

    assert sorted(told) == [Code.CONFLICT, "got it"]


def test_only_the_holder_or_a_senior_person_hands_a_case_back(begin):
    ref = opened(begin)
    attempt(begin, ref, AttemptResult.NO_ANSWER, by=ANNA)

    with pytest.raises(ServiceError, match="role does not allow"), begin() as session:
        clinic.hand_back(session, ref, by=BELA, version=found(session, ref).version, now=NOW)
    with begin() as session:
        clinic.hand_back(session, ref, by=SENIOR, version=found(session, ref).version, now=NOW)

    with begin() as session:
        assert found(session, ref).assignee == ""


def test_a_case_handed_over_stands_in_the_other_roles_queue_with_a_word_of_why(begin):
    ref = opened(begin)
    attempt(begin, ref, AttemptResult.NO_ANSWER)

    def give(to: Role, note: str) -> None:
        with begin() as session:
            clinic.hand_over(
                session,
                ref,
                by=ANNA,
                version=found(session, ref).version,
                to=to,
                note=note,
                now=NOW,
                cipher=build.cipher(),
            )

    for to, note in ((Role.PACKER, "Please"), (Role.CLINICIAN, " ")):
        with pytest.raises(ServiceError):
            give(to, note)
    give(Role.CLINICIAN, "Asks about a medicine")

    with begin() as session:
        case = found(session, ref)
        assert (case.owner_role, case.assignee) == ("clinician", "")
        assert session.exec(select(CaseAttempt.result).order_by(col(CaseAttempt.id))).all()[-1] is AttemptResult.NOTE


def rest(begin: Begin, ref: str, *, until, now=NOW) -> None:
    with begin() as session:
        clinic.snooze(
            session,
            ref,
            by=ANNA,
            version=found(session, ref).version,
            reason=SnoozeReason.ASKED_FOR_ANOTHER_TIME,
            until=until,
            now=now,
            policy=build.service().clinic,
        )


def test_a_case_rests_until_the_chosen_time_and_not_a_fourth_time(begin):
    ref = opened(begin)
    for day in range(3):
        rest(begin, ref, until=NOW + timedelta(days=day + 1), now=NOW + timedelta(days=day))
    with begin() as session:
        assert found(session, ref).due_at == NOW + timedelta(days=3)

    with pytest.raises(ServiceError, match="has rested 3 times"):
        rest(begin, ref, until=NOW + timedelta(days=4), now=NOW + timedelta(days=3))


def test_a_due_case_whose_holder_did_nothing_goes_back_to_the_queue(begin):
    ref = opened(begin)
    with begin() as session:
        clinic.claim(session, ref, by=ANNA, version=found(session, ref).version, now=NOW)

    def returned(at) -> int:
        with begin() as session:
            return clinic.return_stale_claims(
                session, now=at, service=build.service(), limit=10, actor="flow:follow_up_positives"
            )

    assert [returned(NOW + timedelta(days=days)) for days in (1, 2, 3)] == [0, 1, 0]
    with begin() as session:
        assert found(session, ref).assignee == ""
    assert ("case.claim_ended", "flow:follow_up_positives") in audited(begin)


def test_another_services_case_does_not_exist_for_them(begin):
    ref = opened(begin)
    stranger = staff("stan", service_id="moorside")

    for looked_for in (ref, "0" * 32):
        with pytest.raises(ServiceError, match="There is no such case") as refused, begin() as session:
            casebook.case_view(session, looked_for, by=stranger, now=NOW, cipher=build.cipher())
        assert refused.value.code is Code.NOT_FOUND


# ── Trying to reach somebody ─────────────────────────────────────────────────────────────────


def test_an_attempt_that_reached_nobody_makes_the_case_due_later_and_starts_the_ladder_again(begin):
    ref = opened(begin)
    with begin() as session:
        due = found(session, ref).due_at
        found(session, ref).escalation = 2

    attempt(begin, ref, AttemptResult.NO_ANSWER, now=due)

    with begin() as session:
        case = found(session, ref)
        assert case.due_at == add_working_hours(due, 8, build.service().clinic.opens, build.service().clinic.closes)
        assert (case.escalation, case.assignee) == (0, "staff:anna")


def test_a_note_is_kept_encrypted_and_comes_back_to_who_may_read_it(begin):
    ref = opened(begin)
    attempt(begin, ref, AttemptResult.NO_ANSWER, note="Try after 5, ask for Testina")

    with begin() as session:
        stored = session.exec(select(CaseAttempt.note)).one()
        view = casebook.case_view(session, ref, by=ANNA, now=NOW, cipher=build.cipher())

    assert b"Testina" not in stored
    assert [line.note for line in view.attempts] == ["Try after 5, ask for Testina"]


@pytest.mark.parametrize(
    ("result", "refusal"),
    [
        (AttemptResult.TEXT, {"text_consent": False}),
        (AttemptResult.VOICEMAIL, {"voicemail_consent": False}),
        (AttemptResult.LETTER, {"letter_consent": False}),
    ],
)
def test_a_channel_that_the_person_refused_can_not_be_used(begin, result, refusal):
    with begin() as session:
        person = build.person(session)
        kit = build.dispatched_kit(session, of=person, to=build.contact(session, person, **refusal))
        build.results(session, kit, REACTIVE)
        ref = session.exec(select(ClinicCase.ref)).one()

    with pytest.raises(ServiceError, match="has not agreed") as refused:
        attempt(begin, ref, result)

    assert refused.value.code is Code.NOT_NOW


def test_nobody_is_spoken_to_before_they_said_who_they_are(begin):
    ref = opened(begin)

    with pytest.raises(ServiceError, match="it was not them"):
        attempt(begin, ref, AttemptResult.SPOKE, identity=frozenset())
    attempt(begin, ref, AttemptResult.SPOKE)

    with begin() as session:
        assert session.exec(select(CaseAttempt.identity_checked)).one() == ["date_of_birth", "full_name"]


def test_a_text_is_owed_through_the_outbox_once_a_day_and_says_only_to_expect_a_call(begin):
    ref = opened(begin, POSITIVE)
    attempt(begin, ref, AttemptResult.TEXT)
    with pytest.raises(ServiceError, match="asked for today already"):
        attempt(begin, ref, AttemptResult.TEXT)
    attempt(begin, ref, AttemptResult.TEXT, now=NOW + timedelta(days=1))

    with begin() as session:
        owed = session.exec(select(Text).where(col(Text.purpose) == TextPurpose.PLEASE_EXPECT_OUR_CALL)).all()
        assert [text.state for text in owed] == [TextState.OWED] * 2


@pytest.mark.parametrize("result", [AttemptResult.WRONG_PERSON, AttemptResult.NUMBER_DEAD])
def test_a_number_that_is_not_theirs_is_frozen_and_gets_no_text_and_no_voicemail(begin, result):
    ref = opened(begin)
    with begin() as session:
        build.hold_mobile(session, session.exec(select(Contact)).one())

    attempt(begin, ref, result)

    with begin() as session:
        assert session.exec(select(MobileHolder.frozen_at)).one() == NOW
        assert {text.state for text in session.exec(select(Text))} == {TextState.CANCELLED}
    for refused in (AttemptResult.TEXT, AttemptResult.VOICEMAIL):
        with pytest.raises(ServiceError, match="until it is proved again"):
            attempt(begin, ref, refused)
    attempt(begin, ref, AttemptResult.LETTER)


def test_who_was_spoken_to_gets_no_text_that_asks_to_expect_the_call(begin):
    ref = opened(begin)

    attempt(begin, ref, AttemptResult.SPOKE)

    with begin() as session:
        text = session.exec(select(Text).where(col(Text.purpose) == TextPurpose.PLEASE_EXPECT_OUR_CALL)).one()
        assert (text.state, text.cancelled_because) == (TextState.CANCELLED, "already_spoken_to")


def test_attempts_can_be_added_and_never_changed(begin):
    ref = opened(begin)
    attempt(begin, ref, AttemptResult.NO_ANSWER)

    with pytest.raises(ProgrammingError, match="permission denied"), begin() as session:
        session.exec(select(CaseAttempt)).one().result = AttemptResult.SPOKE


# ── Ending a case ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("outcome", CaseOutcome)
def test_a_reactive_case_has_no_way_out_before_its_confirmation(begin, outcome):
    ref = opened(begin)
    floor(begin, ref)

    with pytest.raises(ServiceError) as refused:
        close(begin, ref, outcome)

    assert refused.value.code is Code.NOT_NOW


def test_a_confirmed_reactive_closes_and_says_how_it_ended(begin):
    ref = opened(begin)
    confirm(begin, ref, Confirmation.NEGATIVE)

    assert close(begin, ref, CaseOutcome.CONFIRMED_NEGATIVE) is Ending.CLOSED

    with begin() as session:
        case = found(session, ref)
        assert (case.outcome, case.closed_by) == (CaseOutcome.CONFIRMED_NEGATIVE, "staff:anna")


def test_the_latest_confirmation_of_a_test_counts(begin):
    ref = opened(begin)
    attempt(begin, ref, AttemptResult.SPOKE)
    confirm(begin, ref, Confirmation.DECLINED)
    confirm(begin, ref, Confirmation.POSITIVE)

    assert close(begin, ref, CaseOutcome.CONFIRMED_POSITIVE) is Ending.CLOSED


def test_nobody_declines_in_anothers_place(begin):
    ref = opened(begin)

    with pytest.raises(ServiceError, match="Only the person can decline"):
        confirm(begin, ref, Confirmation.DECLINED)


def test_a_reactive_whose_person_can_not_be_found_is_ended_by_two_after_four_weeks(begin):
    ref = opened(begin)
    floor(begin, ref)
    for _ in range(2):
        attempt(begin, ref, AttemptResult.NO_ANSWER, now=NOW + timedelta(days=4))
    late = NOW + timedelta(days=FLOOR_REACTIVE_DAYS)

    with pytest.raises(ServiceError, match="at least 28 days"):
        close(begin, ref, CaseOutcome.NO_FURTHER_ACTION, now=late - timedelta(days=1))
    assert close(begin, ref, CaseOutcome.NO_FURTHER_ACTION, now=late) is Ending.WAITS_FOR_SECOND
    assert close(begin, ref, CaseOutcome.NO_FURTHER_ACTION, by=SENIOR, now=late) is Ending.CLOSED


def test_news_makes_the_floor_start_again(begin):
    with begin() as session:
        kit = build.dispatched_kit(session)
        build.results(session, kit, POSITIVE)
        ref = session.exec(select(ClinicCase.ref)).one()
    floor(begin, ref)

    with begin() as session:
        build.results(session, session.merge(kit), {GONORRHOEA: Outcome.POSITIVE}, at=NOW + timedelta(days=5))

    with pytest.raises(ServiceError, match="3 texts that left, 2 voicemails, 1 letter"):
        close(begin, ref, CaseOutcome.NO_FURTHER_ACTION, now=NOW + timedelta(days=5))


def test_an_ending_keeps_where_it_was_encrypted(begin):
    ref = opened(begin, POSITIVE)
    close(begin, ref, CaseOutcome.TOLD_AND_BOOKED)

    with begin() as session:
        ending = session.exec(select(CaseEnding)).one()
        view = casebook.case_view(session, ref, by=ANNA, now=NOW, cipher=build.cipher())

    assert (ending.outcome, ending.happened_on) == (CaseOutcome.TOLD_AND_BOOKED, NOW.date())
    assert b"Larkfield" not in ending.place
    assert [(line.place, line.outcome) for line in view.endings] == [("Larkfield clinic", CaseOutcome.TOLD_AND_BOOKED)]


def test_a_test_that_did_not_react_can_not_be_confirmed(begin):
    ref = opened(begin)

    with pytest.raises(ServiceError, match="no reactive result here"):
        confirm(begin, ref, Confirmation.NEGATIVE, test=Test.SYPHILIS)


def test_a_positive_without_a_text_left_is_closed_by_treatment(begin):
    ref = opened(begin, POSITIVE)

    assert close(begin, ref, CaseOutcome.TREATED) is Ending.CLOSED


def test_no_further_action_takes_a_second_senior_person(begin):
    ref = opened(begin, POSITIVE)
    floor(begin, ref)

    assert close(begin, ref, CaseOutcome.NO_FURTHER_ACTION, by=ANNA) is Ending.WAITS_FOR_SECOND
    assert close(begin, ref, CaseOutcome.NO_FURTHER_ACTION, by=ANNA) is Ending.WAITS_FOR_SECOND
    with pytest.raises(ServiceError, match="role does not allow"):
        close(begin, ref, CaseOutcome.NO_FURTHER_ACTION, by=BELA)
    assert close(begin, ref, CaseOutcome.NO_FURTHER_ACTION, by=SENIOR) is Ending.CLOSED


def test_news_between_the_two_people_makes_the_first_ones_wish_void(begin):
    ref = opened(begin, POSITIVE)
    floor(begin, ref)
    close(begin, ref, CaseOutcome.NO_FURTHER_ACTION, by=ANNA)
    attempt(begin, ref, AttemptResult.NO_ANSWER)

    assert close(begin, ref, CaseOutcome.NO_FURTHER_ACTION, by=SENIOR) is Ending.WAITS_FOR_SECOND


def test_a_correction_of_a_closed_case_opens_it_again(begin):
    with begin() as session:
        kit = build.dispatched_kit(session)
        build.results(session, kit, POSITIVE)
        ref = session.exec(select(ClinicCase.ref)).one()
    close(begin, ref, CaseOutcome.TREATED)

    with begin() as session:
        build.results(session, session.merge(kit), {CHLAMYDIA: Outcome.NEGATIVE}, at=NOW + timedelta(days=1))

    with begin() as session:
        case = found(session, ref)
        assert (case.kind, case.closed_at) == (CaseKind.CORRECTION, None)
        view = casebook.case_view(session, ref, by=ANNA, now=NOW, cipher=build.cipher())
    [chlamydia] = [line for line in view.results if line.test is Test.CHLAMYDIA]
    assert [v.outcome for v in chlamydia.versions] == [Outcome.NEGATIVE, Outcome.POSITIVE]


def test_what_a_correction_took_away_no_longer_holds_its_case_open(begin):
    with begin() as session:
        kit = build.dispatched_kit(session)
        build.results(session, kit, REACTIVE)
        build.results(session, kit, {HIV: Outcome.NEGATIVE}, at=NOW + timedelta(days=1))
        ref = session.exec(select(ClinicCase.ref)).one()

    assert close(begin, ref, CaseOutcome.TOLD_NO_ACTION) is Ending.CLOSED


# ── Reading a lab's comment ──────────────────────────────────────────────────────────────────


def commented(begin: Begin, outcomes) -> str:
    with begin() as session:
        kit = build.dispatched_kit(session)
        build.results(session, kit, outcomes, comments={CHLAMYDIA: "Please see notes"})
        return session.exec(select(ClinicCase.ref)).one()


def review(begin: Begin, ref: str, *, by: Actor = DOCTOR):
    with begin() as session:
        return clinic.release_after_review(
            session,
            ref,
            by=by,
            version=found(session, ref).version,
            now=NOW,
            service=build.in_force(session),
            cipher=build.cipher(),
        )


def test_a_comment_found_harmless_releases_the_all_clear_and_ends_the_case(begin):
    ref = commented(begin, ALL_NEGATIVE)

    assert review(begin, ref).kind is ReleaseKind.ALL_CLEAR

    with begin() as session:
        assert found(session, ref).outcome is CaseOutcome.RELEASED_AFTER_REVIEW
        assert [t.purpose for t in session.exec(select(Text).where(Text.state == "owed"))] == [TextPurpose.ALL_CLEAR]


def test_a_review_that_still_needs_a_person_leaves_the_case_open(begin):
    ref = commented(begin, POSITIVE)

    assert review(begin, ref).case

    with begin() as session:
        assert found(session, ref).closed_at is None


def test_a_health_adviser_does_not_release_after_review(begin):
    ref = commented(begin, ALL_NEGATIVE)

    with pytest.raises(ServiceError) as refused:
        review(begin, ref, by=ANNA)

    assert refused.value.code is Code.NOT_ALLOWED


def test_the_reviewer_is_shown_the_comment_and_others_are_not_told_it_was_read(begin):
    ref = commented(begin, ALL_NEGATIVE)

    with begin() as session:
        view = casebook.case_view(session, ref, by=DOCTOR, now=NOW, cipher=build.cipher())

    [chlamydia] = [line for line in view.results if line.test is Test.CHLAMYDIA]
    assert (chlamydia.versions[0].comment, view.comment_waits) == ("Please see notes", True)


# ── Settling a held order ────────────────────────────────────────────────────────────────────


def held(begin: Begin, kind: CaseKind = CaseKind.ORDER_REVIEW) -> str:
    """The ref of the case of an order that waits for a person."""
    with begin() as session:
        order = build.order(
            session,
            answers={"body": ["vagina"], "exposures": [], "known_hiv": False, "past_syphilis": False},
        )
        decision = OrderDecision(
            order_id=order.id,
            service_id="larkfield",
            outcome=OrderOutcome.HELD,
            reasons=["too_many_kits"],
            told="we_will_call",
            rule_version="order-1",
            service_version_id=build.in_force(session).version_id,
            actor=build.ACTOR,
            decided_at=NOW,
        )
        session.add(decision)
        session.flush()
        order.current_decision_id = decision.id
        [case_id] = owe_cases(
            session,
            [OwedCase("test:held", kind, order_id=order.id)],
            service=build.service(),
            now=NOW,
            actor=build.ACTOR,
        ).values()
        return session.get_one(ClinicCase, case_id).ref


def settle(begin: Begin, ref: str, *, accept: bool, by: Actor = DOCTOR) -> None:
    intake = larkfield_intake(begin)
    with begin() as session:
        clinic.settle_held_order(
            session,
            ref,
            by=by,
            version=found(session, ref).version,
            accept=accept,
            because="Spoke with the person",
            now=NOW,
            intake=intake,
        )


def test_a_held_order_is_refused_or_accepted_from_its_case_which_ends_with_it(begin):
    for accept, outcome in ((False, CaseOutcome.ORDER_REFUSED), (True, CaseOutcome.ORDER_ACCEPTED)):
        ref = held(begin)
        settle(begin, ref, accept=accept)
        with begin() as session:
            case = found(session, ref)
            assert case.outcome is outcome
            case.key = f"test:{outcome}"


def test_no_case_ends_over_an_order_that_still_waits(begin):
    ref = held(begin, CaseKind.SAFEGUARDING)
    with pytest.raises(ServiceError, match="still held: accept or refuse it first"):
        close(begin, ref, CaseOutcome.SAFEGUARDING_REFERRED)

    settle(begin, ref, accept=False)

    assert close(begin, ref, CaseOutcome.SAFEGUARDING_REFERRED) is Ending.CLOSED


def test_an_order_review_can_not_end_as_if_the_order_had_been_decided(begin):
    ref = held(begin)

    with pytest.raises(ServiceError, match="still held"):
        close(begin, ref, CaseOutcome.ORDER_ACCEPTED)


def test_a_health_adviser_does_not_settle_orders(begin):
    ref = held(begin)

    with pytest.raises(ServiceError, match="role does not allow"):
        settle(begin, ref, accept=True, by=ANNA)


# ── Rows set aside ───────────────────────────────────────────────────────────────────────────

LARA = staff("lara", Role.LAB_LIAISON)


def put_row(session: Session, role: str, *, may_be_non_negative: bool = False, of: Kit | None = None) -> QuarantinedRow:
    """One row in quarantine, of a kit or of none."""
    file = LabFile(ref="f" * 32, lab="northlab", object_key="northlab/incoming/1.hl7", size_bytes=1, arrived_at=NOW)
    session.add(file)
    session.flush()
    row = QuarantinedRow(
        ref="a" * 32,
        file_id=file.id,
        lab="northlab",
        position=7,
        reason=Quarantine.UNKNOWN_TOKEN,
        detail="OBX-5",
        may_be_non_negative=may_be_non_negative,
        raw=build.cipher().encrypt("quarantined_row", "raw", "a" * 32, "OBX|1|ST|HIV||NR?"),
        owner_role=role,
        due_at=NOW,
        kit_id=of.id if of else None,
        service_id=of.service_id if of else "",
    )
    session.add(row)
    session.flush()
    return row


def set_aside(begin: Begin, *, may_be_non_negative: bool = False) -> tuple[str, str]:
    """The refs of a lab's case and of its one row in quarantine."""
    role = "clinician" if may_be_non_negative else "lab_liaison"
    with begin() as session:
        row = put_row(session, role, may_be_non_negative=may_be_non_negative)
        key = f"file:{row.file_id}:{Quarantine.UNKNOWN_TOKEN}:{role}"
        owe_cases(
            session,
            [OwedCase(key, CaseKind.LAB_ROW, lab="northlab", owner_role=role)],
            service=build.service(),
            now=NOW,
            actor=build.ACTOR,
        )
        return session.exec(select(ClinicCase.ref)).one(), row.ref


def read_row(begin: Begin, ref: str, row_ref: str, by: Actor) -> str:
    with begin() as session:
        return casebook.read_lab_row(session, ref, row_ref, by=by, now=NOW, cipher=build.cipher())[1]


def test_a_row_set_aside_is_read_one_at_a_time_and_the_look_is_audited(begin):
    ref, row_ref = set_aside(begin)

    assert read_row(begin, ref, row_ref, LARA) == "OBX|1|ST|HIV||NR?"
    assert audited(begin)[-1] == ("lab_row.read", "staff:lara")


def test_who_read_a_row_that_names_a_kit_stands_among_those_who_looked_at_it(begin):
    ref = opened(begin)
    with begin() as session:
        code = casebook.case_view(session, ref, by=ANNA, now=NOW, cipher=build.cipher()).kit_code
        row_ref = put_row(session, "clinician", of=session.exec(select(Kit)).one()).ref
    read_row(begin, ref, row_ref, DOCTOR)

    with begin() as session:
        looks = casebook.kit_timeline(session, code, by=staff("otto", Role.AUDITOR), now=NOW).looks
    assert (DOCTOR.audit_name, "lab_row.read") in [(each.actor, each.action) for each in looks]


def test_a_row_that_may_be_bad_news_is_read_by_who_may_read_results(begin):
    ref, row_ref = set_aside(begin, may_be_non_negative=True)

    with pytest.raises(ServiceError, match="ask a clinician"):
        read_row(begin, ref, row_ref, LARA)
    assert read_row(begin, ref, row_ref, DOCTOR)


def test_a_row_of_another_case_is_not_found(begin):
    ref, _ = set_aside(begin)

    with pytest.raises(ServiceError, match="There is no such row"):
        read_row(begin, ref, "b" * 32, LARA)


def test_ending_a_labs_case_settles_its_rows(begin):
    ref, _ = set_aside(begin)

    close(begin, ref, CaseOutcome.RESOLVED_WITH_LAB, by=LARA)

    with begin() as session:
        row = session.exec(select(QuarantinedRow)).one()
        assert (row.resolved_at, row.resolution) == (NOW, "resolved_with_lab")


# ── Looking ──────────────────────────────────────────────────────────────────────────────────


def test_every_look_at_a_case_and_every_reveal_is_audited_in_its_own_transaction(begin):
    ref = opened(begin)

    with begin() as session:
        casebook.case_view(session, ref, by=ANNA, now=NOW, cipher=build.cipher())
    with begin() as session:
        details = casebook.reveal(session, ref, by=ANNA, now=NOW, cipher=build.cipher())

    assert (details.given_name, details.family_name) == ("Testina", "Kit")
    assert "Testina" not in repr(details)
    assert audited(begin)[-2:] == [("case.viewed", "staff:anna"), ("contact.revealed", "staff:anna")]


def test_a_look_that_is_rolled_back_was_no_look(begin):
    ref = opened(begin)

    def look_and_fail() -> None:
        with begin() as session:
            casebook.reveal(session, ref, by=ANNA, now=NOW, cipher=build.cipher())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look_and_fail()

    assert ("contact.revealed", "staff:anna") not in audited(begin)


def test_the_worklist_shows_oldest_due_first_and_the_more_urgent_where_they_are_due_together(begin):
    late, later = NOW - timedelta(days=2), NOW - timedelta(days=1)
    with begin() as session:
        kit = build.dispatched_kit(session)
        for number, (kind, due) in enumerate(
            [(CaseKind.PARCEL, later), (CaseKind.REACTIVE, later), (CaseKind.FAILED_SAMPLE, late)]
        ):
            [case_id] = owe_cases(
                session,
                [OwedCase(f"test:{number}", kind, kit_id=kit.id)],
                service=build.service(),
                now=NOW,
                actor=build.ACTOR,
            ).values()
            session.get_one(ClinicCase, case_id).due_at = due

    with begin() as session:
        shown = casebook.worklist(session, by=ANNA, now=NOW)

    assert [row.kind for row in shown.rows] == [CaseKind.FAILED_SAMPLE, CaseKind.REACTIVE, CaseKind.PARCEL]
    assert shown.overdue == 3


def test_no_filter_hides_the_oldest_case(begin):
    oldest = opened(begin, REACTIVE)
    opened(begin, POSITIVE)

    with begin() as session:
        found(session, oldest).due_at = NOW - timedelta(days=9)
        shown = casebook.worklist(session, by=ANNA, now=NOW, kind=CaseKind.POSITIVE)

    assert [row.kind for row in shown.rows] == [CaseKind.POSITIVE]
    assert shown.oldest[0].ref == oldest


def test_somebody_sees_only_the_kinds_of_their_role_and_the_cases_of_their_service(begin):
    opened(begin)
    for by in (staff("paul", Role.PACKER), staff("stan", service_id="moorside")):
        with begin() as session:
            assert casebook.worklist(session, by=by, now=NOW).rows == []

    with pytest.raises(ServiceError) as refused, begin() as session:
        casebook.worklist(session, by=staff("otto", Role.AUDITOR), now=NOW)
    assert refused.value.code is Code.NOT_ALLOWED


def test_who_chases_the_lab_sees_what_is_missing_and_no_result(begin):
    with begin() as session:
        kit = build.dispatched_kit(session)
        build.results(session, kit, {HIV: Outcome.NEGATIVE})
        owe_cases(
            session,
            [OwedCase("test:late", CaseKind.RESULTS_OVERDUE, kit_id=kit.id)],
            service=build.service(),
            now=NOW,
            actor=build.ACTOR,
        )
        ref = session.exec(select(ClinicCase.ref)).one()

    with begin() as session:
        view = casebook.case_view(session, ref, by=staff("lara", Role.LAB_LIAISON), now=NOW, cipher=build.cipher())

    assert {line.test for line in view.results} == {Test.HIV, Test.SYPHILIS, Test.CHLAMYDIA, Test.GONORRHOEA}
    assert not any(line.versions for line in view.results)
    assert (view.decisions, view.texts, view.age_years) == ((), (), None)


def test_a_timeline_without_the_right_to_results_tells_what_happened_and_no_finding(begin):
    ref = opened(begin)
    with begin() as session:
        code = casebook.case_view(session, ref, by=ANNA, now=NOW, cipher=build.cipher()).kit_code

    with begin() as session:
        shown = casebook.kit_timeline(session, code.lower(), by=staff("otto", Role.AUDITOR), now=NOW)
        full = casebook.kit_timeline(session, code, by=DOCTOR, now=NOW)

    assert [event.kind for event in shown.events] == [event.kind for event in full.events]
    assert not any(event.detail for event in shown.events)
    assert (shown.decisions, shown.texts) == ((), ())
    assert ("staff:anna", "case.viewed") in [(each.actor, each.action) for each in shown.looks]


@pytest.mark.parametrize(("code", "expected"), [("7K3-F9X-N2PA", Code.BAD_INPUT), ("7K3-F9X-N2PP", Code.NOT_FOUND)])
def test_a_wrong_kit_code_is_told_apart_from_an_unknown_one(begin, code, expected):
    with pytest.raises(ServiceError) as refused, begin() as session:
        casebook.kit_timeline(session, code, by=ANNA, now=NOW)

    assert refused.value.code is expected


# ── Escalation ───────────────────────────────────────────────────────────────────────────────


def escalate(begin: Begin, now, limit: int = 100, after=None):
    with begin() as session:
        return clinic.escalate_due(
            session,
            now=now,
            service_id="larkfield",
            policy=build.service().clinic,
            limit=limit,
            actor="flow:follow_up_positives",
            after=after,
        )


def test_several_steps_at_once_do_not_wait_for_a_kit_that_a_sender_holds(begin):
    """A case that changed twice in one transaction would lock its kit, against the order of everybody's locks."""
    opened(begin)

    with begin() as sender, begin() as session:
        sender.execute(text("SELECT id FROM kit FOR UPDATE"))
        session.execute(text("SET LOCAL lock_timeout = '2s'"))
        told = clinic.escalate_due(
            session,
            now=NOW + timedelta(days=30),
            service_id="larkfield",
            policy=build.service().clinic,
            limit=9,
            actor="flow:follow_up_positives",
        )

    assert told.steps == len(build.service().clinic.escalation) > 1


def test_each_step_of_the_ladder_is_told_once_when_its_time_comes(begin):
    ref = opened(begin)
    with begin() as session:
        due = found(session, ref).due_at
    policy = build.service().clinic
    times = [
        add_working_hours(due, step.after_working_hours, policy.opens, policy.closes) for step in policy.escalation
    ]

    told = [escalate(begin, at).steps for at in (due - timedelta(minutes=1), *times, times[-1] + timedelta(days=9))]

    assert told == [0, 1, 1, 1, 0]
    with begin() as session:
        assert [e.role for e in session.exec(select(Escalation).order_by(col(Escalation.step)))] == [
            "health_adviser",
            "senior_health_adviser",
            "service_manager",
        ]


def test_a_late_run_tells_every_step_that_it_missed(begin):
    opened(begin)

    assert escalate(begin, NOW + timedelta(days=30)).steps == 3
    assert escalate(begin, NOW + timedelta(days=30)).steps == 0


def test_cases_that_wait_for_their_next_step_do_not_keep_the_others_from_their_turn(begin):
    for _ in range(3):
        opened(begin)
    later = NOW + timedelta(days=30)

    first = escalate(begin, later, limit=2)
    second = escalate(begin, later, limit=2, after=first.after)

    assert (first.cases, second.cases) == (2, 1)
    assert first.steps + second.steps == 9


def test_a_closed_case_is_not_escalated(begin):
    ref = opened(begin, POSITIVE)
    close(begin, ref, CaseOutcome.TREATED)

    assert escalate(begin, NOW + timedelta(days=30)).cases == 0
