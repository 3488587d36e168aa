"""The packing bench: one page for a hand scanner, which works without a script, and without a line for an hour.

The script judges at once by the codes of the kits that wait, and hands every scan over in order. Whatever it
said, what counts is what the same scans mean here: models/actions/bench.py.
"""

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, Query, Request
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.responses import JSONResponse, RedirectResponse, Response

from app.database import Begin
from app.web.pages import Pages
from app.web.presenters import leaflet_words, say
from app.web.shell import scripted
from app.web.signin import SignedIn, Staff, check_form
from app.wiring import Clock
from models.actions.bench import BenchRead, bench_view, pack_on, set_kit_aside, take_scan, waiting_kits
from models.actions.print_batch import reprint_kit
from models.rules.errors import Code, ServiceError
from models.rules.kit import normalise_kit_code, show_kit_code
from models.rules.parcel import Bench, Label, WhySetAside
from models.rules.secrets import BlindIndex, Cipher
from models.rules.service import Services
from models.rules.staff import Action, services_where

KITS_KNOWN_OFFLINE: Final = 2_000
"""More than two benches pack in a day."""

LONGEST_OFFLINE: Final = timedelta(hours=12)
"""A scan is never taken for older than this, whatever a bench's clock says."""

_BENCH: Final = "bench"
_SAID: Final = "said"

BenchName = Annotated[str, Form(pattern="^[A-Za-z0-9 ]{1,20}$")]


@dataclass(frozen=True, slots=True)
class PackingRoom:
    """All that the page needs."""

    begin: Begin
    clock: Clock
    services: Services
    cipher: Cipher
    indexes: BlindIndex
    pages: Pages
    sign_in_origin: str


class _Sent(BaseModel):
    """One scan as the script sends it. `ago` is in seconds: a bench's own clock is not asked what time it is."""

    ref: Annotated[str, Field(pattern="^[0-9a-f-]{32,36}$")]
    code: Annotated[str, Field(max_length=64)]
    ago: Annotated[float, Field(ge=0)] = 0.0


_SCANS: Final = TypeAdapter(Annotated[list[_Sent], Field(max_length=200)])


def packing_router(room: PackingRoom) -> APIRouter:
    """The bench, its scans, and the kits that were set aside. Every form is checked to be ours."""
    router = APIRouter(prefix="/packing", include_in_schema=False, dependencies=[Depends(check_form)])
    _add_bench(router, room)
    _add_aside(router, room)
    return router


def _add_bench(router: APIRouter, room: PackingRoom) -> None:
    def take(sent: _Sent, bench: str, who: SignedIn, services: Services) -> dict[str, object]:
        at = room.clock() - min(timedelta(seconds=sent.ago), LONGEST_OFFLINE)
        with room.begin() as session:
            told = take_scan(
                session,
                BenchRead(sent.ref, sent.code, at),
                bench=bench,
                services=services,
                actor=who.actor.audit_name,
                cipher=room.cipher,
            )
        return {"ref": sent.ref, "fine": told.fine, "dispatched": told.dispatched, "sentence": told.sentence}

    @router.get("")
    def page(request: Request, who: Staff, before: Annotated[str, Query(alias=_BENCH, max_length=20)] = "") -> Response:
        services = _mine(room, who)
        bench = request.session.get(_BENCH, "")
        if not bench:
            return room.pages.show("bench.html", request, title="Packing", who=who, before=before)
        now = room.clock()
        with room.begin() as session:
            view = bench_view(
                session, bench=bench, services=services, actor=who.actor.audit_name, since=now - timedelta(hours=12)
            )
        return scripted(
            room.pages.show(
                "packing.html",
                request,
                title="Packing",
                who=who,
                said=request.session.pop(_SAID, ""),
                bench=bench,
                ref=secrets.token_hex(16),
                view=view,
                pieces=_pieces(view.table),
                leaflet=leaflet_words(view.leaflet[0], large=view.leaflet[1]) if view.leaflet else "",
                reasons=list(WhySetAside),
            ),
            sign_in_origin=room.sign_in_origin,
        )

    @router.post("/bench")
    def choose(request: Request, who: Staff, bench: Annotated[str, Form(max_length=20)] = "") -> Response:
        _mine(room, who)
        name = "".join(each for each in bench if each.isascii() and (each.isalnum() or each == " ")).strip()
        request.session[_BENCH] = name
        return RedirectResponse("/packing", 303)

    @router.post("/scan")
    def scan(
        request: Request,
        who: Staff,
        ref: Annotated[str, Form(pattern="^[0-9a-f]{32}$")],
        code: Annotated[str, Form(max_length=64)] = "",
    ) -> Response:
        services, bench = _mine(room, who), request.session.get(_BENCH, "")
        if code.strip() and bench:
            take(_Sent(ref=ref, code=code), bench, who, services)
        return RedirectResponse("/packing", 303)

    @router.post("/scans")
    def scans(who: Staff, bench: BenchName, scans: Annotated[str, Form()]) -> Response:
        services = _mine(room, who)
        try:
            sent = _SCANS.validate_json(scans)
        except ValidationError:
            raise ServiceError(Code.BAD_INPUT, "These scans can't be read: load the page again.") from None
        # One transaction a scan, in the order of the hands: what was taken stays taken if the line breaks here.
        return JSONResponse([take(each, bench, who, services) for each in sent])

    @router.get("/waiting")
    def waiting(who: Staff, bench: str = "") -> Response:
        services = _mine(room, who)
        with room.begin() as session:
            kits = waiting_kits(session, services=services, limit=KITS_KNOWN_OFFLINE)
            table = bench_view(
                session, bench=bench, services=services, actor=who.actor.audit_name, since=room.clock()
            ).table
        return JSONResponse(
            {
                "kits": [
                    {
                        "kit": kit.code,
                        "tubes": [code for code, _ in kit.tubes],
                        "specimens": [say(specimen) for _, specimen in kit.tubes],
                        "leaflet": leaflet_words(kit.language, large=kit.large_print),
                        "outer": kit.outer,
                        "number": kit.return_number,
                    }
                    for kit in kits
                ],
                "open": table.kit_code if table else "",
                "scanned": [each.code for each in table.scanned if each.label is not Label.FORM] if table else [],
                "blocked": table.blocked if table else False,
            }
        )


def _add_aside(router: APIRouter, room: PackingRoom) -> None:
    @router.post("/aside")
    def aside(
        request: Request, who: Staff, why: Annotated[WhySetAside, Form()], code: Annotated[str, Form(max_length=20)]
    ) -> Response:
        kit = _kit(code)
        with room.begin() as session:
            set_kit_aside(session, kit, why, services=_mine(room, who), now=room.clock(), actor=who.actor.audit_name)
        request.session[_SAID] = f"Kit {show_kit_code(kit)} is set aside. It can't be dispatched so."
        return RedirectResponse("/packing", 303)

    @router.post("/aside/{code}/on")
    def on(request: Request, who: Staff, code: str) -> Response:
        kit = _kit(code)
        with room.begin() as session:
            pack_on(session, kit, services=_mine(room, who), now=room.clock(), actor=who.actor.audit_name)
        request.session[_SAID] = f"Kit {show_kit_code(kit)} may be packed: start from its form."
        return RedirectResponse("/packing", 303)

    @router.post("/aside/{code}/anew")
    def anew(request: Request, who: Staff, code: str) -> Response:
        kit, services = _kit(code), _mine(room, who)
        with room.begin() as session:
            new = reprint_kit(
                session,
                kit,
                because="destroyed at the bench",
                now=room.clock(),
                actor=who.actor.audit_name,
                cipher=room.cipher,
                indexes=room.indexes,
                within=services,
            )
        request.session[_SAID] = (
            f"The paper of kit {show_kit_code(kit)} is void for ever. "
            f"It comes in the next batch, as {show_kit_code(new)}."
        )
        return RedirectResponse("/packing", 303)


def _mine(room: PackingRoom, who: SignedIn) -> Services:
    """The services whose kits this person packs. Raises ServiceError(NOT_ALLOWED) where there is none."""
    allowed = services_where(who.actor, Action.PACK_KITS)
    services = {name: each for name, each in room.services.items() if name in allowed}
    if not services:
        raise ServiceError(Code.NOT_ALLOWED, "Your role does not allow this: ask your service manager.")
    return services


def _pieces(table: Bench | None) -> list[tuple[str, bool]]:
    """What belongs to the open kit, and whether it was scanned."""
    if table is None:
        return []
    scanned = {each.code for each in table.scanned}
    tubes = [(f"Tube {tube[-1]}", tube in scanned) for tube in sorted(table.tubes)]
    return [*tubes, ("Return label", bool(table.scanned_return)), ("Outer label", False)]


def _kit(code: str) -> str:
    kit = normalise_kit_code(code)
    if kit is None:
        raise ServiceError(Code.BAD_INPUT, "This is no kit code: check each of its ten characters.")
    return kit
