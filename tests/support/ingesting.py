"""The whole ingest over a fresh database and a store in memory, with the shipped council and lab maps."""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final

from app.database import Begin
from app.service import as_document, load_services
from app.service.labs import load_lab_maps
from flows.ingest_results import Ingest
from models.actions.service import keep_service_version
from models.rules.lab import LabMap
from models.rules.service import Service, ServiceInForce, Services
from tests.support import build
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


def drop(store: MemoryStore, name: str, *, lab: str = "NORTHLAB", as_name: str = "") -> None:
    """Puts a sample, with its control file or marker where it has one, into a lab's incoming folder."""
    for ending in ("", ".ctl", ".done"):
        path = SAMPLES / (name + ending)
        if path.exists():
            store.put(f"{lab}/incoming/{as_name or name}{ending}", path.read_bytes())
