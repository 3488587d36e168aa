"""How a text moves: one word of the provider, one failure, one hand-over, each under the same locks.

The floor of `text` (claims and answers) and `text_status` (callbacks and look-ups). Locks are always
taken in one order: kits by id, texts by id, attempts by id (ruling 2).
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

import sqlalchemy as sa
from sqlmodel import Session, col, select

from models.actions.owed import OwedCase, owe_cases, result_case_key
from models.rules.clinic import CaseKind
from models.rules.secrets import MOBILE, BlindIndex, Cipher
from models.rules.service import Service, Services
from models.rules.text import TextValues, read_values, window_of
from models.rules.text_delivery import (
    FINAL,
    Remedy,
    Sighting,
    again_at,
    ask_after,
    is_result,
    merged,
    remedy_for,
)
from models.rules.vocabulary import DeliveryStatus, Language, Wording
from models.tables.bulk import as_json, copy, cursor, one_of
from models.tables.kit import Kit
from models.tables.person import Contact, MobileHolder
from models.tables.text import AttemptState, Text, TextAttempt, TextState

Counts = Counter[str]
"""What became of texts, by word: for tallies. Never by person."""

SHORT_REF_LENGTH: Final = 6
"""Characters of the reference that a body ends with: no other text to the same number has it."""

CODE_LENGTH: Final = 20
_AUDIT_COLUMNS: Final = ("service_id", "actor", "action", "subject", "subject_id", "because", "detail", "occurred_at")
_EVENT_COLUMNS: Final = ("kit_id", "service_id", "kind", "detail", "actor", "occurred_at")
OUT: Final = frozenset({TextState.SENDING, TextState.UNSURE})
"""States of a text whose latest call is not answered for."""


class Rendered(Protocol):
    """The words that leave, and the version of what they were made from."""

    @property
    def body(self) -> str:
        """What the person reads."""
        ...

    @property
    def template_version(self) -> str:
        """Changes with any change to the template or the words it is filled with."""
        ...


class Render(Protocol):
    """Makes the words of a text. Raises ServiceError(TEMPLATE) when they may not leave."""

    def __call__(
        self, values: TextValues, *, language: Language, wording: Wording, service: Service, ref: str
    ) -> Rendered:
        """The same inputs give the same bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Toolbox:
    """What wiring lends to the actions on texts."""

    services: Services
    cipher: Cipher
    indexes: BlindIndex
    render: Render
    provider: str
    """The sender's name, as it stands on attempts."""


@dataclass(slots=True)
class Run:
    """What every step of one transaction needs, and what it counts."""

    session: Session
    now: datetime
    machine: datetime
    tools: Toolbox
    actor: str
    counts: Counts = field(default_factory=Counter)
    _audit: list[tuple[object, ...]] = field(default_factory=list, init=False, repr=False)
    _events: list[tuple[object, ...]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        # Whoever ends the transaction: no line of the audit can be forgotten.
        sa.event.listen(self.session, "before_commit", self._write)

    def _write(self, session: Session) -> None:
        """All lines of the transaction at once: one by one they took a fifth of the sender's time."""
        for table, columns, lines in (
            ("audit", _AUDIT_COLUMNS, self._audit),
            ("kit_event", _EVENT_COLUMNS, self._events),
        ):
            if lines:
                copy(session, table, columns, lines)
                lines.clear()

    def tell(self, text: Text, kind: str, detail: Mapping[str, object]) -> None:
        """A line in the kit's timeline, in the world's time. `detail` holds codes and ids only."""
        told = as_json({"text": text.ref, "purpose": text.purpose.value, **detail})
        self._events.append((text.kit_id, text.service_id, kind, told, self.actor, self.now))

    def note(self, text: Text, action: str, detail: Mapping[str, object]) -> None:
        """A line in the audit, which nobody can edit (law 10). `detail` holds codes and ids only."""
        self._audit.append((text.service_id, self.actor, action, "text", id_of(text), "", as_json(detail), self.now))

    def service_of(self, text: Text) -> Service:
        """The choices of the council whose text it is."""
        return self.tools.services[text.service_id].service


@dataclass(slots=True)
class Held:
    """One attempt with its text, both locked, and their kit with them."""

    attempt: TextAttempt
    text: Text

    @property
    def attempt_id(self) -> int:
        """The attempt's key."""
        assert self.attempt.id is not None  # a stored row
        return self.attempt.id

    @property
    def is_latest(self) -> bool:
        """Only the latest attempt moves its text; an older one may still deliver it."""
        return self.attempt.number == self.text.attempts


def machine_now(session: Session) -> datetime:
    """The database's own clock: never shifted, the same for every worker (ruling 12)."""
    [(now,)] = cursor(session).execute("SELECT clock_timestamp()").fetchall()
    assert isinstance(now, datetime)
    return now


def short_ref(text_ref: str) -> str:
    """The reference that a person may read out: six characters."""
    return text_ref[:SHORT_REF_LENGTH].upper()


def render_text(run: Run, text: Text, contact: Contact) -> Rendered:
    """The words of a text for one contact. Raises ServiceError(TEMPLATE | BAD_INPUT) when they can't leave."""
    return run.tools.render(
        read_values(text.purpose, run.tools.cipher.decrypt("text", "values", text.ref, text.values)),
        language=Language(contact.language),
        wording=Wording(contact.wording),
        service=run.service_of(text),
        ref=short_ref(text.ref),
    )


def lock_attempts(session: Session, attempt_ids: Collection[int]) -> list[Held]:
    """Locks kits, texts and attempts in the one order, and returns them freshly read, in that order."""
    if not attempt_ids:
        return []
    texts_of = session.exec(
        select(Text.id, Text.kit_id)
        .join(TextAttempt, col(TextAttempt.text_id) == col(Text.id))
        .where(one_of(TextAttempt.id, attempt_ids))
    ).all()
    kit_ids = {kit_id for _, kit_id in texts_of if kit_id is not None}
    session.execute(select(Kit.id).where(one_of(Kit.id, kit_ids)).order_by(col(Kit.id)).with_for_update())
    texts = {
        text.id: text
        for text in session.exec(
            select(Text)
            .where(one_of(Text.id, {text_id for text_id, _ in texts_of}))
            .order_by(col(Text.id))
            .with_for_update()
            .execution_options(populate_existing=True)
        )
    }
    attempts = session.exec(
        select(TextAttempt)
        .where(one_of(TextAttempt.id, attempt_ids))
        .order_by(col(TextAttempt.id))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return [Held(attempt, texts[attempt.text_id]) for attempt in attempts]


def lock_kits(session: Session, kit_ids: Collection[int]) -> dict[int, Kit]:
    """Plain FOR UPDATE in ascending id, never SKIP LOCKED (ruling 2)."""
    if not kit_ids:
        return {}
    rows = session.exec(
        select(Kit)
        .where(one_of(Kit.id, kit_ids))
        .order_by(col(Kit.id))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return {kit.id: kit for kit in rows if kit.id is not None}


def id_of(text: Text) -> int:
    """The key of a stored text."""
    assert text.id is not None  # a stored row
    return text.id


def become_unsure(run: Run, held: Held) -> None:
    """An attempt that may have gone: it is looked up after the grace, which exceeds the provider's listing lag."""
    grace = timedelta(minutes=run.service_of(held.text).texts.unsure_grace_minutes)
    held.attempt.state, held.attempt.lookups = AttemptState.UNSURE, 0
    held.attempt.ask_at = held.attempt.started_at + grace
    if held.is_latest and held.text.state is TextState.SENDING:
        held.text.state = TextState.UNSURE
    run.counts["unsure"] += 1


def see(run: Run, held: Held, sighting: Sighting) -> bool:
    """Merges one word of the provider about one attempt's message, forward only. False: it is another message.

    Any word proves that the text had arrived, even before our own commit of its id, even after two
    look-ups that did not find it: then what was owed again is owed no more.
    """
    attempt, text = held.attempt, held.text
    if attempt.provider_id and attempt.provider_id != sighting.provider_id:
        return False
    if attempt.state is not AttemptState.ACCEPTED:
        if attempt.state is AttemptState.NEVER_ARRIVED and not held.is_latest:
            run.counts["alarm"] += 1  # sent again meanwhile: the grace is shorter than the provider's lag
        end_attempt(run, attempt, AttemptState.ACCEPTED, attempt.error_code)
        attempt.provider_id, attempt.lookups, attempt.error_code = sighting.provider_id, 0, ""
        first = ask_after(0)
        attempt.ask_at = run.machine + first if first else None
        if held.is_latest and text.state in OUT | {TextState.OWED}:
            text.state, text.sent_at, text.retry_at = TextState.ACCEPTED, run.now, None
            tell(run, text, "text.sent")
        run.counts["accepted"] += 1
    if sighting.status is DeliveryStatus.UNKNOWN:
        run.counts["alarm"] += 1
    known, attempt.status = attempt.status, merged(attempt.status, sighting.status)
    if attempt.status is known:
        return True
    attempt.error_code = attempt.error_code or sighting.error_code
    if held.is_latest:
        text.status = attempt.status
    if attempt.status in FINAL:
        attempt.ask_at = run.machine if attempt.redacted_at is None else None
    if attempt.status is DeliveryStatus.DELIVERED:
        _arrived(run, text)
    elif attempt.status in FINAL and held.is_latest and text.state is TextState.ACCEPTED:
        fail(run, held, attempt.error_code, remedy_for(attempt.error_code), why=attempt.error_code or "failed")
    return True


def _arrived(run: Run, text: Text) -> None:
    """Delivered beats everything but a person: a try that was still owed is owed no more."""
    text.status = DeliveryStatus.DELIVERED
    run.counts["delivered"] += 1
    tell(run, text, "text.delivered")
    if text.state is TextState.HANDED_OVER:
        return
    if text.state is TextState.CANCELLED and is_result(text.purpose) and text.kit_id is not None:
        # It was stopped as out of date between two tries, and the first try arrived after all (law 6).
        late = OwedCase(
            key=result_case_key(text.kit_id),
            kind=CaseKind.CORRECTION,
            order_id=text.order_id,
            kit_id=text.kit_id,
            detail={"text": text.ref, "why": "told_after_cancelling"},
        )
        owe_cases(run.session, [late], service=run.service_of(text), now=run.now, actor=run.actor)
        run.counts["alarm"] += 1
    text.state, text.cancelled_because, text.settled_at = TextState.DELIVERED, "", run.now


def fail(run: Run, held: Held, code: str, remedy: Remedy, *, why: str) -> None:
    """A text that did not reach its person: at once the clinic's if it told a result, and tried again by the table."""
    attempt, text = held.attempt, held.text
    window = window_of(text.purpose, run.service_of(text).texts)
    failed_before = run.session.exec(
        select(sa.func.count()).where(
            col(TextAttempt.text_id) == text.id,
            col(TextAttempt.id) != attempt.id,
            col(TextAttempt.status).in_([DeliveryStatus.FAILED, DeliveryStatus.CANCELLED]),
        )
    ).one()
    text.error_code = text.error_code or code[:CODE_LENGTH]
    if remedy.freezes_number:
        _freeze_number(run, text)
    if remedy.alarm:
        run.counts["alarm"] += 1
    if is_result(text.purpose):
        _to_the_clinic(run, text, why)
    tell(run, text, "text.failed", why=why)
    again = again_at(remedy, failed_before + 1, run.now, window)
    if again is None:
        text.state, text.settled_at = TextState.FAILED, run.now
        run.counts["failed"] += 1
        return
    text.state, text.status, text.not_before = TextState.OWED, None, again
    run.counts["again"] += 1


def hand_over(run: Run, text: Text, why: str) -> None:
    """A result text becomes the clinic's; a journey text, which nobody need be rung about, counts as failed."""
    text.settled_at = run.now
    if is_result(text.purpose):
        text.state = TextState.HANDED_OVER
        _to_the_clinic(run, text, why)
        run.counts["handed_over"] += 1
        tell(run, text, "text.handed_over", why=why)
    else:
        text.state, text.error_code = TextState.FAILED, text.error_code or why[:CODE_LENGTH]
        run.counts["failed"] += 1
        tell(run, text, "text.failed", why=why)
    run.session.add(text)


def undelivered_case_key(text_id: int) -> str:
    """The key of the one case that a text's failure opens."""
    return f"text:{text_id}:undelivered"


def _to_the_clinic(run: Run, text: Text, why: str) -> None:
    """The case that says: this person has not been told. Opened once for each text, with a due time (FEATURES 51)."""
    case = OwedCase(
        key=undelivered_case_key(id_of(text)),
        kind=CaseKind.UNDELIVERED_TEXT,
        order_id=text.order_id,
        kit_id=text.kit_id,
        decision_id=text.decision_id,
        detail={"text": text.ref, "why": why},
        reopen=False,
    )
    owe_cases(run.session, [case], service=run.service_of(text), now=run.now, actor=run.actor)


def _freeze_number(run: Run, text: Text) -> None:
    """No text goes to this number until its person proves it again (FEATURES 54; H5)."""
    contact = run.session.exec(select(Contact).where(col(Contact.id) == text.contact_id)).one()
    mobile = run.tools.cipher.decrypt("contact", "mobile", contact.ref, contact.mobile)
    run.session.execute(
        sa.update(MobileHolder)
        .where(
            col(MobileHolder.service_id) == text.service_id,
            col(MobileHolder.person_id) == contact.person_id,
            col(MobileHolder.digest).in_(run.tools.indexes.live(MOBILE, text.service_id, mobile)),
        )
        .values(frozen_at=run.now)
        .execution_options(synchronize_session=False)
    )
    run.counts["numbers_frozen"] += 1


def end_attempt(run: Run, attempt: TextAttempt, state: AttemptState, code: str) -> None:
    """What the call came to, by machine time."""
    attempt.state, attempt.error_code = state, code[:CODE_LENGTH]
    attempt.finished_at, attempt.ask_at = run.machine, None


def tell(run: Run, text: Text, kind: str, **detail: object) -> None:
    """A line in the kit's timeline and in the audit."""
    if text.kit_id is not None:
        run.tell(text, kind, detail)
    run.note(text, kind, detail)


def note(run: Run, text: Text, action: str, **detail: object) -> None:
    """A line in the audit."""
    run.note(text, action, detail)
