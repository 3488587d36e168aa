"""Every row of a lab file becomes a version, a repeat, or waits for a person; nothing is overwritten or lost."""

from dataclasses import replace

import pytest
from sqlalchemy import text

from flows.ingest_results import ingest_waiting_files
from flows.reconcile import strike
from models.rules.lab import fold_token
from models.rules.vocabulary import Outcome, Test
from tests.support import build, lab_files
from tests.support.ingesting import (
    READ_AT,
    ask,
    case_of,
    drop_bytes,
    effects_of,
    ingest,
    lab_maps,
    quarantined,
    take,
    texts_of,
)
from tests.support.lab_files import hl7
from tests.support.many_kits import send_kits, share_an_address
from tests.support.memory_store import MemoryStore

EARLIER, LATER = "2026-11-02T09:00", "2026-11-03T09:00"
RESULT_TEXTS = {"all_clear", "swab_positive", "failed_sample"}


@pytest.fixture
def kit(begin):
    with begin() as session:
        return send_kits(session, 1)[0]


@pytest.fixture
def pair(begin):
    with begin() as session:
        return send_kits(session, 2, seed=2)


def said(kit, message_id, *, at=LATER, **of_chlamydia):
    """One message about a kit: four negatives, but for what the chlamydia row says."""
    chlamydia, *others = kit.rows(at=at, message_id=message_id)
    return hl7([chlamydia._replace(**of_chlamydia), *others])


def no_result_text(begin, kit):
    return not RESULT_TEXTS & {purpose for purpose, state in texts_of(begin, kit.id) if state == "owed"}


def is_even(begin):
    return strike(begin, lambda: READ_AT).differences == ()


# ── Versions ─────────────────────────────────────────────────────────────────────────────────


def test_first_results_are_current_versions_and_prove_that_the_sample_arrived(begin, kit):
    take(begin, said(kit, "one"))

    assert effects_of(begin, kit.id, "chlamydia") == [("negative", "first")]
    assert ask(begin, "SELECT state, received_at IS NOT NULL, reported_at IS NOT NULL FROM kit") == [
        ("reported", True, True)
    ]
    kinds = ask(begin, "SELECT kind, count(*) FROM kit_event GROUP BY kind ORDER BY kind")
    assert kinds == [("kit.reported", 1), ("lab.received", 1), ("results.stored", 1)]


def test_a_message_that_comes_again_in_another_file_is_a_replay(begin, kit):
    take(begin, said(kit, "one"))
    again = take(begin, hl7(kit.rows(at=LATER, message_id="one"), control_id="other-file"))

    assert (again.rows, again.replayed, again.stored, again.decided) == (4, 4, 0, 0)
    assert len(texts_of(begin, kit.id)) == 1


def test_a_new_message_that_says_what_is_current_is_linked_without_effect(begin, kit):
    take(begin, said(kit, "one"))
    again = take(begin, said(kit, "two", at="2026-11-04T09:00"))

    assert (again.repeated, again.stored, again.decided) == (4, 0, 0)
    assert ask(begin, "SELECT count(DISTINCT version_id) FROM result_repeat") == [(4,)]
    assert texts_of(begin, kit.id) == [("all_clear", "owed")]


def test_a_wait_that_becomes_final_is_progress(begin, kit):
    take(begin, said(kit, "one", at=EARLIER, status="P"))
    assert no_result_text(begin, kit)

    take(begin, said(kit, "two", at=LATER))

    assert effects_of(begin, kit.id, "chlamydia") == [("pending", "first"), ("negative", "progress")]
    assert ("all_clear", "owed") in texts_of(begin, kit.id)


def test_an_interim_word_older_than_the_final_one_is_history(begin, kit):
    take(begin, said(kit, "two", at=LATER))
    take(begin, said(kit, "one", at=EARLIER, status="P"))

    assert effects_of(begin, kit.id, "chlamydia") == [("negative", "first"), ("pending", "out_of_order")]
    assert texts_of(begin, kit.id) == [("all_clear", "owed")]


def test_an_interim_word_newer_than_the_final_one_takes_the_result_back(begin, kit):
    take(begin, said(kit, "one", at=EARLIER))
    take(begin, said(kit, "two", at=LATER, status="P"))

    assert effects_of(begin, kit.id, "chlamydia") == [("negative", "first"), ("pending", "correction")]
    assert ("all_clear", "cancelled") in texts_of(begin, kit.id)
    assert case_of(begin, kit.id) is not None


@pytest.mark.parametrize("status", ["C", "F"])
def test_a_newer_and_different_final_word_is_a_correction_and_both_are_kept(begin, kit, status):
    take(begin, said(kit, "one", at=EARLIER))
    take(begin, said(kit, "two", at=LATER, status=status, value="DETECTED"))

    assert effects_of(begin, kit.id, "chlamydia") == [("negative", "first"), ("positive", "correction")]
    assert case_of(begin, kit.id) == ("correction", "clinician")
    assert no_result_text(begin, kit)


@pytest.mark.parametrize(("status", "at"), [("C", LATER), ("C", EARLIER), ("W", EARLIER), ("F", EARLIER)])
def test_a_correction_or_bad_news_that_is_not_newer_freezes_the_kit(begin, kit, status, at):
    take(begin, said(kit, "one", at=LATER))
    take(begin, said(kit, "two", at=at, status=status, value="DETECTED"))

    assert effects_of(begin, kit.id, "chlamydia")[1][1] == "frozen"
    assert ask(begin, "SELECT outcome, (SELECT frozen_at IS NOT NULL FROM kit) FROM result_series "
                      "WHERE test = 'chlamydia'") == [("negative", True)]  # fmt: skip
    assert texts_of(begin, kit.id) == [("all_clear", "cancelled")]
    assert case_of(begin, kit.id) == ("correction", "clinician")
    assert is_even(begin)  # what froze it is an item of its case


def test_a_better_word_older_than_the_current_one_is_history(begin, kit):
    take(begin, said(kit, "two", at=LATER, value="DETECTED"))
    take(begin, said(kit, "one", at=EARLIER))

    assert effects_of(begin, kit.id, "chlamydia") == [("positive", "first"), ("negative", "out_of_order")]


def test_two_final_words_of_one_time_go_to_a_person(begin, kit):
    take(begin, said(kit, "one"))
    take(begin, said(kit, "two", value="DETECTED"))

    assert effects_of(begin, kit.id, "chlamydia") == [("negative", "first")]
    assert quarantined(begin, kit.id) == ["conflicting_values"]
    assert texts_of(begin, kit.id) == [("all_clear", "cancelled")]


def test_a_correction_of_something_never_received_is_current_and_a_persons(begin, kit):
    take(begin, said(kit, "one", status="C"))

    assert effects_of(begin, kit.id, "chlamydia") == [("negative", "first")]
    assert no_result_text(begin, kit)
    assert case_of(begin, kit.id) == ("correction", "clinician")


def test_a_final_word_in_a_corrected_order_with_nothing_to_compare_it_with_is_a_persons(begin, kit):
    take(begin, hl7(kit.rows(order_status="C")))

    assert no_result_text(begin, kit)
    assert case_of(begin, kit.id) == ("correction", "clinician")


def test_a_comment_unlike_the_one_already_there_is_read_too(begin, kit):
    take(begin, said(kit, "one", comment="Specimen slightly short."))
    take(begin, said(kit, "two", comment="Result is from another sample."))

    assert effects_of(begin, kit.id, "chlamydia") == [("negative", "first"), ("negative", "progress")]


def test_the_same_comment_again_is_a_repeat(begin, kit):
    take(begin, said(kit, "one", comment="Specimen slightly short."))
    again = take(begin, said(kit, "two", comment="Specimen slightly short."))

    assert (again.repeated, again.stored) == (4, 0)


# ── Whose it is ──────────────────────────────────────────────────────────────────────────────


def test_a_second_accession_of_a_tube_goes_to_a_person(begin, kit):
    take(begin, hl7(kit.rows(at=EARLIER)))
    take(begin, hl7(kit.rows(at=LATER, accession="26V9999999", value="Not detected")[:1]))

    assert quarantined(begin, kit.id) == ["second_accession"]
    assert texts_of(begin, kit.id) == [("all_clear", "cancelled")]


@pytest.mark.parametrize("link", ["suffix", "parent"])
def test_a_reflex_test_is_no_second_accession(begin, kit, link):
    first = kit.rows(at=EARLIER)
    accession = first[0].accession + "R" if link == "suffix" else "26V9999999"
    parent = "" if link == "suffix" else f"{first[0].accession}&NORTHLAB"
    take(begin, hl7(first))
    take(begin, hl7(kit.rows(at=LATER, accession=accession, parent=parent, value="Equivocal")[:1]))

    assert quarantined(begin, kit.id) == []
    assert effects_of(begin, kit.id, "chlamydia") == [("negative", "first"), ("equivocal", "correction")]


def test_a_reflex_before_its_screen_is_final_waits_for_a_person(begin, kit):
    screen, *others = kit.rows(at=EARLIER)
    take(begin, hl7([screen._replace(status="P"), *others]))
    take(begin, hl7([screen._replace(at=LATER, accession=f"{screen.accession}R")]))

    assert effects_of(begin, kit.id, "chlamydia") == [("pending", "first"), ("negative", "progress")]
    assert no_result_text(begin, kit)


def test_a_reflex_that_is_held_as_early_keeps_the_comment_that_holds_it(begin, kit):
    screen, *others = kit.rows(at=EARLIER)
    take(begin, hl7([screen._replace(status="P"), *others]))
    early = screen._replace(at=LATER, accession=f"{screen.accession}R", comment="Result is from another sample.")
    take(begin, hl7([early]))

    [sealed] = ask(
        begin,
        "SELECT v.comment, concat_ws(':', f.ref, v.position, v.row_key) FROM result_version v "
        "JOIN lab_file f ON f.id = v.file_id WHERE v.comment IS NOT NULL",
    )
    comment = build.cipher().decrypt("result_version", "comment", sealed[1], sealed[0])
    assert comment == "Result is from another sample.\nA reflex test came before its screen was final."


def test_a_screen_whose_order_is_called_final_without_its_result_lets_no_reflex_through(begin, kit):
    *others, hiv, syphilis = kit.rows(at=EARLIER)
    take(begin, hl7([*others, hiv._replace(status="P"), syphilis]))
    reflex = hiv._replace(at=LATER, accession="26V9999999", parent=f"{hiv.accession}&NORTHLAB")
    message = hl7([reflex]).decode()
    order = next(line for line in message.split("\r") if line.startswith("OBR"))
    screen = "|".join([*order.split("|")[:3], f"{hiv.accession}^NORTHLAB", "HIVS^^NORTHLAB", *order.split("|")[5:26]])
    take(begin, message.replace(order, f"{screen}\r{order}", 1).encode())

    assert no_result_text(begin, kit)
    assert case_of(begin, kit.id) is not None


def test_a_panel_that_waited_and_then_comes_whole_is_told(begin, kit):
    first = kit.rows(at=EARLIER)
    number = first[0].accession
    children = [
        row._replace(at=LATER, accession=f"{number}{place}", parent=f"{number}&NORTHLAB")
        for place, row in enumerate(first[:2])
    ]
    waiting = hl7([row._replace(status="P", value="") for row in first[:2]] + first[2:])
    take(begin, waiting)
    whole = hl7(children).decode()
    order = next(line for line in whole.split("\r") if line.startswith("OBR"))
    head = "|".join([*order.split("|")[:3], f"{number}^NORTHLAB", *order.split("|")[4:26]])
    take(begin, whole.replace(order, f"{head}\r{order}", 1).encode())

    assert ("all_clear", "owed") in texts_of(begin, kit.id)


def test_a_parent_that_is_not_the_report_we_have_links_nothing(begin, kit):
    take(begin, hl7(kit.rows(at=EARLIER)))
    take(begin, hl7(kit.rows(at=LATER, accession="26V9999999", parent="26V7777777&NORTHLAB")[:1]))

    assert quarantined(begin, kit.id) == ["second_accession"]


@pytest.mark.parametrize("in_one_file", [True, False])
def test_an_accession_of_one_kit_is_never_anothers_whatever_the_test(begin, pair, in_one_file):
    mine, other = pair
    first = mine.rows(accession="26V0000001")[:2]
    second = other.rows(accession="26V0000001")[2:]
    if in_one_file:
        take(begin, hl7([*first, *second]))
    else:
        take(begin, hl7(first))
        take(begin, hl7(second))

    assert quarantined(begin, mine.id) == []
    assert quarantined(begin, other.id) == ["identity_conflict", "identity_conflict"]
    assert case_of(begin, other.id) == ("identity", "clinician")


SPOILT = {
    "date of birth": (lambda _k, o: {"born": o.born}, "identity_mismatch"),
    "no date of birth": (lambda _k, _o: {"born": ""}, "identity_missing"),
    "half a date of birth": (lambda _k, _o: {"born": "199902"}, "identity_missing"),
    "family name": (lambda _k, o: {"family": o.family}, "identity_conflict"),
    "another kit's tube": (lambda _k, o: {"tube": o.rows()[0].tube}, None),
    "the other tube": (lambda k, _o: {"tube": k.rows()[2].tube}, "specimen_conflict"),
    "site": (lambda _k, _o: {"site": "RES"}, "specimen_conflict"),
    "test": (lambda _k, _o: {"test": "XYZ"}, "unknown_test"),
    "word": (lambda _k, _o: {"value": "Not detected?"}, "unknown_token"),
    "status": (lambda _k, _o: {"status": "Q"}, "unknown_status"),
}


@pytest.mark.parametrize("field", SPOILT)
def test_one_thing_that_does_not_agree_stops_the_kit_and_names_the_reason(begin, kit, pair, field):
    change, reason = SPOILT[field]
    chlamydia, *others = kit.rows()
    take(begin, hl7([chlamydia._replace(**change(kit, pair[0])), *others]))

    assert effects_of(begin, kit.id, "chlamydia") == []
    found = quarantined(begin, kit.id)
    assert len(found) == 1
    assert reason is None or found == [reason]
    assert no_result_text(begin, kit)
    assert case_of(begin, kit.id) is not None
    assert is_even(begin)


def test_a_swap_of_two_people_in_one_file_stops_both_kits_and_links_their_cases(begin, pair):
    mine, other = pair
    take(begin, hl7([*mine.rows(born=other.born, family=""), *other.rows(born=mine.born, family="")]))

    for kit, its in ((mine, other), (other, mine)):
        assert set(quarantined(begin, kit.id)) == {"crossed_samples"}
        assert case_of(begin, kit.id) == ("identity", "clinician")
        linked = ask(begin, "SELECT detail -> 'crossed_with' FROM clinic_case WHERE kit_id = :id", id=kit.id)
        assert linked == [([its.code],)]
    assert ask(begin, "SELECT count(*) FROM text WHERE purpose <> 'delayed'") == [(0,)]
    assert is_even(begin)


def test_only_one_persons_birthday_on_the_other_ones_kit_stops_both_of_a_household(begin, pair):
    mine, other = pair
    share_an_address(begin, mine, other)
    take(begin, hl7(other.rows()))
    assert texts_of(begin, other.id) == [("all_clear", "owed")]

    take(begin, hl7(mine.rows(born=other.born, family="")))

    for kit in pair:
        assert set(quarantined(begin, kit.id)) == {"crossed_samples"}
        assert case_of(begin, kit.id) == ("identity", "clinician")
    assert texts_of(begin, other.id) == [("all_clear", "cancelled")]
    assert is_even(begin)


def test_a_birthday_alone_accuses_nobody_outside_the_household(begin, pair):
    mine, other = pair
    take(begin, hl7([*mine.rows(born=other.born, family=""), *other.rows()]))

    assert set(quarantined(begin, mine.id)) == {"identity_mismatch"}
    assert quarantined(begin, other.id) == []
    assert texts_of(begin, other.id) == [("all_clear", "owed")]


def test_name_and_birthday_of_another_kit_in_the_file_stop_both(begin, pair):
    mine, other = pair
    take(begin, hl7([*mine.rows(born=other.born, family=other.family), *other.rows()]))

    assert set(quarantined(begin, mine.id)) == set(quarantined(begin, other.id)) == {"crossed_samples"}
    assert ask(begin, "SELECT count(*) FROM text WHERE state = 'owed' AND purpose <> 'delayed'") == [(0,)]


def test_a_tube_of_one_kit_on_the_form_of_another_stops_both_kits(begin):
    with begin() as session:
        mine, other = send_kits(session, 2, born="1990-05-17", family="Twin")
    chlamydia, *rest = mine.rows()
    take(begin, hl7([chlamydia._replace(tube=other.rows()[0].tube), *rest, *other.rows()]))

    for kit in (mine, other):
        assert quarantined(begin, kit.id) == ["crossed_samples"]
        assert case_of(begin, kit.id) == ("identity", "clinician")
        assert no_result_text(begin, kit)
    assert is_even(begin)


def test_a_kit_that_never_left_us_can_have_no_result_and_a_clinician_looks(begin, db, kit):
    with db.owner_engine.begin() as owner:
        owner.execute(text("UPDATE kit SET state = 'printed', dispatched_at = NULL"))
    take(begin, hl7(kit.rows()))

    assert set(quarantined(begin, kit.id)) == {"never_dispatched"}
    assert case_of(begin, kit.id) == ("identity", "clinician")
    assert ask(begin, "SELECT count(*) FROM result_version") == [(0,)]


def test_a_kit_of_another_laboratory_is_not_this_ones(begin):
    with begin() as session:
        (kit,) = send_kits(session, 1, lab="QUAYSIDE")
    take(begin, hl7(kit.rows()))

    assert set(quarantined(begin, kit.id)) == {"unknown_kit"}


def test_rows_of_no_kit_of_ours_are_kept_in_one_case_of_the_lab_for_each_reason(begin, kit):
    stranger = "T4J-WW7-5K3Y"
    take(begin, hl7(kit.rows(kit=stranger, tube=f"{stranger}-1")))

    assert ask(begin, "SELECT kind, lab, owner_role, detail ->> 'quarantine' FROM clinic_case ORDER BY id") == [
        ("lab_row", "NORTHLAB", "lab_liaison", "unknown_kit")
    ]
    assert ask(begin, "SELECT count(*) FROM quarantined_row WHERE kit_id IS NULL") == [(4,)]


def test_a_wrong_check_character_is_said_to_be_one(begin, kit):
    wrong = kit.rows()[0].kit[:-1] + ("2" if kit.code[-1] != "2" else "3")
    take(begin, hl7(kit.rows(kit=wrong, tube=wrong + "-1")[:1]))

    assert ask(begin, "SELECT reason FROM quarantined_row") == [("bad_kit_id",)]


# ── One bad row ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("accession", ["A" * 200, "A\\X00\\B"], ids=["too long", "with a NUL"])
def test_an_accession_that_the_database_could_not_hold_stops_its_row_and_not_its_file(begin, kit, pair, accession):
    tally = take(begin, hl7([*kit.rows(accession=accession), *pair[0].rows()]))

    assert set(quarantined(begin, kit.id)) == {"malformed"}
    assert tally.stored == 4
    assert texts_of(begin, pair[0].id) == [("all_clear", "owed")]


def test_a_message_id_longer_than_any_is_no_obstacle(begin, kit):
    take(begin, hl7(kit.rows(message_id="M" * 300)))

    assert texts_of(begin, kit.id) == [("all_clear", "owed")]


def test_a_row_of_two_results_that_is_not_this_kits_waits_once(begin, kit):
    both = {Test.CHLAMYDIA: Outcome.NEGATIVE, Test.GONORRHOEA: Outcome.NEGATIVE}
    northlab = replace(lab_maps()["NORTHLAB"], combined_outcomes={fold_token("CT/GC not detected"): both})
    store = MemoryStore()
    drop_bytes(store, hl7(kit.rows(test="CTGC", value="CT/GC not detected", born="1955-05-05")[:1]))

    ingest_waiting_files(replace(ingest(begin, store), maps={"NORTHLAB": northlab}), limit=1)

    assert quarantined(begin, kit.id) == ["identity_mismatch"]
    assert is_even(begin)


def test_what_waits_can_be_read_by_nobody_without_the_key(begin, kit):
    take(begin, hl7(kit.rows(born="1955-05-05")))

    (raw,) = ask(begin, "SELECT raw FROM quarantined_row LIMIT 1")[0]
    assert kit.family.encode() not in bytes(raw)
    assert b"1955" not in bytes(raw)


def test_rows_of_every_format_are_accounted_for(begin):
    with begin() as session:
        north, south, quay, bundle = (
            send_kits(session, 1, lab=lab, seed=7 + n)[0]
            for n, lab in enumerate(("NORTHLAB", "SOUTHVALE", "QUAYSIDE", "NORTHLAB"))
        )
    take(begin, lab_files.long_table(north.rows(lab_files.LONG)), ending="csv")
    take(begin, lab_files.wide_table(south.rows(lab_files.WIDE)), lab="SOUTHVALE", ending="csv")
    take(begin, lab_files.quoted_table(quay.rows(lab_files.QUOTED)), lab="QUAYSIDE", ending="csv")
    take(begin, lab_files.fhir(bundle.rows(lab_files.FHIR)), ending="json")

    assert ask(begin, "SELECT purpose, count(*) FROM text GROUP BY purpose") == [("all_clear", 4)]
    assert ask(begin, "SELECT sum(rows_read), sum(rows_detail) FROM lab_file") == [(22, 6)]
    assert is_even(begin)
