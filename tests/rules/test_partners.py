"""Partners: numbers that can be true, and a count again after four weeks."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules.errors import ServiceError
from models.rules.partners import PartnerCounts, check_partners, follow_up_at, standing_since

numbers = st.integers(-1, 5)


@given(st.builds(PartnerCounts, numbers, numbers, numbers, numbers, numbers, numbers))
def test_no_later_stage_ever_holds_more_people_than_the_one_it_follows(counts):
    try:
        check_partners(counts)
    except ServiceError:
        return
    assert counts.elicited >= counts.contactable >= counts.notified >= max(counts.tested, counts.treated)
    assert counts.tested >= counts.verified >= 0
    assert counts.treated >= 0


def test_a_whole_cascade_is_taken():
    check_partners(PartnerCounts(3, 2, 2, 1, 1, 1))


def test_a_number_that_no_form_of_surveillance_can_hold_is_refused():
    with pytest.raises(ServiceError, match="0 to 999"):
        check_partners(PartnerCounts(1000, 0, 0, 0, 0, 0))


def test_partners_are_counted_again_four_weeks_after_the_first_talk():
    talk = datetime(2026, 11, 24, 12, tzinfo=UTC)

    assert follow_up_at(talk) - talk == timedelta(weeks=4)


def test_each_stage_has_the_day_since_which_its_number_stands():
    first = datetime(2026, 11, 24, 23, 30, tzinfo=UTC)
    counted = [
        (first, PartnerCounts(2, 1, 0, 0, 0, 0)),
        (first + timedelta(days=3), PartnerCounts(2, 2, 1, 0, 0, 0)),
        (first + timedelta(days=28), PartnerCounts(2, 2, 1, 1, 0, 1)),
    ]

    assert standing_since(counted) == {
        "elicited": date(2026, 11, 24),
        "contactable": date(2026, 11, 27),
        "notified": date(2026, 11, 27),
        "tested": date(2026, 12, 22),
        "treated": date(2026, 12, 22),
    }


def test_a_number_taken_back_to_nobody_has_no_day():
    at = datetime(2026, 6, 30, 23, 30, tzinfo=UTC)  # 1 July in London
    counted = [(at, PartnerCounts(1, 1, 1, 0, 0, 0)), (at + timedelta(hours=1), PartnerCounts(1, 1, 0, 0, 0, 0))]

    assert standing_since(counted) == {"elicited": date(2026, 7, 1), "contactable": date(2026, 7, 1)}
