"""A hundred thousand spoilt lab files of each format: no crash, no foreign kit, nothing better than the file said.

Two kinds. Samples with small accidents of bytes and lines are judged by what the whole sample says. Files of two
people with nothing but negatives have tokens and lines changed round between them; what may still be told is
judged by the very rule that matches a row with its kit. The database's part is tests/proof/test_mutations.py.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import UTC, date, datetime
from random import Random
from typing import NamedTuple

import pytest

from integrations.lab import reader
from models.rules.kit import show_kit_code
from models.rules.lab import LabMap
from models.rules.matching import KitFacts, Reported, Tube, check_match
from models.rules.person import fold_name
from models.rules.reading import Finding
from models.rules.result import interpret
from models.rules.service import LabContract
from models.rules.vocabulary import BLOOD_TESTS, Outcome, Site, Test
from tests.support import lab_files
from tests.support.lab import GOLDEN, maps
from tests.support.lab_files import Spelling

MUTANTS = int(os.environ.get("LAB_MUTANTS", "100000"))
"""Of each format. The three tables are one format and share them."""

BYTES_IN = 4
"""Three in four mutants are accidents of bytes, the fourth has tokens and lines changed round."""


class Corpus(NamedTuple):
    """One format: the samples that are spoilt, and how a file of negatives is written."""

    name: str
    samples: str
    spelling: Spelling
    write: Callable[[list[lab_files.Row]], bytes]
    share: int = 1
    accidents: tuple[int, ...] = (1, 1, 1, 2, 3)

    @property
    def mutants(self) -> int:
        return MUTANTS // self.share


CORPORA = (
    Corpus("hl7", "[01]*.hl7", lab_files.HL7, lab_files.hl7),
    Corpus("fhir", "06*.json", lab_files.FHIR, lab_files.fhir),
    Corpus("long table", "07*.csv", lab_files.LONG, lab_files.long_table, share=3),
    # A cell delimiter lost and another won shift the cells between them: no reader of a wide table can see that.
    Corpus("wide table", "08*.csv", lab_files.WIDE, lab_files.wide_table, share=3, accidents=(1,)),
    Corpus("quoted table", "09*.csv", lab_files.QUOTED, lab_files.quoted_table, share=3),
)

every_corpus = pytest.mark.parametrize("corpus", CORPORA, ids=lambda corpus: corpus.name)


def findings(raw: bytes, lab: LabMap) -> Iterator[Finding]:
    if reader.check_file([raw], lab).held:
        return
    for message in reader.read_messages([raw], lab):
        readings = interpret(message, lab)
        assert {r.row_key for r in readings} == {row.row_key for row in message.rows}
        yield from (r for r in readings if isinstance(r, Finding))


# ── Accidents of bytes ───────────────────────────────────────────────────────────────────────


def spoil(raw: bytes, chance: Random, accidents: tuple[int, ...]) -> bytes:
    """Small accidents: a byte changed, flipped, lost or doubled, the end cut, a line lost, doubled, cut or moved."""
    for _ in range(chance.choice(accidents)):
        if not raw:
            return raw
        at = chance.randrange(len(raw))
        match chance.randrange(7):
            case 0:
                raw = raw[:at] + bytes([chance.randrange(256)]) + raw[at + 1 :]
            case 1:
                raw = raw[:at] + bytes([raw[at] ^ (1 << chance.randrange(8))]) + raw[at + 1 :]
            case 2:
                raw = raw[:at] + raw[at + 1 :]
            case 3:
                raw = raw[:at] + raw[at : at + 1] + raw[at:]
            case 4:
                raw = raw[: at + 1]
            case _:
                lines = raw.splitlines(keepends=True)
                number = chance.randrange(len(lines))
                lines[number : number + 1] = chance.choice(([], [lines[number]] * 2, [lines[number][:-3]]))
                raw = b"".join(lines)
    return raw


def wholes_of(corpus: Corpus) -> list[bytes]:
    """The samples as they are spoilt: a Bundle whole, and with each of its results alone, without blanks."""
    raw = [path.read_bytes() for path in sorted(GOLDEN.glob(corpus.samples))]
    if corpus.name != "fhir":
        return raw
    (bundle,) = map(json.loads, raw)
    results = [entry for entry in bundle["entry"] if entry["resource"]["resourceType"] == "Observation"]
    made = [bundle]
    for kept in results:
        alone = deepcopy(bundle)
        alone["entry"] = [each for each in alone["entry"] if each == kept or each not in results]
        for entry in alone["entry"]:
            if entry["resource"]["resourceType"] == "DiagnosticReport":
                entry["resource"]["result"] = [{"reference": kept["fullUrl"]}]
        made.append(alone)
    return [json.dumps(each, separators=(",", ":"), ensure_ascii=False).encode() for each in made]


@pytest.mark.proof
@pytest.mark.timeout(600)
@every_corpus
def test_no_spoilt_file_says_anything_better_than_the_whole_one(corpus: Corpus) -> None:
    chance = Random(20261103)
    wholes = wholes_of(corpus)
    lab = maps()[corpus.spelling.lab]
    said: dict[tuple[str, str, str], set[Outcome]] = {}
    for raw in wholes:
        for found in findings(raw, lab):
            said.setdefault((found.kit_code, found.test, found.site), set()).add(found.outcome)
    assert said
    kits = {kit for kit, _, _ in said} | {"FX6DRKPDN8", "VXKHYKRNM2"}

    for _ in range(corpus.mutants * (BYTES_IN - 1) // BYTES_IN):
        mutant = spoil(chance.choice(wholes), chance, corpus.accidents)
        for found in findings(mutant, lab):
            key = (found.kit_code, found.test, found.site)
            assert found.kit_code in kits
            assert found.outcome is not Outcome.POSITIVE or found.test not in BLOOD_TESTS
            assert found.outcome is not Outcome.NEGATIVE or Outcome.NEGATIVE in said.get(key, ()), mutant


# ── Tokens and lines changed round ───────────────────────────────────────────────────────────

PEOPLE = (("T4JWW75K3Y", "Fernsby", "1999-02-14"), ("W8JPVM8V7R", "Quillmere", "1988-06-30"))
SENT = datetime(2026, 10, 20, tzinfo=UTC)
NOW = datetime(2026, 11, 5, 12, tzinfo=UTC)
TOKENS = re.compile(r"([|^&~,;\r\n\"]+)")
PIECES = re.compile(r"[^,]*,|[^,]+$")
"""JSON on one line: what stands between its commas."""
ODD = ("", "N", "F", "ND", "1", "0", "NEG", "Negative", "None", "normal", "DETECTED", "2026", "-", "null")


def facts_of(code: str, lab: str) -> KitFacts:
    """What we know of the kit: urine for chlamydia and gonorrhoea in tube 1, blood for HIV and syphilis in tube 2."""
    first, second = code + "1", code + "2"
    return KitFacts(
        lab,
        SENT,
        {first: Tube(Site.URINE), second: Tube(Site.BLOOD)},
        {
            (Test.CHLAMYDIA, Site.URINE): first,
            (Test.GONORRHOEA, Site.URINE): first,
            (Test.HIV, Site.BLOOD): second,
            (Test.SYPHILIS, Site.BLOOD): second,
        },
    )


def reported(found: Finding, family: str, born: str) -> Reported:
    return Reported(
        found.tube_code,
        found.test,
        found.site,
        found.collected_at,
        found.received_at,
        born_known=True,
        born_agrees=found.dob == date.fromisoformat(born),
        family_known=found.family_name is not None,
        family_agrees=found.family_name == fold_name(family),
    )


def change_round(raw: str, chance: Random) -> str:
    """Two tokens or two lines change places, a line is lost, or a token becomes an odd word."""
    kind = chance.randrange(4)
    if kind < 2:
        lines = raw.splitlines(keepends=True)
        lines = lines if len(lines) > 1 else PIECES.findall(raw)
        one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
        if kind:
            del lines[one]
        else:
            lines[one], lines[other] = lines[other], lines[one]
        return "".join(lines)
    parts = TOKENS.split(raw)
    one, other = (2 * chance.randrange(len(parts) // 2) for _ in range(2))
    if kind == 2:
        parts[one], parts[other] = parts[other], parts[one]
    else:
        parts[one] = chance.choice(ODD)
    return "".join(parts)


@pytest.mark.proof
@pytest.mark.timeout(600)
@every_corpus
def test_whatever_changes_places_nobody_is_told_by_a_row_that_is_not_wholly_their_own(corpus: Corpus) -> None:
    chance = Random(20261104)
    lab = maps()[corpus.spelling.lab]
    contract = LabContract(lab.lab, carries_tube=corpus.name != "wide table", tubeless_signed_by="a test")
    kits = {code: (family, born, facts_of(code, lab.lab)) for code, family, born in PEOPLE}
    people = [lab_files.negative_rows(code, family, born, spelling=corpus.spelling) for code, family, born in PEOPLE]
    if corpus.name == "fhir":  # one person a Bundle: the other's tokens come in by hand
        wholes = [corpus.write(rows).decode() for rows in people]
        strangers = [show_kit_code(PEOPLE[1][0]), *PEOPLE[1][1:]]
    else:
        wholes, strangers = [corpus.write(people[0] + people[1]).decode()], []
    said = [f.outcome for whole in wholes for f in findings(whole.encode(), lab)]
    assert [outcome for outcome in said if outcome is not Outcome.NOT_REQUESTED] == [Outcome.NEGATIVE] * 8
    told = 0

    for _ in range(corpus.mutants // BYTES_IN):
        mutant = change_round(chance.choice(wholes), chance)
        if strangers and chance.random() < 0.25:
            parts = TOKENS.split(mutant)
            parts[2 * chance.randrange(len(parts) // 2)] = chance.choice(strangers)
            mutant = "".join(parts)
        for found in findings(mutant.encode(), lab):
            family, born, facts = kits.get(found.kit_code, ("", "0001-01-01", None))
            if (
                found.outcome is not Outcome.NOT_REQUESTED
                and check_match(reported(found, family, born), facts, contract, now=NOW) is None
            ):
                told += 1
                assert found.kit_code in kits
                assert found.dob.isoformat() == born
                assert found.tube_code in {None, facts.requested[found.test, found.site]}
                assert found.outcome is not Outcome.POSITIVE or found.test not in BLOOD_TESTS
    assert told > corpus.mutants // BYTES_IN // 2, "mutants of which nothing is understood prove nothing"


# ── Cut ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_every_sample_cut_at_every_byte_is_held_or_says_a_part() -> None:
    for path in sorted(GOLDEN.glob("*.hl7")) + sorted(GOLDEN.glob("*.json")):
        raw = path.read_bytes()
        for cut in range(len(raw)):
            if raw[cut:].strip():
                assert not list(findings(raw[:cut], maps()["NORTHLAB"])), (path.name, cut)


@pytest.mark.proof
@pytest.mark.timeout(600)
@pytest.mark.parametrize("corpus", CORPORA[2:], ids=lambda corpus: corpus.name)
def test_every_table_cut_at_every_byte_never_says_more_than_its_whole_lines(corpus: Corpus) -> None:
    (path,) = GOLDEN.glob(corpus.samples)
    raw, lab = path.read_bytes(), maps()[corpus.spelling.lab]
    whole = {(f.kit_code, f.test, f.site, f.outcome, f.dob) for f in findings(raw, lab)}
    for cut in range(len(raw)):
        part = {(f.kit_code, f.test, f.site, f.outcome, f.dob) for f in findings(raw[:cut], lab)}
        assert part <= whole, cut
        assert not part or raw[:cut].endswith((b"\r", b"\n")), cut
