"""What pages are made of: NHS.UK frontend as it was published, served by us alone, kept by browsers for ever."""

import re
from importlib.metadata import metadata
from pathlib import Path

import pytest

from app.web.pages import STATIC, static_address

TEMPLATES = Path(__file__).parents[2] / "templates" / "pages"

SHEET = STATIC / "nhsuk-frontend.css"


def test_the_style_sheet_is_of_the_release_that_the_components_were_written_for():
    port = metadata("nhsuk-frontend-jinja")
    releases = dict(re.findall(r"^\| (\d[\d.]+) \| (\d[\d.]+) \|$", str(port.get_payload()), re.MULTILINE))
    [built] = re.findall(r"^/\*! NHS\.UK frontend ([\d.]+),", SHEET.read_text(encoding="utf-8"))
    assert releases[built] == port["Version"]


def test_no_sheet_fetches_a_font_or_anything_else_from_anywhere():
    for sheet in STATIC.glob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert "@font-face" not in text
        assert "@import" not in text
        assert "//" not in "".join(re.findall(r"url\(([^)]*)\)", text))


def test_every_class_that_a_template_writes_is_styled():
    """Of all its states, also those that no test draws. What is put together (series-0) is seen on the pages."""
    styled = {name for sheet in STATIC.glob("*.css") for name in re.findall(r"\.([a-zA-Z][\w-]*)", sheet.read_text())}
    for template in TEMPLATES.glob("*.html"):
        written = re.findall(r'class="((?:\{[{%].*?[%}]\}|[^"])*)"', template.read_text(encoding="utf-8"))
        names = {name for each in written for name in re.sub(r"\{[{%].*?[%}]\}", "", each).split()}
        assert {name for name in names if not name.endswith("-")} <= styled, template.name


@pytest.mark.parametrize("name", [path.name for path in sorted(STATIC.iterdir())])
def test_a_file_is_kept_for_ever_at_the_address_of_its_content_and_nowhere_else(site, name):
    browser = site.browser()
    now = browser.get(static_address(name))
    assert now.content == (STATIC / name).read_bytes()
    assert now.headers["cache-control"] == "public, max-age=31536000, immutable"
    for other in (f"/static/{name}", f"/static/{name}?v=000000000000", static_address(name) + "&v=1"):
        assert browser.get(other).headers["cache-control"] == "no-store"


def test_a_large_file_travels_small_and_one_that_is_not_there_is_not_found(site):
    browser = site.browser()
    sheet = browser.get(static_address(SHEET.name))
    assert sheet.headers["content-encoding"] == "gzip"
    missing = browser.get("/static/missing.css")
    assert missing.status_code == 404
    assert missing.headers["cache-control"] == "no-store"
