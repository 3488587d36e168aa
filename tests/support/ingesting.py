"""The whole ingest over a fresh database and a store in memory, with the shipped council and lab maps."""

import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import text
from sqlmodel import Session

from app.database import Begin
from app.lab_reading import Ingest
from app.service import as_document, load_services
from app.service.labs import load_lab_maps
from flows.ingest_results import Tally, ingest_waiting_files
from models.actions import release
from models.actions.result import Standing
from models.actions.service import keep_service_version
from models.rules.lab import LabMap
from models.rules.release import ReleaseDecision
from models.rules.service import Service, ServiceInForce, Services
from models.tables.bulk import cursor
from tests.support import build
from tests.support.lab_files import control_file
from tests.support.memory_store import MemoryStore

SAMPLES: Final = Path(__file__).parents[1] / "golden" / "lab"
READ_AT: Final = datetime(2026, 11, 5, 12, tzinfo=UTC)
"""A Thursday, noon in London: after every time in the samples."""


@cache
def larkfield() -> Service:
    """The shipped council."""
    return load_services()["larkfield"]


@cache
def lab_maps() -> dict[str, LabMap]:
    """The shipped labs, by name."""
    return dict(load_lab_maps())


def with_column(lab: LabMap, name: str) -> LabMap:
    """A lab's map after its table got one more column: tables from before can't be read under it."""
    assert lab.csv is not None, "only of a lab that sends tables"
    return replace(lab, version="one more column", csv=replace(lab.csv, columns=(*lab.csv.columns, name)))


def services(begin: Begin) -> Services:
    """The shipped council, with its version stored in this database."""
    with begin() as session:
        version_id = keep_service_version(session, "larkfield", as_document(larkfield()))
    return {"larkfield": ServiceInForce(larkfield(), version_id)}


def ingest(begin: Begin, store: MemoryStore, *, now: datetime = READ_AT) -> Ingest:
    """Everything that reading files needs."""
    return Ingest(
        begin=begin,
        store=store,
        maps=lab_maps(),
        services=services(begin),
        indexes=build.indexes(),
        cipher=build.cipher(),
        clock=lambda: now,
    )


@pytest.fixture(autouse=True)
def standing_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a decision is told what stands about kits that were just read, the database is asked too."""
    decide = release.decide_kits

    def decide_and_look(
        session: Session, triggers: Mapping[int, str], *, standing: Mapping[int, Standing] | None = None, **more: Any
    ) -> dict[int, ReleaseDecision]:
        told = {kit_id: standing[kit_id] for kit_id in triggers if standing and kit_id in standing}
        assert told == release.read_standing(cursor(session), told)
        return decide(session, triggers, standing=standing, **more)

    monkeypatch.setattr(release, "decide_kits", decide_and_look)


def drop(store: MemoryStore, name: str, *, lab: str = "NORTHLAB", as_name: str = "") -> None:
    """Puts a sample, with its control file or marker where it has one, into a lab's incoming folder."""
    for ending in ("", ".ctl", ".done"):
        path = SAMPLES / (name + ending)
        if path.exists():
            store.put(f"{lab}/incoming/{as_name or name}{ending}", path.read_bytes())


def take(
    begin: Begin,
    content: bytes,
    *,
    lab: str = "NORTHLAB",
    ending: str = "hl7",
    store: MemoryStore | None = None,
    now: datetime = READ_AT,
) -> Tally:
    """One file arrives and is read to its verdict."""
    store = store or MemoryStore()
    drop_bytes(store, content, lab=lab, ending=ending)
    return ingest_waiting_files(ingest(begin, store, now=now), limit=50)


def drop_bytes(store: MemoryStore, content: bytes, *, lab: str = "NORTHLAB", ending: str = "hl7") -> str:
    """Puts a file under a new name into a lab's incoming folder, with its control file where the lab writes one."""
    key = f"{lab}/incoming/{secrets.token_hex(8)}.{ending}"
    store.put(key, content)
    if lab == "NORTHLAB" and ending == "csv":
        store.put(f"{key}.ctl", control_file(content))
    if lab == "QUAYSIDE":
        store.put(f"{key}.done", b"")
    return key


def ask(begin: Begin, query: str, **binds: Any) -> list[tuple[Any, ...]]:
    """What the database holds."""
    with begin() as session:
        return [tuple(row) for row in session.connection().execute(text(query), binds)]


def texts_of(begin: Begin, kit_id: int) -> list[tuple[str, str]]:
    """(purpose, state) of every text about a kit but the word that it takes longer, oldest first."""
    found = ask(
        begin, "SELECT purpose, state FROM text WHERE kit_id = :id AND purpose <> 'delayed' ORDER BY id", id=kit_id
    )
    return [(purpose, state) for purpose, state in found]


def case_of(begin: Begin, kit_id: int) -> tuple[str, str] | None:
    """(kind, owner) of a kit's one results case."""
    found = ask(begin, "SELECT kind, owner_role FROM clinic_case WHERE key = :key", key=f"kit:{kit_id}:results")
    return (found[0][0], found[0][1]) if found else None


def quarantined(begin: Begin, kit_id: int) -> list[str]:
    """Why rows that name a kit were not used, in order."""
    found = ask(begin, "SELECT reason FROM quarantined_row WHERE kit_id = :id ORDER BY id", id=kit_id)
    return [reason for (reason,) in found]


def effects_of(begin: Begin, kit_id: int, test: str) -> list[tuple[str, str]]:
    """(outcome, effect) of every version of one test of a kit, oldest first."""
    found = ask(
        begin,
        "SELECT outcome, effect FROM result_version WHERE kit_id = :id AND test = :test ORDER BY id",
        id=kit_id,
        test=test,
    )
    return [(outcome, effect) for outcome, effect in found]
