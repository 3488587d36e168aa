"""Whole shifts in real Chromium: each kind of bad news from the lab's word to its proper end (issue's proof).

Needs Chromium; left out, loudly, where there is none. SCREENSHOTS keeps what the pages looked like.
"""

from datetime import timedelta

import pytest
from playwright.sync_api import Page, expect
from sqlmodel import select

from models.rules.clinic import CaseKind
from models.rules.vocabulary import Outcome
from models.tables.clinic import ClinicCase
from models.tables.person import SafeguardingNote
from models.tables.text import Text, TextState
from tests.support import build
from tests.support.ingesting import READ_AT, ask, take
from tests.support.lab_files import hl7
from tests.support.many_kits import send_kits
from tests.web import test_browser
from tests.web.test_browser import ALL_NEGATIVE, CHLAMYDIA, CLIPPED, HIV, PHONE, keep, press, sign_in

chromium, visit = test_browser.chromium, test_browser.visit

pytestmark = [*test_browser.pytestmark, pytest.mark.proof]


def reported(site, outcomes, *, at=build.NOW) -> str:
    """A new kit with these results: the path of its case."""
    with site.home.begin() as session:
        kit = build.dispatched_kit(session)
        build.results(session, kit, outcomes, at=at)
        return f"/cases/{session.exec(select(ClinicCase.ref).where(ClinicCase.kit_id == kit.id)).one()}"


def attempt(page: Page, words: str) -> None:
    page.get_by_label(words).check()
    press(page.get_by_role("button", name="Record", exact=True))
    expect(page.get_by_role("status")).to_contain_text("Recorded")


def spoke(page: Page) -> None:
    page.get_by_label("They said their full name").check()
    page.get_by_label("They said their date of birth").check()
    attempt(page, "Spoke to the person")


def end(page: Page, words: str, *, place: str = "", on: str = "", how: str = "") -> None:
    page.get_by_role("radio", name=words, exact=True).check()
    page.get_by_label("Which clinic or service").fill(place)
    page.get_by_label("On which day").fill(on)
    if how:
        page.get_by_label("How treated").select_option(how)
    page.get_by_role("button", name="End the case").click()


def test_a_reactive_hiv_goes_from_the_labs_file_to_its_confirmed_outcome(visit, site):
    begin = site.home.begin
    with begin() as session:
        [kit] = send_kits(session, 1)
    site.home.hands["now"] = READ_AT
    rows = [row._replace(value="Reactive") if row.test == "HIVS" else row for row in kit.rows()]
    take(begin, hl7(rows))
    path = f"/cases/{ask(begin, 'SELECT ref FROM clinic_case')[0][0]}"
    page = visit()
    sign_in(page)
    page.goto(path)
    expect(page.get_by_role("region", name="What to say")).to_contain_text("It is not a diagnosis")
    page.get_by_label("Spoke to the person").check()
    page.get_by_role("button", name="Record", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("it was not them")
    spoke(page)
    end(page, "Told and booked into a clinic", place="Larkfield clinic", on="2026-11-26")
    expect(page.get_by_role("alert")).to_contain_text("stays open until a confirmatory outcome")
    keep(page, "shift-reactive-open-desk")

    page.get_by_label("Confirmed positive", exact=True).check()
    page.get_by_role("button", name="Record for HIV").click()
    end(page, "Confirmed positive by a sample from the arm")

    expect(page.get_by_role("status")).to_contain_text("The case is closed: Confirmed positive")


def test_a_chlamydia_positive_goes_to_signed_treatment_and_to_its_partners(visit, site):
    path = reported(site, ALL_NEGATIVE | {CHLAMYDIA: Outcome.POSITIVE})
    adviser, doctor = visit(java_script=True), visit(viewport=PHONE)
    sign_in(adviser)
    adviser.goto(path)
    spoke(adviser)
    adviser.get_by_text("Record partners").click()
    adviser.get_by_label("Established").check()
    for stage, number in (("Elicited", "2"), ("Contactable", "1"), ("Notified", "1")):
        adviser.get_by_label(stage).fill(number)
    adviser.get_by_role("button", name="Record these partners").click()
    adviser.get_by_text("Ask a prescriber for treatment").click()
    for no in adviser.get_by_label("No", exact=True).all():
        no.check()
    adviser.get_by_label("By post", exact=True).check()
    adviser.get_by_role("button", name="Ask a prescriber").click()
    expect(adviser.get_by_role("status")).to_contain_text("A prescriber must sign now")
    keep(adviser, "shift-positive-desk")
    assert adviser.evaluate("document.documentElement.scrollWidth <= innerWidth"), adviser.evaluate(CLIPPED)

    sign_in(doctor, "Dora Doctor")
    doctor.goto(path)
    keep(doctor, "shift-positive-phone")
    doctor.get_by_role("button", name="Sign as the prescriber").click()
    expect(doctor.get_by_role("status")).to_contain_text("Signed.")
    adviser.goto(path)
    end(adviser, "Treated", on="2026-11-24", how="By post")

    expect(adviser.get_by_role("status")).to_contain_text("The case is closed: Treated.")
    expect(adviser.get_by_role("link", name="Partners, four weeks on", exact=True)).to_be_visible()


def test_a_correction_after_the_text_shows_both_versions_and_what_was_told(visit, site):
    with site.home.begin() as session:
        kit = build.dispatched_kit(session)
        build.results(session, kit, ALL_NEGATIVE)
        text = session.exec(select(Text)).one()
        text.state, text.sent_at = TextState.DELIVERED, build.NOW + timedelta(hours=1)
    with site.home.begin() as session:
        build.results(session, session.merge(kit), {CHLAMYDIA: Outcome.POSITIVE}, at=build.NOW + timedelta(hours=2))
        path = f"/cases/{session.exec(select(ClinicCase.ref)).one()}"
    site.home.hands["now"] = build.NOW + timedelta(hours=3)
    page, senior = visit(viewport=PHONE), visit()
    sign_in(page)
    page.goto(path)

    changed = page.get_by_role("region", name="What changed")
    expect(changed).to_contain_text("Negative")
    expect(changed).to_contain_text("Positive")
    expect(changed).to_contain_text("All clear")
    keep(page, "shift-correction-phone")
    spoke(page)
    end(page, "Treated", on="2026-11-24", how="In a clinic")
    expect(page.get_by_role("alert")).to_contain_text("record first what you said to them about that")

    page.get_by_label("What was wrong, and what you said about it").fill("The all clear was wrong; they were told so.")
    page.get_by_label("None", exact=True).check()
    page.get_by_label("I said sorry").check()
    page.get_by_role("button", name="Record what was said").click()
    expect(page.get_by_role("status")).to_contain_text("A second, senior person signs it now")
    keep(page, "shift-candour-phone")
    sign_in(senior, "Sian Senior")
    senior.goto(path)
    senior.get_by_role("button", name="Sign as the second person").click()
    expect(senior.get_by_role("status")).to_contain_text("Signed.")
    page.goto(path)
    end(page, "Treated", on="2026-11-24", how="In a clinic")

    expect(page.get_by_role("status")).to_contain_text("The case is closed")


def test_somebody_who_can_not_be_found_goes_down_the_ladder_to_two_people(visit, site):
    path = reported(site, ALL_NEGATIVE | {CHLAMYDIA: Outcome.POSITIVE})
    page, senior = visit(), visit()
    sign_in(page)
    page.goto(path)
    attempt(page, "Rang, no answer")
    for day in range(2):
        site.home.hands["now"] = build.NOW + timedelta(days=day)
        attempt(page, "Send the text that asks to expect a call")
    with site.home.begin() as session:
        first = session.exec(select(Text).order_by(Text.id)).first()
        assert first is not None  # the result's own text counts too
    build.texts_left(site.home.begin)
    attempt(page, "Left a voicemail that reveals nothing")
    attempt(page, "Left a voicemail that reveals nothing")
    page.get_by_text("No further action (needs").click()
    page.get_by_role("button", name="End the case").click()
    expect(page.get_by_role("alert")).to_contain_text("needs at least 1 letter first")
    attempt(page, "Letter that reveals nothing")
    with page.expect_download() as letter:
        page.get_by_role("button", name="Print the letter").click()
    assert letter.value.suggested_filename == "letter.pdf"
    page.goto(path)
    expect(page.get_by_text("Everything was tried")).to_be_visible()
    page.get_by_text("No further action (needs").click()
    page.get_by_role("button", name="End the case").click()
    expect(page.get_by_role("status")).to_contain_text("a second, senior person must agree")

    sign_in(senior, "Sian Senior")
    senior.goto(path)
    senior.get_by_text("No further action (needs").click()
    senior.get_by_role("button", name="End the case").click()

    expect(senior.get_by_role("status")).to_contain_text("The case is closed")


def test_a_safeguarding_case_of_a_sealed_record_is_opened_with_a_reason_and_referred(visit, site):
    from models.actions.owed import OwedCase, owe_cases
    from models.tables.order import Order

    with site.home.begin() as session:
        order = build.order(session)
        ref = "5" * 32
        session.add(
            SafeguardingNote(
                service_id="larkfield",
                person_id=order.person_id,
                ref=ref,
                flags=1,
                note=build.cipher().encrypt("safeguarding_note", "note", ref, "An older partner was named"),
            )
        )
        owe_cases(
            session,
            [OwedCase("test:safe", CaseKind.SAFEGUARDING, order_id=session.exec(select(Order.id)).one())],
            service=build.service(),
            now=build.NOW,
            actor=build.ACTOR,
        )
        path = f"/cases/{session.exec(select(ClinicCase.ref)).one()}"
    senior, lead = visit(), visit()
    sign_in(senior, "Sian Senior")
    senior.goto(path)
    expect(senior.get_by_text("There is a note.", exact=True)).to_be_visible()
    expect(senior.get_by_text("older partner")).to_have_count(0)
    senior.get_by_role("button", name="Seal this record").click()
    expect(senior.get_by_role("status")).to_contain_text("The record is sealed")

    sign_in(lead)
    lead.goto(path)
    expect(lead.get_by_role("heading", level=1)).to_have_text("Sealed record")
    keep(lead, "shift-sealed-desk")
    lead.get_by_label("Why you must open it").fill("Must speak with the school today")
    lead.get_by_role("button", name="Break the seal").click()
    end(lead, "Safeguarding referral made", place="Children's services", on="2026-11-24")

    expect(lead.get_by_role("status")).to_contain_text("The case is closed: Safeguarding referral made.")


def test_two_people_can_not_work_one_case_unknowingly(visit, site):
    path = reported(site, ALL_NEGATIVE | {HIV: Outcome.REACTIVE})
    one, other = visit(), visit()
    sign_in(one)
    sign_in(other, "Bela Adviser")
    one.goto(path)
    other.goto(path)
    press(one.get_by_role("button", name="Take this case"))

    other.get_by_label("Rang, no answer").check()
    other.get_by_role("textbox", name="Note").fill("Must not be lost")
    other.get_by_role("button", name="Record", exact=True).click()

    expect(other.get_by_role("alert")).to_contain_text("Somebody else changed this case meanwhile")
    other.goto(path)
    expect(other.get_by_text("Colleague demo-adviser")).to_be_visible()
    expect(other.get_by_role("button", name="Record", exact=True)).to_have_count(0)
