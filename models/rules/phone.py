"""Mobile numbers: which ones we may text.

A text to a British landline is read out aloud by a machine to whoever picks up (sms-and-post.md A1),
so a number is accepted only when it is proved to be a mobile.
"""

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import phonenumbers
from phonenumbers import PhoneNumberType

from models.rules.errors import Code, ServiceError
from models.rules.service import OrderPolicy


class MobileFault(StrEnum):
    """Why a number can't be used for texts. Stable: order decisions and tests cite it."""

    EMPTY = "empty"
    LETTER_FOR_DIGIT = "letter_for_digit"
    NOT_A_NUMBER = "not_a_number"
    WRONG_LENGTH = "wrong_length"
    EXTENSION = "extension"
    LANDLINE = "landline"
    PAGER = "pager"
    PERSONAL = "personal"
    PREMIUM = "premium"
    NOT_MOBILE = "not_mobile"
    CROWN_DEPENDENCY = "crown_dependency"
    IRISH = "irish"
    FOREIGN = "foreign"
    TEST_NUMBER = "test_number"


SENTENCES: Final[dict[MobileFault, str]] = {
    MobileFault.EMPTY: "Enter your mobile number.",
    MobileFault.LETTER_FOR_DIGIT: "The number has a letter in it. Check for the letter O where you mean a zero.",
    MobileFault.NOT_A_NUMBER: "Enter a mobile number using digits only, like 07911 123456.",
    MobileFault.WRONG_LENGTH: "This is not a whole phone number. Check that no digit is missing or extra.",
    MobileFault.EXTENSION: "Enter a mobile number without an extension.",
    MobileFault.LANDLINE: "This is a landline: a text to it would be read out aloud. Enter a mobile number.",
    MobileFault.PAGER: "This is a pager number. Enter a mobile number.",
    MobileFault.PERSONAL: "Numbers that start with 070 forward to other phones. Enter a mobile number.",
    MobileFault.PREMIUM: "This is a special-rate number. Enter a mobile number.",
    MobileFault.NOT_MOBILE: "This number can't take texts. Enter a mobile number.",
    MobileFault.CROWN_DEPENDENCY: "We can't text numbers of Jersey, Guernsey or the Isle of Man. Enter a UK mobile.",
    MobileFault.IRISH: "We can't text Irish numbers. Enter a UK mobile number.",
    MobileFault.FOREIGN: "We can't text numbers from outside the UK. Enter a UK mobile number.",
    MobileFault.TEST_NUMBER: "This number is kept for films and tests. Enter your own mobile number.",
}
"""What the person is told: one sentence that says what to do. Never quotes the number."""


class MobileRefused(ServiceError):  # noqa: N818 - it says what happened, like the ports' Refused
    """The number can't be used; `fault` says why, the message is for the person who typed it."""

    def __init__(self, fault: MobileFault) -> None:
        super().__init__(Code.BAD_INPUT, SENTENCES[fault])
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Mobile:
    """A number that takes texts, in E.164 (+447911123456). Printing it shows no digits."""

    e164: str

    def __repr__(self) -> str:
        return "Mobile(hidden)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)


DRAMA_NUMBER: Final = re.compile(r"\+447700900\d{3}")
"""07700 900000 to 900999: never given to anyone (Ofcom, numbers for drama use)."""

_DIGITS_AND_MARKS: Final = re.compile(r"\(?\+?[0-9 ().\-/]+")
_EXTENSION: Final = re.compile(r"\d\s*(?:x|ext\.?|extension|#|;ext=)\s*\d+\s*$", re.IGNORECASE)
_FAULT_OF_TYPE: Final[dict[int, MobileFault]] = {
    PhoneNumberType.FIXED_LINE: MobileFault.LANDLINE,
    PhoneNumberType.PAGER: MobileFault.PAGER,
    PhoneNumberType.PERSONAL_NUMBER: MobileFault.PERSONAL,
    PhoneNumberType.PREMIUM_RATE: MobileFault.PREMIUM,
    PhoneNumberType.SHARED_COST: MobileFault.PREMIUM,
}
_CROWN_DEPENDENCIES: Final = frozenset({"JE", "GG", "IM"})


def read_mobile(text: str, *, allow_test_numbers: bool, policy: OrderPolicy) -> Mobile:
    """Reads a number as people write it, and takes it only if it is a mobile that the service texts.

    Understands 07…, +44 (0)7…, 0044 7…, 447…, 7…, digits of any script and invisible marks from a
    pasted contact. `allow_test_numbers` admits 07700 900000 to 900999 (tests and the demo).
    The islands' mobiles are told by number range, so they prove nothing about where a person lives.

    Raises MobileRefused with the fault and a sentence for the person.
    """
    number = _parsed(_plain(text))
    e164 = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    if DRAMA_NUMBER.fullmatch(e164):
        if allow_test_numbers:
            return Mobile(e164)
        raise MobileRefused(MobileFault.TEST_NUMBER)
    if not phonenumbers.is_valid_number(number):
        raise MobileRefused(MobileFault.WRONG_LENGTH)

    region = phonenumbers.region_code_for_number(number)
    if region not in _CROWN_DEPENDENCIES | {"GB", "IE"}:
        raise MobileRefused(MobileFault.FOREIGN)
    kind = phonenumbers.number_type(number)
    if kind != PhoneNumberType.MOBILE:
        raise MobileRefused(_FAULT_OF_TYPE.get(kind, MobileFault.NOT_MOBILE))
    if region in _CROWN_DEPENDENCIES and not policy.crown_dependency_mobiles:
        raise MobileRefused(MobileFault.CROWN_DEPENDENCY)
    if region == "IE" and not policy.irish_mobiles:
        raise MobileRefused(MobileFault.IRISH)
    return Mobile(e164)


def _parsed(plain: str) -> phonenumbers.PhoneNumber:
    """The number as the library reads it, once everything the library would drop in silence is refused."""
    if not plain:
        raise MobileRefused(MobileFault.EMPTY)
    if _EXTENSION.search(plain):
        raise MobileRefused(MobileFault.EXTENSION)
    if any(c.isalpha() for c in plain):
        looks_typed_wrong = re.fullmatch(r"\+?[0-9oOiIlL ().\-/]+", plain) and any(c.isdigit() for c in plain)
        raise MobileRefused(MobileFault.LETTER_FOR_DIGIT if looks_typed_wrong else MobileFault.NOT_A_NUMBER)
    if not _DIGITS_AND_MARKS.fullmatch(plain):
        raise MobileRefused(MobileFault.NOT_A_NUMBER)

    try:
        return phonenumbers.parse(plain, "GB")
    except phonenumbers.NumberParseException:
        raise MobileRefused(MobileFault.WRONG_LENGTH) from None


def _plain(text: str) -> str:
    """The text with ASCII digits and dashes, one kind of space, and no invisible marks."""
    kept = []
    for c in unicodedata.normalize("NFKC", text):
        if c.isdecimal():
            kept.append(str(unicodedata.decimal(c)))
        elif unicodedata.category(c) == "Pd":
            kept.append("-")
        elif c.isspace():
            kept.append(" ")
        elif unicodedata.category(c) not in ("Cf", "Cc"):
            kept.append(c)
    return "".join(kept).strip()
