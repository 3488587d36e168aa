"""`kitpost labels`: what a packing room looks at before it prints, without a database or a setting."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from app.cli import cli

run = CliRunner().invoke


def test_a_preview_writes_every_artwork_as_a_document_and_as_a_picture(tmp_path):
    told = run(cli, ["labels", "preview", str(tmp_path / "look")])

    assert told.exit_code == 0, told.output
    names = {"labels", "leaflet-en", "leaflet-en-large", "leaflet-cy", "leaflet-cy-large"}
    assert {each.name for each in (tmp_path / "look").iterdir()} == {
        f"{name}.{ending}" for name in names for ending in ("pdf", "png")
    }


def test_a_leaflet_for_one_sample_is_shorter_than_one_for_all(tmp_path):
    told = [
        run(cli, ["labels", "leaflet", str(tmp_path / "one.pdf"), "--sample", "capillary_blood", "--language", "cy"]),
        run(cli, ["labels", "leaflet", str(tmp_path / "all.pdf"), "--language", "cy", "--large"]),
    ]

    assert [each.exit_code for each in told] == [0, 0]
    assert (tmp_path / "one.pdf").stat().st_size < (tmp_path / "all.pdf").stat().st_size


@pytest.mark.parametrize("wrong", [["--sample", "spit"], ["--language", "fr"], ["--service", "nowhere"]])
def test_what_is_not_there_is_refused_by_name(tmp_path, wrong):
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "labels", "leaflet", str(tmp_path / "x.pdf"), *wrong],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert wrong[1] in done.stderr or "larkfield" in done.stderr
    assert not (tmp_path / "x.pdf").exists()
