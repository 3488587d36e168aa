"""`kitpost scan`: the packing bench. A keyboard-wedge scanner types one code a line."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer


def scan(
    packer: Annotated[str, typer.Option(help="Who packs: an opaque staff id, kept with every scan.")],
    bench: Annotated[str, typer.Option(help="Which bench: kept with every scan.")] = "command",
    file: Annotated[
        Path | None, typer.Option(help="Read the codes from a file, one a line.", exists=True, dir_okay=False)
    ] = None,
    returned: Annotated[
        bool, typer.Option("--returned", help="Scan the outer labels of boxes that the post brought back to us.")
    ] = False,
) -> None:
    """Pack and dispatch: scan the request form, each tube, the return label, and last the outer label.

    Every scan is answered by OK or STOP and one sentence. A piece of another kit blocks the parcel until
    its form is scanned again. Scanning twice does no harm. Each scan is kept at once: stop whenever you
    like, and go on from where you were. Nothing is dispatched but a whole kit, by its outer label.
    From a file it ends with 65 if any scan was refused.
    """
    import uuid

    from app.wiring import connect
    from models.actions.bench import BenchRead, take_scan
    from models.actions.parcel import ScanAnswer, scan_returned
    from models.rules.errors import EXIT_CODE, Code

    product = connect()
    actor = f"packer:{packer}"

    def answer(code: str) -> ScanAnswer:
        with product.begin() as session:
            if returned:
                return scan_returned(session, code, services=product.services, now=product.clock(), actor=actor)
            return take_scan(
                session,
                BenchRead(str(uuid.uuid4()), code, product.clock()),
                bench=bench,
                services=product.services,
                actor=actor,
                cipher=product.cipher,
            )

    dispatched = refused = 0
    for code in _codes(file):
        told = answer(code)
        dispatched += told.dispatched
        refused += not told.fine
        _say(told.fine, told.sentence)
    typer.echo(f"{dispatched} kits were dispatched, {refused} scans were refused.")
    if file and refused:
        raise typer.Exit(EXIT_CODE[Code.BAD_INPUT])


def _codes(file: Path | None) -> Iterable[str]:
    """The codes as they come; empty lines are not scans."""
    lines = file.read_text(encoding="utf-8").splitlines() if file else iter(sys.stdin.readline, "")
    return (line.strip() for line in lines if line.strip())


def _say(fine: bool, sentence: str) -> None:
    """One line; a refusal also sounds on a terminal, because packers look at the parcel."""
    bell = "" if fine or not sys.stdout.isatty() else "\a"
    typer.secho(f"{'OK  ' if fine else 'STOP'} {sentence}{bell}", fg=typer.colors.GREEN if fine else typer.colors.RED)
