"""`kitpost reconcile`: the balance, now. Also run daily by its flow."""

from typing import Annotated

import typer


def reconcile(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Strike the balance: everything accounted for, or say exactly what is not. Exits 1 on any difference."""
    import json
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from app.wiring import connect
    from models.actions.balance import strike_balance

    product = connect()
    with product.begin() as session:
        balance = strike_balance(session, now=product.clock(), services=product.services)
    if as_json:
        typer.echo(json.dumps(asdict(balance)))
        raise typer.Exit(0 if balance.is_even else 1)
    console = Console()
    table = Table("Figure", "Count", title="Balance")
    for name, count in balance.figures.items():
        table.add_row(name, str(count))
    console.print(table)
    if balance.late:
        table = Table("What should have come", "How many", "Which (the first twenty)", title="Late")
        for late in balance.late:
            table.add_row(late.says, str(late.count), " ".join(late.ids))
        console.print(table)
    if balance.is_even:
        console.print("Everything is accounted for.")
        return
    table = Table("What should hold", "Exceptions", "Which (opaque ids, first twenty)", title="Differences")
    for difference in balance.differences:
        table.add_row(difference.says, str(difference.count), " ".join(difference.ids))
    console.print(table)
    raise typer.Exit(1)
