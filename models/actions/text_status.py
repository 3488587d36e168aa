"""What became of texts: callbacks, look-ups of the unsure, questions about the silent, blanking, erasing (law 7; H23).

Nothing is ever sent from here, and nothing moves backwards. The provider is asked by the flow, with no
session open: `due_chores` says what to ask, `record_chores` writes the answers down.
Grace and patience with the provider run on the database's own clock; due times on `now` (ruling 12).
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, assert_never

import sqlalchemy as sa
from sqlmodel import Session, col, select

from models.actions import audit
from models.actions.text_moves import (
    CODE_LENGTH,
    SHORT_REF_LENGTH,
    Counts,
    Held,
    Run,
    Toolbox,
    become_unsure,
    end_attempt,
    hand_over,
    lock_attempts,
    machine_now,
    note,
    render_text,
    see,
)
from models.actions.text_switch import restored_from
from models.rules.errors import Code, ServiceError
from models.rules.service import Service
from models.rules.text_delivery import (
    ASK_AGAIN,
    BLANK_AGAIN,
    BLANK_FOR,
    FINAL,
    LEASE,
    NOT_FOUND_TWICE,
    TEST_PREFIX,
    Blanked,
    ChoreAnswer,
    ChoreKind,
    Found,
    NoAnswer,
    Obstacle,
    Sighting,
    Unknown,
    ask_after,
)
from models.rules.vocabulary import DeliveryStatus
from models.tables.clinic import DutyNotice
from models.tables.inbox import Inbox, InboxKind, InboxState
from models.tables.person import Contact, MobileVerification
from models.tables.text import AttemptState, Text, TextAttempt, TextState

_SETTLED: Final = frozenset({TextState.DELIVERED, TextState.FAILED, TextState.CANCELLED, TextState.HANDED_OVER})


@dataclass(frozen=True, slots=True)
class Chore:
    """One question to the provider. `to_e164` and `body` are there only for a look-up by words."""

    attempt_id: int
    attempt_ref: str
    kind: ChoreKind
    provider: str
    age: timedelta
    """How long ago its call began: a provider does not remember for ever."""
    provider_id: str
    to_e164: str = field(default="", repr=False)
    body: str = field(default="", repr=False)
    """Empty for a look-up: the words can't be made again, so nobody can be asked."""


# ── Callbacks ────────────────────────────────────────────────────────────────────────────────


def merge_statuses(session: Session, *, limit: int, now: datetime, tools: Toolbox, actor: str) -> tuple[int, Counts]:
    """Reads up to `limit` waiting status callbacks and merges each. Returns how many were read, and what they did.

    A callback's body is JSON: attempt_ref, provider_id, status (ours), status_raw, error_code (may be null).
    One that can't be used is kept as failed with a reason, for a person; it changes nothing.
    """
    letters = session.exec(
        select(Inbox)
        .where(col(Inbox.kind) == InboxKind.TEXT_STATUS, col(Inbox.state) == InboxState.WAITING)
        .order_by(col(Inbox.id))
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    run = Run(session, now, machine_now(session), tools, actor)
    read = [(letter, _read_callback(run, letter)) for letter in letters]
    refs = {reported[0] for _, reported in read if reported is not None}
    ids = session.exec(select(TextAttempt.id).where(col(TextAttempt.ref).in_(refs))).all()
    held = {each.attempt.ref: each for each in lock_attempts(session, [one for one in ids if one is not None])}
    strange = refs - held.keys()
    ours = set(session.exec(select(MobileVerification.ref).where(col(MobileVerification.ref).in_(strange))))
    ours |= {ref for ref in strange if ref.startswith(TEST_PREFIX)}
    ours |= set(session.exec(select(DutyNotice.ref).where(col(DutyNotice.ref).in_(strange))))
    for letter, reported in read:
        reason = "unreadable"
        if reported is not None and reported[0] in ours:
            # About a code, which is asked for again by whoever waited in vain, about a duty text, which is said
            # anew every hour, or about one to the test number.
            reason = ""
        elif reported is not None:
            attempt_ref, sighting = reported
            reason = _merge(run, held.get(attempt_ref), sighting)
        letter.state, letter.reason = (InboxState.FAILED, reason) if reason else (InboxState.DONE, "")
        if reason:
            run.counts["alarm"] += 1
        session.add(letter)
    session.flush()
    return len(letters), run.counts


def _merge(run: Run, held: Held | None, sighting: Sighting) -> str:
    """Merges one callback. Returns why it can't be used, or an empty string."""
    if held is None:
        return "unknown_attempt"
    if held.text.service_id not in run.tools.services:
        return "unknown_service"
    if not see(run, held, sighting):
        return "other_message"
    run.session.add_all([held.attempt, held.text])
    return ""


def _read_callback(run: Run, letter: Inbox) -> tuple[str, Sighting] | None:
    try:
        plain = json.loads(run.tools.cipher.decrypt("inbox", "body", letter.ref, letter.body))
        sighting = Sighting(
            str(plain["provider_id"]), DeliveryStatus(plain["status"]), str(plain["error_code"] or "")[:CODE_LENGTH]
        )
        return str(plain["attempt_ref"]), sighting
    except (ServiceError, ValueError, KeyError, TypeError):
        return None


# ── Unsure, silent, or still to be blanked ───────────────────────────────────────────────────


def expire_leases(session: Session, *, limit: int, now: datetime, tools: Toolbox, actor: str) -> Counts:
    """Attempts whose call or record never ended become unsure: they may have gone."""
    over = session.exec(
        select(TextAttempt.id)
        .where(
            col(TextAttempt.state) == AttemptState.STARTED, col(TextAttempt.lease_until) <= sa.func.clock_timestamp()
        )
        .order_by(col(TextAttempt.id))
        .limit(limit)
    ).all()
    run = Run(session, now, machine_now(session), tools, actor)
    for held in lock_attempts(session, [each for each in over if each is not None]):
        if held.attempt.state is AttemptState.STARTED:
            held.attempt.error_code = held.attempt.error_code or "lease_over"
            become_unsure(run, held)
            session.add_all([held.attempt, held.text])
    session.flush()
    return run.counts


def due_chores(session: Session, *, limit: int, now: datetime, tools: Toolbox, actor: str) -> list[Chore]:
    """Attempts about which the provider is to be asked, or told to blank the words; each is put off for a lease.

    An accepted text that stays silent for `silent_person_after_hours` of service time is asked about once
    more, whatever its turn, before a person takes over (H23).
    """
    silent = [
        sa.and_(
            col(Text.service_id) == service_id,
            col(Text.state) == TextState.ACCEPTED,
            col(Text.sent_at) <= now - timedelta(hours=each.service.texts.silent_person_after_hours),
            col(TextAttempt.number) == col(Text.attempts),
            # Not one that another run has just taken up.
            sa.or_(col(TextAttempt.ask_at).is_(None), col(TextAttempt.ask_at) > sa.func.clock_timestamp() + LEASE),
        )
        for service_id, each in tools.services.items()
    ]
    rows = session.exec(
        select(TextAttempt, Text)
        .join(Text, col(Text.id) == col(TextAttempt.text_id))
        .where(
            col(Text.service_id).in_(list(tools.services)),
            sa.or_(col(TextAttempt.ask_at) <= sa.func.clock_timestamp(), *silent),
        )
        .order_by(col(TextAttempt.ask_at).nulls_last(), col(TextAttempt.id))
        .limit(limit)
        .with_for_update(skip_locked=True, of=TextAttempt)
        .execution_options(populate_existing=True)
    ).all()
    run = Run(session, now, machine_now(session), tools, actor)
    chores = []
    for attempt, text in rows:
        attempt.ask_at = run.machine + LEASE
        session.add(attempt)
        chores.append(_chore(run, attempt, text))
    session.flush()
    return chores


def _chore(run: Run, attempt: TextAttempt, text: Text) -> Chore:
    assert attempt.id is not None  # a stored row
    age = run.machine - attempt.started_at
    if attempt.state is AttemptState.UNSURE:
        to_e164, body = _words_again(run, text)
        return Chore(attempt.id, attempt.ref, ChoreKind.FIND, attempt.provider, age, "", to_e164, body)
    kind = ChoreKind.BLANK if _is_over(attempt, text) else ChoreKind.STATUS
    return Chore(attempt.id, attempt.ref, kind, attempt.provider, age, attempt.provider_id)


def _is_over(attempt: TextAttempt, text: Text) -> bool:
    """Nothing more is awaited of an attempt that was taken: all that is left is to blank its words."""
    return attempt.state is AttemptState.ACCEPTED and (attempt.status in FINAL or text.state in _SETTLED)


def _words_again(run: Run, text: Text) -> tuple[str, str]:
    """The number and the very words that an attempt carried, or no words when a template changed since."""
    contact = run.session.exec(select(Contact).where(col(Contact.id) == text.contact_id)).one()
    to_e164 = run.tools.cipher.decrypt("contact", "mobile", contact.ref, contact.mobile)
    try:
        body = render_text(run, text, contact).body
    except ServiceError:
        return to_e164, ""
    same = text.body_hmac == run.tools.indexes.content_hmac(body.encode())
    return to_e164, body if same else ""


def record_chores(
    session: Session, answers: Iterable[tuple[int, ChoreAnswer]], *, now: datetime, tools: Toolbox, actor: str
) -> Counts:
    """Writes down what the provider said about each attempt. Repeating it changes nothing."""
    listed = dict(answers)
    run = Run(session, now, machine_now(session), tools, actor)
    for held in lock_attempts(session, listed):
        answer = listed[held.attempt_id]
        match answer:
            case Found():
                _record_found(run, held, answer)
            case Sighting():
                if not see(run, held, answer):
                    run.counts["alarm"] += 1
                _after_asking(run, held)
            case Unknown():
                run.counts["alarm"] += 1
                _after_asking(run, held)
            case Blanked():
                held.attempt.redacted_at, held.attempt.ask_at = run.machine, None
                run.counts["blanked"] += 1
            case NoAnswer():
                _record_no_answer(run, held)
            case _:
                assert_never(answer)
        session.add_all([held.attempt, held.text])
    session.flush()
    return run.counts


def _record_found(run: Run, held: Held, answer: Found) -> None:
    """Found: it had gone, and its id is adopted. Not found, and again not found: it never arrived.

    In a restored database that proves nothing: the provider may have been told to blank the very words that we
    look for, long before, by the database that was lost. Then a person decides.
    """
    attempt = held.attempt
    known = set(
        run.session.exec(
            select(TextAttempt.provider_id).where(
                col(TextAttempt.text_id) == attempt.text_id, col(TextAttempt.id) != attempt.id
            )
        )
    )
    fresh = [sighting for sighting in answer.sightings if sighting.provider_id not in known]
    if attempt.provider_id:  # answered or called back about, while we asked
        fresh = [sighting for sighting in fresh if sighting.provider_id == attempt.provider_id]
    if fresh:
        run.counts["found"] += 1
        if len(fresh) > 1:
            run.counts["alarm"] += 1  # two messages of one attempt: only the provider can have doubled it
        see(run, held, min(fresh, key=lambda each: (each.created_at is None, each.created_at, each.provider_id)))
        return
    if attempt.state is not AttemptState.UNSURE:
        return
    attempt.lookups += 1
    if attempt.lookups < NOT_FOUND_TWICE:
        attempt.ask_at = run.machine + timedelta(minutes=run.service_of(held.text).texts.unsure_grace_minutes)
        return
    if restored_from(run.session) is not None:
        attempt.ask_at = None
        if held.is_latest and held.text.state is TextState.UNSURE:
            hand_over(run, held.text, Obstacle.MAY_HAVE_LEFT.value)
        return
    end_attempt(run, attempt, AttemptState.NEVER_ARRIVED, attempt.error_code)
    run.counts["never_arrived"] += 1
    note(run, held.text, "text.never_arrived", attempt=attempt.ref)
    if held.is_latest and held.text.state is TextState.UNSURE:
        held.text.state = TextState.OWED


def _record_no_answer(run: Run, held: Held) -> None:
    attempt, text = held.attempt, held.text
    if _is_over(attempt, text):
        over = run.machine - (attempt.finished_at or attempt.started_at) > BLANK_FOR
        attempt.ask_at = None if over else run.machine + BLANK_AGAIN
        run.counts["alarm"] += over
        return
    attempt.ask_at = run.machine + ASK_AGAIN
    patience = timedelta(hours=run.service_of(text).texts.unsure_person_after_hours)
    if attempt.state is AttemptState.UNSURE and run.machine - attempt.started_at > patience:
        if held.is_latest and text.state is TextState.UNSURE:
            hand_over(run, text, "unclear")
        attempt.ask_at = None
    _hand_over_if_silent(run, held)


def _after_asking(run: Run, held: Held) -> None:
    """An accepted text that is still on its way: asked about ever more rarely, then left to its callback."""
    attempt = held.attempt
    if attempt.state is not AttemptState.ACCEPTED or attempt.status in FINAL:
        return
    attempt.lookups += 1
    wait = ask_after(attempt.lookups)
    attempt.ask_at = run.machine + wait if wait else None
    _hand_over_if_silent(run, held)


def _hand_over_if_silent(run: Run, held: Held) -> None:
    """No final word for too long: the provider's acceptance is not delivery, so a person takes over (H23)."""
    attempt, text = held.attempt, held.text
    patience = timedelta(hours=run.service_of(text).texts.silent_person_after_hours)
    if held.is_latest and text.state is TextState.ACCEPTED and text.sent_at and run.now - text.sent_at >= patience:
        hand_over(run, text, "silent")
        attempt.ask_at = run.machine  # nothing more is awaited: the words can be blanked


# ── After years ──────────────────────────────────────────────────────────────────────────────


def erase_values(session: Session, *, service: Service, limit: int, now: datetime, actor: str) -> int:
    """Empties what the words of up to `limit` long settled texts were made with, and says how many it were.

    That a text was sent, when, what became of it and the hash of its words stay; the words can't be made again.
    """
    old = (
        sa.select(col(Text.id))
        .where(
            col(Text.service_id) == service.id,
            col(Text.state).in_(_SETTLED),
            col(Text.settled_at) <= now - timedelta(days=service.texts.values_kept_days),
            sa.func.length(col(Text.values)) > 0,
        )
        .order_by(col(Text.id))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    erased = session.scalars(
        sa.update(Text)
        .where(col(Text.id).in_(old))
        .values(values=b"")
        .returning(col(Text.id))
        .execution_options(synchronize_session=False)
    ).all()
    if erased:
        audit.record(
            session,
            action="texts.erased",
            subject="service",
            subject_id=0,
            actor=actor,
            now=now,
            service_id=service.id,
            texts=len(erased),
            settled_before=str((now - timedelta(days=service.texts.values_kept_days)).date()),
        )
    return len(erased)


# ── For staff ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Story:
    """What became of one text: states, codes and times, never words or numbers."""

    text: Text
    attempts: tuple[TextAttempt, ...]


def story_of(session: Session, ref: str) -> Story:
    """What became of a text, by its reference or by the six characters that its words end with.

    Raises ServiceError(NOT_FOUND), or (CONFLICT) where the characters name several texts.
    """
    wanted = ref.strip().lower()
    if len(wanted) < SHORT_REF_LENGTH or not wanted.isalnum():
        raise ServiceError(Code.NOT_FOUND, "A text's reference has six characters or more, all letters and digits.")
    found = session.exec(select(Text).where(col(Text.ref).startswith(wanted)).limit(2)).all()
    if not found:
        raise ServiceError(Code.NOT_FOUND, "There is no text with this reference.")
    if len(found) > 1:
        raise ServiceError(Code.CONFLICT, "Several texts begin with this reference: give the whole of it.")
    attempts = session.exec(
        select(TextAttempt).where(col(TextAttempt.text_id) == found[0].id).order_by(col(TextAttempt.number))
    ).all()
    return Story(found[0], tuple(attempts))
