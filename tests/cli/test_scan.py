"""`kitpost scan` and `kitpost kit` as packers type them (FEATURES 16, 21)."""

import pytest
from sqlmodel import select
from typer.testing import CliRunner

from app.cli import cli
from models.rules.errors import ServiceError
from models.rules.kit import KitState, show_kit_code
from models.tables.kit import Kit, KitSample
from models.tables.parcel import Direction, Parcel
from tests.support import build, command, s10

NUMBER = next(s10.numbers())


@pytest.fixture
def kitpost(db, monkeypatch, tmp_path):
    """The command on a whole installation, with the tests' own keys."""
    with command.at_home(db, monkeypatch, tmp_path, INDEX_KEYS=command.BUILDERS_INDEX_KEYS):

        def run(*words: str, typed: str = ""):
            return CliRunner().invoke(cli, list(words), input=typed, catch_exceptions=False)

        yield run


@pytest.fixture
def kit(begin) -> Kit:
    with begin() as session:
        return build.printed_kit(session)


def _codes(begin, kit: Kit) -> list[str]:
    """Everything to scan for one kit, in order."""
    with begin() as session:
        tubes = session.exec(select(KitSample.tube_code).where(KitSample.kit_id == kit.id)).all()
        outer = session.exec(
            select(Parcel.code).where(Parcel.kit_id == kit.id, Parcel.direction == Direction.OUT)
        ).one()
    return [show_kit_code(kit.code), *tubes, NUMBER, outer]


def _state(begin, kit: Kit) -> KitState:
    with begin() as session:
        return session.get_one(Kit, kit.id).state


def test_a_packer_scans_a_kit_line_by_line_and_it_is_dispatched(begin, kit, kitpost):
    answer = kitpost("scan", "--packer", "p1", typed="\n".join(_codes(begin, kit)) + "\n\n")

    assert answer.exit_code == 0
    assert [line[:4] for line in answer.output.splitlines()[:5]] == ["OK  "] * 5
    assert "whole and dispatched" in answer.output
    assert answer.output.endswith("1 kits were dispatched, 0 scans were refused.\n")
    assert _state(begin, kit) is KitState.DISPATCHED


def test_a_bench_killed_in_the_middle_has_dispatched_nothing_and_goes_on_where_it_was(begin, kit, kitpost):
    codes = _codes(begin, kit)
    kitpost("scan", "--packer", "p1", typed="\n".join(codes[:3]))
    assert _state(begin, kit) is KitState.PRINTED

    answer = kitpost("scan", "--packer", "p1", typed="\n".join(codes[3:]))

    assert answer.output.endswith("1 kits were dispatched, 0 scans were refused.\n")


def test_a_wrong_tube_says_stop_and_the_outer_label_no_longer_dispatches(begin, kit, kitpost):
    with begin() as session:
        neighbour = build.printed_kit(session)
    codes = _codes(begin, kit)
    codes[1] = _codes(begin, neighbour)[1]

    answer = kitpost("scan", "--packer", "p1", typed="\n".join(codes))

    assert "STOP Tube" in answer.output
    assert "does NOT belong" in answer.output
    assert _state(begin, kit) is KitState.PRINTED


def test_a_file_of_scans_with_a_refused_one_ends_with_65(begin, kit, kitpost, tmp_path):
    codes = tmp_path / "codes.txt"
    codes.write_text("\n".join([*_codes(begin, kit), "5012345678900"]))

    answer = kitpost("scan", "--packer", "p1", "--file", str(codes))

    assert answer.exit_code == 65
    assert "STOP This is no code of ours" in answer.output
    assert _state(begin, kit) is KitState.DISPATCHED


def test_a_box_that_came_back_ends_its_kit(begin, kit, kitpost):
    codes = _codes(begin, kit)
    kitpost("scan", "--packer", "p1", typed="\n".join(codes))

    answer = kitpost("scan", "--packer", "p1", "--returned", typed=codes[-1])

    assert "OK   Kit" in answer.output
    assert _state(begin, kit) is KitState.RETURNED_TO_SENDER


def test_a_box_that_never_left_cannot_come_back(begin, kit, kitpost):
    answer = kitpost("scan", "--packer", "p1", "--returned", typed=_codes(begin, kit)[-1])

    assert "never dispatched" in answer.output
    assert _state(begin, kit) is KitState.PRINTED


def test_a_kits_timeline_tells_its_way_and_nothing_of_the_person(begin, kit, kitpost):
    kitpost("scan", "--packer", "p1", typed="\n".join(_codes(begin, kit)))

    answer = kitpost("kit", "show", show_kit_code(kit.code))

    assert "dispatched, lab northlab" in answer.output
    assert (
        answer.output.index("kit.created") < answer.output.index("kit.printed") < answer.output.index("kit.dispatched")
    )
    assert "return_reminder: owed" in answer.output
    assert not any(word in answer.output for word in ("Testina", "Invented", "+44", "1999"))


def test_kits_are_listed_by_state(begin, kit, kitpost):
    with begin() as session:
        waiting = build.kit(session)

    answer = kitpost("kit", "list", "--state", "to_pack")

    assert show_kit_code(waiting.code) in answer.output
    assert show_kit_code(kit.code) not in answer.output


def test_a_state_that_does_not_exist_is_one_sentence(kitpost):
    with pytest.raises(ServiceError, match="There is no state lost"):
        kitpost("kit", "list", "--state", "lost")


def test_a_kit_whose_paper_was_destroyed_waits_to_be_packed_again(begin, kit, kitpost):
    kitpost("kit", "reprint", kit.code, "--because", "smudged")

    assert _state(begin, kit) is KitState.TO_PACK


def test_a_lost_kit_becomes_a_case_and_is_replaced_by_command(begin, kit, kitpost):
    kitpost("scan", "--packer", "p1", typed="\n".join(_codes(begin, kit)))

    told = kitpost("kit", "problem", kit.code, "--what", "lost")
    answer = kitpost(
        "kit", "replace", kit.code, "--because", "lost", "--elsewhere", typed="2 Other Row\nLarkfield\n\nls14ap\n"
    )

    assert "It is a case now" in told.output
    assert "waits to be packed in its stead" in answer.output
    assert _state(begin, kit) is KitState.REPLACED
