"""S3 and SQS on loopback, spoken to over HTTP as in production."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from integrations.store import CLIENT

REGION = "eu-west-2"


@contextmanager
def moto() -> Iterator[str]:
    """A moto server of our own; yields its address."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def client(kind: str, endpoint: str) -> Any:
    """A client as wiring builds it."""
    return boto3.Session("test", "test", region_name=REGION).client(kind, endpoint_url=endpoint, config=CLIENT)  # type: ignore[call-overload]
