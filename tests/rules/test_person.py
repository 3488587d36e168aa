"""Ages to the day, postcodes as people write them, and the foldings behind the blind indexes."""

import string
from datetime import date, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.rules.person import (
    age_on,
    fold_address,
    fold_email,
    fold_name,
    is_possible_birth_date,
    read_postcode,
)

DAYS = st.dates(date(1905, 1, 1), date(2060, 12, 31))


@pytest.mark.parametrize(
    ("born", "on", "age"),
    [
        (date(2010, 11, 24), date(2026, 11, 23), 15),
        (date(2010, 11, 24), date(2026, 11, 24), 16),
        (date(2008, 2, 29), date(2026, 2, 28), 17),
        (date(2008, 2, 29), date(2026, 3, 1), 18),
        (date(2008, 2, 29), date(2028, 2, 29), 20),
        (date(2026, 11, 24), date(2026, 11, 24), 0),
        (date(2026, 11, 25), date(2026, 11, 24), -1),
    ],
)
def test_an_age_is_reached_on_the_birthday_and_not_a_day_before(born: date, on: date, age: int) -> None:
    assert age_on(born, on) == age


@given(DAYS, DAYS)
def test_nobody_grows_younger_and_nobody_ages_a_year_twice_in_one(born: date, on: date) -> None:
    today, tomorrow = age_on(born, on), age_on(born, on + timedelta(days=1))

    assert tomorrow - today in (0, 1)


def test_a_birth_in_the_future_or_120_years_ago_is_impossible() -> None:
    today = date(2026, 11, 24)

    assert not is_possible_birth_date(date(2026, 11, 25), today)
    assert not is_possible_birth_date(date(1905, 11, 24), today)
    assert is_possible_birth_date(date(1905, 11, 25), today)
    assert is_possible_birth_date(today, today)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("LS1 4AP", "LS1 4AP"),
        ("ls14ap", "LS1 4AP"),
        (" sw1a\t1aa ", "SW1A 1AA"),
        ("L 1 8 J Q", "L1 8JQ"),
        ("BT1 5GS", "BT1 5GS"),
        ("JE2 3AB", "JE2 3AB"),
        ("LS1 4AC", None),
        ("XX1 1AA", None),
        ("A9A 9AA", None),
        ("GX11 1AA", None),
        ("LI 8JQ", None),
        ("75008", None),
        ("D02 AF30", None),
        ("", None),
    ],
)
def test_a_postcode_is_read_as_people_write_it_and_never_repaired(written: str, read: str | None) -> None:
    assert read_postcode(written) == read


@given(st.text(alphabet=string.ascii_letters + string.digits + " ", max_size=9))
def test_reading_a_postcode_twice_changes_nothing(text: str) -> None:
    read = read_postcode(text)

    assert read is None or read_postcode(read) == read


@pytest.mark.parametrize("spelling", ["O'Dunmere", "O’DUNMERE", "o dunmere", "Ó Dunmére", "O-Dunmere"])
def test_spellings_of_one_name_fold_to_one(spelling: str) -> None:
    assert fold_name(spelling) == "odunmere"


def test_letters_that_do_not_decompose_fold_as_laboratories_write_them() -> None:
    assert fold_name("Søren Łukasz Æther Strauß") == "sorenlukaszaetherstrauss"


def test_two_families_do_not_fold_to_one() -> None:
    assert fold_name("Smith") != fold_name("Smyth")


@given(st.text(max_size=30))
@example("\N{SQUARE PH}")
def test_folding_a_name_twice_changes_nothing(name: str) -> None:
    assert fold_name(fold_name(name)) == fold_name(name)


def test_an_email_folds_case_and_outer_space_only() -> None:
    assert fold_email(" Testina.Kit+a@Example.ORG ") == "testina.kit+a@example.org"


@pytest.mark.parametrize(
    "lines",
    [
        ("Flat 2", "10 High Street", "Leeds"),
        ("Flat 2, 10 High St.",),
        ("10 HIGH STREET", "FLAT 2"),
        ("Apt 2", "10, High Street", "Headingley", "Leeds"),
    ],
)
def test_one_dwelling_folds_to_one_however_it_is_written(lines: tuple[str, ...]) -> None:
    assert fold_address(lines, "ls1 4ap") == "LS14AP|10|2"


def test_a_house_with_a_name_only_folds_by_its_first_line() -> None:
    assert fold_address(("St. Mary's Lodge", "Leeds"), "LS1 4AP") == "LS14AP|st|marys|lodge"


def test_neighbours_do_not_fold_to_one() -> None:
    assert fold_address(("10 High Street",), "LS1 4AP") != fold_address(("10a High Street",), "LS1 4AP")
