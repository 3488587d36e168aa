"""Whether a text may leave, and what a provider's words mean (sms-and-post.md A1; H5, H9, H11, H23)."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules.kit import CLOSED_TO_TEXTS, KitState
from models.rules.release import ReleaseKind
from models.rules.service import TextPolicy, TextWindow
from models.rules.text import CLASS_OF, TextClass, TextPurpose, window_of
from models.rules.text_delivery import (
    CONTENT,
    FINAL,
    REFUSED,
    REMEDIES,
    Decided,
    Leaving,
    Obstacle,
    again_at,
    ask_after,
    backoff,
    hears_by,
    merged,
    obstacle,
    remedy_for,
    still_stands,
)
from models.rules.vocabulary import DeliveryStatus, RefusalKind
from models.rules.working_days import LONDON, is_open

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
"""A Tuesday."""
CLEAR = Leaving(
    purpose=TextPurpose.ALL_CLEAR,
    stands=True,
    kit_state=KitState.REPORTED,
    kit_frozen=False,
    own_contact=True,
    text_consent=True,
    number_theirs=True,
    number_frozen=False,
    proved_at=NOON - timedelta(days=20),
)
WINDOW = TextPolicy().result_window

statuses = st.sampled_from(DeliveryStatus)


def stops(**changes: object) -> Obstacle | None:
    return obstacle(replace(CLEAR, **changes), now=NOON, proof_max_age_days=180)


def test_a_text_with_nothing_against_it_may_leave():
    assert stops() is None


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"stands": False}, Obstacle.SUPERSEDED),
        ({"kit_frozen": True}, Obstacle.KIT_FROZEN),
        ({"kit_state": KitState.REPLACED}, Obstacle.KIT_ENDED),
        ({"kit_state": KitState.CANCELLED}, Obstacle.KIT_ENDED),
        ({"kit_state": None}, Obstacle.KIT_ENDED),
        ({"own_contact": False}, Obstacle.OTHER_CONTACT),
        ({"text_consent": False}, Obstacle.NO_CONSENT),
        ({"number_theirs": False}, Obstacle.NUMBER_NOT_THEIRS),
        ({"number_frozen": True}, Obstacle.NUMBER_FROZEN),
        ({"proved_at": NOON - timedelta(days=181)}, Obstacle.NUMBER_NOT_FRESH),
    ],
)
def test_each_single_doubt_stops_a_result_text(changes, found):
    assert stops(**changes) is found


def test_the_neutral_text_needs_no_fresh_proof_because_it_tells_nothing():
    assert stops(purpose=TextPurpose.PLEASE_EXPECT_OUR_CALL, proved_at=NOON - timedelta(days=900)) is None


def test_every_text_that_tells_a_result_needs_a_fresh_number():
    telling = {purpose for purpose in TextPurpose if CLASS_OF[purpose] is TextClass.RESULT}

    assert telling - {TextPurpose.PLEASE_EXPECT_OUR_CALL} == CONTENT


@given(st.sampled_from(TextPurpose), st.booleans(), st.booleans(), st.booleans())
def test_nothing_at_all_leaves_without_consent_on_the_persons_own_unfrozen_number(purpose, consent, theirs, frozen):
    found = stops(purpose=purpose, text_consent=consent, number_theirs=theirs, number_frozen=frozen)

    assert found is not None or (consent and theirs and not frozen)


def test_a_reminder_stops_with_the_first_return_scan():
    reminder = {"purpose": TextPurpose.RETURN_REMINDER}

    assert stops(**reminder, kit_state=KitState.DISPATCHED) is None
    assert stops(**reminder, kit_state=KitState.COMING_BACK) is Obstacle.NO_LONGER_DUE


def test_a_kit_that_turned_up_is_not_told_to_have_lapsed():
    assert stops(purpose=TextPurpose.KIT_LAPSED, kit_state=KitState.AT_LAB) is Obstacle.NO_LONGER_DUE


@pytest.mark.parametrize("state", sorted(CLOSED_TO_TEXTS - {KitState.CLOSED}))
def test_no_result_leaves_for_a_kit_that_ended(state):
    assert stops(kit_state=state) is Obstacle.KIT_ENDED


def test_the_same_answer_on_the_same_results_still_stands():
    first, again = Decided(1, ReleaseKind.ALL_CLEAR, "a"), Decided(2, ReleaseKind.ALL_CLEAR, "a")

    assert still_stands(TextPurpose.ALL_CLEAR, first, again)


@pytest.mark.parametrize("current", [Decided(2, ReleaseKind.ALL_CLEAR, "b"), Decided(2, ReleaseKind.CALL, "a"), None])
def test_other_results_or_another_answer_supersede_a_text(current):
    assert not still_stands(TextPurpose.ALL_CLEAR, Decided(1, ReleaseKind.ALL_CLEAR, "a"), current)


def test_a_result_text_without_a_decision_never_stands():
    assert not still_stands(TextPurpose.ALL_CLEAR, None, Decided(1, ReleaseKind.ALL_CLEAR, "a"))


def test_the_neutral_text_outlives_its_decision_until_one_tells_by_text():
    first = Decided(1, ReleaseKind.CALL, "a")

    assert still_stands(TextPurpose.PLEASE_EXPECT_OUR_CALL, first, Decided(2, ReleaseKind.PERSON, "b"))
    assert not still_stands(TextPurpose.PLEASE_EXPECT_OUR_CALL, first, Decided(2, ReleaseKind.ALL_CLEAR, "b"))


@given(st.lists(statuses, min_size=1, max_size=3))
def test_the_order_and_number_of_callbacks_does_not_matter(said):
    known = {word for word in said if word not in (DeliveryStatus.FAILED, DeliveryStatus.CANCELLED)}
    ends = set()
    for order in itertools.permutations([*said, said[0]]):
        status = None
        for word in order:
            status = merged(status, word)
        ends.add(status)

    # Failed and cancelled are equally final: whichever came first stays.
    assert len(ends) == 1 or ends <= FINAL - {DeliveryStatus.DELIVERED}
    assert (DeliveryStatus.DELIVERED in known) == (ends == {DeliveryStatus.DELIVERED})


@given(statuses)
def test_delivered_is_never_taken_back(said):
    assert merged(DeliveryStatus.DELIVERED, said) is DeliveryStatus.DELIVERED


@given(statuses.filter(lambda status: status not in FINAL))
def test_a_late_word_never_reopens_a_failure(said):
    assert merged(DeliveryStatus.FAILED, said) is DeliveryStatus.FAILED


@given(st.text(max_size=8).filter(lambda code: code not in REMEDIES))
def test_an_unknown_code_is_permanent_and_rings_the_alarm(code):
    remedy = remedy_for(code)

    assert remedy.alarm
    assert not remedy.again


def test_a_phone_that_is_off_is_tried_four_hours_later_and_then_on_the_next_working_day_and_no_more():
    remedy = remedy_for("30003")
    friday = datetime(2026, 11, 27, 10, 0, tzinfo=UTC)

    assert again_at(remedy, 1, friday, WINDOW) == datetime(2026, 11, 27, 14, 0, tzinfo=UTC)
    assert again_at(remedy, 2, friday, WINDOW) == datetime(2026, 11, 30, 9, 0, tzinfo=UTC)
    assert again_at(remedy, 3, friday, WINDOW) is None


def test_an_unknown_failure_is_tried_once_more_after_a_quarter_of_an_hour():
    remedy = remedy_for("30008")

    assert again_at(remedy, 1, NOON, WINDOW) == NOON + timedelta(minutes=15)
    assert again_at(remedy, 2, NOON, WINDOW) is None


@given(
    st.sampled_from(sorted(REMEDIES)),
    st.integers(1, 3),
    st.integers(0, 2 * 365 * 24 * 60),
    st.sampled_from(TextPurpose),
)
def test_no_try_is_ever_made_outside_the_hours(code, failures, minutes, purpose):
    window = window_of(purpose, TextPolicy())
    again = again_at(remedy_for(code), failures, NOON + timedelta(minutes=minutes), window)

    assert again is None or is_open(again, window)


def test_a_try_on_the_night_that_the_clocks_go_back_is_in_londons_hours():
    saturday = datetime(2026, 10, 24, 18, 30, tzinfo=UTC)
    window = TextWindow(time(8), time(20), working_days_only=False)

    again = again_at(remedy_for("30003"), 1, saturday, window)

    assert again is not None
    assert again.astimezone(LONDON).time() == time(8)
    assert again == datetime(2026, 10, 25, 8, 0, tzinfo=UTC)


@pytest.mark.parametrize("code", ["30004", "30005", "30006"])
def test_a_dead_blocked_or_landline_number_is_frozen(code):
    assert remedy_for(code).freezes_number
    assert not remedy_for(code).again


@pytest.mark.parametrize("kind", RefusalKind)
def test_a_refusal_is_never_tried_again(kind):
    assert not REFUSED[kind].again


@pytest.mark.parametrize("kind", [RefusalKind.OPTED_OUT, RefusalKind.LANDLINE, RefusalKind.BAD_NUMBER])
def test_a_number_that_can_not_be_texted_is_frozen(kind):
    assert REFUSED[kind].freezes_number


@given(st.integers(1, 10_000), st.none() | st.floats(0, 3600))
def test_waiting_grows_to_a_quarter_of_an_hour_and_honours_the_provider(tries, asked):
    wait = backoff(tries, asked)

    assert timedelta(seconds=15) <= wait
    assert wait >= timedelta(seconds=asked or 0)
    assert wait <= max(timedelta(minutes=15), timedelta(seconds=asked or 0))


def test_a_silent_text_is_asked_about_three_times():
    assert [ask_after(n) for n in range(4)] == [timedelta(minutes=30), timedelta(hours=6), timedelta(hours=24), None]


@pytest.mark.parametrize(
    ("known_at", "by"),
    [
        ("2026-11-24T06:00", "2026-11-24T16:30"),  # before the window: today
        ("2026-11-24T12:00", "2026-11-24T16:30"),
        ("2026-11-24T16:30", "2026-11-25T16:30"),  # the window is over: tomorrow
        ("2026-11-27T18:00", "2026-11-30T16:30"),  # Friday evening: Monday
        ("2026-12-24T17:00", "2026-12-29T16:30"),  # Christmas, Boxing Day's substitute on Monday
        ("2026-10-24T12:00", "2026-10-26T16:30"),  # the clocks go back in between
    ],
)
def test_whoever_has_a_result_hears_by_the_end_of_that_working_day(known_at, by):
    window = TextWindow(time(9), time(16, 30), working_days_only=True)

    known, due = (datetime.fromisoformat(each).replace(tzinfo=LONDON) for each in (known_at, by))
    assert hears_by(known, window) == due
