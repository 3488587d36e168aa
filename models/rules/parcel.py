"""Parcels: what is scanned at packing, how courier events merge, when reminders are due, when one has gone quiet.

At the packing bench nothing leaves unless every piece is of one kit (FEATURES 16). Later, events come
late, doubled and out of order. A parcel's status moves forward by rank only, so the same events in any
order end in the same status (FEATURES 81).
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Final

from models.rules.kit import ALPHABET, normalise_kit_code, normalise_tube_code
from models.rules.service import PackPolicy, ReminderSplit, ReturnPolicy, TextWindow
from models.rules.vocabulary import ScanKind
from models.rules.working_days import LONDON, add_working_days, london_day, next_opening

# ── At the packing bench ─────────────────────────────────────────────────────────────────────

_S10: Final = re.compile("[A-Z]{2}([0-9]{8})([0-9])[A-Z]{2}")
_S10_WEIGHTS: Final = (8, 6, 4, 2, 3, 5, 9, 7)
_PARCEL_CODE: Final = re.compile(f"[{ALPHABET}]{{12}}")
_SPACES: Final = str.maketrans("", "", " \t-")


def is_tracking_number(text: str) -> bool:
    """Whether this is a UPU S10 number with a right check digit: two letters, eight digits, the check, two letters.

    Source: UPU S10 (weights 8 6 4 2 3 5 9 7, modulo 11, 10 becomes 0 and 11 becomes 5); sms-and-post.md B1.
    """
    found = _S10.fullmatch(text)
    if found is None:
        return False
    rest = 11 - sum(weight * int(digit) for weight, digit in zip(_S10_WEIGHTS, found[1], strict=True)) % 11
    return int(found[2]) == {10: 0, 11: 5}.get(rest, rest)


class Label(StrEnum):
    """What can be scanned at packing."""

    FORM = "form"
    """The request form: a kit code."""
    TUBE = "tube"
    RETURN = "return"
    """The return label: the courier's tracking number."""
    OUTER = "outer"
    """The outer label: a parcel code."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """One code as read, in its stored form."""

    label: Label
    code: str


def read_label(text: str) -> Scanned | None:
    """What a scanner read, or None where nothing of ours has such a code. Check characters are proved here."""
    if kit := normalise_kit_code(text):
        return Scanned(Label.FORM, kit)
    if tube := normalise_tube_code(text):
        return Scanned(Label.TUBE, tube)
    code = text.translate(_SPACES).upper()
    if is_tracking_number(code):
        return Scanned(Label.RETURN, code)
    if _PARCEL_CODE.fullmatch(code):
        return Scanned(Label.OUTER, code)
    return None


class BenchVerdict(StrEnum):
    """What one scan means for the parcel on the bench."""

    OK = "ok"
    AGAIN = "again"
    """Scanned before: nothing changes."""
    WRONG = "wrong"
    """A piece of another kit: the parcel is blocked until its form is scanned anew."""
    BLOCKED = "blocked"
    MISSING = "missing"
    """The outer label came too early."""
    DISPATCH = "dispatch"
    """Everything is in: the parcel may leave."""


@dataclass(frozen=True, slots=True)
class Bench:
    """One kit on the bench: what belongs to it, and what has been scanned since its form was."""

    kit_code: str
    tubes: frozenset[str]
    outer_code: str
    return_number: str
    """Known before packing, or empty: then the packer sticks on a label of the stock."""
    scanned: frozenset[Scanned]
    blocked: bool = False

    @property
    def scanned_return(self) -> str:
        """The return label's number, or '' while it has not been scanned."""
        return next((each.code for each in self.scanned if each.label is Label.RETURN), "")

    @property
    def missing(self) -> tuple[Label, ...]:
        """What must still be scanned before the outer label, once for each tube."""
        tubes = self.tubes - {each.code for each in self.scanned}
        return (*[Label.TUBE] * len(tubes), *([] if self.scanned_return else [Label.RETURN]))


def judge_scan(bench: Bench, scan: Scanned) -> BenchVerdict:
    """Whether this piece belongs to the kit on the bench. Only a proved piece is OK; all else blocks or waits."""
    if scan.label is Label.FORM and scan.code == bench.kit_code:
        return BenchVerdict.OK if bench.blocked else BenchVerdict.AGAIN
    if bench.blocked:
        return BenchVerdict.BLOCKED
    if scan in bench.scanned:
        return BenchVerdict.AGAIN
    match scan.label:
        case Label.TUBE if scan.code in bench.tubes:
            return BenchVerdict.OK
        case Label.RETURN if not bench.scanned_return and bench.return_number in {"", scan.code}:
            return BenchVerdict.OK
        case Label.OUTER if scan.code == bench.outer_code:
            return BenchVerdict.MISSING if bench.missing else BenchVerdict.DISPATCH
    return BenchVerdict.WRONG


class WhySetAside(StrEnum):
    """Why a packer takes a kit off the bench."""

    DAMAGED = "damaged"
    """A piece is broken, or its label smudged."""
    PIECE_MISSING = "piece_missing"
    MIXED_UP = "mixed_up"
    """Pieces of another kit lie with it."""
    OPENED = "opened"
    """Its packs were opened before."""
    OTHER = "other"


class KitProblem(StrEnum):
    """What somebody says became of a kit that left. None of them ends it: a person does, by sending another."""

    LOST = "lost"
    """The courier gave it up, on the way out or back."""
    NOT_RECEIVED = "not_received"
    """Delivered, or long since due, and the person does not have it."""
    ARRIVED_OPENED = "arrived_opened"
    """Somebody was at the box before the person: it must not be used, and somebody may know (H13)."""
    INCOMPLETE = "incomplete"
    """A piece is missing or broken."""


# ── On the way ───────────────────────────────────────────────────────────────────────────────

SCAN_RANK: Final[Mapping[ScanKind, int]] = {
    ScanKind.UNKNOWN: 0,
    ScanKind.LABELLED: 1,
    ScanKind.IN_NETWORK: 2,
    ScanKind.ATTEMPTED: 3,
    ScanKind.OUT_FOR_DELIVERY: 4,
    ScanKind.RETURNING: 5,
    ScanKind.DELIVERED: 6,
    ScanKind.RETURNED_TO_SENDER: 7,
}
"""UNKNOWN is kept in the courier's words and moves nothing; the two ends outrank the way there."""

MOVED: Final = frozenset(ScanKind) - {ScanKind.UNKNOWN, ScanKind.LABELLED}
"""The parcel was really handed over: the first one stops reminders (FEATURES 27)."""

ENDED: Final = frozenset({ScanKind.DELIVERED, ScanKind.RETURNED_TO_SENDER})
"""The courier has no more to say. At the lab's post room is not received: only the lab says that (B1)."""


def merge(status: ScanKind, event: ScanKind) -> ScanKind:
    """The parcel's status after one more event, whatever order they came in."""
    return event if SCAN_RANK[event] > SCAN_RANK[status] else status


def probably_delivered_at(dispatched_at: datetime, policy: ReturnPolicy) -> datetime:
    """When the kit is likely in the resident's hands: 09:00 London, so many working days after dispatch."""
    day = add_working_days(dispatched_at.astimezone(LONDON).date(), policy.probable_delivery_working_days)
    return datetime(day.year, day.month, day.day, 9, tzinfo=LONDON)


def due_back_on(dispatched_at: datetime, expires_on: date, packing: PackPolicy) -> date:
    """The last London date by which to post a kit back: never after the kit itself expires."""
    return min(london_day(dispatched_at) + timedelta(days=packing.return_within_days), expires_on)


def lapse_of(due_back: date) -> datetime:
    """When a kit that was not posted back lapses: the London midnight that ends its last day (aware UTC)."""
    return datetime.combine(due_back + timedelta(days=1), time(), LONDON).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Reminder:
    """One reminder: which, and when its window first opens (aware UTC)."""

    occurrence: int
    due_at: datetime
    last: bool


def reminders(
    in_hands_at: datetime, *, lapses_at: datetime, policy: ReturnPolicy, window: TextWindow
) -> list[Reminder]:
    """Every reminder of a kit that does not come back: from when its person has it, probably, to when it lapses."""
    due = [next_opening(in_hands_at + timedelta(days=days), window) for days in policy.reminder_days]
    kept = [at for at in due if at < lapses_at]
    return [Reminder(number, at, last=number == len(kept)) for number, at in enumerate(kept, start=1)]


def reminder_arm(kit_code: str, split: ReminderSplit | None) -> str:
    """Which arm of a comparison a kit is in: `name:a` or `name:b`; '' where nothing is compared.

    A hash of the comparison's name and the kit's code, so that it is the same whenever it is asked and neither
    staff, nor anything that is known of the person, has a say in it.
    """
    if split is None:
        return ""
    drawn = int.from_bytes(hashlib.sha256(f"{split.name}|{kit_code}".encode()).digest()[:8], "big") % 100
    return f"{split.name}:{'b' if drawn < split.percent_b else 'a'}"


def reminder_policy(arm: str, policy: ReturnPolicy) -> ReturnPolicy:
    """The policy as it is for an arm."""
    if policy.split is None or not arm.endswith(":b"):
        return policy
    return replace(policy, reminder_days=policy.split.days_b)


class ReturnVerdict(StrEnum):
    """What a look at an unreturned kit says."""

    WAIT = "wait"
    LAPSE = "lapse"
    STUCK = "stuck"


def judge_return(
    *,
    now: datetime,
    lapses_at: datetime,
    posted_back_at: datetime | None,
    last_scan_at: datetime | None,
    policy: ReturnPolicy,
) -> ReturnVerdict:
    """Whether a kit still may come, has lapsed unused, or is stuck in the post and needs a person."""
    if posted_back_at is not None:
        silent_since = last_scan_at or posted_back_at
        return (
            ReturnVerdict.STUCK if now - silent_since > timedelta(days=policy.no_movement_days) else ReturnVerdict.WAIT
        )
    return ReturnVerdict.LAPSE if now >= lapses_at else ReturnVerdict.WAIT
