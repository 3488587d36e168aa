"""Duty phones: when the ladder tells a role about cases, its phone gets one text an hour that says how many.

No case, kit, person or result is in it: it sends its reader to the worklist. A text that may have gone is never
sent again: the worklist says the same, and the next hour tells anew.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col, select

from models.actions.text_moves import machine_now
from models.actions.text_switch import sending_stopped
from models.rules.service import ClinicPolicy, Service, TextWindow
from models.rules.text_delivery import Answer, DidNotSend, MayHave, Took, WillNot
from models.rules.working_days import is_open
from models.tables.clinic import DutyNotice, NoticeState

LEASE: Final = timedelta(minutes=2)
"""Machine time after which a call that nobody answered for may have gone."""


@dataclass(frozen=True, slots=True)
class DutyText:
    """One text to one duty phone."""

    id: int
    ref: str
    to_e164: str = field(repr=False)
    role: str
    cases: int


def owe_notices(
    session: Session, told: Mapping[str, int], *, service_id: str, policy: ClinicPolicy, now: datetime
) -> None:
    """Owes each told role that has a duty phone its text of this hour, or adds to the one that has not left yet."""
    for role, cases in told.items():
        if role not in (policy.duty_phones or {}):
            continue
        owed = insert(DutyNotice).values(
            ref=secrets.token_hex(16),
            service_id=service_id,
            role=role,
            hour_at=now.replace(minute=0, second=0, microsecond=0),
            cases=cases,
            state=NoticeState.OWED,
            error_code="",
            provider_id="",
            owed_at=now,
        )
        session.execute(
            owed.on_conflict_do_update(
                index_elements=["service_id", "role", "hour_at"],
                set_={"cases": sa.text("duty_notice.cases + excluded.cases")},
                where=sa.text("duty_notice.state = 'owed'"),
            )
        )


def claim_notices(session: Session, *, service: Service, now: datetime, limit: int) -> list[DutyText]:
    """Takes texts that are owed to this service's duty phones: in its working hours, and while sending is not stopped.

    A call that was begun and never answered for becomes unsure, and is left at that.
    """
    machine = machine_now(session)
    session.execute(
        sa.update(DutyNotice)
        .where(col(DutyNotice.state) == NoticeState.SENDING, col(DutyNotice.claimed_until) < machine)
        .values(state=NoticeState.UNSURE, settled_at=now)
        .execution_options(synchronize_session=False)
    )
    hours = TextWindow(service.clinic.opens, service.clinic.closes, working_days_only=True)
    if not is_open(now, hours) or sending_stopped(session):
        return []
    owed = session.exec(
        select(DutyNotice)
        .where(col(DutyNotice.service_id) == service.id, col(DutyNotice.state) == NoticeState.OWED)
        .order_by(col(DutyNotice.id))
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    phones = service.clinic.duty_phones or {}
    taken = []
    for notice in owed:
        if notice.role not in phones:
            notice.state, notice.error_code, notice.settled_at = NoticeState.FAILED, "no_phone", now
            continue
        notice.state, notice.claimed_until = NoticeState.SENDING, machine + LEASE
        assert notice.id is not None  # a stored row
        taken.append(DutyText(notice.id, notice.ref, phones[notice.role], notice.role, notice.cases))
    return taken


def record_notice(session: Session, notice_id: int, answer: Answer, *, now: datetime) -> NoticeState:
    """Writes down what the provider said. Only what certainly did not go is owed again."""
    notice = session.get_one(DutyNotice, notice_id, with_for_update=True)
    match answer:
        case Took():
            notice.state, notice.provider_id = NoticeState.SENT, answer.provider_id
        case DidNotSend():
            notice.state, notice.error_code = NoticeState.OWED, answer.code[:20]
        case WillNot():
            notice.state, notice.error_code = NoticeState.FAILED, answer.code[:20]
        case MayHave():
            notice.state, notice.error_code = NoticeState.UNSURE, answer.code[:20]
    notice.settled_at = None if notice.state is NoticeState.OWED else now
    return notice.state
