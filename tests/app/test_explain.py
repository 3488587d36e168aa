"""`kitpost lab explain`: the keys, words and exit codes that a lab's engineer builds on."""

import json
import re
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from app.cli.lab import KEYS, app
from models.rules.reading import HELD
from models.rules.vocabulary import Outcome, Quarantine, ReportStatus, Site, Test
from tests.support.lab import GOLDEN, KIT, MSH, OTHER_KIT, PID, message, obr, obx

DOCS = Path(__file__).parents[2] / "docs" / "lab-integration.md"


def explain(file: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["explain", str(file), *options])


def lines(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def written(tmp_path: Path, content: str | bytes, name: str = "file.hl7") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "exit_code", "count"),
    [
        ("01-batch-ordinary.hl7", 0, 8),
        ("02a-partial.hl7", 0, 4),
        ("02b-final.hl7", 1, 4),
        ("04-insufficient-blood.hl7", 1, 5),
        ("05-hiv-reactive.hl7", 0, 2),
        ("06-fhir-bundle.json", 0, 3),
        ("07-csv-dialect-a.csv", 1, 4),
        ("08-csv-dialect-b.csv", 1, 20),
        ("09-csv-dialect-c.csv", 0, 5),
        ("10-truncated.hl7", 1, 1),
        ("11-unknown-token.hl7", 1, 3),
    ],
)
def test_a_sample_is_explained_one_result_a_line(name: str, exit_code: int, count: int) -> None:
    result = explain(GOLDEN / name, "--json")

    assert result.exit_code == exit_code
    found = lines(result)
    assert len(found) == count
    for line in found:
        assert tuple(line) == KEYS
        assert line["file"] == name
        assert line["test"] is None or line["test"] in set(Test)
        assert line["site"] is None or line["site"] in set(Site)
        assert line["status"] is None or line["status"] in set(ReportStatus)
        assert (line["outcome"] in set(Outcome)) != (line["quarantine"] in set(Quarantine))
        assert line["quarantine"] in {None, "note_review", *Quarantine}


def test_a_comment_that_nobody_reviewed_keeps_the_value_and_holds_it() -> None:
    found = lines(explain(GOLDEN / "02b-final.hl7", "--json"))

    assert {(line["test"], line["outcome"], line["quarantine"]) for line in found} == {
        ("chlamydia", "negative", None),
        ("gonorrhoea", "negative", "note_review"),
        ("hiv", "negative", None),
        ("syphilis", "negative", None),
    }


@pytest.mark.parametrize(
    ("segments", "why"),
    [
        ((obr(), obx(), "NTE|1|L|Testina Kit called"), "A comment is not on the reviewed list."),
        ((obr(), obx(), "SPM|1||||||||||||||||||||Broken"), "The specimen has a reason to be rejected."),
        ((obr(), obx(), obx("^pdf", code="PDF", kind="ED")), "The report has an attachment, which is not read."),
        (
            (obr(specimen="CAP"), obx("Non-reactive", code="HIVS"), obx("0.1", code="HIVC", kind="NM", status="P")),
            "A row beside it is unclear.",
        ),
    ],
)
def test_a_held_result_says_what_holds_it(tmp_path: Path, segments: tuple[str, ...], why: str) -> None:
    result = explain(written(tmp_path, message(*segments)), "--json")

    assert result.exit_code == 1
    assert [(line["quarantine"], line["detail"]) for line in lines(result)] == [
        ("note_review", f"A person reads this result first. {why}")
    ]


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ({"filler": "26V9^NORTHLAB"}, "second_accession"),
        ({"filler": "26V0451201R^NORTHLAB"}, None),
        ({"filler": "26V9^NORTHLAB", "parent": "^26V0451201"}, None),
        ({}, None),
        ({"placer": f"{OTHER_KIT}-1"}, "identity_conflict"),
    ],
)
def test_numbers_that_contradict_each_other_in_one_file_are_seen(
    tmp_path: Path, second: dict[str, str], expected: str | None
) -> None:
    kit = OTHER_KIT if "placer" in second else KIT
    other = message(obr(**second), obx(), pid=PID.replace(KIT, kit), orc="", msh=MSH.replace("NL1", "NL2"))
    envelope = "|^~\\&|WINLIMS|NORTHLAB|||20261103\r"
    file = written(tmp_path, f"FHS{envelope}BHS{envelope}{message()}{other}BTS|2\rFTS|1\r")

    assert [line["quarantine"] for line in lines(explain(file, "--json"))] == [None, expected]


def test_a_message_id_that_comes_again_with_other_content_is_pointed_out(tmp_path: Path) -> None:
    envelope = "|^~\\&|WINLIMS|NORTHLAB|||20261103\r"
    both = message() + message(obr(), obx(code="GCN"))
    result = explain(written(tmp_path, f"FHS{envelope}BHS{envelope}{both}BTS|2\rFTS|1\r"), "--json")

    assert "Another message of the file has this id and other content." in result.stderr
    assert len(lines(result)) == 2


@pytest.mark.parametrize(("sent", "shown"), [("202610", "2026-10"), ("2026", "2026"), ("20261030", "2026-10-30")])
def test_a_time_of_collection_is_shown_as_precise_as_it_was_sent(tmp_path: Path, sent: str, shown: str) -> None:
    found = lines(explain(written(tmp_path, message(obr(collected=sent), obx())), "--json"))

    assert found[0]["collected_at"] == shown


def test_an_hour_that_comes_twice_is_pointed_out(tmp_path: Path) -> None:
    order = obr(collected="202610250130", received="202610260812")
    found = lines(explain(written(tmp_path, message(order, obx())), "--json"))

    assert (found[0]["quarantine"], found[0]["collected_at"]) == (None, "2026-10-25T01:30:00+00:00")
    assert "change of clocks" in str(found[0]["detail"])


def test_a_batch_of_nothing_is_known_by_its_header(tmp_path: Path) -> None:
    envelope = "|^~\\&|WINLIMS|NORTHLAB|||20261103\r"
    result = explain(written(tmp_path, f"FHS{envelope}BHS{envelope}BTS|0\rFTS|1\r"), "--json")

    assert (result.exit_code, result.stdout) == (0, "")


def test_an_answer_to_a_request_is_said_to_be_no_result(tmp_path: Path) -> None:
    header = "MSH|^~\\&|WINLIMS|NORTHLAB|KITPOST|larkfield|20261124||ORL^O22^ORL_O22|L1|P|2.5.1"
    result = explain(written(tmp_path, f"{header}\rMSA|AA|0123456789abcdef0123\r"), "--json")

    assert (result.exit_code, lines(result)) == (0, [])
    assert "line 1: answers request 0123456789abcdef0123 with AA; it is no result." in result.stderr


def test_a_line_tells_what_was_read_in_the_labs_own_identifiers() -> None:
    found = lines(explain(GOLDEN / "01-batch-ordinary.hl7", "--json"))[4]

    assert found == {
        "file": "01-batch-ordinary.hl7",
        "line": 18,
        "message_id": "NL26110300002",
        "accession": "26V0451377",
        "kit_id": "W8J-PVM-8V7R",
        "tube_id": "W8J-PVM-8V7R-1",
        "test": "chlamydia",
        "site": "urine",
        "outcome": "positive",
        "status": "final",
        "collected_at": "2026-10-29",
        "authorised_at": "2026-11-02T17:40:00+00:00",
        "quarantine": None,
        "detail": None,
    }


def test_a_lab_may_be_named_in_any_case(tmp_path: Path) -> None:
    result = explain(written(tmp_path, message()), "--lab", "northlab", "--json")

    assert (result.exit_code, len(lines(result))) == (0, 1)


def test_an_unknown_sender_is_not_read_without_a_name_and_refused_with_one(tmp_path: Path) -> None:
    file = written(tmp_path, message().replace("WINLIMS|NORTHLAB", "WINLIMS|NOBODY", 1))

    unnamed, named = explain(file, "--json"), explain(file, "--lab", "NORTHLAB", "--json")

    assert (unnamed.exit_code, unnamed.stdout) == (2, "")
    assert "--lab" in unnamed.stderr
    assert named.exit_code == 1
    assert [line["quarantine"] for line in lines(named)] == ["unknown_sender"]


@pytest.mark.parametrize("content", ["", "%PDF-1.7", "UNA:+.? 'UNB", "hello;world\n1;2\n"])
def test_a_file_that_can_not_be_read_at_all_ends_with_2(tmp_path: Path, content: str) -> None:
    file = written(tmp_path, content)

    assert explain(file, "--json").exit_code == 2
    assert explain(file).exit_code == 2


def test_a_foreign_file_for_a_named_lab_says_what_it_is(tmp_path: Path) -> None:
    result = explain(written(tmp_path, "%PDF-1.7"), "--lab", "NORTHLAB", "--json")

    assert result.exit_code == 2
    assert [line["quarantine"] for line in lines(result)] == ["unsupported_format"]


@pytest.mark.parametrize("options", [("--lab", "NOWHERE"), ()])
def test_a_missing_file_or_lab_ends_with_2_and_one_sentence(tmp_path: Path, options: tuple[str, ...]) -> None:
    file = written(tmp_path, message()) if options else tmp_path / "missing.hl7"

    result = explain(file, *options)

    assert result.exit_code == 2
    assert "Traceback" not in result.output


@pytest.mark.parametrize("beside", ["t.csv.ctl", "t.csv.CTL"])
def test_a_control_file_beside_the_table_is_believed(tmp_path: Path, beside: str) -> None:
    table = (GOLDEN / "07-csv-dialect-a.csv").read_bytes()
    file = written(tmp_path, table, "t.csv")
    written(tmp_path, "rows=5\nsha256=" + "0" * 64, beside)

    result = explain(file, "--json")

    assert result.exit_code == 1
    assert [line["quarantine"] for line in lines(result)] == ["incomplete_file"]


def test_a_table_for_eyes_tells_the_same(tmp_path: Path) -> None:
    result = explain(written(tmp_path, message(obr(), obx("odd"))))

    assert result.exit_code == 1
    assert "unknown_token" in result.output
    assert "T4J-WW7-5K3Y-1" in result.output


def test_nothing_personal_is_printed(tmp_path: Path) -> None:
    file = written(tmp_path, message(obr(), obx("Testina Kit"), obx("Kit", code="GCN")))

    for options in ((), ("--json",)):
        output = explain(file, *options).output
        assert not re.search("Testina|19990214|1999-02-14", output)


def test_the_guide_documents_every_key_and_every_quarantine_word() -> None:
    guide = DOCS.read_text()

    assert all(f"`{word}`" in guide for word in (*KEYS, HELD, *Quarantine, *Outcome, *ReportStatus))


def test_a_replay_for_a_word_that_is_no_reason_says_so_before_anything_is_opened() -> None:
    result = CliRunner().invoke(app, ["replay", "--reason", "unknown_word"])

    assert result.exit_code == 2
    assert "unknown_word is no quarantine word" in result.output


@pytest.mark.parametrize(
    ("sample", "beside"), [("07-csv-dialect-a.csv", ".ctl"), ("09-csv-dialect-c.csv", ".done")], ids=["count", "marker"]
)
def test_a_table_whose_last_word_is_missing_is_said_to_wait(tmp_path, sample, beside):
    alone = tmp_path / sample
    alone.write_bytes((GOLDEN / sample).read_bytes())
    told = explain(alone, "--json")
    assert f"{sample}{beside} must follow it" in told.stderr

    alone.with_name(f"{sample}{beside}").write_bytes((GOLDEN / f"{sample}{beside}").read_bytes())
    told = explain(alone, "--json")
    assert "must follow" not in told.stderr
