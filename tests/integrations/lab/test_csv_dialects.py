"""Tables in a declared dialect: nothing guessed, cells counted, a changed header held."""

import csv
import dataclasses
import hashlib
import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations.lab import reader
from models.rules.lab import LabMap
from models.rules.reading import Finding
from models.rules.result import interpret
from tests.support.lab import GOLDEN, maps, say

A = maps()["NORTHLAB"]
B = maps()["SOUTHVALE"]
C = maps()["QUAYSIDE"]

HEADER_A = "LabNo,KitCode,TubeCode,Surname,DOB,Collected,Received,Authorised,TestCode,Site,Result,Status,Comment"
ROW_A = "26V1,WT7-CF5-NY2C,WT7-CF5-NY2C-1,Kit,12/06/1998,01/11/2026,03/11/2026 08:05,04/11/2026 11:20,CTN,VVS,Not detected,F,"  # noqa: E501
HEADER_B = "barcode;dob;rec_date;rep_date;ct_ur;gc_ur;ct_th;gc_th;ct_re;gc_re;hiv;syph;hbv;hcv;remark"
ROW_B = "J49MKCC2CM;1994-02-28;2026-11-03;2026-11-04;NEG;NEG;;;;;NR;;;;"
HEADER_C = '"accession_id","order_ref","patient_dob","specimen_type","analyte","result_code","result_text","result_status","revision","released_at"'  # noqa: E501
ROW_C = '"Q1","7FY-77M-J3H4-2","19-Jan-1976","DBS","HIV Ag/Ab","1","NON REACTIVE","FINAL","1","2026-11-04T12:00:00Z"'


def table(*lines: str, end: str = "\r\n") -> bytes:
    return (end.join(lines) + end).encode("cp1252")


def a(**changed: str) -> bytes:
    cells = dict(zip(HEADER_A.split(","), ROW_A.split(","), strict=True)) | changed
    buffer = io.StringIO()
    csv.writer(buffer).writerows([cells.keys(), cells.values()])
    return buffer.getvalue().encode()


def b(**changed: str) -> bytes:
    cells = dict(zip(HEADER_B.split(";"), ROW_B.split(";"), strict=True)) | changed
    return table("H;SOUTHVALE PATH;20261104;0001", HEADER_B, ";".join(cells.values()), "T;0001")


def c(**changed: str) -> bytes:
    names = [name.strip('"') for name in HEADER_C.split(",")]
    cells = dict(zip(names, (cell.strip('"') for cell in ROW_C.split(",")), strict=True)) | changed
    return table(HEADER_C, ",".join(f'"{cell}"' for cell in cells.values()), end="\n")


def said(raw: bytes, lab: LabMap) -> list[str]:
    verdict = reader.check_file([raw], lab)
    if verdict.held:
        return [str(verdict.held.reason)]
    return [str(say(r)) for m in reader.read_messages([raw], lab) for r in interpret(m, lab)]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "negative"),
        ({"Result": " not  DETECTED "}, "negative"),
        ({"Result": "Inhibitory"}, "inhibitory"),
        ({"Result": "Insufficient", "Status": "X"}, "insufficient"),
        ({"Result": "Insufficient"}, "insufficient"),
        ({"Result": "ND"}, "unknown_token"),
        ({"Result": ""}, "empty_value"),
        ({"Result": "=1+1"}, "unknown_token"),
        ({"Status": "P"}, "pending"),
        ({"Status": "p"}, "pending"),
        ({"Status": "C", "Result": "DETECTED"}, "positive"),
        ({"Status": ""}, "unknown_status"),
        ({"Status": "FINAL"}, "unknown_status"),
        ({"DOB": "36323"}, "identity_missing"),
        ({"DOB": "1998-06-12"}, "identity_missing"),
        ({"DOB": "31/02/1998"}, "identity_missing"),
        ({"Site": ""}, "site_unknown"),
        ({"Site": "CAP"}, "specimen_conflict"),
        ({"TestCode": "HIVS"}, "specimen_conflict"),
        ({"KitCode": "WT7-CF5-NY2D"}, "bad_kit_id"),
        ({"KitCode": "T4J-WW7-5K3Y"}, "tube_mismatch"),
        ({"Collected": "45963"}, "date_implausible"),
        ({"Collected": "04/11/2026"}, "date_implausible"),
        ({"Comment": "a�b"}, "negative"),
        ({"Surname": "K�t"}, "encoding"),
    ],
)
def test_a_row_of_the_long_table_is_read_by_the_same_rules(changed: dict[str, str], expected: str) -> None:
    assert said(a(**changed), A) == [expected]


@pytest.mark.parametrize(
    ("changed", "column", "expected"),
    [
        ({"ct_ur": "neg"}, 0, "negative"),
        ({"ct_ur": "POS"}, 0, "positive"),
        ({"ct_ur": "NR"}, 0, "unknown_token"),
        ({"ct_ur": "NEG?"}, 0, "unknown_token"),
        ({"ct_th": ""}, 2, "not_requested"),
        ({"hiv": "NR"}, 6, "negative"),
        ({"hiv": "NEG"}, 6, "unknown_token"),
        ({"hiv": "POS"}, 6, "reactive"),
        ({"hiv": "LR"}, 6, "low_reactive"),
        ({"syph": "HAEM"}, 7, "haemolysed"),
    ],
)
def test_a_cell_of_the_wide_table_is_a_row_of_its_own(changed: dict[str, str], column: int, expected: str) -> None:
    found = said(b(**changed), B)

    assert len(found) == 10
    assert found[column] == expected


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "negative"),
        ({"result_code": "3", "result_text": "REACTIVE"}, "reactive"),
        ({"result_code": "4", "result_text": "LOW REACTIVE (COI 3.2)"}, "low_reactive"),
        ({"result_code": "4", "result_text": "LOW REACTIVE (COI 0.2)"}, "code_display_conflict"),
        ({"result_code": "4", "result_text": "LOW REACTIVE (COI 12)"}, "code_display_conflict"),
        ({"result_code": "1", "result_text": "NON REACTIVE (COI 3.2)"}, "code_display_conflict"),
        ({"result_code": "1", "result_text": "REACTIVE"}, "code_display_conflict"),
        ({"result_code": "3", "result_text": "NON REACTIVE"}, "code_display_conflict"),
        ({"result_code": "1", "result_text": ""}, "code_display_conflict"),
        ({"result_code": "", "result_text": "NON REACTIVE"}, "code_display_conflict"),
        ({"result_code": "2", "result_text": "NOT DETECTED"}, "unknown_token"),
        ({"result_code": "0", "result_text": "NON REACTIVE"}, "unknown_token"),
        ({"result_code": "8", "result_text": "INSUFFICIENT", "result_status": "CANCELLED"}, "insufficient"),
        ({"result_status": "INTERIM"}, "pending"),
        ({"result_status": "F"}, "unknown_status"),
        ({"patient_dob": "19-01-1976"}, "identity_missing"),
        ({"specimen_type": "FCU"}, "specimen_conflict"),
        ({"released_at": "2026-11-04T12:00:00"}, "date_implausible"),
        ({"order_ref": "7FY-77M-J3H5-2"}, "bad_kit_id"),
    ],
)
def test_a_code_and_its_text_must_both_be_there_and_agree(changed: dict[str, str], expected: str) -> None:
    assert said(c(**changed), C) == [expected]


def test_columns_may_come_in_any_order() -> None:
    names, cells = HEADER_A.split(","), ROW_A.split(",")

    assert said(table(",".join(names[::-1]), ",".join(cells[::-1])), A) == ["negative"]


@pytest.mark.parametrize(
    "header",
    [
        HEADER_A.replace("Result", "Resultat"),
        HEADER_A.replace(",Comment", ""),
        HEADER_A + ",Extra",
        HEADER_A.replace("Comment", "Result"),
        HEADER_A.replace(",", ";"),
        HEADER_A.lower(),
    ],
)
def test_a_changed_header_holds_the_file(header: str) -> None:
    assert said(table(header, ROW_A), A) == ["header_changed"]


def test_a_table_may_carry_tube_ids_alone() -> None:
    assert A.csv is not None
    tubes_only = dataclasses.replace(A, csv=dataclasses.replace(A.csv, kit="", accession=""))

    assert said(table(HEADER_A, ROW_A), tubes_only) == ["negative"]


@pytest.mark.parametrize(
    ("header", "detail"),
    [
        (HEADER_A.replace("Result", "Resultat"), "Agreed columns are missing: 'Result'; 13 are there, 13 are agreed."),
        (HEADER_A.replace(",Comment", ""), "Agreed columns are missing: 'Comment'; 12 are there, 13 are agreed."),
        (HEADER_A + ",Extra", "No agreed column is missing; 14 are there, 13 are agreed."),
    ],
)
def test_a_changed_header_names_the_agreed_column_that_is_missing(header: str, detail: str) -> None:
    held = reader.check_file([table(header, ROW_A)], A).held

    assert held is not None
    assert held.detail == detail


def test_what_stands_where_the_header_should_be_is_not_repeated() -> None:
    row = ROW_A.replace(",Kit,", ",Ashdown,")

    held = reader.check_file([table(row, row)], A).held

    assert held is not None
    assert not [cell for cell in row.split(",") if len(cell) > 1 and cell in held.detail]


@pytest.mark.parametrize(
    "raw",
    [
        table("H;SOUTHVALE PATH;20261104;0002", HEADER_B, ROW_B, "T;0002"),
        table("H;SOUTHVALE PATH;20261104;0001", HEADER_B, ROW_B, "T;0002"),
        table("H;SOUTHVALE PATH;20261104;0001", HEADER_B, ROW_B),
        table("H;SOUTHVALE PATH;20261104;0001", HEADER_B, ROW_B, "T;0001", ROW_B),
        table("H;SOUTHVALE PATH;20261104;one", HEADER_B, ROW_B, "T;0001"),
        table("H;SOUTHVALE PATH;20261104;0001", HEADER_B, ROW_B, "T;0001")[:-2],
        table(HEADER_A, ROW_A)[:-2],
    ],
)
def test_a_table_that_does_not_add_up_is_held(raw: bytes) -> None:
    assert said(raw, A if raw.startswith(b"LabNo") else B) == ["incomplete_file"]


def test_an_open_quotation_mark_holds_the_file() -> None:
    assert said(table(HEADER_A, ROW_A + '"open', ROW_A), A) == ["malformed"]


def test_a_ragged_row_among_many_is_kept_apart_and_the_others_go_on() -> None:
    raw = table(HEADER_A, *[ROW_A.replace("26V1", f"26V{n}") for n in range(150)], "too,few,cells")

    found = said(raw, A)

    assert (found.count("negative"), found.count("malformed")) == (150, 1)


def test_many_ragged_rows_hold_the_file() -> None:
    assert said(table(HEADER_A, ROW_A, "too,few,cells"), A) == ["malformed"]


def test_a_comment_may_hold_delimiters_quotes_and_line_breaks() -> None:
    raw = a(Comment='first, "second"\r\nthird')

    (found,) = [r for m in reader.read_messages([raw], A) for r in interpret(m, A)]

    assert isinstance(found, Finding)
    assert found.comment == 'first, "second"\nthird'


def test_a_line_number_counts_the_lines_of_the_file() -> None:
    raw = table(HEADER_A, ROW_A + '"one\r\ntwo"', ROW_A.replace("26V1", "26V2"))

    assert [r.position for m in reader.read_messages([raw], A) for r in interpret(m, A)] == [2, 4]


def test_two_rows_of_one_result_that_differ_are_for_a_person() -> None:
    raw = table(HEADER_A, ROW_A, ROW_A.replace("Not detected", "DETECTED"))

    assert said(raw, A) == ["conflicting_values"] * 2


def many(*last: str, before: int) -> bytes:
    """The long table: so many ordinary rows, then these."""
    filler = [ROW_A.replace("26V1", f"26V{number + 2}") for number in range(before)]
    return table(HEADER_A, *filler, *last)


@pytest.mark.parametrize("before", [997, 998, 999, 1997, 1998])
def test_what_rows_mean_together_is_the_same_anywhere_in_a_file(before: int) -> None:
    pair = ROW_A, ROW_A.replace("Not detected", "DETECTED")

    assert said(many(*pair, before=before), A)[-2:] == ["conflicting_values"] * 2


@pytest.mark.parametrize(
    ("number", "kit"), [("26v1", "WT7-CF5-NY2C"), ("26V1", "wt7cf5ny2c"), (" 26V1 ", "WT7 CF5 NY2C")]
)
def test_rows_of_one_number_belong_together_however_it_is_spelt(number: str, kit: str) -> None:
    other = ROW_A.replace("Not detected", "DETECTED").replace("26V1,WT7-CF5-NY2C,", f"{number},{kit},")

    assert said(table(HEADER_A, ROW_A, other), A) == ["conflicting_values"] * 2


def test_a_row_without_the_laboratorys_number_belongs_to_those_of_its_kit() -> None:
    first, other = ROW_A.removeprefix("26V1"), ROW_A.removeprefix("26V1").replace("Not detected", "DETECTED")

    assert said(table(HEADER_A, first, other), A) == ["conflicting_values"] * 2


def test_a_long_cell_is_a_cell_like_any_other() -> None:
    long = ROW_A + "y" * 200_000

    assert said(table(HEADER_A, long, ROW_A.replace("26V1", "26V2")), A) == ["negative", "negative"]


def test_another_delimiter_behind_quotation_marks_is_a_changed_header() -> None:
    assert said(table(HEADER_C.replace(",", "\t"), ROW_C.replace(",", "\t")), C) == ["header_changed"]


def test_a_later_report_of_the_same_result_is_no_contradiction() -> None:
    later = ROW_A.replace("Not detected", "DETECTED").replace("04/11/2026 11:20", "05/11/2026 11:20")

    assert said(table(HEADER_A, ROW_A, later), A) == ["negative", "positive"]


def test_bytes_of_the_agreed_fallback_are_taken_and_flagged() -> None:
    raw = table(HEADER_A, ROW_A.replace("Kit", "Zoë"))

    verdict = reader.check_file([raw], A)

    assert any("cp1252" in warning for warning in verdict.warnings)
    assert said(raw, A) == ["negative"]


def test_bytes_of_no_agreed_encoding_keep_their_row_apart() -> None:
    assert said(a(Comment="XX").replace(b"XX", b"\x81"), A) == ["encoding"]
    assert said(c(result_status="XX").replace(b"XX", b"\xe9"), C) == ["encoding"]


@pytest.mark.parametrize("control", [b"", b"rows=1", b"rows=x\nsha256=00", b"\xff\xfe"])
def test_a_control_file_that_can_not_be_read_holds_the_table(control: bytes) -> None:
    verdict = reader.check_file([a()], A, control)

    assert verdict.held is not None
    assert verdict.held.reason == "incomplete_file"


def test_a_control_file_that_says_a_thing_twice_holds_the_table() -> None:
    raw = table(HEADER_A, ROW_A)
    control = f"rows=2\nrows=1\nsha256={hashlib.sha256(raw).hexdigest()}\n".encode()

    held = reader.check_file([raw], A, control).held

    assert held is not None
    assert held.reason == "incomplete_file"


def test_a_right_control_file_proves_the_table() -> None:
    raw = a()

    verdict = reader.check_file([raw], A, f"rows=1\nsha256={hashlib.sha256(raw).hexdigest().upper()}\n".encode())

    assert (verdict.held, verdict.completeness) == (None, reader.Completeness.PROVEN)


def test_a_header_that_two_labs_share_names_neither() -> None:
    twin = replace(A, lab="TWIN")

    recognised = reader.recognise(a(), [A, twin])

    assert recognised.lab is None
    assert recognised.fault is not None
    assert "several" in recognised.fault.detail


@given(st.text(st.characters(codec="cp1252", exclude_categories=["Cc"]), max_size=10))
def test_no_invented_cell_is_ever_negative(word: str) -> None:
    raw = a(Result=word)

    assert said(raw, A) != ["negative"] or " ".join(word.casefold().split()) == "not detected"


@pytest.mark.parametrize("name", ["07-csv-dialect-a.csv", "08-csv-dialect-b.csv", "09-csv-dialect-c.csv"])
def test_each_table_is_recognised_by_its_header_alone(name: str) -> None:
    raw = (GOLDEN / name).read_bytes()
    expected = {"07": "NORTHLAB", "08": "SOUTHVALE", "09": "QUAYSIDE"}[name[:2]]

    recognised = reader.recognise(raw[:400], list(maps().values()))

    assert recognised.lab is not None
    assert recognised.lab.lab == expected
