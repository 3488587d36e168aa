"""Kit codes and kit states (FEATURES 15; ruling 10; sms-and-post.md B2)."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules.kit import (
    ALPHABET,
    CLOSED_TO_TEXTS,
    KIT_MOVES,
    KitState,
    is_kit_code,
    may_move,
    new_kit_code,
    new_parcel_code,
    normalise_kit_code,
    normalise_tube_code,
    show_kit_code,
    show_tube_code,
)

codes = st.randoms(use_true_random=False).map(lambda source: new_kit_code(source.choice))
places = st.integers(0, 9)


@given(codes)
def test_every_new_code_is_a_kit_code(code):
    assert is_kit_code(code)


@given(codes, places, st.sampled_from(ALPHABET))
def test_one_wrong_character_never_makes_another_kit_code(code, place, character):
    wrong = code[:place] + character + code[place + 1 :]

    assert is_kit_code(wrong) == (wrong == code)


@given(codes, places, places)
def test_two_swapped_characters_never_make_another_kit_code(code, one, other):
    swapped = list(code)
    swapped[one], swapped[other] = swapped[other], swapped[one]

    assert is_kit_code("".join(swapped)) == ("".join(swapped) == code)


@given(codes)
def test_a_code_as_it_is_shown_is_read_back(code):
    assert normalise_kit_code(f" {show_kit_code(code).lower()} ") == code
    assert normalise_tube_code(show_tube_code(code + "3")) == code + "3"


@pytest.mark.parametrize(
    "text", ["", "O", "7K3-F9X-N2PO", "7K3-F9X-N2P", "0" * 10, "AEIOUAEIOU", "7K3F9XN2PP7K3F9XN2PP"]
)
def test_what_is_no_kit_code_is_refused_and_never_repaired(text):
    assert normalise_kit_code(text) is None


@given(codes)
def test_a_tube_digit_is_one_to_nine(code):
    assert normalise_tube_code(code + "0") is None
    assert normalise_tube_code(code + "A") is None


def test_a_parcel_code_has_its_own_length_so_that_no_scan_takes_it_for_a_kit_or_tube():
    assert len(new_parcel_code(random.Random(1).choice)) == 12


def test_every_state_says_where_a_kit_may_go():
    assert set(KIT_MOVES) == set(KitState)


def test_every_state_can_be_reached():
    assert {end for ends in KIT_MOVES.values() for end in ends} == set(KitState)


@pytest.mark.parametrize("state", KitState)
def test_no_kit_that_left_goes_back_to_the_packers(state):
    before_dispatch = {KitState.TO_PACK, KitState.PRINTED, KitState.QUARANTINED}

    assert state in before_dispatch or not (KIT_MOVES[state] & before_dispatch)


@pytest.mark.parametrize("state", [KitState.CANCELLED, KitState.REPLACED])
def test_a_cancelled_or_replaced_kit_stays_so_whatever_comes_in(state):
    assert not any(may_move(state, end) for end in KitState)
    assert state in CLOSED_TO_TEXTS


def test_only_printed_kits_are_dispatched():
    assert {start for start in KitState if may_move(start, KitState.DISPATCHED)} == {KitState.PRINTED}
