"""What a new row changes: whatever the order of arrival, a correction is never 'no effect' (ruling 1)."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from models.rules.versions import Change, Word, compare
from models.rules.vocabulary import Outcome, ReportStatus

NINE = datetime(2026, 11, 3, 9, tzinfo=UTC)
LATER = NINE + timedelta(hours=3)

outcomes = st.sampled_from(Outcome)
times = st.sampled_from([None, NINE, LATER])
words = st.builds(Word, outcomes, st.sampled_from(ReportStatus), times, st.booleans(), st.booleans())


@given(words, words)
def test_a_row_that_says_something_else_is_a_repeat_of_nothing(new: Word, current: Word) -> None:
    if new.outcome is not current.outcome:
        assert compare(new, current) is not Change.REPEAT


@given(words, words)
def test_a_corrected_or_withdrawn_row_is_never_only_history(new: Word, current: Word) -> None:
    if new.status in {ReportStatus.CORRECTED, ReportStatus.WITHDRAWN} and new.outcome is not Outcome.PENDING:
        assert compare(new, current) is not Change.OUT_OF_ORDER


@given(words, words)
def test_bad_news_after_a_negative_is_never_lost(new: Word, current: Word) -> None:
    bad = {Outcome.POSITIVE, Outcome.REACTIVE, Outcome.LOW_REACTIVE, Outcome.EQUIVOCAL}
    if current.outcome is Outcome.NEGATIVE and new.outcome in bad:
        assert compare(new, current) in {Change.CORRECTION, Change.FROZEN, Change.CONFLICT}


@given(words)
def test_the_same_word_again_is_a_repeat(word: Word) -> None:
    assert compare(word, word) is Change.REPEAT


def test_negative_positive_negative_is_two_corrections() -> None:
    steps = [
        Word(outcome, ReportStatus.FINAL, NINE + timedelta(hours=hour))
        for hour, outcome in enumerate([Outcome.NEGATIVE, Outcome.POSITIVE, Outcome.NEGATIVE])
    ]

    assert compare(steps[1], steps[0]) is Change.CORRECTION
    assert compare(steps[2], steps[1]) is Change.CORRECTION


def test_a_correction_with_an_old_time_freezes_instead_of_vanishing() -> None:
    negative = Word(Outcome.NEGATIVE, ReportStatus.FINAL, LATER)

    assert compare(Word(Outcome.POSITIVE, ReportStatus.CORRECTED, NINE), negative) is Change.FROZEN


def test_an_old_negative_after_a_corrected_positive_is_history() -> None:
    positive = Word(Outcome.POSITIVE, ReportStatus.CORRECTED, LATER)

    assert compare(Word(Outcome.NEGATIVE, ReportStatus.FINAL, NINE), positive) is Change.OUT_OF_ORDER


def test_interim_then_final_ends_final_in_either_order() -> None:
    interim = Word(Outcome.PENDING, ReportStatus.PRELIMINARY, NINE)
    final = Word(Outcome.NEGATIVE, ReportStatus.FINAL, LATER)

    assert compare(final, interim) is Change.PROGRESS
    assert compare(interim, final) is Change.OUT_OF_ORDER


def test_a_result_taken_back_to_interim_is_a_correction() -> None:
    final = Word(Outcome.NEGATIVE, ReportStatus.FINAL, NINE)

    assert compare(Word(Outcome.PENDING, ReportStatus.PRELIMINARY, LATER), final) is Change.CORRECTION


def test_two_final_words_that_no_time_orders_are_a_conflict() -> None:
    for time in (None, NINE):
        negative, positive = (Word(o, ReportStatus.FINAL, time) for o in (Outcome.NEGATIVE, Outcome.POSITIVE))
        assert compare(negative, positive) is Change.CONFLICT
        assert compare(positive, negative) is Change.CONFLICT


def test_every_arrival_order_of_interim_final_and_correction_ends_positive_or_with_a_person() -> None:
    story = [
        Word(Outcome.PENDING, ReportStatus.PRELIMINARY, NINE),
        Word(Outcome.NEGATIVE, ReportStatus.FINAL, NINE + timedelta(hours=1)),
        Word(Outcome.POSITIVE, ReportStatus.CORRECTED, NINE + timedelta(hours=2)),
    ]
    for order in permutations(story):
        current: Word | None = None
        for word in order:
            if compare(word, current) in {Change.FIRST, Change.PROGRESS, Change.CORRECTION}:
                current = word
        assert current is not None
        assert current.outcome is Outcome.POSITIVE
