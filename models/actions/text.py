"""Sends what is owed, once: bursts, claims, and what each call came to (law 7; H9, H11).

The row is the outbox. A claim inserts the attempt before the provider is called, and whatever is not
known afterwards is looked up (see `text_status`), never sent again blindly. Everything here may be
repeated: a second answer or a rerun meets a state that it can't move backwards.

Leases and backoff run on the database's own clock; windows on `now` (ruling 12).
"""

import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, assert_never

import sqlalchemy as sa
from sqlmodel import Session, col, select

from models.actions import audit
from models.actions.owed import OwedText, owe_texts
from models.actions.text_choice import opted_out, record_choice
from models.actions.text_moves import (
    CODE_LENGTH,
    OUT,
    Counts,
    Held,
    Rendered,
    Run,
    Toolbox,
    become_unsure,
    end_attempt,
    fail,
    hand_over,
    id_of,
    lock_attempts,
    lock_kits,
    machine_now,
    note,
    render_text,
    see,
    tell,
)
from models.actions.text_switch import chosen_provider, leaving_now
from models.rules.errors import Code, ServiceError
from models.rules.release import ReleaseKind
from models.rules.secrets import MOBILE
from models.rules.service import Service
from models.rules.text import CLASS_OF, ExpectCall, TextClass, TextPurpose, window_of
from models.rules.text_delivery import (
    LEASE,
    OWN_DOING,
    REFUSED,
    SAID_ELSEWHERE,
    Answer,
    Decided,
    DidNotSend,
    Leaving,
    MayHave,
    Obstacle,
    Sighting,
    Took,
    WillNot,
    backoff,
    is_result,
    obstacle,
    still_stands,
)
from models.rules.vocabulary import RefusalKind
from models.rules.working_days import is_open
from models.tables.bulk import one_of
from models.tables.kit import Kit
from models.tables.order import Order
from models.tables.person import ChoiceOfTexts, ChoiceSource, Contact, MobileHolder
from models.tables.release import ReleaseDecision
from models.tables.text import AttemptState, Text, TextAttempt, TextState


@dataclass(frozen=True, slots=True)
class ClaimedText:
    """One attempt, committed before its call. Printing it shows neither number nor words."""

    attempt_id: int
    attempt_ref: str
    provider: str
    """Whom it goes through: the one of its earlier attempts, unless none of them can have gone."""
    service_id: str
    text_class: TextClass
    person_id: int
    to_e164: str = field(repr=False)
    body: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Claims:
    """One batch of claims. `looked_at` counts what was decided about, sent or not: zero means nothing is due."""

    claimed: tuple[ClaimedText, ...] = ()
    looked_at: int = 0
    counts: Counts = field(default_factory=Counter)


# ── Bursts ───────────────────────────────────────────────────────────────────────────────────


def hold_burst(session: Session, *, service: Service, now: datetime, actor: str) -> tuple[int, int]:
    """Holds what is due beyond the service's ceiling for one run, oldest first. Returns (free to go, held by now).

    A held text waits for `release_burst` by a person. Ceiling: `max_per_run` (H11; FEATURES 79).
    """
    place = sa.func.row_number().over(order_by=(col(Text.not_before), col(Text.id))).label("place")
    due_now = _due(service, now, leaving_now(session, service.id))
    due = sa.select(col(Text.id), place).where(*due_now, col(Text.released_by).is_(None)).subquery()
    newly = session.execute(
        sa.update(Text)
        .where(col(Text.id) == due.c.id, due.c.place > service.texts.max_per_run, col(Text.state) == TextState.OWED)
        .values(held_at=now)
        .returning(col(Text.id))
        .execution_options(synchronize_session=False)
    ).all()
    if newly:
        audit.record(
            session,
            action="texts.held",
            subject="service",
            subject_id=0,
            actor=actor,
            now=now,
            service_id=service.id,
            texts=len(newly),
        )
    free = session.execute(sa.select(sa.func.count()).select_from(Text).where(*due_now)).scalar_one()
    waiting = (col(Text.service_id) == service.id, col(Text.state) == TextState.OWED, col(Text.held_at).is_not(None))
    held = session.execute(sa.select(sa.func.count()).select_from(Text).where(*waiting)).scalar_one()
    return free, held


def release_burst(session: Session, *, service_id: str, actor: str, because: str, now: datetime) -> int:
    """A named person lets the held texts of a service go, and says why. Returns how many."""
    freed = session.execute(
        sa.update(Text)
        .where(col(Text.service_id) == service_id, col(Text.state) == TextState.OWED, col(Text.held_at).is_not(None))
        .values(held_at=None, released_by=actor)
        .returning(col(Text.id))
        .execution_options(synchronize_session=False)
    ).all()
    audit.record(
        session,
        action="texts.released",
        subject="service",
        subject_id=0,
        actor=actor,
        now=now,
        service_id=service_id,
        because=because,
        texts=len(freed),
    )
    return len(freed)


def _due(service: Service, now: datetime, leaving: Collection[TextPurpose]) -> tuple[sa.ColumnElement[bool], ...]:
    """Owed texts of a service that may leave at this moment: window open, class not stopped, nothing holds them."""
    open_now = [purpose for purpose in leaving if is_open(now, window_of(purpose, service.texts))]
    return (
        col(Text.service_id) == service.id,
        col(Text.state) == TextState.OWED,
        col(Text.not_before) <= now,
        col(Text.held_at).is_(None),
        sa.or_(col(Text.retry_at).is_(None), col(Text.retry_at) <= sa.func.clock_timestamp()),
        col(Text.purpose).in_(open_now),
    )


# ── Claiming ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class MaybeTold:
    """Numbers that may have got a text of which a restored database knows nothing."""

    numbers: frozenset[str] = field(repr=False)
    everyone: bool = False
    """A provider no longer remembers so far back: then nobody can be ruled out."""


NOBODY: Final = MaybeTold(frozenset())


def claim_texts(
    session: Session,
    *,
    service_id: str,
    limit: int,
    now: datetime,
    tools: Toolbox,
    actor: str,
    maybe_told: MaybeTold = NOBODY,
) -> Claims:
    """Claims up to `limit` due texts of a service: each gets its attempt row before anyone calls out.

    Under the kit's lock everything is looked at again: the switches, the window, the decision, the kit,
    consent and the number (rulings 2, 10, 14), and in a restored database whether it may have left already.
    What may not leave is cancelled, or handed to the clinic.
    """
    service = tools.services[service_id].service
    due = _due(service, now, leaving_now(session, service_id))
    wanted = session.exec(
        select(Text.id, Text.kit_id).where(*due).order_by(col(Text.not_before), col(Text.id)).limit(limit)
    ).all()
    kits = lock_kits(session, {kit_id for _, kit_id in wanted if kit_id is not None})
    texts = session.exec(
        select(Text)
        .where(one_of(Text.id, [text_id for text_id, _ in wanted]), *due)
        .order_by(col(Text.id))
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()
    run = Run(session, now, machine_now(session), tools, actor)
    facts = _gather(run, texts, kits, service, maybe_told)
    bound = _bound_to(session, texts)
    provider = chosen_provider(session) or tools.provider
    ready: list[_Ready] = []
    for text in sorted(texts, key=_lock_order):
        if id_of(text) not in facts:
            run.counts["alarm"] += 1
            hand_over(run, text, "unreadable")
            continue
        leaving, to_e164, contact = facts[id_of(text)]
        stop = obstacle(leaving, now=now, proof_max_age_days=service.release.number_proof_max_age_days)
        if stop is not None:
            _stop(run, text, stop)
            continue
        try:
            rendered = render_text(run, text, contact)
        except ServiceError as fault:
            run.counts["alarm"] += 1
            hand_over(run, text, fault.code.value)
            continue
        ready.append(_Ready(text, rendered, bound.get(id_of(text), provider), contact.person_id, to_e164))
    session.flush()
    return Claims(_attempt(run, ready), len(wanted), run.counts)


def _gather(
    run: Run, texts: Sequence[Text], kits: Mapping[int, Kit], service: Service, maybe_told: MaybeTold
) -> dict[int, tuple[Leaving, str, Contact]]:
    """What the rule looks at, the number and the contact, for each text whose number can be opened."""
    session, tools = run.session, run.tools
    contacts = {
        contact.id: contact
        for contact in session.exec(select(Contact).where(one_of(Contact.id, [text.contact_id for text in texts])))
    }
    silent = opted_out(session, {contact.person_id for contact in contacts.values()})
    decisions = _decisions(session, texts, kits)
    asked_with = dict(
        session.exec(
            select(Order.id, Order.contact_id).where(one_of(Order.id, [text.order_id for text in texts]))
        ).all()
    )
    mobiles = {key: mobile for key, contact in contacts.items() if (mobile := _mobile(run, contact))}
    digests = {key: tools.indexes.live(MOBILE, service.id, mobile) for key, mobile in mobiles.items()}
    holders = {
        holder.digest: holder
        for holder in session.exec(
            select(MobileHolder).where(
                col(MobileHolder.service_id) == service.id,
                col(MobileHolder.digest).in_([digest for many in digests.values() for digest in many]),
            )
        )
    }
    found = {}
    for text in texts:
        kit = kits.get(text.kit_id) if text.kit_id is not None else None
        contact = contacts[text.contact_id]
        if contact.id not in mobiles:
            continue
        holder = next((holders[digest] for digest in digests[contact.id] if digest in holders), None)
        decided = decisions.get(text.decision_id)
        current = decisions.get(kit.current_decision_id) if kit is not None else None
        leaving = Leaving(
            purpose=text.purpose,
            stands=not is_result(text.purpose) or still_stands(text.purpose, decided, current),
            kit_state=kit.state if kit is not None else None,
            kit_frozen=kit is not None and kit.frozen_at is not None,
            own_contact=text.contact_id == (kit.contact_id if kit is not None else asked_with[text.order_id]),
            text_consent=contact.text_consent and contact.person_id not in silent,
            number_theirs=holder is not None and holder.person_id == contact.person_id,
            number_frozen=(
                holder is not None and holder.frozen_at is not None and contact.mobile_proved_at <= holder.frozen_at
            ),
            proved_at=contact.mobile_proved_at,
            maybe_told=maybe_told.everyone or mobiles[contact.id] in maybe_told.numbers,
        )
        found[id_of(text)] = (leaving, mobiles[contact.id], contact)
    return found


def _mobile(run: Run, contact: Contact) -> str | None:
    """The number, or None where the column was changed or moved. A key that is missing stops everything."""
    try:
        return run.tools.cipher.decrypt("contact", "mobile", contact.ref, contact.mobile)
    except ServiceError as fault:
        if fault.code is Code.UNEXPECTED:
            return None
        raise


def _decisions(session: Session, texts: Sequence[Text], kits: Mapping[int, Kit]) -> dict[int | None, Decided]:
    ids = {text.decision_id for text in texts} | {kit.current_decision_id for kit in kits.values()}
    rows = session.exec(
        select(ReleaseDecision.id, ReleaseDecision.kind, ReleaseDecision.digest).where(
            one_of(ReleaseDecision.id, [each for each in ids if each is not None])
        )
    )
    return {key: Decided(key, ReleaseKind(kind), digest) for key, kind, digest in rows if key is not None}


def _bound_to(session: Session, texts: Sequence[Text]) -> dict[int, str]:
    """The provider that a text stays with: whoever had an attempt that is not proved unsent. Two never share one."""
    tried = [id_of(text) for text in texts if text.attempts]
    if not tried:
        return {}
    rows = session.execute(
        sa.select(col(TextAttempt.text_id), col(TextAttempt.provider))
        .where(
            col(TextAttempt.text_id).in_(tried),
            col(TextAttempt.state).not_in([AttemptState.NOT_SENT, AttemptState.REFUSED]),
        )
        .order_by(col(TextAttempt.number))
    )
    return {row.text_id: row.provider for row in rows}


@dataclass(frozen=True, slots=True)
class _Ready:
    """A text that may leave, and all that its attempt needs."""

    text: Text
    rendered: Rendered
    provider: str
    person_id: int
    to_e164: str = field(repr=False)
    ref: str = field(default_factory=lambda: secrets.token_hex(16))
    """Of the attempt: it rides in the callback's URL."""


def _attempt(run: Run, ready: Sequence[_Ready]) -> tuple[ClaimedText, ...]:
    """The attempt rows and the texts' move to SENDING: from the commit on they are never sent by anyone else.

    Two statements for the whole batch: as objects of the session they took a quarter of the sender's time.
    """
    if not ready:
        return ()
    attempts, moves = [], []
    for each in ready:
        text, version = each.text, each.rendered.template_version
        body_hmac = run.tools.indexes.content_hmac(each.rendered.body.encode())
        attempts.append(
            {
                "ref": each.ref,
                "text_id": text.id,
                "number": text.attempts + 1,
                "provider": each.provider,
                "started_at": run.machine,
                "lease_until": run.machine + LEASE,
            }
        )
        moves.append(
            {
                "id": text.id,
                "attempts": text.attempts + 1,
                "state": TextState.SENDING,
                "status": None,
                "retry_at": None,
                "template_version": version,
                "body_hmac": body_hmac,
            }
        )
        note(run, text, "text.attempted", attempt=each.ref, body_hmac=body_hmac.hex(), template=version)
    run.counts["attempted"] += len(ready)
    run.session.execute(sa.update(Text), moves)
    insert = sa.insert(TextAttempt).returning(col(TextAttempt.id), sort_by_parameter_order=True)
    ids: Sequence[int] = run.session.execute(insert, attempts).scalars().all()
    return tuple(_claimed(each, attempt_id) for each, attempt_id in zip(ready, ids, strict=True))


def _claimed(ready: _Ready, attempt_id: int) -> ClaimedText:
    return ClaimedText(
        attempt_id,
        ready.ref,
        ready.provider,
        ready.text.service_id,
        CLASS_OF[ready.text.purpose],
        ready.person_id,
        ready.to_e164,
        ready.rendered.body,
    )


def _stop(run: Run, text: Text, why: Obstacle) -> None:
    """A text that may not leave: cancelled where something newer says it, else the clinic's (never lost)."""
    if why in SAID_ELSEWHERE or not is_result(text.purpose):
        text.state, text.cancelled_because, text.settled_at = TextState.CANCELLED, why.value, run.now
        run.session.add(text)
        run.counts["cancelled"] += 1
        tell(run, text, "text.cancelled", why=why.value)
        return
    hand_over(run, text, why.value)
    if why is Obstacle.NUMBER_NOT_FRESH:
        # The neutral words instead of the content, beside the case (ruling 14).
        neutral = OwedText(text.order_id, text.kit_id, text.contact_id, ExpectCall(), text.tells, text.decision_id)
        owe_texts(run.session, [neutral], service=run.service_of(text), now=run.now, cipher=run.tools.cipher)


def _lock_order(text: Text) -> tuple[bool, int, int]:
    return (text.kit_id is None, text.kit_id or 0, id_of(text))


# ── What the call came to ────────────────────────────────────────────────────────────────────


def record_answers(
    session: Session, answers: Iterable[tuple[int, Answer]], *, now: datetime, tools: Toolbox, actor: str
) -> Counts:
    """Writes down what each attempt's one call came to, by attempt id. Repeating it changes nothing."""
    listed = dict(answers)
    run = Run(session, now, machine_now(session), tools, actor)
    for held in lock_attempts(session, listed):
        answer = listed[held.attempt_id]
        match answer:
            case Took():
                see(run, held, Sighting(answer.provider_id, answer.status))
            case DidNotSend():
                _record_not_sent(run, held, answer)
            case WillNot():
                _record_refused(run, held, answer)
            case MayHave():
                if held.attempt.state is AttemptState.STARTED:
                    held.attempt.error_code = answer.code[:CODE_LENGTH]
                    become_unsure(run, held)
            case _:
                assert_never(answer)
        session.add_all([held.attempt, held.text])
    session.flush()
    return run.counts


_OPEN: Final = frozenset({AttemptState.STARTED, AttemptState.UNSURE})


def _record_not_sent(run: Run, held: Held, answer: DidNotSend) -> None:
    attempt, text = held.attempt, held.text
    if attempt.state not in _OPEN:
        return
    end_attempt(run, attempt, AttemptState.NOT_SENT, answer.code)
    run.counts["not_sent"] += 1
    if answer.alarm:
        run.counts["alarm"] += 1
    if not held.is_latest or text.state not in OUT:
        return
    if answer.code in OWN_DOING:
        text.state = TextState.OWED
        return
    tries, since = run.session.exec(
        select(sa.func.count(), sa.func.min(TextAttempt.started_at)).where(
            col(TextAttempt.text_id) == text.id,
            col(TextAttempt.state) == AttemptState.NOT_SENT,
            col(TextAttempt.error_code).not_in(OWN_DOING),
        )
    ).one()
    patience = timedelta(hours=run.service_of(text).texts.unsure_person_after_hours)
    if run.machine - since > patience:
        hand_over(run, text, answer.code)
        return
    text.state, text.retry_at = TextState.OWED, run.machine + backoff(tries, answer.retry_after_seconds)


def _record_refused(run: Run, held: Held, answer: WillNot) -> None:
    attempt, text = held.attempt, held.text
    if attempt.state not in _OPEN:
        return
    end_attempt(run, attempt, AttemptState.REFUSED, answer.code)
    if answer.kind is RefusalKind.OPTED_OUT:
        contact = run.session.get_one(Contact, text.contact_id)
        record_choice(
            run.session,
            service_id=text.service_id,
            person_id=contact.person_id,
            choice=ChoiceOfTexts.OPT_OUT,
            source=ChoiceSource.PROVIDER,
            at=run.now,
        )
    if held.is_latest and text.state in OUT:
        fail(run, held, answer.code, REFUSED[answer.kind], why=answer.kind.value)
