"""What every answer of the web application goes through: headers, size limit and access log.

The log names the route, never the path or the query: no code, reference or provider's parameter is in it.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY_BYTES: Final = 256 * 1024
"""Nobody's form, callback or single order is larger."""

_SCRIPTS: Final = "script-src 'self'; connect-src 'self'; "

log: Final = logging.getLogger("kitpost.access")


def scripted(answer: Response, *, sign_in_origin: str) -> Response:
    """Lets one answer run the scripts that we serve, and lets them speak to us: nothing else, from nowhere else."""
    answer.headers["Content-Security-Policy"] = _policy(sign_in_origin, scripts=True)
    return answer


def _policy(sign_in_origin: str, *, scripts: bool) -> str:
    return (
        f"default-src 'none'; style-src 'self'; img-src 'self'; {_SCRIPTS if scripts else ''}"
        f"base-uri 'none'; frame-ancestors 'none'; form-action 'self' {sign_in_origin}"
    )


def security_headers(*, over_https: bool, sign_in_origin: str) -> Mapping[str, str]:
    """Headers of every answer. Nothing runs, nothing is framed, nothing is kept, nothing leads elsewhere.

    Signing out is a form whose answer leads to the sign-in provider, so that origin may be a form's target.
    """
    headers = {
        "Content-Security-Policy": _policy(sign_in_origin, scripts=False),
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        "X-Robots-Tag": "noindex",
    }
    return headers | ({"Strict-Transport-Security": "max-age=31536000"} if over_https else {})


class Shell:
    """The outermost layer: sets what headers the answer does not set itself, and writes one log line.

    An error that nobody caught ends here, so that no server prints its words.
    """

    def __init__(
        self, app: ASGIApp, *, headers: Mapping[str, str], broken: Callable[[Request, Exception], Response]
    ) -> None:
        self._app = app
        self._headers = headers
        self._broken = broken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def dressed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            if "\0" in scope["path"]:
                await PlainTextResponse("There is no such page.\n", 404)(scope, receive, dressed)
            elif _is_too_large(scope):
                sentence = (
                    "This is larger than anything we take, or does not say how long it is: send a Content-Length.\n"
                )
                await PlainTextResponse(sentence, 413)(scope, receive, dressed)
            else:
                await self._app(scope, receive, dressed)
        except Exception as error:  # noqa: BLE001 - whatever it is, its text must not reach a log
            answer = self._broken(Request(scope), error)
            if not status:
                await answer(scope, receive, dressed)
        finally:
            route = getattr(scope.get("route"), "path", "no route")
            log.info("%s %s %d %.0f ms", scope["method"], route, status, (time.perf_counter() - began) * 1000)


_COUNTS_ITSELF: Final = ("/api/labs/", "/api/clinics/", "/api/orders")
"""Routes that count a body as they read it, behind their key, and answer in words of their own."""


def _is_too_large(scope: Scope) -> bool:
    """By what the request says of itself; a body of unsaid length is refused unless a route counts as it reads."""
    if scope["path"].startswith(_COUNTS_ITSELF[:2]):
        return False  # takes more, and answers in FHIR
    headers = Headers(scope=scope)
    if "transfer-encoding" in headers:
        return not scope["path"].startswith(_COUNTS_ITSELF)
    length = headers.get("content-length", "0")
    return not length.isdecimal() or int(length) > LARGEST_BODY_BYTES
