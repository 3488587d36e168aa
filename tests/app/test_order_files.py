"""Importing a file of orders: good rows beside bad ones, told by line and field, kept for a person."""

import csv
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import select

from app.database import Begin
from app.order_files import OrderFile, Report
from integrations.orders import EXAMPLE
from models.actions.order import Intake, kept_aside
from models.rules.errors import ServiceError
from models.tables.inbox import Inbox, InboxState
from tests.support import build
from tests.support.intake import larkfield_intake


@pytest.fixture
def intake(begin: Begin) -> Intake:
    return larkfield_intake(begin)


def write(folder: Path, *rows: dict[str, Any], name: str = "orders.csv") -> Path:
    file = folder / name
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(EXAMPLE)
        for changes in rows:
            writer.writerow([cell(value) for value in (EXAMPLE | changes).values()])
    return file


def cell(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ";".join(value) if isinstance(value, list) else value


def take_in(begin: Begin, intake: Intake, file: Path, channel: str = "clinic") -> tuple[Report, list[str]]:
    said: list[str] = []
    report = OrderFile("larkfield", channel, begin, intake, build.NOW).take_in(file, said.append)
    return report, said


def test_good_rows_are_stored_beside_bad_ones_which_are_told_by_line_and_field(
    begin: Begin, intake: Intake, tmp_path: Path
) -> None:
    file = write(
        tmp_path,
        {"channel_ref": "a"},
        {"channel_ref": "b", "date_of_birth": "1998-02-30"},
        {"channel_ref": "c", "mobile": "0113 496 0000", "residence_postcode": "75008"},
        {"channel_ref": "d"},
    )

    report, said = take_in(begin, intake, file)

    assert report == Report(stored=2, refused=2)
    assert [line.split(":")[:2] for line in said] == [
        ["line 3", " date_of_birth"],
        ["line 4", " mobile"],
        ["line 4", " residence_postcode"],
    ]


def test_a_bad_row_is_kept_sealed_with_its_reason(begin: Begin, intake: Intake, tmp_path: Path) -> None:
    take_in(begin, intake, write(tmp_path, {"date_of_birth": "1998-02-30"}))

    with begin() as session:
        [kept] = kept_aside(session, limit=10)
        row = session.exec(select(Inbox)).one()

    assert kept.why == "date_of_birth: Give a date that exists, as YYYY-MM-DD."
    assert "Testina" in intake.cipher.decrypt("inbox", "body", row.ref, row.body)
    assert row.state is InboxState.FAILED


def test_the_same_file_again_changes_nothing(begin: Begin, intake: Intake, tmp_path: Path) -> None:
    file = write(tmp_path, {"channel_ref": "a"}, {"channel_ref": "b", "mobile": "x"})

    assert take_in(begin, intake, file) == take_in(begin, intake, file)
    with begin() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Inbox)) == 2


def test_a_corrected_row_may_use_its_reference_again(begin: Begin, intake: Intake, tmp_path: Path) -> None:
    take_in(begin, intake, write(tmp_path, {"mobile": "0113 496 0000"}))

    assert take_in(begin, intake, write(tmp_path, {}))[0] == Report(stored=1)


def test_a_reference_used_for_another_order_is_told_as_that_rows_fault(
    begin: Begin, intake: Intake, tmp_path: Path
) -> None:
    report, said = take_in(begin, intake, write(tmp_path, {}, {"known_hiv": True}))

    assert report == Report(stored=1, refused=1)
    assert said[0].startswith("line 3: channel_ref: This channel_ref was already used")


def test_json_lines_are_taken_too(begin: Begin, intake: Intake, tmp_path: Path) -> None:
    import json

    file = tmp_path / "orders.jsonl"
    file.write_text(json.dumps(EXAMPLE) + "\n{}\n")

    report, said = take_in(begin, intake, file)

    assert report == Report(stored=1, refused=1)
    assert said[0].startswith("line 2: channel_ref")


@pytest.mark.parametrize(
    ("name", "channel", "sentence"),
    [("orders.xlsx", "clinic", "end in .csv"), ("orders.csv", "fax", "no such channel: choose web or clinic")],
)
def test_what_can_not_be_imported_at_all_is_said_before_anything_is_stored(
    begin: Begin, intake: Intake, tmp_path: Path, name: str, channel: str, sentence: str
) -> None:
    with pytest.raises(ServiceError, match=sentence):
        take_in(begin, intake, write(tmp_path, {}, name=name), channel=channel)
