"""`kitpost post`: parcels handed to a courier as a file, their numbers taken back; how postage stands."""

import os
from pathlib import Path
from typing import Annotated

import typer

from app.cli.asked import one_service, who

app = typer.Typer(help="Postage: hand parcels over as a file, take their numbers back.", no_args_is_help=True)

Of = Annotated[str, typer.Option("--service", help="Whose parcels; may be left out where there is one.")]


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="Where to write the CSV; it must not be there yet.")],
    service: Of = "",
    batch: Annotated[str, typer.Option(help="A print batch, to hand over again what was in it.")] = "",
) -> None:
    """Write the parcels that want postage, for Click & Drop's import.

    The file holds names and addresses: only you may read it, the audit names you, and it is yours to delete.
    """
    from app.wiring import connect, post_files
    from models.actions.postage import hand_over
    from models.rules.errors import Code, ServiceError
    from models.rules.postage import PostWay

    home = connect()
    chosen = one_service(home, service)
    if chosen.post.way is not PostWay.FILE:
        raise ServiceError(Code.BAD_INPUT, f"{chosen.id} does not hand its parcels over by file: see post.way.")
    if file.exists():
        raise ServiceError(Code.BAD_INPUT, f"{file} is there already: name another file.")
    with home.begin() as session:
        ready, refused = hand_over(
            session, service=chosen, batch=batch, now=home.clock(), actor=who(), cipher=home.cipher
        )
        if ready:
            content = post_files.write_parcels([(each.reference, each.to) for each in ready], chosen.post)
            # Before the commit: a file too many is thrown away, a parcel that no file names would wait for ever.
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as sheet:
                sheet.write(content)
    typer.echo(f"{len(ready)} parcels are in {file}." if ready else "No parcel wants postage.")
    if refused:
        typer.secho(f"{refused} have no town in their address: each is a packer's case.", fg=typer.colors.RED)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="The courier's export, as CSV.", exists=True, dir_okay=False)],
    service: Of = "",
) -> None:
    """Take the numbers that the courier gave, so that parcels can be followed. Safe to repeat.

    Every line that can't be used is named with its field; the others are taken. Ends with 65 if there was one.
    """
    from app.wiring import connect, post_files
    from models.actions import audit
    from models.actions.postage import take_number
    from models.rules.errors import EXIT_CODE, Code

    home = connect()
    chosen = one_service(home, service)
    rows = list(post_files.read_numbers(file.read_bytes()))
    with home.begin() as session:
        audit.record(
            session,
            action="postage.numbers_read",
            subject="service",
            subject_id=0,
            actor=who(),
            now=home.clock(),
            service_id=chosen.id,
            lines=len(rows),
        )
    faulty = 0
    for row in rows:
        # A transaction each: the file has its own order of kits, and nobody is to wait in a circle for two of them.
        with home.begin() as session:
            wrong = row.fault or take_number(session, row.reference, row.number, service_id=chosen.id)
        if wrong:
            faulty += 1
            typer.echo(f"line {row.line}: {wrong}", err=True)
    typer.echo(f"{len(rows) - faulty} numbers were taken, {faulty} lines could not be used.")
    if faulty:
        raise typer.Exit(EXIT_CODE[Code.BAD_INPUT])
