"""`kitpost collect`: fetches files from laboratories' own SFTP servers."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from app.sftp_collect import Collected


def collect(
    once: Annotated[bool, typer.Option("--once", help="Look once and end, for a timer of your own.")] = False,
    every: Annotated[int, typer.Option(min=10, help="Seconds between two looks.")] = 60,
) -> None:
    """Fetch whole files from laboratories' SFTP servers, and leave receipts there. Stays until Ctrl-C.

    The servers are set by KITPOST_SFTP_LABS. A server or a file that can't be used stops no other; with --once
    the command then fails.
    """
    import asyncio
    import contextlib
    import time

    from app.lab_reading import ingest_of
    from app.sftp_collect import collect_files
    from app.wiring import connect
    from models.rules.errors import Code, ServiceError

    product = connect()
    ingest, labs = ingest_of(product), product.sftp_labs
    if not labs:
        raise ServiceError(Code.SETTINGS, "KITPOST_SFTP_LABS names no server: there is nothing to collect.")

    passed_over = dict.fromkeys(labs, 0)

    async def visit(lab: str) -> None:
        async with product.open_drop(lab) as drop:
            done = await collect_files(ingest, lab, drop)
        _tell(lab, done, passed_over_before=passed_over[lab])
        passed_over[lab] = done.passed_over
        if done.failed:
            raise ServiceError(Code.NOT_NOW, f"The laboratory's server refused {len(done.failed)} files.")

    with contextlib.suppress(KeyboardInterrupt):
        while True:
            failed: ServiceError | None = None
            for lab in labs:
                try:
                    asyncio.run(visit(lab))
                except ServiceError as error:
                    failed = error
                    typer.echo(f"{lab}: {error.message}", err=True)
            if once:
                if failed is not None:
                    raise failed
                return
            time.sleep(every)


def _tell(lab: str, done: "Collected", *, passed_over_before: int) -> None:
    """What one visit did. What always lies there is said once, and again when it changes."""
    if done.files or done.receipts:
        typer.echo(f"{lab}: {done.files} files fetched, {done.receipts} receipts left.")
    if done.waiting:
        typer.echo(f"{lab}: {done.waiting} files may still be being written, and wait.")
    if done.passed_over != passed_over_before:
        typer.echo(f"{lab}: {done.passed_over} links or folders passed over.")
    for sentence in done.failed:
        typer.echo(f"{lab}: {sentence}", err=True)
