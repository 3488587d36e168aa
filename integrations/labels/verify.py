"""Reads a print batch back before it may leave: every page rendered as a thermal head prints it, every barcode decoded.

Nothing here shares code with the drawing: pypdfium2 renders and reads the text, zxing-cpp decodes.
"""

import re
import unicodedata
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from typing import Final, assert_never

import pypdfium2 as pdfium
import zxingcpp
from PIL import Image

from integrations.labels.pack import (
    PAGE_MM,
    KitPack,
    PageCodes,
    PageKind,
    Place,
    Symbology,
    Tube,
    expected_codes,
    places,
)
from integrations.labels.wording import wording
from models.rules.kit import show_kit_code, show_tube_code
from models.rules.service import Paper
from models.rules.vocabulary import Language

PRINTER_DPI: Final = 203
"""The coarsest head in use; what can be read at 203 can be read at 300."""

_POINTS_PER_INCH: Final = 72
_MM_PER_INCH: Final = 25.4
_SIZE_TOLERANCE_MM: Final = 0.1
_BLACK_BELOW: Final = 128

_SHEET_DPI: Final = 60
_SHEET_WIDTH: Final = 1640
_SHEET_GAP: Final = 8
_SHEET_GREY: Final = 170

_PAGES_IN_MEMORY: Final = 16
"""Rendered and waiting to be read: about a megabyte each."""

Codes = list[tuple[Symbology, str]]

_SYMBOLOGY_OF: Final = {
    zxingcpp.BarcodeFormat.Code128: Symbology.CODE_128,
    zxingcpp.BarcodeFormat.DataMatrix: Symbology.DATA_MATRIX,
}


class Problem(StrEnum):
    """What is wrong with a page."""

    UNREADABLE = "unreadable"
    PAGE_COUNT = "page_count"
    PAGE_SIZE = "page_size"
    BARCODE_MISSING = "barcode_missing"
    BARCODE_EXTRA = "barcode_extra"
    WORDS_MISSING = "words_missing"
    BETRAYS_KIT = "betrays_kit"
    BETRAYS_PERSON = "betrays_person"
    """Whose kit it is stands on a box that waits at a counter."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One difference between paper and truth. `page` counts from 1 in the PDF.

    `detail` is a barcode's kind and text, or the name of the field that isn't on the page: never a
    name or address.
    """

    page: int
    kind: PageKind | None
    kit_code: str
    problem: Problem
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Label:
    """One label, and where it must be found. `tube` counts a kit's tube labels from 0."""

    pack: KitPack
    expected: PageCodes
    tube: int
    place: Place


@dataclass(frozen=True, slots=True)
class _Page:
    """One label as it was read back, all but its barcodes, on the page of this number and size in points."""

    number: int
    label: _Label
    size: tuple[float, float]
    words: str


def verify(
    pdf: bytes, packs: Sequence[KitPack], dpi: int = PRINTER_DPI, paper: Paper = Paper.THERMAL
) -> list[Mismatch]:
    """Everything on paper that isn't what the packs say. An empty list: the batch may be released.

    `packs` is the whole batch that the PDF was drawn from. Pages are rendered one after another, for
    pdfium bears one thread only, while other threads read the barcodes: every core is used.
    """
    try:
        document = pdfium.PdfDocument(pdf)
    except pdfium.PdfiumError:
        return [Mismatch(1, None, "", Problem.UNREADABLE)]
    with document, ThreadPoolExecutor() as readers:
        expected = _by_sheet(packs, paper)
        if len(document) != len(expected):
            return [Mismatch(len(document), None, "", Problem.PAGE_COUNT, f"{len(expected)} expected")]
        found: list[Mismatch] = []
        being_read: deque[tuple[_Page, Future[Codes]]] = deque()
        for number, labels in enumerate(expected, 1):
            sheet = document[number - 1]
            picture, words = _rendered(sheet, dpi), sheet.get_textpage()
            for each in labels:
                seen = _Page(number, each, sheet.get_size(), _words_of(words, each))
                being_read.append((seen, readers.submit(_decoded, _cut_out(picture, each, dpi))))
            while len(being_read) > _PAGES_IN_MEMORY:
                found += _mismatches(*being_read.popleft())
        for seen, reading in being_read:
            found += _mismatches(seen, reading)
        return found


def _by_sheet(packs: Sequence[KitPack], paper: Paper) -> list[list["_Label"]]:
    """What must be found on each sheet."""
    sheets: dict[int, list[_Label]] = {}
    where = places(packs, paper)
    for pack in packs:
        tube = 0
        for codes in expected_codes(pack):
            place = next(where)
            sheets.setdefault(place.sheet, []).append(_Label(pack, codes, tube, place))
            tube += codes.kind is PageKind.TUBE
    return [sheets[number] for number in sorted(sheets)]


def _cut_out(picture: Image.Image, label: "_Label", dpi: int) -> Image.Image:
    """One label of a sheet; the whole picture where it is the sheet."""
    place, (width, height) = label.place, PAGE_MM[label.expected.kind]
    if place.size_mm == (width, height):
        return picture
    left, right = place.x_mm, place.x_mm + width
    top, bottom = place.size_mm[1] - place.y_mm - height, place.size_mm[1] - place.y_mm
    dots = dpi / _MM_PER_INCH
    return picture.crop((round(left * dots), round(top * dots), round(right * dots), round(bottom * dots)))


def _words_of(words: pdfium.PdfTextPage, label: "_Label") -> str:
    place, (width, height) = label.place, PAGE_MM[label.expected.kind]
    if place.size_mm == (width, height):
        return str(words.get_text_range())
    edges = (place.x_mm, place.y_mm, place.x_mm + width, place.y_mm + height)
    return str(words.get_text_bounded(*(edge * _POINTS_PER_INCH / _MM_PER_INCH for edge in edges)))


def render_page(pdf: bytes, page: int, dpi: int = PRINTER_DPI) -> Image.Image:
    """One page (counted from 1) in greys."""
    with pdfium.PdfDocument(pdf) as document:
        return _rendered(document[page - 1], dpi)


def contact_sheet(pdf: bytes, pages: int = 48) -> bytes:
    """The first pages of a batch at true proportion, as a PNG for a person to look at.

    Filled in columns of one form's height, so that a kit's small tube labels stand under each other.
    """
    with pdfium.PdfDocument(pdf) as document:
        shown = [_rendered(document[place], _SHEET_DPI) for place in range(min(pages, len(document)))]
    shelf_height = max((picture.height for picture in shown), default=0) + _SHEET_GAP
    left, top, shelf, column_width = _SHEET_GAP, 0, 0, 0
    places: list[tuple[int, int]] = []
    for picture in shown:
        if top + picture.height > shelf_height:
            left, top, column_width = left + column_width + _SHEET_GAP, 0, 0
        if left + picture.width > _SHEET_WIDTH:
            left, top, column_width, shelf = _SHEET_GAP, 0, 0, shelf + shelf_height
        places.append((left, shelf + top + _SHEET_GAP))
        top += picture.height + _SHEET_GAP
        column_width = max(column_width, picture.width)
    sheet = Image.new("L", (_SHEET_WIDTH, shelf + shelf_height + _SHEET_GAP), _SHEET_GREY)
    for picture, place in zip(shown, places, strict=True):
        sheet.paste(picture, place)
    file = BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _rendered(page: pdfium.PdfPage, dpi: int) -> Image.Image:
    picture: Image.Image = page.render(scale=dpi / _POINTS_PER_INCH, grayscale=True).to_pil()
    return picture


def _mismatches(page: _Page, reading: Future[Codes]) -> Iterator[Mismatch]:
    pack, expected = page.label.pack, page.label.expected

    def mismatch(problem: Problem, detail: str = "") -> Mismatch:
        return Mismatch(page.number, expected.kind, pack.kit_code, problem, detail)

    sides = zip(page.size, page.label.place.size_mm, strict=True)
    if any(abs(points * _MM_PER_INCH / _POINTS_PER_INCH - mm) > _SIZE_TOLERANCE_MM for points, mm in sides):
        yield mismatch(Problem.PAGE_SIZE)
    wanted, found = Counter(expected.codes), Counter(reading.result())
    for symbology, text in (wanted - found).elements():
        yield mismatch(Problem.BARCODE_MISSING, f"{symbology} {text}")
    for symbology, text in (found - wanted).elements():
        yield mismatch(Problem.BARCODE_EXTRA, f"{symbology} {text}")
    words = _squeezed(page.words)
    for field, text in _expected_words(pack, expected.kind, page.label.tube):
        if _squeezed(text) not in words:
            yield mismatch(Problem.WORDS_MISSING, field)
    if expected.kind is PageKind.OUTER and pack.kit_code in words:
        yield mismatch(Problem.BETRAYS_KIT)
    if expected.kind is PageKind.OUTER and pack.counter_name and _squeezed(pack.recipient_name) in words:
        yield mismatch(Problem.BETRAYS_PERSON)


def _decoded(picture: Image.Image) -> Codes:
    """Every barcode of our two kinds on the page, printed in pure black and white.

    Only the two that we draw: others have weak or no check digits and would be seen in bars and
    letters where there are none, and a batch held for that stays held however often it is drawn.
    Only upright ones, which is half the work: a code that was turned counts as missing.
    """
    printed = picture.point([0] * _BLACK_BELOW + [255] * (256 - _BLACK_BELOW))
    read = zxingcpp.read_barcodes(
        printed,
        formats=zxingcpp.BarcodeFormats(list(_SYMBOLOGY_OF)),
        binarizer=zxingcpp.Binarizer.FixedThreshold,
        try_rotate=False,
        try_invert=False,
        try_downscale=False,
    )
    return [(_SYMBOLOGY_OF[barcode.format], barcode.text) for barcode in read]


def _expected_words(pack: KitPack, kind: PageKind, tube: int) -> Iterator[tuple[str, str]]:
    """(field, text) of what people must be able to read on a page; a sample and its tube code in one piece."""
    match kind:
        case PageKind.OUTER:
            yield "counter_name" if pack.counter_name else "recipient_name", pack.addressee
            yield "recipient_lines", "".join(pack.recipient_lines)
            yield "sender_lines", "".join(pack.sender_lines)
            yield "parcel_code", pack.parcel_code
        case PageKind.RETURN:
            yield "lab_name", pack.lab_name
            yield "lab_lines", "".join(pack.lab_lines)
            yield "sender_lines", ",".join(pack.sender_lines)
            yield "responsible_person", pack.responsible_person
            yield "responsible_phone", pack.responsible_phone
            yield "mark", "UN3373"
            yield "shipping_name", "BIOLOGICAL SUBSTANCE, CATEGORY B"
            yield "return_tracking", pack.return_tracking or ""
        case PageKind.TUBE:
            yield "sample", _sample(pack.tubes[tube], pack.language)
        case PageKind.FORM:
            yield "kit_code", show_kit_code(pack.kit_code)
            yield "recipient_name", pack.recipient_name
            yield "date_of_birth", f"{pack.date_of_birth:%d/%m/%Y}"
            yield "kit_expires_on", f"{pack.kit_expires_on:%d/%m/%Y}"
            yield "lab_name", pack.lab_name
            for each in pack.tubes:
                yield "sample", _sample(each, pack.language) + _tests(each, pack.language)
        case _:
            assert_never(kind)


def _sample(tube: Tube, language: Language) -> str:
    names = [wording(each)["specimens"][tube.specimen] for each in dict.fromkeys((language, Language.ENGLISH))]
    return "".join((tube.tube_code[-1], *names, show_tube_code(tube.tube_code)))


def _tests(tube: Tube, language: Language) -> str:
    return "".join(
        ",".join(wording(each)["infections"][test] for test in tube.tests)
        for each in dict.fromkeys((language, Language.ENGLISH))
    )


def _squeezed(text: str) -> str:
    """Composed signs, without the spaces and hyphens that wrapping and text extraction move about."""
    return re.sub(r"[\s\-\u00ad\x02\ufffe]", "", unicodedata.normalize("NFC", text))
