"""What a person is told about an order: one sentence a key, in both languages, from templates/pages/told.toml."""

import string
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.rules.errors import Code, ServiceError
from models.rules.order import Told
from models.rules.service import Service
from models.rules.vocabulary import Language

PLACEHOLDERS: Final = frozenset({"service", "phone", "phone_hours"})


@dataclass(frozen=True, slots=True)
class Sentences:
    """Every sentence there is, checked whole when it was loaded."""

    _by_language: Mapping[Language, Mapping[Told, str]]

    def say(self, told: Told, language: Language, service: Service) -> str:
        """One sentence, with the service's own name and phone."""
        return self._by_language[language][told].format(
            service=service.name, phone=service.phone, phone_hours=service.phone_hours
        )


def load_sentences(file: Path) -> Sentences:
    """Raises ServiceError(TEMPLATE) unless every key has a sentence in every language, and no other placeholder."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        loaded = {language: {told: content[language][told] for told in Told} for language in Language}
        fields = {field for told in loaded.values() for text in told.values() for field in _fields(text)}
    except (OSError, ValueError, KeyError) as error:
        raise ServiceError(Code.TEMPLATE, f"{file.name} is not whole: {error}.") from error
    if fields - PLACEHOLDERS:
        raise ServiceError(Code.TEMPLATE, f"{file.name} has unknown placeholders: {sorted(fields - PLACEHOLDERS)}.")
    return Sentences(loaded)


def _fields(text: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
