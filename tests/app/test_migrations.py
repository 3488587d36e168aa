"""What the migrations make is what the tables say."""

from importlib import import_module
from pkgutil import iter_modules

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlmodel import SQLModel

from app.database import VERSIONS, newest_version
from models import tables
from tests.support import build


def test_a_migrated_database_has_the_tables_that_the_code_has(db):
    for module in iter_modules(tables.__path__):
        import_module(f"{tables.__name__}.{module.name}")
    with db.owner_engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        found = compare_metadata(MigrationContext.configure(connection, opts=options), SQLModel.metadata)

    assert found == []


def test_older_code_tells_no_laboratory_of_a_kit_whose_request_is_not_needed(db, begin):
    with begin() as session:
        kit = build.printed_kit(session)
    version = import_module("models.migrations.versions.0021_requests_not_needed")
    with db.owner_engine.connect() as connection, Operations.context(MigrationContext.configure(connection)):
        connection.exec_driver_sql(
            """
            INSERT INTO lab_request (ref, service_id, kit_id, lab, state, wants_answer, batch, error_code, owed_at)
            SELECT 'request', service_id, id, lab, 'not_needed', true, '', '', created_at FROM kit WHERE id = %s
            """,
            (kit.id,),
        )
        states = []
        for move in (version.downgrade, version.upgrade):
            move()
            states.append(connection.exec_driver_sql("SELECT state, error_code FROM lab_request").one())
        connection.rollback()

    assert states == [("acknowledged", "not_needed"), ("not_needed", "")]


def test_the_newest_version_is_alembics_head():
    found = ScriptDirectory(str(VERSIONS.parent)).get_current_head()

    assert newest_version() == found
