"""Owed texts go to the provider; callbacks are merged; unsure and silent texts are settled.

One attempt is one call. Each batch is claimed and committed, then called with no session open, then
written down and committed. Killed at any line, the next run finds every text either still owed or
in an attempt that is looked up: none goes twice, none is lost (law 7; ruling 20).
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Final, TypeVar

from prefect import flow

from app.database import Begin
from app.wiring import Clock, connect
from flows.guard import guarded
from integrations.ports import NotSent, OutgoingText, Refused, Seen, TextSender, Unsure
from models.actions.text import ClaimedText, claim_texts, hold_burst, record_answers, sending_stopped
from models.actions.text_moves import Counts, Toolbox
from models.actions.text_status import Chore, due_chores, expire_leases, merge_statuses, record_chores
from models.rules.errors import Code, ServiceError
from models.rules.text_delivery import (
    LEASE,
    Answer,
    Blanked,
    ChoreAnswer,
    ChoreKind,
    DidNotSend,
    Found,
    MayHave,
    NoAnswer,
    Sighting,
    Took,
    Unknown,
    WillNot,
)

ACTOR: Final = "flow:notify_residents"
AT_ONCE: Final = 8
"""Calls to the provider under way at the same time."""

BATCH: Final = 40
"""Texts claimed in one transaction: with ten seconds' patience a call, all are made well within their lease."""

log: Final = logging.getLogger("kitpost")

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class Tally:
    """Counts of one run: all that Prefect is told."""

    callbacks: int = 0
    chores: int = 0
    held: int = 0
    """Texts of a burst that wait for a person: kitpost texts release."""
    stopped: bool = False
    """The kill switch is set."""
    counts: Counts = field(default_factory=Counter)

    @property
    def needs_a_person(self) -> bool:
        """Whether somebody who runs the service must look: a held burst, or an alarm."""
        return self.held > 0 or self.counts["alarm"] > 0


@dataclass(frozen=True, slots=True)
class Notify:
    """All that sending needs, put together by wiring."""

    begin: Begin
    sender: TextSender
    tools: Toolbox
    clock: Clock
    """Service time: read again for every batch, so that a long run stops at the end of the window."""


def send_due_texts(notify: Notify, *, limit: int) -> Tally:
    """Merges callbacks, settles what is unclear, and sends up to `limit` due texts over all services."""
    tally = Tally()
    merge_callbacks(notify, tally)
    settle(notify, tally)
    with notify.begin() as session:
        tally.stopped = sending_stopped(session)
    if tally.stopped:
        return tally
    left = limit
    for service_id in sorted(notify.tools.services):
        left -= _send_for(notify, service_id, limit=left, tally=tally)
    return tally


def merge_callbacks(notify: Notify, tally: Tally) -> None:
    """Every waiting status callback, in batches."""
    read = BATCH
    while read == BATCH:
        with notify.begin() as session:
            read, counts = merge_statuses(session, limit=BATCH, now=notify.clock(), tools=notify.tools, actor=ACTOR)
        tally.callbacks += read
        tally.counts += counts


def settle(notify: Notify, tally: Tally) -> None:
    """Ended leases become unsure; the provider is asked about the unsure and the silent, and told to blank the rest.

    A provider that answers nothing of a whole batch is left alone until the next run.
    """
    with notify.begin() as session:
        tally.counts += expire_leases(session, limit=1_000, now=notify.clock(), tools=notify.tools, actor=ACTOR)
    answered = True
    while answered:
        with notify.begin() as session:
            chores = due_chores(session, limit=BATCH, now=notify.clock(), tools=notify.tools, actor=ACTOR)
        answers = _at_once(chores, partial(_ask, notify.sender))
        if not answers:
            return
        with notify.begin() as session:
            tally.counts += record_chores(
                session,
                [(chore.attempt_id, answer) for chore, answer in zip(chores, answers, strict=True)],
                now=notify.clock(),
                tools=notify.tools,
                actor=ACTOR,
            )
        tally.chores += len(chores)
        answered = any(not isinstance(answer, NoAnswer) for answer in answers)


def _send_for(notify: Notify, service_id: str, *, limit: int, tally: Tally) -> int:
    """Sends what is due for one service, at most what was free to go at the start, and says how many it took up."""
    service = notify.tools.services[service_id].service
    with notify.begin() as session:
        free, held = hold_burst(session, service=service, now=notify.clock(), actor=ACTOR)
    tally.held += held
    left = min(free, limit)
    taken = 0
    while left > taken:
        began = monotonic()
        with notify.begin() as session:
            claims = claim_texts(
                session,
                service_id=service_id,
                limit=min(BATCH, left - taken),
                now=notify.clock(),
                tools=notify.tools,
                actor=ACTOR,
            )
        tally.counts += claims.counts
        if not claims.looked_at:
            break
        taken += claims.looked_at
        answers = _at_once(claims.claimed, partial(_call, notify.sender, began=began))
        with notify.begin() as session:
            tally.counts += record_answers(
                session,
                [(text.attempt_id, answer) for text, answer in zip(claims.claimed, answers, strict=True)],
                now=notify.clock(),
                tools=notify.tools,
                actor=ACTOR,
            )
        if _provider_is_down(answers):
            break
    return taken


def _provider_is_down(answers: Sequence[Answer]) -> bool:
    """Our account is at fault, or nothing of a whole batch got through: more calls now would only knock again."""
    refusals = [answer for answer in answers if isinstance(answer, DidNotSend)]
    return any(answer.alarm for answer in refusals) or (len(refusals) == len(answers) > 0)


def _at_once(items: Sequence[T], call: Callable[[T], R]) -> list[R]:
    """Makes one call an item, a few at the same time, with no session open anywhere in this run."""
    if not items:
        return []
    with ThreadPoolExecutor(max_workers=min(AT_ONCE, len(items))) as threads:
        return list(threads.map(call, items))


def _call(sender: TextSender, text: ClaimedText, began: float) -> Answer:
    """The one call of one attempt. Whatever is not proved unsent may have gone.

    A machine that slept through the lease must not call: somebody may have looked the attempt up already.
    """
    if monotonic() - began >= LEASE.total_seconds():
        return DidNotSend("lease_over")
    try:
        accepted = sender.send(OutgoingText(text.attempt_ref, text.to_e164, text.body))
    except NotSent as error:
        return DidNotSend(error.code, error.retry_after_seconds, error.alarm)
    except Refused as error:
        return WillNot(error.code, error.kind)
    except Unsure as error:
        return MayHave(error.code)
    except Exception as error:  # noqa: BLE001 - a fault of ours after the provider took it must not look like unsent
        log.error("a call to the provider ended in %s", type(error).__name__)  # noqa: TRY400 - no foreign words
        return MayHave("unexpected")
    return Took(accepted.provider_id, accepted.status)


def _ask(sender: TextSender, chore: Chore) -> ChoreAnswer:
    """One question, which changes nothing but the provider's copy of the words."""
    try:
        match chore.kind:
            case ChoreKind.FIND if chore.body:
                return Found(_sightings(sender.find(OutgoingText(chore.attempt_ref, chore.to_e164, chore.body))))
            case ChoreKind.FIND:
                return NoAnswer()
            case ChoreKind.STATUS:
                return _sighting(sender.status(chore.provider_id))
            case ChoreKind.BLANK:
                sender.redact(chore.provider_id)
                return Blanked()
    except NotSent:
        return NoAnswer()
    except Refused:
        return Unknown()


def _sightings(seen: Iterable[Seen]) -> tuple[Sighting, ...]:
    return tuple(map(_sighting, seen))


def _sighting(seen: Seen) -> Sighting:
    return Sighting(seen.provider_id, seen.status, seen.error_code or "", seen.created_at)


@flow(name="notify-residents", retries=0)
@guarded("notify-residents")
def notify_residents(limit: int = 500) -> None:
    """Sends what is due. Fails, once all is done, when a burst or an alarm needs a person."""
    home = connect()
    tools = Toolbox(home.services, home.cipher, home.index, home.catalogue.render, home.texts.name)
    tally = send_due_texts(Notify(home.begin, home.texts, tools, home.clock), limit=limit)
    log.info(
        "texts: %s; callbacks %d, held %d%s",
        dict(tally.counts),
        tally.callbacks,
        tally.held,
        ", sending is stopped" if tally.stopped else "",
    )
    if tally.needs_a_person:
        raise ServiceError(Code.PARKED, "Some texts need a person: see kitpost texts show, and the log.")
