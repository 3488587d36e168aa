"""The pages of messages: found by kit and state, read on a reveal, and what is stuck (FEATURES 83, 84; H19)."""

import os
import re
from datetime import timedelta
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

from app.web.messages import bars
from models.actions.inbox import keep_text_reply
from models.actions.seal import set_seal
from models.actions.text_reply import take_replies
from models.rules.kit import show_kit_code
from models.rules.staff import Actor, Role
from models.tables.kit import Kit
from models.tables.person import Contact
from models.tables.text import TextState
from tests.support import build, web
from tests.support.fake_sender import FakeSender
from tests.support.texts import NOW, notify, owed_journey_text, owed_result, tools
from tests.support.web import words
from tests.web.test_browser import CHROMIUM, DESK, PHONE, chromium, sign_in, visit  # noqa: F401


@pytest.fixture
def told(site):
    """Two people's texts: a result that is owed, and an order text that a provider took."""
    with site.home.begin() as session:
        taken, result = owed_journey_text(session), owed_result(session)
        code = session.get_one(Kit, result.kit_id).code
        contact = session.get_one(Contact, result.contact_id)
        mobile = build.cipher().decrypt("contact", "mobile", contact.ref, contact.mobile)
        result.not_before = NOW + timedelta(hours=1)
        session.add(result)
    from flows.notify_residents import send_due_texts

    send_due_texts(notify(site.home.begin, FakeSender()), limit=10)
    return {"result": result, "taken": taken, "code": code, "mobile": mobile}


def test_messages_are_found_by_kit_and_state_and_the_look_is_audited(site, told):
    browser = site.signed_in("demo-adviser")

    everything, one = browser.get("/messages"), browser.get(f"/messages?kit={told['code'].lower()}")
    accepted = browser.get("/messages?state=accepted")

    refs = {name: told[name].ref[:6].upper() for name in ("result", "taken")}
    assert all(ref in words(everything) for ref in refs.values())
    assert refs["result"] in words(one)
    assert refs["taken"] not in words(one)
    assert refs["taken"] in words(accepted)
    assert refs["result"] not in words(accepted)
    assert "1 found" in words(accepted)
    assert [line["action"] for line in web.audited(site.db)].count("messages.viewed") >= 3


def test_a_mistyped_kit_code_is_said_to_be_one(site, told):
    page = site.signed_in("demo-adviser").get("/messages?kit=7K3")

    assert page.status_code == 422
    assert "check each of its ten characters" in words(page)


def test_the_ledger_of_a_message_shows_why_and_what_happened_and_no_words(site, told):
    browser = site.signed_in("demo-adviser")

    result, taken = (browser.get(f"/messages/{told[name].ref}") for name in ("result", "taken"))

    assert "All clear" in words(result)
    assert "with rule test" in words(result)
    assert "Accepted" in words(taken)
    assert "by fake" in words(taken)
    assert not re.search(r"Questions\?|chlamydia|your order is|\+44", words(result) + words(taken))


def test_words_are_shown_for_a_reason_that_the_audit_keeps_and_never_the_whole_number(site, told):
    browser = site.signed_in("demo-adviser")
    page = f"/messages/{told['result'].ref}"

    refused = browser.send(page, f"{page}/words", because=" ")
    shown = browser.send(page, f"{page}/words", because="rang to ask what it meant")

    assert refused.status_code == 422
    assert "chlamydia" not in words(refused)
    assert "Not found: chlamydia" in words(shown)
    assert f"ends in {told['mobile'][-3:]}" in words(shown)
    assert told["mobile"][-4:] not in words(shown)
    [line] = [line for line in web.audited(site.db) if line["action"] == "message.words_revealed"]
    assert line["because"] == "rang to ask what it meant"


def test_whoever_asks_who_saw_a_kit_is_told_of_the_words_of_its_messages_too(site, told):
    adviser = site.signed_in("demo-adviser")
    page = f"/messages/{told['result'].ref}"
    adviser.send(page, f"{page}/words", because="rang to ask what it meant")

    seen = words(site.signed_in("demo-auditor").get(f"/kits/{told['code']}"))

    assert "Message: words revealed" in seen
    assert "Who looked" not in words(adviser.get(f"/kits/{told['code']}")), "an adviser does not ask who looked"


def test_an_auditor_begins_at_the_look_up_and_finds_who_looked(site, told):
    auditor = site.signed_in("demo-auditor")
    assert auditor.get("/").headers["location"] == "/kits"
    assert 'href="/kits"' in auditor.get("/kits").text
    site.signed_in("demo-adviser").get(f"/kits/{told['code']}")

    found = auditor.send("/kits", "/kits/find", code=told["code"])

    assert "Kit: timeline viewed" in words(found)


def test_words_that_left_are_shown_to_be_the_very_ones(site, told):
    browser = site.signed_in("demo-adviser")
    page = f"/messages/{told['taken'].ref}"

    assert "the very words that left" in words(browser.send(page, f"{page}/words", because="a complaint"))


def test_the_list_of_all_names_nobodys_result_and_a_search_by_kit_is_a_look_at_that_kit(site, told):
    adviser = site.signed_in("demo-adviser")
    shown = show_kit_code(told["code"])

    everything = adviser.get("/messages")
    found = words(adviser.get(f"/messages?kit={told['code']}"))

    rows = re.findall(r"<tr.*?</tr>", everything.text, re.DOTALL)
    [result] = [row for row in rows if "All clear" in row]
    assert shown not in result
    assert "All clear" in found
    assert shown in found
    looks = [line for line in web.audited(site.db) if line["action"] == "messages.viewed" and line["subject"] == "kit"]
    assert [line["actor"] for line in looks] == ["staff:demo-adviser"]


def test_of_a_sealed_record_the_list_shows_no_kit_and_the_ledger_stays_shut(site, told):
    boss = Actor("boss", frozenset({Role.CLINICIAN}), frozenset({"larkfield"}))
    with site.home.begin() as session:
        kit = session.get_one(Kit, told["result"].kit_id)
        set_seal(session, person_id=kit.person_id, service_id="larkfield", sealed=True, by=boss, now=NOW)
    browser = site.signed_in("demo-adviser")

    assert told["code"] not in browser.get("/messages").text
    assert browser.get(f"/messages/{told['result'].ref}").status_code in {403, 404, 423}


def test_what_is_due_and_not_sent_and_a_reply_that_nobody_can_place_are_stuck(site, told):
    browser = site.signed_in("demo-adviser")
    assert "Nothing is stuck" in words(browser.get("/messages"))
    with site.home.begin() as session:
        owed_journey_text(session, at=NOW - timedelta(hours=2))
        reply = {"provider_id": "SM1", "from_e164": "+447700900999", "body": "Hello?", "provider_word": "", "form": {}}
        keep_text_reply(session, **reply, now=NOW, cipher=build.cipher(), indexes=build.indexes())
        take_replies(session, limit=1, now=NOW, tools=tools(site.home.begin), actor="flow:test")

    page = words(browser.get("/messages"))

    assert "1 due, and not sent" in page
    assert "1 replies and receipts that could not be used" in page


def test_the_chart_is_as_high_as_the_busiest_day_and_each_bar_stands_on_the_one_below():
    today = NOW.date()
    drawn = bars({today - timedelta(days=1): [0, 0, 0, 0], today: [3, 1, 0, 0]})

    low, high = drawn
    assert (low.series, high.series) == (0, 1)
    assert high.y + high.height == low.y
    assert low.y + low.height == 120
    assert low.height == pytest.approx(3 * high.height)


@pytest.mark.browser
@pytest.mark.proof
@pytest.mark.timeout(180)
@pytest.mark.skipif(CHROMIUM is None, reason="BROWSER TESTS LEFT OUT: no Chromium here")
@pytest.mark.parametrize(("name", "viewport"), [("desk", DESK), ("phone", PHONE)])
def test_the_pages_pass_axe_on_a_desk_and_on_a_phone(site, told, visit, name, viewport):  # noqa: F811
    with site.home.begin() as session:
        states = [TextState.DELIVERED, TextState.HANDED_OVER, TextState.CANCELLED, TextState.OWED]
        for number in range(24):
            text = owed_journey_text(session, at=NOW - timedelta(days=number % 9))
            text.state = states[number % 4 if number % 3 else 0]
            text.cancelled_because = "superseded" if text.state is TextState.CANCELLED else ""
            session.add(text)
    page = visit(viewport=viewport, java_script=True)
    sign_in(page)
    for path in ("/messages", f"/messages/{told['result'].ref}"):
        page.goto(path)
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth + 1")
        if folder := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=str(Path(folder) / f"messages-{name}-{len(path)}.png"), full_page=True)
