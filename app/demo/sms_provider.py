"""A stand-in for Twilio on loopback that misbehaves on purpose, from a seed.

It speaks the Messages API of 2010-04-01 (checked against Twilio's own OpenAPI in tests/contract) and
writes down, before it answers, every text it accepted. Its ledger is the judge of 'no text twice, none
lost': it shares no code with the product, its signing of callbacks included.

    python -m app.demo.sms_provider --port 4010 --ledger texts.jsonl --seed 7 --faults 0.2 --auth-token secret

What goes wrong, and how often, with `--faults 0.2`: one create in five (answers that never come, dropped
connections, 429, 500, before or after accepting); one number in fifty is a landline, has sent STOP or
can't be reached; one message in five has its callbacks lost, late, doubled or out of order, and one in
five shows up in lists only after a while.
"""

import argparse
import asyncio
import base64
import hashlib
import hmac
import json
import random
import re
import secrets
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Final

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

NO_ANSWER: Final = "no_answer"
DROP_BEFORE: Final = "drop_before"
DROP_AFTER: Final = "drop_after"
TOO_MANY: Final = "too_many"
ERROR_BEFORE: Final = "error_before"
ERROR_AFTER: Final = "error_after"
NO_SID: Final = "no_sid"
REQUEST_FAULTS: Final = (NO_ANSWER, DROP_BEFORE, DROP_AFTER, TOO_MANY, ERROR_BEFORE, ERROR_AFTER, NO_SID)
"""What may happen to one create. NO_ANSWER, the two AFTERs and NO_SID have accepted the text."""

NUMBER_FAULTS: Final = (21614, 21610, 30006, 30003, 30005)
"""What may be wrong with a number: landline, STOP; and found out later: landline, off, unknown."""

LINES: Final = 16
"""Callbacks under way at once: more would only wait in line, and httpcore goes through its whole line for each."""

REFUSED_AS: Final[dict[int, int]] = {20003: 401, 20404: 404, 20429: 429}
"""HTTP status of a refused create, where it is not 400."""

KEYWORDS: Final = {"STOP": "STOP", "UNSUBSCRIBE": "STOP", "START": "START", "UNSTOP": "START", "HELP": "HELP"}
REPLY_PATH: Final = "/callbacks/twilio/message"
OUR_NUMBER: Final = "+447700900990"

FINAL: Final = frozenset({"delivered", "undelivered", "failed", "canceled"})
E164: Final = re.compile(r"\+[1-9]\d{6,14}")
MESSAGING_SERVICE: Final = re.compile(r"MG[0-9a-fA-F]{32}")
FIRST_LATER_CODE: Final = 30000
LONGEST_BODY: Final = 1600
LONGEST_VALIDITY_SECONDS: Final = 36_000
ONE_IN_TEN: Final = 0.1


@dataclass
class Message:
    """One accepted text."""

    sid: str
    account_sid: str
    to: str
    body: str
    messaging_service_sid: str
    callback: str
    created_at: datetime
    status: str = "accepted"
    error_code: int | None = None
    redacted: bool = False

    def shown(self) -> dict[str, Any]:
        """The message as Twilio's API shows it."""
        path = f"/2010-04-01/Accounts/{self.account_sid}/Messages/{self.sid}"
        gone = self.status in FINAL or self.status == "sent"
        return {
            "account_sid": self.account_sid,
            "api_version": "2010-04-01",
            "body": "" if self.redacted else self.body,
            "date_created": format_datetime(self.created_at),
            "date_sent": format_datetime(self.created_at) if gone else None,
            "date_updated": format_datetime(self.created_at),
            "direction": "outbound-api",
            "error_code": self.error_code,
            "error_message": "It failed." if self.error_code else None,
            "from": None,
            "messaging_service_sid": self.messaging_service_sid,
            "num_media": "0",
            "num_segments": "0",
            "price": None,
            "price_unit": "USD",
            "sid": self.sid,
            "status": self.status,
            "subresource_uris": {"media": f"{path}/Media.json"},
            "to": self.to,
            "uri": f"{path}.json",
        }


@dataclass
class SmsProvider:
    """The stand-in. `faults` is a share from 0 to 1; `forced` gives single numbers a fault for sure."""

    ledger: Path
    auth_token: str
    seed: int = 0
    faults: float = 0.0
    forced: Mapping[str, str | int] = field(default_factory=dict)
    hold_seconds: float = 15.0
    """How long NO_ANSWER keeps its caller waiting: longer than the caller's patience."""
    step_seconds: float = 0.2
    """From one status to the next."""
    late_seconds: float = 5.0
    listing_lag_seconds: float = 3.0
    messages: dict[str, Message] = field(default_factory=dict, init=False)
    asked: Counter[tuple[str, str]] = field(default_factory=Counter, init=False)
    going: set[asyncio.Task[None]] = field(default_factory=set, init=False)
    _lines: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LINES), init=False)

    def __post_init__(self) -> None:
        if self.ledger.exists():
            for line in self.ledger.read_text(encoding="utf-8").splitlines():
                self._remember(json.loads(line))

    @property
    def app(self) -> Starlette:
        """The ASGI application."""
        account = "/2010-04-01/Accounts/{account}"
        return Starlette(
            lifespan=self._living,
            routes=[
                Route(f"{account}/Messages.json", self._create, methods=["POST"]),
                Route(f"{account}/Messages.json", self._list, methods=["GET"]),
                Route(f"{account}/Messages/{{sid}}.json", self._fetch, methods=["GET"]),
                Route(f"{account}/Messages/{{sid}}.json", self._update, methods=["POST"]),
                Route(f"{account}/Messages/{{sid}}.json", self._delete, methods=["DELETE"]),
                Route("/_ledger", self._show_ledger, methods=["GET"]),
                Route("/_reply", self._text_back, methods=["POST"]),
            ],
        )

    # ── The API ──────────────────────────────────────────────────────────────────────────────

    async def _create(self, request: Request) -> Response:
        if not self._may(request):
            return _refusal(20003, "Authenticate")
        form = {key: str(value) for key, value in (await request.form()).items()}
        wrong = _misfit(form)
        if wrong:
            return wrong
        to, body = form["To"], form["Body"]
        fault = self._number_fault(to)
        if isinstance(fault, int) and not FIRST_LATER_CODE <= fault < FIRST_LATER_CODE + 10:
            return _refusal(fault, f"The 'To' number {to} can't be used.")
        fault = self._request_fault(to, body)
        if fault == TOO_MANY:
            return _refusal(20429, "Too Many Requests", {"Retry-After": "1"})
        if fault == ERROR_BEFORE:
            return JSONResponse({"message": "Internal Server Error"}, 500)
        if fault == DROP_BEFORE:
            return DroppedConnection()
        message = self._accept(request.path_params["account"], form)
        if fault == DROP_AFTER:
            return DroppedConnection()
        if fault == ERROR_AFTER:
            return Response("<html>Bad Gateway</html>", 502)
        if fault == NO_SID:
            return JSONResponse({}, 201)
        if fault == NO_ANSWER:
            await asyncio.sleep(self.hold_seconds)
        return JSONResponse({**message.shown(), "status": "accepted"}, 201)

    async def _list(self, request: Request) -> Response:
        if not self._may(request):
            return _refusal(20003, "Authenticate")
        to, size = request.query_params.get("To"), int(request.query_params.get("PageSize", "50"))
        now = _machine_time()
        found = [
            message.shown()
            for message in self.messages.values()
            if (to is None or message.to == to) and now >= self._listed_at(message)
        ]
        uri = f"{request.url.path}?PageSize={size}&Page=0"
        page = found[::-1][:size]
        return JSONResponse(
            {
                "messages": page,
                "page": 0,
                "page_size": size,
                "start": 0,
                "end": max(len(page) - 1, 0),
                "uri": uri,
                "first_page_uri": uri,
                "next_page_uri": None,
                "previous_page_uri": None,
            }
        )

    async def _fetch(self, request: Request) -> Response:
        message = self._named(request)
        return message if isinstance(message, Response) else JSONResponse(message.shown())

    async def _update(self, request: Request) -> Response:
        message = self._named(request)
        if isinstance(message, Response):
            return message
        form = await request.form()
        if form.get("Body") == "":
            self._write({"kind": "redacted", "sid": message.sid})
        if form.get("Status") == "canceled" and message.status not in FINAL:
            self._write({"kind": "status", "sid": message.sid, "status": "canceled", "error_code": None})
        return JSONResponse(message.shown())

    async def _delete(self, request: Request) -> Response:
        message = self._named(request)
        if isinstance(message, Response):
            return message
        self._write({"kind": "redacted", "sid": message.sid})
        return Response(status_code=204)

    async def _show_ledger(self, _: Request) -> Response:
        """For the judge: every acceptance, and how many times each (number, body) was accepted."""
        times = Counter((message.to, _sha256(message.body)) for message in self.messages.values())
        return JSONResponse(
            {
                "messages": [
                    {
                        "sid": message.sid,
                        "to": message.to,
                        "body": message.body,
                        "body_sha256": _sha256(message.body),
                        "callback": message.callback,
                        "created_at": message.created_at.isoformat(),
                        "status": message.status,
                        "error_code": message.error_code,
                        "redacted": message.redacted,
                    }
                    for message in self.messages.values()
                ],
                "texts": [{"to": to, "body_sha256": body, "accepted": n} for (to, body), n in times.items()],
            }
        )

    async def _text_back(self, request: Request) -> Response:
        """Somebody who was texted texts back: {"number", "body"}.

        A STOP is told, and not enforced as Twilio would: whether anything still comes is for the judge to see.
        """
        asked = await request.json()
        last = [message for message in self.messages.values() if message.to == asked["number"]][-1]
        keyword = KEYWORDS.get(asked["body"].strip().upper(), "")
        fields = {
            "AccountSid": last.account_sid,
            "ApiVersion": "2010-04-01",
            "Body": asked["body"],
            "From": last.to,
            "MessageSid": self._new_id(),
            "MessagingServiceSid": last.messaging_service_sid,
            "NumMedia": "0",
            "NumSegments": "1",
            "To": OUR_NUMBER,
        } | ({"OptOutType": keyword} if keyword else {})
        url = str(httpx.URL(last.callback).copy_with(path=REPLY_PATH, query=None))
        headers = {"X-Twilio-Signature": signature(self.auth_token, url, fields)}
        answer = await self._http.post(url, data=fields, headers=headers)
        return JSONResponse({"answered": answer.status_code, "sid": fields["MessageSid"]})

    # ── What it keeps ────────────────────────────────────────────────────────────────────────

    def _accept(self, account_sid: str, form: Mapping[str, str]) -> Message:
        sid = self._new_id()
        self._write(
            {
                "kind": "accepted",
                "sid": sid,
                "account_sid": account_sid,
                "to": form["To"],
                "body": form["Body"],
                "messaging_service_sid": form["MessagingServiceSid"],
                "callback": form.get("StatusCallback", ""),
                # Twilio's dates have no fractions.
                "at": _machine_time().replace(microsecond=0).isoformat(),
            }
        )
        message = self.messages[sid]
        self._set_going(message)
        return message

    def _new_id(self) -> str:
        return "SM" + secrets.token_hex(16)

    def _write(self, event: Mapping[str, Any]) -> None:
        with self.ledger.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
        self._remember(event)

    def _remember(self, event: Mapping[str, Any]) -> None:
        match event["kind"]:
            case "accepted":
                self.messages[event["sid"]] = Message(
                    sid=event["sid"],
                    account_sid=event["account_sid"],
                    to=event["to"],
                    body=event["body"],
                    messaging_service_sid=event["messaging_service_sid"],
                    callback=event["callback"],
                    created_at=datetime.fromisoformat(event["at"]),
                )
            case "status":
                self.messages[event["sid"]].status = event["status"]
                self.messages[event["sid"]].error_code = event["error_code"]
            case "redacted":
                self.messages[event["sid"]].redacted = True

    # ── What goes wrong ──────────────────────────────────────────────────────────────────────

    def _dice(self, *about: object) -> random.Random:
        """The same throw for the same thing, however the calls interleave."""
        return random.Random(repr((self.seed, *about)))

    def _number_fault(self, to: str) -> str | int | None:
        if to in self.forced:
            return self.forced[to]
        dice = self._dice("number", to)
        return dice.choice(NUMBER_FAULTS) if dice.random() < self.faults * ONE_IN_TEN else None

    def _request_fault(self, to: str, body: str) -> str | None:
        if to in self.forced:
            forced = self.forced[to]
            return forced if isinstance(forced, str) else None
        dice = self._dice("create", to, body, self.asked[to, body])
        self.asked[to, body] += 1
        return dice.choice(REQUEST_FAULTS) if dice.random() < self.faults else None

    def _listed_at(self, message: Message) -> datetime:
        lags = self._dice("list", message.sid).random() < self.faults
        return message.created_at + timedelta(seconds=self.listing_lag_seconds if lags else 0)

    # ── What happens to a text once accepted ─────────────────────────────────────────────────

    @asynccontextmanager
    async def _living(self, _: Starlette) -> AsyncIterator[None]:
        async with httpx.AsyncClient(timeout=15.0) as self._http:
            for message in self.messages.values():
                if message.status not in FINAL:
                    self._set_going(message)
            yield
            for task in list(self.going):
                task.cancel()
            await asyncio.gather(*self.going, return_exceptions=True)

    def _set_going(self, message: Message) -> None:
        task = asyncio.create_task(self._carry(message))
        self.going.add(task)
        task.add_done_callback(self.going.discard)

    async def _carry(self, message: Message) -> None:
        """Takes a text through its statuses and tells of them, more or less well."""
        fault = self._number_fault(message.to)
        error = fault if isinstance(fault, int) else None
        dice = self._dice("callback", message.sid)
        trouble = dice.choice(["lost", "late", "doubled", "shuffled"]) if dice.random() < self.faults else ""
        told: list[tuple[str, int | None]] = []
        for status, code in (("sent", None), ("undelivered" if error else "delivered", error)):
            await asyncio.sleep(self.step_seconds)
            if message.status in FINAL:
                return
            self._write({"kind": "status", "sid": message.sid, "status": status, "error_code": code})
            told.append((status, code))
            if not trouble:
                await self._tell(message, status, code)
        if trouble in ("", "lost"):
            return
        if trouble == "late":
            await asyncio.sleep(self.late_seconds)
        if trouble == "shuffled":
            told.reverse()
        for status, code in told * (2 if trouble == "doubled" else 1):
            await self._tell(message, status, code)

    async def _tell(self, message: Message, status: str, error_code: int | None) -> None:
        """One signed callback. Like Twilio's: one more try when no connection came about, none for an error."""
        if not message.callback:
            return
        fields = {
            "AccountSid": message.account_sid,
            "ApiVersion": "2010-04-01",
            "From": "",
            "MessageSid": message.sid,
            "MessageStatus": status,
            "MessagingServiceSid": message.messaging_service_sid,
            "SmsSid": message.sid,
            "SmsStatus": status,
            "To": message.to,
        }
        if error_code:
            fields |= {"ErrorCode": str(error_code), "ErrorMessage": ""}
        headers = {"X-Twilio-Signature": signature(self.auth_token, message.callback, fields)}
        for _ in range(2):
            try:
                async with self._lines:
                    await self._http.post(message.callback, data=fields, headers=headers)
            except httpx.ConnectError:
                continue
            except httpx.HTTPError:
                return
            return

    # ── Who may ask ──────────────────────────────────────────────────────────────────────────

    def _may(self, request: Request) -> bool:
        expected = base64.b64encode(f"{request.path_params['account']}:{self.auth_token}".encode()).decode()
        return hmac.compare_digest(request.headers.get("authorization", ""), f"Basic {expected}")

    def _named(self, request: Request) -> Message | Response:
        if not self._may(request):
            return _refusal(20003, "Authenticate")
        message = self.messages.get(request.path_params["sid"])
        return message or _refusal(20404, f"The requested resource {request.url.path} was not found")


class DroppedConnection(Response):
    """Starts an answer and never ends it: the server then closes the connection in the caller's face."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Sends headers that promise more than ever comes."""
        await send({"type": "http.response.start", "status": 201, "headers": [(b"content-length", b"500")]})


def signature(auth_token: str, url: str, fields: Mapping[str, str]) -> str:
    """Twilio's signature of a callback: HMAC-SHA1 over the URL and each field in order of its name, in base64."""
    signed = url + "".join(name + fields[name] for name in sorted(fields))
    return base64.b64encode(hmac.new(auth_token.encode(), signed.encode(), hashlib.sha1).digest()).decode()


def _misfit(form: Mapping[str, str]) -> Response | None:
    """The refusal that a create earns by its fields alone."""
    if not form.get("Body"):
        return _refusal(21602, "Message body is required.")
    if len(form["Body"]) > LONGEST_BODY:
        return _refusal(21617, "The concatenated message body exceeds the 1600 character limit")
    if not MESSAGING_SERVICE.fullmatch(form.get("MessagingServiceSid", "")):
        return _refusal(21705, "The Messaging Service Sid is invalid")
    validity = form.get("ValidityPeriod", str(LONGEST_VALIDITY_SECONDS))
    if not validity.isdecimal() or not 1 <= int(validity) <= LONGEST_VALIDITY_SECONDS:
        return _refusal(20001, "ValidityPeriod must be between 1 and 36000")
    if not E164.fullmatch(form.get("To", "")):
        return _refusal(21211, f"The 'To' number {form.get('To')} is not a valid phone number.")
    return None


def _refusal(code: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    status = REFUSED_AS.get(code, 400)
    more_info = f"https://www.twilio.com/docs/errors/{code}"
    return JSONResponse({"code": code, "message": message, "more_info": more_info, "status": status}, status, headers)


def _machine_time() -> datetime:
    """The provider's own clock: the demo's shifted service time is none of its business."""
    return datetime.now(UTC)  # noqa: TID251 - a stand-in for another company's server


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def listen(port: int) -> socket.socket:
    """A listening socket on loopback; port 0 takes a free one. Raises OSError when the port is taken."""
    listening = socket.create_server(("127.0.0.1", port))
    # asyncio does this only for sockets that it made itself; without it each answer waits 40 ms for an ACK.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def main() -> None:
    """Serves the stand-in on loopback until it is stopped."""
    parser = argparse.ArgumentParser(prog="python -m app.demo.sms_provider", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ledger", type=Path, required=True, help="file of what was accepted; read again at start")
    parser.add_argument(
        "--auth-token", required=True, help="the token that requests carry and callbacks are signed with"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=float, default=0.0, help="share of what goes wrong, 0 to 1")
    parser.add_argument("--hold", type=float, default=15.0, help="seconds that a missing answer keeps its caller")
    parser.add_argument("--step", type=float, default=0.2, help="seconds from one status to the next")
    parser.add_argument("--late", type=float, default=5.0, help="seconds by which late callbacks are late")
    parser.add_argument("--listing-lag", type=float, default=3.0, help="seconds until a lagging text is listed")
    given = parser.parse_args()
    provider = SmsProvider(
        ledger=given.ledger,
        auth_token=given.auth_token,
        seed=given.seed,
        faults=given.faults,
        hold_seconds=given.hold,
        step_seconds=given.step,
        late_seconds=given.late,
        listing_lag_seconds=given.listing_lag,
    )
    try:
        listening = listen(given.port)
    except OSError:
        sys.exit(f"The SMS stand-in can't listen on port {given.port}: something else does. Give it another --port.")
    # Its log would be full of the connections that it drops on purpose.
    config = uvicorn.Config(provider.app, log_level="critical", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
