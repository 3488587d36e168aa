"""A new laboratory begins as a draft that nobody can use before a person has completed and signed it."""

import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import cli
from app.service.labs import FOLDER, load_lab_map
from integrations.lab.draft import draft_map
from models.rules.errors import Code, ServiceError
from tests.support.lab import GOLDEN

SAMPLES = sorted(path for path in GOLDEN.iterdir() if path.suffix in {".hl7", ".json", ".csv"})
PERSONAL = re.compile("Greyfold|Dunmere|Fernsby|Oriel|1998|1985|19990214|WT7-?CF5|control failed")


def draft(name: str) -> str:
    return draft_map("NEWLAB", (GOLDEN / name).read_bytes())


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_every_sample_gives_a_draft_that_is_a_file_of_settings_without_a_person_and_is_refused(
    sample: Path, tmp_path: Path
) -> None:
    written = tmp_path / "newlab.toml"
    written.write_text(draft_map("NEWLAB", sample.read_bytes()), encoding="utf-8")

    assert tomllib.loads(written.read_text())["lab"] == "NEWLAB"
    assert not PERSONAL.search(written.read_text())
    with pytest.raises(ServiceError) as refused:
        load_lab_map(written)
    assert refused.value.code is Code.SETTINGS


def test_no_line_of_a_draft_that_counts_gives_a_word_a_meaning() -> None:
    for sample in SAMPLES:
        read = tomllib.loads(draft_map("NEWLAB", sample.read_bytes()))
        assert read.get("words", {}) in ({}, {"naat": {}, "blood": {}})
        assert not {"tests", "codes", "specimens"} & read.keys()
        assert read["cancel_reasons"] == {}


def test_columns_delimiter_encoding_and_counting_lines_are_seen() -> None:
    read = draft("08-csv-dialect-b.csv")

    assert tomllib.loads(read)["csv"]["delimiter"] == ";"
    assert tomllib.loads(read)["encoding"] == "cp1252"
    assert '# kit = "barcode"' in read
    assert '# tail_record = "T"' in read
    assert '"ct_ur", "gc_ur"' in re.search(r"# result_columns = .*", read)[0]


def test_a_table_whose_lines_end_in_cr_is_drafted_like_any_other() -> None:
    read = draft_map("NEWLAB", b"Kit,DOB,Test,Result,Ward\rX,1999-02-14,CT,neg,7\r")

    assert '# dob = "DOB"' in read
    assert '# ignored = ["Ward"]' in read


@pytest.mark.parametrize("content", [b'a,b\n"x,y\n', b"a,b\n\x00\x01,c\n"])
def test_odd_bytes_are_drafted_without_a_stumble(content: bytes) -> None:
    assert 'reviewed_by = ""' in draft_map("NEWLAB", content)


def test_a_cell_beyond_any_sense_is_refused_with_a_sentence() -> None:
    with pytest.raises(ServiceError) as refused:
        draft_map("NEWLAB", b"a,b\n" + b"y" * 2_000_000 + b",z\n")

    assert refused.value.code is Code.BAD_INPUT


def test_dates_are_offered_in_every_form_that_fits_all_of_them() -> None:
    assert '# dob_format = "%d/%m/%Y"' in draft("07-csv-dialect-a.csv")
    assert '# time_format = "iso8601"' in draft("09-csv-dialect-c.csv")
    both = draft_map("NEWLAB", b"kit,dob,test,result\nX,03/04/1985,CT,ND\nY,01/02/1990,CT,ND\n")
    assert '# dob_format = "%d/%m/%Y"   # or %m/%d/%Y' in both


def test_a_draft_that_is_completed_and_signed_reads_the_sample(tmp_path: Path) -> None:
    """Completed as a person would: here from the shipped map, whose words somebody has read."""
    read = draft("09-csv-dialect-c.csv")
    shipped = (FOLDER / "quayside.toml").read_text()
    csv_of = shipped[shipped.index("[csv]") :]
    written = tmp_path / "newlab.toml"
    signed = read.replace('reviewed_by = ""', 'reviewed_by = "a clinician"')
    written.write_text(signed[: signed.index("forms")] + shipped[shipped.index("forms") :])

    assert load_lab_map(written).csv == load_lab_map(FOLDER / "quayside.toml").csv
    assert tomllib.loads(read)["csv"]["columns"] == tomllib.loads(csv_of)["csv"]["columns"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"%PDF-1.7",
        b"just a line\n",
        b"a,a\n1,2\n",
        b"Q1,T4J-WW7-5K3Y,Fernsby\nQ2,W8J-PVM-8V7R,Other\n",
        b"Fernsby,1999-02-14,CT\nOther,1988-06-30,CT\n",
    ],
)
def test_a_file_that_can_be_no_sample_gives_a_sentence(content: bytes) -> None:
    with pytest.raises(ServiceError) as refused:
        draft_map("NEWLAB", content)

    assert refused.value.code is Code.BAD_INPUT


def test_a_sentence_that_came_as_a_value_is_copied_into_no_draft() -> None:
    rang = b"OBX|2|TX|CMT^Comment||Oriel Fernsby rang, please call her on 07700 900101||||||F\r"
    as_word = rang.replace(b"|TX|", b"|ST|")
    for said in (rang, as_word):
        drafted = draft_map("NEWLAB", (GOLDEN / "02b-final.hl7").read_bytes() + said)
        assert "Fernsby" not in drafted
        assert "Not detected" in drafted


def test_a_name_that_no_map_could_have_is_refused(tmp_path: Path) -> None:
    written = tmp_path / "x.toml"
    command = ["lab", "new", str(GOLDEN / "07-csv-dialect-a.csv"), "--name", "bad name", "--to", str(written)]

    assert CliRunner().invoke(cli, command).exit_code == 2
    assert not written.exists()


def test_the_command_writes_a_draft_once(tmp_path: Path) -> None:
    target = tmp_path / "newlab.toml"
    command = ["lab", "new", str(GOLDEN / "07-csv-dialect-a.csv"), "--name", "newlab", "--to", str(target)]

    assert CliRunner().invoke(cli, command).exit_code == 0
    first = target.read_text()
    again = CliRunner().invoke(cli, command)

    assert again.exit_code == 2
    assert "is there already" in again.output
    assert target.read_text() == first


def test_the_labs_of_another_folder_are_read_where_the_setting_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only.toml").write_text((FOLDER / "southvale.toml").read_text())
    monkeypatch.setenv("KITPOST_LABS_DIR", str(tmp_path))

    known = CliRunner().invoke(cli, ["lab", "explain", str(GOLDEN / "08-csv-dialect-b.csv")])
    unknown = CliRunner().invoke(cli, ["lab", "explain", str(GOLDEN / "03a-negative.hl7")])

    assert known.exit_code == 1  # its remarks hold two kits
    assert unknown.exit_code == 2
