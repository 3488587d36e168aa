"""Partners: numbers that can be true, and a count again after four weeks."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules.errors import ServiceError
from models.rules.partners import PartnerCounts, check_partners, follow_up_at

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
