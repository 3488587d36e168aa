"""What staff see of texts: a list by kit, state and age, the ledger of one, its words on a reveal, and what is stuck.

Each look at texts leaves an audit entry, for what a text was for may say what a result was. Words are made again for a
reveal and never stored; of a number only its last digits are shown (law 10; H19; FEATURES 83, 84).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Session, col, select

from models.actions import audit
from models.actions.seal import check_unsealed, is_sealed
from models.actions.text_moves import Run, Toolbox, id_of, machine_now, render_text, short_ref
from models.rules.errors import Code, ServiceError
from models.rules.kit import normalise_kit_code
from models.rules.staff import Action, Actor, check_may, services_where
from models.rules.text import CLASS_OF, TextClass, TextPurpose
from models.rules.vocabulary import DeliveryStatus
from models.rules.working_days import london_day
from models.tables.audit import Audit
from models.tables.inbox import Inbox, InboxKind, InboxState
from models.tables.kit import Kit
from models.tables.order import Order
from models.tables.person import Contact
from models.tables.release import ReleaseDecision
from models.tables.text import Text, TextAttempt, TextState

PAGE: Final = 50
CHART_DAYS: Final = 14
LAST_DIGITS: Final = 3
SHORTEST_REASON: Final = 3

LATE: Final = timedelta(hours=1)
"""A text that could have left so long ago is stuck, and so is a call that is in doubt for longer."""


@dataclass(frozen=True, slots=True)
class MessageRow:
    """One text on the list. Whom it is for is not here; of a sealed record not even its kit."""

    ref: str
    short_ref: str
    kit_code: str
    purpose: TextPurpose
    state: TextState
    status: DeliveryStatus | None
    owed_at: datetime
    not_before: datetime
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Stuck:
    """What should have moved on, and since when the oldest of it waits."""

    says: str
    count: int
    since: datetime


@dataclass(frozen=True, slots=True)
class Messages:
    """The page: what was asked for, newest first, with the days of the chart and what is stuck."""

    rows: Sequence[MessageRow]
    more: bool
    days: Mapping[date, Counter[TextState]]
    """Texts by the London day on which they were owed, oldest first; days without texts are there."""
    stuck: Sequence[Stuck]


def messages(
    session: Session,
    *,
    by: Actor,
    now: datetime,
    kit_code: str = "",
    state: TextState | None = None,
    older_than_days: int = 0,
) -> Messages:
    """The newest texts of this person's services, of one kit, in one state or of some age. Audited.

    Whose result a text told is not in the list of all: its kit is named where it was asked for, or on its own page.

    Raises ServiceError(NOT_ALLOWED) for somebody who may read no results, ServiceError(BAD_INPUT) for a mistyped code.
    """
    service_ids = sorted(services_where(by, Action.READ_RESULTS))
    if not service_ids:
        raise ServiceError(Code.NOT_ALLOWED, "Your role does not allow this: ask a clinician.")
    wanted: list[sa.ColumnElement[bool]] = [col(Text.service_id).in_(service_ids)]
    if kit_code:
        code = normalise_kit_code(kit_code)
        if code is None:
            raise ServiceError(Code.BAD_INPUT, "This is no kit code: check each of its ten characters.")
        of_ours = col(Kit.service_id).in_(service_ids)
        kit = session.exec(select(Kit).where(col(Kit.code) == code, of_ours)).one_or_none()
        if kit is not None:
            check_unsealed(session, kit.person_id, by, now)
            assert kit.id is not None  # a stored row
            _audit_look(session, by, now, kit.service_id, subject="kit", subject_id=kit.id)
        # By the order: a text before the kit existed, or after it ended, is the kit's story too.
        wanted.append(col(Text.order_id) == (kit.order_id if kit else None))
    if state is not None:
        wanted.append(col(Text.state) == state)
    if older_than_days:
        wanted.append(col(Text.owed_at) <= now - timedelta(days=older_than_days))
    found = session.exec(
        select(Text, Kit.code, Order.person_id)
        .join(Order, col(Order.id) == col(Text.order_id))
        .join(Kit, col(Kit.id) == col(Text.kit_id), isouter=True)
        .where(*wanted)
        .order_by(col(Text.id).desc())
        .limit(PAGE + 1)
    ).all()
    sealed = {person for person in {person for _, _, person in found} if person and is_sealed(session, person)}
    rows = [
        MessageRow(
            text.ref,
            short_ref(text.ref),
            "" if person in sealed or (tells_result(text) and not kit_code) else code or "",
            text.purpose,
            text.state,
            text.status,
            text.owed_at,
            text.not_before,
            text.settled_at,
        )
        for text, code, person in found[:PAGE]
    ]
    for service_id in service_ids:
        of_service = sum(text.service_id == service_id for text, _, _ in found[:PAGE])
        _audit_look(session, by, now, service_id, subject="service", subject_id=0, texts=of_service)
    return Messages(rows, len(found) > PAGE, _days(session, service_ids, now), stuck(session, service_ids, now))


def tells_result(text: Text) -> bool:
    """Whether a text's very purpose is a result, or that there is one to be told."""
    return CLASS_OF[text.purpose] is TextClass.RESULT


def _audit_look(
    session: Session, by: Actor, now: datetime, service_id: str, *, subject: str, subject_id: int, **detail: Any
) -> None:
    audit.record(
        session,
        action="messages.viewed",
        subject=subject,
        subject_id=subject_id,
        actor=by.audit_name,
        now=now,
        service_id=service_id,
        **detail,
    )


def _days(session: Session, service_ids: Sequence[str], now: datetime) -> dict[date, Counter[TextState]]:
    today = london_day(now)
    days: dict[date, Counter[TextState]] = {
        today - timedelta(days=back): Counter() for back in reversed(range(CHART_DAYS))
    }
    day = sa.cast(sa.func.timezone("Europe/London", col(Text.owed_at)), sa.Date)
    counted = session.execute(
        sa.select(day, col(Text.state), sa.func.count())
        .where(col(Text.service_id).in_(service_ids), col(Text.owed_at) >= now - timedelta(days=CHART_DAYS + 1))
        .group_by(day, col(Text.state))
    )
    for on, state, count in counted:
        if on in days:
            days[on][TextState(state)] += count
    return days


def stuck(session: Session, service_ids: Sequence[str], now: datetime) -> list[Stuck]:
    """What should have moved on by now: due and not taken up, in doubt, or sent and not read by us."""
    ours = col(Text.service_id).in_(service_ids)
    machine = machine_now(session)
    questions = (
        (
            "due, and not sent",
            sa.select(sa.func.count(), sa.func.min(col(Text.not_before))).where(
                ours, col(Text.state) == TextState.OWED, col(Text.held_at).is_(None), col(Text.not_before) <= now - LATE
            ),
        ),
        (
            "held as a burst, until somebody lets them go",
            sa.select(sa.func.count(), sa.func.min(col(Text.held_at))).where(
                ours, col(Text.state) == TextState.OWED, col(Text.held_at).is_not(None)
            ),
        ),
        (
            "in doubt: they may have gone",
            sa.select(sa.func.count(sa.distinct(col(Text.id))), sa.func.min(col(TextAttempt.started_at)))
            .join(TextAttempt, col(TextAttempt.text_id) == col(Text.id))
            .where(
                ours,
                col(Text.state).in_([TextState.SENDING, TextState.UNSURE]),
                col(TextAttempt.number) == col(Text.attempts),
                col(TextAttempt.started_at) <= machine - LATE,
            ),
        ),
        (
            "replies and receipts that could not be used",
            sa.select(sa.func.count(), sa.func.min(col(Inbox.received_at))).where(
                col(Inbox.kind).in_([InboxKind.TEXT_REPLY, InboxKind.TEXT_STATUS]),
                col(Inbox.state) == InboxState.FAILED,
            ),
        ),
    )
    found = []
    for says, question in questions:
        count, since = session.execute(question).one()
        if count:
            found.append(Stuck(says, count, since))
    return found


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One thing that happened to a text, from the audit."""

    at: datetime
    action: str
    actor: str
    why: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything about one text but its words and whom it is for."""

    row: MessageRow
    service_id: str
    order_has_kit: bool
    not_before: datetime
    held_at: datetime | None
    released_by: str
    sent_at: datetime | None
    cancelled_because: str
    error_code: str
    template_version: str
    body_hmac: str
    attempts: Sequence[TextAttempt]
    lines: Sequence[LedgerLine]
    decision: ReleaseDecision | None


def ledger(session: Session, ref: str, *, by: Actor, now: datetime) -> Ledger:
    """One text's intent, attempts, events and the decision behind it. Audited."""
    text, kit, _ = _find(session, ref, by, now)
    attempts = session.exec(
        select(TextAttempt).where(col(TextAttempt.text_id) == text.id).order_by(col(TextAttempt.number))
    ).all()
    noted = session.exec(
        select(Audit).where(col(Audit.subject) == "text", col(Audit.subject_id) == text.id).order_by(col(Audit.id))
    )
    lines = [LedgerLine(each.occurred_at, each.action, each.actor, str(each.detail.get("why", ""))) for each in noted]
    _note(session, text, "message.viewed", by, now)
    code = kit.code if kit else ""
    return Ledger(
        MessageRow(
            text.ref, short_ref(text.ref), code, text.purpose, text.state, text.status, text.owed_at, text.not_before,
            text.settled_at,
        ),
        text.service_id,
        kit is not None,
        text.not_before,
        text.held_at,
        text.released_by or "",
        text.sent_at,
        text.cancelled_because,
        text.error_code,
        text.template_version,
        text.body_hmac.hex() if text.body_hmac else "",
        attempts,
        lines,
        session.get(ReleaseDecision, text.decision_id) if text.decision_id else None,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Words:
    """What a text says or said, and the end of the number. Printing it shows neither."""

    body: str = field(repr=False)
    number_ends: str = field(repr=False)
    as_sent: bool
    """The very bytes that left; False for a text that never left, or whose template changed since."""


def reveal_words(session: Session, ref: str, *, by: Actor, because: str, now: datetime, tools: Toolbox) -> Words:
    """The words of one text, made again, for a stated reason. Audited with the reason.

    Raises ServiceError(BAD_INPUT) without a reason, ServiceError(NOT_NOW) where the words can't be made any more.
    """
    if len(because.strip()) < SHORTEST_REASON:
        raise ServiceError(Code.BAD_INPUT, "Say why you need to read it, without a name.")
    text, _, contact = _find(session, ref, by, now)
    check_may(by, Action.REVEAL_CONTACT, text.service_id)
    try:
        body = render_text(Run(session, now, now, tools, by.audit_name), text, contact).body
    except ServiceError:
        raise ServiceError(Code.NOT_NOW, "The words of this text can't be made again: its values are gone.") from None
    mobile = tools.cipher.decrypt("contact", "mobile", contact.ref, contact.mobile)
    _note(session, text, "message.words_revealed", by, now, because=because.strip())
    return Words(body, mobile[-LAST_DIGITS:], text.body_hmac == tools.indexes.content_hmac(body.encode()))


def _find(session: Session, ref: str, by: Actor, now: datetime) -> tuple[Text, Kit | None, Contact]:
    if not services_where(by, Action.READ_RESULTS):
        raise ServiceError(Code.NOT_ALLOWED, "Your role does not allow this: ask a clinician.")
    text = session.exec(select(Text).where(col(Text.ref) == ref)).one_or_none()
    if text is None or text.service_id not in by.service_ids:
        raise ServiceError(Code.NOT_FOUND, "There is no such message: go back to the list.")
    check_may(by, Action.READ_RESULTS, text.service_id)
    contact = session.get_one(Contact, text.contact_id)
    check_unsealed(session, contact.person_id, by, now)
    return text, session.get(Kit, text.kit_id) if text.kit_id else None, contact


def _note(session: Session, text: Text, action: str, by: Actor, now: datetime, because: str = "") -> None:
    audit.record(
        session,
        action=action,
        subject="text",
        subject_id=id_of(text),
        actor=by.audit_name,
        now=now,
        service_id=text.service_id,
        because=because,
    )
