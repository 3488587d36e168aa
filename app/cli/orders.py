"""`kitpost orders`: take a file of orders in, see what was decided, settle what is held."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.asked import who

app = typer.Typer(help="Orders: take a file in, see what was decided, settle what is held.", no_args_is_help=True)


@app.command("import")
def import_orders(
    file: Annotated[
        Path, typer.Argument(help="Orders as CSV, or as JSON lines (.jsonl).", exists=True, dir_okay=False)
    ],
    service: Annotated[str, typer.Option(help="Whose orders these are, such as larkfield.")],
    channel: Annotated[str, typer.Option(help="Which of the service's channels they come from.")],
) -> None:
    """Take a file of orders in. Good rows are stored, and decided by the next run of take-orders.

    Columns are the fields of POST /api/orders; several words in a CSV cell stand apart by ";". A row
    that can't be taken is told by line and field, is kept for a person, and makes the command end with
    65. The same file again changes nothing.
    """
    from app.order_files import OrderFile
    from app.wiring import connect
    from models.rules.errors import EXIT_CODE, Code

    home = connect()
    into = OrderFile(service, channel, home.begin, home.intake, home.clock())
    report = into.take_in(file, lambda line: typer.echo(f"{file.name}, {line}", err=True))
    typer.echo(f"{report.stored} orders are stored, {report.refused} rows were refused.")
    if report.refused:
        raise typer.Exit(EXIT_CODE[Code.BAD_INPUT])


@app.command()
def show(
    ref: Annotated[str, typer.Argument(help="Our reference of the order, as POST /api/orders answers it.")],
) -> None:
    """Show what was decided about an order, oldest first, by whom and why. Nothing about the person."""
    from app.wiring import connect
    from models.actions.order import decisions_of

    with connect().begin() as session:
        for line in decisions_of(session, ref):
            reasons = ", ".join(line.reasons) or "nothing against it"
            stands = "" if line.stands else " (no longer stands)"
            because = f", because: {line.because}" if line.because else ""
            typer.echo(
                f"{line.decided_at:%Y-%m-%d %H:%M}Z {line.outcome.value}{stands}: {reasons}; "
                f"told {' and '.join(line.told)}; by {line.actor} under {line.rule_version}{because}"
            )


@app.command()
def kept(limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50) -> None:
    """List orders that could not be read, newest first, with the fields at fault. Their content stays sealed."""
    from app.wiring import connect
    from models.actions.order import kept_aside

    with connect().begin() as session:
        for line in kept_aside(session, limit=limit):
            typer.echo(f"{line.received_at:%Y-%m-%d %H:%M}Z {line.ref} {line.service_id}: {line.why}")


@app.command()
def settle(
    ref: Annotated[str, typer.Argument(help="Our reference of an order that is held, or was refused for its area.")],
    accept: Annotated[bool, typer.Option("--accept/--refuse", help="Whether a kit goes.")],
    because: Annotated[str, typer.Option(help="Why; kept with the decision. No name, number or address.")],
) -> None:
    """Say what becomes of a held order, as somebody who has looked into it."""
    from app.wiring import connect
    from models.actions.order import settle_order

    home = connect()
    with home.begin() as session:
        taken = settle_order(
            session,
            ref,
            accept=accept,
            because=because,
            now=home.clock(),
            actor=who(),
            intake=home.intake,
        )
    typer.echo(f"The order is {taken.outcome.value}.")
