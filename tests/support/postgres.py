"""One embedded PostgreSQL for a whole test run, shared by every xdist worker, and an empty database a test."""

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, NullPool, create_engine, text

from app import embedded_postgres
from app.database import ONE_INSTALLATION, as_application, make_engine, migrate

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


# Ten times quicker than a new copy: only tables that hold rows are touched. Triggers and foreign keys
# sleep meanwhile; identities begin at 1 again, so that a test's ids don't depend on the tests before it.
EMPTY = """
DO $$
DECLARE named text; has_rows boolean;
BEGIN
    SET LOCAL session_replication_role = replica;
    FOR named IN SELECT format('%I', tablename) FROM pg_tables
        WHERE schemaname = 'public' AND tablename <> 'alembic_version'
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', named) INTO has_rows;
        IF has_rows THEN EXECUTE format('DELETE FROM %s', named); END IF;
    END LOOP;
    PERFORM setval(format('%I', sequencename)::regclass, 1, false) FROM pg_sequences
        WHERE schemaname = 'public' AND last_value IS NOT NULL;
END $$
"""

CUT_OFF = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"


@contextmanager
def emptied(database: Database) -> Iterator[Database]:
    """The same database, without a row of an earlier test and without its connections."""
    with database.owner_engine.begin() as connection:
        connection.exec_driver_sql(CUT_OFF, (database.name,))
        connection.execute(text(EMPTY))
        connection.execute(text(ONE_INSTALLATION), {"demo": False})
    database.engine.dispose()
    yield database
    database.engine.dispose()


@contextmanager
def fresh_database(copied_from: str) -> Iterator[Database]:
    """A database of its own."""
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
