"""What a caller says, in the person's language and in English, from templates/pages/calls.toml."""

import string
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.wiring import TEMPLATES
from models.rules.call import Say
from models.rules.errors import Code, ServiceError
from models.rules.service import Service
from models.rules.vocabulary import Language

PLACEHOLDERS: Final = frozenset({"service", "phone", "phone_hours", "tests"})


@dataclass(frozen=True, slots=True)
class Calls:
    """Every passage there is, checked whole when it was loaded."""

    _by_language: Mapping[Language, Mapping[Say, str]]

    def passage(self, say: Say, language: Language, service: Service, tests: str) -> str:
        """One passage with the service's own name and phone, and the tests that it is about."""
        return self._by_language[language][say].format(
            service=service.name, phone=service.phone, phone_hours=service.phone_hours, tests=tests
        )


def load_calls(file: Path = TEMPLATES / "pages" / "calls.toml") -> Calls:
    """Raises ServiceError(TEMPLATE) unless every passage is there in every language, with no other placeholder."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        loaded = {language: {say: content[language][say] for say in Say} for language in Language}
        fields = {
            name
            for passages in loaded.values()
            for text in passages.values()
            for _, name, _, _ in string.Formatter().parse(text)
            if name is not None
        }
    except (OSError, ValueError, KeyError) as error:
        raise ServiceError(Code.TEMPLATE, f"{file.name} is not whole: {error}.") from error
    if fields - PLACEHOLDERS:
        raise ServiceError(Code.TEMPLATE, f"{file.name} has unknown placeholders: {sorted(fields - PLACEHOLDERS)}.")
    return Calls(loaded)
