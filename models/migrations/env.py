"""Alembic's entry: runs the migrations on the connection that `app.database.migrate` hands over."""

import importlib
import pkgutil

from alembic import context
from sqlmodel import SQLModel

import models.tables

for module in pkgutil.iter_modules(models.tables.__path__):
    importlib.import_module(f"models.tables.{module.name}")

context.configure(connection=context.config.attributes["connection"], target_metadata=SQLModel.metadata)
with context.begin_transaction():
    context.run_migrations()
