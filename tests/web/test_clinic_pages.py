"""The clinic's pages as an adviser meets them: over HTTP, signed in, on the real database."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlmodel import select

from models.rules.clinic import AttemptResult
from models.rules.vocabulary import Outcome, Site, Test
from models.tables.clinic import ClinicCase
from models.tables.person import SafeguardingNote
from tests.support import build, web
from tests.support.web import words

HIV, SYPHILIS = (Test.HIV, Site.BLOOD), (Test.SYPHILIS, Site.BLOOD)
CHLAMYDIA, GONORRHOEA = (Test.CHLAMYDIA, Site.VAGINAL), (Test.GONORRHOEA, Site.VAGINAL)
ALL_NEGATIVE = dict.fromkeys([HIV, SYPHILIS, CHLAMYDIA, GONORRHOEA], Outcome.NEGATIVE)
REACTIVE = ALL_NEGATIVE | {HIV: Outcome.REACTIVE}
POSITIVE = ALL_NEGATIVE | {CHLAMYDIA: Outcome.POSITIVE}
PERSONAL = ("Testina", "447700900", "Invented Row", "LS1 4AP", "14 February 1999", "1999-02-14")


def opened(site, outcomes=REACTIVE, **more) -> str:
    """The path of the case of a new kit with these results."""
    with site.home.begin() as session:
        kit = build.dispatched_kit(session)
        build.results(session, kit, outcomes, **more)
        return f"/cases/{session.exec(select(ClinicCase.ref).where(ClinicCase.kit_id == kit.id)).one()}"


def test_the_worklist_leads_to_the_case_and_says_in_words_what_is_overdue(site):
    path = opened(site)
    site.home.hands["now"] = build.NOW + timedelta(days=5)
    browser = site.signed_in("demo-adviser")

    page = browser.get("/worklist")

    assert f'href="{path}"' in page.text
    assert "1 open, 1 overdue" in words(page)
    assert "Overdue by 3 days" in words(page)


def test_neither_the_worklist_nor_a_case_shows_who_it_is_until_that_is_asked_for(site):
    path = opened(site)
    browser = site.signed_in("demo-adviser")

    for page in ("/worklist", path):
        assert not [word for word in PERSONAL if word in browser.get(page).text]
    shown = browser.send(path, f"{path}/contact")

    assert "Testina Kit" in words(shown)
    assert "14 February 1999" in words(shown)
    assert [a["action"] for a in web.audited(site.db)][-2:] == ["case.viewed", "contact.revealed"]


def test_no_title_and_no_address_says_whom_or_what_a_page_is_about(site):
    path = opened(site)
    browser = site.signed_in("demo-adviser")

    titles = {re.search("<title>(.*?)</title>", browser.get(page).text).group(1) for page in ("/worklist", path)}

    assert titles == {"Worklist – kitpost", "Case – kitpost"}
    assert re.fullmatch("/cases/[0-9a-f]{32}", path)


def test_a_reactive_case_shows_its_words_for_the_call_and_no_word_of_a_diagnosis(site):
    page = site.signed_in("demo-adviser").get(opened(site))

    assert "One of your screening tests reacted: HIV." in words(page)
    assert "It needs a blood test from your arm to know. It is not a diagnosis." in words(page)
    assert "Reactive" in words(page)
    assert "HIV positive" not in words(page)


def test_an_attempt_is_recorded_in_one_form_and_moves_the_due_time(site):
    path = opened(site)
    browser = site.signed_in("demo-adviser")

    page = browser.send(path, f"{path}/attempts", result="no_answer", note="Rang twice <b>today</b>")

    assert "Recorded: Rang, no answer." in words(page)
    assert "Rang twice &lt;b&gt;today&lt;/b&gt;" in page.text
    assert "In whose hands You" in words(page)


def test_a_reactive_case_refuses_to_close_with_one_sentence_and_keeps_its_state(site):
    path = opened(site)
    browser = site.signed_in("demo-adviser")

    refused = browser.send(path, f"{path}/close", outcome="confirmed_negative")

    assert refused.status_code == 409
    assert "stays open until a confirmatory outcome or refusal is recorded for: HIV." in words(refused)
    assert f'action="{path}/close"' in browser.get(path).text


def test_a_reactive_case_closes_once_its_confirmation_is_recorded(site):
    path = opened(site)
    browser = site.signed_in("demo-adviser")
    browser.send(path, f"{path}/confirmations", confirmation="negative")

    landed = browser.send(path, f"{path}/close", outcome="confirmed_negative")

    assert landed.url.path == "/worklist"
    assert "The case is closed" in words(landed)
    assert "0 open" in words(landed)
    assert "Closed 24 November 2026, 12:00 by You" in words(browser.get(path))


def test_no_further_action_is_proposed_by_one_and_agreed_by_a_senior_person(site):
    path = opened(site, POSITIVE)
    adviser, senior = site.signed_in("demo-adviser"), site.signed_in("demo-senior")
    for day in range(3):
        site.home.hands["now"] = build.NOW + timedelta(days=day)
        adviser.send(path, f"{path}/attempts", result="text")
    for result in ["voicemail"] * 2 + ["letter"]:
        adviser.send(path, f"{path}/attempts", result=result)
    build.texts_left(site.home.begin)

    first = adviser.send(path, f"{path}/close", outcome="no_further_action")
    assert "a second, senior person must agree" in words(first)
    assert "wishes to end this case without further action" in words(senior.get(path))
    second = senior.send(path, f"{path}/close", outcome="no_further_action")

    assert "The case is closed" in words(second)


def test_a_form_drawn_before_somebody_elses_change_is_refused_and_what_was_typed_stays(site):
    path = opened(site)
    adviser, colleague = site.signed_in("demo-adviser"), site.signed_in("demo-adviser-2")
    stale = web.hidden_fields(adviser.get(path).text, f"{path}/attempts")
    colleague.send(path, f"{path}/claim")
    colleague.send(path, f"{path}/hand-back")

    refused = adviser.http.post(
        f"{path}/attempts", data={**stale, "result": "spoke", "note": "A long story that must not be lost"}
    )

    assert refused.status_code == 409
    assert "Somebody else changed this case meanwhile" in words(refused)
    assert "A long story that must not be lost</textarea>" in refused.text


def test_a_case_in_a_colleagues_hands_offers_no_form_to_work_it(site):
    path = opened(site)
    site.signed_in("demo-adviser").send(path, f"{path}/claim")

    page = site.signed_in("demo-adviser-2").get(path)

    assert "In whose hands Colleague demo-adviser" in words(page)
    assert f'action="{path}/attempts"' not in page.text
    assert f'action="{path}/close"' not in page.text


def test_a_channel_that_the_person_refused_can_not_be_chosen(site):
    with site.home.begin() as session:
        person = build.person(session)
        kit = build.dispatched_kit(session, of=person, to=build.contact(session, person, voicemail_consent=False))
        build.results(session, kit, REACTIVE)
        path = f"/cases/{session.exec(select(ClinicCase.ref)).one()}"
    browser = site.signed_in("demo-adviser")

    assert re.search(r'value="voicemail" disabled', browser.get(path).text)
    assert browser.send(path, f"{path}/attempts", result="voicemail").status_code == 409


def test_a_clinician_reads_a_comment_releases_and_the_case_is_over(site):
    path = opened(site, ALL_NEGATIVE, comments={CHLAMYDIA: "Please <i>see</i> notes"})
    browser = site.signed_in("demo-clinician")
    assert "Please &lt;i&gt;see&lt;/i&gt; notes" in browser.get(path).text

    page = browser.send(path, f"{path}/release")

    assert "The comment is marked as read, and the case is closed." in words(page)
    assert "All clear" in words(page)


def test_both_versions_of_a_corrected_result_stand_side_by_side(site):
    with site.home.begin() as session:
        kit = build.dispatched_kit(session)
        build.results(session, kit, POSITIVE)
        build.results(session, kit, {CHLAMYDIA: Outcome.NEGATIVE}, at=build.NOW + timedelta(hours=3))
        path = f"/cases/{session.exec(select(ClinicCase.ref)).one()}"

    page = words(site.signed_in("demo-adviser").get(path))

    assert "Corrected result" in page
    assert re.search(r"Chlamydia Vaginal Negative Corrected, [^P]+Positive Final, replaced", page)


def test_a_safeguarding_note_is_said_to_exist_and_read_by_those_who_may(site):
    path = opened(site)
    with site.home.begin() as session:
        ref = "5" * 32
        person_id = session.connection().exec_driver_sql("SELECT person_id FROM kit").scalar_one()
        session.add(
            SafeguardingNote(
                service_id="larkfield",
                person_id=person_id,
                ref=ref,
                flags=1,
                note=build.cipher().encrypt("safeguarding_note", "note", ref, "An older partner was named"),
            )
        )
    adviser, senior = site.signed_in("demo-adviser"), site.signed_in("demo-senior")

    assert "There is a note." in words(adviser.get(path))
    assert f'action="{path}/notes"' not in adviser.get(path).text
    assert "older partner" in words(senior.send(path, f"{path}/notes"))
    assert web.audited(site.db)[-1]["action"] == "safeguarding_notes.read"


def test_the_kits_timeline_is_found_by_its_code_as_people_write_it(site):
    opened(site)
    with site.home.begin() as session:
        code = session.connection().exec_driver_sql("SELECT code FROM kit").scalar_one()
    browser = site.signed_in("demo-adviser")

    page = browser.send("/worklist", "/kits/find", code=f" {code[:3].lower()}-{code[3:6]}-{code[6:]} ")

    assert page.url.path == f"/kits/{code}"
    assert "Kit: dispatched" in words(page)
    assert "rule release-2" in words(page)


def test_a_mistyped_kit_code_is_said_in_one_sentence(site):
    refused = site.signed_in("demo-adviser").send("/worklist", "/kits/find", code="7K3-F9X-N2PA")

    assert (refused.status_code, "This is no kit code" in words(refused)) == (422, True)


@pytest.mark.parametrize("form", [{"result": "positive for hiv"}, {"result": "spoke", "version": "Testina"}])
def test_a_form_that_can_not_be_read_is_refused_by_field_and_never_quoted(site, form):
    path = opened(site)
    browser = site.signed_in("demo-adviser")

    refused = browser.send(path, f"{path}/attempts", **form)

    assert refused.status_code == 422
    assert "Check the form" in words(refused)
    assert not [value for value in form.values() if value in refused.text and value != "spoke"]


@pytest.mark.parametrize("path", ["/worklist", "/sign-in", "/nowhere", "/cases/" + "0" * 32, "/health"])
def test_every_answer_is_kept_by_nobody_framed_by_nobody_and_runs_nothing(site, path):
    headers = site.signed_in("demo-adviser").get(path).headers

    assert headers["cache-control"] == "no-store"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_pages_carry_no_script_and_load_nothing_from_elsewhere(site):
    browser = site.signed_in("demo-adviser")
    path = opened(site)

    for page in ("/worklist", path):
        text = browser.get(page).text
        assert "<script" not in text
        assert not re.findall(r'(?:src|href|action)="(?:https?:)?//', text)


def test_the_access_log_names_the_route_and_no_reference_code_or_query(site, caplog):
    path = opened(site)
    browser = site.signed_in("demo-adviser")
    with caplog.at_level(logging.INFO, logger="kitpost.access"):
        browser.get(path)
        browser.get("/worklist?kind=reactive")

    said = "\n".join(record.getMessage() for record in caplog.records if record.name == "kitpost.access")
    assert "GET /cases/{ref} 200" in said
    assert "GET /worklist 200" in said
    assert path.removeprefix("/cases/") not in said
    assert "reactive" not in said


@contextmanager
def out_of_order(db) -> Iterator[None]:
    """The database takes nobody but its owner; databases are used again by later tests, so it is mended after."""

    def let_in(most: int) -> None:
        with db.owner_engine.begin() as owner:
            owner.exec_driver_sql(f"ALTER DATABASE {db.name} CONNECTION LIMIT {most}")

    let_in(0)
    try:
        yield
    finally:
        let_in(-1)


def test_a_database_that_is_down_is_said_in_one_sentence(site):
    browser = site.signed_in("demo-adviser")
    site.home.engine.dispose()

    with out_of_order(site.db):
        page, ready = browser.get("/worklist"), browser.get("/health/ready")

    assert (page.status_code, "The database does not answer" in words(page)) == (503, True)
    assert (ready.status_code, ready.json()["title"]) == (503, "database_down")
    assert browser.get("/health").status_code == 200


def test_something_nobody_expected_ends_as_one_sentence_with_a_reference_and_logs_no_words(site, caplog, monkeypatch):
    from models.actions import casebook

    def break_down(*_args, **_kwargs):
        raise RuntimeError("Testina Kit +447700900123")

    browser = site.signed_in("demo-adviser")
    monkeypatch.setattr(casebook, "worklist", break_down)

    page = browser.get("/worklist")

    reference = re.search(r"the reference ([0-9a-f]{8})", page.text).group(1)
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert page.status_code == 500
    assert f"unexpected failure {reference}: RuntimeError" in said
    assert not [word for word in PERSONAL if word in said]


def test_a_seal_is_taken_away_by_who_gave_a_reason_to_open_it_and_by_nobody_else(site):
    path = opened(site)
    senior = site.signed_in("demo-senior")
    token = web.hidden_fields(senior.get(path).text, f"{path}/seal")["csrf"]
    senior.http.post(f"{path}/seal", data={"csrf": token, "sealed": "true"})

    refused = senior.http.post(f"{path}/seal", data={"csrf": token, "sealed": "false"})
    assert refused.status_code == 403
    assert "Nothing was saved" in words(refused)
    assert f'action="{path}/break-seal"' in refused.text
    assert "Sealed record" in words(senior.get(path))

    senior.http.post(f"{path}/break-seal", data={"csrf": token, "because": "Called back today"})
    senior.http.post(f"{path}/seal", data={"csrf": token, "sealed": "false"})
    assert "Reactive blood test" in words(site.signed_in("demo-adviser").get(path))


def test_each_shortcut_that_is_listed_is_there(site):
    page = site.signed_in("demo-adviser").get(opened(site))
    listed = re.search(r"access key[^:]*: (.*?)\.", words(page))[1]

    assert listed == "W worklist, C take this case, R record the attempt"
    assert re.search(r'<a[^>]* href="/worklist" accesskey="w"', page.text)
    assert re.search(r'<button[^>]* accesskey="c">\s*Take this case', page.text)
    assert re.search(r'<button[^>]* accesskey="r">\s*Record\s*<', page.text)


def test_what_was_written_while_a_colleague_sealed_the_record_is_given_back(site):
    path = opened(site)
    adviser, senior = site.signed_in("demo-adviser"), site.signed_in("demo-senior")
    hidden = web.hidden_fields(adviser.get(path).text, f"{path}/attempts")
    senior.send(path, f"{path}/seal")

    refused = adviser.http.post(f"{path}/attempts", data={**hidden, "result": "no_answer", "note": "Rang at noon."})

    assert refused.status_code == 403
    assert "What you wrote, to be copied Rang at noon." in words(refused)
    assert f'action="{path}/break-seal"' in refused.text


def test_every_kind_of_attempt_is_offered(site):
    page = site.signed_in("demo-adviser").get(opened(site)).text

    assert set(re.findall(r'name="result" type="radio" value="([a-z_]+)"', page)) == set(AttemptResult)


def test_a_number_is_shown_outside_safe_times_only_when_it_cannot_wait(site):
    with site.home.begin() as session:
        person = build.person(session)
        to = build.contact(session, person, safe_times="morning")
        kit = build.dispatched_kit(session, of=person, to=to)
        build.results(session, kit, REACTIVE)
        path = f"/cases/{session.exec(select(ClinicCase.ref)).one()}"
    adviser = site.signed_in("demo-adviser")
    assert "Safe times to ring 09:00 to 12:00: not now" in words(adviser.get(path))

    refused = adviser.send(path, f"{path}/contact")
    assert "Now is no safe time to ring them: 09:00 to 12:00. If it can't wait, tick so." in words(refused)
    assert "Testina" not in refused.text
    assert "Testina Kit" in words(adviser.send(path, f"{path}/contact", cannot_wait="true"))

    site.home.hands["now"] = build.NOW + timedelta(hours=22)
    assert "Testina Kit" in words(adviser.send(path, f"{path}/contact"))
    looks = [entry["detail"]["safe_time"] for entry in web.audited(site.db) if entry["action"] == "contact.revealed"]
    assert looks == [False, True]


def test_a_try_that_reached_nobody_is_due_again_at_a_safe_time(site):
    with site.home.begin() as session:
        person = build.person(session)
        kit = build.dispatched_kit(session, of=person, to=build.contact(session, person, safe_times="morning"))
        build.results(session, kit, REACTIVE)
        path = f"/cases/{session.exec(select(ClinicCase.ref)).one()}"
    site.home.hands["now"] = build.NOW + timedelta(days=8)
    site.signed_in("demo-adviser").send(path, f"{path}/attempts", result="no_answer")

    with site.home.begin() as session:
        due = session.exec(select(ClinicCase.due_at)).one()
    assert due == build.NOW + timedelta(days=9, hours=21), "eight working hours on it is noon, and safe no more"


def test_openness_is_recorded_by_one_and_signed_by_another_on_the_page(site):
    path = opened(site, ALL_NEGATIVE | {CHLAMYDIA: Outcome.POSITIVE})
    adviser, senior = site.signed_in("demo-adviser"), site.signed_in("demo-senior")
    spoke = {"result": "spoke", "identity": ["full_name", "date_of_birth"]}
    adviser.send(path, f"{path}/attempts", **spoke)
    with site.home.begin() as session:
        kit = session.exec(select(build.Kit)).one()
        build.results(session, kit, {CHLAMYDIA: Outcome.NEGATIVE}, at=build.NOW + timedelta(days=1))
    site.home.hands["now"] = build.NOW + timedelta(days=1, hours=1)
    assert "They were told a result that has changed." in words(adviser.get(path))
    adviser.send(path, f"{path}/attempts", **spoke)

    page = adviser.send(path, f"{path}/candour", account="It was wrong, I said so.", harm="none")
    assert "Say sorry first" in words(page)
    assert "It was wrong, I said so." in page.text
    page = adviser.send(
        path, f"{path}/candour", account="It was wrong, I said so.", harm="none", apologised="true", offered="true"
    )
    assert "Waits for a second person" in words(page)
    assert "Sign as the second person" not in words(page)
    senior.send(path, f"{path}/candour/sign")
    assert "Signed by Colleague demo-senior" in words(adviser.get(path))


def test_a_case_shows_what_earlier_kits_of_the_person_found_and_that_look_is_audited(site):
    with site.home.begin() as session:
        person = build.person(session)
        to = build.contact(session, person)
        earlier = build.dispatched_kit(session, of=person, to=to)
        build.results(session, earlier, ALL_NEGATIVE | {CHLAMYDIA: Outcome.POSITIVE})
        now = build.dispatched_kit(session, of=person, to=to)
        build.results(session, now, REACTIVE)
        path = f"/cases/{session.exec(select(ClinicCase.ref).where(ClinicCase.kit_id == now.id)).one()}"

    assert "Chlamydia, vaginal: positive ; 3 negative" in words(site.signed_in("demo-adviser").get(path))
    [look] = [entry for entry in web.audited(site.db) if entry["action"] == "kit.results_seen"]
    assert (look["subject_id"], look["detail"]["versions"]) == (earlier.id, 4)
