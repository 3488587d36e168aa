"""`kitpost audit`: prove that nobody changed it."""

import typer

app = typer.Typer(help="The audit: prove that it is whole.", no_args_is_help=True)


@app.callback()
def audit() -> None:
    """Who did or saw what. Entries are only ever added, and sealed in blocks every half hour."""


@app.command()
def verify() -> None:
    """Read every entry, chain it again, and compare with the seals here and outside the database.

    Ends with 1 if an entry was changed, added or taken out, or if a seal kept outside is not here.
    """
    from app.audit_seals import verify_whole
    from app.wiring import connect

    product = connect()
    verdict = verify_whole(product.begin, product.store)
    for sentence in verdict.broken:
        typer.echo(sentence)
    typer.echo(
        f"{verdict.entries} entries in {verdict.blocks} sealed blocks, {verdict.outside} of them known outside;"
        f" {verdict.fresh} wait for their seal."
    )
    typer.echo("The audit is NOT whole." if verdict.broken else "The audit is whole.")
    if verdict.broken:
        raise typer.Exit(1)
