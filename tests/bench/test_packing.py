"""Kit packs a second, drawn and proved, beside what ReportLab alone takes for the same words on as many pages.

PACK_BENCH asks for another number of packs than 400; a tenth of them are read back. 10,000 show that memory stays flat.
"""

import os
import resource
import statistics
import time
from io import BytesIO
from random import Random

import pytest
from reportlab.pdfgen.canvas import Canvas

from integrations.labels.draw import draw_packs
from integrations.labels.pack import PAGE_MM, expected_codes
from integrations.labels.verify import verify
from tests.support.kit_packs import random_pack

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

PACKS = int(os.environ.get("PACK_BENCH", "400"))
LEAST_DRAWN, LEAST_PROVED = 600, 20
"""Packs a second: the targets. Beside bare ReportLab drawing took 1.5 to 2.4 of its rate."""
MOST_MB = 100
"""More than before, however many packs."""
AT_ONCE = 50
"""Packs in one document, as in a print batch."""


def bare(packs):
    """Every page of the packs with its words alone, by ReportLab as most would write it, without a barcode."""
    canvas = Canvas(BytesIO(), pageCompression=1)
    for pack in packs:
        for page in expected_codes(pack):
            canvas.setPageSize(PAGE_MM[page.kind])
            canvas.setFont("Helvetica", 9)
            for line, words in enumerate(
                [pack.recipient_name, *pack.recipient_lines, *(code for _, code in page.codes)]
            ):
                canvas.drawString(5, 90 - 9 * line, words)
            canvas.showPage()
    canvas.save()


def a_second(work, batches):
    """Packs a second: the median over the batches."""
    rates = []
    for packs in batches:
        began = time.perf_counter()
        work(packs)
        rates.append(len(packs) / (time.perf_counter() - began))
    return statistics.median(rates)


def test_packs_a_second_drawn_and_proved(capsys):
    chance = Random(3)
    batches = [[random_pack(chance) for _ in range(AT_ONCE)] for _ in range(max(PACKS // AT_ONCE, 2))]
    draw_packs(batches[0])  # fonts are read once a process
    floor, drawn = a_second(bare, batches), a_second(draw_packs, batches)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    proved = a_second(lambda packs: verify(draw_packs(packs), packs), batches[: max(len(batches) // 10, 1)])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    with capsys.disabled():
        print(
            f"\npacks/s: bare ReportLab {floor:,.0f}; drawn {drawn:,.0f} ({drawn / floor:.2f} of it); "
            f"drawn and proved {proved:,.1f}; proving took {grown:,.0f} MB more"
        )

    assert drawn > LEAST_DRAWN
    assert proved > LEAST_PROVED
    assert grown < MOST_MB, "proving one batch after the other keeps none of them"
