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


def suppress_parts(counts: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int | None, int | None]]:
    """Wholes and a part of each: the part is withheld too where it, the whole or what is left beside it is small.

    Five of six within the time would say of the sixth that they were late.
    """
    wholes = suppress({name: whole for name, (whole, _) in counts.items()})
    parts = suppress({name: part for name, (_, part) in counts.items()})
    rests = suppress({name: whole - part for name, (whole, part) in counts.items()})
    return {name: (wholes[name], None if None in (wholes[name], rests[name]) else parts[name]) for name in counts}
