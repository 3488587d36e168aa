"""Encryption of personal columns, and the keyed hashes that find equal ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations.cipher import INDEX_BYTES, BlindIndex, Cipher, key_id_of
from models.rules.errors import Code, ServiceError

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
PLACE = ("contact", "mobile", "c0ffee")
cipher = Cipher({"old": OLD, "new": NEW}, "new")
index = BlindIndex({1: OLD, 2: NEW}, 2)


@given(st.text())
def test_what_was_encrypted_comes_back(plain):
    assert cipher.decrypt(*PLACE, cipher.encrypt(*PLACE, plain)) == plain


def test_the_same_text_never_looks_the_same_twice():
    assert cipher.encrypt(*PLACE, "+447700900123") != cipher.encrypt(*PLACE, "+447700900123")


def test_a_ciphertext_does_not_show_its_text():
    assert b"+447700900123" not in cipher.encrypt(*PLACE, "+447700900123")


@pytest.mark.parametrize(
    "elsewhere", [("person", "mobile", "c0ffee"), ("contact", "email", "c0ffee"), ("contact", "mobile", "decade")]
)
def test_a_ciphertext_moved_to_another_table_column_or_owner_does_not_open(elsewhere):
    sealed = cipher.encrypt(*PLACE, "+447700900123")

    with pytest.raises(ServiceError) as refused:
        cipher.decrypt(*elsewhere, sealed)

    assert refused.value.code is Code.UNEXPECTED
    assert "+447700900123" not in refused.value.message


@given(st.integers(min_value=0), st.integers(1, 255))
def test_a_ciphertext_changed_in_any_byte_does_not_open(where, change):
    sealed = bytearray(cipher.encrypt(*PLACE, "Testina Kit"))
    sealed[where % len(sealed)] ^= change

    with pytest.raises(ServiceError):
        cipher.decrypt(*PLACE, bytes(sealed))


@given(st.binary(max_size=60))
def test_bytes_that_are_no_ciphertext_are_refused_and_not_guessed_at(found):
    with pytest.raises(ServiceError):
        cipher.decrypt(*PLACE, found)


def test_rows_of_an_older_key_open_and_are_renewed_under_the_current_one():
    before = Cipher({"old": OLD}, "old").encrypt(*PLACE, "Testina Kit")

    after = cipher.renew(*PLACE, before)

    assert (key_id_of(before), key_id_of(after)) == ("old", "new")
    assert (cipher.is_current(before), cipher.is_current(after)) == (False, True)
    assert Cipher({"new": NEW}, "new").decrypt(*PLACE, after) == "Testina Kit"


def test_a_row_whose_key_is_not_loaded_names_the_key_and_the_setting():
    sealed = Cipher({"old": OLD}, "old").encrypt(*PLACE, "Testina Kit")

    with pytest.raises(ServiceError, match=r"KITPOST_DATA_KEYS lacks the key 'old'"):
        Cipher({"new": NEW}, "new").decrypt(*PLACE, sealed)


@given(st.text(), st.text())
def test_equal_values_and_only_those_have_equal_indexes(one, other):
    assert (index.index("mobile", "larkfield", one) == index.index("mobile", "larkfield", other)) == (one == other)


def test_the_same_value_can_not_be_followed_across_services_or_uses():
    found = {
        index.index(domain, service, "+447700900123")
        for domain in ("mobile", "email")
        for service in ("larkfield", "otherton")
    }

    assert len(found) == 4


def test_an_index_has_sixteen_bytes():
    assert {len(index.index("mobile", "larkfield", value)) for value in ("", "x" * 10_000)} == {INDEX_BYTES}


def test_many_values_are_indexed_as_one_by_one():
    values = [f"+44770090{number:04}" for number in range(50)]

    assert index.index_many("mobile", "larkfield", values) == [
        index.index("mobile", "larkfield", value) for value in values
    ]


def test_during_rotation_rows_of_both_key_versions_are_found():
    before = BlindIndex({1: OLD}, 1).index("mobile", "larkfield", "+447700900123")

    live = index.live("mobile", "larkfield", "+447700900123")

    assert live == [index.index("mobile", "larkfield", "+447700900123"), before]


def test_a_payload_in_pieces_is_recognised_as_the_same():
    assert index.content_hmac(iter([b"MSH|", b"^~\\&"])) == index.content_hmac(b"MSH|^~\\&")


def test_a_payload_can_not_be_recognised_without_the_key():
    assert index.content_hmac(b"MSH|") != BlindIndex({1: OLD}, 1).content_hmac(b"MSH|")
