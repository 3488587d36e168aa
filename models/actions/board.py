"""What the service manager's board shows: queues by age, and how soon people were reached. Counts and times only."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlmodel import Session

from models.actions import audit
from models.rules.clinic import CaseKind
from models.rules.disclosure import suppress
from models.rules.standards import CaseTimes, Measured, measure_all
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
    open_ = suppress({queue.kind.value: queue.open for queue in shown.queues})
    overdue = suppress({queue.kind.value: queue.overdue for queue in shown.queues})
    rows = [("what", "measure", "value")]
    for queue in shown.queues:
        name = queue.kind.value
        rows.append((name, "open", _count(open_[name])))
        # From a small queue even 'none overdue' would say how it stands with one person.
        rows.append((name, "overdue", _count(overdue[name] if open_[name] is not None else None)))
    for kind, standards in shown.standards.items():
        cases = suppress({each.standard.key: each.cases for each in standards})
        for each in standards:
            name, few = f"{kind.value}:{each.standard.key}", cases[each.standard.key] is None
            share = None if few or each.share is None else f"{each.share:.3f}"
            rows.append((name, "cases", _count(cases[each.standard.key])))
            rows.append((name, "share_within", share or WITHHELD))
            rows.append((name, "median_days", WITHHELD if each.median_days is None else f"{each.median_days:g}"))
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
    SELECT c.kind, c.opened_at,
           (SELECT min(a.occurred_at) FROM case_attempt a WHERE a.case_id = c.id AND a.result <> 'note'),
           (SELECT min(a.occurred_at) FROM case_attempt a WHERE a.case_id = c.id AND a.result = 'spoke'),
           (SELECT min(coalesce(e.happened_on, (e.occurred_at AT TIME ZONE 'Europe/London')::date))
            FROM case_ending e WHERE e.case_id = c.id AND e.outcome = 'treated')
    FROM clinic_case c
    WHERE c.kind IN ('reactive', 'positive') AND c.opened_at >= %(since)s AND c.service_id = ANY(%(services)s)
"""
"""Reactive screens and positives: when the case began, the first try, the first talk, the day of treatment."""
