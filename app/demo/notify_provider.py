"""A stand-in for GOV.UK Notify on loopback that misbehaves as the one for Twilio does, and keeps the same ledger.

It speaks the REST API as documented (checked against that description in tests/contract): send a text, ask for
one by id, list by reference or older than another, preview a template, and a delivery receipt with a bearer token.

    python -m app.demo.notify_provider --port 4011 --ledger texts.jsonl --secret SECRET --faults 0.2
"""

import argparse
import asyncio
import base64
import hashlib
import hmac
import json
import re
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.demo.sms_provider import (
    DROP_AFTER,
    DROP_BEFORE,
    ERROR_AFTER,
    ERROR_BEFORE,
    FIRST_LATER_CODE,
    LONGEST_BODY,
    NO_ANSWER,
    NO_SID,
    TOO_MANY,
    DroppedConnection,
    Message,
    SmsProvider,
    _machine_time,
    listen,
)

PAGE: Final = 250
"""What Notify lists at once."""
JWT_SECONDS: Final = 30
UK_MOBILE: Final = re.compile(r"\+?447\d{9}")

WORD_OF: Final[dict[str, str]] = {"accepted": "created", "sent": "sending", "delivered": "delivered"}
"""Notify's words for the ledger's."""
TEMPORARY: Final = 30003


@dataclass
class NotifyProvider(SmsProvider):
    """The stand-in. `auth_token` is the secret half of the API key; `receipts` is where delivery receipts go."""

    service_id: str = "00000000-0000-4000-8000-000000000001"
    template_id: str = "00000000-0000-4000-8000-000000000002"
    prefix: str = ""
    """What the service's settings put before every text, as Notify does unless told not to."""
    receipts: str = ""
    receipt_token: str = ""

    @property
    def api_key(self) -> str:
        """The key as Notify hands it out: a name, the service and the secret."""
        return f"stand_in-{self.service_id}-{self.auth_token}"

    @property
    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            lifespan=self._living,
            routes=[
                Route("/v2/notifications/sms", self._send, methods=["POST"]),
                Route("/v2/notifications", self._listed, methods=["GET"]),
                Route("/v2/notifications/{sid}", self._one, methods=["GET"]),
                Route("/v2/template/{template}/preview", self._preview, methods=["POST"]),
                Route("/_ledger", self._show_ledger, methods=["GET"]),
            ],
        )

    # ── The API ──────────────────────────────────────────────────────────────────────────────

    async def _send(self, request: Request) -> Response:
        wrong = self._stranger(request)
        if wrong:
            return wrong
        plain = await request.json()
        wrong = self._misfit(plain)
        if wrong:
            return wrong
        to, reference, body = plain["phone_number"], plain.get("reference") or "", plain["personalisation"]["message"]
        fault = self._request_fault(to, body)
        if fault in _BEFORE:
            return _BEFORE[fault]()
        message = self._accept(
            self.service_id, {"To": to, "Body": body, "MessagingServiceSid": reference, "StatusCallback": self.receipts}
        )
        if fault in _AFTER:
            return _AFTER[fault]()
        if fault == NO_ANSWER:
            await asyncio.sleep(self.hold_seconds)
        return JSONResponse(
            {
                "id": message.sid,
                "reference": reference or None,
                "content": {"body": self.prefix + body, "from_number": "KITPOST"},
                "uri": f"{request.base_url}v2/notifications/{message.sid}",
                "template": self._template(request),
                "scheduled_for": None,
            },
            201,
        )

    def _misfit(self, plain: Mapping[str, Any]) -> Response | None:
        """The refusal that a text earns by its members or its number alone."""
        to, body = str(plain.get("phone_number", "")), (plain.get("personalisation") or {}).get("message")
        if plain.get("template_id") != self.template_id:
            return _refusal(400, "BadRequestError", "Template not found")
        if not body:
            return _refusal(400, "BadRequestError", "Missing personalisation: message")
        if len(body) > LONGEST_BODY:
            return _refusal(400, "BadRequestError", "Your message is too long: content has too many characters")
        if not UK_MOBILE.fullmatch(to):
            return _refusal(400, "ValidationError", "phone_number Not a UK mobile number")
        fault = self._number_fault(to)
        if isinstance(fault, int) and not FIRST_LATER_CODE <= fault < FIRST_LATER_CODE + 10:
            return _refusal(400, "BadRequestError", "Cannot send to a landline: the recipient phone number is one")
        return None

    async def _one(self, request: Request) -> Response:
        wrong = self._stranger(request)
        if wrong:
            return wrong
        message = self.messages.get(request.path_params["sid"])
        if message is None:
            return _refusal(404, "NoResultFound", "No result found")
        return JSONResponse(self._shown(request, message))

    async def _listed(self, request: Request) -> Response:
        wrong = self._stranger(request)
        if wrong:
            return wrong
        reference, older_than = request.query_params.get("reference"), request.query_params.get("older_than")
        now, held = _machine_time(), list(self.messages.values())
        if older_than:
            held = held[: next((at for at, each in enumerate(held) if each.sid == older_than), 0)]
        found = [
            self._shown(request, each)
            for each in reversed(held)
            if (reference is None or each.messaging_service_sid == reference) and now >= self._listed_at(each)
        ][:PAGE]
        links = {"current": str(request.url)}
        if found:
            links["next"] = f"{request.base_url}v2/notifications?older_than={found[-1]['id']}"
        return JSONResponse({"notifications": found, "links": links})

    async def _preview(self, request: Request) -> Response:
        wrong = self._stranger(request)
        if wrong:
            return wrong
        if request.path_params["template"] != self.template_id:
            return _refusal(404, "NoResultFound", "No result found")
        message = (await request.json())["personalisation"].get("message")
        return JSONResponse(
            {"id": self.template_id, "type": "sms", "version": 1, "subject": None, "body": f"{self.prefix}{message}"}
        )

    def _shown(self, request: Request, message: Message) -> dict[str, Any]:
        word = self._word(message.status, message.error_code)
        ended = word not in ("created", "sending")
        return {
            "id": message.sid,
            "reference": message.messaging_service_sid or None,
            "email_address": None,
            "phone_number": message.to,
            **{f"line_{number}": None for number in range(1, 7)},
            "postcode": None,
            "type": "sms",
            "status": word,
            "template": self._template(request),
            "body": message.body,
            "subject": None,
            "created_at": _written(message),
            "sent_at": _written(message) if word != "created" else None,
            "completed_at": _written(message) if ended else None,
            "scheduled_for": None,
        }

    def _template(self, request: Request) -> dict[str, Any]:
        uri = f"{request.base_url}services/{self.service_id}/templates/{self.template_id}"
        return {"id": self.template_id, "version": 1, "uri": uri}

    @staticmethod
    def _word(status: str, error_code: int | None) -> str:
        if error_code:
            return "temporary-failure" if error_code == TEMPORARY else "permanent-failure"
        return WORD_OF[status]

    # ── What it keeps and tells ──────────────────────────────────────────────────────────────

    def _new_id(self) -> str:
        return str(uuid.uuid4())

    async def _tell(self, message: Message, status: str, error_code: int | None) -> None:
        """One delivery receipt, for an end only, as Notify sends them."""
        if status == "sent" or not self.receipts:
            return
        told = {
            "id": message.sid,
            "reference": message.messaging_service_sid,
            "to": message.to,
            "status": self._word(status, error_code),
            "created_at": _written(message),
            "completed_at": _written(message),
            "sent_at": _written(message),
            "notification_type": "sms",
            "template_id": self.template_id,
            "template_version": 1,
        }
        try:
            await self._http.post(
                self.receipts, json=told, headers={"Authorization": f"Bearer {self.receipt_token}"}, timeout=5.0
            )
        except httpx.HTTPError:
            return

    def _stranger(self, request: Request) -> Response | None:
        """The refusal of whoever sends no token of this service, signed with its secret within half a minute."""
        try:
            head, claims, signed = request.headers["authorization"].removeprefix("Bearer ").split(".")
            made = hmac.new(self.auth_token.encode(), f"{head}.{claims}".encode(), hashlib.sha256).digest()
            said = json.loads(_decoded(claims))
            fresh = abs(time.time() - said["iat"]) <= JWT_SECONDS
            if hmac.compare_digest(made, _decoded(signed)) and said["iss"] == self.service_id and fresh:
                return None
        except (KeyError, ValueError):
            pass
        return _refusal(403, "AuthError", "Invalid token: signature, api token not found")


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _written(message: Message) -> str:
    return message.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _refusal(status: int, error: str, message: str) -> JSONResponse:
    return JSONResponse({"status_code": status, "errors": [{"error": error, "message": message}]}, status)


_BEFORE: Final[Mapping[str | None, Callable[[], Response]]] = {
    TOO_MANY: lambda: _refusal(429, "RateLimitError", "Exceeded rate limit for key type LIVE of 3000 requests"),
    ERROR_BEFORE: lambda: _refusal(500, "Exception", "Internal server error"),
    DROP_BEFORE: DroppedConnection,
}
_AFTER: Final[Mapping[str | None, Callable[[], Response]]] = {
    DROP_AFTER: DroppedConnection,
    ERROR_AFTER: lambda: Response("<html>Bad Gateway</html>", 502),
    NO_SID: lambda: JSONResponse({}, 201),
}


def main() -> None:
    """Serves the stand-in on loopback until it is stopped."""
    parser = argparse.ArgumentParser(prog="python -m app.demo.notify_provider", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ledger", type=Path, required=True, help="file of what was accepted; read again at start")
    parser.add_argument("--secret", required=True, help="the secret half of the API key: its last 36 characters")
    parser.add_argument("--receipts", default="", help="address that delivery receipts go to")
    parser.add_argument("--receipt-token", default="", help="bearer token of the receipts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=float, default=0.0, help="share of what goes wrong, 0 to 1")
    given = parser.parse_args()
    provider = NotifyProvider(
        ledger=given.ledger,
        auth_token=given.secret,
        seed=given.seed,
        faults=given.faults,
        receipts=given.receipts,
        receipt_token=given.receipt_token,
    )
    try:
        listening = listen(given.port)
    except OSError:
        sys.exit(f"The Notify stand-in can't listen on port {given.port}: something else does. Give another --port.")
    config = uvicorn.Config(provider.app, log_level="critical", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
