"""Tens of thousands of spoilt lab files: no crash, no foreign kit, nothing better than the file said."""

import os
import random
import re
from collections.abc import Iterator

import pytest

from integrations.lab import reader
from models.rules.lab import LabMap
from models.rules.result import Finding, interpret
from models.rules.vocabulary import BLOOD_TESTS, Outcome
from tests.support.lab import GOLDEN, maps

MUTANTS = int(os.environ.get("LAB_MUTANTS", "6000"))
"""Of each format; more by hand. Twenty thousand of each passed when the readers were made."""

FORMATS = {
    "hl7": "[01]*.hl7",
    "fhir": "06*.json",
    "long table": "07*.csv",
    "wide table": "08*.csv",
    "quoted table": "09*.csv",
}


ACCIDENTS = {"wide table": (1,)}
"""A cell delimiter lost and another won shift the cells between them: no reader of a wide table can see that."""


def spoil(raw: bytes, chance: random.Random, accidents: tuple[int, ...]) -> bytes:
    """Small accidents: a byte changed, lost or added, a line lost, doubled or cut."""
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
                lines = re.split(rb"(?<=[\r\n])", raw)
                number = chance.randrange(len(lines))
                lines[number : number + 1] = chance.choice(([], [lines[number]] * 2, [lines[number][:-3]]))
                raw = b"".join(lines)
    return raw


def findings(raw: bytes, lab: LabMap) -> Iterator[Finding]:
    if reader.check_file([raw], lab).held:
        return
    for message in reader.read_messages([raw], lab):
        readings = interpret(message, lab)
        assert {r.row_key for r in readings} == {row.row_key for row in message.rows}
        yield from (r for r in readings if isinstance(r, Finding))


@pytest.mark.proof
@pytest.mark.timeout(600)
@pytest.mark.parametrize("form", FORMATS)
def test_no_spoilt_file_says_anything_better_than_the_whole_one(form: str) -> None:
    chance = random.Random(20261103)
    paths = sorted(GOLDEN.glob(FORMATS[form]))
    wholes = [path.read_bytes() for path in paths]
    labs = [reader.recognise(raw, list(maps().values())).lab for raw in wholes]
    said: dict[tuple[str, str, str], set[Outcome]] = {}
    for raw, lab in zip(wholes, labs, strict=True):
        assert lab is not None
        for found in findings(raw, lab):
            said.setdefault((found.kit_code, found.test, found.site), set()).add(found.outcome)
    kits = {kit for kit, _, _ in said} | {"FX6DRKPDN8", "VXKHYKRNM2"}

    for _ in range(MUTANTS):
        number = chance.randrange(len(wholes))
        mutant = spoil(wholes[number], chance, ACCIDENTS.get(form, (1, 1, 1, 2, 3)))
        lab = labs[number]
        assert lab is not None
        for found in findings(mutant, lab):
            key = (found.kit_code, found.test, found.site)
            assert found.kit_code in kits
            assert found.outcome is not Outcome.POSITIVE or found.test not in BLOOD_TESTS
            assert found.outcome is not Outcome.NEGATIVE or Outcome.NEGATIVE in said.get(key, ()), mutant


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_every_sample_cut_at_every_byte_is_held_or_says_a_part() -> None:
    for path in sorted(GOLDEN.glob("*.hl7")) + sorted(GOLDEN.glob("*.json")):
        raw = path.read_bytes()
        for cut in range(len(raw)):
            if raw[cut:].strip():
                assert not list(findings(raw[:cut], maps()["NORTHLAB"])), (path.name, cut)
