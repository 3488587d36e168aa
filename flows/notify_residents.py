"""Owed texts go to the provider; callbacks are merged; unsure and silent texts are settled.

One attempt is one call. Each batch is claimed and committed, then called with no session open, then
written down and committed. Killed at any line, the next run finds every text either still owed or
in an attempt that is looked up: none goes twice, none is lost (law 7; ruling 20).
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from queue import SimpleQueue
from threading import Lock
from time import monotonic
from typing import Final

from prefect import flow
from sqlmodel import Session

from app.database import Begin
from app.text_call import call
from app.wiring import Clock, connect
from flows.guard import guarded
from integrations.ports import FileStore, NotSent, OutgoingText, Refused, Seen, TextSender
from models.actions.text import (
    NOBODY,
    ClaimedText,
    Claims,
    MaybeTold,
    claim_texts,
    hold_burst,
    record_answers,
)
from models.actions.text_moves import Counts, Toolbox
from models.actions.text_reply import take_replies
from models.actions.text_status import Chore, due_chores, expire_leases, merge_statuses, record_chores
from models.actions.text_switch import SenderRun, count_run, may_call, sending_stopped, unaccounted
from models.rules.errors import Code, ServiceError
from models.rules.text_delivery import (
    HELD_BACK,
    LEASE,
    LEASE_OVER,
    STOPPED,
    Answer,
    Blanked,
    ChoreAnswer,
    ChoreKind,
    DidNotSend,
    Found,
    NoAnswer,
    Sighting,
    Unknown,
)

ACTOR: Final = "flow:notify_residents"

BATCH: Final = 64
"""Texts claimed in one transaction: with ten seconds' patience a call, all are made well within their lease."""

QUESTION_LINES: Final = 4
"""Connections on which the switches are asked: a question takes a quarter of a millisecond."""

RUNS_KEY: Final = "sender/runs.json"
"""Where the count of runs is kept outside the database. Nothing personal stands in it."""

CLOCKS_DIFFER: Final = timedelta(minutes=5)
"""How far a provider's clock may be behind the database's."""

log: Final = logging.getLogger("kitpost")


@dataclass(slots=True)
class Tally:
    """Counts of one run: all that Prefect is told."""

    callbacks: int = 0
    replies: int = 0
    chores: int = 0
    held: int = 0
    """Texts of a burst that wait for a person: kitpost texts release."""
    stopped: bool = False
    """The kill switch of the whole installation is set."""
    restored: bool = False
    """The database is a restored backup: numbers that may have got a text meanwhile are left to people."""
    counts: Counts = field(default_factory=Counter)

    @property
    def needs_a_person(self) -> bool:
        """Whether somebody who runs the service must look: a held burst, or an alarm."""
        return self.held > 0 or self.counts["alarm"] > 0


@dataclass(frozen=True, slots=True)
class Notify:
    """All that sending needs, put together by wiring."""

    begin: Begin
    senders: Mapping[str, TextSender]
    """Every provider that there are credentials for, by name."""
    tools: Toolbox
    clock: Clock
    """Service time: read again for every batch, so that a long run stops at the end of the window."""
    outside: FileStore
    """Keeps the count of runs where no restored backup can take it back."""


class Pacer:
    """Spaces calls, over all threads, so that no more begin in a second than the provider allows."""

    def __init__(self, per_second: float) -> None:
        self._gap = 1 / per_second
        self._lock = Lock()
        self._next = 0.0

    def wait(self) -> None:
        """Returns when it is this call's turn."""
        with self._lock:
            turn = max(self._next, monotonic())
            self._next = turn + self._gap
        time.sleep(max(0.0, turn - monotonic()))


@dataclass(frozen=True, slots=True)
class Lane:
    """One provider's way out: its threads and its pace."""

    sender: TextSender
    threads: ThreadPoolExecutor
    pacer: Pacer

    @property
    def batch(self) -> int:
        """Texts to claim at once: fewer for a slow provider, whose calls must end within their lease."""
        return max(1, min(BATCH, int(self.sender.pace.per_second * LEASE.total_seconds() / 6)))


Lanes = Mapping[str, Lane]


@contextmanager
def _open_lanes(senders: Mapping[str, TextSender]) -> Iterator[Lanes]:
    with ExitStack() as stack:
        yield {
            name: Lane(
                sender, stack.enter_context(ThreadPoolExecutor(sender.pace.at_once)), Pacer(sender.pace.per_second)
            )
            for name, sender in senders.items()
        }


def send_due_texts(notify: Notify, *, limit: int) -> Tally:
    """Merges callbacks, settles what is unclear, and sends up to `limit` due texts over all services."""
    tally = Tally()
    merge_callbacks(notify, tally)
    read_replies(notify, tally)
    run = _count_run(notify, tally)
    with _open_lanes(notify.senders) as lanes:
        settle(notify, lanes, tally)
        with notify.begin() as session:
            tally.stopped = sending_stopped(session)
        if tally.stopped:
            return tally
        maybe_told = _maybe_told(notify, run)
        if maybe_told is None:
            tally.counts["alarm"] += 1
            return tally
        left = limit
        with _open_questions(notify.begin) as questions:
            for service_id in sorted(notify.tools.services):
                left -= _Sending(notify, lanes, tally, service_id, maybe_told, questions).run(left)
    return tally


@contextmanager
def _open_questions(begin: Begin) -> Iterator[SimpleQueue[Session]]:
    """The lines on which the switches are asked before each call, kept open: every question sees what is so then.

    Opening one for each text cost more than the question.
    """
    with ExitStack() as stack:
        lines: SimpleQueue[Session] = SimpleQueue()
        for _ in range(QUESTION_LINES):
            session = stack.enter_context(begin())
            session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            lines.put(session)
        yield lines


def _count_run(notify: Notify, tally: Tally) -> SenderRun:
    """Counts this run inside and then outside, before anything is sent (H29). Raises ServiceError(STORE_DOWN)."""
    try:
        outside = int(json.loads(notify.outside.read(RUNS_KEY))["runs"])
    except ServiceError as error:
        if error.code is not Code.NOT_FOUND:
            raise
        outside = None
    with notify.begin() as session:
        run = count_run(session, outside=outside, actor=ACTOR, now=notify.clock())
    notify.outside.put(RUNS_KEY, json.dumps({"runs": run.number}).encode(), "application/json")
    tally.restored = run.restored_from is not None
    if run.just_found:
        tally.counts["alarm"] += 1
    return run


def _maybe_told(notify: Notify, run: SenderRun) -> MaybeTold | None:
    """In a restored database: the numbers that got a text which it knows nothing of. None: no provider says so now."""
    if run.restored_from is None:
        return NOBODY
    since = run.restored_from - CLOCKS_DIFFER
    senders = notify.senders.values()
    if any(run.at - since > sender.remembers for sender in senders):
        return MaybeTold(frozenset(), everyone=True)
    try:
        taken = {key: number for sender in senders for key, number in sender.texted_since(since).items()}
    except NotSent:
        return None
    with notify.begin() as session:
        return MaybeTold(unaccounted(session, taken))


def merge_callbacks(notify: Notify, tally: Tally) -> None:
    """Every waiting status callback, in batches."""
    read = BATCH
    while read == BATCH:
        with notify.begin() as session:
            read, counts = merge_statuses(session, limit=BATCH, now=notify.clock(), tools=notify.tools, actor=ACTOR)
        tally.callbacks += read
        tally.counts += counts


def read_replies(notify: Notify, tally: Tally) -> None:
    """Every waiting reply, in batches: before anything is sent, so that a STOP counts from now on."""
    read = BATCH
    while read == BATCH:
        with notify.begin() as session:
            read, counts = take_replies(session, limit=BATCH, now=notify.clock(), tools=notify.tools, actor=ACTOR)
        tally.replies += read
        tally.counts += counts


def settle(notify: Notify, lanes: Lanes, tally: Tally) -> None:
    """Ended leases become unsure; the provider is asked about the unsure and the silent, and told to blank the rest.

    A provider that answers nothing of a whole batch is left alone until the next run.
    """
    with notify.begin() as session:
        tally.counts += expire_leases(session, limit=1_000, now=notify.clock(), tools=notify.tools, actor=ACTOR)
    answered = True
    while answered:
        with notify.begin() as session:
            chores = due_chores(session, limit=BATCH, now=notify.clock(), tools=notify.tools, actor=ACTOR)
        if not chores:
            return
        answers = [each.result() for each in [_ask(lanes, chore) for chore in chores]]
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


@dataclass(slots=True)
class _Sending:
    """What is due for one service, on its way out: while one batch is called, the next is claimed."""

    notify: Notify
    lanes: Lanes
    tally: Tally
    service_id: str
    maybe_told: MaybeTold
    questions: SimpleQueue[Session]
    left: int = 0
    taken: int = 0

    def run(self, limit: int) -> int:
        """Sends at most what was free to go at the start, and says how many texts it took up."""
        service = self.notify.tools.services[self.service_id].service
        with self.notify.begin() as session:
            free, held = hold_burst(session, service=service, now=self.notify.clock(), actor=ACTOR)
        self.tally.held += held
        self.left = min(free, limit)
        ready, called = self._claim(), Claims()
        answers: Sequence[Answer] = ()
        while ready.looked_at:
            began = monotonic()
            calls = [self._call(text, began) for text in ready.claimed]
            self._record(called, answers)
            called, ready = ready, self._claim()
            answers = [call.result() for call in calls]
            if _provider_is_down(answers):
                self._record(ready, [HELD_BACK] * len(ready.claimed))
                break
        self._record(called, answers)
        return self.taken

    def _claim(self) -> Claims:
        batch = min(lane.batch for lane in self.lanes.values())
        if self.left <= self.taken:
            return Claims()
        with self.notify.begin() as session:
            claims = claim_texts(
                session,
                service_id=self.service_id,
                limit=min(batch, self.left - self.taken),
                now=self.notify.clock(),
                tools=self.notify.tools,
                actor=ACTOR,
                maybe_told=self.maybe_told,
            )
        self.tally.counts += claims.counts
        self.taken += claims.looked_at
        return claims

    def _call(self, text: ClaimedText, began: float) -> "Future[Answer]":
        lane = self.lanes.get(text.provider)
        if lane is None:
            return _known(DidNotSend("no_such_provider", alarm=True))
        return lane.threads.submit(_call, lane, text, began, partial(self._may_call, text))

    def _may_call(self, text: ClaimedText) -> bool:
        session = self.questions.get()
        try:
            return may_call(session, service_id=text.service_id, text_class=text.text_class, person_id=text.person_id)
        finally:
            self.questions.put(session)

    def _record(self, claims: Claims, answers: Sequence[Answer]) -> None:
        if not claims.claimed:
            return
        with self.notify.begin() as session:
            self.tally.counts += record_answers(
                session,
                [(text.attempt_id, answer) for text, answer in zip(claims.claimed, answers, strict=True)],
                now=self.notify.clock(),
                tools=self.notify.tools,
                actor=ACTOR,
            )


def _provider_is_down(answers: Sequence[Answer]) -> bool:
    """Our account is at fault, or nothing of a whole batch got through: more calls now would only knock again."""
    refusals = [answer for answer in answers if isinstance(answer, DidNotSend)]
    return any(answer.alarm for answer in refusals) or (len(refusals) == len(answers) > 0)


def _known(answer: Answer) -> "Future[Answer]":
    known: Future[Answer] = Future()
    known.set_result(answer)
    return known


def _call(lane: Lane, text: ClaimedText, began: float, may: Callable[[], bool]) -> Answer:
    """The one call of one attempt, in its turn.

    A machine that slept through the lease must not call: somebody may have looked the attempt up already.
    The switches are looked at as the last thing before the call.
    """
    lane.pacer.wait()
    if not may():
        return STOPPED
    if monotonic() - began >= LEASE.total_seconds():
        return LEASE_OVER
    return call(lane.sender, OutgoingText(text.attempt_ref, text.to_e164, text.body))


def _ask(lanes: Lanes, chore: Chore) -> "Future[ChoreAnswer]":
    lane = lanes.get(chore.provider)
    if lane is None:
        known: Future[ChoreAnswer] = Future()
        known.set_result(NoAnswer())
        return known
    return lane.threads.submit(_answer, lane, chore)


def _answer(lane: Lane, chore: Chore) -> ChoreAnswer:
    """One question, which changes nothing but the provider's copy of the words."""
    lane.pacer.wait()
    sender = lane.sender
    try:
        match chore.kind:
            case ChoreKind.FIND if chore.body and chore.age < sender.remembers:
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
    tools = Toolbox(home.services, home.cipher, home.index, home.catalogue.render, home.text_provider)
    tally = send_due_texts(Notify(home.begin, home.senders, tools, home.clock, home.store), limit=limit)
    log.info(
        "texts: %s; callbacks %d, replies %d, held %d%s%s",
        dict(tally.counts),
        tally.callbacks,
        tally.replies,
        tally.held,
        ", sending is stopped" if tally.stopped else "",
        ", restored from a backup" if tally.restored else "",
    )
    if tally.needs_a_person:
        raise ServiceError(Code.PARKED, "Some texts need a person: see kitpost texts show, and the log.")
