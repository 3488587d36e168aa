"""The page of kits, stock and post: how many stand where, what runs low, and what a person must look after."""

from dataclasses import dataclass
from datetime import date
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import RedirectResponse, Response

from app.database import Begin
from app.web.pages import Pages
from app.web.signin import SignedIn, Staff, check_form
from app.wiring import Clock
from models.actions.logistics import logistics
from models.actions.stock import adjust_lot, list_lots, recall_lot, receive_lot, running_low
from models.rules.errors import Code, ServiceError
from models.rules.service import Service, Services
from models.rules.staff import Action, check_may, services_where

_SAID: Final = "said"

Word = Annotated[str, Form(max_length=40)]
Because = Annotated[str, Form(max_length=200)]


@dataclass(frozen=True, slots=True)
class LogisticsDesk:
    """All that the page needs."""

    begin: Begin
    clock: Clock
    services: Services
    pages: Pages


def logistics_router(desk: LogisticsDesk) -> APIRouter:
    """The page and its forms, behind sign-in. Every form is checked to be ours."""
    router = APIRouter(prefix="/logistics", include_in_schema=False, dependencies=[Depends(check_form)])

    @router.get("")
    def overview(request: Request, who: Staff) -> Response:
        allowed = services_where(who.actor, Action.SEE_LOGISTICS) & desk.services.keys()
        if not allowed:
            raise ServiceError(Code.NOT_ALLOWED, "Your role does not allow this: ask your service manager.")
        services = {name: desk.services[name] for name in sorted(allowed)}
        now = desk.clock()
        with desk.begin() as session:
            shown = logistics(session, service_ids=services, now=now)
            lots = list_lots(session, services=services, now=now)
            low = running_low(session, services=services, now=now)
        return desk.pages.show(
            "logistics.html",
            request,
            title="Kits and stock",
            who=who,
            said=request.session.pop(_SAID, ""),
            now=now,
            shown=shown,
            lots=lots,
            low=low,
            packs=services_where(who.actor, Action.PACK_KITS),
            recalls=services_where(who.actor, Action.RECALL_STOCK),
            services=services,
            components={
                name: sorted({part for recipe in each.service.recipes for part in recipe.components})
                for name, each in services.items()
            },
        )

    def chosen(who: SignedIn, action: Action, service_id: str) -> Service:
        check_may(who.actor, action, service_id)
        if service_id not in desk.services:
            raise ServiceError(Code.NOT_FOUND, "There is no such service here.")
        return desk.services[service_id].service

    @router.post("/{service_id}/receive")
    def receive(
        request: Request,
        who: Staff,
        service_id: str,
        *,
        component: Word,
        lot: Word,
        pieces: Annotated[int, Form(ge=1)],
        expires_on: Annotated[date, Form()],
    ) -> Response:
        service = chosen(who, Action.PACK_KITS, service_id)
        with desk.begin() as session:
            row = receive_lot(
                session,
                service=service,
                component=component,
                lot=lot,
                pieces=pieces,
                expires_on=expires_on,
                now=desk.clock(),
                actor=who.actor.audit_name,
            )
            request.session[_SAID] = f"Lot {lot} of {component} holds {row.on_hand}."
        return RedirectResponse("/logistics", 303)

    @router.post("/{service_id}/adjust")
    def adjust(
        request: Request,
        who: Staff,
        service_id: str,
        *,
        component: Word,
        lot: Word,
        pieces: Annotated[int, Form()],
        because: Because = "",
    ) -> Response:
        service = chosen(who, Action.PACK_KITS, service_id)
        with desk.begin() as session:
            row = adjust_lot(
                session,
                service_id=service.id,
                component=component,
                lot=lot,
                pieces=pieces,
                because=because,
                now=desk.clock(),
                actor=who.actor.audit_name,
            )
            request.session[_SAID] = f"Lot {lot} of {component} holds {row.on_hand}."
        return RedirectResponse("/logistics", 303)

    @router.post("/{service_id}/recall")
    def recall(
        request: Request, who: Staff, service_id: str, component: Word, lot: Word, because: Because = ""
    ) -> Response:
        service = chosen(who, Action.RECALL_STOCK, service_id)
        with desk.begin() as session:
            found = recall_lot(
                session,
                service=service,
                component=component,
                lot=lot,
                because=because,
                now=desk.clock(),
                actor=who.actor.audit_name,
            )
        request.session[_SAID] = (
            f"Lot {lot} of {component} is recalled: "
            f"{found.in_our_room} kits here, {found.outside} outside, each a case."
        )
        return RedirectResponse("/logistics", 303)

    return router
