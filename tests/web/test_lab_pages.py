"""The lab desk over HTTP: what waits, one row beside our reading of it, and everything that may be done to it."""

import csv
import io
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.lab_messages import MllpDesk
from flows.ingest_results import ingest_waiting_files
from models.actions.seal import set_seal
from models.rules.kit import ALPHABET, show_kit_code
from models.rules.lab import PLAIN
from models.rules.staff import Actor, Role
from models.rules.vocabulary import Outcome, Test
from tests.support.ingesting import READ_AT, ask, ingest, lab_maps, services, take, with_column
from tests.support.lab_files import LONG, hl7, long_table
from tests.support.many_kits import send_kits
from tests.support.memory_store import MemoryStore
from tests.support.web import audited, hidden_fields


@pytest.fixture
def store(site):
    """A store in memory, and the shipped council, whose laboratories have maps."""
    site.home.hands["now"] = READ_AT
    vars(site.home).update(store=MemoryStore(), services=services(site.home.begin))
    return site.home.store


@pytest.fixture
def kits(site):
    with site.home.begin() as session:
        return send_kits(session, 3)


@pytest.fixture
def begin(site):
    return site.home.begin


@pytest.fixture
def misspelt(begin, kits, store):
    """A row with a wrong kit id, and one in a word that is not agreed."""
    chlamydia, *others = kits[0].rows()
    wrong = kits[0].code[:-1] + next(c for c in ALPHABET if c != kits[0].code[-1])
    odd = kits[1].rows()[0]._replace(value="Not detekted")
    take(begin, hl7([chlamydia._replace(kit=wrong, tube=""), *others, odd]), store=store)
    return {reason: f"/labs/rows/{ref}" for reason, ref in ask(begin, "SELECT reason, ref FROM quarantined_row")}


def test_the_desk_shows_what_waits_what_came_and_who_is_late(site, misspelt):
    page = site.signed_in("demo-lab").get("/labs").text

    assert "Rows that wait: 2." in page
    assert "Bad kit id" in page
    assert "Unknown token" in page
    assert re.search(r">Results used</span>3<", page)
    assert re.search(r">Set aside</span>2<", page)


def test_the_desk_names_files_of_its_laboratories_that_lie_unread(site, begin, store):
    for key in ("northlab/incoming/a.hl7", "UNKNOWN/incoming/b.hl7"):
        store.modified[store.put(key, b"x")] = datetime.now(UTC) - timedelta(days=2)
    ingest_waiting_files(ingest(begin, store), limit=5)

    page = site.signed_in("demo-lab").get("/labs").text

    assert "Files unread for a day: <strong" in page
    assert "northlab/incoming/a.hl7" in page
    assert "It lies where no results are looked for" in page
    assert "UNKNOWN" not in page


def test_a_control_id_that_was_used_twice_stands_on_the_desk_with_its_word(site, kits, store):
    desk = MllpDesk(ingest(site.home.begin, store))
    for kit in kits[:2]:
        content = hl7(kit.rows(message_id="0001"))
        desk.take("NORTHLAB", content[content.index(b"MSH") : content.index(b"BTS")])

    lara = site.signed_in("demo-lab")
    page = lara.get("/labs").text

    assert "Messages refused: none." in page
    assert "Taken: control id reuse" in page
    assert "Ask the laboratory why one id names two messages." in page
    ((ref,),) = ask(site.home.begin, "SELECT ref FROM clinic_case")
    case = lara.get(f"/cases/{ref}").text
    assert "Control id reuse" in case
    assert not re.search("the whole file was held|Not used", case)


def test_messages_that_were_refused_are_counted_on_the_desk(site, kits, store):
    desk = MllpDesk(ingest(site.home.begin, store))
    for kit in (kits[0], kits[1], kits[1]):
        content = hl7(kit.rows(application="WINLIMS2", message_id=kit.code))
        desk.take("NORTHLAB", content[content.index(b"MSH") : content.index(b"BTS")])

    page = site.signed_in("demo-lab").get("/labs").text

    assert 'Messages refused: <strong class="late">2</strong>.' in page
    assert "Refused: unknown sender" in page
    assert "sent 3 times" in page


def test_only_those_who_look_after_laboratories_are_led_there(site):
    assert 'href="/labs"' in site.signed_in("demo-lab").get("/worklist").text
    assert 'href="/labs"' not in site.signed_in("demo-adviser").get("/worklist").text


def test_a_row_stands_beside_todays_reading_of_it_and_the_look_is_recorded(site, misspelt):
    page = misspelt["unknown_token"]
    doctor = site.signed_in("demo-clinician")
    assert "Not detekted" not in doctor.get(page).text

    shown = doctor.send(page, f"{page}/show").text

    assert "Not detekted" in shown
    assert "set aside" in shown.casefold()
    assert "Nearest known: not detected" in shown
    assert [entry["action"] for entry in audited(site.db)][-1] == "lab_row.read"


def test_a_value_that_todays_map_reads_and_holds_is_said_to_be_held_and_why(site, begin, kits, store):
    odd = kits[0].rows()[0]._replace(value="Negatif", comment="Rang the ward.")
    take(begin, hl7([odd]), store=store)
    northlab = lab_maps()["NORTHLAB"]
    known = northlab.outcomes[Test.CHLAMYDIA] | {(PLAIN, "negatif"): Outcome.NEGATIVE}
    agreed = replace(northlab, outcomes={**northlab.outcomes, Test.CHLAMYDIA: known})
    vars(site.home)["lab_maps"] = {**lab_maps(), "NORTHLAB": agreed}
    ((ref,),) = ask(begin, "SELECT ref FROM quarantined_row")

    shown = site.signed_in("demo-clinician").send(f"/labs/rows/{ref}", f"/labs/rows/{ref}/show").text

    assert "A person reads this result first. A comment is not on the reviewed list." in shown


def test_a_row_that_may_be_bad_news_is_not_shown_to_the_lab_desk(site, misspelt):
    page = misspelt["unknown_token"]
    lara = site.signed_in("demo-lab")

    assert "a clinician must read it" in lara.get(page).text
    token = re.search(r'name="csrf" value="([^"]+)"', lara.get(page).text)[1]
    assert lara.http.post(f"{page}/show", data={"csrf": token}).status_code == 403


def test_without_its_file_a_row_is_still_shown(site, misspelt, store):
    store.objects.clear()
    page = misspelt["unknown_token"]

    shown = site.signed_in("demo-clinician").send(page, f"{page}/show").text

    assert "Not detekted" in shown
    assert "The file is not in the store" in shown


@pytest.fixture
def of_an_earlier_map(site, begin, kits, store):
    """The page of a row in a table from before the laboratory's map had one more column."""
    odd = kits[0].rows(LONG)[0]._replace(value="Negatif")
    take(begin, long_table([odd, *kits[0].rows(LONG)[1:]]), ending="csv", store=store)
    vars(site.home)["lab_maps"] = {**lab_maps(), "NORTHLAB": with_column(lab_maps()["NORTHLAB"], "Batch")}
    ((ref,),) = ask(begin, "SELECT ref FROM quarantined_row")
    return f"/labs/rows/{ref}"


def test_a_row_of_an_earlier_maps_columns_is_shown_beside_the_reason_why_it_cant_be_read(site, of_an_earlier_map):
    shown = site.signed_in("demo-clinician").send(of_an_earlier_map, f"{of_an_earlier_map}/show")

    assert shown.status_code == 200
    assert "Negatif" in shown.text
    assert "columns are those of an earlier map" in shown.text


def test_reading_such_a_row_again_is_refused_in_one_sentence_and_the_desk_goes_on(site, of_an_earlier_map):
    lara = site.signed_in("demo-lab")

    alone = lara.send(of_an_earlier_map, f"{of_an_earlier_map}/replay")
    assert alone.status_code == 409
    assert "columns are those of an earlier map" in alone.text
    assert "Nothing was changed" in alone.text

    all_of_them = lara.send("/labs", "/labs/replay", lab="NORTHLAB", reason="unknown_token")
    assert all_of_them.status_code == 200
    assert "Files that could not be read: 1." in all_of_them.text
    assert "columns are those of an earlier map" in all_of_them.text


def test_attaching_such_a_row_is_refused_in_one_sentence(site, begin, kits, store):
    wrong = kits[0].code[:-1] + next(c for c in ALPHABET if c != kits[0].code[-1])
    misspelt = kits[0].rows(LONG)[0]._replace(kit=wrong, tube="")
    take(begin, long_table([misspelt, *kits[0].rows(LONG)[1:]]), ending="csv", store=store)
    vars(site.home)["lab_maps"] = {**lab_maps(), "NORTHLAB": with_column(lab_maps()["NORTHLAB"], "Batch")}
    ((ref,),) = ask(begin, "SELECT ref FROM quarantined_row WHERE reason = 'bad_kit_id'")

    refused = site.signed_in("demo-lab").send(f"/labs/rows/{ref}", f"/labs/rows/{ref}/attach", code=kits[0].code)

    assert refused.status_code == 409
    assert "columns are those of an earlier map" in refused.text


def test_reading_again_says_what_came_of_it(site, misspelt):
    page = misspelt["unknown_token"]
    lara = site.signed_in("demo-lab")

    assert (
        "0 of 1 rows are used now, 0 wait for another reason, 1 read as before."
        in lara.send(page, f"{page}/replay").text
    )
    assert "0 of 1 rows are used now" in lara.send("/labs", "/labs/replay").text


def test_a_row_sent_back_stands_on_the_laboratorys_list_without_a_person(site, misspelt, kits):
    page = misspelt["bad_kit_id"]
    lara = site.signed_in("demo-lab")
    assert "It waits here until it comes again" in lara.send(page, f"{page}/send-back").text

    answer = lara.get("/labs/lists/NORTHLAB")
    head, row = csv.reader(io.StringIO(answer.text))

    assert head == [
        "file",
        "line",
        "accession",
        "reason",
        "what_to_mend",
        "sent_back_on",
        "message_id",
        "correlation_id",
    ]
    assert row[2:4] == [kits[0].rows()[0].accession, "bad_kit_id"]
    assert kits[0].family not in answer.text
    assert answer.headers["content-disposition"] == 'attachment; filename="northlab-sent-back.csv"'


def test_two_people_take_a_misspelt_row_as_a_kits(site, misspelt, kits, begin):
    page = misspelt["bad_kit_id"]
    lara, doctor = site.signed_in("demo-lab"), site.signed_in("demo-clinician")

    wrong = lara.send(page, f"{page}/attach", code=kits[2].code + "1")
    assert wrong.status_code == 409
    assert "Nothing was changed" in wrong.text

    assert "A second, senior person" in lara.send(page, f"{page}/attach", code=kits[0].code + "1").text
    assert "It is this kit" not in lara.get(page).text
    assert "waits for a clinician" in doctor.send(page, f"{page}/settle", approve="true").text
    assert ask(begin, "SELECT outcome, note_review FROM result_version WHERE kit_id = :id AND test = 'chlamydia'",
               id=kits[0].id) == [("negative", True)]  # fmt: skip


def test_a_row_becomes_a_sealed_records_only_by_two_people_who_opened_it_with_a_reason(site, misspelt, kits, begin):
    page, boss = misspelt["bad_kit_id"], Actor("boss", frozenset({Role.CLINICIAN}), frozenset({"larkfield"}))
    ((person_id,),) = ask(begin, "SELECT person_id FROM kit WHERE id = :id", id=kits[0].id)
    with begin() as session:
        set_seal(session, person_id=person_id, service_id="larkfield", sealed=True, by=boss, now=READ_AT)
    lara, doctor = site.signed_in("demo-lab"), site.signed_in("demo-clinician")
    code, shown = kits[0].code + "1", show_kit_code(kits[0].code)

    shut = lara.send(page, f"{page}/attach", code=code)
    assert (shut.status_code, "Sealed record" in shut.text, "agrees" in shut.text) == (403, True, False)
    reason = {**hidden_fields(shut.text, f"{page}/break-seal"), "because": "the laboratory rang about it"}
    assert "You broke the seal" in lara.http.post(f"{page}/break-seal", data=reason, follow_redirects=True).text
    assert "A second, senior person" in lara.send(page, f"{page}/attach", code=code).text

    seen = doctor.get(page).text
    assert (shown in seen, "agrees with this kit" in seen, "It is this kit’s" in seen) == (False, False, False)
    token = {"csrf": hidden_fields(seen, f"{page}/break-seal")["csrf"]}
    assert doctor.http.post(f"{page}/settle", data={**token, "approve": "true"}).status_code == 403
    opened = doctor.send(page, f"{page}/break-seal", because="the laboratory rang about it").text
    assert shown in opened
    assert "waits for a clinician" in doctor.send(page, f"{page}/settle", approve="true").text


def test_a_held_file_is_read_again_when_somebody_says_so(site, kits, begin, store):
    take(begin, hl7(kits[0].rows())[:-20], store=store)
    lara = site.signed_in("demo-lab")
    form = re.search(r'action="(/labs/files/\w+/again)"', lara.get("/labs").text)[1]

    assert "the next run reads it" in lara.send("/labs", form).text
    ingest_waiting_files(ingest(begin, store), limit=5)
    assert ask(begin, "SELECT state FROM lab_file ORDER BY id") == [("held",), ("held",)]


def test_a_held_file_that_can_not_be_put_back_is_said_to_be(site, kits, begin, store):
    take(begin, hl7(kits[0].rows())[:-20], store=store)
    lara = site.signed_in("demo-lab")
    form = re.search(r'action="(/labs/files/\w+/again)"', lara.get("/labs").text)[1]
    store.objects.clear()

    answer = lara.send("/labs", form)

    assert (answer.status_code, "not where it was kept" in answer.text) == (409, True)


def test_no_page_of_the_desk_names_a_person_or_what_it_is_about_in_its_address_or_title(site, misspelt, kits):
    lara = site.signed_in("demo-lab")
    for page in ("/labs", *misspelt.values()):
        text = lara.get(page).text
        assert not re.search("|".join(kit.family for kit in kits), text)
        assert re.search(r"<title>(Laboratories|Row in quarantine) – kitpost</title>", text)
