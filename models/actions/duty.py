"""Whoever is on duty: when the ladder tells a role about cases, its phone and its shared mailbox hear how many.

One text and one e-mail an hour at most. No case, kit, person or result is in them: they send their reader to the
worklist. One that may have gone is never sent again: the worklist says the same, and the next hour tells anew.
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
from models.rules.clinic import NoticeChannel
from models.rules.service import ClinicPolicy, Service, TextWindow
from models.rules.text_delivery import Answer, DidNotSend, MayHave, Took, WillNot
from models.rules.working_days import is_open
from models.tables.clinic import DutyNotice, NoticeState

LEASE: Final = timedelta(minutes=2)
"""Machine time after which a call that nobody answered for may have gone."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One text or e-mail to whoever is on duty."""

    id: int
    ref: str
    to: str = field(repr=False)
    """A number as +44..., or an address."""
    role: str
    cases: int


def owe_notices(
    session: Session, told: Mapping[str, int], *, service_id: str, policy: ClinicPolicy, now: datetime
) -> None:
    """Owes each told role its text and e-mail of this hour, where it has them, or adds to those that have not left."""
    wanted = [
        (role, cases, channel)
        for role, cases in told.items()
        for channel in NoticeChannel
        if role in _addresses(policy, channel)
    ]
    for role, cases, channel in wanted:
        owed = insert(DutyNotice).values(
            ref=secrets.token_hex(16),
            service_id=service_id,
            role=role,
            channel=channel,
            hour_at=now.replace(minute=0, second=0, microsecond=0),
            cases=cases,
            state=NoticeState.OWED,
            error_code="",
            provider_id="",
            owed_at=now,
        )
        session.execute(
            owed.on_conflict_do_update(
                index_elements=["service_id", "role", "hour_at", "channel"],
                set_={"cases": sa.text("duty_notice.cases + excluded.cases")},
                where=sa.text("duty_notice.state = 'owed'"),
            )
        )


def claim_notices(
    session: Session, *, service: Service, channel: NoticeChannel, now: datetime, limit: int
) -> list[Notice]:
    """Takes what is owed to this service's duty over one channel, in its working hours.

    Texts not while sending is stopped. A call that was begun and not answered for becomes unsure, and is left at that.
    """
    machine = machine_now(session)
    session.execute(
        sa.update(DutyNotice)
        .where(col(DutyNotice.state) == NoticeState.SENDING, col(DutyNotice.claimed_until) < machine)
        .values(state=NoticeState.UNSURE, settled_at=now)
        .execution_options(synchronize_session=False)
    )
    hours = TextWindow(service.clinic.opens, service.clinic.closes, working_days_only=True)
    if not is_open(now, hours) or (channel is NoticeChannel.TEXT and sending_stopped(session)):
        return []
    owed = session.exec(
        select(DutyNotice)
        .where(
            col(DutyNotice.service_id) == service.id,
            col(DutyNotice.channel) == channel,
            col(DutyNotice.state) == NoticeState.OWED,
        )
        .order_by(col(DutyNotice.id))
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    addresses = _addresses(service.clinic, channel)
    taken = []
    for notice in owed:
        if notice.role not in addresses:
            notice.state, notice.error_code, notice.settled_at = NoticeState.FAILED, "no_address", now
            continue
        notice.state, notice.claimed_until = NoticeState.SENDING, machine + LEASE
        assert notice.id is not None  # a stored row
        taken.append(Notice(notice.id, notice.ref, addresses[notice.role], notice.role, notice.cases))
    return taken


def _addresses(policy: ClinicPolicy, channel: NoticeChannel) -> Mapping[str, str]:
    return (policy.duty_phones if channel is NoticeChannel.TEXT else policy.duty_mails) or {}


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
