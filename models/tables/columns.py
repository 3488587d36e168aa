"""The few column kinds that every table uses, so that each invariant is written once."""

from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

# Rows are built, never validated: pydantic's part of a table waits until somebody asks, which nobody does.
SQLModel.model_config["defer_build"] = True

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


def identity() -> Any:
    """The bigint key of a row: for joins inside, never shown outside."""
    return Field(default=None, sa_type=sa.BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": True})


def reference(*, unique: bool = True) -> Any:
    """A random opaque id, for everything that leaves: URLs, logs, file names, encryption's associated data."""
    return Field(max_length=32, unique=unique)


def words(enum: type[StrEnum], name: str, *, nullable: bool = False, index: bool = False, default: Any = ...) -> Any:
    """A closed word: varchar with a CHECK over the enum's values. `name` names the CHECK."""
    kind = sa.Enum(
        enum,
        native_enum=False,
        create_constraint=True,
        values_callable=lambda members: [member.value for member in members],
        length=40,
        name=name,
    )
    if default is ...:
        default = None if nullable else ...
    return Field(default=default, sa_type=kind, nullable=nullable, index=index)


def link(target: str, *, nullable: bool = False, index: bool = True) -> Any:
    """A foreign key to another table's bigint identity."""
    return Field(
        default=None if nullable else ...,
        sa_type=sa.BigInteger,
        foreign_key=target,
        nullable=nullable,
        index=index,
    )


def document(default: Any = ...) -> Any:
    """A small structured value with no identifying content."""
    if default is ...:
        return Field(sa_type=JSONB)
    return Field(default_factory=default, sa_type=JSONB)


def recorded() -> Any:
    """When the database wrote the row, by its own clock: machine time, never shifted (ruling 12)."""
    return Field(
        default=None,
        sa_type=sa.DateTime(timezone=True),
        nullable=False,
        sa_column_kwargs={"server_default": sa.text("clock_timestamp()")},
    )


Moment = datetime
