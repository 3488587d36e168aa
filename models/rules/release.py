"""What may be told about a kit, and by whom: the rule that all-clear texts rest on.

The unit is the kit (ruling 5): the requested set of (test, site) against the current outcome of
each. An all clear is proved from a whitelist. Everything that is not proved goes to a person.

Sources: clinical.md 3.5 (what may be texted), 9 (H1-H8); RULINGS 5, 6, 10, 14.
"""

import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

from models.rules.kit import CLOSED_TO_TEXTS, KitState
from models.rules.vocabulary import (
    BLOOD_TESTS,
    IDENTITY_FAILURES,
    REACTIONS,
    SAMPLE_FAILURES,
    Outcome,
    Site,
    Test,
)

RULE_VERSION: Final = "release-2"
"""Guarded by a golden hash of the decision table: a changed table needs a new version (ruling 16)."""

Target = tuple[Test, Site]


@lru_cache
def target_of(test: str, site: str) -> Target:
    """The pair of two stored words."""
    return Test(test), Site(site)


class ReleaseKind(StrEnum):
    """The ways out. Each decision is exactly one of these."""

    ALL_CLEAR = "all_clear"
    SWAB_POSITIVE = "swab_positive"
    FAILED_SAMPLE = "failed_sample"
    CALL = "call"
    PERSON = "person"
    WAIT = "wait"


class Reason(StrEnum):
    """Why a decision is what it is: machine-readable, shown to staff, never to residents."""

    ALL_REQUESTED_NEGATIVE = "all_requested_negative"
    SWAB_POSITIVE = "swab_positive"
    REACTIVE = "reactive"
    EQUIVOCAL = "equivocal"
    SAMPLE_FAILED = "sample_failed"
    WITHDRAWN = "withdrawn"
    IDENTITY_DOUBT = "identity_doubt"
    CORRECTED = "corrected"
    CORRECTED_AFTER_TOLD = "corrected_after_told"
    FROZEN = "frozen"
    COMMENT_TO_READ = "comment_to_read"
    ROW_IN_QUARANTINE = "row_in_quarantine"
    KIT_NOT_OPEN = "kit_not_open"
    NUMBER_NOT_FRESH = "number_not_fresh"
    NO_TEXT_CONSENT = "no_text_consent"
    ALREADY_IN_TOUCH = "already_in_touch"
    UNDER_AGE = "under_age"
    PENDING = "pending"
    HOLD_EXPIRED = "hold_expired"
    NOT_REQUESTED_RESULT = "not_requested_result"
    IMPOSSIBLE_OUTCOME = "impossible_outcome"


class Current(NamedTuple):
    """The current version of one result of a kit. A tuple because a million of them are built for one file."""

    outcome: Outcome
    version_id: int
    corrected: bool = False
    """It changed what an earlier final version said (law 6)."""
    note_review: bool = False
    """It carries a comment that is not on the lab's reviewed list (ruling 8)."""


@dataclass(frozen=True, slots=True)
class KitResults:
    """All that the decision about one kit may look at."""

    requested: frozenset[Target]
    current: Mapping[Target, Current]
    state: KitState = KitState.AT_LAB
    told: bool = False
    """A result text of this kit left or may have left: all clear, positive or failed sample."""
    in_touch: bool = False
    """A person already has this kit's results case, or the neutral 'expect our call' is owed or sent."""
    frozen: bool = False
    open_quarantine: bool = False
    """A row that names this kit lies in quarantine."""
    comments_read: frozenset[int] = frozenset()
    """Version ids whose comments a named person read and found harmless."""
    text_consent: bool = True
    number_fresh: bool = True
    """This very order's mobile was proved recently enough, and nothing has bounced since (ruling 14; H5)."""
    age_years: int = 99
    """On the London day of the decision: birthdays count (clinical.md 2)."""
    minimum_age_years: int = 16
    hold_expired: bool = False

    def outcomes(self) -> frozenset[Outcome]:
        """The distinct current outcomes."""
        return frozenset([result.outcome for result in self.current.values()])

    def shape(self) -> Hashable:
        """All that a decision depends on: kits of one shape have one decision, and most kits are of a few shapes."""
        return (
            self.requested,
            tuple(
                [
                    (target, r.outcome, r.corrected, r.note_review and r.version_id not in self.comments_read)
                    for target, r in self.current.items()
                ]
            ),
            self.state,
            self.told,
            self.in_touch,
            self.frozen,
            self.open_quarantine,
            self.text_consent,
            self.number_fresh,
            self.age_years < self.minimum_age_years,
            self.hold_expired,
        )


@dataclass(frozen=True, slots=True)
class ReleaseDecision:
    """One way out, why, and what it rests on."""

    kind: ReleaseKind
    reasons: tuple[Reason, ...]
    neutral_text: bool = False
    """Owe the content-free 'please expect our call', in the same window as any other first contact."""
    case: bool = False
    """A person must take this kit up, by a due time."""
    so_far: bool = False
    """Say 'so far': some requested tests have no result yet, or could not be done."""
    found: frozenset[Test] = field(default=frozenset())
    """Chlamydia and gonorrhoea found; never another test."""


def digest(results: Mapping[Target, Current]) -> str:
    """What a decision or a result text stands on: SHA-256 of the sorted (test, site, version id) (ruling 3)."""
    lines = sorted(f"{test}|{site}|{current.version_id}" for (test, site), current in results.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def decide_release(kit: KitResults) -> ReleaseDecision:
    """The one way out for a kit, from its whole requested set and the current outcome of each.

    Worst first (clinical.md 3.3). The only path to an all clear is the whitelist at the end.
    """
    outcomes = kit.outcomes()
    stopped = _why_stopped(kit)
    if stopped:
        return _person(*stopped)
    to_call = _reasons_to_call(kit)
    if to_call:
        # Any blood reaction, correction or identity doubt: no result text for this kit (ruling 6).
        return _call(kit, to_call)
    if kit.open_quarantine:
        return _person(Reason.ROW_IN_QUARANTINE)
    found = frozenset(test for (test, _), result in kit.current.items() if result.outcome is Outcome.POSITIVE)
    if any(result.note_review and result.version_id not in kit.comments_read for result in kit.current.values()):
        return _call(kit, (Reason.SWAB_POSITIVE, Reason.COMMENT_TO_READ)) if found else _person(Reason.COMMENT_TO_READ)
    if found:
        return _positive(kit, found)
    if Outcome.PENDING in outcomes or kit.current.keys() < kit.requested:
        return _wait(kit)
    if outcomes <= SAMPLE_FAILURES | {Outcome.NEGATIVE} and outcomes & SAMPLE_FAILURES:
        return _failed(kit)
    if kit.current.keys() == kit.requested and outcomes == {Outcome.NEGATIVE}:
        return _all_clear(kit)
    return _person(Reason.IMPOSSIBLE_OUTCOME)


def _why_stopped(kit: KitResults) -> tuple[Reason, ...]:
    """What puts this kit into a person's hands whatever its results say, worst first; nothing of it: empty.

    A corrected kit is that first, be it closed or open: whoever was told waits on what is no longer true.
    """
    stops = (
        (Reason.UNDER_AGE, kit.age_years < kit.minimum_age_years),
        (Reason.FROZEN, kit.frozen),
        (Reason.CORRECTED_AFTER_TOLD, kit.told and _is_corrected(kit)),
        (Reason.CORRECTED, kit.state in CLOSED_TO_TEXTS and not kit.told and _is_corrected(kit)),
        (Reason.KIT_NOT_OPEN, kit.state in CLOSED_TO_TEXTS),
        (Reason.NOT_REQUESTED_RESULT, not kit.current.keys() <= kit.requested),
        (Reason.IMPOSSIBLE_OUTCOME, _impossible(kit.current)),
    )
    return tuple(reason for reason, stands in stops if stands)


def _is_corrected(kit: KitResults) -> bool:
    return Outcome.WITHDRAWN in kit.outcomes() or any(result.corrected for result in kit.current.values())


def _impossible(current: Mapping[Target, Current]) -> bool:
    """A blood screen that claims `positive`, or a swab that claims to react: never believed (law 5)."""
    return any(
        (result.outcome is Outcome.POSITIVE and test not in (Test.CHLAMYDIA, Test.GONORRHOEA))
        or (result.outcome in REACTIONS and test not in BLOOD_TESTS)
        for (test, _), result in current.items()
    )


_DELAYING: Final = frozenset({Reason.HOLD_EXPIRED, Reason.COMMENT_TO_READ, Reason.ROW_IN_QUARANTINE})


def waits_for_a_person(decision: ReleaseDecision) -> bool:
    """Whether nothing more is known than that a person must look: the resident is told that it takes longer."""
    reasons = frozenset(decision.reasons)
    return decision.kind is ReleaseKind.PERSON and bool(reasons & _DELAYING) and reasons <= _DELAYING | {Reason.PENDING}


def _reasons_to_call(kit: KitResults) -> tuple[Reason, ...]:
    outcomes = kit.outcomes()
    reasons = (
        (Reason.WITHDRAWN, Outcome.WITHDRAWN in outcomes),
        (Reason.CORRECTED, Outcome.WITHDRAWN not in outcomes and _is_corrected(kit)),
        (Reason.REACTIVE, bool(outcomes & REACTIONS)),
        (Reason.IDENTITY_DOUBT, bool(outcomes & IDENTITY_FAILURES)),
        (Reason.EQUIVOCAL, Outcome.EQUIVOCAL in outcomes),
    )
    return tuple(reason for reason, stands in reasons if stands)


def _person(*reasons: Reason) -> ReleaseDecision:
    """A person decides; nothing goes out by itself."""
    return ReleaseDecision(ReleaseKind.PERSON, reasons, case=True)


def _call(kit: KitResults, reasons: tuple[Reason, ...]) -> ReleaseDecision:
    """A clinician calls; the resident gets the neutral text, if they may be texted at all and have not had one."""
    neutral = kit.text_consent and not kit.in_touch and not kit.told
    return ReleaseDecision(ReleaseKind.CALL, reasons, neutral_text=neutral, case=True)


def _told_by_text(kit: KitResults, decision: ReleaseDecision) -> ReleaseDecision:
    """A result text only to a person who consented, on a freshly proved number, who has no case yet."""
    if not kit.text_consent:
        return ReleaseDecision(ReleaseKind.PERSON, (*decision.reasons, Reason.NO_TEXT_CONSENT), case=True)
    if kit.in_touch or kit.told:
        # One contact about results goes out by itself; whatever comes after it, a person tells.
        return ReleaseDecision(ReleaseKind.PERSON, (*decision.reasons, Reason.ALREADY_IN_TOUCH), case=True)
    if not kit.number_fresh:
        return ReleaseDecision(
            ReleaseKind.CALL, (*decision.reasons, Reason.NUMBER_NOT_FRESH), neutral_text=True, case=True
        )
    return decision


def _positive(kit: KitResults, found: frozenset[Test]) -> ReleaseDecision:
    """Chlamydia or gonorrhoea acts now, even with others pending, with 'so far' wording (ruling 6)."""
    complete = kit.current.keys() == kit.requested and kit.outcomes() <= {Outcome.POSITIVE, Outcome.NEGATIVE}
    return _told_by_text(
        kit,
        ReleaseDecision(
            ReleaseKind.SWAB_POSITIVE, (Reason.SWAB_POSITIVE,), case=True, so_far=not complete, found=found
        ),
    )


def _failed(kit: KitResults) -> ReleaseDecision:
    """A failed sample is told per test, and its case stays open for the resident's answer (H8; ruling 6)."""
    return _told_by_text(kit, ReleaseDecision(ReleaseKind.FAILED_SAMPLE, (Reason.SAMPLE_FAILED,), case=True))


def _wait(kit: KitResults) -> ReleaseDecision:
    """Some results are not final: wait, and when the wait is over tell a person (FEATURES 47; H2).

    A failed sample among them has its case from the first moment (law 4; ruling 6).
    """
    if kit.hold_expired:
        return ReleaseDecision(ReleaseKind.PERSON, (Reason.PENDING, Reason.HOLD_EXPIRED), case=True)
    return ReleaseDecision(ReleaseKind.WAIT, (Reason.PENDING,), case=bool(kit.outcomes() & SAMPLE_FAILURES))


def _all_clear(kit: KitResults) -> ReleaseDecision:
    return _told_by_text(kit, ReleaseDecision(ReleaseKind.ALL_CLEAR, (Reason.ALL_REQUESTED_NEGATIVE,)))
