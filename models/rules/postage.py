"""How a kit's parcel gets its postage: bought from the courier, or handed over as a file.

Whatever may have been bought is looked up by our own reference, never bought again blindly. The reference is the
parcel's code, which says nothing of the kit and is void for ever once its paper is (sms-and-post.md B1).
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Final


class PostWay(StrEnum):
    """How parcels of a service get their postage."""

    NONE = "none"
    """The packing room sees to it itself: stamps, or a franking machine."""
    CLICK_AND_DROP = "click_and_drop"
    """Royal Mail's Click & Drop, parcel by parcel, as soon as paper is released."""
    FILE = "file"
    """A file that a packer uploads at the courier's, and one with numbers back."""


class PostageState(StrEnum):
    """How far one parcel's postage got."""

    OWED = "owed"
    BUYING = "buying"
    UNSURE = "unsure"
    """It may have been bought: looked up by our reference before anything else."""
    BOUGHT = "bought"
    """The courier has it, or it stands in a file that was handed over."""
    REFUSED = "refused"
    """The courier said no: a packer has a case."""
    CANCELLED = "cancelled"
    """Its parcel will never leave, or left without."""


LEASE: Final = timedelta(minutes=2)
"""Machine time that one purchase may take; after it, it is unsure."""

LOOK_AFTER: Final = timedelta(minutes=5)
"""Machine time after which an unsure purchase is looked up, and looked up again."""

LOOKS: Final = 2
"""So many look-ups that find nothing prove that nothing was bought."""

PATIENCE: Final = timedelta(minutes=1)
"""Machine time before a purchase that certainly came to nothing is tried again, where the courier names none."""


@dataclass(frozen=True, slots=True)
class PostPolicy:
    """What a council's parcels cost and weigh, and who sells the postage."""

    way: PostWay = PostWay.NONE
    weight_grams: int = 250
    format: str = "largeLetter"
    """The courier's own word for the parcel's size."""
    service_code: str = ""
    """The courier's own; empty: the account's usual service."""
    labels: bool = True
    """Whether the account may have labels by API (Royal Mail: an OBA contract). If not, they are printed there."""
    return_labels: bool = False
    """Whether each label brings the courier's return label with it; if not, those come as a stock of their own."""
    sender_name: str = ""
    """Stands on the courier's label as the sender: neutral, no health word."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """An address as couriers want it: lines, town, postcode. Its repr says nothing of the person."""

    name: str = field(repr=False)
    lines: tuple[str, ...] = field(repr=False)
    town: str = field(repr=False)
    postcode: str = field(repr=False)


_MOST_LINES: Final = 3


def recipient(name: str, lines: Sequence[str], postcode: str) -> Recipient | None:
    """The name and address for a courier, in Roman characters; None where it has no town of its own.

    An order holds one to five lines; a courier takes three and a town. What is too much for three is joined by commas.
    """
    *street, town = map(roman, lines)
    if not street:
        return None
    if len(street) > _MOST_LINES:
        street = [*street[: _MOST_LINES - 1], ", ".join(street[_MOST_LINES - 1 :])]
    return Recipient(roman(name), tuple(street), town, postcode)


_LETTERS: Final = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D",
     "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ı": "i", "’": "'", "‘": "'", "–": "-", "—": "-"}
)  # fmt: skip


def roman(text: str) -> str:
    """A text without accents, as a courier's form takes it: ŵ as w. What has no Roman letter is left as it is."""
    return "".join(
        letter
        for letter in unicodedata.normalize("NFKD", text.translate(_LETTERS))
        if not unicodedata.combining(letter)
    )
