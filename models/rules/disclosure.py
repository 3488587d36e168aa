"""Small numbers that could point at somebody are not shown, nor can they be worked out from a total."""

from collections.abc import Mapping
from typing import Final

SMALLEST_SHOWN: Final = 5
"""Counts from 1 to 4 are withheld. Source: the usual floor of sexual health statistics (FEATURES, surveillance)."""


def suppress(counts: Mapping[str, int]) -> dict[str, int | None]:
    """The counts with small ones withheld (None). One alone could be had by subtraction: the next smallest goes too.

    Nought stays: it points at nobody.
    """
    withheld = {name for name, count in counts.items() if 0 < count < SMALLEST_SHOWN}
    others = sorted((count, name) for name, count in counts.items() if count >= SMALLEST_SHOWN)
    if len(withheld) == 1 and others:
        withheld.add(others[0][1])
    return {name: None if name in withheld else count for name, count in counts.items()}
