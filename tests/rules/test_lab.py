"""A lab's map and the times it writes: what can't be configured, and what is never guessed."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules import lab_time
from models.rules.lab import PLAIN, LabMap, SingleCode, fold_token
from models.rules.vocabulary import BLOOD_TESTS, SWAB_TESTS, Outcome, Test
from tests.support.lab import maps, northlab

LONDON = "Europe/London"


@pytest.mark.parametrize("test", sorted(BLOOD_TESTS))
def test_no_map_can_make_a_blood_screen_positive(test: Test) -> None:
    with pytest.raises(ValueError, match="never positive"):
        replace(northlab(), outcomes={test: {(PLAIN, "detected"): Outcome.POSITIVE}})


@pytest.mark.parametrize("test", sorted(SWAB_TESTS))
@pytest.mark.parametrize("outcome", [Outcome.REACTIVE, Outcome.LOW_REACTIVE])
def test_no_map_can_make_a_swab_reactive(test: Test, outcome: Outcome) -> None:
    with pytest.raises(ValueError, match="swab"):
        replace(northlab(), outcomes={test: {(PLAIN, "reactive"): outcome}})


@pytest.mark.parametrize("outcome", [Outcome.PENDING, Outcome.WITHDRAWN])
def test_no_result_word_can_stand_for_a_status(outcome: Outcome) -> None:
    with pytest.raises(ValueError, match="status"):
        replace(northlab(), outcomes={Test.HIV: {(PLAIN, "wait"): outcome}})


@pytest.mark.parametrize("outcome", [Outcome.NEGATIVE, Outcome.POSITIVE, Outcome.REACTIVE, Outcome.EQUIVOCAL])
def test_no_cancellation_can_be_a_finding(outcome: Outcome) -> None:
    with pytest.raises(ValueError, match="cancel"):
        replace(northlab(), cancel_reasons={"none": outcome})


def test_no_combined_value_can_make_a_blood_screen_positive() -> None:
    with pytest.raises(ValueError, match="never positive"):
        replace(northlab(), combined_outcomes={"both detected": {Test.HIV: Outcome.POSITIVE}})


def test_a_test_code_names_its_sites() -> None:
    with pytest.raises(ValueError, match="sites"):
        replace(northlab(), tests={("local", "x"): SingleCode(Test.HIV, frozenset())})


@pytest.mark.parametrize("lab", maps().values(), ids=lambda lab: lab.lab)
def test_no_shipped_map_reads_an_ambiguous_word_outside_its_own_lab(lab: LabMap) -> None:
    words = {word for by_test in lab.outcomes.values() for _, word in by_test}

    ambiguous = {"nr", "nd", "neg?", "ind", "+/-", "0"} & words
    assert ambiguous <= ({"nr"} if lab.lab == "SOUTHVALE" else set())


@given(st.text(max_size=30))
def test_folding_a_word_twice_changes_nothing_more(word: str) -> None:
    assert fold_token(fold_token(word)) == fold_token(word)


# ── Times ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        ("20261102", lab_time.HL7, datetime(2026, 11, 2, tzinfo=UTC)),
        ("20260702", lab_time.HL7, datetime(2026, 7, 1, 23, tzinfo=UTC)),
        ("2026110208", lab_time.HL7, datetime(2026, 11, 2, 8, tzinfo=UTC)),
        ("202611020812", lab_time.HL7, datetime(2026, 11, 2, 8, 12, tzinfo=UTC)),
        ("20261102081259.1234", lab_time.HL7, datetime(2026, 11, 2, 8, 12, 59, 123_400, tzinfo=UTC)),
        ("20261102081259+0100", lab_time.HL7, datetime(2026, 11, 2, 7, 12, 59, tzinfo=UTC)),
        ("20261102081259-0530", lab_time.HL7, datetime(2026, 11, 2, 13, 42, 59, tzinfo=UTC)),
        ("20260702120000^0000", lab_time.HL7, datetime(2026, 7, 2, 12, tzinfo=UTC)),
        ("20261102^0000", lab_time.HL7, datetime(2026, 11, 2, tzinfo=UTC)),
        ("2026-07-02", lab_time.FHIR, datetime(2026, 7, 1, 23, tzinfo=UTC)),
        ("2026-07-02T12:00:00Z", lab_time.FHIR, datetime(2026, 7, 2, 12, tzinfo=UTC)),
        ("2026-07-02T12:00:00.123+01:00", lab_time.FHIR, datetime(2026, 7, 2, 11, 0, 0, 123_000, tzinfo=UTC)),
        ("2026-11-04T12:00:00Z", lab_time.ISO8601, datetime(2026, 11, 4, 12, tzinfo=UTC)),
        ("03/04/2026 09:05", "%d/%m/%Y %H:%M", datetime(2026, 4, 3, 8, 5, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_as_it_was_written(text: str, form: str, expected: datetime) -> None:
    found = lab_time.read_time(text, form, LONDON)

    assert found is not None
    assert found.at == expected


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("1999", lab_time.HL7),
        ("199902", lab_time.HL7),
        ("20260230", lab_time.HL7),
        ("2026110224", lab_time.HL7),
        ("2026-11-02", lab_time.HL7),
        ("２０２６1102", lab_time.HL7),
        ("1999-02", lab_time.FHIR),
        ("2026-07-02T12:00:00", lab_time.FHIR),
        ("20260702", lab_time.FHIR),
        ("2026-11-04T12:00:00", lab_time.ISO8601),
        ("2026-11-04", lab_time.ISO8601),
        ("45963", "%d/%m/%Y"),
        ("13/25/2026", "%d/%m/%Y"),
        ("20261102120000+4000", lab_time.HL7),
        ("2026-11-03T08:05:00+40:00", lab_time.FHIR),
        ("0001-01-01T00:00:00+14:00", lab_time.FHIR),
        ("99991231235959-1200", lab_time.HL7),
        ("", lab_time.HL7),
    ],
)
def test_a_time_that_is_not_certain_to_the_day_is_none(text: str, form: str) -> None:
    assert lab_time.read_time(text, form, LONDON) is None


def test_an_hour_that_the_clocks_skip_is_marked() -> None:
    found = lab_time.read_time("202703280130", lab_time.HL7, LONDON)

    assert found is not None
    assert found.is_doubtful


@given(st.datetimes(datetime(1970, 1, 1), datetime(2060, 1, 1)))  # noqa: DTZ001 - hypothesis asks for naive bounds
def test_an_hl7_time_in_utc_survives_the_round_trip(moment: datetime) -> None:
    moment = moment.replace(microsecond=0, tzinfo=UTC)

    found = lab_time.read_time(moment.strftime("%Y%m%d%H%M%S+0000"), lab_time.HL7, LONDON)

    assert found is not None
    assert found.at == moment
