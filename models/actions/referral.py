"""Hands cases over to a clinic's own record, tells its system that one waits, and hears what becomes of the person.

What a clinic is told by itself is that a referral waits, by an opaque reference; whom it is about it fetches with its
own key, which is an export and leaves an audit entry. That bell may ring twice: its reference says that it is the same.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col, select

from models.actions import audit, event, owed
from models.actions.case import changed, contact_of, find_case, id_of, locked, order_of
from models.actions.seal import check_unsealed
from models.actions.text_moves import machine_now
from models.rules.clinic import SEEN, AttemptResult, CaseKind, ClinicSays
from models.rules.errors import Code, ServiceError
from models.rules.order import read_address
from models.rules.referral import (
    LONGEST_MESSAGE,
    MOST_RINGS,
    BellState,
    ClinicWord,
    HandedResult,
    Handover,
    ReferralFor,
    due_after_referral,
    due_after_word,
    patience,
)
from models.rules.secrets import Cipher
from models.rules.service import ReferralClinic, Service
from models.rules.staff import Action, Actor, check_may
from models.rules.text import TextPurpose
from models.rules.vocabulary import Site, Test
from models.tables.clinic import CaseAttempt, ClinicCase, ClinicWordRow, Referral
from models.tables.kit import Kit, KitTest
from models.tables.order import Order
from models.tables.person import Person
from models.tables.result import ResultSeries, ResultVersion
from models.tables.text import Text, TextState

LEASE: Final = timedelta(minutes=2)
"""Machine time after which a ring that nobody answered for is rung again."""

LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)

NO_CLINIC: Final = ReferralClinic("", "")


def refer(  # noqa: PLR0913 - one form, by name
    session: Session,
    ref: str,
    *,
    by: Actor,
    version: int,
    clinic: str,
    asked: ReferralFor,
    message: str,
    agreed: bool,
    has_bell: bool,
    now: datetime,
    service: Service,
    cipher: Cipher,
) -> str:
    """Hands a case over to a clinic, with the person's agreement; returns the referral's reference.

    The case stays open. Raises ServiceError(BAD_INPUT) without the agreement, for an unknown clinic or too long a
    message, ServiceError(NOT_NOW) for a case about nobody.
    """
    case = locked(session, ref, by, version, now=now, needs=Action.REVEAL_CONTACT)
    order = order_of(session, case)
    if order is None:
        raise ServiceError(Code.NOT_NOW, "This case is about no person: there is nobody to refer.")
    check_unsealed(session, order.person_id, by, now)
    if service.clinic_named(clinic) is None:
        raise ServiceError(Code.BAD_INPUT, "Choose one of the clinics that are listed.")
    if not agreed:
        raise ServiceError(Code.BAD_INPUT, "Ask the person first, and tick that they agreed.")
    if len(message) > LONGEST_MESSAGE:
        raise ServiceError(Code.BAD_INPUT, f"A clinic reads up to {LONGEST_MESSAGE} characters: shorten it.")
    referral_ref = secrets.token_hex(16)
    session.add(
        Referral(
            ref=referral_ref,
            service_id=case.service_id,
            case_id=id_of(case),
            clinic=clinic,
            asked=asked,
            message=cipher.encrypt("referral", "message", referral_ref, message.strip()) if message.strip() else None,
            bell=BellState.OWED if has_bell else BellState.NONE,
            actor=by.audit_name,
            made_at=now,
        )
    )
    due = due_after_referral(now, case.due_at, service.clinic)
    if due != case.due_at:
        case.due_at, case.escalation = due, 0
    case.assignee = by.audit_name
    _tell(session, case, "referral.made", actor=by.audit_name, at=now, clinic=clinic, asked=asked.value)
    changed(session, case, "case.referred", by, now, clinic=clinic, asked=asked.value)
    return referral_ref


def export_case(session: Session, ref: str, *, by: Actor, now: datetime, service: Service, cipher: Cipher) -> Handover:
    """All about one case, and its newest referral if it has one, for who may see whom it is about. Audited."""
    case = find_case(session, ref, by)
    for needed in (Action.REVEAL_CONTACT, Action.READ_RESULTS):
        check_may(by, needed, case.service_id)
    order = order_of(session, case)
    if order is None:
        raise ServiceError(Code.NOT_NOW, "This case is about no person: there is nothing to export.")
    check_unsealed(session, order.person_id, by, now)
    newest = session.exec(
        select(Referral).where(Referral.case_id == case.id).order_by(col(Referral.id).desc()).limit(1)
    ).one_or_none()
    audit.record(
        session,
        action="case.exported",
        subject="clinic_case",
        subject_id=id_of(case),
        actor=by.audit_name,
        now=now,
        service_id=case.service_id,
        person_id=order.person_id,
    )
    return _handover(session, case, order, newest, service=service, now=now, cipher=cipher)


# ── The clinic's side ────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ClinicSystem:
    """A clinic's own system, as its key proves it."""

    service_id: str
    clinic: str

    @property
    def actor(self) -> str:
        """How the audit names it."""
        return f"clinic:{self.service_id}/{self.clinic}"


def waiting_for(session: Session, by: ClinicSystem, *, limit: int) -> Sequence[Referral]:
    """Referrals that this clinic has not fetched, oldest first. Nothing of whom they are about."""
    return session.exec(
        select(Referral)
        .where(
            Referral.service_id == by.service_id,
            Referral.clinic == by.clinic,
            col(Referral.fetched_at).is_(None),
        )
        .order_by(col(Referral.id))
        .limit(limit)
    ).all()


def fetch(session: Session, ref: str, *, by: ClinicSystem, now: datetime, service: Service, cipher: Cipher) -> Handover:
    """One referral, whole, for the clinic that it was made to: as it stands now. Audited as an export.

    The first fetch is the clinic's receipt. Raises ServiceError(NOT_FOUND), also for another clinic's.
    """
    referral = _of(session, ref, by)
    case = session.get_one(ClinicCase, referral.case_id)
    order = order_of(session, case)
    assert order is not None  # only a case about a person is referred
    referral.fetched_at = referral.fetched_at or now
    if referral.bell in {BellState.OWED, BellState.RINGING}:
        referral.bell, referral.claimed_until, referral.ring_at = BellState.RUNG, None, None
    session.add(referral)
    audit.record(
        session,
        action="referral.fetched",
        subject="clinic_case",
        subject_id=id_of(case),
        actor=by.actor,
        now=now,
        service_id=case.service_id,
        person_id=order.person_id,
        referral=referral.ref,
    )
    return _handover(session, case, order, referral, service=service, now=now, cipher=cipher)


@dataclass(frozen=True, slots=True)
class Heard:
    """What became of a clinic's word: whether it is new, and whether it was said of the person referred."""

    is_new: bool
    of_the_person: bool


def hear(
    session: Session, word: ClinicWord, *, key: str, by: ClinicSystem, now: datetime, service: Service, cipher: Cipher
) -> Heard:
    """Takes down what a clinic says, and moves when somebody looks at the case again. Safe to repeat under its key.

    Said of somebody born on another day it moves nothing: a clinician has a case with the doubt. A person who did not
    come has an open case again, whatever ended it. Raises ServiceError(NOT_FOUND), ServiceError(CONFLICT) for a key
    that was used for something else, ServiceError(BAD_INPUT) for what has not happened yet.
    """
    referral = _of(session, word.referral, by)
    case = session.get_one(ClinicCase, referral.case_id)
    if case.kit_id is not None:
        session.exec(select(Kit.id).where(Kit.id == case.kit_id).with_for_update())
    session.refresh(case, with_for_update=True)
    order = order_of(session, case)
    assert order is not None  # only a case about a person is referred
    if word.says is not ClinicSays.BOOKED and word.happened_at > now + timedelta(days=1):
        raise ServiceError(Code.BAD_INPUT, "This lies in the future: only an appointment may.")
    person = session.get_one(Person, order.person_id)
    born = cipher.decrypt("person", "date_of_birth", person.ref, person.date_of_birth)
    of_the_person = born == word.born_on.isoformat()
    heard = session.scalars(
        insert(ClinicWordRow)
        .values(
            service_id=by.service_id,
            clinic=by.clinic,
            key=key,
            referral_id=referral.id,
            says=word.says,
            happened_at=word.happened_at,
            of_the_person=of_the_person,
            heard_at=now,
        )
        .on_conflict_do_nothing(index_elements=["service_id", "clinic", "key"])
        .returning(ClinicWordRow)
    ).one_or_none()
    if heard is None:
        return _heard_before(session, word, referral, of_the_person=of_the_person, key=key, by=by)
    if not of_the_person:
        _doubt(session, case, order, referral, service=service, now=now, actor=by.actor)
        return Heard(is_new=True, of_the_person=False)
    _move_case(session, case, word, service=service, now=now, actor=by.actor)
    return Heard(is_new=True, of_the_person=True)


def _heard_before(
    session: Session, word: ClinicWord, referral: Referral, *, of_the_person: bool, key: str, by: ClinicSystem
) -> Heard:
    known = session.exec(
        select(ClinicWordRow).where(
            ClinicWordRow.service_id == by.service_id, ClinicWordRow.clinic == by.clinic, ClinicWordRow.key == key
        )
    ).one()
    same = (known.referral_id, known.says, known.happened_at, known.of_the_person)
    if same != (referral.id, word.says, word.happened_at, of_the_person):
        raise ServiceError(Code.CONFLICT, "This correlation id was used for something else: send it under a new one.")
    return Heard(is_new=False, of_the_person=of_the_person)


def _doubt(
    session: Session,
    case: ClinicCase,
    order: Order,
    referral: Referral,
    *,
    service: Service,
    now: datetime,
    actor: str,
) -> None:
    doubt = owed.OwedCase(
        key=f"referral:{referral.ref}:person",
        kind=CaseKind.IDENTITY,
        order_id=order.id,
        kit_id=case.kit_id,
        detail={"why": "clinic_means_another"},
    )
    owed.owe_cases(session, [doubt], service=service, now=now, actor=actor)


def _move_case(
    session: Session, case: ClinicCase, word: ClinicWord, *, service: Service, now: datetime, actor: str
) -> None:
    _tell(session, case, f"clinic.{word.says.value}", actor=actor, at=min(word.happened_at, now))
    if last_word(session, case) is not word.says:
        return  # something that happened later was heard before
    if word.says in SEEN and case.kit_id is not None:
        purposes = [TextPurpose.PLEASE_EXPECT_OUR_CALL, TextPurpose.DELAYED]
        owed.cancel_texts(session, [case.kit_id], because="seen_at_clinic", now=now, purposes=purposes)
    if case.closed_at is not None:
        if word.says in {ClinicSays.DID_NOT_ATTEND, ClinicSays.CANCELLED}:
            again = owed.OwedCase(
                key=case.key,
                kind=case.kind,
                order_id=case.order_id,
                kit_id=case.kit_id,
                decision_id=case.decision_id,
                owner_role=case.owner_role,
            )
            owed.owe_cases(session, [again], service=service, now=now, actor=actor)
        return
    due = due_after_word(word.says, word.happened_at, now=now, due=case.due_at, policy=service.clinic)
    if due != case.due_at:
        case.due_at, case.escalation = due, 0
    case.version += 1
    session.add(case)
    audit.record(
        session,
        action="case.clinic_said",
        subject="clinic_case",
        subject_id=id_of(case),
        actor=actor,
        now=now,
        service_id=case.service_id,
        says=word.says.value,
    )


# ── The bell ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Ring:
    """One referral that a clinic's system is to be told of: that it waits, and nothing else."""

    id: int
    ref: str
    clinic: str
    made_at: datetime


def claim_rings(session: Session, *, service_id: str, limit: int) -> list[Ring]:
    """Takes what is to be rung now. What was begun and never answered for is rung again."""
    machine = machine_now(session)
    due = session.exec(
        select(Referral)
        .where(
            Referral.service_id == service_id,
            sa.or_(
                sa.and_(
                    col(Referral.bell) == BellState.OWED,
                    sa.or_(col(Referral.ring_at).is_(None), col(Referral.ring_at) <= machine),
                ),
                sa.and_(col(Referral.bell) == BellState.RINGING, col(Referral.claimed_until) < machine),
            ),
        )
        .order_by(col(Referral.ring_at).nulls_first(), col(Referral.id))
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    for referral in due:
        referral.bell, referral.claimed_until, referral.ring_at = BellState.RINGING, machine + LEASE, None
        session.add(referral)
    return [Ring(each.id, each.ref, each.clinic, each.made_at) for each in due if each.id is not None]


def rung(session: Session, ring: Ring) -> None:
    """The clinic's system heard it."""
    referral = session.get_one(Referral, ring.id, with_for_update=True)
    if referral.bell is BellState.RINGING:
        referral.bell, referral.claimed_until, referral.error_code = BellState.RUNG, None, ""
        session.add(referral)


def not_rung(session: Session, ring: Ring, code: str, *, for_good: bool, now: datetime) -> bool:
    """The clinic's system did not take it: rung again later, or given up, and its case is due now. True then."""
    machine, referral = machine_now(session), session.get_one(Referral, ring.id, with_for_update=True)
    if referral.bell is not BellState.RINGING:
        return False
    referral.rings, referral.claimed_until, referral.error_code = referral.rings + 1, None, code[:40]
    session.add(referral)
    if not for_good and referral.rings < MOST_RINGS:
        referral.bell, referral.ring_at = BellState.OWED, machine + patience(referral.rings)
        return False
    referral.bell = BellState.GIVEN_UP
    case = session.get_one(ClinicCase, referral.case_id, with_for_update=True)
    if case.closed_at is None and case.due_at > now:
        case.due_at, case.escalation, case.version = now, 0, case.version + 1
        session.add(case)
    audit.record(
        session,
        action="referral.not_told",
        subject="clinic_case",
        subject_id=id_of(case),
        actor="flow:follow_up_positives",
        now=now,
        service_id=referral.service_id,
        code=code[:40],
    )
    return True


# ── Reading ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ReferralLine:
    """One referral of a case, and what the clinic said of it, oldest first."""

    clinic: str
    asked: ReferralFor
    message: str
    actor: str
    made_at: datetime
    bell: BellState
    fetched_at: datetime | None
    said: Sequence[tuple[ClinicSays, datetime]]


def referrals_of(session: Session, case: ClinicCase, cipher: Cipher) -> list[ReferralLine]:
    """The referrals of a case, newest first. What was said of somebody else is not here."""
    rows = session.exec(select(Referral).where(Referral.case_id == case.id).order_by(col(Referral.id).desc())).all()
    said: dict[int, list[tuple[ClinicSays, datetime]]] = {}
    for word in session.exec(
        select(ClinicWordRow)
        .where(col(ClinicWordRow.referral_id).in_([row.id for row in rows]), col(ClinicWordRow.of_the_person))
        .order_by(col(ClinicWordRow.happened_at), col(ClinicWordRow.id))
    ):
        said.setdefault(word.referral_id, []).append((word.says, word.happened_at))
    return [
        ReferralLine(
            row.clinic,
            row.asked,
            cipher.decrypt("referral", "message", row.ref, row.message) if row.message else "",
            row.actor,
            row.made_at,
            row.bell,
            row.fetched_at,
            said.get(row.id or 0, ()),
        )
        for row in rows
    ]


def last_word(session: Session, case: ClinicCase, since: datetime = LONG_AGO) -> ClinicSays | None:
    """What a clinic said last of the person of this case, of what happened since some moment."""
    found = session.exec(
        select(ClinicWordRow.says)
        .join(Referral, col(Referral.id) == col(ClinicWordRow.referral_id))
        .where(Referral.case_id == case.id, col(ClinicWordRow.of_the_person), col(ClinicWordRow.heard_at) >= since)
        .order_by(col(ClinicWordRow.happened_at).desc(), col(ClinicWordRow.id).desc())
        .limit(1)
    ).one_or_none()
    return ClinicSays(found) if found else None


def _of(session: Session, ref: str, by: ClinicSystem) -> Referral:
    found = session.exec(
        select(Referral)
        .where(Referral.ref == ref, Referral.service_id == by.service_id, Referral.clinic == by.clinic)
        .with_for_update()
    ).one_or_none()
    if found is None:
        raise ServiceError(Code.NOT_FOUND, "There is no such referral to this clinic.")
    return found


def _handover(
    session: Session,
    case: ClinicCase,
    order: Order,
    referral: Referral | None,
    *,
    service: Service,
    now: datetime,
    cipher: Cipher,
) -> Handover:
    contact = contact_of(session, case)
    assert contact is not None  # an order has one
    person = session.get_one(Person, order.person_id)
    kit = session.get(Kit, case.kit_id) if case.kit_id is not None else None
    address = read_address(cipher.decrypt("person", "residence", person.ref, person.residence))
    to = (service.clinic_named(referral.clinic) if referral else None) or NO_CLINIC
    results = _results(session, kit)
    come = {(each.test, each.site) for each in results}

    def opened(column: str) -> str:
        return cipher.decrypt("person", column, person.ref, getattr(person, column))

    return Handover(
        ref=referral.ref if referral else case.ref,
        asked=referral.asked if referral else None,
        message=_message(referral, cipher),
        made_at=referral.made_at if referral else now,
        service=service.name,
        phone=service.phone,
        clinic=to.name,
        clinic_lines=to.lines,
        given_name=opened("given_name"),
        family_name=opened("family_name"),
        born_on=date.fromisoformat(opened("date_of_birth")),
        mobile=cipher.decrypt("contact", "mobile", contact.ref, contact.mobile),
        address_lines=address.lines,
        postcode=address.postcode,
        language=contact.language,
        kit_code=kit.code if kit else "",
        lab=kit.lab if kit else "",
        results=results,
        pending=[pair for pair in _requested(session, kit) if pair not in come],
        told=_told(session, case, order),
        agreed_to=[
            way
            for way, agreed in (
                ("text", contact.text_consent),
                ("voicemail", contact.voicemail_consent),
                ("letter", contact.letter_consent),
            )
            if agreed
        ],
        safe_times=contact.safe_times,
    )


def _message(referral: Referral | None, cipher: Cipher) -> str:
    if referral is None or referral.message is None:
        return ""
    return cipher.decrypt("referral", "message", referral.ref, referral.message)


def _results(session: Session, kit: Kit | None) -> list[HandedResult]:
    found = session.exec(
        select(ResultVersion, ResultSeries)
        .join(ResultSeries, col(ResultSeries.current_version_id) == col(ResultVersion.id))
        .where(ResultSeries.kit_id == (kit.id if kit else None))
        .order_by(col(ResultSeries.test), col(ResultSeries.site), col(ResultSeries.id))
    )
    return [
        HandedResult(version.test, version.site, version.outcome, version.status, series.accession, version.lab_time)
        for version, series in found
    ]


def _requested(session: Session, kit: Kit | None) -> list[tuple[Test, Site]]:
    rows = session.exec(select(KitTest).where(KitTest.kit_id == (kit.id if kit else None)))
    return sorted((row.test, row.site) for row in rows)


def _told(session: Session, case: ClinicCase, order: Order) -> list[tuple[str, datetime]]:
    texts = session.exec(
        select(Text.purpose, Text.sent_at).where(
            Text.order_id == order.id,
            col(Text.state).in_([TextState.ACCEPTED, TextState.DELIVERED]),
            col(Text.sent_at).is_not(None),
        )
    )
    talks = session.exec(
        select(CaseAttempt.result, CaseAttempt.occurred_at).where(
            CaseAttempt.case_id == case.id, CaseAttempt.result == AttemptResult.SPOKE
        )
    )
    told = [(str(purpose), at) for purpose, at in texts if at is not None]
    return sorted([*told, *((str(result), at) for result, at in talks)], key=lambda each: each[1])


def _tell(session: Session, case: ClinicCase, kind: str, *, actor: str, at: datetime, **detail: object) -> None:
    if case.kit_id is not None:
        event.record(session, kit_id=case.kit_id, service_id=case.service_id, kind=kind, actor=actor, at=at, **detail)
