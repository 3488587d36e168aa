"""What people are told about their orders: whole, in both languages, with a next step."""

from pathlib import Path

import pytest

from app.web.told import load_sentences
from app.wiring import TEMPLATES
from models.rules.errors import Code, ServiceError
from models.rules.order import CONSEQUENCE, OrderOutcome, Told
from models.rules.vocabulary import Language
from tests.support import build

FILE = TEMPLATES / "pages" / "told.toml"


@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize("told", Told)
def test_every_key_has_a_sentence_in_every_language(told: Told, language: Language) -> None:
    sentence = load_sentences(FILE).say(told, language, build.service())

    assert sentence.endswith(".")
    assert "{" not in sentence


@pytest.mark.parametrize(
    "told", sorted({line.told for line in CONSEQUENCE.values() if line.outcome is not OrderOutcome.ACCEPTED})
)
def test_whoever_gets_no_kit_is_told_what_to_do_next(told: Told) -> None:
    sentence = load_sentences(FILE).say(told, Language.ENGLISH, build.service())

    assert any(step in sentence for step in ("call", "Call", "go now", "go today", "order again"))


@pytest.mark.parametrize(
    ("old", "new"),
    [('pep = "', 'pip = "'), ("[cy]", "[fr]"), ("{phone}", "{mobile}"), ("[en]", "[en")],
)
def test_a_file_that_is_not_whole_stops_the_start(tmp_path: Path, old: str, new: str) -> None:
    spoilt = tmp_path / "told.toml"
    spoilt.write_text(FILE.read_text().replace(old, new))

    with pytest.raises(ServiceError) as caught:
        load_sentences(spoilt)
    assert caught.value.code is Code.TEMPLATE
