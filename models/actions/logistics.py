"""How kits move through the house, in counts: for whoever runs the packing room and the service. Reads only.

Nobody is named. Districts with few kits are withheld (models/rules/disclosure.py).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlmodel import Session

from models.rules.disclosure import SMALLEST_SHOWN, suppress_parts
from models.tables.bulk import cursor


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the way: how many kits have taken it, and the median days from the step before it."""

    name: str
    kits: int
    median_days: float | None


@dataclass(frozen=True, slots=True)
class StateAge:
    """Kits of one state, by how long ago they were made."""

    state: str
    under_week: int
    under_month: int
    older: int


@dataclass(frozen=True, slots=True)
class District:
    """One local authority, by its GSS code. None: too few to show."""

    code: str
    sent: int | None
    returned: int | None


@dataclass(frozen=True, slots=True)
class Cohort:
    """Kits dispatched in one month, by arm of a comparison. None: fewer than five, or not old enough."""

    month: str
    arm: str
    sent: int
    returned: tuple[float | None, ...]
    """Share posted back within 30, 60 and 90 days, of the kits that are that old."""


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One print batch."""

    ref: str
    state: str
    kits: int
    created_at: datetime
    held_because: str
    proved: bool
    """Whether there is a picture of its paper."""
    posted: int
    """Parcels with postage, or handed to the courier."""
    unposted: int
    """Parcels whose postage is still owed, in doubt or refused."""


@dataclass(frozen=True, slots=True)
class ParcelCase:
    """One open case about a parcel: which kit, why, and until when."""

    kit_code: str
    why: str
    owner_role: str
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Logistics:
    """Everything on the page."""

    funnel: tuple[Step, ...]
    states: tuple[StateAge, ...]
    districts: tuple[District, ...]
    cohorts: tuple[Cohort, ...]
    batches: tuple[BatchLine, ...]
    parcels: tuple[ParcelCase, ...]


def logistics(session: Session, *, service_ids: Collection[str], now: datetime) -> Logistics:
    """Where the kits of these services stand at one moment."""
    binds = {"services": list(service_ids), "now": now}
    return Logistics(
        funnel=_funnel(session, binds),
        states=tuple(StateAge(*row) for row in _rows(session, _STATES, binds)),
        districts=_districts(session, binds),
        cohorts=_cohorts(session, binds),
        batches=tuple(BatchLine(*row) for row in _rows(session, _BATCHES, binds)),
        parcels=tuple(ParcelCase(*row) for row in _rows(session, _PARCELS, binds)),
    )


_FUNNEL: Final = """
    SELECT count(*), count(printed_at), count(dispatched_at), count(posted_back_at), count(received_at),
           count(reported_at),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY printed_at - created_at),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY dispatched_at - printed_at),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY posted_back_at - dispatched_at),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY received_at - posted_back_at),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY reported_at - received_at)
    FROM (SELECT k.*, (SELECT max(e.occurred_at) FROM kit_event e
                       WHERE e.kit_id = k.id AND e.kind = 'kit.printed') AS printed_at
          FROM kit k WHERE k.service_id = ANY(%(services)s)) AS way
"""

_STATES: Final = """
    SELECT state, count(*) FILTER (WHERE created_at > %(now)s - interval '7 days'),
           count(*) FILTER (WHERE created_at <= %(now)s - interval '7 days'
                              AND created_at > %(now)s - interval '30 days'),
           count(*) FILTER (WHERE created_at <= %(now)s - interval '30 days')
    FROM kit WHERE service_id = ANY(%(services)s) GROUP BY 1 ORDER BY 1
"""

_DISTRICTS: Final = """
    SELECT coalesce(o.authority, ''), count(k.dispatched_at), count(k.posted_back_at)
    FROM kit k JOIN kit_order o ON o.id = k.order_id
    WHERE k.service_id = ANY(%(services)s) GROUP BY 1 ORDER BY 1
"""

_COHORTS: Final = """
    SELECT to_char(dispatched_at AT TIME ZONE 'Europe/London', 'YYYY-MM'), reminder_arm, count(*),
           count(*) FILTER (WHERE age >= interval '30 days'), count(*) FILTER (WHERE back <= interval '30 days'),
           count(*) FILTER (WHERE age >= interval '60 days'), count(*) FILTER (WHERE back <= interval '60 days'),
           count(*) FILTER (WHERE age >= interval '90 days'), count(*) FILTER (WHERE back <= interval '90 days')
    FROM (SELECT *, %(now)s - dispatched_at AS age, coalesce(posted_back_at, received_at) - dispatched_at AS back
          FROM kit WHERE service_id = ANY(%(services)s) AND dispatched_at IS NOT NULL) AS sent
    GROUP BY 1, 2 ORDER BY 1 DESC, 2 LIMIT 24
"""
"""Kits a cohort, and for each of 30, 60 and 90 days: how many are that old, how many were posted back by then."""

_BATCHES: Final = """
    SELECT ref, state, kits, created_at, held_because, pdf_key <> '',
           (SELECT count(*) FROM postage t WHERE t.batch = b.ref AND t.state = 'bought'),
           (SELECT count(*) FROM postage t WHERE t.batch = b.ref AND t.state IN ('owed', 'buying', 'unsure', 'refused'))
    FROM print_batch b WHERE service_id = ANY(%(services)s) ORDER BY id DESC LIMIT 12
"""

_PARCELS: Final = """
    SELECT k.code, coalesce(c.detail ->> 'why', ''), c.owner_role, c.due_at
    FROM clinic_case c JOIN kit k ON k.id = c.kit_id
    WHERE c.kind = 'parcel' AND c.closed_at IS NULL AND k.service_id = ANY(%(services)s)
    ORDER BY c.due_at LIMIT 100
"""


def _funnel(session: Session, binds: Mapping[str, object]) -> tuple[Step, ...]:
    [row] = _rows(session, _FUNNEL, binds)
    counts, spans = row[:6], (None, *row[6:])
    names = ("Accepted", "Printed", "Dispatched", "Posted back", "At the laboratory", "Reported")
    return tuple(
        Step(name, kits, None if span is None else round(span.total_seconds() / 86_400, 1))
        for name, kits, span in zip(names, counts, spans, strict=True)
    )


def _districts(session: Session, binds: Mapping[str, object]) -> tuple[District, ...]:
    rows = _rows(session, _DISTRICTS, binds)
    shown = suppress_parts({code: (sent, back) for code, sent, back in rows})
    return tuple(District(code, *counts) for code, counts in shown.items())


def _cohorts(session: Session, binds: Mapping[str, object]) -> tuple[Cohort, ...]:
    found = []
    for month, arm, sent, *counts in _rows(session, _COHORTS, binds):
        pairs = zip(counts[::2], counts[1::2], strict=True)
        # A rate of a handful says nothing, and could say something of somebody.
        rates = tuple(back / old if old >= SMALLEST_SHOWN and old == sent else None for old, back in pairs)
        found.append(Cohort(month, arm, sent, rates))
    return tuple(found)


def _rows(session: Session, query: str, binds: Mapping[str, object]) -> list[tuple[Any, ...]]:
    on = cursor(session)
    on.execute(query, binds)
    return on.fetchall()
