"""Proving a mobile at order time: ask for a code, offer it back. For the ordering channels, with their keys.

The code goes out at once and at any hour, because somebody waits for it; it is sent once and never again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.database import Begin
from app.text_call import call
from app.web.api import Channel, ProblemRoute, caller_of, problems
from app.wiring import Clock, Wiring
from integrations.ports import OutgoingText, TextSender
from models.actions.order import Intake
from models.actions.text_switch import chosen_provider, may_call
from models.actions.verification import AskedCode, ask_for_code, offer_code, record_code_sent
from models.rules.errors import Code, ServiceError
from models.rules.phone import read_mobile
from models.rules.service import Service
from models.rules.text import TextClass
from models.rules.text_delivery import STOPPED, Answer
from models.rules.verification import CODE_DIGITS, LIFETIME, Offer
from models.rules.vocabulary import Language

_SENTENCES: Final[Mapping[Offer, str]] = {
    Offer.WRONG: "This is not the code that we sent: look at the text again.",
    Offer.OVER: "This code no longer counts: ask for a new one.",
}


class MobileIn(BaseModel):
    """The number to prove."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    mobile: Annotated[str, StringConstraints(max_length=40)] = Field(description="As the person writes it.")
    language: Language = Language.ENGLISH


class CodeIn(BaseModel):
    """What the person read in the text."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    code: Annotated[str, StringConstraints(strip_whitespace=True, max_length=20)]


class CodeSent(BaseModel):
    """A code is on its way."""

    verification_ref: str = Field(description="Offer the code under this reference, and name it in the order.")
    expires_at: datetime


class Proved(BaseModel):
    """The number is this person's."""

    verification_ref: str
    proved_at: datetime


@dataclass(frozen=True, slots=True)
class VerificationsApi:
    """All that the routes need, put together by wiring."""

    begin: Begin
    clock: Clock
    intake: Intake
    keys: Mapping[str, str]
    senders: Mapping[str, TextSender]
    text_provider: str
    words: Callable[[str, int, Language, Service], str]
    """The text that carries a code, good for so many minutes."""
    allow_test_numbers: bool


def verifications_api(home: Wiring) -> VerificationsApi:
    """The routes' needs, from an installation."""
    return VerificationsApi(
        home.begin,
        home.clock,
        home.intake,
        home.channel_keys,
        home.senders,
        home.text_provider,
        home.catalogue.code_words,
        home.allow_test_numbers,
    )


def verifications_router(api: VerificationsApi) -> APIRouter:
    """The routes under /api/verifications."""
    router = APIRouter(
        prefix="/api/verifications",
        tags=["verifications"],
        route_class=ProblemRoute,
        responses=problems(401),
        redirect_slashes=False,
    )
    Caller = Annotated[Channel, Depends(caller_of(api.keys, api.intake))]  # noqa: N806 - a type
    Ref = Annotated[str, Path(max_length=32)]  # noqa: N806 - a type

    @router.post("", summary="Text a code to a mobile", status_code=202, responses=problems(422, 429))
    def ask(by: Caller, asked: MobileIn) -> CodeSent:
        """Sends six digits, good for ten minutes and five tries. Ask again for another; it is never sent twice."""
        service = api.intake.service(by.service_id).service
        mobile = read_mobile(asked.mobile, allow_test_numbers=api.allow_test_numbers, policy=service.orders).e164
        with api.begin() as session:
            provider = chosen_provider(session) or api.text_provider
            made = ask_for_code(
                session,
                service_id=by.service_id,
                channel=by.name,
                mobile=mobile,
                provider=provider,
                now=api.clock(),
                indexes=api.intake.indexes,
            )
        answer = send(made, mobile, provider, asked.language, service)
        with api.begin() as session:
            sent = record_code_sent(session, made.ref, answer)
        if not sent:
            raise ServiceError(Code.NOT_NOW, "The code could not be sent: try again in a minute, or ring us.")
        return CodeSent(verification_ref=made.ref, expires_at=made.expires_at)

    def send(made: AskedCode, mobile: str, provider: str, language: Language, service: Service) -> Answer:
        body = api.words(made.code, int(LIFETIME.total_seconds() // 60), language, service)
        with api.begin() as session:
            on = may_call(session, service_id=service.id, text_class=TextClass.CODE)
        return call(api.senders[provider], OutgoingText(made.ref, mobile, body)) if on else STOPPED

    @router.post("/{verification_ref}/confirm", summary="Offer a code", responses=problems(404, 422))
    def confirm(by: Caller, verification_ref: Ref, offered: CodeIn) -> Proved:
        """Proves the number if the code is right. Repeating it with the right code changes nothing."""
        code = offered.code if len(offered.code) == CODE_DIGITS else ""
        with api.begin() as session:
            offer, proved = offer_code(
                session,
                verification_ref,
                code,
                service_id=by.service_id,
                channel=by.name,
                now=api.clock(),
                actor=by.actor,
                indexes=api.intake.indexes,
            )
        if proved is None:
            raise ServiceError(Code.BAD_INPUT, _SENTENCES[offer])
        return Proved(verification_ref=verification_ref, proved_at=proved)

    return router
