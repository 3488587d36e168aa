"""The clinic's pages: the worklist, a case and everything that may be done to it, a kit's timeline.

A page reads in one transaction with its audit entry. A form acts in one, and answers with a redirect;
what the rules refuse comes back on the same page as one sentence, and nothing has changed.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, time
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Form, Query, Request
from pydantic import BaseModel
from sqlmodel import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from app.database import Begin
from app.web.calls import Calls, load_calls
from app.web.faults import STATUS
from app.web.pages import Pages
from app.web.presenters import say
from app.web.signin import SignedIn, Staff, check_form
from app.wiring import Clock, clinic_fhir
from models.actions import candour, casebook, clinic, partners, referral, safeguarding, seal, treatment
from models.actions.case import find_case, order_of
from models.actions.casebook import CaseView
from models.actions.clinic import Ending
from models.actions.order import Intake
from models.rules.call import Say, what_to_say
from models.rules.candour import Candour, Harm
from models.rules.clinic import (
    AttemptResult,
    CaseKind,
    CaseOutcome,
    Confirmation,
    EndingDetails,
    IdentityCheck,
    SnoozeReason,
)
from models.rules.errors import Code, ServiceError
from models.rules.kit import normalise_kit_code
from models.rules.partners import PartnerCounts, PartnerType
from models.rules.referral import Handover, ReferralFor
from models.rules.secrets import Cipher
from models.rules.service import ReferralClinic, ServiceInForce, Services
from models.rules.staff import Action, Role, check_may, may, services_where, who_may_work
from models.rules.treatment import REMOTE, Treatment, TreatmentQuestion
from models.rules.vocabulary import SAMPLE_FAILURES, Language, Outcome, Test
from models.rules.working_days import LONDON, london_day

_SAID: Final = "said"
"""Key of the session for one sentence about what was just done, shown on the next page."""

_SHOWN_ON_CASE: Final = frozenset({Code.NOT_NOW, Code.CONFLICT, Code.BAD_INPUT})
"""Refusals that the person at the case page can do something about."""


_PLACES: Final = {
    "release": "results",
    "order": "order",
    "confirmations": "confirming",
    "attempts": "attempt",
    "candour": "candour",
    "treatment": "treatment",
    "partners": "partners",
    "close": "end",
    "refer": "handover",
    "snooze": "rest",
    "hand-over": "rest",
    "concern": "rest",
}
"""Where on the case's page each form stands, by the last part of its address."""

_OWN_WORDS: Final = ("note", "why", "message", "account", "concern")
"""Fields into which somebody writes sentences."""

_NOTHING_TYPED: Final = dict.fromkeys((*_OWN_WORDS, "outcome", "place", "on", "treatment"), "")
"""What the page's forms hold before anybody wrote into them; a refused form comes back as it was filled in."""


@dataclass(frozen=True, slots=True)
class Clinic:
    """All that the clinic's pages need."""

    begin: Begin
    clock: Clock
    cipher: Cipher
    services: Services
    intake: Intake
    pages: Pages
    letters: Callable[..., bytes]
    """Draws a letter (integrations/letters), from what it says by name."""
    referral_letters: Callable[[Handover, date], bytes]
    bells: frozenset[tuple[str, str]] = frozenset()
    """Which clinics are told by webhook: service and clinic."""
    calls: Calls = field(default_factory=load_calls)

    def service_of(self, session: Session, ref: str, who: SignedIn) -> ServiceInForce:
        """The choices of the council whose case this is."""
        service_id = find_case(session, ref, who.actor).service_id
        if service_id not in self.services:
            raise ServiceError(Code.NOT_FOUND, "This case belongs to a service that is not set up here.")
        return self.services[service_id]


Version = Annotated[int, Form()]
"""The version of the case that the form was drawn from."""


class _CaseForm(BaseModel):
    """A form about one case."""

    version: int
    csrf: str = ""


class AttemptForm(_CaseForm):
    """What came of one try."""

    result: AttemptResult
    note: str = ""
    identity: list[IdentityCheck] = []


class RestForm(_CaseForm):
    """Until when a case rests, in London, and why."""

    reason: SnoozeReason
    day: date
    at: time


class PartnersForm(_CaseForm):
    """How far the partners of one type came."""

    partner: PartnerType
    elicited: int
    contactable: int
    notified: int
    tested: int
    verified: int
    treated: int


class EndForm(_CaseForm):
    """How a case ends, and the where and when that belongs to some ways."""

    outcome: CaseOutcome
    place: str = ""
    on: str = ""
    treatment: Treatment | Literal[""] = ""


def clinic_router(desk: Clinic) -> APIRouter:
    """Every page behind sign-in. Every form is checked to be ours."""
    router = APIRouter(include_in_schema=False, dependencies=[Depends(check_form)])
    _add_worklist(router, desk)
    _add_case(router, desk)
    _add_acts(router, desk)
    _add_rests(router, desk)
    _add_endings(router, desk)
    _add_treatment(router, desk)
    _add_partners(router, desk)
    _add_candour(router, desk)
    _add_referrals(router, desk)
    _add_seals(router, desk)
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
    typed: Mapping[str, str] | None = None,
    with_contact: bool = False,
    cannot_wait: bool = True,
    with_notes: bool = False,
    with_row: str = "",
) -> Response:
    """The case page. What it shows and that it was shown is one transaction."""
    now = desk.clock()
    try:
        return _draw_open(
            desk,
            request,
            who,
            ref,
            now,
            status=status,
            problem=problem,
            typed=typed,
            with_contact=with_contact,
            cannot_wait=cannot_wait,
            with_notes=with_notes,
            with_row=with_row,
        )
    except ServiceError as error:
        if error.code is not Code.SEALED:
            raise
        written = [text for name, text in (typed or {}).items() if name in _OWN_WORDS and text.strip()]
        return desk.pages.show(
            "sealed.html",
            request,
            title="Case",
            status=STATUS[error.code],
            who=who,
            back=("/worklist", "Worklist"),
            breaks=f"/cases/{ref}/break-seal",
            code="",
            problem=problem,
            written=written,
        )


def _draw_open(  # noqa: PLR0913 - one page, by name
    desk: Clinic,
    request: Request,
    who: SignedIn,
    ref: str,
    now: datetime,
    *,
    status: int,
    problem: str,
    typed: Mapping[str, str] | None,
    with_contact: bool,
    cannot_wait: bool,
    with_notes: bool,
    with_row: str,
) -> Response:
    with desk.begin() as session:
        case = casebook.case_view(session, ref, by=who.actor, now=now, cipher=desk.cipher)
        contact = (
            casebook.reveal(session, ref, by=who.actor, now=now, cipher=desk.cipher, cannot_wait=cannot_wait)
            if with_contact
            else None
        )
        notes = (
            casebook.safeguarding_notes(session, ref, by=who.actor, now=now, cipher=desk.cipher) if with_notes else None
        )
        row = (
            casebook.read_lab_row(session, ref, with_row, by=who.actor, now=now, cipher=desk.cipher)
            if with_row
            else None
        )
    tried = request.url.path.rpartition("/")[2] if problem else ""
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
        typed=_NOTHING_TYPED | dict(typed or {}),
        tried=tried,
        place=_PLACES.get(tried, ""),
        can=Action,
        results=list(AttemptResult),
        refused={
            AttemptResult.TEXT: _why_not(consents=case.text_consent, usable=case.facts.number_usable),
            AttemptResult.VOICEMAIL: _why_not(consents=case.voicemail_consent, usable=case.facts.number_usable),
            AttemptResult.LETTER: _why_not(consents=case.letter_consent),
        },
        confirmations=list(Confirmation),
        identity_checks=list(IdentityCheck),
        snooze_reasons=list(SnoozeReason),
        other_queues=[role for role in who_may_work(case.kind) if role != case.owner_role],
        treatments=[each for each in Treatment if each not in REMOTE or _is_signed(case, each)],
        remote_ways=sorted(REMOTE),
        questions=list(TreatmentQuestion),
        script=_script(desk, case),
        partner_types=list(PartnerType),
        stages=[each.name for each in fields(PartnerCounts)],
        clinics=_clinics(desk, case),
        referral_reasons=list(ReferralFor),
        harms=list(Harm),
        candour=Candour,
    )


def _clinics(desk: Clinic, case: CaseView) -> Sequence[ReferralClinic]:
    """The clinics that a case may be handed over to."""
    in_force = desk.services.get(case.service_id)
    return in_force.service.clinics if in_force and case.has_contact and case.reads_results else ()


def _why_not(*, consents: bool, usable: bool = True) -> str:
    if not consents:
        return "this person has not agreed to it"
    return "" if usable else "the number is not theirs, or dead"


def _is_signed(case: CaseView, way: Treatment) -> bool:
    return case.treatment is not None and case.treatment.way is way and bool(case.treatment.signed_by)


_ABOUT: Final[Mapping[Say, frozenset[Outcome]]] = {
    Say.REACTIVE: frozenset({Outcome.REACTIVE}),
    Say.LOW_REACTIVE: frozenset({Outcome.LOW_REACTIVE}),
    Say.OTHER_POSITIVE: frozenset({Outcome.POSITIVE}),
    Say.EQUIVOCAL: frozenset({Outcome.EQUIVOCAL}),
    Say.FAILED_SAMPLE: SAMPLE_FAILURES,
}
"""The outcomes whose tests a passage names."""


def _script(desk: Clinic, case: CaseView) -> Sequence[tuple[Language, Sequence[tuple[Say, str]]]]:
    """The call about this case, in the person's language first; nothing for who may not read results."""
    if not case.reads_results or case.service_id not in desk.services or not case.has_contact:
        return ()
    service = desk.services[case.service_id].service
    passages = what_to_say(case.facts)
    languages = dict.fromkeys([Language(case.language), Language.ENGLISH]) if passages else {}

    def tests(passage: Say) -> str:
        named = {say(test) for test, outcome in case.facts.items if outcome in _ABOUT.get(passage, ())}
        return ", ".join(sorted(named))

    return [
        (language, [(each, desk.calls.passage(each, language, service, tests(each))) for each in passages])
        for language in languages
    ]


def _act(
    desk: Clinic,
    request: Request,
    who: SignedIn,
    ref: str,
    work: Callable[[Session], str],
    *,
    then: str = "",
    typed: Mapping[str, str] | None = None,
) -> Response:
    """Does one thing to a case and leads on; what the rules refuse is said on the case's page."""
    try:
        with desk.begin() as session:
            said = work(session)
    except ServiceError as refused:
        if refused.code is Code.SEALED:
            problem = f"Nothing was saved. {refused.message}"
            return _draw(desk, request, who, ref, status=STATUS[refused.code], problem=problem, typed=typed)
        if refused.code not in _SHOWN_ON_CASE:
            raise
        return _draw(desk, request, who, ref, status=STATUS[refused.code], problem=refused.message, typed=typed)
    request.session[_SAID] = said
    return RedirectResponse(then or f"/cases/{ref}", 303)


def _add_case(router: APIRouter, desk: Clinic) -> None:
    @router.get("/cases/{ref}")
    def case(request: Request, who: Staff, ref: str) -> Response:
        return _draw(desk, request, who, ref)

    @router.post("/cases/{ref}/contact")
    def contact(request: Request, who: Staff, ref: str, *, cannot_wait: Annotated[bool, Form()] = False) -> Response:
        try:
            return _draw(desk, request, who, ref, with_contact=True, cannot_wait=cannot_wait)
        except ServiceError as refused:
            if refused.code is not Code.NOT_NOW:
                raise
            return _draw(desk, request, who, ref, status=STATUS[refused.code], problem=refused.message)

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
    def attempt(request: Request, who: Staff, ref: str, form: Annotated[AttemptForm, Form()]) -> Response:
        def work(session: Session) -> str:
            clinic.record_attempt(
                session,
                ref,
                by=who.actor,
                version=form.version,
                result=form.result,
                note=form.note,
                now=desk.clock(),
                service=desk.service_of(session, ref, who).service,
                cipher=desk.cipher,
                indexes=desk.intake.indexes,
                identity=frozenset(form.identity),
            )
            return f"Recorded: {say(form.result)}."

        return _act(desk, request, who, ref, work, typed={"note": form.note})


def _add_rests(router: APIRouter, desk: Clinic) -> None:
    @router.post("/cases/{ref}/concern")
    def concern(
        request: Request, who: Staff, ref: str, version: Version, concern: Annotated[str, Form()] = ""
    ) -> Response:
        def work(session: Session) -> str:
            safeguarding.note_concern(
                session,
                ref,
                by=who.actor,
                version=version,
                note=concern,
                now=desk.clock(),
                service=desk.service_of(session, ref, who).service,
                cipher=desk.cipher,
            )
            return "Noted for the safeguarding lead, and nobody else reads it."

        return _act(desk, request, who, ref, work, typed={"concern": concern})

    @router.post("/cases/{ref}/hand-over")
    def hand_over(
        request: Request,
        who: Staff,
        ref: str,
        version: Version,
        to: Annotated[Role, Form()],
        why: Annotated[str, Form()] = "",
    ) -> Response:
        def work(session: Session) -> str:
            clinic.hand_over(
                session, ref, by=who.actor, version=version, to=to, note=why, now=desk.clock(), cipher=desk.cipher
            )
            return f"The case stands in another queue now: {say(to)}."

        return _act(desk, request, who, ref, work, then="/worklist", typed={"why": why})

    @router.post("/cases/{ref}/snooze")
    def snooze(request: Request, who: Staff, ref: str, form: Annotated[RestForm, Form()]) -> Response:
        def work(session: Session) -> str:
            until = datetime.combine(form.day, form.at.replace(tzinfo=None), LONDON).astimezone(UTC)
            clinic.snooze(
                session,
                ref,
                by=who.actor,
                version=form.version,
                reason=form.reason,
                until=until,
                now=desk.clock(),
                policy=desk.service_of(session, ref, who).service.clinic,
            )
            return "The case rests until then, in your hands."

        return _act(desk, request, who, ref, work)

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
    def close(request: Request, who: Staff, ref: str, form: Annotated[EndForm, Form()]) -> Response:
        def work(session: Session) -> str:
            ended = clinic.close_case(
                session,
                ref,
                by=who.actor,
                version=form.version,
                outcome=form.outcome,
                now=desk.clock(),
                service=desk.service_of(session, ref, who).service,
                cipher=desk.cipher,
                details=EndingDetails(form.place.strip(), _day(form.on), form.treatment or None),
            )
            if ended is Ending.WAITS_FOR_SECOND:
                return (
                    "Your wish to end the case without further action is recorded: a second, senior person must agree."
                )
            return f"The case is closed: {say(form.outcome)}."

        typed = {"outcome": form.outcome.value, "place": form.place, "on": form.on, "treatment": form.treatment}
        return _act(desk, request, who, ref, work, then="/worklist", typed=typed)

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


def _add_treatment(router: APIRouter, desk: Clinic) -> None:
    @router.post("/cases/{ref}/treatment")
    async def ask_for_treatment(
        request: Request, who: Staff, ref: str, version: Version, way: Annotated[Treatment, Form()]
    ) -> Response:
        form = await request.form()
        answers = {each: form.get(each.value) != "no" for each in TreatmentQuestion}

        def work(session: Session) -> str:
            treatment.ask_for_remote(
                session,
                ref,
                by=who.actor,
                version=version,
                way=way,
                answers=answers,
                now=desk.clock(),
                cipher=desk.cipher,
            )
            return "A prescriber must sign now: the case is back in the queue for them."

        return await run_in_threadpool(_act, desk, request, who, ref, work)

    @router.post("/cases/{ref}/treatment/sign")
    def sign_treatment(request: Request, who: Staff, ref: str, version: Version) -> Response:
        def work(session: Session) -> str:
            treatment.sign(session, ref, by=who.actor, version=version, now=desk.clock(), cipher=desk.cipher)
            return "Signed. The treatment may go now: end the case when it has."

        return _act(desk, request, who, ref, work)


def _add_partners(router: APIRouter, desk: Clinic) -> None:
    @router.post("/cases/{ref}/partners")
    def partners_counted(request: Request, who: Staff, ref: str, form: Annotated[PartnersForm, Form()]) -> Response:
        def work(session: Session) -> str:
            partners.record_partners(
                session,
                ref,
                by=who.actor,
                version=form.version,
                partner=form.partner,
                counts=PartnerCounts(
                    form.elicited, form.contactable, form.notified, form.tested, form.verified, form.treated
                ),
                service=desk.service_of(session, ref, who).service,
                now=desk.clock(),
            )
            return f"Recorded: {say(form.partner)}. The partners are counted again four weeks after the first talk."

        return _act(desk, request, who, ref, work)

    @router.post("/cases/{ref}/letter")
    def letter(who: Staff, ref: str) -> Response:
        now = desk.clock()
        with desk.begin() as session:
            service = desk.service_of(session, ref, who).service
            details = casebook.letter_to(session, ref, by=who.actor, now=now, cipher=desk.cipher)
        pdf = desk.letters(
            given_name=details.given_name,
            family_name=details.family_name,
            address_lines=details.address_lines,
            postcode=details.postcode,
            sender=service.text_name,
            return_address=service.packing.return_address,
            phone=service.phone,
            phone_hours=service.phone_hours,
            ref=ref[:6].upper(),
            on=london_day(now),
            language=Language(details.language),
        )
        # Nothing of it is in the file's name.
        return Response(pdf, 200, {"Content-Disposition": 'attachment; filename="letter.pdf"'}, "application/pdf")


def _add_candour(router: APIRouter, desk: Clinic) -> None:
    @router.post("/cases/{ref}/candour")
    def record(
        request: Request,
        who: Staff,
        ref: str,
        *,
        version: Version,
        account: Annotated[str, Form()] = "",
        harm: Annotated[Harm, Form()],
        apologised: Annotated[bool, Form()] = False,
        offered: Annotated[bool, Form()] = False,
    ) -> Response:
        def work(session: Session) -> str:
            candour.record_candour(
                session,
                ref,
                by=who.actor,
                version=version,
                account=account,
                harm=harm,
                apologised=apologised,
                offered_in_writing=offered,
                now=desk.clock(),
                cipher=desk.cipher,
            )
            return "Recorded. A second, senior person signs it now."

        return _act(desk, request, who, ref, work, typed={"account": account})

    @router.post("/cases/{ref}/candour/sign")
    def sign(request: Request, who: Staff, ref: str, version: Version) -> Response:
        def work(session: Session) -> str:
            candour.sign_candour(session, ref, by=who.actor, version=version, now=desk.clock())
            return "Signed."

        return _act(desk, request, who, ref, work)


def _add_referrals(router: APIRouter, desk: Clinic) -> None:
    @router.post("/cases/{ref}/refer")
    def refer(
        request: Request,
        who: Staff,
        ref: str,
        *,
        version: Version,
        clinic_id: Annotated[str, Form(alias="clinic")] = "",
        asked: Annotated[ReferralFor, Form()],
        message: Annotated[str, Form()] = "",
        agreed: Annotated[bool, Form()] = False,
    ) -> Response:
        def work(session: Session) -> str:
            service = desk.service_of(session, ref, who).service
            referral.refer(
                session,
                ref,
                by=who.actor,
                version=version,
                clinic=clinic_id,
                asked=asked,
                message=message,
                agreed=agreed,
                has_bell=(service.id, clinic_id) in desk.bells,
                now=desk.clock(),
                service=service,
                cipher=desk.cipher,
            )
            return "Referred. The case stays open: what the clinic says shows here."

        return _act(desk, request, who, ref, work, typed={"message": message})

    def exported(who: SignedIn, ref: str) -> Handover:
        with desk.begin() as session:
            service = desk.service_of(session, ref, who).service
            return referral.export_case(
                session, ref, by=who.actor, now=desk.clock(), service=service, cipher=desk.cipher
            )

    @router.post("/cases/{ref}/referral-letter")
    def referral_letter(who: Staff, ref: str) -> Response:
        pdf = desk.referral_letters(exported(who, ref), london_day(desk.clock()))
        return Response(pdf, 200, {"Content-Disposition": 'attachment; filename="referral.pdf"'}, "application/pdf")

    @router.post("/cases/{ref}/export")
    def export(who: Staff, ref: str) -> Response:
        bundle = json.dumps(clinic_fhir.bundle_of(exported(who, ref)), indent=1, ensure_ascii=False)
        told = {"Content-Disposition": 'attachment; filename="case.json"'}
        return Response(bundle, 200, told, "application/fhir+json")


def _add_seals(router: APIRouter, desk: Clinic) -> None:
    def person_of(session: Session, ref: str, who: SignedIn) -> tuple[int, str]:
        case = find_case(session, ref, who.actor)
        order = order_of(session, case)
        if order is None:
            raise ServiceError(Code.NOT_FOUND, "This case is about no person: there is nothing to seal.")
        return order.person_id, case.service_id

    @router.post("/cases/{ref}/seal")
    def put(request: Request, who: Staff, ref: str, sealed: Annotated[bool, Form()]) -> Response:
        def work(session: Session) -> str:
            person_id, service_id = person_of(session, ref, who)
            check_may(who.actor, Action.SEAL_RECORDS, service_id)
            now = desk.clock()
            seal.check_unsealed(session, person_id, who.actor, now)  # to take a seal away is to have given a reason
            seal.set_seal(session, person_id=person_id, service_id=service_id, sealed=sealed, by=who.actor, now=now)
            return "The record is sealed." if sealed else "The seal is taken away."

        return _act(desk, request, who, ref, work, then="/worklist")

    @router.post("/cases/{ref}/break-seal")
    def break_open(request: Request, who: Staff, ref: str, because: Annotated[str, Form()] = "") -> Response:
        def work(session: Session) -> str:
            person_id, service_id = person_of(session, ref, who)
            seal.break_seal(
                session, person_id=person_id, service_id=service_id, because=because, by=who.actor, now=desk.clock()
            )
            return "You broke the seal. It is open to you for eight hours, and your reason is recorded."

        return _act(desk, request, who, ref, work)


def _day(written: str) -> date | None:
    """A day from a form; None for none. Raises ServiceError(BAD_INPUT)."""
    try:
        return date.fromisoformat(written) if written.strip() else None
    except ValueError:
        raise ServiceError(Code.BAD_INPUT, "This is no day: write it as 2026-11-24.") from None


def _add_kits(router: APIRouter, desk: Clinic) -> None:
    @router.get("/kits")
    def look_up(request: Request, who: Staff) -> Response:
        if not services_where(who.actor, Action.SEE_TIMELINE):
            raise ServiceError(Code.NOT_ALLOWED, "Your role does not see the timelines of kits.")
        return desk.pages.show("kits.html", request, title="Look up a kit", who=who)

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
