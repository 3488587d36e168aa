"""The web application on loopback, beside a real sign-in provider, for tests that ask it as a browser would."""

import base64
import html
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import httpx
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from app.settings import Settings
from app.wiring import Wiring
from integrations.ports import FileStore
from integrations.texts.catalogue import Catalogue
from models.rules.service import Services
from tests.support import build
from tests.support.postgres import Database

CLIENT_ID = "kitpost-tests"
CLIENT_SECRET = "a-secret-of-the-tests"
TWILIO_TOKEN = "0123456789abcdef0123456789abcdef"
NOTIFY_TOKEN = "the-bearer-of-notifys-receipts-in-tests"
NOTIFY_SERVICE = "00000000-0000-4000-8000-000000000001"
COURIER_SECRET = "the-couriers-secret-of-the-tests"
CHANNEL_KEY = "a-key-of-the-tests-that-is-long-enough"


class Door:
    """One address for a whole test run, behind which each test puts its own application."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None
        self._inside = 0
        self._left = threading.Condition()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None  # a test put it there
        with self._left:
            self._inside += 1
        try:
            await self.app(scope, receive, send)
        finally:
            with self._left:
                self._inside -= 1
                self._left.notify_all()

    def shut(self) -> None:
        """Waits for requests whose browser has gone: their connections go back before their database does."""
        self.app = None
        with self._left:
            assert self._left.wait_for(lambda: not self._inside, timeout=30)


@contextmanager
def listening() -> Iterator[socket.socket]:
    """A socket on a free port of loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def address(listener: socket.socket) -> str:
    host, port = listener.getsockname()
    return f"http://{host}:{port}"


@contextmanager
def serving(app: ASGIApp, listener: socket.socket) -> Iterator[None]:
    """The application on this socket, in a thread of its own."""
    config = uvicorn.Config(
        app, lifespan="off", ws="none", log_config=None, access_log=False, timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=[[listener]])
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


_STORES: dict[object, FileStore] = {}
_CATALOGUES: list[Catalogue] = []


@dataclass(frozen=True)
class Home(Wiring):
    """A real installation whose clock stands where a test puts it."""

    hands: dict[str, datetime] = field(default_factory=lambda: {"now": build.NOW})

    @cached_property
    def clock(self) -> Callable[[], datetime]:
        return lambda: self.hands["now"]

    @cached_property
    def store(self) -> FileStore:
        """Making an S3 client takes as long as all the rest of an application, so tests of one address share one."""
        chosen = self.settings
        where = (chosen.s3_endpoint, chosen.s3_access_key, chosen.s3_bucket)
        if where not in _STORES:
            _STORES[where] = super().store
        return _STORES[where]

    @cached_property
    def catalogue(self) -> Catalogue:
        """One for the whole run: nobody writes into it."""
        if not _CATALOGUES:
            _CATALOGUES.append(super().catalogue)
        return _CATALOGUES[0]

    @cached_property
    def services(self) -> Services:
        """The builders' council, so that the borough of the demo may change without breaking a page's test."""
        with self.begin() as session:
            return {"larkfield": build.in_force(session)}


def home_on(db: Database, *, public_base_url: str, issuer: str, **changes: Any) -> Home:
    """An installation on a test's database, with the builders' keys."""

    def key(raw: bytes) -> str:
        return base64.b64encode(raw).decode()

    return Home(
        Settings(
            **{
                "environment": "demo",
                "public_base_url": public_base_url,
                "database_url": db.url,
                "data_keys": {"test": key(bytes(range(32)))},
                "data_key_current": "test",
                "index_keys": {1: key(bytes(reversed(range(32))))},
                "session_secret": "the-session-secret-of-the-tests-is-long",
                "s3_bucket": "kitpost",
                "sqs_queue_url": "http://127.0.0.1:1/queue",
                "twilio_account_sid": "AC" + "0" * 32,
                "twilio_auth_token": TWILIO_TOKEN,
                "twilio_messaging_service_sid": "MG" + "0" * 32,
                "notify_api_key": f"tests-{NOTIFY_SERVICE}-{NOTIFY_SERVICE}",
                "notify_template_id": NOTIFY_SERVICE,
                "notify_callback_token": NOTIFY_TOKEN,
                "courier_client_id": "none",
                "courier_client_secret": "none",
                "courier_webhook_secret": COURIER_SECRET,
                "oidc_issuer": issuer,
                "oidc_client_id": CLIENT_ID,
                "oidc_client_secret": CLIENT_SECRET,
                "api_keys": {"larkfield/web": CHANNEL_KEY},
                **changes,
            }
        )
    )


class Browser:
    """Somebody at the pages: keeps cookies, follows where a form leads, and sends forms as they were drawn."""

    def __init__(self, base_url: str) -> None:
        self.http = httpx.Client(base_url=base_url, trust_env=False, timeout=30)

    def sign_in(self, login: str) -> httpx.Response:
        """Through the provider and back; the page that one lands on."""
        asked = self.http.get("/sign-in/start")
        chosen = self.http.post(asked.headers["location"], data={"login": login})
        return self.http.get(chosen.headers["location"], follow_redirects=True)

    def get(self, path: str) -> httpx.Response:
        return self.http.get(path)

    def send(self, page: str, form: str, **values: str) -> httpx.Response:
        """Fills in the form that leads to `form` on a page, and follows its answer. Fails if there is none."""
        drawn = self.get(page).text
        hidden = hidden_fields(drawn, form)
        return self.http.post(form, data={**hidden, **values}, follow_redirects=True)


def hidden_fields(page: str, action: str) -> dict[str, str]:
    """What a form sends by itself: every hidden field of the first form with this action."""
    found = re.search(rf'<form[^>]*action="{re.escape(action)}(?:#\w+)?".*?</form>', page, re.DOTALL)
    assert found, f"no form leads to {action}"
    return dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', found.group()))


def words(answer: httpx.Response) -> str:
    """What a page says on a desk, without its tags and what is hidden from a reader."""
    seen = re.sub(r'<span[^>]* aria-hidden="true">[^<]*</span>', " ", answer.text)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", seen)))


def audited(db: Database) -> list[dict[str, Any]]:
    """Every audit entry, oldest first."""
    with db.owner_engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT to_jsonb(audit) FROM audit ORDER BY id")
        return [row[0] if isinstance(row[0], dict) else json.loads(row[0]) for row in found]
