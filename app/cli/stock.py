"""`kitpost stock`: what lies in the packing room, by lot; deliveries in, corrections, recalls."""

from datetime import datetime
from typing import Annotated

import typer

from app.cli.asked import one_service, who

app = typer.Typer(help="Stock by lot: deliveries, corrections, recalls, what runs low.", no_args_is_help=True)

Component = Annotated[str, typer.Argument(help="As the council's recipes spell it.")]
Lot = Annotated[str, typer.Argument(help="The maker's lot number.")]
Of = Annotated[str, typer.Option("--service", help="Which service's stock; may be left out where there is one.")]


@app.command("list")
def list_() -> None:
    """List every lot that holds something or is in a kit, and what runs low."""
    from app.wiring import connect
    from models.actions.stock import list_lots, running_low

    home = connect()
    with home.begin() as session:
        lots = list_lots(session, services=home.services, now=home.clock())
        low = running_low(session, services=home.services, now=home.clock())
    for each in lots:
        state = "recalled" if each.recalled_at else "may be packed" if each.usable else "not to be packed"
        typer.echo(
            f"{each.service_id}  {each.component:<20} {each.lot:<16} expires {each.expires_on}  "
            f"{each.on_hand:>6} here  {each.in_kits:>6} in kits  {state}"
        )
    for service_id, short in low.items():
        for component in short:
            typer.secho(
                f"{service_id}: {component.pieces} of {component.component} are left, fewer than {component.below}.",
                fg=typer.colors.RED,
            )


@app.command()
def receive(
    component: Component,
    lot: Lot,
    pieces: Annotated[int, typer.Argument(min=1, help="How many came.")],
    expires: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="Last day of use, as on the box.")],
    service: Of = "",
) -> None:
    """Book a delivery in."""
    from app.wiring import connect
    from models.actions.stock import receive_lot

    home = connect()
    chosen = one_service(home, service)
    with home.begin() as session:
        row = receive_lot(
            session,
            service=chosen,
            component=component,
            lot=lot,
            pieces=pieces,
            expires_on=expires.date(),
            now=home.clock(),
            actor=who(),
        )
        typer.echo(f"Lot {lot} of {component} holds {row.on_hand}.")


@app.command()
def adjust(
    component: Component,
    lot: Lot,
    pieces: Annotated[int, typer.Option("--by", help="More, or with a minus fewer.")],
    because: Annotated[str, typer.Option(help="Counted, broken, thrown away.")],
    service: Of = "",
) -> None:
    """Correct a lot, with a reason."""
    from app.wiring import connect
    from models.actions.stock import adjust_lot

    home = connect()
    with home.begin() as session:
        row = adjust_lot(
            session,
            service_id=one_service(home, service).id,
            component=component,
            lot=lot,
            pieces=pieces,
            because=because,
            now=home.clock(),
            actor=who(),
        )
        typer.echo(f"Lot {lot} of {component} holds {row.on_hand}.")


@app.command()
def recall(
    component: Component,
    lot: Lot,
    because: Annotated[str, typer.Option(help="Who says so, and why. Kept in the audit.")],
    service: Of = "",
) -> None:
    """Recall a lot: kits here are stopped, and each kit that holds it becomes a case. Safe to repeat."""
    from app.wiring import connect
    from models.actions.stock import recall_lot

    home = connect()
    with home.begin() as session:
        found = recall_lot(
            session,
            service=one_service(home, service),
            component=component,
            lot=lot,
            because=because,
            now=home.clock(),
            actor=who(),
        )
    typer.echo(
        f"Lot {lot} of {component} is recalled. {found.in_our_room} kits here can't be dispatched with it; "
        f"{found.outside} kits are outside, each a case."
    )
