"""Draws the letter that hands one person over to a clinic: what was asked for, found and told."""

import tomllib
from datetime import date
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from integrations.clinic.fhir import ASKED, observed_words, test_name, told_words
from integrations.letters.draw import FONT, register_font
from models.rules.referral import Handover
from models.rules.vocabulary import REACTIONS

_WORDS: Final = Path(__file__).parents[2] / "templates" / "letters" / "referral.toml"
_PLAIN: Final = ParagraphStyle("plain", fontName=FONT, fontSize=10.5, leading=14.5)
_HEAD: Final = ParagraphStyle("head", parent=_PLAIN, fontSize=12, leading=16, spaceBefore=9, spaceAfter=2)
_TITLE: Final = ParagraphStyle("title", parent=_PLAIN, fontSize=16, leading=21, spaceAfter=4)


def draw_referral(given: Handover, on: date) -> bytes:
    """The letter as a PDF. Its title, its author and its keywords are empty: a file manager shows them."""
    register_font()
    words: dict[str, str] = tomllib.loads(_WORDS.read_text("utf-8"))
    out = BytesIO()
    margin = 20 * mm
    # ReportLab's own words for what it does not know would stand in the file's properties.
    empty: Any = {"title": "", "author": "", "subject": "", "creator": "", "keywords": ""}
    document = SimpleDocTemplate(
        out, pagesize=A4, leftMargin=margin, rightMargin=margin, topMargin=margin, bottomMargin=margin, invariant=1,
        **empty,
    )  # fmt: skip
    document.build(list(_story(given, on, words)))
    return out.getvalue()


def _story(given: Handover, on: date, words: dict[str, str]) -> list[Flowable]:
    story: list[Flowable] = [
        _text("<br/>".join(escape(line) for line in (given.clinic, *given.clinic_lines) if line)),
        Spacer(0, 8),
        _text(f"{on:%-d %B %Y}"),
        Spacer(0, 8),
        Paragraph(words["title"], _TITLE),
    ]
    if given.asked:
        story.append(_text(f"{words['asked']}: <b>{escape(ASKED[given.asked])}</b>"))
    if given.message:
        story += [Paragraph(words["words"], _HEAD), _text(escape(given.message).replace("\n", "<br/>"))]
    story += [
        Paragraph(words["person"], _HEAD),
        _text(f"{escape(given.given_name)} {escape(given.family_name)}, born {given.born_on:%-d %B %Y}"),
        _text(f"{escape(given.mobile)}<br/>{', '.join(map(escape, (*given.address_lines, given.postcode)))}"),
        _text(f"{words['agreed']}: {', '.join(given.agreed_to) or 'calls alone'}. "
              f"{words['safe_times']}: {given.safe_times.replace(',', ', ') or 'not said'}."),
        Paragraph(words["found"], _HEAD),
        _results(given, words),
    ]  # fmt: skip
    if any(each.outcome in REACTIONS for each in given.results):
        story += [Spacer(0, 4), _text(f"<b>{words['reactive_note']}</b>")]
    told = [f"{at:%-d %B %Y}: {escape(told_words(what))}" for what, at in given.told]
    story += [
        Paragraph(words["told"], _HEAD),
        _text("<br/>".join(told) or words["nothing_told"]),
        Spacer(0, 12),
        _text(words["reply"].format(phone=escape(given.phone), ref=given.ref[:12])),
        _text(escape(given.service)),
    ]
    return story


def _results(given: Handover, words: dict[str, str]) -> Table:
    rows = [
        [test_name(each.test), each.site.value, observed_words(each.outcome), each.accession] for each in given.results
    ]
    rows += [[test_name(test), site.value, words["pending"], ""] for test, site in given.pending]
    head = ["Test", "Sample", "Result", "Laboratory number"]
    cells = [[_text(escape(cell)) for cell in row] for row in (head, *rows)]
    table = Table(cells, colWidths=[38 * mm, 26 * mm, 70 * mm, 36 * mm], repeatRows=1)
    table.setStyle(TableStyle([("LINEBELOW", (0, 0), (-1, -1), 0.4, "black"), ("VALIGN", (0, 0), (-1, -1), "TOP")]))
    return table


def _text(marked: str) -> Paragraph:
    return Paragraph(marked, _PLAIN)
