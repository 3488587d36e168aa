"""`kitpost listen`: hears of files that land, and wakes ingest within seconds."""

import typer


def listen() -> None:
    """Wait for files to land in the store, note each, and start ingest by event. Stays until Ctrl-C.

    A hint only: the sweep of the ingest flow finds whatever this misses (ruling 13).
    """
    import contextlib

    from app.wiring import connect
    from flows.events import LAB_FILE_LANDED, tell
    from flows.ingest_results import find_arrivals, ingest_of

    product = connect()
    arrivals, ingest = product.arrivals, ingest_of(product)
    typer.echo("Listening for lab files. Ctrl-C ends it.")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            heard = arrivals.receive(20)
            if any("/incoming/" in key for _, key in heard) and find_arrivals(ingest):
                tell(LAB_FILE_LANDED)
            for receipt, _ in heard:
                arrivals.done(receipt)
