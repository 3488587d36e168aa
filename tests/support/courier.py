"""The courier's stand-ins on a free port of loopback, for tests that speak to it over HTTP."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI

from app.demo.courier import CLIENT_ID, CLIENT_SECRET, Courier, make_app
from integrations.courier.royal_mail import RoyalMailTracker
from tests.support import postage_seller
from tests.support.postage_seller import Seller


@dataclass(frozen=True, slots=True)
class StandIn:
    """A running stand-in: what it knows, and where it answers."""

    courier: Courier
    url: str

    def tracker(self, secret: str = CLIENT_SECRET) -> RoyalMailTracker:
        """Our adapter, pointed at it."""
        return RoyalMailTracker(self.url, CLIENT_ID, secret)


@dataclass(frozen=True, slots=True)
class PostageStandIn:
    """A running seller of postage: what it holds, and where it answers."""

    seller: Seller
    url: str


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """Serves until the block ends."""
    app = make_app()
    with _served(app) as url:
        yield StandIn(app.state.courier, f"{url}/mailpieces/v2")


@contextmanager
def selling() -> Iterator[PostageStandIn]:
    """The postage seller, until the block ends."""
    app = postage_seller.make_app()
    with _served(app) as url:
        yield PostageStandIn(app.state.seller, url)


@contextmanager
def _served(app: FastAPI) -> Iterator[str]:
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
