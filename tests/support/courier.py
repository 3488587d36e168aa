"""The courier's stand-in on a free port of loopback, for tests that speak to it over HTTP."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from app.demo.courier import CLIENT_ID, CLIENT_SECRET, Courier, make_app
from integrations.courier.royal_mail import RoyalMailTracker


@dataclass(frozen=True, slots=True)
class StandIn:
    """A running stand-in: what it knows, and where it answers."""

    courier: Courier
    url: str

    def tracker(self, secret: str = CLIENT_SECRET) -> RoyalMailTracker:
        """Our adapter, pointed at it."""
        return RoyalMailTracker(self.url, CLIENT_ID, secret)


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """Serves until the block ends."""
    app = make_app()
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield StandIn(app.state.courier, f"http://127.0.0.1:{listening.getsockname()[1]}/mailpieces/v2")
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
