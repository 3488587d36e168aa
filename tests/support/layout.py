"""What stands where on a PDF's pages, read back by pdfium, which shares no code with the drawing."""

from collections.abc import Iterator
from ctypes import c_float
from itertools import combinations
from typing import NamedTuple

import pypdfium2 as pdfium
from pypdfium2 import raw

SMALLEST_PT = 7.0
TOUCH_PT = 0.4
"""Boxes are rounded outwards; less than this is a touch and no overlap."""


class Box(NamedTuple):
    left: float
    bottom: float
    right: float
    top: float


def text_boxes(page: pdfium.PdfPage) -> Iterator[tuple[Box, float]]:
    """Every piece of text as it was set, with its printed size in points."""
    for piece in page.get_objects(filter=[raw.FPDF_PAGEOBJ_TEXT]):
        size = c_float()
        raw.FPDFTextObj_GetFontSize(piece, size)
        box = moved(Box(*piece.get_bounds()), piece.container)
        if box.right > box.left:  # a space alone has no ink
            yield box, size.value * piece.get_matrix().d


def moved(box: Box, container: pdfium.PdfObject | None) -> Box:
    """A box as the page has it: what stands in artwork is measured from the artwork's corner."""
    if container is None:
        return box
    there = container.get_matrix()
    return Box(box.left + there.e, box.bottom + there.f, box.right + there.e, box.top + there.f)


def faults(pdf: bytes) -> list[str]:
    """What is wrong with the layout, a line each: outside the page, smaller than 7 pt, one over another."""
    found = []
    with pdfium.PdfDocument(pdf) as document:
        for number, page in enumerate(document, 1):
            width, height = page.get_size()
            boxes = list(text_boxes(page))
            for box, size in boxes:
                if box.left < 0 or box.bottom < 0 or box.right > width or box.top > height:
                    found.append(f"page {number}: outside the page {box}")
                if size < SMALLEST_PT - 0.01:
                    found.append(f"page {number}: {size:.1f} pt {box}")
            found += [
                f"page {number}: {one} over {other}"
                for (one, _), (other, _) in combinations(boxes, 2)
                if over(one, other)
            ]
    return found


def over(one: Box, other: Box) -> bool:
    across = min(one.right, other.right) - max(one.left, other.left)
    up = min(one.top, other.top) - max(one.bottom, other.bottom)
    return across > TOUCH_PT and up > TOUCH_PT
