"""A shift in a real browser: signed in, by keyboard, without JavaScript, on a desk and on a phone.

Needs Chromium (Debian: apt-get install chromium); left out, loudly, where there is none. Set SCREENSHOTS to
a folder to keep what the pages looked like.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from sqlmodel import select

from models.actions.owed import OwedCase, owe_cases
from models.rules.clinic import CaseKind
from models.rules.vocabulary import Outcome, Site, Test
from models.tables.clinic import ClinicCase
from tests.support import build

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="BROWSER TESTS LEFT OUT: no Chromium here (apt-get install chromium)"),
]

QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESK = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}

HIV, SYPHILIS = (Test.HIV, Site.BLOOD), (Test.SYPHILIS, Site.BLOOD)
CHLAMYDIA, GONORRHOEA = (Test.CHLAMYDIA, Site.VAGINAL), (Test.GONORRHOEA, Site.VAGINAL)
ALL_NEGATIVE = dict.fromkeys([HIV, SYPHILIS, CHLAMYDIA, GONORRHOEA], Outcome.NEGATIVE)
REACTIVE = ALL_NEGATIVE | {HIV: Outcome.REACTIVE, CHLAMYDIA: Outcome.POSITIVE}

FOCUS_SHOWS = """() => [
    getComputedStyle(document.activeElement),
    document.activeElement.labels?.[0] && getComputedStyle(document.activeElement.labels[0], '::before'),  // drawn
].some(style => style && (style.boxShadow != 'none' || style.outlineStyle != 'none' && style.outlineWidth != '0px'))"""
CLIPPED = """() => [...document.querySelectorAll('main *')]
    .filter(e => e.getBoundingClientRect().width && e.getBoundingClientRect().right > innerWidth + 1)
    .map(e => e.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for one file: while it is open, nothing else in this process may run an event loop."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, site) -> Iterator[Callable[..., Page]]:
    """Opens the site in a fresh browser profile. JavaScript is off unless a test needs it to measure."""
    contexts = []

    def open_page(*, viewport=DESK, java_script=False) -> Page:
        context = chromium.new_context(base_url=site.url, viewport=viewport, java_script_enabled=java_script)
        context.set_default_timeout(20_000)
        contexts.append(context)
        return context.new_page()

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def shift(site) -> str:
    """A worklist worth working on. Returns the path of the reactive case, which is overdue."""
    with site.home.begin() as session:
        kit = build.dispatched_kit(session, at=build.NOW - timedelta(days=6))
        build.results(session, kit, REACTIVE, at=build.NOW - timedelta(days=4))
        ref = session.exec(select(ClinicCase.ref)).one()
        for outcomes in (
            ALL_NEGATIVE | {CHLAMYDIA: Outcome.POSITIVE},
            ALL_NEGATIVE | {HIV: Outcome.INSUFFICIENT, SYPHILIS: Outcome.INSUFFICIENT},
            ALL_NEGATIVE | {GONORRHOEA: Outcome.EQUIVOCAL},
        ):
            build.results(session, build.dispatched_kit(session), outcomes)
        build.results(
            session, build.dispatched_kit(session), ALL_NEGATIVE, comments={SYPHILIS: "Lipaemic specimen, see notes"}
        )
        late = build.dispatched_kit(session)
        owe_cases(
            session,
            [
                OwedCase("test:parcel", CaseKind.PARCEL, kit_id=late.id),
                OwedCase("test:lab", CaseKind.RESULTS_OVERDUE, kit_id=late.id),
            ],
            service=build.service(),
            now=build.NOW,
            actor=build.ACTOR,
        )
    return f"/cases/{ref}"


def sign_in(page: Page, name: str = "Anna Adviser") -> None:
    page.goto("/sign-in")
    page.get_by_role("link", name="Sign in with your work account").click()
    page.get_by_role("button", name=name).click()
    page.wait_for_url(re.compile("/(worklist|counter|kits)$"))


def press(button: Locator) -> None:
    """Presses what leads to another page, and waits until that one is whole: `click` may return in between."""
    with button.page.expect_navigation():
        button.click()


def keep(page: Page, name: str) -> None:
    """Keeps a picture, where somebody wants one."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_an_adviser_signs_in_records_an_attempt_and_can_not_close_a_reactive(visit, shift):
    page = visit()
    sign_in(page)
    keep(page, "worklist-desk")
    page.get_by_role("link", name="Reactive blood test", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Reactive blood test")
    keep(page, "case-desk")

    page.get_by_label("Rang, no answer").check()
    page.get_by_role("textbox", name="Note").fill("Rang at noon.")
    page.get_by_role("button", name="Record", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("Recorded: Rang, no answer.")

    page.get_by_label("Confirmed negative by a sample from the arm").check()
    page.get_by_role("button", name="End the case").click()

    expect(page.get_by_role("alert")).to_contain_text("This case stays open until a confirmatory outcome or refusal")
    keep(page, "case-refused-desk")


def test_a_reactive_goes_from_the_worklist_to_its_confirmed_end(visit, shift):
    page = visit()
    sign_in(page)
    page.goto(shift)
    page.get_by_role("button", name="Take this case").click()
    page.get_by_role("button", name="Show who this is and how to reach them").click()
    expect(page.get_by_role("region", name="The person", exact=True)).to_contain_text("Testina Kit")
    keep(page, "case-person-desk")
    page.get_by_label("Spoke to the person").check()
    page.get_by_label("They said their full name").check()
    page.get_by_label("They said their date of birth").check()
    page.get_by_role("button", name="Record", exact=True).click()
    page.get_by_label("Confirmed negative", exact=True).check()
    page.get_by_role("button", name="Record for HIV").click()
    page.get_by_role("radio", name="Treated", exact=True).check()
    page.get_by_label("On which day").fill("2026-11-24")
    page.get_by_label("How treated").select_option("In a clinic")
    page.get_by_role("button", name="End the case").click()

    expect(page.get_by_role("status")).to_contain_text("The case is closed: Treated.")
    expect(page.get_by_role("link", name="Reactive blood test", exact=True)).to_have_count(0)
    keep(page, "worklist-after-desk")


def test_a_clinician_releases_after_reading_the_comment(visit, shift):
    page = visit()
    sign_in(page, "Dora Doctor")
    page.get_by_role("link", name="Result to review", exact=True).click()
    keep(page, "case-comment-desk")

    page.get_by_role("button", name="I have read the comment and it changes nothing").click()

    expect(page.get_by_role("status")).to_contain_text("the case is closed")
    page.get_by_role("link", name="Timeline of the kit").click()
    expect(page.get_by_role("region", name="Texts")).to_contain_text("All clear")
    keep(page, "timeline-desk")


def test_everything_can_be_done_by_keyboard_alone_and_focus_is_always_seen(visit, shift):
    page = visit(java_script=True)
    sign_in(page)
    page.goto(shift)

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the main content")).to_be_focused()
    page.keyboard.press("Enter")
    radio, note = page.get_by_label("Rang, no answer"), page.get_by_role("textbox", name="Note")
    for _ in range(40):
        page.keyboard.press("Tab")
        assert page.evaluate(FOCUS_SHOWS), page.evaluate("document.activeElement.outerHTML")
        if page.evaluate("document.activeElement.name") == "result":
            break
    page.keyboard.press("ArrowDown")
    expect(radio).to_be_checked()
    for _ in range(4):
        page.keyboard.press("Tab")
    expect(note).to_be_focused()
    page.keyboard.type("By keyboard")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    expect(page.get_by_role("status")).to_contain_text("Recorded: Rang, no answer.")


@pytest.mark.proof
@pytest.mark.parametrize(
    ("viewport", "name"), [(PHONE, "phone"), ({"width": 320, "height": 640}, "zoom-400"), (DESK, "desk")]
)
def test_no_page_is_wider_than_its_window(visit, shift, viewport, name):
    page = visit(viewport=viewport, java_script=True)
    page.goto("/sign-in")
    keep(page, f"sign-in-{name}")
    sign_in(page, "Sian Senior")
    for where, what in (("/worklist", "worklist"), ("/worklist?kind=positive", "filtered"), (shift, "case")):
        page.goto(where)
        keep(page, f"{what}-{name}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page.evaluate(CLIPPED)
    press(page.get_by_role("link", name="Timeline of the kit"))
    keep(page, f"timeline-{name}")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page.evaluate(CLIPPED)


def test_every_field_has_a_name_and_every_id_is_one(visit, shift):
    page = visit(java_script=True)
    sign_in(page)
    for where in ("/worklist", shift):
        page.goto(where)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('input:not([type=hidden]), textarea, button, a')]
                .filter(e => !(e.labels?.length || e.textContent.trim())).map(e => e.outerHTML)"""
        )
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        headings = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(e => +e.tagName[1])")
        assert nameless == []
        assert len(ids) == len(set(ids))
        assert headings.count(1) == 1
        assert all(later - earlier <= 1 for earlier, later in zip([0, *headings], headings, strict=False))


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio of two CSS rgb() colours."""

    def luminance(colour: str) -> float:
        shares = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def test_every_word_stands_out_from_its_ground(visit, shift):
    page = visit(java_script=True)
    sign_in(page)
    for where in ("/worklist", shift):
        page.goto(where)
        found = page.evaluate(
            """() => {
                const ground = e => {
                    for (; e; e = e.parentElement) {
                        const c = getComputedStyle(e).backgroundColor;
                        if (c !== 'rgba(0, 0, 0, 0)') return c;
                    }
                    return 'rgb(255, 255, 255)';
                };
                return [...document.querySelectorAll('body *')]
                    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
                    .map(e => [getComputedStyle(e).color, ground(e), e.outerHTML.slice(0, 90)]);
            }"""
        )
        assert found
        assert not [(round(ratio, 2), what) for ink, paper, what in found if (ratio := contrast(ink, paper)) < 4.5]
