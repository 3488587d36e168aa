"""Turns typed values into the words of a text: one catalogue, checked whole at start, not at send."""

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Any, Final, assert_never

from jinja2 import Environment, StrictUndefined, Template, TemplateError, meta

from models.rules.collection import new_collection_code, show_collection_code
from models.rules.errors import Code, ServiceError
from models.rules.release import Target
from models.rules.service import LONGEST_TOLD_AS, Service
from models.rules.text import (
    CLASS_OF,
    AllClear,
    BadWording,
    CollectionCode,
    Delayed,
    ExpectCall,
    FailedSample,
    FailedTest,
    KitLapsed,
    KitPosted,
    KitReady,
    OrderReceived,
    PlaceName,
    ReceivedAtLab,
    RetestDue,
    ReturnReminder,
    SwabInfection,
    SwabPositive,
    TellableFailure,
    TextPurpose,
    TextValues,
    WordingFault,
    check_body,
    segments,
)
from models.rules.vocabulary import Language, Site, Test, Wording

NAMED_WHEN_NOT_TESTED: Final = (
    Test.CHLAMYDIA,
    Test.GONORRHOEA,
    Test.HIV,
    Test.SYPHILIS,
    Test.HEPATITIS_B,
    Test.HEPATITIS_C,
)
"""What people expect a kit to look for: each of these is named in an all clear, as tested or as not tested."""

ALWAYS_THERE: Final = frozenset({"sender", "phone", "ref"})
"""Every body says who writes, offers a phone number and carries its reference."""

UNREVIEWED: Final = "unreviewed"
"""What `reviewed_by` begins with until somebody has signed."""

_FOR_ALL: Final = ALWAYS_THERE | {"web", "hours"}
_ALLOWED: Final[dict[TextPurpose, frozenset[str]]] = {
    TextPurpose.ORDER_RECEIVED: frozenset(),
    TextPurpose.KIT_POSTED: frozenset({"due_back_on"}),
    TextPurpose.KIT_READY: frozenset({"where", "code", "until_on"}),
    TextPurpose.RETURN_REMINDER: frozenset({"due_back_on", "first", "last"}),
    TextPurpose.RECEIVED_AT_LAB: frozenset(),
    TextPurpose.KIT_LAPSED: frozenset(),
    TextPurpose.DELAYED: frozenset({"by_on"}),
    TextPurpose.RETEST_DUE: frozenset(),
    TextPurpose.ALL_CLEAR: frozenset({"tested", "not_tested", "retest_on"}),
    TextPurpose.FAILED_SAMPLE: frozenset({"failed", "why", "negative", "retest_on"}),
    TextPurpose.SWAB_POSITIVE: frozenset({"found", "so_far"}),
    TextPurpose.PLEASE_EXPECT_OUR_CALL: frozenset(),
}
_TELLING: Final = frozenset({"tested", "not_tested", "failed", "why", "negative", "found", "so_far"})
"""Placeholders that name tests or findings: a discreet body may not use them."""


@dataclass(frozen=True, slots=True)
class RenderedText:
    """The very words that leave, and what they were made from. Printing it shows no words."""

    body: str = field(repr=False)
    template_key: str
    template_version: str
    """Changes with any change to the body's source or to the words it may be filled with."""
    segments: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One purpose in the catalogue. `bodies` names the body of each wording."""

    purpose: TextPurpose
    max_segments: int
    who: str
    because: str
    reviewed_by: str
    """Who signed the words, or `unreviewed` and who must."""
    reviewed_on: date | None
    """When they were signed; None while nobody has."""
    bodies: Mapping[Wording, str]


@dataclass(frozen=True, slots=True)
class Words:
    """What one language calls things."""

    hours: str
    months: tuple[str, ...]
    other_infections: str
    tests: Mapping[Test, str]
    sites: Mapping[Site, str]
    failures: Mapping[str, str]

    def date(self, day: date) -> str:
        """A date in full: 24 February 2027."""
        return f"{day.day} {self.months[day.month - 1]} {day.year}"

    def opening_hours(self, opens: time, closes: time) -> str:
        """The hours in which the phone is answered."""
        return self.hours.format(opens=_clock(opens), closes=_clock(closes))

    def listed(self, targets: Iterable[Target]) -> str:
        """Every test with its sites, each exactly once: 'chlamydia, gonorrhoea (urine, throat); HIV'."""
        sites_of: dict[Test, set[Site]] = {}
        for test, site in targets:
            sites_of.setdefault(test, set()).add(site)
        groups: dict[tuple[Site, ...], list[str]] = {}
        for test, name in self.tests.items():
            if test in sites_of:
                groups.setdefault(tuple(s for s in Site if s in sites_of[test]), []).append(name)
        return "; ".join(", ".join(names) + self._places(sites) for sites, names in groups.items())

    def _places(self, sites: Iterable[Site]) -> str:
        names = [self.sites[site] for site in sites if self.sites[site]]
        return f" ({', '.join(names)})" if names else ""

    def not_tested(self, targets: Iterable[Target]) -> str:
        """What an all clear does not cover."""
        tested = {test for test, _ in targets}
        missing = [self.tests[test] for test in NAMED_WHEN_NOT_TESTED if test not in tested]
        return ", ".join([*missing, self.other_infections])

    def why(self, failed: Iterable[FailedTest]) -> str:
        """The reason as a sentence; a general one when reasons differ."""
        reasons = {each.why for each in failed}
        return self.failures[reasons.pop() if len(reasons) == 1 else "several"]


class Catalogue:
    """All texts of the product. Built by `load_catalogue`, which refuses an incomplete one."""

    def __init__(
        self,
        entries: Mapping[TextPurpose, Entry],
        templates: Mapping[tuple[str, Language], Template],
        versions: Mapping[tuple[str, Language], str],
        words: Mapping[Language, Words],
        codes: Mapping[Language, str],
    ) -> None:
        self.entries = entries
        self._templates = templates
        self._versions = versions
        self._words = words
        self._codes = codes

    def code_words(self, code: str, minutes: int, language: Language, service: Service) -> str:
        """The text that carries a code, good for so many minutes. Raises BadWording when it may not leave."""
        body = self._codes[language].format(code=code, minutes=minutes, sender=service.text_name, phone=service.phone)
        check_body(body, language=language, wording=Wording.DISCREET, max_segments=1, web=service.web)
        return body

    def render(
        self, values: TextValues, *, language: Language, wording: Wording, service: Service, ref: str
    ) -> RenderedText:
        """The words for some values. The same inputs give the same bytes.

        `ref` is this text's own short reference: it makes the body unlike any other to the same number, so
        that an unsure text can be looked up by its words. A list of tests too long for its open wording
        is never cut: the discreet words go instead, which ask the person to call.
        Raises BadWording (a ServiceError TEMPLATE) when the words may not leave.
        """
        try:
            return self._render(values, language, wording, service, ref)
        except BadWording as bad:
            if bad.fault is WordingFault.TOO_LONG and wording is Wording.NAMED:
                return self._render(values, language, Wording.DISCREET, service, ref)
            raise

    def _render(
        self, values: TextValues, language: Language, wording: Wording, service: Service, ref: str
    ) -> RenderedText:
        entry = self.entries[values.purpose]
        name = entry.bodies[wording]
        words = self._words[language]
        clinic = service.clinic
        try:
            body = self._templates[name, language].render(
                sender=service.text_name,
                phone=service.phone,
                web=service.web,
                hours=words.opening_hours(clinic.opens, clinic.closes),
                ref=ref,
                **_filling(values, words),
            )
        except TemplateError:
            raise ServiceError(Code.TEMPLATE, f"The text {name} ({language}) can't be filled in.") from None
        check_body(body, language=language, wording=wording, max_segments=entry.max_segments, web=service.web)
        return RenderedText(body, f"{name}.{language}", self._versions[name, language], segments(body))

    def check_service(self, service: Service) -> None:
        """Renders every text in every language and wording with long values, for a service's own name and phone.

        Raises ServiceError(TEMPLATE) that names the first text that may not leave. Called at start.
        """
        for values in LONG_VALUES:
            for language in Language:
                for wording in Wording:
                    try:
                        self._render(values, language, wording, service, "7K3F9X")
                    except BadWording as bad:
                        where = f"{values.purpose} ({language}, {wording}) for the service {service.id}"
                        raise ServiceError(Code.TEMPLATE, f"The text {where} may not leave. {bad.message}") from None
        for language in Language:
            try:
                self.code_words("000000", 10, language, service)
            except BadWording as bad:
                where = f"with a code ({language}) for the service {service.id}"
                raise ServiceError(Code.TEMPLATE, f"The text {where} may not leave. {bad.message}") from None


def load_catalogue(path: Path) -> Catalogue:
    """Reads `catalogue.toml`. Raises ServiceError(TEMPLATE) naming the text and what it lacks."""
    try:
        plain = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ServiceError(Code.TEMPLATE, f"The catalogue of texts can't be read: {type(error).__name__}.") from None

    words = {language: _words(plain, language) for language in Language}
    entries = {purpose: _entry(plain, purpose) for purpose in TextPurpose}
    unknown = plain.get("texts", {}).keys() - set(TextPurpose)
    if unknown:
        raise ServiceError(Code.TEMPLATE, f"The catalogue has a text that the product never sends: {min(unknown)}.")

    # Plain text for a phone, not a page: there is nothing to escape.
    jinja = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701
    templates: dict[tuple[str, Language], Template] = {}
    versions: dict[tuple[str, Language], str] = {}
    for entry in entries.values():
        for wording, name in entry.bodies.items():
            for language in Language:
                source = _source(plain, name, language, jinja, entry.purpose, wording)
                templates[name, language] = jinja.from_string(source)
                filled_with = json.dumps(plain["words"][language], sort_keys=True)
                versions[name, language] = hashlib.sha256(f"{source}\n{filled_with}".encode()).hexdigest()[:16]
    return Catalogue(entries, templates, versions, words, {language: _code(plain, language) for language in Language})


def _entry(plain: Mapping[str, Any], purpose: TextPurpose) -> Entry:
    try:
        found = plain["texts"][purpose]
        entry = Entry(
            purpose=purpose,
            max_segments=int(found["max_segments"]),
            who=found["who"],
            because=found["because"],
            reviewed_by=found["reviewed_by"],
            reviewed_on=found.get("reviewed_on"),
            bodies={wording: found[wording] for wording in Wording},
        )
    except KeyError as missing:
        raise ServiceError(Code.TEMPLATE, f"The text {purpose} lacks {missing.args[0]} in the catalogue.") from None
    if found.get("class") != CLASS_OF[purpose]:
        raise ServiceError(Code.TEMPLATE, f"The text {purpose} must be of class {CLASS_OF[purpose]}: windows differ.")
    if entry.reviewed_by.startswith(UNREVIEWED) is not (entry.reviewed_on is None):
        raise ServiceError(Code.TEMPLATE, f"The text {purpose} needs reviewed_by and reviewed_on, or neither.")
    return entry


def _code(plain: Mapping[str, Any], language: Language) -> str:
    """The words round a code: a person, and a phone that fills it in by itself, find the code first."""
    found = plain.get("code", {}).get(language)
    if not isinstance(found, str) or not found.startswith("{code} "):
        raise ServiceError(Code.TEMPLATE, f"The words of a code in {language} are missing or don't begin with it.")
    return found


def _words(plain: Mapping[str, Any], language: Language) -> Words:
    try:
        found = plain["words"][language]
        words = Words(
            hours=found["hours"],
            months=tuple(found["months"]),
            other_infections=found["other_infections"],
            # In the catalogue's order, which is the order in which people read them.
            tests={Test(test): name for test, name in found["tests"].items()},
            sites={site: found["sites"][site] for site in Site},
            failures={why: found["failures"][why] for why in (*TellableFailure, "several")},
        )
    except (KeyError, ValueError) as wrong:
        raise ServiceError(Code.TEMPLATE, f"The catalogue's words in {language} lack {wrong.args[0]}.") from None
    if words.tests.keys() != set(Test) or len(words.months) != len(_MONTHS):
        raise ServiceError(Code.TEMPLATE, f"The catalogue's words in {language} must name every test and month.")
    return words


_MONTHS: Final = range(1, 13)


def _source(
    plain: Mapping[str, Any], name: str, language: Language, jinja: Environment, purpose: TextPurpose, wording: Wording
) -> str:
    """One body's source, once its placeholders are known to be allowed, and the needed ones to be there."""
    where = f"The text {name} ({language}), used for {purpose} {wording},"
    source = plain.get("bodies", {}).get(language, {}).get(name)
    if not isinstance(source, str):
        raise ServiceError(Code.TEMPLATE, f"{where} is missing from the catalogue.")
    try:
        used = meta.find_undeclared_variables(jinja.parse(source))
    except TemplateError:
        raise ServiceError(Code.TEMPLATE, f"{where} is not a template that can be read.") from None
    allowed = _FOR_ALL | _ALLOWED[purpose]
    if wording is Wording.DISCREET:
        allowed -= _TELLING
    if used - allowed:
        raise ServiceError(Code.TEMPLATE, f"{where} may not use the placeholder {min(used - allowed)}.")
    if ALWAYS_THERE - used:
        raise ServiceError(Code.TEMPLATE, f"{where} lacks the placeholder {min(ALWAYS_THERE - used)}.")
    if wording is Wording.NAMED and _ALLOWED[purpose] - used:
        raise ServiceError(Code.TEMPLATE, f"{where} lacks the placeholder {min(_ALLOWED[purpose] - used)}.")
    return source


def _filling(values: TextValues, words: Words) -> dict[str, object]:
    """The values as words. What a text lists is exactly what its values list (FEATURES idea 18)."""
    match values:
        case OrderReceived() | ReceivedAtLab() | KitLapsed() | RetestDue() | ExpectCall():
            return {}
        case Delayed():
            return {"by_on": words.date(values.by_on)}
        case KitPosted():
            return {"due_back_on": words.date(values.due_back_on)}
        case KitReady():
            code, until_on = show_collection_code(values.code), words.date(values.until_on)
            return {"where": values.where, "code": code, "until_on": until_on}
        case ReturnReminder():
            return {"due_back_on": words.date(values.due_back_on), "last": values.last, "first": values.first}
        case AllClear():
            return {
                "tested": words.listed(values.tested),
                "not_tested": words.not_tested(values.tested),
                "retest_on": words.date(values.retest_on) if values.retest_on else "",
            }
        case FailedSample():
            return {
                "failed": words.listed((each.test, each.site) for each in values.failed),
                "why": words.why(values.failed),
                "negative": words.listed(values.negative),
                "retest_on": words.date(values.retest_on) if values.retest_on else "",
            }
        case SwabPositive():
            return {
                "found": ", ".join(words.tests[Test(found)] for found in SwabInfection if found in values.found),
                "so_far": values.so_far,
            }
        case _:
            assert_never(values)


def _clock(wall: time) -> str:
    """A time of day as people say it: 9am, 4.30pm, 12noon is 12pm."""
    minutes = f".{wall.minute:02}" if wall.minute else ""
    return f"{wall.hour % 12 or 12}{minutes}{'am' if wall.hour < 12 else 'pm'}"  # noqa: PLR2004 - noon


_LONG_DAYS: Final = (date(2027, 9, 30), date(2027, 7, 30))
"""30 September and 30 Gorffennaf: the longest dates in English and in Welsh."""
_SWABS: Final = tuple(
    (test, site) for test in (Test.CHLAMYDIA, Test.GONORRHOEA) for site in (Site.VAGINAL, Site.RECTAL, Site.PHARYNGEAL)
)
_BLOODS: Final = tuple((test, Site.BLOOD) for test in (Test.HIV, Test.SYPHILIS, Test.HEPATITIS_B, Test.HEPATITIS_C))

_LONG_CODE: Final = new_collection_code(lambda _: "W")

LONG_VALUES: Final[tuple[TextValues, ...]] = (
    OrderReceived(),
    ReceivedAtLab(),
    KitLapsed(),
    RetestDue(),
    ExpectCall(),
    *(Delayed(day) for day in _LONG_DAYS),
    *(SwabPositive(frozenset(SwabInfection), so_far) for so_far in (True, False)),
    *(KitPosted(day) for day in _LONG_DAYS),
    *(KitReady(PlaceName("W" * LONGEST_TOLD_AS), CollectionCode(_LONG_CODE), day) for day in _LONG_DAYS),
    *(ReturnReminder(day, last=True) for day in _LONG_DAYS),
    *(AllClear(_SWABS + _BLOODS, day) for day in _LONG_DAYS),
    *(
        FailedSample(tuple(FailedTest(test, site, why) for test, site in failed), negative, day)
        for failed, negative in ((_BLOODS, _SWABS), (_SWABS, _BLOODS))
        for why in TellableFailure
        for day in _LONG_DAYS
    ),
    *(
        FailedSample(
            tuple(FailedTest(test, site, why) for (test, site), why in zip(_BLOODS, TellableFailure, strict=False)),
            _SWABS,
            day,
        )
        for day in _LONG_DAYS
    ),
)
"""The longest that a full kit can make of each text: three swabs, four bloods, the longest dates."""
