"""A print batch is released only if what is on paper is what was meant: each way to be wrong is found."""

from dataclasses import replace
from io import BytesIO
from itertools import combinations
from random import Random

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c
import pytest
from PIL import Image

from integrations.labels.draw import draw_packs
from integrations.labels.pack import PAGE_MM, PageKind, expected_codes, places
from integrations.labels.verify import Mismatch, Problem, contact_sheet, render_page, verify
from models.rules.service import Paper
from models.rules.vocabulary import Specimen
from tests.support import layout
from tests.support.kit_packs import kit_pack, random_pack

PACK = kit_pack(11)
OTHER = kit_pack(12)


def painted(pdf: bytes, page: int, box: tuple[float, float, float, float], grey: int) -> bytes:
    """The PDF with a filled rectangle (left, bottom, width, height in mm) over one page."""
    document = pdfium.PdfDocument(pdf)
    sheet = document[page - 1]
    blot = pdfium_c.FPDFPageObj_CreateNewRect(*(length * 72 / 25.4 for length in box))
    pdfium_c.FPDFPageObj_SetFillColor(blot, grey, grey, grey, 255)
    pdfium_c.FPDFPath_SetDrawMode(blot, pdfium_c.FPDF_FILLMODE_WINDING, 0)
    pdfium_c.FPDFPage_InsertObject(sheet, blot)
    sheet.gen_content()
    file = BytesIO()
    document.save(file)
    return file.getvalue()


def problems(found: list[Mismatch]) -> set[tuple[int, Problem]]:
    return {(mismatch.page, mismatch.problem) for mismatch in found}


@pytest.mark.parametrize("dpi", [203, 300])
def test_every_barcode_of_random_packs_decodes_to_what_was_meant(dpi):
    random = Random(dpi)
    packs = [random_pack(random) for _ in range(10)]

    assert verify(draw_packs(packs), packs, dpi=dpi) == []


def test_a_blanked_barcode_is_missing():
    blanked = painted(draw_packs([PACK]), 3, (39, 15, 10, 9.5), 255)

    missing = Mismatch(
        3, PageKind.TUBE, PACK.kit_code, Problem.BARCODE_MISSING, f"data_matrix {PACK.tubes[0].tube_code}"
    )
    assert verify(blanked, [PACK]) == [missing]


def test_a_barcode_smeared_past_repair_is_missing():
    smeared = painted(draw_packs([PACK]), 3, (40, 18, 8, 3.5), 0)

    assert problems(verify(smeared, [PACK])) == {(3, Problem.BARCODE_MISSING)}


def test_two_tubes_with_each_others_codes_are_found_on_both_labels_and_the_form():
    one, two, *rest = PACK.tubes
    swapped = replace(PACK, tubes=(replace(one, tube_code=two.tube_code), replace(two, tube_code=one.tube_code), *rest))

    found = problems(verify(draw_packs([swapped]), [PACK]))
    tubes = {(page, problem) for page in (3, 4) for problem in (Problem.BARCODE_MISSING, Problem.BARCODE_EXTRA)}
    assert tubes <= found
    assert (8, Problem.WORDS_MISSING) in found


def test_two_kits_in_each_others_place_are_found_on_every_page():
    found = verify(draw_packs([OTHER, PACK]), [PACK, OTHER])

    pages = len(expected_codes(PACK)) * 2
    assert {mismatch.page for mismatch in found} == set(range(1, pages + 1))


def test_a_barcode_that_nobody_asked_for_is_found():
    untracked = replace(PACK, return_tracking=None)

    extra = Mismatch(2, PageKind.RETURN, PACK.kit_code, Problem.BARCODE_EXTRA, f"code_128 {PACK.return_tracking}")
    assert verify(draw_packs([PACK]), [untracked]) == [extra]


@pytest.mark.parametrize(
    ("changes", "page", "field"),
    [
        ({"recipient_name": "Testina Other"}, 1, "recipient_name"),
        ({"recipient_lines": ("13 Example Street", "LEEDS", "LS1 4AP")}, 1, "recipient_lines"),
        ({"date_of_birth": kit_pack().date_of_birth.replace(day=6)}, 8, "date_of_birth"),
        ({"lab_name": "Another Laboratory"}, 2, "lab_name"),
        ({"responsible_phone": "0113 496 0999"}, 2, "responsible_phone"),
    ],
)
def test_words_that_belong_to_someone_else_are_found_and_only_their_field_is_named(changes, page, field):
    found = verify(draw_packs([replace(PACK, **changes)]), [PACK])

    assert Mismatch(page, expected_codes(PACK)[page - 1].kind, PACK.kit_code, Problem.WORDS_MISSING, field) in found
    assert {mismatch.detail for mismatch in found} == {field}


def test_a_specimen_under_the_wrong_tube_number_is_found():
    wrong = replace(PACK.tubes[0], specimen=Specimen.RECTAL_SWAB)

    found = problems(verify(draw_packs([replace(PACK, tubes=(wrong, *PACK.tubes[1:]))]), [PACK]))
    assert found == {(3, Problem.WORDS_MISSING), (8, Problem.WORDS_MISSING)}


def test_a_kit_code_on_the_outer_label_is_found():
    betrayed = replace(PACK, recipient_lines=(PACK.recipient_lines[0], PACK.kit_code))

    assert problems(verify(draw_packs([betrayed]), [betrayed])) == {(1, Problem.BETRAYS_KIT)}


def test_a_page_too_few_holds_the_whole_batch():
    fewer = replace(PACK, tubes=PACK.tubes[1:])

    assert problems(verify(draw_packs([fewer]), [PACK])) == {(7, Problem.PAGE_COUNT)}


def test_a_page_of_another_size_is_found():
    document = pdfium.PdfDocument(draw_packs([PACK]))
    document[7].set_mediabox(0, 0, 595, 842)
    file = BytesIO()
    document.save(file)

    assert problems(verify(file.getvalue(), [PACK])) == {(8, Problem.PAGE_SIZE)}


def test_a_file_that_is_no_pdf_is_unreadable():
    assert problems(verify(b"not a pdf", [PACK])) == {(1, Problem.UNREADABLE)}


def test_in_a_long_batch_only_the_packs_that_changed_places_are_named():
    packs = [kit_pack(seed) for seed in range(20, 28)]
    drawn = draw_packs([packs[0], packs[2], packs[1], *packs[3:]])

    assert {mismatch.kit_code for mismatch in verify(drawn, packs)} == {packs[1].kit_code, packs[2].kit_code}


def test_the_contact_sheet_shows_every_page_once_at_the_same_scale():
    packs = [PACK, OTHER]
    pdf = draw_packs(packs)
    sheet = Image.open(BytesIO(contact_sheet(pdf)))

    pages = [render_page(pdf, page, dpi=60) for page in range(1, 17)]
    paper = sum(page.width * page.height for page in pages)
    assert sheet.width * sheet.height - sheet.histogram()[170] == pytest.approx(paper, rel=0.01)


def test_a_box_for_a_counter_names_the_counter_and_nobody_else():
    pack = kit_pack(1, recipient_name="Testina Kit", counter_name="Larkfield Pharmacy")

    pdf = draw_packs([pack])

    assert verify(pdf, [pack]) == []
    with pdfium.PdfDocument(pdf) as document:
        outer = document[0].get_textpage().get_text_range()
    assert "Larkfield Pharmacy" in outer
    assert "Testina" not in outer
    betraying = replace(pack, counter_name="Kept for Testina Kit")
    assert [each.problem for each in verify(draw_packs([betraying]), [betraying])] == [Problem.BETRAYS_PERSON]


# ── Sheets for an office printer ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_sheets_hold_every_label_once_in_its_own_size_and_are_proved_like_the_roll(count):
    chance = Random(count)
    packs = [random_pack(chance) for _ in range(count)]
    pdf = draw_packs(packs, Paper.A4)

    assert verify(pdf, packs, paper=Paper.A4) == []
    with pdfium.PdfDocument(pdf) as document:
        sizes = [tuple(round(side * 25.4 / 72) for side in page.get_size()) for page in document]
    upright, on_its_side = (210, 297), (297, 210)
    assert sizes == {
        1: [upright, on_its_side],
        2: [upright, upright, on_its_side],
        3: [upright, upright, on_its_side, upright, on_its_side],
        4: [upright, upright, on_its_side, upright, upright, on_its_side],
    }[count]  # fmt: skip
    assert layout.faults(pdf) == []
    assert draw_packs(packs, Paper.A4) == pdf


def test_a_sheet_with_somebody_elses_label_or_a_smeared_code_is_found():
    pdf = draw_packs([PACK, OTHER], Paper.A4)

    swapped = verify(pdf, [OTHER, PACK], paper=Paper.A4)
    smeared = verify(painted(pdf, 1, (20, 175, 70, 18), 0), [PACK, OTHER], paper=Paper.A4)

    assert {each.kit_code for each in swapped} == {PACK.kit_code, OTHER.kit_code}
    assert Problem.BARCODE_MISSING in {each.problem for each in smeared if each.kind is PageKind.OUTER}
    assert [each.problem for each in verify(pdf, [PACK], paper=Paper.A4)] == [Problem.PAGE_COUNT]


def test_no_label_of_a_sheet_lies_over_another_or_off_it():
    packs = [kit_pack(number) for number in range(3)]
    spots = list(places(packs, Paper.A4))
    kinds = [page.kind for pack in packs for page in expected_codes(pack)]
    boxes = [
        (each.sheet, each.x_mm, each.y_mm, each.x_mm + PAGE_MM[kind][0], each.y_mm + PAGE_MM[kind][1], each.size_mm)
        for each, kind in zip(spots, kinds, strict=True)
    ]

    for _, left, bottom, right, top, (width, height) in boxes:
        assert 0 <= left < right <= width
        assert 0 <= bottom < top <= height
    for one, other in combinations(boxes, 2):
        apart = one[3] <= other[1] or other[3] <= one[1] or one[4] <= other[2] or other[4] <= one[2]
        assert apart or one[0] != other[0]
