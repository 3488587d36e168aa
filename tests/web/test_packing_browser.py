"""The packing bench in a real browser, with a scanner that types: offline and back, two benches, wrong pieces."""

import random
import re
from dataclasses import replace
from datetime import timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from sqlmodel import select

from models.actions.kit import cancel_kit
from models.rules.kit import ALPHABET, KitState, new_kit_code, new_parcel_code
from models.rules.parcel import Bench, judge_scan, read_label
from models.rules.service import ServiceInForce
from models.rules.stock import Recipe, StockPolicy
from models.tables.bench import BenchScan
from models.tables.kit import Kit, KitSample
from models.tables.parcel import Direction, Parcel
from tests.support import build, s10
from tests.web.test_browser import CLIPPED, DESK, PHONE, chromium, keep, press, pytestmark, sign_in, visit

__all__ = ["chromium", "pytestmark", "visit"]

numbers = s10.numbers()


@pytest.fixture
def kits(site):
    """The codes of four printed kits: form, tubes, return label, outer label."""
    with site.home.begin() as session:
        return [codes_of(session, build.printed_kit(session)) for _ in range(4)]


def codes_of(session, kit) -> list[str]:
    tubes = session.exec(select(KitSample.tube_code).where(KitSample.kit_id == kit.id)).all()
    outer = session.exec(select(Parcel.code).where(Parcel.kit_id == kit.id, Parcel.direction == Direction.OUT)).one()
    return [kit.code, *sorted(tubes), next(numbers), outer]


LISTEN = """() => {
    window.heard = [];
    const start = OscillatorNode.prototype.start;
    OscillatorNode.prototype.start = function (when) {
        window.heard.push(this.frequency.value);
        return start.call(this, when);
    };
}"""
"""Keeps the pitch of every note that the page plays."""


def at_bench(visit, name="1", *, viewport=DESK, java_script=True):
    page = visit(viewport=viewport, java_script=java_script)
    sign_in(page, "Paul Packer")
    page.goto("/packing")
    page.get_by_label("Bench").fill(name)
    page.get_by_role("button", name="Start packing").click()
    if java_script:
        page.wait_for_selector("#bench[data-ready=yes]")
    return page


def wedge(page, *codes):
    """A scanner is a keyboard that types fast and ends with Enter; nobody clicks anywhere."""
    for code in codes:
        page.keyboard.type(code)
        page.keyboard.press("Enter")


def verdict(page, tone):
    expect(page.locator("#verdict")).to_have_class(f"verdict {tone}")
    return page.locator("#verdict .words").inner_text()


def states(site):
    with site.home.begin() as session:
        return sorted(session.exec(select(Kit.state)).all())


def kept(page):
    expect(page.locator("#line")).to_have_text("On line. Every scan is kept.")


def test_a_kit_is_packed_with_a_scanner_alone(site, visit, kits):
    page = at_bench(visit)
    keep(page, "packing-ready")

    wedge(page, *kits[0][:-1])
    verdict(page, "fine")
    keep(page, "packing-fine")
    wedge(page, kits[0][-1])

    assert "whole and dispatched" in verdict(page, "done")
    keep(page, "packing-done")
    kept(page)
    assert states(site).count(KitState.DISPATCHED) == 1


@pytest.mark.proof
def test_a_wrong_tube_stops_the_bench_in_colour_and_words_and_nothing_leaves(site, visit, kits):
    page = at_bench(visit)

    wedge(page, kits[0][0], kits[1][1])
    told = verdict(page, "stop")
    keep(page, "packing-stop")
    wedge(page, *kits[0][1:])

    assert "does NOT belong" in told
    assert "blocked" in verdict(page, "stop")
    kept(page)
    assert states(site) == [KitState.PRINTED] * 4


def test_a_bench_that_loses_its_line_packs_on_and_hands_everything_over_in_order(site, visit, kits):
    page = at_bench(visit)
    page.context.set_offline(True)

    wedge(page, *kits[0], *kits[0], *kits[1])
    expect(page.locator("#line")).to_contain_text("15 scans wait in this browser")
    verdict(page, "done")
    keep(page, "packing-offline")
    assert states(site) == [KitState.PRINTED] * 4
    wedge(page, kits[2][0], kits[3][1])  # a wrong tube is a wrong tube without a line too
    assert "does NOT belong" in verdict(page, "stop")
    page.context.set_offline(False)

    kept(page)
    assert states(site).count(KitState.DISPATCHED) == 2
    with site.home.begin() as session:
        scans = session.exec(select(BenchScan).order_by(BenchScan.id)).all()
    assert [each.code for each in scans] == [*kits[0], *kits[0], *kits[1], kits[2][0], kits[3][1]]
    expect(page.locator("#alarms")).to_be_hidden()


@pytest.mark.parametrize("java_script", [True, False], ids=["with a script", "without"])
def test_the_bench_says_which_leaflet_belongs_in_the_box(site, visit, kits, java_script):
    with site.db.owner_engine.begin() as owner:
        owner.exec_driver_sql(
            "UPDATE contact SET language = 'cy', large_print = true FROM kit WHERE kit.contact_id = contact.id"
            " AND kit.code = %s",
            (kits[0][0],),
        )
    page = at_bench(visit, java_script=java_script)

    for code, words in ((kits[0][0], "Welsh, LARGE PRINT"), (kits[1][0], "English")):
        page.locator("#code").fill(code)
        page.get_by_role("button", name="Take").click()
        expect(page.locator("#leaflet")).to_have_text(words)


@pytest.mark.proof
def test_a_scan_is_heard_a_low_note_for_stop_and_two_rising_ones_for_a_parcel_that_is_whole(visit, kits):
    page = at_bench(visit)
    page.evaluate(LISTEN)

    wedge(page, "no code of ours")
    verdict(page, "stop")
    wedge(page, *kits[0])
    verdict(page, "done")

    notes = page.evaluate("window.heard")
    assert notes[:2] == [180, 180]
    assert notes[-2:] == [660, 990]
    assert set(notes[2:-2]) == {880}, "one high note a piece that belongs"


@pytest.mark.proof
def test_after_an_hour_without_a_line_the_sign_in_has_ended_and_no_scan_is_lost(site, visit, kits):
    page = at_bench(visit)
    page.clock.install()
    page.context.set_offline(True)
    wedge(page, *kits[0])
    verdict(page, "done")
    page.clock.fast_forward("01:00:00")
    page.context.clear_cookies()  # as a session ends that no page was asked for in half an hour
    wedge(page, *kits[1])
    page.context.set_offline(False)

    expect(page.locator("#signed-out")).to_be_visible()
    expect(page.locator("#line")).to_have_text("Signed out. 10 scans wait in this browser: sign in again.")
    keep(page, "packing-signed-out")
    assert states(site) == [KitState.PRINTED] * 4
    page.get_by_role("link", name="Sign in again").click()
    page.get_by_role("link", name="Sign in with your work account").click()
    page.get_by_role("button", name="Paul Packer").click()
    expect(page.get_by_label("Bench")).to_have_value("1")
    page.get_by_role("button", name="Start packing").click()

    kept(page)
    assert states(site).count(KitState.DISPATCHED) == 2
    with site.home.begin() as session:
        scans = session.exec(select(BenchScan).order_by(BenchScan.id)).all()
    assert [each.code for each in scans] == [*kits[0], *kits[1]]
    apart = scans[-1].scanned_at - scans[0].scanned_at
    assert timedelta(minutes=59) < apart < timedelta(minutes=62), "each at its own time"


@pytest.mark.proof
def test_what_changed_while_a_bench_was_offline_is_shouted_when_it_is_back(site, visit, kits):
    page = at_bench(visit)
    page.context.set_offline(True)
    wedge(page, *kits[0])
    verdict(page, "done")
    with site.home.begin() as session:
        kit = session.exec(select(Kit).where(Kit.code == kits[0][0])).one()
        cancel_kit(session, kit, now=build.NOW, actor="test:clinic", reason="asked_by_resident")

    page.context.set_offline(False)

    expect(page.locator("#alarm-list li")).to_have_count(1)  # one parcel to find, by what came first
    expect(page.locator("#alarm-list")).to_contain_text("was cancelled")
    kept(page)
    assert "was cancelled" in verdict(page, "stop")
    keep(page, "packing-alarm")
    page.get_by_role("button", name=re.compile("^Done: Kit .* was cancelled")).click()
    expect(page.locator("#alarms")).to_be_hidden()


@pytest.mark.proof
def test_two_benches_pack_at_once_and_a_return_label_goes_to_one_of_them(site, visit, kits):
    left, right = at_bench(visit, "left"), at_bench(visit, "right")
    shared = kits[0][3]

    for one, other in zip(kits[0], [*kits[1][:3], shared, kits[1][4]], strict=True):
        wedge(left, one)
        kept(left)
        wedge(right, other)
        kept(right)

    verdict(left, "done")
    assert shared in verdict(right, "stop")
    assert states(site).count(KitState.DISPATCHED) == 1


@pytest.mark.proof
def test_a_kit_printed_after_the_page_was_loaded_is_packed_too(site, visit, kits):
    page = at_bench(visit)
    with site.home.begin() as session:
        fresh = codes_of(session, build.printed_kit(session))

    wedge(page, fresh[0])
    verdict(page, "fine")
    wedge(page, *fresh[1:])

    verdict(page, "done")


@pytest.mark.proof
def test_what_is_scanned_while_the_page_asks_what_waits_is_handed_over_too(site, visit, kits):
    page = at_bench(visit)
    with site.home.begin() as session:
        fresh = codes_of(session, build.printed_kit(session))
    # The page asks what waits once it meets a kit that it does not know; the answer takes its time.
    asked = []

    def hold(route):
        asked.append(route)

    page.route("**/packing/waiting*", hold)

    with page.expect_request("**/packing/waiting*"):
        wedge(page, fresh[0])
    verdict(page, "fine")
    wedge(page, *fresh[1:])
    for route in asked:
        route.continue_()

    verdict(page, "done")


def test_the_bench_works_without_java_script(site, visit, kits):
    page = at_bench(visit, java_script=False)

    def scan(code):
        expect(page.locator("#code")).to_be_focused()  # by the page itself: nobody clicks
        with page.expect_navigation():
            wedge(page, code)

    for code in kits[0]:
        scan(code)
    assert "whole and dispatched" in verdict(page, "done")
    scan(kits[1][0])
    page.get_by_label("Something is wrong with it").select_option("damaged")
    press(page.get_by_role("button", name="Set it aside"))
    keep(page, "packing-aside")
    press(page.get_by_role("button", name="I destroyed it"))
    assert "void for ever" in page.get_by_role("status").first.inner_text()
    assert "form to begin" in verdict(page, "wait"), "no green beside a kit that was set aside"
    assert states(site) == sorted([KitState.DISPATCHED, KitState.TO_PACK, KitState.PRINTED, KitState.PRINTED])


@pytest.mark.proof
@pytest.mark.parametrize(("viewport", "name"), [(PHONE, "phone"), (DESK, "desk")])
def test_the_bench_fits_its_window_and_breaks_no_rule_of_axe(site, visit, kits, viewport, name):
    page = at_bench(visit, viewport=viewport)
    wedge(page, kits[0][0], kits[0][1])
    verdict(page, "fine")
    keep(page, f"packing-{name}")

    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page.evaluate(CLIPPED)
    found = Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"][:120] for node in each["nodes"]]) for each in found] == []


@pytest.mark.proof
@pytest.mark.parametrize(("viewport", "name"), [(PHONE, "phone"), (DESK, "desk")])
def test_the_page_of_kits_and_stock_fits_its_window_and_breaks_no_rule_of_axe(site, visit, kits, viewport, name):
    parts = build.service(recipes=(Recipe("northlab", {"lancet": 3}),), stock=StockPolicy(low_below={"lancet": 9}))
    site.home.services["larkfield"] = ServiceInForce(parts, site.home.services["larkfield"].version_id)
    page = visit(viewport=viewport, java_script=True)
    sign_in(page, "Paul Packer")
    page.goto("/logistics")
    keep(page, f"logistics-{name}")

    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page.evaluate(CLIPPED)
    found = Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"][:120] for node in each["nodes"]]) for each in found] == []


@pytest.mark.proof
def test_the_browser_judges_every_scan_as_the_rules_do(site, visit):
    """The same random scans, through models/rules/parcel.py and through packing.js."""
    chance = random.Random(7)
    cases = [random_case(chance) for _ in range(400)]
    expected = [replay(*case) for case in cases]

    page = visit(java_script=True)
    sign_in(page, "Paul Packer")
    page.goto("/packing")
    page.get_by_label("Bench").fill("1")
    press(page.get_by_role("button", name="Start packing"))
    found = page.evaluate(
        """async ([script, cases]) => {
            const { judge, readLabel } = await import(script);
            return cases.map(([table, scans]) => {
                table = { ...table, scanned: [], blocked: false };
                return scans.map((text) => {
                    const scan = readLabel(text);
                    if (!scan) return null;
                    const verdict = judge(table, scan);
                    if (scan.label === "form" && verdict === "ok") { table.scanned = []; table.blocked = false; }
                    else if (verdict === "ok") table.scanned.push(scan.code);
                    else if (verdict === "wrong") table.blocked = true;
                    return `${scan.label} ${scan.code} ${verdict}`;
                });
            });
        }""",
        [page.locator("script[type=module]").get_attribute("src"), cases],
    )

    assert found == expected
    verdicts = {each.split()[-1] for case in found for each in case if each}
    assert verdicts == {"ok", "again", "wrong", "blocked", "missing", "dispatch"}


def random_case(chance):
    kit, other = new_kit_code(chance.choice), new_kit_code(chance.choice)
    table = {
        "kit": kit,
        "tubes": [f"{kit}{digit}" for digit in range(1, chance.randint(2, 4))],
        "outer": new_parcel_code(chance.choice),
        "number": chance.choice(["", next(numbers)]),
    }
    number = table["number"] or next(numbers)
    right = [kit, *table["tubes"], number, table["outer"]]
    stray = [f"{other}1", new_parcel_code(chance.choice), next(numbers), other, "9990000018", "", f"{kit}0"]
    scans = [piece for piece in right for _ in range(chance.choice([0, 1, 1, 1, 2]))]
    if chance.random() < 0.5:
        scans.insert(chance.randrange(len(scans) + 1), chance.choice(stray))
    if chance.random() < 0.3:
        chance.shuffle(scans)
    scans += right if chance.random() < 0.5 else []
    return table, [spoiled(each, chance) for each in scans]


def spoiled(code, chance):
    """As scanners and people write a code: small letters, hyphens, blanks; now and then a wrong character."""
    if chance.random() < 0.1 and code:
        at = chance.randrange(len(code))
        code = code[:at] + chance.choice(ALPHABET + "0O1") + code[at + 1 :]
    return chance.choice([code, code.lower(), f" {code}", f"{code[:3]}-{code[3:]}"])


def replay(table, scans):
    bench = Bench(table["kit"], frozenset(table["tubes"]), table["outer"], table["number"], frozenset())
    told = []
    for text in scans:
        scan = read_label(text)
        verdict = judge_scan(bench, scan) if scan else None
        told.append(scan and f"{scan.label} {scan.code} {verdict}")
        match (scan and scan.label, verdict):
            case ("form", "ok"):
                bench = replace(bench, scanned=frozenset(), blocked=False)
            case (_, "ok"):
                bench = replace(bench, scanned=bench.scanned | {scan})
            case (_, "wrong"):
                bench = replace(bench, blocked=True)
    return told
