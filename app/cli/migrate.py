"""`kitpost migrate`: brings the database to the newest schema."""

import typer


def migrate() -> None:
    """Create or upgrade the database's tables, as their owner (KITPOST_OWNER_DATABASE_URL). Safe to repeat."""
    from app import database
    from app.wiring import wiring

    found = wiring()
    database.migrate(found.owner_url, demo=found.settings.environment == "demo")
    typer.echo("The database is up to date.")
