"""Where providers of texts, and couriers, tell us how far a text or parcel got, and what somebody texted back.

Checked, kept, answered; read later.

Twilio's signature covers the public address with its raw query and every field, so the address is built
from the configured one and never from what a proxy or the caller says of itself (sms-and-post.md A1).
GOV.UK Notify sends JSON and a bearer token that we gave it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.database import Begin
from app.wiring import Clock
from integrations.ports import ParcelNews, Reply, StatusEvent, TextSender
from models.actions.courier_news import keep_news
from models.actions.inbox import keep_text_reply, keep_text_status
from models.rules.errors import Code, ServiceError
from models.rules.secrets import BlindIndex, Cipher


@dataclass(frozen=True, slots=True)
class Callbacks:
    """All that taking callbacks needs."""

    begin: Begin
    clock: Clock
    senders: Mapping[str, TextSender]
    """Every provider that may call back, by name."""
    cipher: Cipher
    indexes: BlindIndex
    public_base_url: str
    courier: ParcelNews | None = None


def callbacks_router(desk: Callbacks) -> APIRouter:
    """The providers' ways in. Answers 204 once the callback is committed, whether it is new or known."""
    router = APIRouter(prefix="/callbacks", include_in_schema=False)

    if twilio := desk.senders.get("twilio"):

        @router.post("/twilio/status", status_code=204)
        async def twilio_status(request: Request) -> Response:
            form = await _fields(request)
            signature = request.headers.get("x-twilio-signature", "")
            event = twilio.parse_status(_public_url(request, desk.public_base_url), signature, form)
            await run_in_threadpool(keep, event, form)
            return Response(status_code=204)

        @router.post("/twilio/message")
        async def twilio_message(request: Request) -> Response:
            form = await _fields(request)
            signature = request.headers.get("x-twilio-signature", "")
            reply = twilio.parse_reply(_public_url(request, desk.public_base_url), signature, form)
            await run_in_threadpool(keep_reply, reply, form)
            return Response("<Response/>", media_type="text/xml")  # answers the person with nothing

    if notify := desk.senders.get("govuk_notify"):

        @router.post("/notify/status", status_code=204)
        async def notify_status(request: Request) -> Response:
            form = _members(await request.body())
            bearer = request.headers.get("authorization", "")
            event = notify.parse_status(_public_url(request, desk.public_base_url), bearer, form)
            await run_in_threadpool(keep, event, form)
            return Response(status_code=204)

        @router.post("/notify/message", status_code=204)
        async def notify_message(request: Request) -> Response:
            form = _members(await request.body())
            bearer = request.headers.get("authorization", "")
            reply = notify.parse_reply(_public_url(request, desk.public_base_url), bearer, form)
            await run_in_threadpool(keep_reply, reply, form)
            return Response(status_code=204)

    if courier := desk.courier:

        @router.post("/courier", status_code=204)
        async def courier_event(request: Request) -> Response:
            body = await request.body()
            courier.check(request.headers.get("x-hmac-signature", ""), body)
            await run_in_threadpool(keep_courier, courier.event_id(body), body)
            return Response(status_code=204)

    def keep_courier(event_id: str, body: bytes) -> None:
        with desk.begin() as session:
            keep_news(session, event_id=event_id, body=body, now=desk.clock(), cipher=desk.cipher, indexes=desk.indexes)

    def keep_reply(reply: Reply, form: dict[str, str]) -> None:
        with desk.begin() as session:
            keep_text_reply(
                session,
                provider_id=reply.provider_id,
                from_e164=reply.from_e164,
                body=reply.body,
                provider_word=reply.provider_word,
                form=form,
                now=desk.clock(),
                cipher=desk.cipher,
                indexes=desk.indexes,
            )

    def keep(event: StatusEvent, form: dict[str, str]) -> None:
        with desk.begin() as session:
            keep_text_status(
                session,
                attempt_ref=event.attempt_ref,
                provider_id=event.provider_id,
                status=event.status,
                status_raw=event.status_raw,
                error_code=event.error_code,
                form=form,
                now=desk.clock(),
                cipher=desk.cipher,
                indexes=desk.indexes,
            )

    return router


async def _fields(request: Request) -> dict[str, str]:
    async with request.form(max_files=0) as fields:
        return {name: value for name, value in fields.items() if isinstance(value, str)}


def _public_url(request: Request, public_base_url: str) -> str:
    path: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    query: bytes = request.scope["query_string"]
    return public_base_url + path.decode("latin-1") + (f"?{query.decode('latin-1')}" if query else "")


def _members(body: bytes) -> dict[str, str]:
    """The members of a JSON object as text, without those that are null. Raises ServiceError(BAD_INPUT)."""
    try:
        plain = json.loads(body)
    except ValueError:
        plain = None
    if not isinstance(plain, dict):
        raise ServiceError(Code.BAD_INPUT, "The receipt is not a JSON object.")
    return {name: str(value) for name, value in plain.items() if value is not None}
