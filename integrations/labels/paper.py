"""Ink on pages: the two embedded fonts, wrapping that never shrinks below 7 pt, and the pen.

ReportLab owns the document, the artwork and the font subsets. Pages are written past it as finished
bytes, in operators of our own: formatting its dictionaries took two thirds of the time.
"""

import unicodedata
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import cache
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, cast

from reportlab import rl_config
from reportlab.pdfbase import pdfdoc, pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from integrations.labels.barcodes import code_128_modules, code_128_path, data_matrix_path

SMALLEST_PT: Final = 7.0
"""No text is printed smaller: a 203 dpi thermal head and a tired reader can't do with less."""

POINTS_PER_MM: Final = 72 / 25.4
LINE_SPACING: Final = 1.16
"""Baseline to baseline over font size: DejaVu's ascenders and descenders just don't touch."""

ASCENT: Final = 0.94
"""Top of the tallest capital with a circumflex over font size."""

CAP_HEIGHT: Final = 0.729
"""Height of a capital over font size, in both faces."""

CODE_128_MODULES_MM: Final = (0.375, 0.25)
"""Bar widths to choose from, widest first: three and two dots of a 203 dpi head."""

CODE_128_QUIET_MODULES: Final = 10

_FONT_FOLDER: Final = Path(__file__).parent / "fonts"


rl_config.useA85 = 0  # no ASCII armour round streams: a quarter larger for no printer of this century


class Face(StrEnum):
    """The two faces. Condensed, because addresses are long and labels are narrow."""

    PLAIN = "DejaVuSansCondensed"
    BOLD = "DejaVuSansCondensed-Bold"


class DoesNotFit(Exception):  # noqa: N818 - a fact about the text, not a fault
    """The text has no room even at the smallest size."""


class CannotPrint(Exception):  # noqa: N818
    """The text holds a character that the label's font has no sign for, or would print wrongly."""


@cache
def font(face: Face) -> TTFont:
    """The face as ReportLab knows it. Read and registered once a process (about 0.1 s)."""
    loaded = TTFont(face.value, str(_FONT_FOLDER / f"{face.value}.ttf"), asciiReadable=True)
    pdfmetrics.registerFont(loaded)
    return loaded


@cache
def _widths(face: Face) -> dict[int, float]:
    """Advance of every character in thousandths of the font size."""
    return dict(font(face).face.charWidths)


def printable(text: str) -> str:
    """The text in composed form (one sign for ŵ). CannotPrint if a character would come out wrong or not at all.

    Refused: control characters; signs that neither face holds; and right-to-left or stacked marks,
    which need shaping that labels don't have. A wrong name on a label is worse than a held batch.
    """
    if text.isascii() and text.isprintable():
        return text
    composed = unicodedata.normalize("NFC", text)
    for character in composed:
        if (
            not character.isprintable()
            or unicodedata.combining(character)
            or unicodedata.bidirectional(character) in {"R", "AL"}
            or any(ord(character) not in _widths(face) for face in Face)
        ):
            raise CannotPrint
    return composed


def width_pt(text: str, face: Face, size_pt: float) -> float:
    """How wide the text is when set in one line."""
    return sum(map(_widths(face).__getitem__, text.encode() if text.isascii() else map(ord, text))) * size_pt / 1000


def wrap(text: str, face: Face, size_pt: float, room_pt: float) -> list[str]:
    """The text in lines no wider than the room: broken at spaces, a word too long for a line inside itself."""
    if width_pt(text, face, size_pt) <= room_pt:
        return [text]
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if width_pt(longer, face, size_pt) <= room_pt:
            line = longer
            continue
        if line:
            lines.append(line)
        line = word
        while width_pt(line, face, size_pt) > room_pt:
            ends = list(accumulate(width_pt(character, face, size_pt) for character in line))
            cut = max(bisect_right(ends, room_pt), 1)
            lines.append(line[:cut])
            line = line[cut:]
    return [*lines, line]


class _Finished(pdfdoc.PDFObject):
    """A PDF object that is bytes already, so that ReportLab only numbers it and writes it down."""

    __RefOnly__ = 1

    def __init__(self, body: bytes) -> None:
        self._body = body

    def format(self, document: pdfdoc.PDFDocument) -> bytes:  # noqa: ARG002 - ReportLab's signature
        """ReportLab's name for writing an object out."""
        return self._body


class Pen:
    """Writes on one ReportLab document. Places and lengths in millimetres from the bottom left, sizes in points."""

    def __init__(self) -> None:
        for face in Face:
            font(face)
        self._file = BytesIO()
        # `invariant`: no clock and no random id in the file, so the same packs give the same bytes
        options: Any = {"pageCompression": 1, "invariant": 1, "initialFontName": Face.PLAIN.value}
        self._canvas = cast("Any", Canvas(self._file, **options))  # the stubs know less of it than we need
        self._document = self._canvas._doc  # noqa: SLF001 - the fonts ask for it, and it has no public name
        self._fonts = {face: font(face).getSubsetInternalName(0, self._document) for face in Face}
        self._resources: Any = pdfdoc.PDFResourceDictionary()
        self._resources.basicFonts()
        self._ink: list[str] = []

    def page(self, width_mm: float, height_mm: float, artwork: str) -> None:
        """Ends a page: what was drawn since the last one, over a piece of static artwork."""
        self._end_page(width_mm, height_mm, f"/{self._document.getXObjectName(artwork)} Do {self._taken_ink()}")

    def _end_page(self, width_mm: float, height_mm: float, drawn: str) -> None:
        ink = zlib.compress(drawn.encode(), level=1)
        stream = b"<< /Length %d /Filter /FlateDecode >>\nstream\n%b\nendstream" % (len(ink), ink)
        page = (
            f"<< /Type /Page /Parent {self._reference(self._document.Pages)} "
            f"/MediaBox [0 0 {width_mm * POINTS_PER_MM:.3f} {height_mm * POINTS_PER_MM:.3f}] "
            f"/Resources {self._reference(self._resources)} /Contents {self._reference(_Finished(stream))} >>"
        )
        self._document.addPage(_Finished(page.encode()))

    def cell(self, x: float, y: float, artwork: str) -> str:
        """What was drawn since the last page or cell, over its artwork, moved to a place on a sheet."""
        name = self._document.getXObjectName(artwork)
        moved = f"1 0 0 1 {x * POINTS_PER_MM:.3f} {y * POINTS_PER_MM:.3f} cm"
        return f"q {moved} /{name} Do {self._taken_ink()} Q"

    def sheet(self, width_mm: float, height_mm: float, cells: Iterable[str]) -> None:
        """Ends a page that holds these cells."""
        self._end_page(width_mm, height_mm, " ".join(cells))

    @contextmanager
    def artwork(self, name: str, width_mm: float, height_mm: float) -> Iterator[None]:
        """What is drawn inside becomes a piece of artwork, stored once and shown on many pages."""
        self._canvas.beginForm(name, 0, 0, width_mm * POINTS_PER_MM, height_mm * POINTS_PER_MM)
        yield
        self._canvas.addLiteral(self._taken_ink())
        self._canvas.endForm()
        internal = self._document.getXObjectName(name)
        self._resources.XObject[internal] = pdfdoc.PDFObjectReference(internal)

    def finish(self) -> bytes:
        """The whole document."""
        self._canvas.save()
        return self._file.getvalue()

    def _taken_ink(self) -> str:
        ink = "\n".join(self._ink)
        self._ink.clear()
        return ink

    def _reference(self, thing: pdfdoc.PDFObject) -> str:
        """How the document points to one of its objects: its number, given on first asking."""
        pointer: bytes = self._document.Reference(thing).format(self._document)
        return pointer.decode()

    # ── text ─────────────────────────────────────────────────────────────────────────────────

    def text(self, x: float, y: float, text: str, size_pt: float, face: Face = Face.PLAIN, stretch: float = 1) -> None:
        """One line, its baseline at y. `stretch` narrows it without touching its height."""
        assert size_pt >= SMALLEST_PT, "no text below 7 pt"
        scale = "" if stretch == 1 else f"{100 * stretch:.2f} Tz "
        self._ink.append(
            f"BT {scale}{x * POINTS_PER_MM:.2f} {y * POINTS_PER_MM:.2f} Td {self._shown(text, size_pt, face)}ET"
        )

    def _shown(self, text: str, size_pt: float, face: Face) -> str:
        if text.isascii():  # the first subset of every font holds ASCII under its own codes
            return f"{self._fonts[face]} {size_pt:g} Tf <{text.encode().hex()}> Tj "
        own = font(face)
        return "".join(
            f"{own.getSubsetInternalName(subset, self._document)} {size_pt:g} Tf <{codes.hex()}> Tj "
            for subset, codes in own.splitString(text, self._document)
        )

    def block(
        self,
        x: float,
        top: float,
        width: float,
        height: float,
        lines: Sequence[tuple[str, Face]],
        sizes_pt: Iterable[float],
    ) -> float:
        """Lines from the top of a box downwards, wrapped, in the largest of the sizes in which all fit.

        Returns the height used. Raises DoesNotFit.
        """
        for size_pt in sizes_pt:
            set_lines = [
                (line, face) for text, face in lines for line in wrap(text, face, size_pt, width * POINTS_PER_MM)
            ]
            pitch = size_pt * LINE_SPACING / POINTS_PER_MM
            if len(set_lines) * pitch > height:
                continue
            baseline = top - size_pt * ASCENT / POINTS_PER_MM
            for line, face in set_lines:
                self.text(x, baseline, line, size_pt, face)
                baseline -= pitch
            return len(set_lines) * pitch
        raise DoesNotFit

    # ── lines and barcodes ───────────────────────────────────────────────────────────────────

    def rule(self, x: float, y: float, length: float, thickness: float = 0.25) -> None:
        """A horizontal line to write on, as a filled bar so that 203 dpi never loses it."""
        self._ink.append(self._rectangle(x, y, length, thickness) + " f")

    def frame(self, x: float, y: float, width: float, height: float, thickness: float = 0.25) -> None:
        """A rectangle's outline."""
        inner = self._rectangle(x + thickness, y + thickness, width - 2 * thickness, height - 2 * thickness)
        self._ink.append(f"{self._rectangle(x, y, width, height)} {inner} f*")

    def diamond(self, x: float, y: float, side: float, thickness: float) -> None:
        """A square on its point round x, y: `side` is measured outside the line."""
        outer, inner = side / 2**0.5, (side - 2 * thickness) / 2**0.5
        self._ink.append(f"{self._on_point(x, y, outer)} {self._on_point(x, y, inner)} f*")

    def data_matrix(self, x: float, y: float, text: str, module: float) -> None:
        """A DataMatrix with its bottom left corner at x, y; the caller leaves a module of white round it."""
        scale = module * POINTS_PER_MM
        self._ink.append(
            f"q {scale:.5f} 0 0 {scale:.5f} {x * POINTS_PER_MM:.3f} {y * POINTS_PER_MM:.3f} cm "
            f"{data_matrix_path(text)} Q"
        )

    def code_128(self, x: float, y: float, width: float, height: float, text: str) -> None:
        """A Code 128 centred in a strip, its quiet zones inside the strip. Raises DoesNotFit, or CannotPrint."""
        modules = code_128_modules(text)
        module = next((m for m in CODE_128_MODULES_MM if (modules + 2 * CODE_128_QUIET_MODULES) * m <= width), None)
        if module is None:
            raise DoesNotFit
        try:
            path = code_128_path(text)
        except KeyError:
            raise CannotPrint from None
        left = x + (width - modules * module) / 2
        self._ink.append(
            f"q {module * POINTS_PER_MM:.5f} 0 0 {height * POINTS_PER_MM:.3f} "
            f"{left * POINTS_PER_MM:.3f} {y * POINTS_PER_MM:.3f} cm {path} Q"
        )

    @staticmethod
    def _rectangle(x: float, y: float, width: float, height: float) -> str:
        return " ".join(f"{length * POINTS_PER_MM:.3f}" for length in (x, y, width, height)) + " re"

    @staticmethod
    def _on_point(x: float, y: float, reach: float) -> str:
        corners = ((x, y - reach), (x + reach, y), (x, y + reach), (x - reach, y))
        moves = " l ".join(f"{across * POINTS_PER_MM:.3f} {up * POINTS_PER_MM:.3f}" for across, up in corners)
        return moves.replace(" l ", " m ", 1) + " l h"
