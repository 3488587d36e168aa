"""`kitpost listen`: hears of files that land, and wakes ingest within seconds."""

import typer


def listen() -> None:
    """Wait for files to land in the store, note each, and start ingest by event. Stays until Ctrl-C.

    A hint only: the sweep of the ingest flow finds whatever this misses (ruling 13).
    """
    import contextlib

    from app.lab_arrivals import hear_of_arrivals
    from app.prefect.events import LAB_FILE_LANDED, tell
    from app.wiring import connect

    product = connect()
    arrivals = product.arrivals
    typer.echo("Listening for lab files. Ctrl-C ends it.")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            if hear_of_arrivals(arrivals, product.begin, product.store, product.lab_maps, product.clock):
                tell(LAB_FILE_LANDED)
