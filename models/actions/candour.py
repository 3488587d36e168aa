"""Openness with somebody who was told a result that turned out wrong: written by one person, signed by a second."""

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlmodel import Session, col, select

from models.actions.case import changed, id_of, leave_audit, locked
from models.rules.candour import LONGEST_ACCOUNT, Candour, Harm
from models.rules.clinic import AttemptResult, CaseKind
from models.rules.errors import Code, ServiceError
from models.rules.release import Reason
from models.rules.secrets import Cipher
from models.rules.staff import Action, Actor
from models.tables.clinic import CandourSignature, CaseAttempt, CaseCandour, ClinicCase
from models.tables.release import ReleaseDecision
from models.tables.result import Effect, LabFile, ResultVersion

_SPOKE: Final = col(CaseAttempt.result) == AttemptResult.SPOKE


@dataclass(frozen=True, slots=True)
class CandourLine:
    """What was written about one wrong result, and who signed it: '' while nobody has."""

    account: str
    harm: Harm
    apologised: bool
    offered_in_writing: bool
    actor: str
    occurred_at: datetime
    signed_by: str
    counts: bool
    """Whether it is about the news that stands now."""


def record_candour(  # noqa: PLR0913 - one form, by name
    session: Session,
    ref: str,
    *,
    by: Actor,
    version: int,
    account: str,
    harm: Harm,
    apologised: bool,
    offered_in_writing: bool,
    now: datetime,
    cipher: Cipher,
) -> None:
    """Writes down what its person was told. Raises ServiceError(BAD_INPUT) without an account or an apology.

    Raises ServiceError(NOT_NOW) where nobody was told what changed, or nobody has spoken to them since.
    """
    case = locked(session, ref, by, version, now=now)
    corrected_at = _corrected_at(session, case)
    if corrected_at is None or state_of(session, case) is Candour.NOT_NEEDED:
        raise ServiceError(Code.NOT_NOW, "Nobody was told a result that has changed here.")
    if not _spoken_since(session, case, corrected_at):
        raise ServiceError(Code.NOT_NOW, "Record first that you spoke to them.")
    if not account.strip() or len(account) > LONGEST_ACCOUNT:
        raise ServiceError(
            Code.BAD_INPUT, f"Say what was wrong and what you said about it, in up to {LONGEST_ACCOUNT} characters."
        )
    if not apologised:
        raise ServiceError(Code.BAD_INPUT, "Say sorry first: an apology is part of it, and admits no fault.")
    candour_ref = secrets.token_hex(16)
    session.add(
        CaseCandour(
            ref=candour_ref,
            case_id=id_of(case),
            account=cipher.encrypt("case_candour", "account", candour_ref, account.strip()),
            harm=harm,
            apologised=apologised,
            offered_in_writing=offered_in_writing,
            actor=by.audit_name,
            occurred_at=now,
        )
    )
    case.assignee = ""
    changed(session, case, "case.candour_recorded", by, now, harm=harm.value)


def sign_candour(session: Session, ref: str, *, by: Actor, version: int, now: datetime) -> None:
    """Signs what another person wrote. Raises ServiceError(NOT_NOW) where nothing waits or it is one's own."""
    case = locked(session, ref, by, version, now=now, needs=Action.SIGN_CANDOUR, held_by_anyone=True)
    newest = _newest(session, case, _corrected_at(session, case))
    if newest is None or _signature(session, newest) is not None:
        raise ServiceError(Code.NOT_NOW, "Nothing waits for a signature here.")
    if newest.actor == by.audit_name:
        raise ServiceError(Code.NOT_NOW, "A second person signs: nobody signs their own account.")
    assert newest.id is not None  # a stored row
    session.add(CandourSignature(candour_id=newest.id, actor=by.audit_name, occurred_at=now))
    case.version += 1
    session.add(case)
    leave_audit(session, case, "case.candour_signed", by, now)


def state_of(session: Session, case: ClinicCase) -> Candour:
    """How far openness has come with the correction that is the newest."""
    corrected_at = _corrected_at(session, case) if case.kind is CaseKind.CORRECTION else None
    if corrected_at is None or not _was_told(session, case, corrected_at):
        return Candour.NOT_NEEDED
    newest = _newest(session, case, corrected_at)
    if newest is None:
        return Candour.MISSING
    return Candour.WRITTEN if _signature(session, newest) is None else Candour.SIGNED


def candour_of(session: Session, case: ClinicCase, cipher: Cipher) -> list[CandourLine]:
    """All that was written, newest first."""
    corrected_at = _corrected_at(session, case)
    found = session.exec(
        select(CaseCandour, CandourSignature.actor)
        .join(CandourSignature, col(CandourSignature.candour_id) == col(CaseCandour.id), isouter=True)
        .where(CaseCandour.case_id == case.id)
        .order_by(col(CaseCandour.id).desc())
    )
    return [
        CandourLine(
            cipher.decrypt("case_candour", "account", row.ref, row.account),
            row.harm,
            row.apologised,
            row.offered_in_writing,
            row.actor,
            row.occurred_at,
            signed_by or "",
            corrected_at is None or row.occurred_at >= corrected_at,
        )
        for row, signed_by in found
    ]


def _corrected_at(session: Session, case: ClinicCase) -> datetime | None:
    """When the newest correction of this kit's results came; None where there is none."""
    return session.exec(
        select(sa.func.max(col(LabFile.arrived_at)))
        .join(ResultVersion, col(ResultVersion.file_id) == col(LabFile.id))
        .where(ResultVersion.kit_id == case.kit_id, col(ResultVersion.effect).in_([Effect.CORRECTION, Effect.FROZEN]))
    ).one()


def _was_told(session: Session, case: ClinicCase, corrected_at: datetime) -> bool:
    """Whether the person heard something before: by a text, as the decision found, or from one of us."""
    decision = session.get(ReleaseDecision, case.decision_id) if case.decision_id is not None else None
    if decision is not None and Reason.CORRECTED_AFTER_TOLD.value in decision.reasons:
        return True
    before = sa.and_(col(CaseAttempt.case_id) == case.id, col(CaseAttempt.occurred_at) < corrected_at)
    return session.exec(select(CaseAttempt.id).where(before, _SPOKE).limit(1)).first() is not None


def _spoken_since(session: Session, case: ClinicCase, corrected_at: datetime) -> bool:
    since = sa.and_(col(CaseAttempt.case_id) == case.id, col(CaseAttempt.occurred_at) >= corrected_at)
    return session.exec(select(CaseAttempt.id).where(since, _SPOKE).limit(1)).first() is not None


def _newest(session: Session, case: ClinicCase, corrected_at: datetime | None) -> CaseCandour | None:
    if corrected_at is None:
        return None
    return session.exec(
        select(CaseCandour)
        .where(CaseCandour.case_id == case.id, CaseCandour.occurred_at >= corrected_at)
        .order_by(col(CaseCandour.id).desc())
        .limit(1)
    ).one_or_none()


def _signature(session: Session, candour: CaseCandour) -> CandourSignature | None:
    return session.exec(select(CandourSignature).where(CandourSignature.candour_id == candour.id)).one_or_none()
