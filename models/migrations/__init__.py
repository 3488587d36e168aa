"""The schema's history, in Alembic's form. Run by `app.database.migrate`, as the database's owner."""
