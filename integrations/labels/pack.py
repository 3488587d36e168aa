"""What a kit pack is, as values: what is printed for one kit, page by page, and what must be readable on it."""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final

from models.rules.vocabulary import Language, Specimen, Test


@dataclass(frozen=True, slots=True)
class Tube:
    """One tube (or card) of a kit. `tube_code` has 11 characters and no hyphens."""

    tube_code: str
    specimen: Specimen
    tests: tuple[Test, ...]


@dataclass(frozen=True, slots=True)
class KitPack:
    """Everything printed for one kit.

    `kit_code` has 10 characters and no hyphens; `parcel_code` is random and says nothing of the kit.
    `return_tracking` is the courier's number where it is known before printing, else None: the
    packer sticks the pre-allocated label. `sender_lines` is the neutral return address (a PO box).
    """

    kit_code: str
    parcel_code: str
    return_tracking: str | None
    recipient_name: str
    recipient_lines: tuple[str, ...]
    date_of_birth: date
    tubes: tuple[Tube, ...]
    language: Language
    kit_expires_on: date
    lab_name: str
    lab_lines: tuple[str, ...]
    sender_lines: tuple[str, ...]
    responsible_person: str
    responsible_phone: str
    counter_name: str = ""
    """Where it is fetched at a counter: stands on the outer label in the person's stead, who is not on it at all."""

    @property
    def addressee(self) -> str:
        """Whose name stands above the address."""
        return self.counter_name or self.recipient_name

    def __repr__(self) -> str:
        return f"KitPack(kit_code={self.kit_code!r})"


class PageKind(StrEnum):
    """The pages of a pack, in the order in which they are drawn; TUBE once for each tube."""

    OUTER = "outer"
    RETURN = "return"
    TUBE = "tube"
    FORM = "form"


PAGE_MM: Final[dict[PageKind, tuple[float, float]]] = {
    PageKind.OUTER: (101.6, 152.4),
    PageKind.RETURN: (101.6, 152.4),
    PageKind.TUBE: (50.0, 25.0),
    PageKind.FORM: (148.0, 210.0),
}
"""Width and height: 4x6 inch thermal labels, tube label, A5."""


class Symbology(StrEnum):
    """The two kinds of barcode that we print."""

    CODE_128 = "code_128"
    DATA_MATRIX = "data_matrix"


@dataclass(frozen=True, slots=True)
class PageCodes:
    """One page, and exactly the barcodes that a scanner must find on it, no fewer and no more."""

    kind: PageKind
    codes: tuple[tuple[Symbology, str], ...]


def expected_codes(pack: KitPack) -> tuple[PageCodes, ...]:
    """The pages of a pack in order, each with the barcodes that must be found on it."""
    tracking = pack.return_tracking
    return (
        PageCodes(PageKind.OUTER, ((Symbology.CODE_128, pack.parcel_code),)),
        PageCodes(PageKind.RETURN, ((Symbology.CODE_128, tracking),) if tracking else ()),
        *(PageCodes(PageKind.TUBE, ((Symbology.DATA_MATRIX, tube.tube_code),)) for tube in pack.tubes),
        PageCodes(PageKind.FORM, ((Symbology.CODE_128, pack.kit_code), (Symbology.DATA_MATRIX, pack.kit_code))),
    )
