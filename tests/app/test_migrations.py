"""What the migrations make is what the tables say."""

from importlib import import_module
from pkgutil import iter_modules

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlmodel import SQLModel

from app.database import VERSIONS, newest_version
from models import tables


def test_a_migrated_database_has_the_tables_that_the_code_has(db):
    for module in iter_modules(tables.__path__):
        import_module(f"{tables.__name__}.{module.name}")
    with db.owner_engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        found = compare_metadata(MigrationContext.configure(connection, opts=options), SQLModel.metadata)

    assert found == []


def test_the_newest_version_is_alembics_head():
    found = ScriptDirectory(str(VERSIONS.parent)).get_current_head()

    assert newest_version() == found
