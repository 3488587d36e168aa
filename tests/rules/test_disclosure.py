"""No small number is shown, and none can be worked out from a total."""

from hypothesis import given
from hypothesis import strategies as st

from models.rules.disclosure import SMALLEST_SHOWN, suppress, suppress_parts

counts = st.dictionaries(st.sampled_from(["E09000001", "E09000019", "E08000035", "W06000015"]), st.integers(0, 40))


@given(counts)
def test_no_small_number_is_shown(given_counts):
    shown = suppress(given_counts)

    assert shown.keys() == given_counts.keys()
    assert not any(count is not None and 0 < count < SMALLEST_SHOWN for count in shown.values())


@given(counts)
def test_no_withheld_number_follows_from_the_total(given_counts):
    withheld = [name for name, count in suppress(given_counts).items() if count is None]
    shown_for_sure = [name for name, count in given_counts.items() if count == 0 or count >= SMALLEST_SHOWN]

    assert len(withheld) != 1 or not [name for name in shown_for_sure if given_counts[name] >= SMALLEST_SHOWN]


@given(counts)
def test_what_is_shown_is_true(given_counts):
    assert all(count is None or count == given_counts[name] for name, count in suppress(given_counts).items())


parts = st.integers(0, 40).flatmap(lambda whole: st.tuples(st.just(whole), st.integers(0, whole)))


@given(st.dictionaries(st.sampled_from(["reactive", "positive", "failed"]), parts))
def test_of_a_part_neither_it_nor_what_is_left_beside_it_is_small(given_counts):
    for whole, part in suppress_parts(given_counts).values():
        assert whole is not None or part is None
        for shown in (whole, part, None if None in (whole, part) else whole - part):
            assert shown is None or shown == 0 or shown >= SMALLEST_SHOWN
