"""The manager's board in a real browser: on a desk and on a phone, and by axe's rules."""

from datetime import timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.support import build
from tests.web.test_board import busy
from tests.web.test_browser import CLIPPED, DESK, PHONE, chromium, keep, pytestmark, sign_in, visit

__all__ = ["chromium", "pytestmark", "visit"]


@pytest.mark.proof
@pytest.mark.parametrize(("viewport", "name"), [(PHONE, "phone"), (DESK, "desk")])
def test_the_board_fits_its_window_and_breaks_no_rule_of_axe(site, visit, viewport, name):
    busy(site.home.begin)
    site.home.hands["now"] = build.NOW + timedelta(days=60)
    page = visit(viewport=viewport, java_script=True)
    sign_in(page, "Mina Manager")
    page.goto("/board")
    keep(page, f"board-{name}")

    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page.evaluate(CLIPPED)
    found = Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"][:120] for node in each["nodes"]]) for each in found] == []
