"""Cases: nothing is without an owner, a due time and a way to end, and nothing ends too early."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules.clinic import (
    FLOOR_CALLS,
    FLOOR_LETTERS,
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
    Urgency,
    check_may_close,
    due_at,
    kind_for,
    more_urgent,
    next_due_at,
    reacting,
)
from models.rules.errors import Code, ServiceError
from models.rules.release import Reason, ReleaseDecision, ReleaseKind
from models.rules.service import ClinicPolicy
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


FLOOR = {
    AttemptResult.TEXT: FLOOR_TEXTS,
    AttemptResult.VOICEMAIL: FLOOR_VOICEMAILS,
    AttemptResult.LETTER: FLOOR_LETTERS,
}
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

    assert not (unconfirmed and may_close(facts, outcome, seconded=seconded))


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
        assert not facts.text_consent or made.get(AttemptResult.TEXT, 0) >= FLOOR_TEXTS
        assert not facts.voicemail_consent or made.get(AttemptResult.VOICEMAIL, 0) >= FLOOR_VOICEMAILS
        assert not facts.letter_consent or made.get(AttemptResult.LETTER, 0) >= FLOOR_LETTERS
        assert sum(made.values()) >= 3


@pytest.mark.parametrize("short_of", FLOOR)
def test_one_attempt_short_of_the_floor_is_too_few(short_of):
    attempts = FLOOR | {short_of: FLOOR[short_of] - 1}

    assert may_close(case(attempts=FLOOR), CaseOutcome.NO_FURTHER_ACTION)
    assert not may_close(case(attempts=attempts), CaseOutcome.NO_FURTHER_ACTION)


def test_refusing_every_channel_does_not_make_the_floor_empty():
    refused = {"text_consent": False, "voicemail_consent": False, "letter_consent": False}

    assert not may_close(case(**refused), CaseOutcome.NO_FURTHER_ACTION)
    assert may_close(case(**refused, attempts={AttemptResult.NO_ANSWER: FLOOR_CALLS}), CaseOutcome.NO_FURTHER_ACTION)


@given(cases)
def test_every_case_has_some_way_to_end_once_everything_was_done(facts):
    done = case(
        facts.kind,
        items=facts.items,
        attempts=FLOOR,
        confirmed=dict.fromkeys(reacting(facts.items), Confirmation.NEGATIVE),
    )

    ends = [outcome for outcome in CaseOutcome if may_close(done, outcome)]

    has_positive = any(result is Outcome.POSITIVE for _, result in facts.items)
    holds_results = facts.kind not in (
        CaseKind.LAB_ROW,
        CaseKind.PARCEL,
        CaseKind.RESULTS_OVERDUE,
        CaseKind.ORDER_REVIEW,
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
