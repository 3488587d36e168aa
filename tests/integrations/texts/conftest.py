"""A running stand-in for Twilio, and what the catalogue fills its bodies with."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn

from app.demo.sms_provider import SmsProvider, listen
from integrations.texts.catalogue import Catalogue, load_catalogue
from integrations.texts.twilio import TwilioSender
from models.rules.service import ClinicPolicy, OrderPolicy, PackPolicy, ReleasePolicy, ReturnPolicy, Service, TextPolicy

CATALOGUE = Path(__file__).parents[3] / "templates" / "texts" / "catalogue.toml"
ACCOUNT = "AC" + "0" * 32
MESSAGING_SERVICE = "MG" + "0" * 32
TOKEN = "a-token-for-tests"
PUBLIC = "https://kits.example.gov.uk"
NOBODY = "http://127.0.0.1:9"
"""Callbacks go to a port where nothing listens, unless a test listens."""


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return load_catalogue(CATALOGUE)


@pytest.fixture(scope="session")
def service() -> Service:
    return Service(
        id="harbour",
        name="Harbour Borough Council",
        text_name="Harbour Post",
        phone="0113 496 0000",
        phone_hours="Monday to Friday, 9am to 5pm",
        web=PUBLIC,
        orders=OrderPolicy(),
        packing=PackPolicy(),
        returns=ReturnPolicy(),
        release=ReleasePolicy(),
        texts=TextPolicy(),
        clinic=ClinicPolicy(),
        labs=(),
    )


def serve(app: object) -> tuple[uvicorn.Server, threading.Thread, str]:
    """Any ASGI application on a free loopback port."""
    listening = listen(0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    return server, thread, f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture(scope="session")
def served() -> Iterator[list[tuple[uvicorn.Server, threading.Thread]]]:
    """What serves, told to stop after each test and waited for only once: stopping takes a while."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []
    yield running
    for _, thread in running:
        thread.join(5)


@pytest.fixture
def standin(
    tmp_path: Path, served: list[tuple[uvicorn.Server, threading.Thread]]
) -> Iterator[Callable[..., tuple[SmsProvider, str]]]:
    """Starts stand-ins with the faults a test asks for, and stops them."""
    before = len(served)

    def start(**options: object) -> tuple[SmsProvider, str]:
        options = {"ledger": tmp_path / "ledger.jsonl", "auth_token": TOKEN, "step_seconds": 0.01, **options}
        provider = SmsProvider(**options)  # type: ignore[arg-type]
        server, thread, url = serve(provider.app)
        served.append((server, thread))
        return provider, url

    yield start
    for server, _ in served[before:]:
        server.should_exit = True


@pytest.fixture
def sender() -> Iterator[Callable[..., TwilioSender]]:
    """Makes senders that point at a base URL, and closes their connections."""
    made = []

    def make(base_url: str, **options: object) -> TwilioSender:
        options = {"timeout_seconds": 5.0, "auth_token": TOKEN, "public_base_url": NOBODY, **options}
        made.append(
            TwilioSender(account_sid=ACCOUNT, messaging_service_sid=MESSAGING_SERVICE, base_url=base_url, **options)  # type: ignore[arg-type]
        )
        return made[-1]

    yield make
    for each in made:
        each.http.session.close()
