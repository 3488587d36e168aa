"""The sixteen invented people's files read as their README says, and never better than their trailer proves."""

import re

import pytest

from integrations.lab import reader
from models.rules.reading import Detail, Finding, Quarantined
from models.rules.result import interpret
from models.rules.vocabulary import Outcome
from tests.support.lab import GOLDEN, maps, say

EXPECTED = {
    "01-batch-ordinary.hl7": (
        "7 negative,8 negative,12 negative,13 negative,18 positive,19 negative,22 negative,23 negative"
    ),
    "02a-partial.hl7": "7 negative,8 pending,11 pending,12 pending",
    "02b-final.hl7": "7 negative,8 negative!,12 negative,13 negative",
    "03a-negative.hl7": "7 negative,8 negative",
    "03b-corrected-positive.hl7": "7 positive!,9 negative",
    "04-insufficient-blood.hl7": "7 negative,8 negative,11 insufficient,12 negative,13 insufficient!",
    "05-hiv-reactive.hl7": "7 reactive,8 detail,10 negative",
    "06-fhir-bundle.json": "3 negative,4 positive,5 negative",
    "07-csv-dialect-a.csv": "2 negative,3 negative,4 inhibitory!,5 inhibitory!",
    "08-csv-dialect-b.csv": (
        "3:ct_ur negative!,3:gc_ur negative!,3:ct_th negative!,3:gc_th positive!,3:ct_re negative!,3:gc_re negative!,"
        "3:hiv negative!,3:syph negative!,3:hbv not_requested!,3:hcv not_requested!,"
        "4:ct_ur negative!,4:gc_ur negative!,4:ct_th not_requested!,4:gc_th not_requested!,4:ct_re not_requested!,"
        "4:gc_re not_requested!,4:hiv haemolysed!,4:syph haemolysed!,4:hbv haemolysed!,4:hcv haemolysed!"
    ),
    "09-csv-dialect-c.csv": "2 negative,3 equivocal,4 low_reactive,5 negative,6 reactive",
    "10-truncated.hl7": "incomplete_file",
    "11-unknown-token.hl7": "7 negative,8 unknown_token,9 unknown_test",
}
"""Row and outcome or quarantine; ! is a comment for a person."""

WHOLE = [name for name in EXPECTED if name != "10-truncated.hl7"]
HL7 = [name for name in WHOLE if name.endswith(".hl7")]


def summary(raw: bytes, *, control: bytes | None = None) -> str:
    recognised = reader.recognise(raw, list(maps().values()))
    if recognised.lab is None:
        return "not recognised"
    verdict = reader.check_file([raw], recognised.lab, control)
    if verdict.held:
        return str(verdict.held.reason)
    said = [
        f"{r.row_key} {say(r)}{'!' if isinstance(r, Finding) and r.note_review else ''}"
        for message in reader.read_messages([raw], recognised.lab)
        for r in interpret(message, recognised.lab)
    ]
    return ",".join(said)


def control_of(name: str) -> bytes | None:
    path = GOLDEN / f"{name}.ctl"
    return path.read_bytes() if path.exists() else None


@pytest.mark.parametrize("name", EXPECTED)
def test_a_sample_reads_as_its_readme_says(name: str) -> None:
    assert summary((GOLDEN / name).read_bytes(), control=control_of(name)) == EXPECTED[name]


@pytest.mark.parametrize("name", WHOLE)
def test_pieces_of_any_size_read_the_same(name: str) -> None:
    raw = (GOLDEN / name).read_bytes()
    lab = reader.recognise(raw, list(maps().values())).lab
    assert lab is not None
    whole = list(reader.read_messages([raw], lab))

    for size in (1, 7, 64):
        pieces = [raw[at : at + size] for at in range(0, len(raw), size)]
        assert list(reader.read_messages(pieces, lab)) == whole
        assert reader.check_file(pieces, lab) == reader.check_file([raw], lab)


@pytest.mark.parametrize("name", WHOLE)
def test_reading_may_go_on_after_any_message(name: str) -> None:
    raw = (GOLDEN / name).read_bytes()
    lab = reader.recognise(raw, list(maps().values())).lab
    assert lab is not None
    whole = list(reader.read_messages([raw], lab))

    for skip in range(len(whole) + 1):
        assert list(reader.read_messages([raw], lab, skip)) == whole[skip:]


@pytest.mark.parametrize("name", HL7)
@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_a_byte_order_mark_change_nothing(name: str, end: bytes, mark: bytes) -> None:
    raw = (GOLDEN / name).read_bytes()
    lines = re.split(rb"\r\n|\r|\n", raw)

    assert summary(mark + end.join(lines)) == EXPECTED[name]


@pytest.mark.parametrize("name", HL7)
def test_the_same_message_has_the_same_hash_whatever_its_line_ends(name: str) -> None:
    raw = (GOLDEN / name).read_bytes()
    lab = maps()["NORTHLAB"]

    hashes = {
        tuple(m.content_sha256 for m in reader.read_messages([end.join(re.split(rb"\r\n|\r|\n", raw))], lab))
        for end in (b"\r", b"\n", b"\r\n")
    }

    assert len(hashes) == 1


@pytest.mark.parametrize("name", HL7)
def test_messages_in_mllp_frames_read_the_same(name: str) -> None:
    raw = re.sub(rb"\r\n|\n", rb"\r", (GOLDEN / name).read_bytes())
    framed = raw.replace(b"\rMSH", b"\r\x1c\r\x0bMSH").replace(b"\rBTS", b"\x1c\rBTS")

    assert [part.split(" ")[1] for part in summary(framed).split(",")] == [
        part.split(" ")[1] for part in EXPECTED[name].split(",")
    ]


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_cut_at_any_byte_never_says_more_than_it_proves(name: str) -> None:
    raw = (GOLDEN / name).read_bytes()
    control = control_of(name)
    whole = set(EXPECTED[name].split(","))
    step = 1 if len(raw) < 1_000 else 3
    for cut in range(0, len(raw) - 1, step):
        said = summary(raw[:cut], control=control)
        if name == "09-csv-dialect-c.csv":  # nothing counts its rows: whole lines may be missing, and no more
            assert said in {"not recognised", "incomplete_file", "malformed", ""} or set(said.split(",")) <= whole
            assert raw[:cut].endswith(b"\n") or " " not in said or said == "not recognised"
        elif raw[cut:].strip():
            assert "ative" not in said
            assert said in {"not recognised", "incomplete_file", "header_changed", "malformed", "empty_file"}


def test_a_checksum_that_does_not_fit_holds_the_file() -> None:
    raw = (GOLDEN / "07-csv-dialect-a.csv").read_bytes().replace(b"Inhibitory", b"Not detected", 1)

    assert summary(raw, control=control_of("07-csv-dialect-a.csv")) == "incomplete_file"


def test_without_its_control_file_a_table_is_unproven() -> None:
    raw = (GOLDEN / "07-csv-dialect-a.csv").read_bytes()

    verdict = reader.check_file([raw], maps()["NORTHLAB"])

    assert verdict.completeness is reader.Completeness.UNPROVEN
    assert verdict.held is None


def test_odd_letters_of_the_tables_stay_whole() -> None:
    raw = (GOLDEN / "08-csv-dialect-b.csv").read_bytes()
    lab = maps()["SOUTHVALE"]

    comments = {
        r.comment for m in reader.read_messages([raw], lab) for r in interpret(m, lab) if isinstance(r, Finding)
    }

    assert comments == {
        "Gonorrhoea throat: 2nd target confirmed – notify",
        "Café stain on form; sample haemolysed",
    }


def test_both_revisions_of_one_result_are_kept_in_order() -> None:
    raw = (GOLDEN / "09-csv-dialect-c.csv").read_bytes()
    lab = maps()["QUAYSIDE"]

    syphilis = [
        (r.revision, r.outcome, str(r.status))
        for m in reader.read_messages([raw], lab)
        for r in interpret(m, lab)
        if isinstance(r, Finding) and r.test == "syphilis"
    ]

    assert syphilis == [(1, Outcome.NEGATIVE, "final"), (2, Outcome.REACTIVE, "corrected")]


@pytest.mark.parametrize("name", WHOLE)
def test_every_row_of_a_sample_is_accounted_for(name: str) -> None:
    raw = (GOLDEN / name).read_bytes()
    lab = reader.recognise(raw, list(maps().values())).lab
    assert lab is not None

    for message in reader.read_messages([raw], lab):
        readings = interpret(message, lab)
        assert [r.row_key for r in readings] == [row.row_key for row in message.rows]
        assert all(isinstance(r, Finding | Quarantined | Detail) for r in readings)
