"""`kitpost warm`: flow runs begin at once."""

import typer


def warm() -> None:
    """Keep everything imported for flow runs, so that each begins at once. Stays until Ctrl-C.

    Run it beside each worker, as the same user with the same variables, and restart both together. Without it runs
    take three seconds longer to begin; nothing else changes.
    """
    from app.prefect.warm import newest_code, serve

    made_of = newest_code()  # before what follows reads it

    import contextlib
    import gc

    from app.cli.deploy import import_flows
    from app.prefect.engine import carry_out, import_all
    from app.wiring import wiring
    from models.rules.errors import Code, ServiceError

    path = wiring().settings.warm_socket
    if path is None:
        raise ServiceError(Code.SETTINGS, "KITPOST_WARM_SOCKET is not set: name the socket that runs are to ask.")
    import_all()
    import_flows()
    wiring.cache_clear()  # each run reads the settings that it was given
    gc.freeze()
    typer.echo("Ready for flow runs. Ctrl-C ends it.")
    with contextlib.suppress(KeyboardInterrupt):
        serve(path, made_of=made_of)
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()
        carry_out()
