"""Every English text can be read at 9 to 11 (H30), measured with textstat.

The automated readability index counts letters and sentences; the measures that count syllables would
download a dictionary. textstat has no Welsh: a Welsh reader must judge those (docs/safety.md).
"""

import re

import pytest
import textstat

from integrations.texts.catalogue import LONG_VALUES
from models.rules.vocabulary import Language, Wording

OLDEST_READER = 11
AGE_OF_GRADE_ZERO = 5
"""The index names an American school grade: the first is for children of about six."""

MEDICAL = (
    *("chlamydia", "gonorrhoea", "HIV", "syphilis", "hepatitis B", "hepatitis C"),
    *("vagina", "rectum", "throat", "negative"),
)
"""Named on purpose and explained on the kit's leaflet: each counts as one short word."""


def reading_age(body: str, *, name: str, phone: str, web: str) -> float:
    """In years. Our own name, the phone, the web address, dates, hours and the reference are no reading matter."""
    body = body.removeprefix(f"{name}: ")
    for known, plain in ((phone, "us"), (web, "the web"), *((word, "it") for word in MEDICAL)):
        body = body.replace(known, plain)
    body = re.sub(r"\d+ [A-Z][a-z]+ \d{4}", "May", body)
    body = re.sub(r", 9am to 5pm, Monday to Friday,?| Ref \w+$", "", body)
    return textstat.automated_readability_index(body) + AGE_OF_GRADE_ZERO


@pytest.mark.parametrize("wording", sorted(Wording))
@pytest.mark.parametrize(
    "values", [pytest.param(each, id=f"{number}-{each.purpose}") for number, each in enumerate(LONG_VALUES)]
)
def test_every_english_text_can_be_read_at_nine_to_eleven(catalogue, service, values, wording):
    body = catalogue.render(values, language=Language.ENGLISH, wording=wording, service=service, ref="7K3F9X").body

    assert reading_age(body, name=service.text_name, phone=service.phone, web=service.web) <= OLDEST_READER


def test_the_measure_does_find_a_hard_text_hard():
    hard = "Your serological investigations demonstrate indeterminate characteristics necessitating confirmation"

    assert reading_age(hard, name="", phone="-", web="-") > OLDEST_READER
