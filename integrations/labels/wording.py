"""The words on labels and forms, read from templates/labels/wording.toml."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Final

from models.rules.vocabulary import Language

Words = dict[str, Any]
"""Phrase by key; `specimens` and `infections` hold one phrase for each word of the vocabulary."""

_FILE: Final = Path(__file__).parents[2] / "templates" / "labels" / "wording.toml"


@cache
def wording(language: Language) -> Words:
    """The words of one language. Read once a process."""
    words: Words = tomllib.loads(_FILE.read_text("utf-8"))[language.value]
    return words
