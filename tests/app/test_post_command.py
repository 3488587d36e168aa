"""`kitpost post`: a file of parcels out, a file of numbers back, for a service without an account (FEATURES 20)."""

import csv
import stat

import pytest
from sqlmodel import select

from app.service import SHIPPED
from models.actions.balance import POSTAGE_WITHIN, strike_balance
from models.actions.postage import owe_postage
from models.rules.postage import PostageState, PostWay
from models.tables.audit import Audit
from models.tables.kit import PrintBatch
from models.tables.parcel import Direction, Parcel
from models.tables.postage import Postage
from tests.support import build, command


@pytest.fixture
def kitpost(db, monkeypatch, tmp_path):
    services = tmp_path / "services"
    services.mkdir()
    chosen = (SHIPPED / "larkfield.toml").read_text(encoding="utf-8")
    (services / "larkfield.toml").write_text(chosen.replace('way = "none"', 'way = "file"'), encoding="utf-8")
    with command.at_home(db, monkeypatch, tmp_path, SERVICE_DIR=str(services)) as run:
        yield lambda *words, **more: run("post", *words, **more)


@pytest.fixture
def owed(begin):
    """Two printed kits whose postage is owed: their parcels' codes, and the batch of the first."""
    with begin() as session:
        kits = [build.printed_kit(session) for _ in range(2)]
        batches = [session.get_one(PrintBatch, kit.batch_id).ref for kit in kits]
        for kit, batch in zip(kits, batches, strict=True):
            owe_postage(session, kit.batch_id, batch, way=PostWay.FILE, now=build.NOW)
        codes = session.exec(select(Parcel.code).where(Parcel.direction == Direction.OUT).order_by(Parcel.id)).all()
    return list(codes), batches[0]


def references(file):
    with file.open(encoding="utf-8-sig", newline="") as sheet:
        return [row["Order reference"] for row in csv.DictReader(sheet)]


def test_what_is_owed_is_handed_over_once_in_a_file_that_only_its_maker_reads(kitpost, owed, begin, tmp_path):
    codes, _ = owed
    assert "2 parcels are in" in kitpost("export", str(tmp_path / "one.csv"))
    assert references(tmp_path / "one.csv") == codes
    assert stat.S_IMODE((tmp_path / "one.csv").stat().st_mode) == 0o600
    assert "No parcel wants postage" in kitpost("export", str(tmp_path / "two.csv"))
    assert not (tmp_path / "two.csv").exists()
    with begin() as session:
        lines = session.exec(select(Audit).where(Audit.action == "postage.exported").order_by(Audit.id)).all()
        assert [line.detail["parcels"] for line in lines] == [2, 0]
        assert all(line.actor.startswith("cli:") for line in lines)


def test_a_lost_file_is_written_again_batch_by_batch(kitpost, owed, tmp_path):
    codes, batch = owed
    kitpost("export", str(tmp_path / "one.csv"))
    kitpost("export", str(tmp_path / "again.csv"), "--batch", batch)
    assert references(tmp_path / "again.csv") == codes[:1]


def test_numbers_come_back_by_our_reference_and_bad_lines_are_named(kitpost, owed, begin, tmp_path):
    codes, _ = owed
    kitpost("export", str(tmp_path / "one.csv"))
    numbers = tmp_path / "numbers.csv"
    numbers.write_text(
        "Order reference,Tracking number\n"
        f"{codes[0]},OT 0000 1001 7GB\n"
        f"{codes[1]},OT000010017GB\n"
        f"{codes[1]},?\n"
        "2VXK7M3HDNQP,OT000010027GB\n",
        encoding="utf-8",
    )
    told = kitpost("import", str(numbers), exit_code=65)
    assert "line 3: Tracking number: is another parcel's" in told
    assert "line 4: Tracking number: must be" in told
    assert "line 5: Order reference: no parcel of ours" in told
    assert "1 numbers were taken, 3 lines could not be used." in told
    with begin() as session:
        out = select(Parcel.tracking_number).where(Parcel.direction == Direction.OUT).order_by(Parcel.id)
        assert list(session.exec(out)) == ["OT000010017GB", ""]


def test_taking_the_same_numbers_twice_changes_nothing(kitpost, owed, tmp_path):
    codes, _ = owed
    kitpost("export", str(tmp_path / "one.csv"))
    numbers = tmp_path / "numbers.csv"
    numbers.write_text(f"Order reference,Tracking number\n{codes[0]},OT000010017GB\n", encoding="utf-8")
    assert kitpost("import", str(numbers)) == kitpost("import", str(numbers))


def test_a_file_that_cannot_be_written_leaves_all_owed(kitpost, owed, begin, tmp_path):
    with pytest.raises(FileNotFoundError):
        kitpost("export", str(tmp_path / "no-such-folder" / "one.csv"))
    with begin() as session:
        assert list(session.exec(select(Postage.state))) == [PostageState.OWED] * 2


def test_a_parcel_without_postage_for_a_day_stands_in_the_daily_balance(owed, begin):
    codes, _ = owed
    with begin() as session:
        balance = strike_balance(session, now=build.NOW + POSTAGE_WITHIN)
    assert not balance.late
    with begin() as session:
        balance = strike_balance(session, now=build.NOW + 2 * POSTAGE_WITHIN)
    [late] = balance.late
    assert (late.check, list(late.ids)) == ("postage", codes)
