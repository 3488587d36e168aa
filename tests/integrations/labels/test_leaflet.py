"""The leaflet in the box: every sample has its pictures and steps, in both languages and both sizes (FEATURES 92)."""

import tomllib
from io import BytesIO
from pathlib import Path
from random import Random

import pypdfium2 as pdfium
import pytest
from reportlab.pdfgen.canvas import Canvas

from integrations.labels import leaflet
from integrations.labels.draw import draw_packs
from integrations.labels.leaflet import IN_THIS_ORDER, draw_leaflet
from integrations.labels.paper import CannotPrint
from integrations.labels.pictures import PICTURES
from models.rules.vocabulary import Language, Specimen
from tests.support import layout
from tests.support.kit_packs import random_pack

CALL = {"phone": "020 7946 0321", "phone_hours": "Mon-Fri 9am-5pm"}
WORDS = tomllib.loads((Path(leaflet.__file__).parents[2] / "templates/labels/leaflet.toml").read_text("utf-8"))
# What a person may not have, and a leaflet on a kitchen table should not say.
REVEALING = ("chlamydia", "gonorrh", "syphilis", "hiv", "hepatitis", "infection", "sexual", "positive", "haint")


def words_of(pdf):
    with pdfium.PdfDocument(pdf) as document:
        return [" ".join(page.get_textpage().get_text_range().split()) for page in document]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize("specimens", [tuple(Specimen), *((each,) for each in Specimen)], ids="+".join)
def test_every_leaflet_holds_each_step_and_nothing_stands_outside_over_another_or_too_small(specimens, language, large):
    pdf = draw_leaflet(specimens, language, large=large, **CALL)

    said = " ".join(words_of(pdf))
    for specimen in specimens:
        for step in (*WORDS[language][specimen]["steps"], WORDS[language][specimen]["care"]):
            assert step in said
    for step in WORDS[language]["before"] + WORDS[language]["after"]:
        assert step in said
    assert layout.faults(pdf) == []


def test_a_leaflet_tells_only_of_the_samples_in_its_box():
    said = " ".join(words_of(draw_leaflet([Specimen.CAPILLARY_BLOOD], Language.ENGLISH, **CALL)))

    assert "fingertip" in said
    assert not any(WORDS["en"][other]["title"] in said for other in Specimen if other != Specimen.CAPILLARY_BLOOD)


@pytest.mark.parametrize("language", Language)
def test_every_page_says_whom_to_call_and_which_of_how_many_it_is(language):
    pages = words_of(draw_leaflet(tuple(Specimen), language, large=True, **CALL))

    for number, said in enumerate(pages, 1):
        assert CALL["phone"] in said
        assert WORDS[language]["page"].format(number=number, of=len(pages)) in said


def test_large_print_is_larger_than_sixteen_points_in_every_step():
    with pdfium.PdfDocument(draw_leaflet(tuple(Specimen), Language.ENGLISH, large=True, **CALL)) as document:
        sizes = [size for page in document for _, size in layout.text_boxes(page)]

    assert min(sizes) >= 10  # the depth beside a picture
    assert sum(size >= 16 for size in sizes) / len(sizes) > 0.95


@pytest.mark.parametrize("language", Language)
def test_a_leaflet_on_a_table_reveals_no_infection(language):
    said = " ".join(words_of(draw_leaflet(tuple(Specimen), language, **CALL))).lower()

    assert [word for word in REVEALING if word in said] == []


def test_the_same_leaflet_has_the_same_bytes_and_no_title_of_its_own():
    one, other = (draw_leaflet(tuple(Specimen), Language.WELSH, **CALL) for _ in range(2))

    assert one == other


def test_every_sample_has_three_pictures_and_a_place_in_the_order():
    assert set(PICTURES) == set(IN_THIS_ORDER) == set(Specimen)
    for language in Language:
        for specimen in Specimen:
            assert len(WORDS[language][specimen]["pictures"]) == len(PICTURES[specimen]) == 3


@pytest.mark.parametrize("specimen", Specimen)
def test_every_picture_stays_within_its_square(specimen):
    for draw in PICTURES[specimen]:
        file = BytesIO()
        canvas = Canvas(file, pagesize=(300, 300))
        canvas.translate(100, 100)
        draw(canvas)
        canvas.save()
        with pdfium.PdfDocument(file.getvalue()) as document:
            picture = document[0].render(scale=1, grayscale=True).to_pil()
        left, top, right, bottom = picture.point(lambda grey: 255 if grey < 200 else 0).getbbox()
        assert min(left, top) >= 97
        assert max(right, bottom) <= 203


def test_a_phone_number_that_the_font_can_not_print_is_refused():
    with pytest.raises(CannotPrint):
        draw_leaflet([Specimen.CAPILLARY_BLOOD], Language.ENGLISH, phone="\u05d0", phone_hours="9-5")


def test_on_the_pages_of_kit_packs_nothing_stands_outside_over_another_or_too_small():
    chance = Random(11)

    assert layout.faults(draw_packs([random_pack(chance) for _ in range(25)])) == []


def test_the_layout_check_sees_what_is_wrong():
    file = BytesIO()
    canvas = Canvas(file, pagesize=(200, 100))
    canvas.setFont("Helvetica", 12)
    canvas.drawString(10, 50, "one over")
    canvas.drawString(14, 54, "another")
    canvas.drawString(180, 80, "out of the page")
    canvas.setFont("Helvetica", 5)
    canvas.drawString(10, 10, "small")
    canvas.save()

    found = " ".join(layout.faults(file.getvalue()))

    assert "over Box" in found
    assert "outside" in found
    assert "5.0 pt" in found
