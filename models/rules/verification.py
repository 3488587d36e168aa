"""Proving a mobile with a code: how long a code lives, how often one may be asked for, how often one may be wrong.

Six digits and five tries: whoever does not hold the phone is right once in 200,000 codes (H5).
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

CODE_DIGITS: Final = 6
LIFETIME: Final = timedelta(minutes=10)
TRIES: Final = 5
"""Codes that may be offered for one that was sent."""
PAUSE: Final = timedelta(seconds=30)
"""Between two codes to one number: the first is usually on its way still."""
CODES_A_DAY: Final = 5
"""To one number of one service: nobody's phone is rung off the hook by a stranger."""
CODES_AN_HOUR: Final = 1_000
"""Through one ordering channel: a leaked key can't send a flood."""


class Offer(StrEnum):
    """What an offered code comes to."""

    CONFIRMED = "confirmed"
    WRONG = "wrong"
    OVER = "over"
    """Too late, or too often wrong: only a new code helps."""


def may_ask(asked_at: Sequence[datetime], by_channel: int, *, now: datetime) -> bool:
    """Whether another code may go to a number that was sent codes at these moments of the last day.

    `by_channel`: codes that its channel asked for within the last hour.
    """
    too_soon = any(now - each < PAUSE for each in asked_at)
    return not too_soon and len(asked_at) < CODES_A_DAY and by_channel < CODES_AN_HOUR


def judge(*, right: bool, tries: int, expires_at: datetime, now: datetime) -> Offer:
    """What one offer comes to, `tries` counting those before it. A right code that is too late proves nothing."""
    if tries >= TRIES or now >= expires_at:
        return Offer.OVER
    return Offer.CONFIRMED if right else Offer.WRONG
