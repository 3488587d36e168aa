"""The letter: its address shows in the window, and neither page nor file says what it is about (H13)."""

from datetime import date

import pypdfium2
import pytest

from integrations.letters.draw import Letter, draw_letter
from models.rules.text import _REVEALING as REVEALING
from models.rules.vocabulary import Language


def letter(language: Language = Language.ENGLISH, **changes) -> Letter:
    return Letter(
        **{
            "given_name": "Testina",
            "family_name": "Cet <& Ŵyn>",
            "address_lines": ("1 Invented Row", "Larkfield"),
            "postcode": "LS1 4AP",
            "sender": "Larkfield",
            "return_address": ("PO Box 100", "Larkfield", "LS1 1AA"),
            "phone": "0113 496 0000",
            "phone_hours": "Monday to Friday, 9am to 5pm",
            "ref": "A1B2C3",
            "on": date(2026, 11, 24),
            "language": language,
            **changes,
        }
    )


def read(pdf: bytes) -> tuple[str, dict[str, str]]:
    document = pypdfium2.PdfDocument(pdf)
    assert len(document) == 1
    return document[0].get_textpage().get_text_bounded(), document.get_metadata_dict(skip_empty=True)


@pytest.mark.parametrize("language", Language)
def test_a_letter_says_who_it_is_for_whom_to_ring_and_nothing_that_reveals(language):
    words, about = read(draw_letter(letter(language)))

    assert "Testina Cet <& Ŵyn>" in words
    assert "0113 496 0000" in words
    assert "LS1 4AP" in words
    assert REVEALING.findall(words) == []
    assert "Testina" not in str(about)


def test_the_address_stands_in_the_window_of_the_envelope():
    page = pypdfium2.PdfDocument(draw_letter(letter()))[0]
    found = page.get_textpage().search("1 Invented Row").get_next()
    left, bottom, _, top = page.get_textpage().get_charbox(found[0])

    from_top_mm = (page.get_height() - top) * 25.4 / 72
    assert 18 <= left * 25.4 / 72 <= 25
    assert 42 <= from_top_mm <= 75
    assert bottom < top


def test_the_same_letter_is_the_same_bytes():
    assert draw_letter(letter()) == draw_letter(letter())


def test_a_letter_that_is_printed_in_a_log_names_nobody():
    assert "Testina" not in repr(letter())
