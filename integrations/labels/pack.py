"""What a kit pack is, as values: what is printed for one kit, page by page, and what must be readable on it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final

from models.rules.service import Paper
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


A4_MM: Final = (210.0, 297.0)
"""A kit's labels, upright; its form shares a sheet on its side with another kit's."""

_LABELS_MM: Final = {PageKind.OUTER: (3.4, 141.2), PageKind.RETURN: (105.0, 141.2)}
_TUBES_A_ROW: Final = 4
_FIRST_TUBE_MM: Final = (5.0, 112.2)
_FORMS_A_SHEET: Final = 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where one label stands: on which sheet, counted from 0, of what size, and its bottom left corner on it."""

    sheet: int
    size_mm: tuple[float, float]
    x_mm: float = 0
    y_mm: float = 0


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


def places(packs: Sequence[KitPack], paper: Paper) -> Iterator[Place]:
    """Where each page of each pack stands on paper, in the order of `expected_codes`, pack by pack."""
    if paper is Paper.THERMAL:
        kinds = [page.kind for pack in packs for page in expected_codes(pack)]
        yield from (Place(number, PAGE_MM[kind]) for number, kind in enumerate(kinds))
        return
    upright, (width, height) = A4_MM, A4_MM
    for number, pack in enumerate(packs):
        pair, second = divmod(number, _FORMS_A_SHEET)
        sheet = pair * (_FORMS_A_SHEET + 1) + second
        forms = pair * (_FORMS_A_SHEET + 1) + min(_FORMS_A_SHEET, len(packs) - pair * _FORMS_A_SHEET)
        tube = 0
        for page in expected_codes(pack):
            match page.kind:
                case PageKind.FORM:
                    form_width, form_height = PAGE_MM[PageKind.FORM]
                    margin = (height - _FORMS_A_SHEET * form_width) / 2
                    yield Place(forms, (height, width), margin + second * form_width, (width - form_height) / 2)
                case PageKind.TUBE:
                    row, column = divmod(tube, _TUBES_A_ROW)
                    tube_width, tube_height = PAGE_MM[PageKind.TUBE]
                    left, top = _FIRST_TUBE_MM
                    yield Place(sheet, upright, left + column * tube_width, top - row * tube_height)
                    tube += 1
                case _:
                    yield Place(sheet, upright, *_LABELS_MM[page.kind])
