"""The staff's session: everything in one cookie that only we can open, and that ends by itself.

The cookie is encrypted and signed (Fernet, a key derived from KITPOST_SESSION_SECRET), so that no
server keeps state and a browser learns nothing. It ends after half an hour without a page, and after
a working day whatever happens. These are machine time: a demo's shifted clock must not sign anyone out.
"""

import base64
import json
import time
from collections.abc import Mapping
from typing import Any, Final

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

IDLE_SECONDS: Final = 30 * 60
LONGEST_SECONDS: Final = 9 * 60 * 60
UNTIL: Final = "until"
"""Key of the session under which its latest end stands, in seconds of the epoch."""


class SealedSessions:
    """Gives each request its session as `request.session`, and seals it again into the answer."""

    def __init__(self, app: ASGIApp, *, secret: str, over_https: bool) -> None:
        self._app = app
        self._fernet = Fernet(_key(secret))
        # __Host- makes a browser refuse the cookie from any other host or path, and without TLS.
        self._name = "__Host-kitpost" if over_https else "kitpost"
        self._attributes = f"Path=/; HttpOnly; SameSite=Lax{'; Secure' if over_https else ''}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Opens the cookie, serves, and sets it anew where there is a session to keep or to end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = HTTPConnection(scope).cookies.get(self._name, "")
        scope["session"] = self._open(sent)

        async def sealing(message: Message) -> None:
            if message["type"] == "http.response.start":
                if scope["session"]:
                    self._set(message, self._seal(scope["session"]), IDLE_SECONDS)
                elif sent:
                    self._set(message, "", 0)
            await send(message)

        await self._app(scope, receive, sealing)

    def _open(self, sent: str) -> dict[str, Any]:
        try:
            session: dict[str, Any] = json.loads(self._fernet.decrypt(sent.encode(), ttl=IDLE_SECONDS))
        except (InvalidToken, ValueError):
            return {}
        return session if UNTIL not in session or session[UNTIL] > time.time() else {}

    def _seal(self, session: Mapping[str, Any]) -> str:
        return self._fernet.encrypt(json.dumps(session, separators=(",", ":")).encode()).decode()

    def _set(self, message: Message, value: str, seconds: int) -> None:
        MutableHeaders(scope=message).append(
            "Set-Cookie", f"{self._name}={value}; Max-Age={seconds}; {self._attributes}"
        )


def _key(secret: str) -> bytes:
    derived = HKDF(SHA256(), length=32, salt=None, info=b"kitpost staff session").derive(secret.encode())
    return base64.urlsafe_b64encode(derived)
