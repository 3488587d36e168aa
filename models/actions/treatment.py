"""Treatment of chlamydia without a visit: asked for with the person's answers, signed by a prescriber (H15)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from sqlmodel import Session, col, select

from models.actions.case import changed, id_of, locked, order_of
from models.rules.errors import Code, ServiceError
from models.rules.person import age_on
from models.rules.release import Current, Target, digest
from models.rules.secrets import Cipher
from models.rules.staff import Action, Actor
from models.rules.treatment import (
    REMOTE,
    Treatment,
    TreatmentBar,
    TreatmentFacts,
    TreatmentQuestion,
    bars_to_remote,
)
from models.rules.vocabulary import Outcome, Site, Test
from models.rules.working_days import london_day
from models.tables.clinic import ClinicCase, TreatmentRequest, TreatmentSignature
from models.tables.kit import Kit, KitTest
from models.tables.person import Person
from models.tables.result import ResultSeries


@dataclass(frozen=True, slots=True)
class StandingRequest:
    """The newest wish to treat without a visit, while the results are still those that it rests on."""

    id: int
    way: Treatment
    asked_by: str
    asked_at: datetime
    signed_by: str
    """Empty until a prescriber signed."""


def ask_for_remote(
    session: Session,
    ref: str,
    *,
    by: Actor,
    version: int,
    way: Treatment,
    answers: Mapping[TreatmentQuestion, bool],
    now: datetime,
    cipher: Cipher,
) -> None:
    """Keeps the wish to treat by post or at a pharmacy, if nothing speaks against it.

    Raises ServiceError(NOT_NOW) that names what does.
    """
    case = locked(session, ref, by, version, now=now)
    if way not in REMOTE:
        raise ServiceError(Code.BAD_INPUT, "Choose by post or at a pharmacy: a visit needs no signature.")
    stands_on = _check_open_to_remote(session, case, answers, now=now, cipher=cipher)
    session.add(
        TreatmentRequest(
            case_id=id_of(case),
            way=way,
            answers={question.value: answers.get(question, True) for question in TreatmentQuestion},
            stands_on=stands_on,
            actor=by.audit_name,
            occurred_at=now,
        )
    )
    case.assignee = ""  # the prescriber takes it from here
    changed(session, case, "treatment.asked_for", by, now, way=way.value)


def sign(session: Session, ref: str, *, by: Actor, version: int, now: datetime, cipher: Cipher) -> None:
    """A prescriber signs for the standing wish: everything is asked of the results once more.

    Raises ServiceError(NOT_NOW) where there is none, or something speaks against it now.
    """
    case = locked(session, ref, by, version, now=now, needs=Action.PRESCRIBE, held_by_anyone=True)
    standing = standing_request(session, case)
    if standing is None or standing.signed_by:
        raise ServiceError(Code.NOT_NOW, "There is nothing to sign: the results changed, or it is signed already.")
    row = session.get_one(TreatmentRequest, standing.id)
    _check_open_to_remote(
        session, case, {TreatmentQuestion(word): said for word, said in row.answers.items()}, now=now, cipher=cipher
    )
    session.add(TreatmentSignature(request_id=standing.id, actor=by.audit_name, occurred_at=now))
    changed(session, case, "treatment.signed", by, now, way=standing.way.value)


def standing_request(session: Session, case: ClinicCase) -> StandingRequest | None:
    """The newest wish of a case, unless the results changed since."""
    found = session.exec(
        select(TreatmentRequest, TreatmentSignature.actor)
        .join(TreatmentSignature, col(TreatmentSignature.request_id) == col(TreatmentRequest.id), isouter=True)
        .where(col(TreatmentRequest.case_id) == case.id)
        .order_by(col(TreatmentRequest.id).desc())
        .limit(1)
    ).first()
    if found is None:
        return None
    row, signed_by = found
    if row.stands_on != digest(_current(session, case)) or row.id is None:
        return None
    return StandingRequest(row.id, row.way, row.actor, row.occurred_at, signed_by or "")


def signed_way(session: Session, case: ClinicCase) -> Treatment | None:
    """The way of treatment that a prescriber signed for these very results."""
    standing = standing_request(session, case)
    return standing.way if standing is not None and standing.signed_by else None


def bars(
    session: Session, case: ClinicCase, answers: Mapping[TreatmentQuestion, bool], *, now: datetime, cipher: Cipher
) -> tuple[TreatmentBar, ...]:
    """Everything that speaks against treating this case's person without a visit."""
    kit = session.get(Kit, case.kit_id) if case.kit_id is not None else None
    order = order_of(session, case)
    person = session.get(Person, order.person_id) if order else None
    if kit is None or person is None:
        return (TreatmentBar.NO_CHLAMYDIA,)
    wanted = session.exec(select(KitTest.test, KitTest.site).where(col(KitTest.kit_id) == kit.id))
    born = date.fromisoformat(cipher.decrypt("person", "date_of_birth", person.ref, person.date_of_birth))
    current = _current(session, case)
    return bars_to_remote(
        TreatmentFacts(
            requested=frozenset((Test(test), Site(site)) for test, site in wanted),
            current={target: result.outcome for target, result in current.items()},
            changed=kit.frozen_at is not None or any(result.corrected for result in current.values()),
            age_years=age_on(born, london_day(now)),
            answers=answers,
        )
    )


def _check_open_to_remote(
    session: Session, case: ClinicCase, answers: Mapping[TreatmentQuestion, bool], *, now: datetime, cipher: Cipher
) -> str:
    """The digest of the results that allow it. Raises ServiceError(NOT_NOW)."""
    if found := bars(session, case, answers, now=now, cipher=cipher):
        against = ", ".join(bar.value.replace("_", " ") for bar in found)
        raise ServiceError(Code.NOT_NOW, f"This takes a visit: {against}.")
    return digest(_current(session, case))


def _current(session: Session, case: ClinicCase) -> dict[Target, Current]:
    # Of two series for one target whatever is not negative comes last, and counts.
    found = session.exec(
        select(ResultSeries)
        .where(col(ResultSeries.kit_id) == case.kit_id)
        .order_by(col(ResultSeries.outcome) != Outcome.NEGATIVE, col(ResultSeries.id))
    )
    return {
        (series.test, series.site): Current(Outcome(series.outcome), series.current_version_id, series.corrected)
        for series in found
    }
