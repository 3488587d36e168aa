"""`kitpost report`: where everything stands, in counts."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    kits: Annotated[
        Path | None, typer.Option(help="Also write one JSON object a kit to this file: codes and closed words only.")
    ] = None,
) -> None:
    """Print counts by stage: orders, kits, files, results, quarantine, texts, cases. Names nobody."""
    import json
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from app.wiring import connect
    from models.actions.report import count_everything, list_kits

    product = connect()
    with product.begin() as session:
        tables = count_everything(session, now=product.clock())
        lines = list_kits(session) if kits else []
    if kits:
        kits.write_text("".join(json.dumps(asdict(line)) + "\n" for line in lines), encoding="utf-8")
    console = Console()
    for each in tables:
        if each.rows:
            shown = Table(*each.columns, title=each.title, title_justify="left")
            for row in each.rows:
                shown.add_row(*row)
            console.print(shown)
