"""Draws the leaflet in the box: how to take each sample of this kit and post it, in pictures and numbered steps."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Final, cast

from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Paragraph

from integrations.labels.paper import DoesNotFit, Face, font, printable
from integrations.labels.pictures import PICTURES
from models.rules.vocabulary import Language, Specimen

_FILE: Final = Path(__file__).parents[2] / "templates" / "labels" / "leaflet.toml"

IN_THIS_ORDER: Final = (
    Specimen.FIRST_CATCH_URINE,
    Specimen.VULVOVAGINAL_SWAB,
    Specimen.PHARYNGEAL_SWAB,
    Specimen.RECTAL_SWAB,
    Specimen.CAPILLARY_BLOOD,
)
"""Urine needs its hour and comes before a wipe; blood comes last, with warm hands and a plaster."""


LARGEST_PICTURE_MM: Final = 46.0
"""Larger pictures say no more, and push steps to another page."""


@dataclass(frozen=True, slots=True)
class _Print:
    """One size of the leaflet. Lengths in millimetres, sizes in points."""

    width_mm: float
    height_mm: float
    margin_mm: float
    body_pt: float
    title_pt: float


NORMAL: Final = _Print(148, 210, 10, 11, 18)
"""An A5 page folds into the box."""

LARGE: Final = _Print(210, 297, 13, 18, 26)
"""A4 in 18 points: what readers with poor sight ask for (Accessible Information Standard: 16 to 18 at least)."""


def draw_leaflet(
    specimens: Sequence[Specimen], language: Language, *, phone: str, phone_hours: str, large: bool = False
) -> bytes:
    """The leaflet of one kind of kit as a PDF: the same words give the same bytes.

    Raises DoesNotFit where a step has no room on a page of its own, and CannotPrint for a character that the
    fonts don't hold.
    """
    words = _words(language)
    chosen = [each for each in IN_THIS_ORDER if each in specimens]
    # Twice, because each page says how many there are.
    of = _Leaflet(words, large=large, of=0, phone=phone, phone_hours=phone_hours).draw(chosen)
    leaflet = _Leaflet(words, large=large, of=of, phone=phone, phone_hours=phone_hours)
    leaflet.draw(chosen)
    return leaflet.finish()


@cache
def _words(language: Language) -> dict[str, Any]:
    words: dict[str, Any] = tomllib.loads(_FILE.read_text("utf-8"))[language.value]
    return words


class _Leaflet:
    """Fills pages from the top; a page that is full ends, and nothing is cut short."""

    def __init__(self, words: dict[str, Any], *, large: bool, of: int, phone: str, phone_hours: str) -> None:
        for face in Face:
            font(face)
        self._words = words
        self._print = LARGE if large else NORMAL
        self._of = of
        self._help = printable(words["help"].format(phone=phone, phone_hours=phone_hours))
        self._file = BytesIO()
        options: Any = {"pageCompression": 1, "invariant": 1, "initialFontName": Face.PLAIN.value}
        page = self._print.width_mm * mm, self._print.height_mm * mm
        self._canvas = cast("Any", Canvas(self._file, pagesize=page, **options))
        self._canvas.setTitle("")
        self._number = 1
        self._left = self._print.margin_mm * mm
        self._width = page[0] - 2 * self._left
        self._floor = self._left + self._foot_height()
        self._top = self._y = page[1] - self._left

    def draw(self, specimens: Sequence[Specimen]) -> int:
        """Draws all pages, and says how many there are."""
        words = self._words
        self._say(words["title"], self._print.title_pt, Face.BOLD)
        self._heading(words["before_title"])
        self._steps(words["before"])
        for specimen in specimens:
            self._say(f"• {words[specimen.value]['title']}", self._print.body_pt, Face.BOLD, indent_mm=9)
        self._space(2)
        self._say(words["unwell"], self._print.body_pt)
        for specimen in specimens:
            self._end_page()
            self._sample(specimen)
        self._end_page()
        self._heading(words["after_title"])
        self._steps(words["after"])
        self._end_page(last=True)
        return self._number

    def finish(self) -> bytes:
        """The whole document."""
        self._canvas.save()
        return self._file.getvalue()

    # ── what a page holds ────────────────────────────────────────────────────────────────────

    def _sample(self, specimen: Specimen) -> None:
        words = self._words[specimen.value]
        self._heading(words["title"])
        self._pictures(specimen, words["pictures"])
        self._say(words["care"], self._print.body_pt, Face.BOLD)  # before the steps: it may end them
        self._space(1.5)
        self._steps(words["steps"])

    def _pictures(self, specimen: Specimen, captions: Sequence[str]) -> None:
        """Three side by side, each numbered by its place and with its words beneath."""
        gap = 4 * mm
        across = (self._width - 2 * gap) / 3
        side = min(across, LARGEST_PICTURE_MM * mm)
        said = [self._paragraph(each, self._print.body_pt * 0.9, Face.BOLD) for each in captions]
        below = max(each.wrap(across, 1000)[1] for each in said)
        self._room_for(side + below + 5 * mm)
        for place, (draw, words) in enumerate(zip(PICTURES[specimen], said, strict=True)):
            x, y = self._left + place * (across + gap), self._y - side
            self._canvas.saveState()
            self._canvas.setStrokeColorRGB(0.6, 0.6, 0.6)
            self._canvas.setLineWidth(0.6)
            self._canvas.roundRect(x, y, side, side, 2 * mm)
            inset = side * 0.04
            self._canvas.translate(x + inset, y + inset)
            self._canvas.scale((side - 2 * inset) / 100, (side - 2 * inset) / 100)
            draw(self._canvas)
            self._canvas.restoreState()
            words.drawOn(self._canvas, x, y - 1.5 * mm - words.wrap(across, 1000)[1])
        self._y -= side + below + 5 * mm

    def _heading(self, words: str) -> None:
        self._space(1)
        self._say(words, self._print.title_pt * 0.82, Face.BOLD)
        self._space(1.5)

    def _steps(self, steps: Sequence[str]) -> None:
        indent_mm = self._print.body_pt * 0.7
        for number, step in enumerate(steps, 1):
            words = self._paragraph(step, self._print.body_pt, Face.PLAIN)
            width = self._width - indent_mm * mm
            height = words.wrap(width, 1000)[1]
            self._room_for(height)
            self._canvas.setFont(Face.BOLD.value, self._print.body_pt)
            self._canvas.setFillColorRGB(0, 0, 0)
            self._canvas.drawString(self._left, self._y - self._print.body_pt, f"{number}.")
            words.drawOn(self._canvas, self._left + indent_mm * mm, self._y - height)
            self._y -= height
            self._space(1.1)

    def _say(self, text: str, size_pt: float, face: Face = Face.PLAIN, *, indent_mm: float = 0) -> None:
        words = self._paragraph(text, size_pt, face)
        height = words.wrap(self._width - indent_mm * mm, 1000)[1]
        self._room_for(height)
        words.drawOn(self._canvas, self._left + indent_mm * mm, self._y - height)
        self._y -= height

    def _paragraph(self, text: str, size_pt: float, face: Face) -> Paragraph:
        style = ParagraphStyle("leaflet", fontName=face.value, fontSize=size_pt, leading=size_pt * 1.28)
        return Paragraph(printable(text), style)

    # ── room ─────────────────────────────────────────────────────────────────────────────────

    def _space(self, share: float) -> None:
        """So many times half a line."""
        self._y -= share * self._print.body_pt * 0.5

    def _room_for(self, height: float) -> None:
        if height > self._top - self._floor:
            raise DoesNotFit
        if self._y - height < self._floor:
            self._end_page()

    def _foot_height(self) -> float:
        paragraph = self._paragraph(self._help, self._foot_pt, Face.BOLD)
        return float(paragraph.wrap(self._width, 1000)[1]) + self._foot_pt * 1.9

    @property
    def _foot_pt(self) -> float:
        return self._print.body_pt * 0.9

    def _end_page(self, *, last: bool = False) -> None:
        """The help line and the page's number stand at the foot of every page."""
        foot = self._paragraph(self._help, self._foot_pt, Face.BOLD)
        height = foot.wrap(self._width, 1000)[1]
        self._canvas.setStrokeColorRGB(0, 0, 0)
        self._canvas.setLineWidth(0.8)
        line = self._left + self._foot_pt * 1.3 + height
        self._canvas.line(self._left, line, self._left + self._width, line)
        foot.drawOn(self._canvas, self._left, self._left + self._foot_pt * 1.1)
        self._canvas.setFont(Face.PLAIN.value, self._foot_pt)
        self._canvas.setFillColorRGB(0, 0, 0)
        place = self._words["page"].format(number=self._number, of=self._of)
        self._canvas.drawRightString(self._left + self._width, self._left, place)
        self._canvas.showPage()
        self._y = self._top
        if not last:
            self._number += 1
