"""The duty of candour: somebody was told a result that turned out to be wrong (H3; law 6; FEATURES idea 1).

They are told so, in plain words, with an apology; it is written down, and a second, senior person signs it before the
case may end. Source: clinical.md 9 (H3); Health and Social Care Act 2008 (Regulated Activities) Regulations 2014, 20.
"""

from enum import StrEnum
from typing import Final

LONGEST_ACCOUNT: Final = 2000


class Harm(StrEnum):
    """What may have come of the wrong word, as far as is known."""

    NONE = "none"
    POSSIBLE = "possible"
    KNOWN = "known"


class Candour(StrEnum):
    """How far openness has come with one case."""

    NOT_NEEDED = "not_needed"
    """Nobody was told what changed."""
    MISSING = "missing"
    WRITTEN = "written"
    """Waits for a second person."""
    SIGNED = "signed"
