"""Draws the letter that asks for a call: an A4 page whose address shows in a window envelope, and says no more."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Paragraph

from models.rules.vocabulary import Language

FONT: Final = "KitpostLetter"
_FONT_FILE: Final = Path(__file__).parents[1] / "labels" / "fonts" / "DejaVuSansCondensed.ttf"
_WORDS: Final = Path(__file__).parents[2] / "templates" / "letters" / "letters.toml"

WINDOW_LEFT_MM, WINDOW_TOP_MM = 20.0, 45.0
"""Where the address begins on the page: within the window of a DL envelope (BS 4264)."""

_SIZE: Final = 12.0
_LEADING: Final = 17.0


@dataclass(frozen=True, slots=True)
class Letter:
    """All that one letter says. Lives as long as the page that prints it."""

    given_name: str
    family_name: str
    address_lines: Sequence[str]
    postcode: str
    sender: str
    """How the service signs: neutral, as in texts."""
    return_address: Sequence[str]
    phone: str
    phone_hours: str
    ref: str
    on: date
    language: Language

    def __repr__(self) -> str:
        return f"Letter(ref={self.ref!r})"


def register_font() -> None:
    """The letters' one face, bold and plain alike, read once a process."""
    if FONT not in pdfmetrics.getRegisteredFontNames():
        pdfmetrics.registerFont(TTFont(FONT, _FONT_FILE))
        pdfmetrics.registerFont(TTFont(f"{FONT}-Bold", _FONT_FILE.with_name("DejaVuSansCondensed-Bold.ttf")))
        pdfmetrics.registerFontFamily(FONT, normal=FONT, bold=f"{FONT}-Bold", italic=FONT, boldItalic=f"{FONT}-Bold")


def draw_letter(letter: Letter) -> bytes:
    """The letter as a PDF. Its title, its author and its keywords are empty: a file manager shows them."""
    register_font()
    words: dict[str, Any] = tomllib.loads(_WORDS.read_text("utf-8"))[letter.language.value]
    said = {
        "given_name": letter.given_name,
        "family_name": letter.family_name,
        "phone": letter.phone,
        "phone_hours": letter.phone_hours,
        "sender": letter.sender,
        "ref": letter.ref,
    }
    out = BytesIO()
    page = Canvas(out, pagesize=A4, invariant=True)
    page.setFont(FONT, 9)
    page.drawString(WINDOW_LEFT_MM * mm, A4[1] - 20 * mm, ", ".join(letter.return_address))
    page.setFont(FONT, _SIZE)
    address = [f"{letter.given_name} {letter.family_name}", *letter.address_lines, letter.postcode]
    for number, line in enumerate(address):
        page.drawString(WINDOW_LEFT_MM * mm, A4[1] - WINDOW_TOP_MM * mm - number * 15, line)
    y = A4[1] - 105 * mm
    page.drawString(WINDOW_LEFT_MM * mm, y, f"{letter.on:%d/%m/%Y}")
    y -= 2 * _LEADING
    style = ParagraphStyle("letter", fontName=FONT, fontSize=_SIZE, leading=_LEADING)
    passages = [words["greeting"], *words["body"], words["closing"], "{sender}", words["reference"]]
    for passage in passages:
        # Names are text, never mark-up.
        text = passage.format(**said).replace("&", "&amp;").replace("<", "&lt;")
        paragraph = Paragraph(text, style)
        _, height = paragraph.wrap(A4[0] - 2 * WINDOW_LEFT_MM * mm, y)
        y -= height
        paragraph.drawOn(page, WINDOW_LEFT_MM * mm, y)
        y -= _LEADING * 0.8
    page.showPage()
    page.save()
    return out.getvalue()
