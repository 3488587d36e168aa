"""UPU S10 tracking numbers for tests."""

import itertools
from collections.abc import Iterator


def numbers(prefix: str = "AB") -> Iterator[str]:
    """Right numbers, one after another."""
    for serial in itertools.count(10_000_000):
        digits = str(serial)
        rest = (
            11 - sum(weight * int(digit) for weight, digit in zip((8, 6, 4, 2, 3, 5, 9, 7), digits, strict=True)) % 11
        )
        yield f"{prefix}{digits}{ {10: 0, 11: 5}.get(rest, rest) }GB"
