"""The lab desk in a real browser: without JavaScript, by keyboard, on a desk and on a phone, and by axe's rules."""

from datetime import UTC, datetime, timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe

from app.lab_messages import MllpDesk
from models.rules.kit import ALPHABET
from tests.support.ingesting import READ_AT, ask, ingest, services, take
from tests.support.lab_files import hl7
from tests.support.many_kits import send_kits
from tests.support.memory_store import MemoryStore
from tests.web.test_browser import CLIPPED, DESK, chromium, keep, press, pytestmark, sign_in, visit

__all__ = ["chromium", "pytestmark", "visit"]


@pytest.fixture
def desk(site) -> str:
    """A desk with everything on it. Returns the path of a row with a wrong kit id."""
    store = MemoryStore()
    site.home.hands["now"] = READ_AT
    vars(site.home).update(store=store, services=services(site.home.begin))
    with site.home.begin() as session:
        kits = send_kits(session, 4)
    chlamydia, *others = kits[0].rows()
    wrong = kits[0].code[:-1] + next(c for c in ALPHABET if c != kits[0].code[-1])
    odd = [kits[1].rows()[0]._replace(value="Not detekted"), kits[2].rows()[0]]
    take(site.home.begin, hl7([chlamydia._replace(kit=wrong, tube=""), *others, *odd]), store=store)
    store.modified[store.put("northlab/incoming/Results of the 3rd.hl7", b"x")] = datetime.now(UTC) - timedelta(days=2)
    take(site.home.begin, hl7(kits[3].rows())[:-20], store=store)
    renamed = hl7(kits[3].rows(application="WINLIMS2"))
    MllpDesk(ingest(site.home.begin, store)).take("NORTHLAB", renamed[renamed.index(b"MSH") : renamed.index(b"BTS")])
    with site.db.owner_engine.begin() as owner:
        owner.exec_driver_sql("UPDATE kit SET received_at = received_at - interval '9 days' WHERE state = 'at_lab'")
    ((ref,),) = ask(site.home.begin, "SELECT ref FROM quarantined_row WHERE reason = 'bad_kit_id'")
    return f"/labs/rows/{ref}"


@pytest.mark.proof
@pytest.mark.parametrize(("viewport", "name"), [({"width": 320, "height": 640}, "phone"), (DESK, "desk")])
def test_no_page_of_the_lab_desk_is_wider_than_its_window_or_breaks_a_rule_of_axe(visit, desk, viewport, name):
    page = visit(viewport=viewport, java_script=True)
    sign_in(page, "Dora Doctor")
    axe = Axe()
    for where, what in (("/labs", "labs"), (desk, "lab-row")):
        page.goto(where)
        keep(page, f"{what}-{name}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page.evaluate(CLIPPED)
    press(page.get_by_role("button", name="Show the row beside our reading of it"))
    keep(page, f"lab-row-shown-{name}")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page.evaluate(CLIPPED)
    if name != "desk":
        return
    for where in ("/labs", desk):
        page.goto(where)
        found = axe.run(page).response["violations"]
        assert [(each["id"], [node["html"][:120] for node in each["nodes"]]) for each in found] == []


def test_the_lab_desk_works_by_keyboard_and_without_java_script(visit, desk):
    page = visit()
    sign_in(page, "Lara Lab")
    page.get_by_role("link", name="Laboratories").press("Enter")
    page.get_by_role("link", name=": bad kit id").press("Enter")
    page.get_by_role("button", name="Send it back to NORTHLAB").press("Enter")

    assert "is on the list for NORTHLAB" in page.get_by_role("status").inner_text()
