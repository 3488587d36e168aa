"""Clinic cases past their due time go up the ladder; what nobody took up gets a case; what is done is closed."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from prefect import flow

from app.database import Begin
from app.text_call import call
from app.wiring import TEMPLATES, Clock, connect
from flows.guard import guarded, log
from integrations.ports import ClinicBell, MailSender, NotSent, OutgoingMail, OutgoingText, Refused, TextSender, Unsure
from models.actions.clinic import escalate_due, open_and_overdue, open_missing_cases, return_stale_claims
from models.actions.duty import Notice, claim_notices, record_notice
from models.actions.referral import claim_rings, not_rung, rung
from models.actions.release import close_finished_kits
from models.actions.text_moves import machine_now
from models.actions.text_switch import chosen_provider
from models.rules.clinic import NoticeChannel
from models.rules.service import Service, ServiceInForce, Services
from models.rules.text_delivery import Answer, DidNotSend, MayHave, Took, WillNot
from models.rules.vocabulary import DeliveryStatus
from models.tables.clinic import NoticeState

ACTOR: Final = "flow:follow_up_positives"

AT_ONCE: Final = 200
"""Cases or kits in one transaction."""


@dataclass(slots=True)
class Tally:
    """Counts of one run: all that Prefect is told."""

    looked_at: int = 0
    steps_told: int = 0
    cases_opened: int = 0
    claims_ended: int = 0
    duty_texts: int = 0
    duty_mails: int = 0
    clinics_told: int = 0
    clinics_not_told: int = 0
    """Given up: their cases are due."""
    kits_closed: int = 0
    open: int = 0
    overdue: int = 0


@dataclass(frozen=True, slots=True)
class DutyWords:
    """What whoever is on duty is told, with places for how many and for whom."""

    body: str
    mail_subject: str
    mail_body: str


def load_duty_words(file: Path = TEMPLATES / "texts" / "duty.toml") -> DutyWords:
    """The words of the text and of the e-mail."""
    return DutyWords(**tomllib.loads(file.read_text(encoding="utf-8")))


@dataclass(frozen=True, slots=True)
class DutyTexts:
    """How duty phones are texted."""

    senders: Mapping[str, TextSender]
    provider: str
    """Where nobody chose another."""
    words: DutyWords


@dataclass(frozen=True, slots=True)
class DutyMails:
    """How duty mailboxes are written to."""

    post: MailSender
    worklist: str
    """Its address."""
    words: DutyWords


def follow_up(
    begin: Begin,
    services: Services,
    *,
    clock: Clock,
    limit: int,
    duty_texts: DutyTexts | None = None,
    duty_mails: DutyMails | None = None,
    bells: Mapping[tuple[str, str], ClinicBell] | None = None,
) -> Tally:
    """Tells up to about `limit` steps of each service's ladder, oldest due first. Safe to repeat and to run late.

    Cases whose holder has done nothing for too long go back to their queue, for anyone to see and take. Whoever is
    on duty is texted and written to where `duty_texts` and `duty_mails` say how.
    """
    now = clock()
    tally = Tally()
    for in_force in services.values():
        with begin() as session:
            tally.cases_opened += open_missing_cases(
                session, service=in_force.service, now=now, limit=limit, actor=ACTOR
            )
        with begin() as session:
            tally.claims_ended += return_stale_claims(
                session, service=in_force.service, now=now, limit=limit, actor=ACTOR
            )
        _escalate(begin, in_force, tally, now=now, limit=limit)
        if duty_texts is not None:
            _text_duty(begin, in_force, duty_texts, tally, now=now)
        if duty_mails is not None:
            _mail_duty(begin, in_force, duty_mails, tally, now=now)
        _ring_clinics(begin, in_force.service.id, bells or {}, tally, now=now)
    while tally.kits_closed < limit:
        with begin() as session:
            closed = close_finished_kits(session, limit=min(AT_ONCE, limit - tally.kits_closed), now=now, actor=ACTOR)
        tally.kits_closed += closed
        if not closed:
            break
    with begin() as session:
        tally.open, tally.overdue = open_and_overdue(session, now=now)
    return tally


def _text_duty(begin: Begin, in_force: ServiceInForce, duty_texts: DutyTexts, tally: Tally, *, now: datetime) -> None:
    """One text an hour to each duty phone: claimed and committed, called with no session open, written down."""
    service = in_force.service
    with begin() as session:
        claimed = claim_notices(session, service=service, channel=NoticeChannel.TEXT, now=now, limit=AT_ONCE)
        provider = chosen_provider(session) or duty_texts.provider
    for notice in claimed:
        body = duty_texts.words.body.format(**_says(notice, service))
        answer = call(duty_texts.senders[provider], OutgoingText(notice.ref, notice.to, body))
        with begin() as session:
            tally.duty_texts += record_notice(session, notice.id, answer, now=now) is NoticeState.SENT


def _mail_duty(begin: Begin, in_force: ServiceInForce, duty_mails: DutyMails, tally: Tally, *, now: datetime) -> None:
    """One e-mail an hour to each duty mailbox, in the same way."""
    service = in_force.service
    with begin() as session:
        claimed = claim_notices(session, service=service, channel=NoticeChannel.MAIL, now=now, limit=AT_ONCE)
    for notice in claimed:
        says = {**_says(notice, service), "worklist": duty_mails.worklist}
        words = duty_mails.words
        mail = OutgoingMail(
            notice.ref, notice.to, words.mail_subject.format(**says), words.mail_body.format(**says).strip() + "\n"
        )
        answer: Answer = Took("", DeliveryStatus.IN_FLIGHT)
        try:
            duty_mails.post.send(mail)
        except NotSent as error:
            answer = DidNotSend(error.code)
        except Refused as error:
            answer = WillNot(error.code, error.kind)
        except Unsure as error:
            answer = MayHave(error.code)
        with begin() as session:
            tally.duty_mails += record_notice(session, notice.id, answer, now=now) is NoticeState.SENT


def _ring_clinics(
    begin: Begin, service_id: str, bells: Mapping[tuple[str, str], ClinicBell], tally: Tally, *, now: datetime
) -> None:
    """Clinics' systems hear that referrals wait: claimed and committed, rung with no session open, written down."""
    with begin() as session:
        claimed, machine = claim_rings(session, service_id=service_id, limit=AT_ONCE), machine_now(session)
    for ring in claimed:
        bell = bells.get((service_id, ring.clinic))
        code, for_good = ("", False) if bell else ("no_bell", True)
        try:
            if bell:
                bell.ring(ring.ref, ring.made_at, now=machine)
        except NotSent as error:
            code = error.code
        except Refused as error:
            code, for_good = error.code, True
        with begin() as session:
            if code:
                tally.clinics_not_told += not_rung(session, ring, code, for_good=for_good, now=now)
            else:
                rung(session, ring)
                tally.clinics_told += 1


def _says(notice: Notice, service: Service) -> dict[str, str]:
    cases = f"{notice.cases} case{'' if notice.cases == 1 else 's'}"
    return {"sender": service.text_name, "cases": cases, "role": notice.role.replace("_", " ")}


def _escalate(begin: Begin, in_force: ServiceInForce, tally: Tally, *, now: datetime, limit: int) -> None:
    """Batch after batch, each going on where the last one ended: cases that wait for a step hold up no others."""
    told, after = 0, None
    while told < limit:
        with begin() as session:
            batch = escalate_due(
                session,
                now=now,
                service_id=in_force.service.id,
                policy=in_force.service.clinic,
                limit=AT_ONCE,
                actor=ACTOR,
                after=after,
            )
        tally.looked_at += batch.cases
        tally.steps_told += batch.steps
        told, after = told + batch.steps, batch.after
        if after is None:
            break


@flow(name="follow-up-positives", retries=0)
@guarded("follow-up-positives")
def follow_up_positives(limit: int = 500) -> None:
    """Follows clinic cases up."""
    product = connect()
    words = load_duty_words()
    worklist = f"{str(product.settings.public_base_url).rstrip('/')}/worklist"
    tally = follow_up(
        product.begin,
        product.services,
        clock=product.clock,
        limit=limit,
        duty_texts=DutyTexts(product.senders, product.text_provider, words),
        duty_mails=DutyMails(product.mail, worklist, words) if product.mail else None,
        bells=product.clinic_bells,
    )
    log.info(
        "follow-up-positives: %d looked at, %d steps told, %d cases opened, %d claims ended, %d duty texts, "
        "%d duty mails, %d clinics told, %d not, %d kits closed; %d open, %d overdue",
        tally.looked_at,
        tally.steps_told,
        tally.cases_opened,
        tally.claims_ended,
        tally.duty_texts,
        tally.duty_mails,
        tally.clinics_told,
        tally.clinics_not_told,
        tally.kits_closed,
        tally.open,
        tally.overdue,
    )
