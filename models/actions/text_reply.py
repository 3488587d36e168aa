"""What residents text back: STOP and START are kept, what a person must read becomes a case (H5, H24; FEATURES 55, 56).

A reply belongs to whoever holds the number it came from, in each service that knows the number. Its words stand
encrypted in the inbox and, where somebody must read them, as a note on the case.
"""

import json
import secrets
from datetime import datetime
from typing import assert_never

from sqlmodel import Session, col, select

from models.actions import audit
from models.actions.owed import OwedCase, owe_cases
from models.actions.text_choice import record_choice
from models.actions.text_moves import Counts, Run, Toolbox, machine_now
from models.rules.clinic import AttemptResult, CaseKind, due_at
from models.rules.errors import ServiceError
from models.rules.reply import FOR_A_PERSON, ReplyKind, read_reply
from models.rules.safe_time import next_safe, read_safe_times
from models.rules.secrets import MOBILE
from models.tables.clinic import CaseAttempt, ClinicCase
from models.tables.inbox import Inbox, InboxKind, InboxState
from models.tables.order import Order
from models.tables.person import ChoiceOfTexts, ChoiceSource, Contact, MobileHolder

RESIDENT = "resident"
"""Who stands as the actor of what a resident texted."""


def take_replies(session: Session, *, limit: int, now: datetime, tools: Toolbox, actor: str) -> tuple[int, Counts]:
    """Reads up to `limit` waiting replies, oldest first. Returns how many were read, and what they came to.

    One that can't be opened, or that a person must read and nobody's number sent, is kept as failed with a reason.
    """
    letters = session.exec(
        select(Inbox)
        .where(col(Inbox.kind) == InboxKind.TEXT_REPLY, col(Inbox.state) == InboxState.WAITING)
        .order_by(col(Inbox.id))
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    run = Run(session, now, machine_now(session), tools, actor)
    for letter in letters:
        letter.reason = _take(run, letter)
        letter.state = InboxState.FAILED if letter.reason else InboxState.DONE
        run.counts["alarm"] += letter.state is InboxState.FAILED
        session.add(letter)
    session.flush()
    return len(letters), +run.counts


def _take(run: Run, letter: Inbox) -> str:
    """Acts on one reply. Returns why it can't be used, or an empty string."""
    try:
        plain = json.loads(run.tools.cipher.decrypt("inbox", "body", letter.ref, letter.body))
        from_e164, body, provider_word = str(plain["from"]), str(plain["body"]), str(plain["provider_word"])
    except (ServiceError, ValueError, KeyError, TypeError):
        return "unreadable"
    kind = read_reply(body, provider_word=provider_word)
    holders = _holders(run, from_e164)
    run.counts[f"reply_{kind.value}"] += 1
    for holder in holders:
        match kind:
            case ReplyKind.STOP:
                _choose(run, holder, ChoiceOfTexts.OPT_OUT, letter.received_at)
            case ReplyKind.START:
                _choose(run, holder, ChoiceOfTexts.OPT_IN, letter.received_at)
            case ReplyKind.THANKS:
                pass
            case ReplyKind.WRONG_PERSON | ReplyKind.DISTRESS | ReplyKind.HELP | ReplyKind.MESSAGE:
                if kind is ReplyKind.WRONG_PERSON:
                    holder.frozen_at = run.now  # no text goes there until its person proves it again
                    run.session.add(holder)
                _to_a_person(run, holder, kind, body, letter.received_at)
            case _:
                assert_never(kind)
    return "unknown_number" if kind in FOR_A_PERSON and not holders else ""


def _holders(run: Run, from_e164: str) -> list[MobileHolder]:
    """Whose number it is, in every service that knows it, locked."""
    found: list[MobileHolder] = []
    for service_id in sorted(run.tools.services):
        digests = run.tools.indexes.live(MOBILE, service_id, from_e164)
        found += run.session.exec(
            select(MobileHolder)
            .where(col(MobileHolder.service_id) == service_id, col(MobileHolder.digest).in_(digests))
            .order_by(col(MobileHolder.id))
            .with_for_update()
            .execution_options(populate_existing=True)
        )
    return found


def _choose(run: Run, holder: MobileHolder, choice: ChoiceOfTexts, at: datetime) -> None:
    record_choice(
        run.session,
        service_id=holder.service_id,
        person_id=holder.person_id,
        choice=choice,
        source=ChoiceSource.REPLY,
        at=at,
    )
    audit.record(
        run.session,
        action=f"texts.{choice.value}",
        subject="person",
        subject_id=holder.person_id,
        actor=run.actor,
        now=run.now,
        service_id=holder.service_id,
    )


def _to_a_person(run: Run, holder: MobileHolder, kind: ReplyKind, body: str, at: datetime) -> None:
    """Opens the case of this kind of reply to the person's latest order, or finds it, and notes the words on it."""
    order_id, safe_times = run.session.exec(
        select(Order.id, Contact.safe_times)
        .join(Contact, col(Contact.id) == col(Order.contact_id))
        .where(col(Order.person_id) == holder.person_id, col(Order.service_id) == holder.service_id)
        .order_by(col(Order.id).desc())
        .limit(1)
    ).one()
    key = f"order:{order_id}:reply:{kind.value}"
    service = run.tools.services[holder.service_id].service
    due = due_at(CaseKind.REPLY, run.now, service.clinic)
    owed = OwedCase(
        key=key,
        kind=CaseKind.REPLY,
        order_id=order_id,
        detail={"reply": kind.value},
        urgent=kind is ReplyKind.DISTRESS,
        # Distress can't wait for a safe time; whoever only wants to be rung is rung at one.
        due_at=None if kind is ReplyKind.DISTRESS else next_safe(due, read_safe_times(safe_times), service.clinic),
    )
    case_id = owe_cases(run.session, [owed], service=service, now=run.now, actor=run.actor)[key]
    ref = secrets.token_hex(16)
    run.session.add(
        CaseAttempt(
            ref=ref,
            case_id=case_id,
            result=AttemptResult.NOTE,
            note=run.tools.cipher.encrypt("case_attempt", "note", ref, body),
            actor=RESIDENT,
            occurred_at=at,
        )
    )
    case = run.session.get_one(ClinicCase, case_id)
    case.due_at = min(case.due_at, owed.due_at or owed.due(run.now, service))  # it may rest, but these words are new
    case.version += 1  # whoever has the page open has not read this
    run.session.add(case)
