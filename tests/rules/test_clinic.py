"""Cases: nothing is without an owner, a due time and a way to end, and nothing ends too early."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules.clinic import (
    FLOOR_CALLS,
    FLOOR_LETTERS,
    FLOOR_REACTIVE_DAYS,
    FLOOR_TEXTS,
    FLOOR_VOICEMAILS,
    OUTCOMES_FOR,
    OWNER,
    URGENCY,
    AttemptResult,
    CaseFacts,
    CaseKind,
    CaseOutcome,
    Confirmation,
    EndingDetails,
    IdentityCheck,
    Step,
    Urgency,
    check_ending,
    check_identity,
    check_may_close,
    check_snooze,
    due_at,
    is_stale,
    kind_for,
    more_urgent,
    next_due_at,
    next_step,
    reacting,
)
from models.rules.errors import Code, ServiceError
from models.rules.release import Reason, ReleaseDecision, ReleaseKind
from models.rules.service import ClinicPolicy
from models.rules.treatment import REMOTE, Treatment
from models.rules.vocabulary import BLOOD_TESTS, IDENTITY_FAILURES, NON_NEGATIVE, REACTIONS, Outcome, Test

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
POLICY = ClinicPolicy(due_working_hours={kind.value: 4 for kind in CaseKind})

items = st.frozensets(st.tuples(st.sampled_from(Test), st.sampled_from(sorted(NON_NEGATIVE))), max_size=4)
cases = st.builds(
    CaseFacts,
    kind=st.sampled_from(CaseKind),
    items=items,
    attempts=st.dictionaries(st.sampled_from(AttemptResult), st.integers(0, 4)),
    confirmed=st.dictionaries(st.sampled_from(sorted(BLOOD_TESTS)), st.sampled_from(Confirmation)),
    text_consent=st.booleans(),
    voicemail_consent=st.booleans(),
    letter_consent=st.booleans(),
    texts_left=st.integers(0, 4),
    number_usable=st.booleans(),
    days_since_news=st.integers(0, 60),
)


def case(kind: CaseKind = CaseKind.POSITIVE, **changes) -> CaseFacts:
    return CaseFacts(
        **{
            "kind": kind,
            "items": frozenset(),
            "attempts": {},
            "confirmed": {},
            "text_consent": True,
            "voicemail_consent": True,
            "letter_consent": True,
            **changes,
        }
    )


def may_close(facts: CaseFacts, outcome: CaseOutcome, *, seconded: bool = True) -> bool:
    try:
        check_may_close(facts, outcome, seconded=seconded)
    except ServiceError:
        return False
    return True


FLOOR = {AttemptResult.NO_ANSWER: 1, AttemptResult.VOICEMAIL: FLOOR_VOICEMAILS, AttemptResult.LETTER: FLOOR_LETTERS}
DONE = {"attempts": FLOOR, "texts_left": FLOOR_TEXTS}
HIV_REACTED = frozenset({(Test.HIV, Outcome.REACTIVE)})


@pytest.mark.parametrize("kind", CaseKind)
def test_every_kind_has_an_owner_an_urgency_a_due_time_and_a_way_to_end(kind):
    assert OWNER[kind]
    assert URGENCY[kind] in Urgency
    assert due_at(kind, NOON, POLICY) > NOON
    assert OUTCOMES_FOR[kind]


@given(cases, st.sampled_from(CaseOutcome), st.booleans())
def test_no_way_to_end_a_case_passes_by_an_unconfirmed_reactive(facts, outcome, seconded):
    unconfirmed = reacting(facts.items) - facts.confirmed.keys()

    if unconfirmed and may_close(facts, outcome, seconded=seconded):
        assert outcome is CaseOutcome.NO_FURTHER_ACTION
        assert seconded
        assert facts.days_since_news >= FLOOR_REACTIVE_DAYS
        calls = (AttemptResult.NO_ANSWER, AttemptResult.VOICEMAIL, AttemptResult.WRONG_PERSON)
        calls += (AttemptResult.NUMBER_DEAD, AttemptResult.SPOKE)
        assert sum(facts.attempts.get(each, 0) for each in calls) >= FLOOR_CALLS


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"days_since_news": FLOOR_REACTIVE_DAYS - 1},
        {"attempts": {AttemptResult.VOICEMAIL: 2, AttemptResult.LETTER: 1}},
        {"texts_left": FLOOR_TEXTS - 1},
    ],
)
def test_who_reacted_and_can_not_be_found_may_be_given_up_by_two_after_the_whole_floor_and_four_weeks(changes):
    facts = case(CaseKind.REACTIVE, **{**DONE, "items": HIV_REACTED, "days_since_news": FLOOR_REACTIVE_DAYS, **changes})

    assert may_close(facts, CaseOutcome.NO_FURTHER_ACTION, seconded=True) == (not changes)
    assert not may_close(facts, CaseOutcome.NO_FURTHER_ACTION, seconded=False)


@given(cases, st.sampled_from(CaseOutcome))
def test_a_standing_positive_ends_only_as_looked_after_or_by_two_people_after_the_floor(facts, outcome):
    holds_positive = any(result is Outcome.POSITIVE for _, result in facts.items)
    looked_after = {CaseOutcome.TREATED, CaseOutcome.TOLD_AND_BOOKED, CaseOutcome.REFERRED}

    if holds_positive and may_close(facts, outcome):
        assert outcome in looked_after | {CaseOutcome.NO_FURTHER_ACTION}


@given(cases)
def test_one_person_alone_never_ends_a_case_without_further_action(facts):
    assert not may_close(facts, CaseOutcome.NO_FURTHER_ACTION, seconded=False)


@given(cases)
def test_no_further_action_takes_the_whole_floor_of_attempts_in_every_allowed_channel(facts):
    if may_close(facts, CaseOutcome.NO_FURTHER_ACTION):
        made = facts.attempts
        assert not facts.may_text or facts.texts_left >= FLOOR_TEXTS
        assert not facts.may_leave_voicemail or made.get(AttemptResult.VOICEMAIL, 0) >= FLOOR_VOICEMAILS
        assert not facts.letter_consent or made.get(AttemptResult.LETTER, 0) >= FLOOR_LETTERS
        assert sum(made.values()) + facts.texts_left >= 3


@pytest.mark.parametrize(
    "short",
    [
        {"attempts": FLOOR | {AttemptResult.VOICEMAIL: FLOOR_VOICEMAILS - 1}},
        {"attempts": FLOOR | {AttemptResult.LETTER: FLOOR_LETTERS - 1}},
        {"texts_left": FLOOR_TEXTS - 1},
    ],
)
def test_one_attempt_short_of_the_floor_is_too_few(short):
    assert may_close(case(**DONE), CaseOutcome.NO_FURTHER_ACTION)
    assert not may_close(case(**{**DONE, **short}), CaseOutcome.NO_FURTHER_ACTION)


def test_a_text_that_was_asked_for_and_never_left_does_not_count():
    facts = case(**{**DONE, "attempts": FLOOR | {AttemptResult.TEXT: 5}, "texts_left": 0})

    assert not may_close(facts, CaseOutcome.NO_FURTHER_ACTION)


def test_refusing_every_channel_does_not_make_the_floor_empty():
    refused = {"text_consent": False, "voicemail_consent": False, "letter_consent": False}

    assert not may_close(case(**refused), CaseOutcome.NO_FURTHER_ACTION)
    assert may_close(case(**refused, attempts={AttemptResult.NO_ANSWER: FLOOR_CALLS}), CaseOutcome.NO_FURTHER_ACTION)


def test_a_dead_number_takes_calls_and_a_letter_instead_of_texts_and_voicemails():
    dead = {AttemptResult.NUMBER_DEAD: FLOOR_CALLS, AttemptResult.LETTER: 1}

    assert may_close(case(attempts=dead, number_usable=False), CaseOutcome.NO_FURTHER_ACTION)
    assert not may_close(case(attempts=dead), CaseOutcome.NO_FURTHER_ACTION)


@given(cases)
def test_every_case_has_some_way_to_end_once_everything_was_done(facts):
    done = case(
        facts.kind,
        items=facts.items,
        **DONE,
        confirmed=dict.fromkeys(reacting(facts.items), Confirmation.NEGATIVE),
    )

    ends = [outcome for outcome in CaseOutcome if may_close(done, outcome)]

    has_positive = any(result is Outcome.POSITIVE for _, result in facts.items)
    holds_results = facts.kind not in (
        CaseKind.LAB_ROW,
        CaseKind.PARCEL,
        CaseKind.RESULTS_OVERDUE,
        CaseKind.ORDER_REVIEW,
        CaseKind.PARTNER_FOLLOW_UP,
    )
    assert ends or (has_positive and not holds_results)


@pytest.mark.parametrize(
    ("said", "ends_as"),
    [
        ([Confirmation.POSITIVE], CaseOutcome.CONFIRMED_POSITIVE),
        ([Confirmation.NEGATIVE], CaseOutcome.CONFIRMED_NEGATIVE),
        ([Confirmation.DECLINED], CaseOutcome.CONFIRMATION_DECLINED),
        ([Confirmation.NEGATIVE, Confirmation.POSITIVE], CaseOutcome.CONFIRMED_POSITIVE),
        ([Confirmation.NEGATIVE, Confirmation.DECLINED], CaseOutcome.CONFIRMATION_DECLINED),
    ],
)
def test_a_reactive_ends_as_its_confirmations_say_worst_first(said, ends_as):
    tests = [Test.HIV, Test.SYPHILIS][: len(said)]
    facts = case(
        CaseKind.REACTIVE,
        items=frozenset((test, Outcome.REACTIVE) for test in tests),
        confirmed=dict(zip(tests, said, strict=True)),
    )
    confirming = {
        CaseOutcome.CONFIRMED_POSITIVE,
        CaseOutcome.CONFIRMED_NEGATIVE,
        CaseOutcome.CONFIRMATION_DECLINED,
    }

    assert {outcome for outcome in confirming if may_close(facts, outcome)} == {ends_as}


def test_a_reactive_beside_a_positive_can_end_once_confirmed_and_treated():
    facts = case(
        CaseKind.REACTIVE,
        items=HIV_REACTED | {(Test.CHLAMYDIA, Outcome.POSITIVE)},
        confirmed={Test.HIV: Confirmation.NEGATIVE},
    )

    assert may_close(facts, CaseOutcome.TREATED)
    assert not may_close(facts, CaseOutcome.CONFIRMED_NEGATIVE)


def test_what_is_missing_is_said_in_one_sentence():
    with pytest.raises(
        ServiceError, match=r"stays open until a confirmatory outcome or refusal is recorded for: HIV\."
    ) as refused:
        check_may_close(case(CaseKind.REACTIVE, items=HIV_REACTED), CaseOutcome.CONFIRMED_NEGATIVE)

    assert refused.value.code is Code.NOT_NOW


@given(st.sampled_from(CaseKind), st.sampled_from(CaseKind))
def test_the_more_urgent_of_two_kinds_does_not_depend_on_their_order(one, other):
    assert more_urgent(one, other) is more_urgent(other, one)
    assert more_urgent(one, other) in (one, other)


@given(st.lists(st.sampled_from(Reason), min_size=1, max_size=3), st.frozensets(st.sampled_from(Outcome), max_size=4))
def test_what_a_case_is_about_is_never_milder_than_its_worst_result(reasons, outcomes):
    kind = kind_for(ReleaseDecision(ReleaseKind.PERSON, tuple(reasons), case=True), outcomes)

    if outcomes & IDENTITY_FAILURES:
        assert more_urgent(kind, CaseKind.IDENTITY) is kind
    if outcomes & REACTIONS:
        assert more_urgent(kind, CaseKind.REACTIVE) is kind
    if Outcome.POSITIVE in outcomes:
        assert more_urgent(kind, CaseKind.POSITIVE) is kind


@given(st.sampled_from(AttemptResult), st.integers(-100, 100))
def test_an_attempt_never_makes_a_case_due_sooner_or_leaves_it_without_a_due_time(result, hours):
    due = NOON + timedelta(hours=hours)

    moved = next_due_at(result, NOON, due, POLICY)

    assert moved >= due
    assert moved == due or moved > NOON


@pytest.mark.parametrize("result", [AttemptResult.WRONG_PERSON, AttemptResult.NUMBER_DEAD, AttemptResult.NOTE])
def test_a_wrong_number_or_a_note_buys_no_time(result):
    assert next_due_at(result, NOON, NOON, POLICY) == NOON


def test_after_a_talk_the_case_is_due_when_its_promise_should_be_kept():
    assert next_due_at(AttemptResult.SPOKE, NOON, NOON, POLICY) == NOON + timedelta(days=3)


# ── Resting and holding ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("until", "before", "may"),
    [
        (NOON + timedelta(days=7), 0, True),
        (NOON + timedelta(days=7, minutes=1), 0, False),
        (NOON, 0, False),
        (NOON + timedelta(days=1), POLICY.snoozes, False),
    ],
)
def test_a_case_rests_only_for_so_long_and_so_often(until, before, may):
    def rest() -> None:
        check_snooze(until, now=NOON, snoozed_before=before, policy=POLICY)

    if may:
        rest()
    else:
        with pytest.raises(ServiceError):
            rest()


@given(touched=st.integers(0, 200), due=st.integers(-100, 100))
def test_a_claim_goes_stale_only_when_the_case_is_due_and_its_holder_did_nothing(touched, due):
    stale = is_stale(touched=NOON - timedelta(hours=touched), due=NOON + timedelta(hours=due), now=NOON, policy=POLICY)

    assert not (stale and (due > 0 or touched < POLICY.claim_working_hours))
    assert stale or due > 0 or touched < 120


def test_nobody_was_spoken_to_who_did_not_say_name_and_date_of_birth():
    for ticked in (set(), {IdentityCheck.FULL_NAME}, {IdentityCheck.DATE_OF_BIRTH, IdentityCheck.POSTCODE}):
        with pytest.raises(ServiceError, match="it was not them"):
            check_identity(AttemptResult.SPOKE, ticked)
    check_identity(AttemptResult.SPOKE, {IdentityCheck.FULL_NAME, IdentityCheck.DATE_OF_BIRTH})
    check_identity(AttemptResult.NO_ANSWER, set())


# ── What to do next, and what an ending says ─────────────────────────────────────────────────


@given(cases)
def test_the_recommended_step_is_one_that_is_allowed(facts):
    step = next_step(facts)

    assert step is not Step.TEXT or facts.may_text
    assert step is not Step.VOICEMAIL or facts.may_leave_voicemail
    assert step is not Step.LETTER or facts.letter_consent
    if step is Step.GIVE_UP_BY_TWO:
        assert may_close(facts, CaseOutcome.NO_FURTHER_ACTION, seconded=True)


def test_the_ladder_leads_from_the_first_call_to_the_two_who_give_up():
    attempts: dict[AttemptResult, int] = {}
    texts, steps = 0, []
    tried = {
        Step.RING: AttemptResult.NO_ANSWER,
        Step.VOICEMAIL: AttemptResult.VOICEMAIL,
        Step.LETTER: AttemptResult.LETTER,
    }
    while (step := next_step(case(attempts=attempts, texts_left=texts))) is not Step.GIVE_UP_BY_TWO:
        steps.append(step)
        if step is Step.TEXT:
            texts += 1
        else:
            attempts[tried[step]] = attempts.get(tried[step], 0) + 1

    assert steps == [Step.RING, *[Step.TEXT] * 3, *[Step.VOICEMAIL] * 2, Step.LETTER]


TODAY = date(2026, 11, 24)
WHOLE = {
    CaseOutcome.TOLD_AND_BOOKED: EndingDetails("Larkfield clinic", TODAY + timedelta(days=1)),
    CaseOutcome.TREATED: EndingDetails("", TODAY, Treatment.IN_CLINIC),
    CaseOutcome.REFERRED: EndingDetails("Larkfield clinic", TODAY),
    CaseOutcome.SAFEGUARDING_REFERRED: EndingDetails("Larkfield children's services", TODAY),
}


@pytest.mark.parametrize("outcome", WHOLE)
def test_an_ending_that_names_something_outside_says_where_when_and_how(outcome):
    check_ending(outcome, WHOLE[outcome], today=TODAY)

    with pytest.raises(ServiceError):
        check_ending(outcome, EndingDetails(), today=TODAY)


@pytest.mark.parametrize(("outcome", "days"), [(CaseOutcome.TOLD_AND_BOOKED, -1), (CaseOutcome.TREATED, 1)])
def test_a_booking_lies_ahead_and_a_treatment_behind(outcome, days):
    whole = WHOLE[outcome]
    turned = EndingDetails(whole.place, TODAY + timedelta(days=days), whole.treatment)

    with pytest.raises(ServiceError, match=r"give (the|its) day"):
        check_ending(outcome, turned, today=TODAY)


@pytest.mark.parametrize("signed", [None, *REMOTE])
@pytest.mark.parametrize("way", REMOTE)
def test_treatment_without_a_visit_takes_a_prescribers_signature_for_that_very_way(way, signed):
    details = EndingDetails("", TODAY, way)

    if way is signed:
        check_ending(CaseOutcome.TREATED, details, today=TODAY, remote_signed=signed)
    else:
        with pytest.raises(ServiceError, match="prescriber's signature"):
            check_ending(CaseOutcome.TREATED, details, today=TODAY, remote_signed=signed)
