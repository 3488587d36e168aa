"""The clinic's pages: the worklist, a case and everything that may be done to it, a kit's timeline.

A page reads in one transaction with its audit entry. A form acts in one, and answers with a redirect;
what the rules refuse comes back on the same page as one sentence, and nothing has changed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, Query, Request
from sqlmodel import Session
from starlette.responses import RedirectResponse, Response

from app.database import Begin
from app.web.faults import STATUS
from app.web.pages import Pages
from app.web.presenters import say
from app.web.signin import SignedIn, Staff, check_form
from app.wiring import Clock
from models.actions import casebook, clinic
from models.actions.clinic import Ending
from models.actions.order import Intake
from models.rules.clinic import AttemptResult, CaseKind, CaseOutcome, Confirmation
from models.rules.errors import Code, ServiceError
from models.rules.kit import normalise_kit_code
from models.rules.secrets import Cipher
from models.rules.service import ServiceInForce, Services
from models.rules.staff import Action, may
from models.rules.vocabulary import Test

_SAID: Final = "said"
"""Key of the session for one sentence about what was just done, shown on the next page."""

_SHOWN_ON_CASE: Final = frozenset({Code.NOT_NOW, Code.CONFLICT, Code.BAD_INPUT})
"""Refusals that the person at the case page can do something about."""


@dataclass(frozen=True, slots=True)
class Clinic:
    """All that the clinic's pages need."""

    begin: Begin
    clock: Clock
    cipher: Cipher
    services: Services
    intake: Intake
    pages: Pages

    def service_of(self, session: Session, ref: str, who: SignedIn) -> ServiceInForce:
        """The choices of the council whose case this is."""
        service_id = clinic.find_case(session, ref, who.actor).service_id
        if service_id not in self.services:
            raise ServiceError(Code.NOT_FOUND, "This case belongs to a service that is not set up here.")
        return self.services[service_id]


Version = Annotated[int, Form()]
"""The version of the case that the form was drawn from."""


def clinic_router(desk: Clinic) -> APIRouter:
    """Every page behind sign-in. Every form is checked to be ours."""
    router = APIRouter(include_in_schema=False, dependencies=[Depends(check_form)])
    _add_worklist(router, desk)
    _add_case(router, desk)
    _add_acts(router, desk)
    _add_endings(router, desk)
    _add_kits(router, desk)
    return router


def _add_worklist(router: APIRouter, desk: Clinic) -> None:
    @router.get("/worklist")
    def worklist(
        request: Request, who: Staff, kind: CaseKind | None = None, page: Annotated[int, Query(ge=1, le=10_000)] = 1
    ) -> Response:
        now = desk.clock()
        with desk.begin() as session:
            shown = casebook.worklist(session, by=who.actor, now=now, kind=kind, page=page)
        return desk.pages.show(
            "worklist.html",
            request,
            title="Worklist",
            who=who,
            said=request.session.pop(_SAID, ""),
            now=now,
            list=shown,
            kinds=[each for each in CaseKind if shown.counts.get(each)],
            kind=kind,
            several_services=len(who.actor.service_ids) > 1,
            may_see_timelines=any(may(who.actor, Action.SEE_TIMELINE, each) for each in who.actor.service_ids),
        )


def _draw(  # noqa: PLR0913 - one page, by name
    desk: Clinic,
    request: Request,
    who: SignedIn,
    ref: str,
    *,
    status: int = 200,
    problem: str = "",
    note: str = "",
    with_contact: bool = False,
    with_notes: bool = False,
    with_row: str = "",
) -> Response:
    """The case page. What it shows and that it was shown is one transaction."""
    now = desk.clock()
    with desk.begin() as session:
        case = casebook.case_view(session, ref, by=who.actor, now=now, cipher=desk.cipher)
        contact = casebook.reveal(session, ref, by=who.actor, now=now, cipher=desk.cipher) if with_contact else None
        notes = (
            casebook.safeguarding_notes(session, ref, by=who.actor, now=now, cipher=desk.cipher) if with_notes else None
        )
        row = (
            casebook.read_lab_row(session, ref, with_row, by=who.actor, now=now, cipher=desk.cipher)
            if with_row
            else None
        )
    return desk.pages.show(
        "case.html",
        request,
        title="Case",
        status=status,
        who=who,
        said=request.session.pop(_SAID, ""),
        now=now,
        case=case,
        contact=contact,
        notes=notes,
        row=row,
        problem=problem,
        note=note,
        can=Action,
        results=list(AttemptResult),
        refused={
            AttemptResult.TEXT: not case.text_consent,
            AttemptResult.VOICEMAIL: not case.voicemail_consent,
            AttemptResult.LETTER: not case.letter_consent,
        },
        confirmations=list(Confirmation),
    )


def _act(
    desk: Clinic,
    request: Request,
    who: SignedIn,
    ref: str,
    work: Callable[[Session], str],
    *,
    then: str = "",
    note: str = "",
) -> Response:
    """Does one thing to a case and leads on; what the rules refuse is said on the case's page."""
    try:
        with desk.begin() as session:
            said = work(session)
    except ServiceError as refused:
        if refused.code not in _SHOWN_ON_CASE:
            raise
        return _draw(desk, request, who, ref, status=STATUS[refused.code], problem=refused.message, note=note)
    request.session[_SAID] = said
    return RedirectResponse(then or f"/cases/{ref}", 303)


def _add_case(router: APIRouter, desk: Clinic) -> None:
    @router.get("/cases/{ref}")
    def case(request: Request, who: Staff, ref: str) -> Response:
        return _draw(desk, request, who, ref)

    @router.post("/cases/{ref}/contact")
    def contact(request: Request, who: Staff, ref: str) -> Response:
        return _draw(desk, request, who, ref, with_contact=True)

    @router.post("/cases/{ref}/notes")
    def notes(request: Request, who: Staff, ref: str) -> Response:
        return _draw(desk, request, who, ref, with_notes=True)

    @router.post("/cases/{ref}/rows/{row_ref}")
    def row(request: Request, who: Staff, ref: str, row_ref: str) -> Response:
        return _draw(desk, request, who, ref, with_row=row_ref)


def _add_acts(router: APIRouter, desk: Clinic) -> None:
    @router.post("/cases/{ref}/claim")
    def claim(request: Request, who: Staff, ref: str, version: Version) -> Response:
        def work(session: Session) -> str:
            clinic.claim(session, ref, by=who.actor, version=version, now=desk.clock())
            return "The case is in your hands."

        return _act(desk, request, who, ref, work)

    @router.post("/cases/{ref}/hand-back")
    def hand_back(request: Request, who: Staff, ref: str, version: Version) -> Response:
        def work(session: Session) -> str:
            clinic.hand_back(session, ref, by=who.actor, version=version, now=desk.clock())
            return "The case is back in the queue."

        return _act(desk, request, who, ref, work)

    @router.post("/cases/{ref}/attempts")
    def attempt(
        request: Request,
        who: Staff,
        ref: str,
        version: Version,
        result: Annotated[AttemptResult, Form()],
        note: Annotated[str, Form()] = "",
    ) -> Response:
        def work(session: Session) -> str:
            clinic.record_attempt(
                session,
                ref,
                by=who.actor,
                version=version,
                result=result,
                note=note,
                now=desk.clock(),
                policy=desk.service_of(session, ref, who).service.clinic,
                cipher=desk.cipher,
            )
            return f"Recorded: {say(result)}."

        return _act(desk, request, who, ref, work, note=note)

    @router.post("/cases/{ref}/confirmations")
    def confirmation(
        request: Request,
        who: Staff,
        ref: str,
        version: Version,
        test: Annotated[Test, Form()],
        confirmation: Annotated[Confirmation, Form()],
    ) -> Response:
        def work(session: Session) -> str:
            clinic.record_confirmation(
                session,
                ref,
                by=who.actor,
                version=version,
                test=test,
                confirmation=confirmation,
                now=desk.clock(),
            )
            return "The confirmatory outcome is recorded."

        return _act(desk, request, who, ref, work)


def _add_endings(router: APIRouter, desk: Clinic) -> None:
    @router.post("/cases/{ref}/close")
    def close(
        request: Request, who: Staff, ref: str, version: Version, outcome: Annotated[CaseOutcome, Form()]
    ) -> Response:
        def work(session: Session) -> str:
            ended = clinic.close_case(session, ref, by=who.actor, version=version, outcome=outcome, now=desk.clock())
            if ended is Ending.WAITS_FOR_SECOND:
                return (
                    "Your wish to end the case without further action is recorded: a second, senior person must agree."
                )
            return f"The case is closed: {say(outcome)}."

        return _act(desk, request, who, ref, work, then="/worklist")

    @router.post("/cases/{ref}/release")
    def release(request: Request, who: Staff, ref: str, version: Version) -> Response:
        def work(session: Session) -> str:
            decision = clinic.release_after_review(
                session,
                ref,
                by=who.actor,
                version=version,
                now=desk.clock(),
                service=desk.service_of(session, ref, who),
                cipher=desk.cipher,
            )
            return (
                "The comment is marked as read. A person is still needed: the reasons are below."
                if decision.case
                else "The comment is marked as read, and the case is closed."
            )

        return _act(desk, request, who, ref, work)

    @router.post("/cases/{ref}/order")
    def order(
        request: Request,
        who: Staff,
        ref: str,
        version: Version,
        accept: Annotated[bool, Form()],
        because: Annotated[str, Form(max_length=400)] = "",
    ) -> Response:
        def work(session: Session) -> str:
            clinic.settle_held_order(
                session,
                ref,
                by=who.actor,
                version=version,
                accept=accept,
                because=because,
                now=desk.clock(),
                intake=desk.intake,
            )
            return "The order is accepted: a kit goes." if accept else "The order is refused: no kit goes."

        return _act(desk, request, who, ref, work)


def _add_kits(router: APIRouter, desk: Clinic) -> None:
    @router.post("/kits/find")
    def find(code: Annotated[str, Form()] = "") -> Response:
        found = normalise_kit_code(code)
        if found is None:
            raise ServiceError(Code.BAD_INPUT, "This is no kit code: check each of its ten characters.")
        return RedirectResponse(f"/kits/{found}", 303)

    @router.get("/kits/{code}")
    def timeline(request: Request, who: Staff, code: str) -> Response:
        now = desk.clock()
        with desk.begin() as session:
            shown = casebook.kit_timeline(session, code, by=who.actor, now=now)
        return desk.pages.show("timeline.html", request, title="Kit", who=who, now=now, kit_of=shown)
