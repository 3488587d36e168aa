"""All-negative lab files with one field of one kit spoilt, and what the file then says at best (ruling 20).

What may be told about a mutant is written down here from the labs' documents, not asked of the product.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from random import Random
from string import ascii_lowercase, ascii_uppercase
from typing import Final, NamedTuple

from models.rules.kit import ALPHABET, check_character, show_kit_code
from tests.support import lab_files
from tests.support.lab_files import Row, Spelling
from tests.support.many_kits import Sent

Change = Callable[[Row], Row]


class Mutation(NamedTuple):
    """One way of spoiling a kit's rows."""

    field: str
    what: str
    change: Change
    places: tuple[int, ...]
    """Which of the four rows it changes."""
    may_tell: str = ""
    """The result text that the changed file itself allows: never an all clear."""
    spoils: bool = False
    """Whether the changed result can't be negative any more."""

    def rows(self, kit: Sent, spelling: Spelling) -> list[Row]:
        """The kit's rows, spoilt. A change that comes to nothing is a fault of the test."""
        rows = kit.rows(spelling)
        spoilt = [self.change(row) if place in self.places else row for place, row in enumerate(rows)]
        assert spoilt != rows, (self.field, self.what)
        return spoilt


@dataclass(frozen=True)
class Form:
    """One format: how its negatives are written, what else its words mean, and how a file is made of rows."""

    name: str
    spelling: Spelling
    ending: str
    write: Callable[[list[Row]], bytes]
    failed: tuple[str, ...]
    """Words for a sample that failed: the person may be told so."""
    found: str
    """The word for a chlamydia or gonorrhoea found."""
    never: tuple[str, ...]
    """Words that are no negative of a swab, and none of a blood either."""
    statuses: tuple[str, ...]
    kits_a_file: int = 200
    row_by_row: bool = False
    """Whether every row states the identity again."""
    lacks: tuple[str, ...] = ()
    """Fields of a row that this format has no place for."""


_LETTERS: Final = tuple(letter for letter in ascii_uppercase if letter != "F")
_ODD_WORDS: Final = ("", '""', "SEE NOTE", "PENDING", ".", "ND", "NEG?", "IND", "+/-", "0", "-", "?", "Not", "N")

_ODD_WORDS: Final = ("", '""', "SEE NOTE", "PENDING", ".", "ND", "NEG?", "IND", "+/-", "0", "-", "?", "Not", "N")
_LETTERS: Final = tuple(letter for letter in ascii_uppercase if letter != "F")

HL7: Final = Form(
    name="hl7",
    spelling=lab_files.HL7,
    ending="hl7",
    write=lab_files.hl7,
    failed=("Insufficient", "QNS"),
    found="DETECTED",
    never=("NR", "Equivocal", "Inconclusive", "Not detected~DETECTED", "DETECTED~Not detected", *_ODD_WORDS),
    statuses=(*_LETTERS, "", "FF", "F^C"),
)
LONG: Final = Form(
    name="long table",
    spelling=lab_files.LONG,
    ending="csv",
    write=lab_files.long_table,
    failed=("Insufficient",),
    found="DETECTED",
    never=("NR", "Equivocal", "Inconclusive", "=1+1", *_ODD_WORDS),
    statuses=(*_LETTERS, "", "FF"),
    row_by_row=True,
    lacks=("processing", "order_status"),
)
WIDE: Final = Form(
    name="wide table",
    spelling=lab_files.WIDE,
    ending="csv",
    write=lab_files.wide_table,
    failed=("INS",),
    found="POS",
    never=("EQ", "LR?", "Not detected", *_ODD_WORDS),
    statuses=(),
    lacks=("processing", "order_status", "site", "tube", "family"),
)
QUOTED: Final = Form(
    name="quoted table",
    spelling=lab_files.QUOTED,
    ending="csv",
    write=lab_files.quoted_table,
    failed=("8|INSUFFICIENT",),
    found="5|DETECTED",
    never=("9|EQUIVOCAL", "2|DETECTED", "5|NOT DETECTED", "1|REACTIVE", "3|NON REACTIVE", "|NOT DETECTED", "2|", "7|X"),
    statuses=("INTERIM", "CORRECTED", "CANCELLED", "", "FINALE", "F"),
    row_by_row=True,
    lacks=("processing", "order_status", "comment", "kit", "family"),
)
FHIR: Final = Form(
    name="fhir",
    spelling=lab_files.FHIR,
    ending="json",
    write=lab_files.fhir,
    failed=("281268007|Insufficient sample",),
    found="260373001|Detected",
    never=("419984006|Inconclusive", "260415000|Detected", "260373001|Not detected", "|Not sure", "|", "11214006|ND"),
    statuses=("registered", "preliminary", "amended", "corrected", "cancelled", "entered-in-error", "unknown", "", "F"),
    kits_a_file=1,
)
FORMS: Final = (HL7, LONG, WIDE, QUOTED, FHIR)

KEEPS_ITS_VALUE: Final = frozenset({"C", "CORRECTED", "corrected", "amended"})
"""Statuses under which a negative is stored as one; it is a correction, and a person tells."""

SWABS, BLOODS, EVERY_ROW = (0, 1), (2, 3), (0, 1, 2, 3)


def edited(word: str, chance: Random, alphabet: str) -> str:
    """One character changed, lost, changed round or added; never only its case, spacing or hyphens."""
    at = chance.randrange(len(word))
    other = chance.choice([each for each in alphabet if each.casefold() != word[at].casefold()])
    match chance.randrange(4):
        case 0:
            return word[:at] + other + word[at + 1 :]
        case 1 if word[at].isalnum():
            return word[:at] + word[at + 1 :]
        case 2 if word[at : at + 2].isalnum() and len(set(word[at : at + 2].casefold())) == 2:
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + other + word[at:]


def mutations(form: Form, strangers: Sequence[Sent], seed: int) -> Iterator[Mutation]:
    """Every way of spoiling one field in this format. `strangers` lend their ids and birthdays."""
    chance = Random(seed)
    of_identity = [*_ids(form, chance), *_birthdays(chance), *_of_strangers(form, strangers)]
    for places in (EVERY_ROW, (0,)) if form.row_by_row else (EVERY_ROW,):
        yield from (Mutation(field, what, change, places) for field, what, change in of_identity)
    for place in EVERY_ROW:
        yield from _values(form, place, chance)
        yield from _tests_and_sites(form, place, chance)
        for status in form.statuses:
            spoils = status not in KEEPS_ITS_VALUE
            yield Mutation("row status", status, _put(status=status), (place,), spoils=spoils)
        if "comment" not in form.lacks:
            for comment in ("Repeat advised.", "ok", "Dual target NAAT valid.", "wrong patient", "0", "-"):
                yield Mutation("comment", comment, _put(comment=comment), (place,))
    if "order_status" not in form.lacks:
        for status in form.statuses:
            for places in (EVERY_ROW,) if form is FHIR else (SWABS, BLOODS):
                yield Mutation("order status", status, _put(order_status=status), places)
    if "processing" not in form.lacks:
        for processing in ("T",) if form is FHIR else ("T", "D", "", "X", "PT"):
            yield Mutation("live or test", processing, _put(processing=processing), EVERY_ROW)


def _put(**fields: str) -> Change:
    return lambda row: row._replace(**fields)


def _edit(name: str, seed: float, alphabet: str) -> Change:
    return lambda row: row._replace(**{name: edited(getattr(row, name), Random(seed), alphabet)})


# ── Whose it is: then nothing may be told to anybody ─────────────────────────────────────────


def _ids(form: Form, chance: Random) -> Iterator[tuple[str, str, Change]]:
    for name in ("kit", "tube"):
        if name in form.lacks:
            continue
        for _ in range(16):
            yield name, "edited", _edit(name, chance.random(), ALPHABET + "01OIB")
        yield name, "cut", lambda row, name=name: row._replace(**{name: getattr(row, name)[:-1]})
    if "kit" not in form.lacks:
        for _ in range(12):
            yield "kit", "another code", _another_code(chance.random())
    if "tube" not in form.lacks:
        yield "tube", "blank", _put(tube="")
        yield "tube", "the other one", lambda row: row._replace(tube=row.tube[:-1] + {"1": "2", "2": "1"}[row.tube[-1]])
        yield "tube", "a third one", lambda row: row._replace(tube=row.tube[:-1] + "3")


def _another_code(seed: float) -> Change:
    """A well-spelt code that differs in one character, and so in its check character."""

    def change(row: Row) -> Row:
        chance, code = Random(seed), row.kit.replace("-", "")
        at = chance.randrange(len(code) - 1)
        payload = code[:at] + chance.choice([each for each in ALPHABET if each != code[at]]) + code[at + 1 : -1]
        return row._replace(kit=show_kit_code(payload + check_character(payload)))

    return change


def _birthdays(chance: Random) -> Iterator[tuple[str, str, Change]]:
    for _ in range(24):
        yield "date of birth", "another day", _another_day(chance.random())
    for born in ("", "1999", "1999-02", "99-02-14", "2026-11-04", "1999-02-30", "unknown"):
        yield "date of birth", born, _put(born=born)


def _another_day(seed: float) -> Change:
    """A date that differs in one digit, or has day and month changed round."""

    def change(row: Row) -> Row:
        chance = Random(seed)
        year, month, day = row.born.split("-")
        if chance.random() < 0.2 and day != month and int(day) <= 12:
            return row._replace(born=f"{year}-{day}-{month}")
        while True:
            at = chance.choice([at for at, each in enumerate(row.born) if each.isdigit()])
            born = row.born[:at] + chance.choice("0123456789") + row.born[at + 1 :]
            if born != row.born and _is_date(born):
                return row._replace(born=born)

    return change


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _of_strangers(form: Form, strangers: Sequence[Sent]) -> Iterator[tuple[str, str, Change]]:
    for stranger in strangers:
        theirs = stranger.rows(form.spelling)[0]
        for name in ("kit", "tube", "born", "family"):
            if name not in form.lacks:
                yield name, "a stranger's", _put(**{name: getattr(theirs, name)})
        yield (
            "kit and tube",
            "a stranger's",
            lambda row, theirs=theirs: row._replace(kit=theirs.kit, tube=theirs.tube[:-1] + row.tube[-1]),
        )


# ── What it says ─────────────────────────────────────────────────────────────────────────────


def _values(form: Form, place: int, chance: Random) -> Iterator[Mutation]:
    for word in form.failed:
        yield Mutation("value", word, _put(value=word), (place,), may_tell="failed_sample", spoils=True)
    found = "" if place in BLOODS else "swab_positive"
    yield Mutation("value", form.found, _put(value=form.found), (place,), may_tell=found, spoils=True)
    for word in form.never:
        yield Mutation("value", word, _put(value=word), (place,), spoils=True)
    for _ in range(14):
        yield Mutation("value", "edited", _edit("value", chance.random(), ascii_lowercase), (place,), spoils=True)
    if form is not FHIR:  # where the codes of SNOMED CT name both kinds' negatives
        other = form.spelling.negative[lab_files.CT if place in BLOODS else lab_files.HIV]
        yield Mutation("value", "the other kind's negative", _put(value=other), (place,), spoils=True)


def _tests_and_sites(form: Form, place: int, chance: Random) -> Iterator[Mutation]:
    tests = list(form.spelling.test.values())
    name = "column" if form is WIDE else "test"
    for test in tests:
        if test != tests[place]:
            yield Mutation("test", test, _put(**{name: test}), (place,), spoils=True)
    if form is not WIDE:
        yield Mutation("test", "", _put(test=""), (place,), spoils=True)
        for _ in range(4):
            yield Mutation("test", "edited", _edit("test", chance.random(), ascii_uppercase), (place,), spoils=True)
    if "site" in form.lacks:
        return
    urine, blood = form.spelling.site.values() if form is not HL7 and form is not LONG else ("URN", "CAP")
    others = ("RES", "VVS", "UNK") if form in (HL7, LONG) else ("Rectal swab", "SERUM")
    for site in (urine if place in BLOODS else blood, *others):
        yield Mutation("site", site, _put(site=site), (place,), spoils=True)
    for _ in range(4):
        yield Mutation("site", "edited", _edit("site", chance.random(), ascii_uppercase), (place,), spoils=True)
    if place in SWABS:  # a blood test has one site only, which a blank then means
        yield Mutation("site", "", _put(site=""), (place,), spoils=True)
