"""What the service manager's board shows: queues by age, and how soon people were reached. Counts and times only."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlmodel import Session

from models.actions import audit
from models.rules.clinic import CaseKind
from models.rules.disclosure import suppress_parts
from models.rules.standards import CaseTimes, Measured, measure_all, shown_counts
from models.tables.bulk import cursor

LOOKS_BACK: Final = timedelta(days=182)
"""Half a year of cases: long enough for the six weeks of treatment and for five of a kind."""


@dataclass(frozen=True, slots=True)
class Queue:
    """Open cases of one kind. `oldest_at` is when the oldest was opened; ages count from there."""

    kind: CaseKind
    open: int
    overdue: int
    under_day: int
    under_week: int
    older: int
    oldest_at: datetime


@dataclass(frozen=True, slots=True)
class Board:
    """Everything on the page. `standards` by kind of result: a reactive screen and a positive are two things."""

    queues: tuple[Queue, ...]
    standards: Mapping[CaseKind, tuple[Measured, ...]]
    since: datetime


def board(session: Session, *, service_ids: Collection[str], now: datetime) -> Board:
    """Where these services' cases stand, and how soon people were reached. Reads only; nobody is named."""
    since = now - LOOKS_BACK
    with cursor(session) as on:
        on.execute(_QUEUES, {"services": list(service_ids), "now": now})
        found = [Queue(CaseKind(kind), *rest) for kind, *rest in on.fetchall()]
        on.execute(_TIMES, {"services": list(service_ids), "since": since})
        times: dict[CaseKind, list[CaseTimes]] = {CaseKind.REACTIVE: [], CaseKind.POSITIVE: []}
        for kind, *reached in on.fetchall():
            times[CaseKind(kind)].append(CaseTimes(*reached))
    order = {kind: place for place, kind in enumerate(CaseKind)}
    return Board(
        queues=tuple(sorted(found, key=lambda queue: order[queue.kind])),
        standards={
            kind: measure_all(each, now=now, diagnosis=kind is CaseKind.POSITIVE) for kind, each in times.items()
        },
        since=since,
    )


def export_board(
    session: Session, *, service_ids: Collection[str], actor: str, now: datetime
) -> list[tuple[str, str, str]]:
    """The board as rows of what, measure and value, with small numbers withheld; leaves an audit entry a service."""
    for service_id in sorted(service_ids):
        audit.record(
            session,
            action="board.exported",
            subject="service",
            subject_id=0,
            actor=actor,
            now=now,
            service_id=service_id,
        )
    shown = board(session, service_ids=service_ids, now=now)
    rows = [("what", "measure", "value")]
    overdue = suppress_parts({queue.kind.value: (queue.open, queue.overdue) for queue in shown.queues})
    week = suppress_parts({queue.kind.value: (queue.open, queue.older) for queue in shown.queues})
    for name in overdue:
        rows += [(name, "open", _count(overdue[name][0])), (name, "overdue", _count(overdue[name][1]))]
        rows.append((name, "older_than_a_week", _count(week[name][1])))
    for kind, standards in shown.standards.items():
        for each, (cases, within) in zip(standards, shown_counts(standards), strict=True):
            name, median = f"{kind.value}:{each.standard.key}", None if cases is None else each.median_days
            rows += [(name, "cases", _count(cases)), (name, "within", _count(within))]
            rows.append((name, "median_days", WITHHELD if median is None else f"{median:g}"))
    return rows


WITHHELD: Final = "withheld"


def _count(number: int | None) -> str:
    return WITHHELD if number is None else str(number)


_QUEUES: Final = """
    SELECT kind, count(*), count(*) FILTER (WHERE due_at < %(now)s),
           count(*) FILTER (WHERE opened_at > %(now)s - interval '1 day'),
           count(*) FILTER (WHERE opened_at <= %(now)s - interval '1 day' AND opened_at > %(now)s - interval '7 days'),
           count(*) FILTER (WHERE opened_at <= %(now)s - interval '7 days'), min(opened_at)
    FROM clinic_case WHERE closed_at IS NULL AND service_id = ANY(%(services)s) GROUP BY 1
"""

_TIMES: Final = """
    SELECT c.kind, news.at,
           (SELECT min(a.occurred_at) FROM case_attempt a
            WHERE a.case_id = c.id AND a.occurred_at >= news.at AND a.result <> 'note'),
           (SELECT min(a.occurred_at) FROM case_attempt a
            WHERE a.case_id = c.id AND a.occurred_at >= news.at AND a.result = 'spoke'),
           (SELECT min(coalesce(e.happened_on, (e.occurred_at AT TIME ZONE 'Europe/London')::date))
            FROM case_ending e WHERE e.case_id = c.id AND e.outcome = 'treated')
    FROM clinic_case c CROSS JOIN LATERAL (
        SELECT coalesce(min(i.added_at), c.opened_at) AS at FROM case_item i
        WHERE i.case_id = c.id AND i.outcome IN ('positive', 'reactive', 'low_reactive')) news
    WHERE c.kind IN ('reactive', 'positive') AND news.at >= %(since)s AND c.service_id = ANY(%(services)s)
"""
"""Reactive screens and positives: when the result reached us, the first try, the first talk, the day of treatment.

A case may be older than its news: a kit's results were overdue, or a sample failed, and then one was positive."""
