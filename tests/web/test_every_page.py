"""Every page there is, found from the routes: what its answer says to a browser, and what a reader finds in it.

A new page without a row in PAGES fails here. WCAG 2.2 AA as far as axe can tell, on a phone, on a desk, and at twice
the size; no page is wider than its window; nothing is kept, nothing runs but what we serve, every form is ours.
"""

import re
from dataclasses import replace
from datetime import timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from sqlmodel import select

from app.web.pages import STATIC
from models.rules.service import CollectionPolicy
from models.rules.vocabulary import Outcome
from models.tables.clinic import ClinicCase
from models.tables.kit import Kit
from tests.support import build
from tests.support.texts import owed_journey_text
from tests.web.test_access import ALLOWED
from tests.web.test_browser import (
    ALL_NEGATIVE,
    CHLAMYDIA,
    CLIPPED,
    DESK,
    PHONE,
    REACTIVE,
    chromium,
    keep,
    press,
    pytestmark,
    shift,
    sign_in,
    visit,
)
from tests.web.test_counter import MARKET, parcel_for_a_counter
from tests.web.test_lab_browser import desk
from tests.web.test_referrals import HARBOUR, refer

__all__ = ["chromium", "desk", "pytestmark", "shift", "visit"]

PAGES = {
    "/worklist": "senior",
    "/cases/{ref}": "senior",
    "/kits": "auditor",
    "/kits/{code}": "senior",
    "/messages": "senior",
    "/messages/{ref}": "senior",
    "/board": "manager",
    "/sending": "manager",
    "/logistics": "packer",
    "/packing": "packer",
    "/counter": "counter",
    "/labs": "clinician",
    "/labs/rows/{ref}": "clinician",
}
"""Each page of the staff, and who looks at it here."""

NOT_PAGES = {
    "/packing/waiting": "what a bench's script asks for",
    "/labs/lists/{lab}": "a list to download",
    "/logistics/batches/{ref}/picture": "a picture",
}

OPEN_PAGES = ("/sign-in", "/signed-out")

POSITIVE = ALL_NEGATIVE | {CHLAMYDIA: Outcome.POSITIVE}

NOT_STYLED = {"nhsuk-header__navigation-item--current"}
"""Classes that a component writes and that change nothing."""

NAMES = {
    "senior": "Sian Senior",
    "manager": "Mina Manager",
    "packer": "Paul Packer",
    "counter": "Cora Counter",
    "clinician": "Dora Doctor",
    "auditor": "Otto Auditor",
}
TWICE_THE_SIZE = {"width": 640, "height": 450}
"""A desk's window at 200 %."""


@pytest.fixture
def council(site):
    """A council with one counter, where two parcels wait, and a clinic that cases are handed over to."""
    in_force = site.home.services["larkfield"]
    council = replace(in_force.service, collection=CollectionPolicy(points=(MARKET,)), clinics=(HARBOUR,))
    site.home.services["larkfield"] = replace(in_force, service=council)
    for _ in range(2):
        _, parcel = parcel_for_a_counter(site, council)
        site.signed_in("demo-counter").send("/counter", "/counter/arrived", parcel=parcel)


@pytest.fixture
def addresses(site, council, shift, desk):
    """The address of each page, with something on it."""
    refer(site, shift, by="demo-senior")
    with site.home.begin() as session:
        message = owed_journey_text(session).ref
        code = session.exec(select(Kit.code).order_by(Kit.id)).first()
    filled = {
        "/cases/{ref}": shift,
        "/kits/{code}": f"/kits/{code}",
        "/messages/{ref}": f"/messages/{message}",
        "/labs/rows/{ref}": desk,
    }
    return {page: filled.get(page, page) for page in PAGES}


def test_every_page_has_a_row_here():
    pages = {path for method, path in ALLOWED if method == "GET"}
    assert pages == PAGES.keys() | NOT_PAGES.keys()


def test_no_page_is_kept_runs_anothers_script_or_has_a_form_that_is_not_ours(site, addresses):
    looking = {who: site.signed_in(f"demo-{who}") for who in NAMES}
    answers = {page: looking[who].get(addresses[page]) for page, who in PAGES.items()}
    answers |= {page: site.browser().get(page) for page in OPEN_PAGES}
    for page, answer in answers.items():
        assert (page, answer.status_code) == (page, 200)
        policy = answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store", page
        assert policy.startswith("default-src 'none'; style-src 'self'; img-src 'self'; "), page
        assert "unsafe" not in policy, page
        assert not re.search(r"<script(?![^>]*\ssrc=\"/static/)|\sstyle=|\son[a-z]+=|javascript:", answer.text), page
        for form in re.findall(r"<form\b.*?</form>", answer.text, re.DOTALL):
            changes = 'method="post"' in form
            assert not changes or re.search(r'name="csrf" value="[^"]+"', form), (page, form[:120])
        [title] = re.findall(r"<title>(.*?)</title>", answer.text)
        assert re.fullmatch(r"[A-Za-z ,:–-]+", title), (page, title)  # no code, no name's number, no date


def test_every_class_on_a_page_is_styled_by_us_or_by_nhsuk_frontend(site, addresses):
    """What `make styles` does not build, or what a new release calls otherwise, is seen here and not on a page."""
    looking = {who: site.signed_in(f"demo-{who}") for who in NAMES}
    answers = [looking[who].get(addresses[page]) for page, who in PAGES.items()]
    answers += [site.browser().get(page) for page in OPEN_PAGES]
    used = {name for answer in answers for each in re.findall(r'class="([^"]*)"', answer.text) for name in each.split()}
    styled = {name for sheet in STATIC.glob("*.css") for name in re.findall(r"\.([a-zA-Z][\w-]*)", sheet.read_text())}
    assert used - styled <= NOT_STYLED


@pytest.mark.proof
@pytest.mark.parametrize(
    ("viewport", "name"), [(PHONE, "phone"), (DESK, "desk"), (TWICE_THE_SIZE, "twice")], ids=["phone", "desk", "twice"]
)
def test_no_page_breaks_a_rule_of_axe_or_is_wider_than_its_window(site, visit, addresses, viewport, name):
    axe = Axe()
    found = {}
    for who, person in NAMES.items():
        page = visit(viewport=viewport, java_script=True)
        sign_in(page, person)
        for path in [path for path, looker in PAGES.items() if looker == who]:
            page.goto(addresses[path])
            keep(page, f"every-{path.strip('/').split('/')[0]}-{name}")
            if not page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
                found[path, "wide"] = page.evaluate(CLIPPED)
            for each in axe.run(page).response["violations"]:
                found[path, each["id"]] = [node["html"][:120] for node in each["nodes"]]
    page = visit(viewport=viewport, java_script=True)
    for path in OPEN_PAGES:
        page.goto(path)
        for each in axe.run(page).response["violations"]:
            found[path, each["id"]] = [node["html"][:120] for node in each["nodes"]]
    assert found == {}


@pytest.mark.proof
def test_no_state_of_a_case_breaks_a_rule_of_axe(site, visit):
    """What a page shows only now and then: a refusal, a person, notes, what changed, a seal, an end, a fault."""
    with site.home.begin() as session:
        refs = {}
        for name, outcomes in (("reactive", REACTIVE), ("positive", POSITIVE), ("changed", ALL_NEGATIVE)):
            kit = build.dispatched_kit(session)
            build.results(session, kit, outcomes)
            refs[name] = kit
    with site.home.begin() as session:
        build.results(session, session.merge(refs["changed"]), POSITIVE, at=build.NOW + timedelta(hours=1))
        path = {
            name: f"/cases/{session.exec(select(ClinicCase.ref).where(ClinicCase.kit_id == kit.id)).one()}"
            for name, kit in refs.items()
        }
    senior = visit(java_script=True)
    sign_in(senior, "Sian Senior")
    axe, found = Axe(), {}

    def look(state):
        for each in axe.run(senior).response["violations"]:
            found[state, each["id"]] = [node["html"][:120] for node in each["nodes"]]

    senior.goto(path["reactive"])
    press(senior.get_by_role("button", name="Show who this is"))
    look("a person")
    senior.get_by_role("radio", name="Told and booked into a clinic").check()
    press(senior.get_by_role("button", name="End the case"))
    look("a refusal")
    senior.get_by_text("Note a safeguarding concern").click()
    senior.get_by_label("What you learnt about their safety").fill("Afraid of somebody at home")
    press(senior.get_by_role("button", name="Note it"))
    look("said")
    senior.goto(path["positive"])
    for summary in senior.locator("summary").all():
        summary.click()
    look("every form open")
    senior.goto(path["changed"])
    look("what changed")
    press(senior.get_by_role("button", name="Seal this record"))
    senior.goto(path["changed"])
    look("sealed")
    senior.goto("/kits/7K3F9XN2PP")
    look("a fault")
    assert found == {}
