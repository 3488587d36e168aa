"""The page with the switches: what leaves now, one button to stop it, and the burst that waits for a person."""

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import RedirectResponse, Response

from app.database import Begin
from app.web.pages import Pages
from app.web.presenters import text_class as in_words
from app.web.signin import SignedIn, Staff, check_form
from app.wiring import Clock
from models.actions.text import release_burst
from models.actions.text_switch import sending, set_class_sending
from models.rules.errors import Code, ServiceError
from models.rules.service import Services
from models.rules.staff import Action, check_may
from models.rules.text import TextClass

_SAID: Final = "said"


@dataclass(frozen=True, slots=True)
class SendingDesk:
    """All that the page needs."""

    begin: Begin
    clock: Clock
    services: Services
    text_provider: str
    """The provider that the settings name."""
    pages: Pages


Because = Annotated[str, Form(max_length=200)]


def sending_router(desk: SendingDesk) -> APIRouter:
    """The page and its three forms, behind sign-in. Every form is checked to be ours."""
    router = APIRouter(prefix="/sending", include_in_schema=False, dependencies=[Depends(check_form)])

    @router.get("")
    def overview(request: Request, who: Staff) -> Response:
        return draw(request, who)

    @router.post("/{service_id}/release")
    def release(request: Request, who: Staff, service_id: str, because: Because = "") -> Response:
        check_may(who.actor, Action.STOP_TEXTS, service_id)
        if not because.strip():
            return draw(request, who, problem="Say why the held texts may go.")
        with desk.begin() as session:
            freed = release_burst(
                session,
                service_id=service_id,
                actor=who.actor.audit_name,
                because=because.strip(),
                now=desk.clock(),
            )
        request.session[_SAID] = f"{freed} texts may go. They leave with the next runs, inside their hours."
        return RedirectResponse("/sending", 303)

    @router.post("/{service_id}/{text_class}/stop")
    def stop(request: Request, who: Staff, service_id: str, text_class: TextClass, because: Because = "") -> Response:
        return switch(request, who, service_id, text_class, because, stopped=True)

    @router.post("/{service_id}/{text_class}/start")
    def start(request: Request, who: Staff, service_id: str, text_class: TextClass, because: Because = "") -> Response:
        return switch(request, who, service_id, text_class, because, stopped=False)

    def switch(
        request: Request, who: SignedIn, service_id: str, text_class: TextClass, because: str, *, stopped: bool
    ) -> Response:
        check_may(who.actor, Action.STOP_TEXTS, service_id)
        if service_id not in desk.services:
            raise ServiceError(Code.NOT_FOUND, "There is no such service here.")
        if not stopped and not because.strip():
            return draw(request, who, problem="Say why they may leave again.")
        with desk.begin() as session:
            set_class_sending(
                session,
                service_id=service_id,
                text_class=text_class,
                stopped=stopped,
                actor=who.actor.audit_name,
                because=because.strip(),
                now=desk.clock(),
            )
        request.session[_SAID] = f"{'Stopped' if stopped else 'Started'}: {in_words(text_class)}."
        return RedirectResponse("/sending", 303)

    def draw(request: Request, who: SignedIn, *, problem: str = "") -> Response:
        with desk.begin() as session:
            shown = sending(session, by=who.actor)
        return desk.pages.show(
            "sending.html",
            request,
            title="Sending",
            status=422 if problem else 200,
            who=who,
            said=request.session.pop(_SAID, ""),
            problem=problem,
            sending=shown,
            provider=shown.provider or desk.text_provider,
            names={service_id: each.service.name for service_id, each in desk.services.items()},
        )

    return router
