"""`kitpost clock`: what time it is for the service; in a demo, moved forward."""

import sys
from typing import Annotated

import typer

app = typer.Typer(help="Service time: due dates, quiet hours and ages go by it.", no_args_is_help=True)


@app.command()
def show() -> None:
    """Print service time, in London."""
    from app.wiring import connect
    from models.rules.working_days import LONDON

    typer.echo(connect().clock().astimezone(LONDON).isoformat(timespec="seconds"))


@app.command()
def forward(
    to: Annotated[str, typer.Argument(help="An instant with its offset, like 2026-12-01T09:30:00+00:00.")],
) -> None:
    """Move a demo's clock forward. Refused in any database that was not made for a demo."""
    _move(to)


@app.command()
def follow() -> None:
    """Move a demo's clock forward to each instant that is typed in, one a line; each line gets its answer."""
    from models.rules.errors import ServiceError

    for line in sys.stdin:
        try:
            _move(line.strip())
        except ServiceError as error:
            typer.echo(error.message)
        sys.stdout.flush()


def _move(to: str) -> None:
    from datetime import datetime

    from app.wiring import connect
    from models.actions.installation import move_clock
    from models.rules.errors import Code, ServiceError

    try:
        instant = datetime.fromisoformat(to)
    except ValueError:
        raise ServiceError(
            Code.BAD_INPUT, "TO is not a date and time: write it like 2026-12-01T09:30:00+00:00."
        ) from None
    if instant.tzinfo is None:
        raise ServiceError(Code.BAD_INPUT, "TO needs an offset, like +00:00.")
    with connect().begin() as session:
        move_clock(session, to=instant, actor="command:clock")
    typer.echo(f"Service time is {to}.")
