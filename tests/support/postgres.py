"""One embedded PostgreSQL for a whole test run, shared by every xdist worker, and a fresh database a test."""

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, NullPool, create_engine

from app import embedded_postgres
from app.database import as_application, make_engine, migrate

PLACE = "PYTEST_KITPOST_STATE"
"""Tells the xdist workers where the run's server is."""

TEMPLATE = "kitpost_template"


@dataclass(frozen=True, slots=True)
class Database:
    """One migrated, empty database. `engine` is the product's role, `owner_engine` the tables' owner."""

    name: str
    url: str
    owner_url: str
    engine: Engine
    owner_engine: Engine


def prepare_run() -> None:
    """Chooses the run's folder. Other users may pass through it: as root the server is another user."""
    folder = Path(tempfile.mkdtemp(prefix="kitpost-tests-"))
    folder.chmod(0o711)
    os.environ[PLACE] = str(folder)


def end_run() -> None:
    """Stops the run's server, if a test asked for one, and removes what it left."""
    folder = Path(os.environ.pop(PLACE))
    embedded_postgres.stop(folder)
    shutil.rmtree(folder)


def server() -> str:
    """The owner's URL of the run's server."""
    return embedded_postgres.ensure(Path(os.environ[PLACE]), durable=False)


def template() -> str:
    """The name of a database with every migration applied; made by whoever asks first."""
    folder = Path(os.environ[PLACE])
    with (folder / "template.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / "template.made"
        if not made.exists():
            migrate(embedded_postgres.create_database(server(), TEMPLATE))
            made.touch()
    return TEMPLATE


@contextmanager
def fresh_database(copied_from: str) -> Iterator[Database]:
    """A database of its own for one test."""
    admin, name = server(), f"test_{secrets.token_hex(6)}"
    owner_url = embedded_postgres.create_database(admin, name, copied_from)
    url = as_application(owner_url)
    engine = make_engine(url)
    owner_engine = create_engine(owner_url, poolclass=NullPool)
    try:
        yield Database(name, url, owner_url, engine, owner_engine)
    finally:
        engine.dispose()
        embedded_postgres.drop_database(admin, name)
