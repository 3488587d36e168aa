"""Kits: the ids on them, the states they pass through, and which moves are allowed.

Ids: nine random characters of an alphabet without vowels and look-alikes, and one ISO 7064 check
character over it (a pure mod-23 system, radix 2). Measured: no single wrong character and no swap
of neighbours passes (sms-and-post.md B2). Stored without hyphens, shown as 7K3-F9X-N2PP.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final, NewType

KitCode = NewType("KitCode", str)
"""Ten characters, no hyphens, check character right."""

TubeCode = NewType("TubeCode", str)
"""A kit code and one digit, 1 to 9."""

ALPHABET: Final = "23456789CDFHJKMNPRTVWXY"
KIT_CODE_LENGTH: Final = 10
TUBE_CODE_LENGTH: Final = 11
_VALUE: Final = {character: value for value, character in enumerate(ALPHABET)}
_IGNORED: Final = str.maketrans("", "", " -\u2010\u2011\u2012\u2013\t")


def check_character(payload: str) -> str:
    """The ISO 7064 pure mod-23 check character of a payload; KeyError on a foreign character."""
    check = 0
    for character in payload:
        check = (check + _VALUE[character]) * 2 % 23
    return ALPHABET[(1 - check) % 23]


def is_kit_code(code: str) -> bool:
    """Whether these ten characters can be a kit code: alphabet, length, check character."""
    return (
        len(code) == KIT_CODE_LENGTH
        and all(character in _VALUE for character in code)
        and check_character(code[:-1]) == code[-1]
    )


def is_tube_code(code: str) -> bool:
    """Whether these eleven characters can be a tube code: a kit code and a digit from 1 to 9."""
    return len(code) == TUBE_CODE_LENGTH and is_kit_code(code[:-1]) and code[-1] in "123456789"


def normalise_kit_code(text: str) -> KitCode | None:
    """A kit code as people and scanners write it, or None. Never repairs O for 0: outside the alphabet is refused."""
    code = text.translate(_IGNORED).upper()
    return KitCode(code) if is_kit_code(code) else None


def normalise_tube_code(text: str) -> TubeCode | None:
    """A tube code as people and scanners write it, or None."""
    code = text.translate(_IGNORED).upper()
    return TubeCode(code) if is_tube_code(code) else None


def show_kit_code(code: str) -> str:
    """For eyes: 7K3-F9X-N2PP."""
    return f"{code[:3]}-{code[3:6]}-{code[6:10]}"


def show_tube_code(code: str) -> str:
    """For eyes: 7K3-F9X-N2PP-1."""
    return f"{show_kit_code(code)}-{code[10:]}"


def new_kit_code(choose: Callable[[str], str]) -> KitCode:
    """A fresh kit code. `choose` picks one character of an alphabet at random (secrets.choice in production)."""
    payload = "".join(choose(ALPHABET) for _ in range(KIT_CODE_LENGTH - 1))
    return KitCode(payload + check_character(payload))


def new_parcel_code(choose: Callable[[str], str]) -> str:
    """Twelve random characters for the outer label: says nothing of kit, person or content."""
    return "".join(choose(ALPHABET) for _ in range(12))


class KitState(StrEnum):
    """Where a kit is. Exactly one at a time; identity never depends on it (ruling 10)."""

    TO_PACK = "to_pack"
    PRINTED = "printed"
    QUARANTINED = "quarantined"
    DISPATCHED = "dispatched"
    COMING_BACK = "coming_back"
    AT_LAB = "at_lab"
    REPORTED = "reported"
    CLOSED = "closed"
    CANCELLED = "cancelled"
    LAPSED = "lapsed"
    RETURNED_TO_SENDER = "returned_to_sender"
    REPLACED = "replaced"


KIT_STATES: Final = {state.value: state for state in KitState}
"""By its stored word: looked up for every kit of a lab's file, which an enum's own call is too slow for."""

KIT_MOVES: Final[Mapping[KitState, frozenset[KitState]]] = {
    KitState.TO_PACK: frozenset({KitState.PRINTED, KitState.CANCELLED}),
    KitState.PRINTED: frozenset({KitState.DISPATCHED, KitState.CANCELLED, KitState.TO_PACK, KitState.QUARANTINED}),
    KitState.QUARANTINED: frozenset({KitState.PRINTED, KitState.TO_PACK, KitState.CANCELLED}),
    KitState.DISPATCHED: frozenset(
        {
            KitState.COMING_BACK,
            KitState.AT_LAB,
            KitState.REPORTED,
            KitState.LAPSED,
            KitState.RETURNED_TO_SENDER,
            KitState.REPLACED,
            KitState.CANCELLED,
        }
    ),
    # The courier may say of the way out, late, that the box came back to us: two words that contradict are a person's.
    KitState.COMING_BACK: frozenset(
        {
            KitState.AT_LAB,
            KitState.REPORTED,
            KitState.LAPSED,
            KitState.REPLACED,
            KitState.RETURNED_TO_SENDER,
        }
    ),
    KitState.AT_LAB: frozenset({KitState.REPORTED, KitState.LAPSED, KitState.REPLACED}),
    KitState.REPORTED: frozenset({KitState.CLOSED, KitState.AT_LAB, KitState.REPLACED}),
    KitState.CLOSED: frozenset({KitState.REPORTED, KitState.AT_LAB}),
    # A sample may still turn up from these: the result is taken, and the state stays (ruling 10).
    KitState.CANCELLED: frozenset(),
    KitState.LAPSED: frozenset({KitState.COMING_BACK, KitState.AT_LAB, KitState.REPORTED, KitState.REPLACED}),
    KitState.RETURNED_TO_SENDER: frozenset({KitState.REPLACED}),
    KitState.REPLACED: frozenset(),
}
"""Allowed moves. Backed by a CHECK on the state; the diagram in docs/states.md is drawn from this."""

CLOSED_TO_TEXTS: Final = frozenset(
    {KitState.CLOSED, KitState.CANCELLED, KitState.LAPSED, KitState.RETURNED_TO_SENDER, KitState.REPLACED}
)
"""A result for a kit in one of these opens a case for any outcome and sends no result text (ruling 10)."""

NO_SAMPLE_EXPECTED: Final = CLOSED_TO_TEXTS
"""What a laboratory said of the request of one of these is nobody's to mend. Should its sample turn up after all, the
kit's state moves on and it counts again, or the result itself is the laboratory's word."""

AWAITING_RETURN: Final = frozenset({KitState.DISPATCHED})
"""Kits that reminders may be about: dispatched, and no return scan yet (FEATURES 27)."""


def may_move(start: KitState, end: KitState) -> bool:
    """Whether a kit may go from one state to another."""
    return end in KIT_MOVES[start]
