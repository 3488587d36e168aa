"""Labels as paper: true sizes, nothing cut, nothing overlapping, nothing betrayed. Measured in the picture."""

from collections.abc import Iterator

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c
import pytest
import zxingcpp
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from integrations.labels.draw import draw_packs
from integrations.labels.pack import PAGE_MM, PageKind, expected_codes
from integrations.labels.paper import SMALLEST_PT, CannotPrint, Face, Pen, printable, width_pt, wrap
from integrations.labels.verify import render_page
from integrations.labels.wording import wording
from models.rules.errors import Code, ServiceError
from models.rules.vocabulary import Language, Specimen, Test
from tests.support.kit_packs import kit_pack, tubes_of

MM = 25.4 / 72
LONG_ADDRESS = (
    "Flat 1234, The Extraordinarily Long Building Name of Uncommon Length Residential Tower",
    "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch",
    "123456 Another Really Long Street Name That Goes On And On",
    "Upper Something-under-Lyme",
    "NORTHUMBERLANDSHIRE",
    "LS1 4AP",
    "UNITED KINGDOM",
)
LONG_NAME = "Testina Maximiliana Featherstonehaugh-Cholmondeley van der Llanfairpwllgwyngyll"
LONG_LAB = (
    "Department of Medical Microbiology and Virology, Level 4",
    "The Extraordinarily Long Hospital Name Foundation Trust",
    "1 Beaker Road",
    "EXAMPLETOWN",
    "EX1 1AB",
)
WORST = {"recipient_name": LONG_NAME, "recipient_lines": LONG_ADDRESS, "lab_lines": LONG_LAB}
NINE = tuple(Specimen) + tuple(Specimen)[:4]
PACKS = {
    "english": kit_pack(1),
    "welsh": kit_pack(2, language=Language.WELSH, recipient_name="Siân Ŵyn Llŷr", return_tracking=None),
    "long": kit_pack(3, **WORST),
    "long_welsh": kit_pack(4, language=Language.WELSH, **WORST),
    "nine_tubes": kit_pack(5, tubes=tubes_of(kit_pack(5).kit_code, NINE)),
}


@pytest.fixture(scope="module", params=PACKS)
def drawn(request):
    pack = PACKS[request.param]
    with pdfium.PdfDocument(draw_packs([pack])) as document:
        yield pack, document


def place(pack, kind: PageKind) -> int:
    return [page.kind for page in expected_codes(pack)].index(kind)


def text_boxes(page) -> list[tuple[float, float, float, float]]:
    """(left, bottom, right, top) in mm of the ink of each run of text."""
    words = page.get_textpage()
    return [tuple(side * MM for side in words.get_rect(n)) for n in range(words.count_rects())]


def barcode_boxes(page, height_mm: float) -> Iterator[tuple[float, float, float, float]]:
    """(left, bottom, right, top) in mm of each barcode and its quiet zone."""
    dpi = 300
    for barcode in zxingcpp.read_barcodes(page.render(scale=dpi / 72).to_pil()):
        corners = [
            getattr(barcode.position, f"{up}_{across}") for up in ("top", "bottom") for across in ("left", "right")
        ]
        across, down = [corner.x * 25.4 / dpi for corner in corners], [corner.y * 25.4 / dpi for corner in corners]
        side, foot = (0.5, 0.5) if barcode.format == zxingcpp.BarcodeFormat.DataMatrix else (3.7, 0.2)
        yield min(across) - side, height_mm - max(down) - foot, max(across) + side, height_mm - min(down) + foot


def overlap(one, other) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


# ── layout ───────────────────────────────────────────────────────────────────────────────────


def test_no_two_runs_of_text_overlap_on_any_page(drawn):
    _, document = drawn
    for page in document:
        boxes = text_boxes(page)

        assert [(a, b) for n, a in enumerate(boxes) for b in boxes[n + 1 :] if overlap(a, b)] == []


def test_no_text_stands_in_the_quiet_zone_of_a_barcode(drawn):
    pack, document = drawn
    for page, expected in zip(document, expected_codes(pack), strict=True):
        barcodes = list(barcode_boxes(page, PAGE_MM[expected.kind][1]))

        assert len(barcodes) == len(expected.codes)
        assert [box for box in text_boxes(page) for barcode in barcodes if overlap(box, barcode)] == []


def test_all_text_stays_at_least_a_millimetre_and_a_half_inside_its_page(drawn):
    pack, document = drawn
    for page, expected in zip(document, expected_codes(pack), strict=True):
        width, height = PAGE_MM[expected.kind]

        assert all(
            left >= 1.5 and bottom >= 1.3 and right <= width - 1.5 and top <= height - 1.3
            for left, bottom, right, top in text_boxes(page)
        )


def test_no_text_touches_the_un3373_mark(drawn):
    pack, document = drawn
    page = document[place(pack, PageKind.RETURN)]
    reach = 51 / 2**0.5

    for left, bottom, right, top in text_boxes(page):
        nearest = max(left - 50.8, 50.8 - right, 0) + max(bottom - 68, 68 - top, 0)
        inside = max(abs(x - 50.8) + abs(y - 68) for x in (left, right) for y in (bottom, top))
        assert nearest > reach or inside < reach - 2.2 * 2**0.5


def test_no_text_is_set_smaller_than_seven_points(drawn):
    _, document = drawn
    for page in document:
        words = page.get_textpage()

        sizes = {round(pdfium_c.FPDFText_GetFontSize(words, n), 2) for n in range(words.count_chars())}
        assert min(sizes - {0.0, 1.0}) >= SMALLEST_PT  # 0 and 1: line ends that pdfium puts in


def test_pages_have_their_true_sizes_in_the_order_of_the_pack(drawn):
    pack, document = drawn

    sizes = [tuple(round(side * MM, 1) for side in page.get_size()) for page in document]
    assert sizes == [PAGE_MM[page.kind] for page in expected_codes(pack)]


# ── what the law asks of the return label ────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def return_label() -> Image.Image:
    """Black and white at 600 dpi."""
    return render_page(draw_packs([PACKS["welsh"]]), 2, dpi=600).point([0] * 128 + [255] * 128)


def crop_mm(picture, left, bottom, right, top) -> Image.Image:
    dots = 600 / 25.4
    return picture.crop((int(left * dots), int((152.4 - top) * dots), int(right * dots), int((152.4 - bottom) * dots)))


def black_box_mm(picture) -> tuple[float, float]:
    left, top, right, bottom = picture.point([255] + [0] * 255).getbbox()
    return (right - left) * 25.4 / 600, (bottom - top) * 25.4 / 600


def longest_stem_mm(picture) -> float:
    """The tallest unbroken black run in any column: the stem of an I or an N, so the height of a capital."""
    columns = picture.transpose(Image.Transpose.TRANSPOSE)
    rows = (columns.crop((0, y, columns.width, y + 1)).tobytes() for y in range(columns.height))
    return max(len(run) for row in rows for run in row.replace(b"\xff", b" ").split()) * 25.4 / 600


def test_the_un3373_mark_measures_at_least_fifty_millimetres_a_side(return_label):
    width, height = black_box_mm(crop_mm(return_label, 2, 31.5, 99.6, 104.8))

    assert width / 2**0.5 >= 50
    assert height / 2**0.5 >= 50


def test_the_line_of_the_mark_is_at_least_two_millimetres_thick(return_label):
    row = crop_mm(return_label, 2, 85, 50.8, 85.05)

    width, _ = black_box_mm(row)
    assert width / 2**0.5 >= 2


def test_the_number_and_the_shipping_name_have_capitals_of_at_least_six_millimetres(return_label):
    assert longest_stem_mm(crop_mm(return_label, 30, 60, 72, 76)) >= 6
    assert longest_stem_mm(crop_mm(return_label, 3, 23, 99, 31)) >= 6
    assert longest_stem_mm(crop_mm(return_label, 3, 14.5, 99, 22.8)) >= 6


def test_the_return_label_names_no_patient(drawn):
    pack, document = drawn
    words = document[place(pack, PageKind.RETURN)].get_textpage().get_text_range()

    assert not any(part in words for part in pack.recipient_name.split())
    assert f"{pack.date_of_birth:%d/%m/%Y}" not in words


# ── privacy of the outer label ───────────────────────────────────────────────────────────────


def test_the_outer_label_says_nothing_but_who_it_is_for_where_it_returns_to_and_the_parcel_code(drawn):
    pack, document = drawn
    words = "".join(document[0].get_textpage().get_text_range().split())

    caption = wording(pack.language)["return_to"]
    for known in (pack.recipient_name, *pack.recipient_lines, pack.parcel_code, caption, *pack.sender_lines):
        squeezed = "".join(known.split())
        assert squeezed in words
        words = words.replace(squeezed, "", 1)
    assert words == ""


def test_a_pack_shows_only_its_kit_code_when_printed_by_mistake():
    pack = kit_pack()

    assert repr(pack) == f"KitPack(kit_code='{pack.kit_code}')"


# ── the document ─────────────────────────────────────────────────────────────────────────────


def test_the_same_packs_give_the_same_bytes():
    assert draw_packs(PACKS.values()) == draw_packs(PACKS.values())


def test_every_font_is_embedded(drawn):
    _, document = drawn
    for page in document:
        for run in page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_TEXT]):
            assert pdfium_c.FPDFFont_GetIsEmbedded(pdfium_c.FPDFTextObj_GetFont(run)) == 1


def test_no_page_or_artwork_refers_to_a_font_that_the_printer_would_have_to_know():
    assert b"Helvetica" not in draw_packs(PACKS.values())


def test_the_pen_will_not_write_smaller_than_seven_points():
    with pytest.raises(AssertionError, match="7 pt"):
        Pen().text(10, 10, "too small", 6.9)


def test_welsh_circumflexes_are_drawn_as_letters_and_not_as_empty_boxes():
    document = pdfium.PdfDocument(draw_packs([kit_pack(recipient_name="ŵŷŴŶ")]))

    assert "ŵŷŴŶ" in document[0].get_textpage().get_text_range()
    assert all(width_pt(letter, face, 10) > 0 for letter in "ŵŷŴŶ" for face in Face)


@pytest.mark.parametrize("language", Language)
def test_the_drawn_pack_is_the_one_that_was_looked_at(golden, language):
    pack = kit_pack(7, language=language)
    lines = []
    with pdfium.PdfDocument(draw_packs([pack])) as document:
        for page, expected in zip(document, expected_codes(pack), strict=True):
            words = page.get_textpage()
            lines.append(f"== {expected.kind} {PAGE_MM[expected.kind]} {page_path_count(page)} paths")
            for n in range(words.count_rects()):
                left, bottom, right, top = words.get_rect(n)
                text = words.get_text_bounded(left, bottom, right, top)
                lines.append(f"{left * MM:6.1f} {bottom * MM:6.1f}  {text.strip()}")

    golden(f"labels/pack-{language}.txt", "\n".join(lines) + "\n")


def page_path_count(page) -> int:
    return sum(1 for _ in page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_PATH]))


# ── what has no room, or can't be printed ────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"recipient_lines": tuple(LONG_ADDRESS) * 3}, "no room"),
        ({"recipient_name": "x" * 600}, "no room"),
        ({"return_tracking": "A" * 60}, "no room"),
        ({"recipient_name": "تستينا"}, "can't print"),
        ({"recipient_name": "测试"}, "can't print"),
        ({"recipient_lines": ("1 Example\nStreet",)}, "can't print"),
        ({"return_tracking": "ŴŴ"}, "can't print"),
    ],
)
def test_what_cannot_be_printed_whole_is_refused_by_kit_code_and_never_by_name(changes, why):
    pack = kit_pack(9, **changes)

    with pytest.raises(ServiceError, match=why) as refusal:
        draw_packs([pack])
    assert refusal.value.code is Code.BAD_INPUT
    assert refusal.value.ref == pack.kit_code
    assert not any(str(value) in refusal.value.message for value in changes.values())


def test_a_decomposed_letter_is_printed_as_the_composed_one():
    assert printable("W\u0302yn") == "Ŵyn"


@pytest.mark.parametrize("text", ["שלום", "x\u0301\u0302\u0303", "a\u200bb", "\t", "字"])
def test_a_character_that_would_come_out_wrong_is_never_printed(text):
    with pytest.raises(CannotPrint):
        printable(text)


@given(st.text("abcW -ŵ", min_size=1, max_size=80), st.integers(20, 200))
def test_wrapping_loses_no_letter_and_no_line_is_wider_than_its_room(text, room):
    lines = wrap(text, Face.BOLD, 10, room)

    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(width_pt(line, Face.BOLD, 10) <= room for line in lines)


# ── words ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("language", Language)
def test_every_specimen_and_every_infection_has_a_phrase_in_every_language(language):
    words = wording(language)

    assert set(words["specimens"]) == {specimen.value for specimen in Specimen}
    assert set(words["infections"]) == {test.value for test in Test}
    assert words.keys() == wording(Language.ENGLISH).keys()
