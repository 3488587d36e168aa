"""`kitpost mllp`: the way in for laboratories that send HL7 v2 messages one by one."""

import typer

GATHER_SECONDS = 0.5
"""How long messages gather before they go to the readers in one file."""


def mllp() -> None:
    """Listen for laboratories' HL7 messages over MLLP, and answer each once it is stored. Stays until Ctrl-C.

    Who may speak, and with what certificate, is set by KITPOST_MLLP_...; see docs/lab-integration.md.
    """
    import asyncio
    import contextlib
    import logging
    import signal

    from app.lab_messages import MllpDesk, file_messages
    from app.lab_reading import ingest_of
    from app.wiring import connect

    product = connect()
    ingest = ingest_of(product)
    desk = MllpDesk(ingest)
    arrived = asyncio.Event()

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, ended.set)

        def take(lab: str, message: bytes) -> bytes:
            answer = desk.take(lab, message)
            loop.call_soon_threadsafe(arrived.set)
            return answer

        async def gather() -> None:
            while True:
                await arrived.wait()
                await asyncio.sleep(GATHER_SECONDS)
                arrived.clear()
                try:
                    if await asyncio.to_thread(file_messages, ingest):
                        arrived.set()  # more may wait than one round takes
                except Exception as error:  # noqa: BLE001 - stored is stored: ingest's own sweep does it instead
                    logging.getLogger("kitpost").error("mllp: filing failed: %s", type(error).__name__)  # noqa: TRY400

        async with product.mllp_listener(take, desk.too_long).listening() as port:
            typer.echo(f"Listening for HL7 messages on port {port}. Ctrl-C ends it.")
            gathering = asyncio.create_task(gather())
            await ended.wait()
            gathering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gathering

    asyncio.run(serve())
