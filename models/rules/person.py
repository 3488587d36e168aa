"""Who someone is: age by date of birth, and the foldings that make two spellings of one person equal.

The foldings feed keyed blind indexes (ruling 15): a stored index is only comparable with one made by
the same `FOLDING_VERSION`, so a change here is a new version and a rebuild of the indexes.
"""

import re
import unicodedata
from datetime import date
from typing import Final, NewType

Postcode = NewType("Postcode", str)
"""A well-formed UK postcode, upper case, one space: LS1 4AP. Well-formed is not the same as existing."""

FOLDING_VERSION: Final = 1
"""Version of every `fold_` function below. Part of each blind index's label."""

OLDEST_AGE_YEARS: Final = 120
"""Older than anyone living: such a date of birth is a typing error."""


def age_on(date_of_birth: date, on: date) -> int:
    """Whole years of age on a London date; negative before birth.

    An age is reached at the start of the birthday; someone born on 29 February reaches it on 1 March
    of an ordinary year, which is also the later and so the safer reading. Source: Family Law Reform
    Act 1969 s.9.
    """
    before_birthday = (on.month, on.day) < (date_of_birth.month, date_of_birth.day)
    return on.year - date_of_birth.year - before_birthday


def is_possible_birth_date(date_of_birth: date, on: date) -> bool:
    """Whether someone alive on this London date can have been born then."""
    return 0 <= age_on(date_of_birth, on) <= OLDEST_AGE_YEARS


# ── Postcodes ────────────────────────────────────────────────────────────────────────────────

_AREAS: Final = (
    "AB AL B BA BB BD BF BH BL BN BR BS BT BX CA CB CF CH CM CO CR CT CV CW DA DD DE DG DH DL DN DT DY "
    "E EC EH EN EX FK FY G GL GU GY HA HD HG HP HR HS HU HX IG IM IP IV JE KA KT KW KY L LA LD LE LL LN "
    "LS LU M ME MK ML N NE NG NN NP NR NW OL OX PA PE PH PL PO PR RG RH RM S SA SE SG SK SL SM SN SO SP "
    "SR SS ST SW SY TA TD TF TN TQ TR TS TW UB W WA WC WD WF WN WR WS WV YO ZE"
)
_POSTCODE: Final = re.compile(f"({'|'.join(_AREAS.split())})([0-9][0-9A-Z]?)([0-9][ABD-HJLNP-UW-Z]{{2}})")


def read_postcode(text: str) -> Postcode | None:
    """A UK postcode as people write it, or None for a foreign or impossible one. Never repairs a letter.

    Source of the shape: sms-and-post.md part C (list of postcode areas, inward code without CIKMOV).
    """
    found = _POSTCODE.fullmatch("".join(text.split()).upper())
    return Postcode(f"{found[1]}{found[2]} {found[3]}") if found else None


# ── Foldings ─────────────────────────────────────────────────────────────────────────────────

_NOT_DECOMPOSED: Final = str.maketrans(
    {
        "ø": "o",
        "ł": "l",
        "đ": "d",
        "ð": "d",
        "þ": "th",
        "æ": "ae",
        "œ": "oe",
        "ı": "i",
        "ħ": "h",
    }
)
_STREET_WORDS: Final = {
    "road": "rd",
    "street": "st",
    "saint": "st",
    "avenue": "ave",
    "lane": "ln",
    "drive": "dr",
    "close": "cl",
    "court": "ct",
    "place": "pl",
    "square": "sq",
    "terrace": "ter",
    "crescent": "cres",
    "gardens": "gdns",
    "apartment": "flat",
    "apt": "flat",
}


def _plain(text: str) -> str:
    """Lower case, without accents: what is left of a spelling when typing habits are taken away."""
    # Twice, as Unicode says (chapter 3.13, D146): a sign taken apart may come to capitals.
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text.casefold()).casefold())
    return "".join(c for c in decomposed if not unicodedata.combining(c)).translate(_NOT_DECOMPOSED)


def fold_name(name: str) -> str:
    """A name as letters only, lower case, without accents: O'Dunmere, O’DUNMERE and o dunmere are one."""
    return "".join(c for c in _plain(name) if c.isalpha())


def fold_email(email: str) -> str:
    """An e-mail address in lower case without surrounding space. Dots and plus signs are kept: they can matter."""
    return unicodedata.normalize("NFKC", email).strip().casefold()


def fold_address(lines: tuple[str, ...], postcode: str) -> str:
    """One dwelling, however it is written: its postcode, and its numbers or else its first line.

    A postcode and the house and flat numbers name a dwelling. Folding is generous on purpose: two
    dwellings taken for one only bring a flag to a person's eyes, one dwelling taken for two loses it.
    Needs at least one line.
    """
    words = [_street_words(line) for line in lines]
    numbers = sorted(w for line in words for w in line if len(w) == 1 or any(c.isdigit() for c in w))
    return "|".join(["".join(postcode.split()).upper(), *(numbers or words[0])])


def _street_words(line: str) -> list[str]:
    return [_STREET_WORDS.get(word, word) for word in re.findall(r"[^\W_]+", _plain(line).replace("'", ""))]
