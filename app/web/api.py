"""The ordering channels' way in: submit an order and be answered at once, ask for it again, cancel it.

Every channel has a key of its own (`Authorization: Bearer …`) and sees its own orders only. Writing is
idempotent by `channel_ref`. Errors are problem details (RFC 9457): for each field at fault its name
and one sentence, never what stood there.
"""

import hashlib
import hmac
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field

from app.database import Begin
from app.web.told import Sentences, load_sentences
from app.wiring import TEMPLATES, Clock, Wiring
from integrations.orders import EXAMPLE, OrderIn, OrderUnreadable, parse_order
from models.actions.order import Intake, Taken, cancel_order, find_order, submit_order, take_order
from models.rules.errors import Code, ServiceError
from models.rules.order import OrderOutcome, Told

LONGEST_BODY_BYTES: Final = 32_768
"""An order is about 1,500 bytes."""

PROBLEM: Final = "application/problem+json"

STATUS: Final[Mapping[Code, tuple[int, str]]] = {
    Code.NOT_ALLOWED: (401, "Unknown channel"),
    Code.NOT_FOUND: (404, "Not found"),
    Code.CONFLICT: (409, "Conflict"),
    Code.BAD_INPUT: (422, "Unreadable"),
    Code.NOT_NOW: (429, "Not now"),
}


class SentenceOut(BaseModel):
    """One thing to tell the person: the key for your own wording, and ours in the person's language."""

    key: Told
    sentence: str


class PointOut(BaseModel):
    """One counter where a kit may be fetched. Its `id` is an order's `collect_from`."""

    id: str
    name: str
    lines: list[str]
    postcode: str
    hours: str


class OrderOut(BaseModel):
    """What became of an order. The same as long as nothing new was decided, however often it is asked."""

    order_ref: str = Field(description="Our reference: opaque, for support.")
    channel_ref: str
    outcome: OrderOutcome = Field(description="accepted, refused, or held until a person has looked.")
    reasons: list[str] = Field(description="Why, in stable words; empty for a plain acceptance.")
    told: list[SentenceOut] = Field(description="Show these to the person, in this order, at once.")
    decided_at: datetime
    cancelled: bool


class FaultOut(BaseModel):
    """One field that can't be taken as it is."""

    field: str
    sentence: str


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = Field(description="Stable: about:blank#<code>.")
    title: str
    status: int
    detail: str = ""
    errors: list[FaultOut] = []


@dataclass(frozen=True, slots=True)
class Channel:
    """An ordering channel of one service, as its key proves it."""

    service_id: str
    name: str

    @property
    def actor(self) -> str:
        """How the audit names it."""
        return f"channel:{self.service_id}/{self.name}"


@dataclass(frozen=True, slots=True)
class OrdersApi:
    """All that the routes need, put together by wiring."""

    begin: Begin
    clock: Clock
    intake: Intake
    sentences: Sentences
    keys: Mapping[str, str]
    """Each channel's key, by "service/channel"."""


def orders_api(home: Wiring) -> OrdersApi:
    """The routes' needs, from an installation. Raises ServiceError(TEMPLATE | SETTINGS)."""
    sentences = load_sentences(TEMPLATES / "pages" / "told.toml")
    return OrdersApi(home.begin, home.clock, home.intake, sentences, home.channel_keys)


def orders_router(api: OrdersApi) -> APIRouter:
    """The routes under /api/orders. Include it in an application; it answers its own errors.

    Raises ServiceError(SETTINGS) for the key of a channel that no service has.
    """
    router = APIRouter(
        prefix="/api/orders",
        tags=["orders"],
        route_class=ProblemRoute,
        responses=problems(401),
        redirect_slashes=False,
    )
    Caller = Annotated[Channel, Depends(caller_of(api.keys, api.intake))]  # noqa: N806 - a type
    Ref = Annotated[str, Path(description="The channel_ref of the order.", max_length=80)]  # noqa: N806 - a type

    def answer(taken: Taken, by: Channel) -> OrderOut:
        service = api.intake.service(by.service_id).service
        told = [SentenceOut(key=key, sentence=api.sentences.say(key, taken.language, service)) for key in taken.told]
        return OrderOut(
            order_ref=taken.order_ref,
            channel_ref=taken.channel_ref,
            outcome=taken.outcome,
            reasons=list(taken.reasons),
            told=told,
            decided_at=taken.decided_at,
            cancelled=taken.cancelled,
        )

    @router.post(
        "",
        summary="Submit an order",
        responses={200: {"description": "Known already: the answer as it stands."}, **problems(409, 422)},
        status_code=201,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _inlined(OrderIn.model_json_schema()), "example": EXAMPLE}},
            }
        },
    )
    def submit(by: Caller, body: Annotated[bytes, Depends(_body)], response: Response) -> OrderOut:
        """Stores the order, decides it and answers with the decision.

        Show what `told` says at once: some of it can't wait. The same `channel_ref` with the same
        content is the same order; with other content it is a conflict. A refused order is no error.
        """
        now, order_in = api.clock(), parse_order(body)
        api.intake.read(body.decode(), api.intake.service(by.service_id).service, now)
        with api.begin() as session:
            inbox_id = submit_order(
                session,
                service_id=by.service_id,
                channel=by.name,
                channel_ref=order_in.channel_ref,
                content=order_in.canonical(),
                now=now,
                intake=api.intake,
            )
        with api.begin() as session:
            taken = take_order(session, inbox_id, now=now, actor=by.actor, intake=api.intake)
        if not isinstance(taken, Taken):
            raise ServiceError(Code.BAD_INPUT, "This order can't be read any more and is kept for a person: call us.")
        if taken.decided_at != now:
            response.status_code = 200
        return answer(taken, by)

    @router.get("/{channel_ref}", summary="Ask for an order", responses=problems(404))
    def show(by: Caller, channel_ref: Ref) -> OrderOut:
        """What stands of one of your own orders."""
        with api.begin() as session:
            taken = find_order(session, service_id=by.service_id, channel=by.name, channel_ref=channel_ref)
        return answer(taken, by)

    @router.post("/{channel_ref}/cancel", summary="Cancel an order", responses=problems(404, 409))
    def cancel(by: Caller, channel_ref: Ref) -> OrderOut:
        """Stops the kit if it is not on its way back yet; repeating it changes nothing.

        A kit that was posted may still be returned: its result is always taken and seen by a person.
        """
        with api.begin() as session:
            known = find_order(session, service_id=by.service_id, channel=by.name, channel_ref=channel_ref)
            taken = cancel_order(session, known.order_ref, now=api.clock(), actor=by.actor)
        return answer(taken, by)

    return router


def collection_points_router(api: OrdersApi) -> APIRouter:
    """The counters of a channel's service, for its page. Include it in an application; it answers its own errors."""
    router = APIRouter(
        prefix="/api/collection-points", tags=["orders"], route_class=ProblemRoute, responses=problems(401)
    )
    Caller = Annotated[Channel, Depends(caller_of(api.keys, api.intake))]  # noqa: N806 - a type

    @router.get("", summary="List the collection points")
    def points(by: Caller) -> list[PointOut]:
        """Where a kit may be fetched instead of being delivered, in the order in which to show them."""
        collection = api.intake.service(by.service_id).service.collection
        return [
            PointOut(id=each.id, name=each.name, lines=list(each.lines), postcode=each.postcode, hours=each.hours)
            for each in collection.points
        ]

    return router


def caller_of(keys: Mapping[str, str], intake: Intake) -> Callable[..., Channel]:
    """What a route depends on to know its channel. Raises ServiceError(SETTINGS) for a channel that no service has."""
    bearer = HTTPBearer(auto_error=False, description="The channel's key.")
    channels = {hashlib.sha256(key.encode()).digest(): _channel(name, intake) for name, key in keys.items()}

    def caller(sent: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> Channel:
        """Compares with every key and never stops early, so that time tells nothing."""
        digest = hashlib.sha256(sent.credentials.encode() if sent else b"").digest()
        matches = [found for known, found in channels.items() if hmac.compare_digest(known, digest)]
        if not matches:
            raise ServiceError(Code.NOT_ALLOWED, "Send your channel's key as Authorization: Bearer <key>.")
        return matches[0]

    return caller


class ProblemRoute(APIRoute):
    """Answers an expected failure, of a dependency too, with problem details."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's own handler, with such an answer round it."""
        handle = super().get_route_handler()

        async def answering(request: Request) -> Response:
            try:
                return await handle(request)
            except ServiceError as error:
                if error.code not in STATUS:
                    raise
                return _problem(error)

        return answering


def _channel(name: str, intake: Intake) -> Channel:
    service_id, _, channel = name.partition("/")
    in_force = intake.services.get(service_id)
    if in_force is None or channel not in in_force.service.channels:
        raise ServiceError(Code.SETTINGS, f"KITPOST_API_KEYS names {name}, but no service here has that channel.")
    return Channel(service_id, channel)


async def _body(request: Request) -> bytes:
    """The body as sent, and no more of it than an order can have."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > LONGEST_BODY_BYTES:
            raise ServiceError(Code.BAD_INPUT, "An order is smaller than this: send one order only.")
    return body


def _problem(error: ServiceError) -> Response:
    status, title = STATUS[error.code]
    faults = error.faults if isinstance(error, OrderUnreadable) else ()
    problem = Problem(
        type=f"about:blank#{error.code}",
        title=title,
        status=status,
        detail="Some fields can't be taken as they are." if faults else error.message,
        errors=[FaultOut(field=each.field, sentence=each.sentence) for each in faults],
    )
    headers = {"WWW-Authenticate": "Bearer"} if error.code is Code.NOT_ALLOWED else None
    return JSONResponse(problem.model_dump(mode="json"), status, headers, media_type=PROBLEM)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The same shape of error under each of these statuses, for the OpenAPI description."""
    schema = _inlined(Problem.model_json_schema())
    return {
        status: {"description": "Problem details.", "content": {PROBLEM: {"schema": schema}}} for status in statuses
    }


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema without references: OpenAPI would look for them in the whole document."""
    definitions = schema.pop("$defs", {})

    def inline(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return inline(definitions[part["$ref"].removeprefix("#/$defs/")])
            return {key: inline(value) for key, value in part.items()}
        return [inline(each) for each in part] if isinstance(part, list) else part

    inlined: dict[str, Any] = inline(schema)
    return inlined
