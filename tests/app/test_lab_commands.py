"""`kitpost lab replay` and `rehearse` where some of a laboratory's files can't be read any more: the others are."""

import json

import pytest

from app.service.labs import FOLDER
from app.wiring import wiring
from tests.support import command
from tests.support.ingesting import ask, take
from tests.support.lab_files import LONG, hl7, long_table
from tests.support.many_kits import send_kits
from tests.support.memory_store import MemoryStore

ALWAYS = ("--days", "9999")


@pytest.fixture
def kits(begin):
    with begin() as session:
        return send_kits(session, 3)


@pytest.fixture
def maps(tmp_path):
    """The shipped maps, after NORTHLAB's table got one more column and its word 'negatif' was agreed."""
    folder = tmp_path / "labs"
    folder.mkdir()
    for each in FOLDER.glob("*.toml"):
        said = each.read_text(encoding="utf-8")
        said = said.replace('"Status", "Comment"]', '"Status", "Comment", "Batch"]\nignored = ["Batch"]')
        said = said.replace('"Not detected" = "negative"', '"Not detected" = "negative"\n"Negatif" = "negative"')
        (folder / each.name).write_text(said, encoding="utf-8")
    return folder


@pytest.fixture
def traffic(begin, kits):
    """Three files with a row in quarantine each: a table from before the column, one that is lost, and a good one."""
    store = MemoryStore()
    for ending, kit in zip(("csv", "hl7", "hl7"), kits, strict=True):
        chlamydia, *others = kit.rows(LONG)
        write = long_table if ending == "csv" else hl7
        take(begin, write([chlamydia._replace(value="Negatif"), *others]), ending=ending, store=store)
    old, lost, _ = (ref for (ref,) in ask(begin, "SELECT ref FROM lab_file ORDER BY id"))
    for key in [key for key in store.objects if lost[:12] in key]:
        del store.objects[key]
    return store, old, lost


def run(db, monkeypatch, tmp_path, store, *words, exit_code, **more):
    with command.at_home(db, monkeypatch, tmp_path, INDEX_KEYS=command.BUILDERS_INDEX_KEYS, **more) as kitpost:
        vars(wiring())["store"] = store
        return kitpost("lab", *words, exit_code=exit_code)


def test_replay_reads_what_it_can_names_what_it_cant_and_fails(db, begin, traffic, maps, kits, monkeypatch, tmp_path):
    store, old, lost = traffic

    said = run(db, monkeypatch, tmp_path, store, "replay", exit_code=2, LABS_DIR=str(maps))

    assert "Used now: 1 (1 negative)" in said
    assert "Files that could not be read: 2." in said
    assert f"file {old[:12]}: The file's columns are those of an earlier map." in said
    assert f"file {lost[:12]}: The file is not in the store" in said
    assert not [kit for kit in kits if kit.family in said or kit.code in said]


def test_a_rehearsal_reads_what_it_can_names_what_it_cant_and_fails(db, traffic, maps, monkeypatch, tmp_path):
    store, old, lost = traffic
    words = ("rehearse", str(maps / "northlab.toml"), *ALWAYS)

    said = run(db, monkeypatch, tmp_path, store, *words, exit_code=2)
    assert "NORTHLAB: 1 files, 4 rows read under both maps." in said
    assert "Files that could not be read: 2." in said

    said = run(db, monkeypatch, tmp_path, store, *words, "--json", exit_code=2)
    told = json.loads(said.splitlines()[0])
    assert [each["rows"] for each in told["changes"]] == [1]
    assert [each["file_ref"] for each in told["unread"]] == [old, lost]
