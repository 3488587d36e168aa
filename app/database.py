"""How the product reaches PostgreSQL: engines, transactions, and the schema's version."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError, OperationalError, ProgrammingError
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel import Session

import models.migrations
from models.rules.errors import Code, ServiceError

Begin = Callable[[], AbstractContextManager[Session]]
"""Opens one transaction: commits when its block ends well, rolls back when it does not."""

APPLICATION_ROLE: Final = "kitpost_app"
"""Whom the product connects as. The first migration makes it, without UPDATE or DELETE on what is append-only."""

CONNECT_WITHIN_SECONDS: Final = 5
ASK_AFTER_IDLE_SECONDS: Final = 1.0
"""A connection that lay idle so long is asked whether it lives before it is used: the server may have restarted."""

VERSIONS: Final = Path(models.migrations.__path__[0]) / "versions"
"""The migrations, one after another, by the number that each file's name begins with."""

MIGRATION_LOCK: Final = 0x6B6974706F7374  # 'kitpost'
"""Advisory lock, so that two processes starting at once don't both migrate."""


ONE_INSTALLATION: Final = """
    INSERT INTO installation (id, demo, service_time_offset_seconds, sending_stopped, created_at)
    VALUES (1, :demo, 0, false, clock_timestamp()) ON CONFLICT (id) DO NOTHING
"""


def make_engine(url: str, *, pool_size: int = 5) -> Engine:
    """An engine whose errors never show a parameter, because parameters are personal."""
    engine = create_engine(
        url,
        hide_parameters=True,
        pool_size=pool_size,
        connect_args={"connect_timeout": CONNECT_WITHIN_SECONDS, "options": "-c timezone=UTC"},
    )
    event.listen(engine, "checkin", _note_when_idle)
    event.listen(engine, "checkout", partial(_ask_if_it_lives, engine))
    return engine


def _note_when_idle(_connection: object, record: ConnectionPoolEntry) -> None:
    record.info["idle_since"] = monotonic()


def _ask_if_it_lives(engine: Engine, connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
    """As `pool_pre_ping` does, but not for one that was at work a moment ago: a text asks three times, a scan ten."""
    if monotonic() - record.info.get("idle_since", monotonic()) < ASK_AFTER_IDLE_SECONDS:
        return
    try:
        engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error as error:
        raise DisconnectionError from error  # the pool makes a new one


def begin_on(engine: Engine) -> Begin:
    """Transactions on an engine. Rows stay readable after the commit."""
    return sessionmaker(engine, class_=Session, expire_on_commit=False).begin


def migrate(url: str, *, demo: bool = False) -> None:
    """Brings a database to the newest schema, as its owner. Safe to repeat and to run twice at once.

    `demo` marks a new database as one of invented people, whose service time may be shifted
    (ruling 12); a database that is there already keeps the mark it has.
    """
    from alembic import command  # noqa: PLC0415 - only whoever migrates pays for it
    from alembic.config import Config  # noqa: PLC0415

    engine = make_engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            config = Config()
            config.set_main_option("script_location", str(VERSIONS.parent).replace("%", "%%"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.execute(text(ONE_INSTALLATION), {"demo": demo})
    except OperationalError as error:
        raise _down() from error
    finally:
        engine.dispose()


def check_ready(engine: Engine) -> None:
    """Raises ServiceError(DATABASE_DOWN | DATABASE_NOT_READY) unless the database answers with today's schema."""
    try:
        with engine.connect() as connection:
            found = connection.execute(text("SELECT max(version_num) FROM alembic_version")).scalar()
    except OperationalError as error:
        raise _down() from error
    except ProgrammingError:  # no such table
        found = None
    if found != newest_version():
        raise ServiceError(
            Code.DATABASE_NOT_READY, "The database's tables are not this version's: run kitpost migrate."
        )


def newest_version() -> str:
    """The number of the newest migration. Told by the files' names: Alembic's own way costs each process 0.3 s."""
    return max(file.name.partition("_")[0] for file in VERSIONS.glob("[0-9]*.py"))


def is_demo(url: str) -> bool | None:
    """Whether a database was made for invented people; None if it has no tables yet."""
    engine = make_engine(url)
    try:
        with engine.connect() as connection:
            if connection.execute(text("SELECT to_regclass('installation')")).scalar() is None:
                return None
            return bool(connection.execute(text("SELECT demo FROM installation")).scalar_one())
    finally:
        engine.dispose()


def as_application(owner_url: str) -> str:
    """The same database for the product's own role: on the embedded server, where no password is asked."""
    return owner_url.replace("://kitpost@", f"://{APPLICATION_ROLE}@", 1)


def _down() -> ServiceError:
    return ServiceError(
        Code.DATABASE_DOWN,
        "The database does not answer: check that PostgreSQL runs and that KITPOST_DATABASE_URL is right.",
    )
