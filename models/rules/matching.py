"""Whose result is it? Kit id, full date of birth, tube where the contract carries one: all must agree.

A name may contradict, never confirm. Any single mismatch is a reason for quarantine (law 1; rulings
9, 10; lab-messages.md 5). Kit state never decides identity: only a kit that was never dispatched
cannot have a result.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final, NamedTuple

from models.rules.service import LabContract
from models.rules.vocabulary import Quarantine, Site, Test
from models.rules.working_days import london_day


class Reported(NamedTuple):
    """What a lab row says of its identity and its sample."""

    tube_code: str | None
    test: Test
    site: Site
    collected_at: datetime | None
    received_at: datetime | None
    born_known: bool
    born_agrees: bool
    family_known: bool
    family_agrees: bool


@dataclass(frozen=True, slots=True)
class Tube:
    """One tube of a kit: where its sample is from."""

    site: Site


@dataclass(frozen=True, slots=True)
class KitFacts:
    """What we know of the kit that a row names."""

    lab: str
    dispatched_at: datetime | None
    tubes: Mapping[str, Tube]
    requested: Mapping[tuple[Test, Site], str]
    """Each requested (test, site) and the tube it is answered from."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why a row may not be used: a reason, a sentence for the lab, and nothing of what it reports."""

    reason: Quarantine
    detail: str


def check_match(row: Reported, kit: KitFacts | None, contract: LabContract | None, *, now: datetime) -> Mismatch | None:
    """None when the row is certainly this kit's, else the first reason why it may not be used.

    `now` is aware UTC. How old the sample may be is the lab map's and is asked on reading.
    """
    if kit is None:
        return Mismatch(Quarantine.UNKNOWN_KIT, "No kit with this id was ever issued: check the id on the tube.")
    if contract is None or kit.lab != contract.lab:
        return Mismatch(Quarantine.UNKNOWN_KIT, "This kit was not issued to this laboratory: check the id on the tube.")
    if kit.dispatched_at is None:
        return Mismatch(Quarantine.NEVER_DISPATCHED, "This kit never left us: check the id on the tube.")
    return (
        _check_tube(row, kit, contract)
        or _check_person(row)
        or _check_request(row, kit)
        or _check_dates(row.collected_at, row.received_at, kit.dispatched_at, now)
    )


def _check_tube(row: Reported, kit: KitFacts, contract: LabContract) -> Mismatch | None:
    if row.tube_code is None:
        if contract.carries_tube:
            return Mismatch(Quarantine.TUBE_MISMATCH, "The tube id is missing: send it with every result.")
        return None
    tube = kit.tubes.get(row.tube_code)
    if tube is None:
        return Mismatch(Quarantine.TUBE_MISMATCH, "This tube does not belong to this kit: check both ids.")
    if tube.site is not row.site:
        return Mismatch(Quarantine.SPECIMEN_CONFLICT, "The specimen reported is not the one this tube was sent for.")
    return None


def _check_person(row: Reported) -> Mismatch | None:
    if not row.born_known:
        return Mismatch(Quarantine.IDENTITY_MISSING, "The full date of birth is missing: a result needs it.")
    if not row.born_agrees:
        return Mismatch(Quarantine.IDENTITY_MISMATCH, "The date of birth is not the one this kit was ordered with.")
    if row.family_known and not row.family_agrees:
        return Mismatch(Quarantine.IDENTITY_CONFLICT, "The family name contradicts the one this kit was ordered with.")
    return None


def _check_request(row: Reported, kit: KitFacts) -> Mismatch | None:
    tube = kit.requested.get((row.test, row.site))
    if tube is None:
        return Mismatch(Quarantine.NOT_REQUESTED, "This test was not requested on this specimen.")
    if row.tube_code is not None and tube != row.tube_code:
        return Mismatch(Quarantine.TUBE_MISMATCH, "This test was requested on another tube of this kit.")
    return None


@lru_cache(maxsize=4_096)
def _check_dates(
    collected_at: datetime | None, received_at: datetime | None, dispatched_at: datetime, now: datetime
) -> Mismatch | None:
    """Days in London: many labs give dates without times, so one day's grace is given where a time may be missing."""
    today, sent_on = london_day(now), london_day(dispatched_at)
    collected_on = london_day(collected_at) if collected_at else None
    received_on = london_day(received_at) if received_at else None
    if any(on is not None and on > today for on in (collected_on, received_on)):
        return Mismatch(Quarantine.DATED_IN_FUTURE, "The sample is dated in the future: check the dates.")
    if any(on is not None and on < sent_on for on in (collected_on, received_on)):
        return Mismatch(
            Quarantine.DATED_BEFORE_DISPATCH, "The sample is dated before its kit was posted: check the dates."
        )
    if collected_on and received_on and received_on < collected_on:
        return Mismatch(Quarantine.DATE_IMPLAUSIBLE, "The sample is dated as received before it was taken.")
    return None


SECOND_ACCESSION: Final = Mismatch(
    Quarantine.SECOND_ACCESSION, "This tube was already reported for this test under another accession."
)
ANOTHERS_ACCESSION: Final = Mismatch(
    Quarantine.IDENTITY_CONFLICT, "This accession was already reported for another kit."
)
CROSSED: Final = Mismatch(
    Quarantine.CROSSED_SAMPLES,
    "What this row says of person and tube is of two different kits: two people's samples may be crossed.",
)
"""For each of the kits that a row fits in part, so that neither is told anything (idea 11; H1)."""
