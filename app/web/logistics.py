"""The page of kits, stock and post: how many stand where, what runs low, and what a person must look after."""

from dataclasses import dataclass
from datetime import date
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import RedirectResponse, Response

from app.database import Begin
from app.web.pages import Pages
from app.web.signin import SignedIn, Staff, check_form
from app.wiring import Clock
from integrations.ports import FileStore
from models.actions.collection import counters, new_code
from models.actions.logistics import logistics
from models.actions.print_batch import look_at_batch
from models.actions.replacement import replace_kit, report_problem
from models.actions.stock import adjust_lot, list_lots, recall_lot, receive_lot, running_low
from models.rules.errors import Code, ServiceError
from models.rules.kit import normalise_kit_code, show_kit_code
from models.rules.order import Address
from models.rules.parcel import KitProblem
from models.rules.person import read_postcode
from models.rules.secrets import BlindIndex, Cipher
from models.rules.service import Service, ServiceInForce, Services
from models.rules.staff import Action, check_may, services_where

_SAID: Final = "said"

MOST_LINES: Final = 5
"""Of an address, as an order holds it."""

KitCode = Annotated[str, Form(max_length=20)]
Word = Annotated[str, Form(max_length=40)]
Because = Annotated[str, Form(max_length=200)]


@dataclass(frozen=True, slots=True)
class LogisticsDesk:
    """All that the page needs."""

    begin: Begin
    clock: Clock
    services: Services
    pages: Pages
    store: FileStore
    cipher: Cipher
    indexes: BlindIndex


def logistics_router(desk: LogisticsDesk) -> APIRouter:
    """The page and its forms, behind sign-in. Every form is checked to be ours."""
    router = APIRouter(prefix="/logistics", include_in_schema=False, dependencies=[Depends(check_form)])
    _add_page(router, desk)
    _add_stock(router, desk)
    _add_parcels(router, desk)
    _add_counters(router, desk)
    return router


def _add_page(router: APIRouter, desk: LogisticsDesk) -> None:
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
            at_counters = counters(session, service_ids=services)
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
            minds_parcels=services_where(who.actor, Action.PARCEL_CASES),
            problems=list(KitProblem),
            counters=[
                (point.name if point else line.point, line)
                for name, lines in at_counters.items()
                for line in lines
                for point in [services[name].service.collection.point(line.point)]
            ],
            collects={name for name, each in services.items() if each.service.collection.points},
            services=services,
            components={
                name: sorted({part for recipe in each.service.recipes for part in recipe.components})
                for name, each in services.items()
            },
        )

    @router.get("/batches/{ref}/picture")
    def picture(who: Staff, ref: str) -> Response:
        services = services_where(who.actor, Action.PACK_KITS) & desk.services.keys()
        if not services:
            raise ServiceError(Code.NOT_ALLOWED, "Your role does not allow this: ask your service manager.")
        with desk.begin() as session:
            key = look_at_batch(session, ref, services=services, now=desk.clock(), actor=who.actor.audit_name)
        return Response(desk.store.read(key), media_type="image/png")


def _chosen(desk: LogisticsDesk, who: SignedIn, action: Action, service_id: str) -> Service:
    check_may(who.actor, action, service_id)
    if service_id not in desk.services:
        raise ServiceError(Code.NOT_FOUND, "There is no such service here.")
    return desk.services[service_id].service


def _add_stock(router: APIRouter, desk: LogisticsDesk) -> None:
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
        service = _chosen(desk, who, Action.PACK_KITS, service_id)
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
        service = _chosen(desk, who, Action.PACK_KITS, service_id)
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
        service = _chosen(desk, who, Action.RECALL_STOCK, service_id)
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


def _add_parcels(router: APIRouter, desk: LogisticsDesk) -> None:
    def one(service: Service) -> dict[str, ServiceInForce]:
        return {service.id: desk.services[service.id]}

    @router.post("/{service_id}/problem")
    def problem(
        request: Request, who: Staff, service_id: str, code: KitCode, what: Annotated[KitProblem, Form()]
    ) -> Response:
        service = _chosen(desk, who, Action.PARCEL_CASES, service_id)
        kit = _kit(code)
        with desk.begin() as session:
            report_problem(session, kit, what, services=one(service), now=desk.clock(), actor=who.actor.audit_name)
        request.session[_SAID] = f"Kit {show_kit_code(kit)}: it is a case now, and its reminders stop."
        return RedirectResponse("/logistics", 303)

    @router.post("/{service_id}/replace")
    def replace(
        request: Request,
        who: Staff,
        service_id: str,
        *,
        code: KitCode,
        because: Annotated[KitProblem | Literal["asked_for"], Form()],
        address: Annotated[str, Form(max_length=400)] = "",
    ) -> Response:
        service = _chosen(desk, who, Action.PARCEL_CASES, service_id)
        kit = _kit(code)
        with desk.begin() as session:
            made = replace_kit(
                session,
                kit,
                because=str(because),
                services=one(service),
                now=desk.clock(),
                actor=who.actor.audit_name,
                cipher=desk.cipher,
                indexes=desk.indexes,
                address=_address(address),
            )
            new = show_kit_code(made.code)
        request.session[_SAID] = f"Kit {new} waits to be packed in the stead of {show_kit_code(kit)}, which is void."
        return RedirectResponse("/logistics", 303)


def _add_counters(router: APIRouter, desk: LogisticsDesk) -> None:
    @router.post("/{service_id}/code")
    def code(request: Request, who: Staff, service_id: str, code: KitCode) -> Response:
        service = _chosen(desk, who, Action.PARCEL_CASES, service_id)
        kit = _kit(code)
        with desk.begin() as session:
            made = new_code(
                session,
                kit,
                services={service.id: desk.services[service.id]},
                now=desk.clock(),
                actor=who.actor.audit_name,
                cipher=desk.cipher,
                indexes=desk.indexes,
            )
        told = f"Read it to nobody but them: {made}." if made else "It goes to them by text."
        request.session[_SAID] = f"Kit {show_kit_code(kit)} has a new code, the old one is void. {told}"
        return RedirectResponse("/logistics", 303)


def _kit(code: str) -> str:
    kit = normalise_kit_code(code)
    if kit is None:
        raise ServiceError(Code.BAD_INPUT, "This is no kit code: check each of its ten characters.")
    return kit


def _address(written: str) -> Address | None:
    """Another address as somebody typed it, the postcode on its last line; None where nothing was typed."""
    lines = [line.strip() for line in written.splitlines() if line.strip()]
    if not lines:
        return None
    postcode = read_postcode(lines[-1])
    if postcode is None or not 1 <= len(lines) - 1 <= MOST_LINES:
        raise ServiceError(Code.BAD_INPUT, "The other address needs one to five lines, and its postcode on the last.")
    return Address(tuple(lines[:-1]), postcode)
