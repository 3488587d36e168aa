"""Kits that wait at a counter: which counters there are, the code that fetches a parcel, and how long it waits.

A pharmacy or clinic holds the sealed parcel; the person says a code that came by text. The counter learns neither
name nor content: the outer label is addressed to the counter, and a parcel is known by its own random code.
Sources: clinical.md 2 (R12, R29: collecting spares a delivery at home; held six weeks); sms-and-post.md part B.
"""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final

from models.rules.kit import ALPHABET, check_character
from models.rules.service import CollectionPolicy
from models.rules.working_days import london_day

CODE_LENGTH: Final = 6
"""Five random characters and one that checks them: no single mistake and no swap of neighbours passes."""

_IGNORED: Final = str.maketrans("", "", " -\t")


class CollectionState(StrEnum):
    """Where a parcel is on its way over a counter."""

    ON_THE_WAY = "on_the_way"
    """Dispatched, and not booked in at its counter."""
    WAITING = "waiting"
    """At the counter; its person was sent the code."""
    COLLECTED = "collected"
    NOT_COLLECTED = "not_collected"
    """Nobody may have it any more: the counter sends it back."""
    BACK = "back"
    """In our room again, unopened: its parts are stock."""


COLLECTION_MOVES: Final[dict[CollectionState, frozenset[CollectionState]]] = {
    CollectionState.ON_THE_WAY: frozenset(
        {CollectionState.WAITING, CollectionState.NOT_COLLECTED, CollectionState.BACK}
    ),
    CollectionState.WAITING: frozenset(
        {CollectionState.COLLECTED, CollectionState.NOT_COLLECTED, CollectionState.BACK}
    ),
    CollectionState.COLLECTED: frozenset(),
    CollectionState.NOT_COLLECTED: frozenset({CollectionState.BACK}),
    CollectionState.BACK: frozenset(),
}
"""Allowed moves: what was handed over never becomes stock."""


def new_collection_code(choose: Callable[[str], str]) -> str:
    """A fresh code. `choose` picks one character of an alphabet at random (secrets.choice in production)."""
    payload = "".join(choose(ALPHABET) for _ in range(CODE_LENGTH - 1))
    return payload + check_character(payload)


def read_collection_code(text: str) -> str | None:
    """A code as somebody said or typed it, or None. Never repaired: a wrong letter is asked for again."""
    code = text.translate(_IGNORED).upper()
    if len(code) != CODE_LENGTH or not set(code) <= set(ALPHABET):
        return None
    return code if check_character(code[:-1]) == code[-1] else None


def show_collection_code(code: str) -> str:
    """For eyes: 7K3 F9X."""
    return f"{code[:3]} {code[3:]}"


def waits_until(arrived_at: datetime, policy: CollectionPolicy) -> date:
    """The last London date on which a parcel can be fetched."""
    return london_day(arrived_at) + timedelta(days=policy.hold_days)


def told_again_at(arrived_at: datetime, policy: CollectionPolicy) -> list[datetime]:
    """When the code is sent again to somebody who does not come: always before the last day."""
    return [arrived_at + timedelta(days=days) for days in policy.remind_after_days if days < policy.hold_days]
