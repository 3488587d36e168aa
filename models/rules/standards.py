"""How soon people with a result that needs a person were tried, spoken to and treated, beside what is expected.

Pure. Sources: clinical.md 1.1 (NCSP: told of the result within 10 working days; treated within 6 weeks and, as was
proposed in 2017, within 10 working days; each at least 95 in 100) and 8.1 (first attempt within 1 working day, no share
set). The shares were set for a diagnosis: beside a reactive screen, which is none, the same days stand without a share.
Working days are London's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from statistics import median
from typing import Final

from models.rules.disclosure import SMALLEST_SHOWN, suppress_parts
from models.rules.working_days import is_working_day, london_day


class Milestone(StrEnum):
    """What is waited for after a result came."""

    TRIED = "tried"
    SPOKEN = "spoken"
    TREATED = "treated"


@dataclass(frozen=True, slots=True)
class CaseTimes:
    """When one case began and what was reached when. Instants are aware; None: not yet."""

    opened_at: datetime
    tried_at: datetime | None = None
    spoken_at: datetime | None = None
    treated_on: date | None = None

    def reached_on(self, milestone: Milestone) -> date | None:
        """The London day on which it was reached."""
        match milestone:
            case Milestone.TRIED:
                return london_day(self.tried_at) if self.tried_at else None
            case Milestone.SPOKEN:
                return london_day(self.spoken_at) if self.spoken_at else None
            case Milestone.TREATED:
                return self.treated_on


@dataclass(frozen=True, slots=True)
class Standard:
    """One expectation: reached within so many days, by at least such a share where one is set."""

    key: str
    milestone: Milestone
    within_days: int
    working_days: bool
    share: float | None = None


STANDARDS: Final = (
    Standard("tried_1_working_day", Milestone.TRIED, 1, working_days=True),
    Standard("spoken_10_working_days", Milestone.SPOKEN, 10, working_days=True, share=0.95),
    Standard("treated_10_working_days", Milestone.TREATED, 10, working_days=True, share=0.95),
    Standard("treated_6_weeks", Milestone.TREATED, 42, working_days=False, share=0.95),
)
OF_A_SCREEN: Final = tuple(
    replace(standard, share=None) for standard in STANDARDS if standard.milestone is not Milestone.TREATED
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One standard as it was kept. `share` and `median_days` are None with fewer than five cases."""

    standard: Standard
    cases: int
    """Those that reached it, or whose time is over: the others may still keep it."""
    within: int
    share: float | None
    median_days: float | None
    """Over those that reached it, in the standard's own days."""

    @property
    def is_kept(self) -> bool | None:
        """None where no share is set or too few are known."""
        if self.share is None or self.standard.share is None:
            return None
        return self.share >= self.standard.share


def measure(times: Iterable[CaseTimes], standard: Standard, *, now: datetime) -> Measured:
    """How one standard was kept. A case that is younger than the standard's time and not there yet is not counted."""
    today, took, overdue = london_day(now), list[int](), 0
    for each in times:
        began, reached = london_day(each.opened_at), each.reached_on(standard.milestone)
        if reached is not None:
            took.append(days_between(began, reached, working_days=standard.working_days))
        elif days_between(began, today, working_days=standard.working_days) > standard.within_days:
            overdue += 1
    cases, within = len(took) + overdue, sum(days <= standard.within_days for days in took)
    enough = cases >= SMALLEST_SHOWN
    return Measured(
        standard,
        cases,
        within,
        within / cases if enough else None,
        float(median(took)) if len(took) >= SMALLEST_SHOWN else None,
    )


def measure_all(times: Sequence[CaseTimes], *, now: datetime, diagnosis: bool) -> tuple[Measured, ...]:
    """The standards over the same cases: those of a diagnosis, or those of a reactive screen, which is none."""
    standards = STANDARDS if diagnosis else OF_A_SCREEN
    return tuple(measure(times, standard, now=now) for standard in standards)


def shown_counts(measured: Sequence[Measured]) -> list[tuple[int | None, int | None]]:
    """Cases and those in time, as they may leave the service: small ones, and what gives one away, are withheld.

    Those treated within six weeks less those within ten working days are people too: where they are few, the longer
    time's count is not shown.
    """
    shown = suppress_parts({each.standard.key: (each.cases, each.within) for each in measured})
    counts, last = [], dict[Milestone, int]()
    for each in measured:
        cases, within = shown[each.standard.key]
        before = last.get(each.standard.milestone)
        if within is not None and before is not None and 0 < abs(within - before) < SMALLEST_SHOWN:
            within = None
        if within is not None:
            last[each.standard.milestone] = within
        counts.append((cases, within))
    return counts


def days_between(began: date, reached: date, *, working_days: bool) -> int:
    """Days after the first up to and with the second: calendar days, or working days. Never below 0."""
    days = max((reached - began).days, 0)
    if not working_days:
        return days
    return sum(is_working_day(began + timedelta(days=ahead)) for ahead in range(1, days + 1))
