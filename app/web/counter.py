"""The page of a counter where kits are fetched: book in, hand over for a code, send back. No name, no kit code.

Works without a script, with a hand scanner or a keyboard.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import RedirectResponse, Response

from app.database import Begin
from app.web.pages import Pages
from app.web.signin import SignedIn, Staff, check_form
from app.wiring import Clock
from models.actions.collection import CounterAnswer, at_counter, book_in, find_parcel, hand_over
from models.rules.errors import Code, ServiceError
from models.rules.secrets import BlindIndex, Cipher
from models.rules.service import CollectionPoint, Services
from models.rules.staff import Action, services_where

_POINT: Final = "counter"
_SAID: Final = "counter_said"
_CODE: Final = "counter_code"

Scan = Annotated[str, Form(max_length=64)]


@dataclass(frozen=True, slots=True)
class CounterDesk:
    """All that the page needs."""

    begin: Begin
    clock: Clock
    services: Services
    cipher: Cipher
    indexes: BlindIndex
    pages: Pages


def counter_router(desk: CounterDesk) -> APIRouter:
    """The page and its forms, behind sign-in. Every form is checked to be ours."""
    router = APIRouter(prefix="/counter", include_in_schema=False, dependencies=[Depends(check_form)])

    @router.get("")
    def page(request: Request, who: Staff) -> Response:
        services = _mine(desk, who)
        chosen = _chosen(services, request)
        said = request.session.pop(_SAID, None)
        code = request.session.get(_CODE, "")
        parcels = []
        if chosen:
            service_id, point = chosen
            with desk.begin() as session:
                parcels = at_counter(session, service_id=service_id, point=point.id)
        return desk.pages.show(
            "counter.html",
            request,
            title="Counter",
            who=who,
            said=said,
            code=code if chosen else "",
            point=chosen[1] if chosen else None,
            points=[(key, f"{each.name}, {each.lines[0]}") for key, _, each in _points(services)],
            waiting=[each for each in parcels if not each.goes_back],
            going_back=[each for each in parcels if each.goes_back],
        )

    @router.post("/point")
    def choose(request: Request, who: Staff, point: Annotated[str, Form(max_length=100)] = "") -> Response:
        _mine(desk, who)
        request.session[_POINT] = point
        request.session.pop(_CODE, None)
        return RedirectResponse("/counter", 303)

    @router.post("/arrived")
    def arrived(request: Request, who: Staff, parcel: Scan = "") -> Response:
        service_id, point = _at(desk, who, request)
        with desk.begin() as session:
            told = book_in(
                session,
                parcel,
                point=point.id,
                services=_one(desk, service_id),
                now=desk.clock(),
                actor=who.actor.audit_name,
                cipher=desk.cipher,
                indexes=desk.indexes,
            )
        return _tell(request, told)

    @router.post("/code")
    def look(request: Request, who: Staff, code: Scan = "") -> Response:
        service_id, _ = _at(desk, who, request)
        with desk.begin() as session:
            told = find_parcel(
                session,
                code,
                services=_one(desk, service_id),
                now=desk.clock(),
                actor=who.actor.audit_name,
                indexes=desk.indexes,
            )
        return _tell(request, told, code=code if told.parcel else "")

    @router.post("/handed")
    def handed(request: Request, who: Staff, parcel: Scan = "") -> Response:
        service_id, _ = _at(desk, who, request)
        code = request.session.get(_CODE, "")
        with desk.begin() as session:
            told = hand_over(
                session,
                code,
                parcel,
                services=_one(desk, service_id),
                now=desk.clock(),
                actor=who.actor.audit_name,
                cipher=desk.cipher,
                indexes=desk.indexes,
            )
        return _tell(request, told, code=code if told.parcel else "")

    return router


def _tell(request: Request, told: CounterAnswer, *, code: str = "") -> Response:
    request.session[_SAID] = {"fine": told.fine, "sentence": told.sentence, "parcel": told.parcel}
    request.session[_CODE] = code
    return RedirectResponse("/counter", 303)


def _mine(desk: CounterDesk, who: SignedIn) -> Services:
    """The services for which this person stands at a counter. Raises ServiceError(NOT_ALLOWED) where there is none."""
    allowed = services_where(who.actor, Action.HAND_OVER_PARCELS)
    services = {name: each for name, each in desk.services.items() if name in allowed}
    if not services:
        raise ServiceError(Code.NOT_ALLOWED, "Your role does not allow this: ask your service manager.")
    return services


def _points(services: Services) -> Iterator[tuple[str, str, CollectionPoint]]:
    """Every counter: what the form sends, its service, itself."""
    for service_id, in_force in sorted(services.items()):
        for point in in_force.service.collection.points:
            yield f"{service_id}/{point.id}", service_id, point


def _chosen(services: Services, request: Request) -> tuple[str, CollectionPoint] | None:
    """Where this browser stands: as it was chosen, or the only counter there is."""
    points = list(_points(services))
    wanted = request.session.get(_POINT, "") or (points[0][0] if len(points) == 1 else "")
    return next(((service_id, point) for key, service_id, point in points if key == wanted), None)


def _at(desk: CounterDesk, who: SignedIn, request: Request) -> tuple[str, CollectionPoint]:
    chosen = _chosen(_mine(desk, who), request)
    if chosen is None:
        raise ServiceError(Code.BAD_INPUT, "Say first at which counter you stand.")
    return chosen


def _one(desk: CounterDesk, service_id: str) -> Services:
    return {service_id: desk.services[service_id]}
