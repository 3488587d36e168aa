"""Every text there is, on one page and on paper, for a clinical lead to read and sign."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Flowable, KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from integrations.texts.catalogue import Catalogue, Entry
from models.rules.service import Service
from models.rules.text import CLASS_OF, TextPurpose, TextValues
from models.rules.vocabulary import Language, Wording

_FONTS: Final = Path(__file__).parents[1] / "labels" / "fonts"
_TEMPLATES: Final = Path(__file__).parents[2] / "templates" / "texts"
_NAMES: Final[Mapping[Language, str]] = {Language.ENGLISH: "English", Language.WELSH: "Welsh"}
_REF: Final = "7K3F9X"

_PLAIN, _BOLD = "KitpostSheet", "KitpostSheetBold"
_LINE: Final = HexColor("#aeb7bd")


@dataclass(frozen=True, slots=True)
class Sample:
    """One text as it would be sent, with invented values."""

    purpose: TextPurpose
    wording: str
    language: str
    lang: str
    segments: int
    body: str


def samples(catalogue: Catalogue, service: Service, examples: Sequence[TextValues]) -> list[Sample]:
    """Every example in every wording and language, in the catalogue's order."""
    made = []
    for purpose in TextPurpose:
        for values in (each for each in examples if each.purpose is purpose):
            for wording in Wording:
                for language in Language:
                    text = catalogue.render(values, language=language, wording=wording, service=service, ref=_REF)
                    made.append(
                        Sample(purpose, wording.value, _NAMES[language], language.value, text.segments, text.body)
                    )
    return made


def _heading(entry: Entry) -> dict[str, object]:
    signed = (
        f"{entry.reviewed_by}, {entry.reviewed_on}"
        if entry.reviewed_on
        else entry.reviewed_by.replace("unreviewed", "not yet")
    )
    return {
        "title": entry.purpose.value.replace("_", " ").capitalize(),
        "text_class": CLASS_OF[entry.purpose].value,
        "who": entry.who,
        "because": entry.because,
        "max_segments": entry.max_segments,
        "reviewed": signed,
    }


def _groups(catalogue: Catalogue, made: Sequence[Sample]) -> list[tuple[dict[str, object], list[Sample]]]:
    return [
        (_heading(catalogue.entries[purpose]), [each for each in made if each.purpose is purpose])
        for purpose in TextPurpose
    ]


def draw_page(catalogue: Catalogue, service: Service, made: Sequence[Sample]) -> str:
    """The texts as one HTML page that needs nothing from anywhere."""
    pages = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
    return pages.get_template("preview.html").render(name=service.name, samples=made, groups=_groups(catalogue, made))


def draw_paper(catalogue: Catalogue, service: Service, made: Sequence[Sample]) -> bytes:
    """The texts as a PDF, with a line to sign under each. The same texts give the same bytes."""
    for name, file in ((_PLAIN, "DejaVuSansCondensed.ttf"), (_BOLD, "DejaVuSansCondensed-Bold.ttf")):
        if name not in pdfmetrics.getRegisteredFontNames():
            pdfmetrics.registerFont(TTFont(name, _FONTS / file))
    plain = ParagraphStyle("plain", fontName=_PLAIN, fontSize=9, leading=12.5)
    small = ParagraphStyle("small", parent=plain, fontSize=8, leading=11, textColor=HexColor("#4c6272"))
    title = ParagraphStyle("title", fontName=_BOLD, fontSize=16, leading=22)
    head = ParagraphStyle("head", fontName=_BOLD, fontSize=11, leading=16, spaceBefore=10)
    sign = ParagraphStyle("sign", parent=plain, spaceBefore=16)
    flow: list[Flowable] = [
        Paragraph(escape(f"Every text of {service.name}"), title),
        Paragraph(
            "As they would be sent, with invented values. Nothing may leave before a clinical lead signed it.", plain
        ),
    ]
    for heading, rows in _groups(catalogue, made):
        cells = [
            [
                Paragraph(f"{each.wording.capitalize()}<br/>{each.language}", small),
                Paragraph(f"{each.segments} part{'' if each.segments == 1 else 's'}<br/>{len(each.body)} char.", small),
                Paragraph(escape(each.body), plain),
            ]
            for each in rows
        ]
        table = Table(cells, colWidths=[24 * mm, 22 * mm, 124 * mm])
        table.setStyle(TableStyle([("LINEABOVE", (0, 0), (-1, -1), 0.4, _LINE), ("VALIGN", (0, 0), (-1, -1), "TOP")]))
        about = (
            f"{str(heading['text_class']).capitalize()}. {heading['who']} {heading['because']} "
            f"At most {heading['max_segments']} parts. Reviewed: {heading['reviewed']}."
        )
        flow += [
            KeepTogether(
                [Paragraph(str(heading["title"]), head), Paragraph(escape(about), small), Spacer(1, 4), table]
            ),
            KeepTogether(
                [
                    Paragraph(
                        "Approved by (name, role) ______________________________  Signature ____________________  "
                        "Date ______________",
                        sign,
                    ),
                    Spacer(1, 8),
                ]
            ),
        ]
    out = BytesIO()
    paper = SimpleDocTemplate(
        out,
        pagesize=A4,
        leftMargin=20 * mm,
        rightMargin=20 * mm,
        topMargin=18 * mm,
        bottomMargin=18 * mm,
        title="Every text",
        invariant=True,
    )
    paper.build(flow)
    return out.getvalue()
