from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules.errors import Code
from models.rules.phone import SENTENCES, Mobile, MobileFault, MobileRefused, read_mobile
from models.rules.service import OrderPolicy

POLICY = OrderPolicy()


def fault_of(text, *, policy=POLICY, allow_test_numbers=False):
    with pytest.raises(MobileRefused) as refused:
        read_mobile(text, allow_test_numbers=allow_test_numbers, policy=policy)
    return refused.value.fault


@pytest.mark.parametrize(
    "written",
    [
        "07400 123456",
        "+447400123456",
        "+44 (0)7400 123456",
        "(+44) 7400 123456",
        "0044 7400 123456",
        "447400123456",
        "7400123456",
        "07400-123-456",
        "07400\u2013123456",
        "\u202a+447400123456\u202c",
        "\u0660\u0667\u0664\u0660\u0660\u0661\u0662\u0663\u0664\u0665\u0666",
        "\u00a007400\u00a0123456 ",
    ],
)
def test_a_mobile_is_read_however_people_write_it(written):
    assert read_mobile(written, allow_test_numbers=False, policy=POLICY) == Mobile("+447400123456")


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("", MobileFault.EMPTY),
        ("   ", MobileFault.EMPTY),
        ("O7400 123456", MobileFault.LETTER_FOR_DIGIT),
        ("0740o 12345l", MobileFault.LETTER_FOR_DIGIT),
        ("none", MobileFault.NOT_A_NUMBER),
        ("ask my mum on 07400 123456", MobileFault.NOT_A_NUMBER),
        ("0800 FLOWERS", MobileFault.NOT_A_NUMBER),
        ("07400 12345", MobileFault.WRONG_LENGTH),
        ("07400 1234567", MobileFault.WRONG_LENGTH),
        ("07400 123456 / 07400 123457", MobileFault.WRONG_LENGTH),
        ("07400 123456 x12", MobileFault.EXTENSION),
        ("07400 123456 ext. 12", MobileFault.EXTENSION),
        ("07400123456#12", MobileFault.EXTENSION),
        ("020 7946 0018", MobileFault.LANDLINE),
        ("01534 123456", MobileFault.LANDLINE),
        ("07640 123456", MobileFault.PAGER),
        ("070 1234 5678", MobileFault.PERSONAL),
        ("0909 879 0000", MobileFault.PREMIUM),
        ("0845 123 4567", MobileFault.PREMIUM),
        ("0800 123456", MobileFault.NOT_MOBILE),
        ("0300 123 4567", MobileFault.NOT_MOBILE),
        ("+33 6 12 34 56 78", MobileFault.FOREIGN),
        ("+1 415 555 2671", MobileFault.FOREIGN),
        ("07700 900123", MobileFault.TEST_NUMBER),
    ],
)
def test_whatever_cannot_take_a_text_is_refused_with_its_own_reason(written, fault):
    assert fault_of(written) is fault


@pytest.mark.parametrize("island", ["07624 123456", "07797 123456", "07839 712345"])
def test_the_islands_mobiles_are_a_matter_of_policy(island):
    assert read_mobile(island, allow_test_numbers=False, policy=POLICY)
    assert fault_of(island, policy=replace(POLICY, crown_dependency_mobiles=False)) is MobileFault.CROWN_DEPENDENCY


def test_irish_mobiles_are_a_matter_of_policy():
    irish = "+353 85 123 4567"
    assert fault_of(irish) is MobileFault.IRISH
    taken = read_mobile(irish, allow_test_numbers=False, policy=replace(POLICY, irish_mobiles=True))
    assert taken == Mobile("+353851234567")


@pytest.mark.parametrize("number", ["07700 900000", "07700 900555", "+44 7700 900999"])
def test_drama_numbers_are_taken_only_when_tests_allow_them(number):
    assert read_mobile(number, allow_test_numbers=True, policy=POLICY).e164.startswith("+447700900")
    assert fault_of(number) is MobileFault.TEST_NUMBER


@pytest.mark.parametrize("number", ["07700 899999", "07700 901000"])
def test_the_neighbours_of_drama_numbers_are_not_test_numbers(number):
    try:
        assert read_mobile(number, allow_test_numbers=True, policy=POLICY)
    except MobileRefused as refused:
        assert refused.fault is not MobileFault.TEST_NUMBER  # noqa: PT017 - either answer will do but this one


def test_a_mobile_never_shows_its_digits():
    mobile = Mobile("+447700900123")
    shown = f"{mobile} {mobile!r} {mobile!s} {[mobile]} {mobile:>40}"
    assert not any(c.isdigit() for c in shown)


def test_a_refusal_never_quotes_the_number_and_says_what_to_do():
    with pytest.raises(MobileRefused) as refused:
        read_mobile("020 7946 0018", allow_test_numbers=False, policy=POLICY)
    assert refused.value.code is Code.BAD_INPUT
    assert "7946" not in str(refused.value)
    assert SENTENCES.keys() == set(MobileFault)


@given(st.text(max_size=40))
def test_any_text_is_either_a_mobile_or_a_coded_refusal(text):
    try:
        mobile = read_mobile(text, allow_test_numbers=True, policy=POLICY)
    except MobileRefused as refused:
        assert refused.message == SENTENCES[refused.fault]  # noqa: PT017 - both ways out are right
    else:
        assert mobile.e164.startswith("+447")


@given(st.integers(0, 999), st.sampled_from(["07700 900{:03}", "+447700900{:03}", "7700 900 {:03}"]))
def test_one_number_is_one_value_however_written(n, form):
    assert read_mobile(form.format(n), allow_test_numbers=True, policy=POLICY).e164 == f"+447700900{n:03}"
