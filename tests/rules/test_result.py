"""What a lab's row means: ordinary messages that are easy to read wrongly, one sentence each."""

import itertools
import string
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules.lab import IndexBands, fold_token
from models.rules.reading import Detail, Finding, Quarantined, Reading
from models.rules.result import interpret
from models.rules.vocabulary import BLOOD_TESTS, Outcome, Quarantine, ReportStatus, Site, Test
from tests.support.lab import KIT, OTHER_KIT, PID, message, messages, northlab, obr, obx, only, ordered, read, said, say

GCN = "GCN^Neisseria gonorrhoeae NAAT^NORTHLAB"
HIVS = "HIVS^HIV 1/2 Ag/Ab screen^NORTHLAB"
HIVC = "HIVC^HIV screen cut-off index^NORTHLAB"
TREP = "TREP^Treponema pallidum total antibody^NORTHLAB"
BLOOD = {"specimen": "CAP^Capillary blood^NORTHLAB", "placer": f"{KIT}-2^ANYSVC"}


def test_an_ordinary_row_is_read_with_all_that_orders_and_matches_it() -> None:
    found = only(message())

    assert isinstance(found, Finding)
    assert (found.test, found.site, found.outcome, found.status) == (
        Test.CHLAMYDIA,
        Site.VAGINAL,
        Outcome.NEGATIVE,
        ReportStatus.FINAL,
    )
    assert (found.kit_code, found.tube_code, found.dob) == ("T4JWW75K3Y", "T4JWW75K3Y1", date(1999, 2, 14))
    assert (found.family_name, found.accession, found.message_id) == ("kit", "26V0451201", "NL1")
    assert found.lab_time == datetime(2026, 11, 2, 17, 39, tzinfo=UTC)
    assert found.authorised_at == datetime(2026, 11, 2, 17, 40, tzinfo=UTC)


# ── Value ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", ["not detected", "NOT DETECTED", "  Not   detected ", "Not\u00a0detected"])
def test_case_and_space_do_not_change_a_word(value: str) -> None:
    assert said(ordered(obx(value))) == ["negative"]


@pytest.mark.parametrize(
    "value",
    [
        "NOT",
        "Not",
        "Not detected.",
        "detected not",
        "Negative",
        "NEG",
        "ND",
        "NR",
        "0",
        "-",
        "Non-reactive",
        "REACTIVE",
    ],
)
def test_a_word_that_is_not_agreed_is_never_a_result(value: str) -> None:
    assert said(ordered(obx(value))) == ["unknown_token"]


@given(st.text(string.ascii_letters + string.digits + " -+/?.", max_size=24))
def test_no_unseen_word_is_ever_negative(value: str) -> None:
    agreed = {word for (_, word), outcome in northlab().outcomes[Test.CHLAMYDIA].items() if outcome is Outcome.NEGATIVE}

    outcome = said(ordered(obx(value)))

    assert outcome != ["negative"] or fold_token(value) in agreed


@pytest.mark.parametrize("value", ["", '""', "SEE NOTE", "DNR", "PENDING", "."])
def test_a_final_row_without_a_value_is_never_a_result(value: str) -> None:
    assert said(ordered(obx(value))) == ["empty_value"]


def test_a_repeated_value_that_says_the_same_is_one_result() -> None:
    assert said(ordered(obx("Not detected~NOT DETECTED"))) == ["negative"]


@pytest.mark.parametrize("value", ["Not detected~DETECTED", "Not detected~", "Not detected~XYZ"])
def test_a_repeated_value_that_differs_is_for_a_person(value: str) -> None:
    assert said(ordered(obx(value))) == ["conflicting_values"]


def test_two_rows_that_differ_for_one_test_are_both_for_a_person() -> None:
    assert said(ordered(obx("Not detected"), obx("DETECTED"))) == ["conflicting_values"] * 2


def test_a_row_beside_one_that_is_not_understood_is_not_released() -> None:
    assert said(ordered(obx("Not detected"), obx("see text"))) == ["conflicting_values", "unknown_token"]


def test_two_rows_that_agree_are_two_findings() -> None:
    assert said(ordered(obx(), obx())) == ["negative", "negative"]


def test_different_sub_ids_do_not_hide_a_contradiction() -> None:
    assert said(ordered(obx(sub_id="1"), obx("DETECTED", sub_id="2"))) == ["conflicting_values"] * 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("260415000^Not detected^SCT", "negative"),
        ("260415000^Not detected (qualifier value)^SNOMED-CT", "negative"),
        ("260415000^^SNM", "negative"),
        ("^Not detected^", "negative"),
        ("Not detected^^", "negative"),
        ("260373001^Detected^SCT", "positive"),
        ("^^^260415000^Not detected^SCT", "negative"),
        ("260415000^Detected^SCT", "code_display_conflict"),
        ("260415000^Not detected^SCT^260373001^Detected^SCT", "code_display_conflict"),
        ("260415000^Very likely not there^SCT", "code_display_conflict"),
        ("260415000^Not detected^ICD10", "unknown_token"),
        ("999999^Not detected^SCT", "unknown_token"),
        ("^^", "empty_value"),
    ],
)
def test_a_coded_value_counts_only_if_code_and_text_agree(value: str, expected: str) -> None:
    assert said(ordered(obx(value, kind="CWE"))) == [expected]


def test_a_number_is_no_result_of_a_swab() -> None:
    assert said(ordered(obx("0.2", kind="NM"))) == ["unknown_token"]


@pytest.mark.parametrize("kind", ["ED", "RP", "XX"])
def test_a_value_of_an_unread_type_is_no_result(kind: str) -> None:
    assert said(ordered(obx("Not detected", kind=kind))) == ["unknown_token"]


@pytest.mark.parametrize("code", [HIVS, TREP, "HBSA^Hepatitis B surface antigen^NORTHLAB", "HCVA^Hepatitis C^NORTHLAB"])
@pytest.mark.parametrize("value", ["POSITIVE", "Detected", "Reactive"])
def test_a_blood_screen_reacts_and_is_never_positive(code: str, value: str) -> None:
    assert said(ordered(obx(value, code=code), **BLOOD)) == ["reactive"]


def test_a_coded_positive_of_a_blood_screen_is_reactive() -> None:
    assert said(ordered(obx("10828004^Positive^SCT", kind="CE", code=HIVS), **BLOOD)) == ["reactive"]


# ── Flags ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "flag", "expected"),
    [
        ("Not detected", "N", "negative"),
        ("Not detected", "", "negative"),
        ("Not detected", '""', "negative"),
        ("Not detected", "NEG~N", "negative"),
        ("Not detected", "A", "flag_conflict"),
        ("Not detected", "N~A", "flag_conflict"),
        ("Not detected", "POS", "flag_conflict"),
        ("Not detected", "*", "flag_conflict"),
        ("DETECTED", "A", "positive"),
        ("DETECTED", "N", "flag_conflict"),
        ("Equivocal", "IND", "equivocal"),
        ("Insufficient", "N", "insufficient"),
    ],
)
def test_a_flag_may_contradict_a_value_but_never_makes_one(value: str, flag: str, expected: str) -> None:
    assert said(ordered(obx(value, flag=flag))) == [expected]


def test_a_normal_flag_on_a_row_that_was_not_done_is_no_negative() -> None:
    assert said(ordered(obx("", flag="N", status="X"))) == ["cancelled_no_reason"]


# ── Status ───────────────────────────────────────────────────────────────────────────────────

RELEASABLE_ROW = {"F", "C"}


@pytest.mark.parametrize(("row", "order"), list(itertools.product(string.ascii_uppercase, repeat=2)))
def test_only_final_or_corrected_on_both_levels_gives_a_finding(row: str, order: str) -> None:
    outcome = said(ordered(obx(status=row), status=order))

    assert (outcome == ["negative"]) == (row in RELEASABLE_ROW and order in {"F", "C"})


@pytest.mark.parametrize("row", ["", "f", "M", "FF", '""'])
def test_a_missing_or_unknown_row_status_is_for_a_person(row: str) -> None:
    assert said(ordered(obx(status=row))) == ["unknown_status"]


@pytest.mark.parametrize("order", ["", "Y", "Z", "f", '""'])
def test_a_missing_or_unknown_order_status_is_for_a_person(order: str) -> None:
    assert said(ordered(obx(), status=order)) == ["unknown_status"]


@pytest.mark.parametrize("status", ["P", "R", "S", "I", "O"])
@pytest.mark.parametrize("value", ["Not detected", "DETECTED", "", "anything"])
def test_a_preliminary_row_waits_whatever_it_says(status: str, value: str) -> None:
    found = only(ordered(obx(value, status=status)))

    assert isinstance(found, Finding)
    assert (found.outcome, found.status) == (Outcome.PENDING, ReportStatus.PRELIMINARY)


def test_a_final_row_of_a_partial_order_stands_if_another_row_is_still_open() -> None:
    results = (obx(), obx("Presumptive reactive", code=GCN, status="P"))

    assert said(ordered(*results, status="P")) == ["negative", "pending"]
    assert said(ordered(*results, status="A")) == ["negative", "pending"]
    assert said(ordered(*results, status="I")) == ["pending", "pending"]


def test_an_order_that_is_not_final_is_believed_where_every_row_says_final() -> None:
    assert said(ordered(obx(), obx(code=GCN), status="P")) == ["pending", "pending"]


def test_an_open_row_of_another_order_explains_nothing() -> None:
    content = message(obr(status="P"), obx(), obr(status="P", **BLOOD), obx("", code=HIVS, status="I"))

    assert said(content) == ["pending", "pending"]


@pytest.mark.parametrize("status", ["W", "D"])
def test_a_withdrawn_row_is_withdrawn_whatever_value_it_still_carries(status: str) -> None:
    found = only(ordered(obx("DETECTED", status=status)))

    assert isinstance(found, Finding)
    assert (found.outcome, found.status) == (Outcome.WITHDRAWN, ReportStatus.WITHDRAWN)


def test_a_corrected_order_marks_its_final_rows_for_comparison() -> None:
    corrected, unchanged = read(ordered(obx("DETECTED", status="C"), obx(code=GCN), status="C"))

    assert isinstance(corrected, Finding)
    assert isinstance(unchanged, Finding)
    assert (corrected.status, corrected.order_corrected) == (ReportStatus.CORRECTED, False)
    assert (unchanged.status, unchanged.order_corrected) == (ReportStatus.FINAL, True)


@pytest.mark.parametrize("order", ["P", "I", "X", "M"])
def test_a_correction_under_an_order_that_is_not_final_is_for_a_person(order: str) -> None:
    assert said(ordered(obx("DETECTED", status="C"), status=order)) == ["unknown_status"]


@pytest.mark.parametrize("status", ["A", "B", "U", "V"])
def test_a_status_that_changes_an_earlier_report_is_for_a_person(status: str) -> None:
    assert said(ordered(obx(status=status))) == ["status_review"]


@pytest.mark.parametrize(("value", "outcome"), [("QNS", "insufficient"), ("Haemolysed", "haemolysed")])
def test_a_cancelled_row_fails_for_its_reason(value: str, outcome: str) -> None:
    found = only(ordered(obx(value, code=HIVS, status="X"), **BLOOD))

    assert isinstance(found, Finding)
    assert (found.outcome, found.status) == (outcome, ReportStatus.CANCELLED)


def test_a_cancelled_row_may_give_its_reason_in_a_comment_which_still_holds_it() -> None:
    found = only(ordered(obx("", status="X"), "NTE|1|L|Sample leaked"))

    assert isinstance(found, Finding)
    assert (found.outcome, found.note_review, found.urgent_note) == (Outcome.LEAKED, True, True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("QNS^Insufficient sample^NORTHLAB", "insufficient"),
        ("^Insufficient sample", "insufficient"),
        ("260373001^Insufficient sample^SCT", "code_display_conflict"),
        ("260373001^Detected^SCT", "cancelled_no_reason"),
        ("QNS^DETECTED^NORTHLAB", "code_display_conflict"),
        ("QNS^Haemolysed^NORTHLAB", "conflicting_values"),
        ("QNS^Something else^NORTHLAB", "code_display_conflict"),
        ("7^QNS^NORTHLAB", "unknown_token"),
    ],
)
def test_all_that_a_cancelled_row_says_must_be_one_reason(value: str, expected: str) -> None:
    assert said(ordered(obx(value, code=HIVS, kind="CWE", status="X"), **BLOOD)) == [expected]
    assert said(ordered(obx("QNS~DETECTED", status="X"))) == ["conflicting_values"]
    assert said(ordered(obx("QNS~Something else", status="X"))) == ["unknown_token"]


def test_a_cancelled_order_for_several_tests_fails_for_its_reason_in_each() -> None:
    found = read(message(obr(status="X"), "NTE|1|L|Sample leaked"))

    assert [(each.test, each.outcome, each.note_review) for each in found if isinstance(each, Finding)] == [
        (Test.CHLAMYDIA, Outcome.LEAKED, True),
        (Test.GONORRHOEA, Outcome.LEAKED, True),
    ]
    assert said(message(obr(status="X"))) == ["combined_result"]


@pytest.mark.parametrize("value", ["", "Not detected", "DETECTED", "because"])
def test_a_cancelled_row_without_an_agreed_reason_is_for_a_person(value: str) -> None:
    assert said(ordered(obx(value, status="X"))) == ["cancelled_no_reason"]


def test_a_row_in_a_cancelled_order_is_not_a_result() -> None:
    assert said(ordered(obx("Not detected"), status="X")) == ["cancelled_no_reason"]


def test_a_row_that_was_not_asked_for_says_so_unless_it_has_a_value() -> None:
    assert said(ordered(obx("", status="N"))) == ["not_requested"]
    assert said(ordered(obx("DETECTED", status="N"))) == ["unknown_status"]


@pytest.mark.parametrize(
    ("status", "expected"), [("I", ["pending"]), ("X", ["cancelled_no_reason"]), ("F", ["empty_value"])]
)
def test_an_order_without_results_does_not_vanish(status: str, expected: list[str]) -> None:
    assert said(message(obr(panel=HIVS, status=status, **BLOOD))) == expected


def test_a_pending_panel_without_results_is_accounted_for_and_is_no_result() -> None:
    (detail,) = read(message(obr(panel="BBVS^Screen^NORTHLAB", status="I", **BLOOD)))

    assert isinstance(detail, Detail)


# ── Test and site ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("CTN", "negative"),
        ("ctn^^L", "negative"),
        ("^^^CTN^Chlamydia^NORTHLAB", "negative"),
        ("21613-5^C trach DNA^LN", "negative"),
        ("CTN^Chlamydia^NORTHLAB^21613-5^C trach DNA^LN", "negative"),
        ("CTN^Chlamydia^NORTHLAB^99999-9^Something^LN", "negative"),
        ("CTN^Chlamydia^NORTHLAB^24111-7^N gonorrhoeae DNA^LN", "code_display_conflict"),
        ("CTN^Neisseria gonorrhoeae NAAT^NORTHLAB", "code_display_conflict"),
        ("CTN^Chlamydia^OTHERLAB", "unknown_test"),
        ("21613-5^C trach DNA^NORTHLAB", "unknown_test"),
        ("MGN^Mycoplasma genitalium NAAT^NORTHLAB", "unknown_test"),
        ("", "unknown_test"),
        ("Chlamydia", "unknown_test"),
    ],
)
def test_a_test_counts_only_by_an_agreed_code(code: str, expected: str) -> None:
    assert said(ordered(obx(code=code))) == [expected]


def test_an_unknown_code_brings_the_nearest_known_ones_and_applies_none() -> None:
    found = only(ordered(obx(code="CTX^Chlamydia^NORTHLAB")))

    assert isinstance(found, Quarantined)
    assert "ctn" in found.detail


@pytest.mark.parametrize("value", ["CT/GC not detected", "C. trachomatis DETECTED, N. gonorrhoeae not detected"])
@pytest.mark.parametrize("code", ["CTGC^Chlamydia and gonorrhoea NAAT^NORTHLAB", "36902-5^CT+GC^LN", "CTN^^NORTHLAB"])
def test_one_value_for_two_organisms_is_split_only_by_the_map(code: str, value: str) -> None:
    assert said(ordered(obx(value, code=code))) == ["combined_result"]


@pytest.mark.parametrize(
    ("specimen", "site"),
    [
        ("VVS^Vulvovaginal swab^NORTHLAB", "vaginal"),
        ("VVS&Vulvovaginal swab&NORTHLAB", "vaginal"),
        ("^^URINE", "urine"),
        ("urn", "urine"),
        ("^Rectal swab", "rectal"),
        ("698276005^^SCT", "urine"),
        ("VVS^Self taken^NORTHLAB", "vaginal"),
    ],
)
def test_a_site_is_read_however_the_specimen_is_written(specimen: str, site: str) -> None:
    found = only(ordered(obx(), specimen=specimen))

    assert isinstance(found, Finding)
    assert found.site == site


@pytest.mark.parametrize(
    ("specimen", "reason"),
    [
        ("", "site_unknown"),
        ("^Unspecified", "site_unknown"),
        ("XYZ^Something^NORTHLAB", "site_unknown"),
        ("^Left elbow", "site_unknown"),
        ("CAP^Capillary blood^NORTHLAB", "specimen_conflict"),
        ("VVS^Rectal swab^NORTHLAB", "specimen_conflict"),
        ("VVS^Swab of the rectum^NORTHLAB", "specimen_conflict"),
    ],
)
def test_a_swab_without_a_certain_site_is_for_a_person(specimen: str, reason: str) -> None:
    assert said(ordered(obx(), specimen=specimen)) == [reason]


@pytest.mark.parametrize("specimen", ["", "^Unspecified"])
def test_a_test_with_one_site_needs_no_specimen(specimen: str) -> None:
    found = only(ordered(obx("Non-reactive", code=HIVS), specimen=specimen))

    assert isinstance(found, Finding)
    assert found.site is Site.BLOOD


def test_a_blood_test_from_a_swab_is_for_a_person() -> None:
    assert said(ordered(obx("Non-reactive", code=HIVS))) == ["specimen_conflict"]


# ── Index ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("word", "index", "kind", "expected"),
    [
        ("Non-reactive", "0.12", "NM", ["negative"]),
        ("Non-reactive", "<^1.0", "SN", ["negative"]),
        ("Non-reactive", "1.0", "NM", ["conflicting_values"]),
        ("Non-reactive", "3.2", "NM", ["conflicting_values"]),
        ("Non-reactive", "<^2", "SN", ["conflicting_values"]),
        ("Reactive", ">^42.7", "SN", ["reactive"]),
        ("Reactive", "10.0", "NM", ["reactive"]),
        ("Reactive", "9.99", "NM", ["low_reactive"]),
        ("Reactive", "1.0", "NM", ["low_reactive"]),
        ("Reactive", ">^5", "SN", ["reactive"]),
        ("Reactive", "0.4", "NM", ["conflicting_values"]),
        ("Equivocal", "0.95", "NM", ["equivocal"]),
        ("Equivocal", "9.9", "NM", ["equivocal"]),
        ("Equivocal", "10.0", "NM", ["conflicting_values"]),
        ("Equivocal", ">^5", "SN", ["conflicting_values"]),
        ("QNS", "42.7", "NM", ["conflicting_values"]),
    ],
)
def test_the_cut_off_index_must_agree_with_the_screen(word: str, index: str, kind: str, expected: list[str]) -> None:
    content = ordered(obx(word, code=HIVS), obx(index, code=HIVC, kind=kind), **BLOOD)

    assert said(content) == expected


def test_where_low_reactive_begins_is_the_assays_and_stands_in_the_lab_map() -> None:
    another_assay = replace(northlab(), index_bands={Test.HIV: IndexBands(0.9, 20.0)})
    content = ordered(obx("Reactive", code=HIVS), obx("15.0", code=HIVC, kind="NM"), **BLOOD)

    assert said(content) == ["reactive"]
    assert said(content, another_assay) == ["low_reactive"]


@pytest.mark.parametrize(
    ("specimen", "code", "days", "expected"),
    [
        ("VVS^Vulvovaginal swab^NORTHLAB", "CTN^Chlamydia^NORTHLAB", 60, "negative"),
        ("VVS^Vulvovaginal swab^NORTHLAB", "CTN^Chlamydia^NORTHLAB", 61, "too_old"),
        ("URN^Urine^NORTHLAB", "CTN^Chlamydia^NORTHLAB", 31, "too_old"),
        ("CAP^Capillary blood^NORTHLAB", HIVS, 14, "negative"),
        ("CAP^Capillary blood^NORTHLAB", HIVS, 15, "too_old"),
    ],
)
def test_a_sample_older_than_the_assay_allows_is_not_used(specimen: str, code: str, days: int, expected: str) -> None:
    received = date(2026, 11, 2)
    word = "Non-reactive" if code == HIVS else "Not detected"
    order = {"collected": f"{received - timedelta(days=days):%Y%m%d}", "received": f"{received:%Y%m%d}0812"}

    assert said(ordered(obx(word, code=code), specimen=specimen, **order)) == [expected]


def test_without_a_time_of_receipt_the_sample_is_as_old_as_its_test() -> None:
    old = {"collected": "20260701", "received": ""}

    assert said(ordered(obx(), **old)) == ["too_old"]


@pytest.mark.parametrize(
    ("collected", "expected"),
    [
        ("202610", "negative"),
        ("202607", "too_old"),
        ("202609", "too_old"),  # 1 September may be 62 days before, 30 September is not
        ("2026", "too_old"),
        ("202612", "date_implausible"),
        ("2027", "date_implausible"),
        ("202613", "date_implausible"),
        ("2026-10", "date_implausible"),
    ],
)
def test_a_month_without_a_day_counts_from_its_first(collected: str, expected: str) -> None:
    assert said(ordered(obx(), collected=collected, received="202611020812")) == [expected]


@pytest.mark.parametrize(
    ("index", "kind", "expected"),
    [
        ("1^:^8", "SN", "unknown_token"),
        ("0.1 COI", "ST", "unknown_token"),
        ("0,1", "NM", "unknown_token"),
        ("", "NM", "negative"),
        ('""', "NM", "negative"),
        ("see text", "ST", "unknown_token"),
        ("0.1~42.7", "NM", "conflicting_values"),
        ("0.1~0.1", "NM", "negative"),
    ],
)
def test_a_screen_whose_index_can_not_be_read_is_for_a_person(index: str, kind: str, expected: str) -> None:
    assert said(ordered(obx("Non-reactive", code=HIVS), obx(index, code=HIVC, kind=kind), **BLOOD)) == [expected]


def test_a_reactive_is_told_to_a_person_whatever_its_index_says() -> None:
    found = only(ordered(obx("Reactive", code=HIVS), obx("5.2 COI", code=HIVC), **BLOOD))
    held = ordered(obx("Reactive", code=HIVS), obx("0.1~42.7", code=HIVC, kind="NM"), **BLOOD)

    assert isinstance(found, Finding)
    assert (found.outcome, found.note_review) == (Outcome.REACTIVE, True)
    assert said(held) == ["conflicting_values"]


@pytest.mark.parametrize(("flag", "status"), [("H", "F"), ("", "P"), ("", "I"), ("", "X"), ("", "W"), ("", "D")])
def test_a_blank_index_that_says_something_else_keeps_the_negative_for_a_person(flag: str, status: str) -> None:
    found = read(
        ordered(obx("Non-reactive", code=HIVS), obx("", code=HIVC, kind="NM", flag=flag, status=status), **BLOOD)
    )

    assert not any(isinstance(each, Finding) and not each.note_review for each in found)


def test_a_blank_index_alone_does_not_vanish() -> None:
    assert said(ordered(obx("", code=HIVC, kind="NM"), **BLOOD)) == ["conflicting_values"]


@pytest.mark.parametrize(
    ("index", "status", "expected"),
    [
        ("42.7", "F", "conflicting_values"),
        ("0.1~42.7", "F", "conflicting_values"),
        ("42.7", "X", "insufficient"),
        ("", "X", "insufficient"),
        ("", "F", "insufficient"),
    ],
)
def test_an_index_was_measured_where_the_screen_is_said_to_have_failed(index: str, status: str, expected: str) -> None:
    rows = (obx("QNS", code=HIVS, status="X"), obx(index, code=HIVC, kind="NM", status=status))

    assert said(ordered(*rows, **BLOOD)) == [expected]


def test_an_index_that_can_not_be_read_beside_a_failed_screen_is_read_by_a_person() -> None:
    found = only(ordered(obx("QNS", code=HIVS, status="X"), obx("42.7 COI", code=HIVC), **BLOOD))

    assert isinstance(found, Finding)
    assert (found.outcome, found.note_review) == (Outcome.INSUFFICIENT, True)


@pytest.mark.parametrize("first", ["F", "C", "P", "I", "W", "D", "X"])
@pytest.mark.parametrize("index", ["F", "C", "P", "X"])
@pytest.mark.parametrize("of_the", ["first", "last"])
def test_no_negative_stands_unread_beside_a_reactive_index_whatever_their_times(
    first: str, index: str, of_the: str
) -> None:
    early, late = "20261102101500", "20261102160000"
    content = ordered(
        obx("QNS" if first == "X" else "Non-reactive", code=HIVS, status=first, at=early),
        obx("42.7", code=HIVC, kind="NM", status=index, at=early if of_the == "first" else late),
        obx("Non-reactive", code=HIVS, at=late),
        **BLOOD,
    )

    findings = [each for each in read(content) if isinstance(each, Finding) and each.outcome is Outcome.NEGATIVE]
    told = [each for each in read(content) if not isinstance(each, Finding) or each.note_review]

    assert told, "somebody reads it"
    assert first in {"F", "C"} or all(each.note_review for each in findings)


def test_an_index_that_is_not_final_holds_the_screen() -> None:
    found = only(ordered(obx("Non-reactive", code=HIVS), obx("0.1", code=HIVC, kind="NM", status="P"), **BLOOD))

    assert isinstance(found, Finding)
    assert found.note_review


@pytest.mark.parametrize("late", ["20261102160000", "20261102101500"], ids=["by time", "by status"])
@pytest.mark.parametrize(("first", "second"), [("0.2", "42"), ("0.2", "3.2")])
def test_each_of_two_words_about_a_screen_has_its_own_index(first: str, second: str, late: str) -> None:
    early = "20261102101500"
    content = ordered(
        obx("Non-reactive", code=HIVS, at=early),
        obx(first, code=HIVC, kind="NM", at=early),
        obx("Reactive", code=HIVS, status="C", at=late),
        obx(second, code=HIVC, kind="NM", status="C", at=late),
        **BLOOD,
    )

    assert said(content) == ["negative", "reactive" if second == "42" else "low_reactive"]


def test_an_index_alone_is_no_result() -> None:
    assert said(ordered(obx("0.1", code=HIVC, kind="NM"), **BLOOD)) == ["conflicting_values"]


def test_an_unlisted_comment_on_the_index_holds_the_screen() -> None:
    content = ordered(
        obx("Non-reactive", code=HIVS), obx("0.1", code=HIVC, kind="NM"), "NTE|1|L|Please repeat", **BLOOD
    )

    found = only(content)

    assert isinstance(found, Finding)
    assert (found.note_review, found.comment) == (True, "Please repeat")


def beside(*index: str) -> list[Reading]:
    """What a screen that is negative and the index in these segments come to."""
    return read(message(obr(filler="26V1^NORTHLAB", **BLOOD), obx("Non-reactive", code=HIVS), *index))


INDEX_ORDER = obr(filler="26V1^NORTHLAB", **BLOOD)
SPOILT = "SPM|1||||||||||||||||||||Haemolysed"


@pytest.mark.parametrize(
    ("segments", "said"),
    [
        ((obx("", code=HIVC, kind="NM"), "NTE|1|L|Reacted in a second assay"), "Reacted in a second assay"),
        ((INDEX_ORDER, "NTE|1|L|Please repeat", obx("0.1", code=HIVC, kind="NM")), "Please repeat"),
        ((INDEX_ORDER, obx("0.1", code=HIVC, kind="NM"), SPOILT), "Haemolysed"),
    ],
    ids=["a blank index", "its order", "its specimen"],
)
def test_what_is_said_of_an_index_is_read_with_the_screen(segments: tuple[str, ...], said: str) -> None:
    found = beside(*segments)[0]

    assert isinstance(found, Finding)
    assert (found.outcome, found.note_review, found.comment) == ("negative", True, said)


@pytest.mark.parametrize(
    ("segments", "reason"),
    [
        ((obr(placer=f"{KIT}-1^ANYSVC", filler="26V1", specimen="CAP"),), "identity_conflict"),
        ((PID.replace("19990214", "19990215"), INDEX_ORDER), "identity_conflict"),
        ((PID.replace("Kit^", "Kite^"), INDEX_ORDER), "identity_conflict"),
        ((obr(placer=f"{OTHER_KIT}-2^ANYSVC", filler="26V1"),), "tube_mismatch"),
        ((f"ORC|RE|{OTHER_KIT}^ANYSVC", INDEX_ORDER), "identity_conflict"),
        ((obr(placer="T4J-WW7-5K3Y-0^ANYSVC", filler="26V1"),), "bad_kit_id"),
        ((PID.replace("19990214", "1999"), INDEX_ORDER), "identity_missing"),
    ],
    ids=["tube", "birth", "name", "kit", "two kits", "spelling", "no birth"],
)
def test_an_index_that_may_be_anothers_is_for_a_person_and_holds_the_screen(
    segments: tuple[str, ...], reason: str
) -> None:
    found, index = beside(*segments, obx("42.7", code=HIVC, kind="NM"))

    assert isinstance(found, Finding)
    assert isinstance(index, Quarantined)
    assert (found.outcome, found.note_review, index.reason) == ("negative", True, reason)
    assert index.may_be_non_negative
    if reason == "identity_conflict" and index.kit_code is None:
        assert index.kits_named == tuple(sorted(kit.replace("-", "") for kit in (KIT, OTHER_KIT)))


def test_more_indexes_than_are_compared_hold_the_screen_and_take_no_time() -> None:
    found, *indexes = beside(*[obx("0.1", code=HIVC, kind="NM")] * 5_000)

    assert isinstance(found, Finding)
    assert found.note_review
    assert {say(each) for each in indexes} == {"conflicting_values"}


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ((obx("42.7", code=HIVC, kind="NM", status="M"),), "unknown_status"),
        (("ORC|CA", INDEX_ORDER, obx("42.7", code=HIVC, kind="NM")), "unknown_status"),
    ],
)
def test_an_index_that_can_not_be_heard_holds_the_screen_too(index: tuple[str, ...], reason: str) -> None:
    found, kept = beside(*index)

    assert isinstance(found, Finding)
    assert isinstance(kept, Quarantined)
    assert (found.outcome, found.note_review, kept.reason) == ("negative", True, reason)


def test_a_failed_test_with_an_index_that_failed_too_is_a_failed_test() -> None:
    failed = obx("QNS", code=HIVS, status="X"), obx("", code=HIVC, kind="NM", status="X")
    found = only(ordered(*failed, "SPM|1||||||||||||||||||||QNS", **BLOOD))

    assert isinstance(found, Finding)
    assert (found.outcome, found.note_review) == ("insufficient", False)


def test_a_comment_of_many_lines_beside_many_rows_takes_no_time() -> None:
    note = "\\.br\\".join(f"line {number}" for number in range(1_000))
    screens = [obx("Non-reactive", code=HIVS)] * 50 + [obx("0.1", code=HIVC, kind="NM")] * 50
    found = read(message(obr(**BLOOD), f"NTE|1|L|{note}", *screens))

    assert all(each.note_review for each in found if isinstance(each, Finding))


@pytest.mark.parametrize(("kind", "value"), [("SN", "^"), ("NM", '""'), ("ST", "")])
def test_an_index_that_is_none_says_nothing(kind: str, value: str) -> None:
    found = beside(obx(value, code=HIVC, kind=kind))[0]

    assert isinstance(found, Finding)
    assert (found.outcome, found.note_review) == ("negative", False)


@pytest.mark.parametrize(
    ("specimen", "value", "expected", "is_held"),
    [
        ("QNS", "QNS", "insufficient", False),
        ("QS|||Wrong patient", "QNS", "insufficient", True),
        ("QNS~RH", "", "conflicting_values", None),
        ("QNS~QS", "", "insufficient", False),
        ("^QNS^L", "", "insufficient", False),
        ("^Wrong patient^L", "QNS", "insufficient", True),
    ],
)
def test_every_reason_to_reject_a_specimen_counts(
    specimen: str,
    value: str,
    expected: str,
    is_held: bool | None,  # noqa: FBT001
) -> None:
    found = only(ordered(obx(value, status="X"), f"SPM|1||||||||||||||||||||{specimen}"))

    assert say(found) == expected
    assert is_held is None or (isinstance(found, Finding) and found.note_review is is_held)


# ── Comments ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("note", "held"),
    [
        ("Dual target NAAT \\T\\ internal control valid.", False),
        ("dual target naat & internal  control valid.".replace("&", "\\T\\"), False),
        ("Dual target NAAT \\T\\ internal control valid. Specimen leaked.", True),
        ("Repeat advised", True),
        ("", False),
    ],
)
def test_only_a_reviewed_comment_lets_a_result_go(note: str, held: bool) -> None:  # noqa: FBT001
    found = only(ordered(obx(), f"NTE|1|L|{note}"))

    assert isinstance(found, Finding)
    assert found.note_review is held


def test_a_reviewed_comment_may_be_spread_over_lines() -> None:
    notes = ("NTE|1|L|Screening assay only.", "NTE|2|L|A venous sample is required for confirmation.")

    found = only(ordered(obx(), *notes))

    assert isinstance(found, Finding)
    assert not found.note_review


@pytest.mark.parametrize("place", ["person", "order", "result"])
def test_a_comment_holds_all_that_it_is_about(place: str) -> None:
    note = "NTE|1|L|Result from another sample"
    segments = [obr(), obx(), obx(code=GCN), obr(filler="26V0451202", **BLOOD), obx("Non-reactive", code=HIVS)]
    at = {"person": 0, "order": 1, "result": 2}[place]
    orc = "" if place == "person" else "ORC|RE"

    readings = read(message(*segments[:at], note, *segments[at:], orc=orc))

    held = [r.note_review for r in readings if isinstance(r, Finding)]
    assert held == {"person": [True] * 3, "order": [True, True, False], "result": [True, False, False]}[place]


def test_a_text_of_a_flag_or_a_rejection_without_a_code_is_not_passed_over() -> None:
    found = only(ordered(obx(), "SPM|1||||||||||||||||||||^Leaked in transit^L"))

    assert isinstance(found, Finding)
    assert found.note_review
    assert said(ordered(obx(flag="^Abnormal^L"))) == ["flag_conflict"]


# ── Identity ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dob", ["", "1999", "199902", "19990230", '""', "14/02/1999", "1999021"])
def test_without_a_full_date_of_birth_nobody_is_known(dob: str) -> None:
    assert said(message(pid=PID.replace("19990214", dob))) == ["identity_missing"]


def test_a_time_behind_the_date_of_birth_does_not_matter() -> None:
    found = only(message(pid=PID.replace("19990214", "199902141230+0000")))

    assert isinstance(found, Finding)
    assert found.dob == date(1999, 2, 14)


def test_without_a_patient_nobody_is_known() -> None:
    assert said(message(pid="")) == ["identity_missing"]


def test_a_tube_id_alone_names_the_kit() -> None:
    found = only(message(obr(), obx(), pid="PID|1||||Kit^Testina||19990214", orc="ORC|RE||26V1"))

    assert isinstance(found, Finding)
    assert (found.kit_code, found.tube_code) == ("T4JWW75K3Y", "T4JWW75K3Y1")


@pytest.mark.parametrize("written", ["t4j-ww7-5k3y-1", "T4JWW75K3Y1", " T4J WW7 5K3Y 1 "])
def test_a_kit_id_is_read_however_it_is_typed(written: str) -> None:
    assert said(message(obr(placer=written), obx())) == ["negative"]


@given(st.integers(0, len(KIT) - 1), st.sampled_from("23456789CDFHJKMNPRTVWXYAEO01"))
def test_one_wrong_character_of_a_kit_id_is_never_a_finding(at: int, character: str) -> None:
    wrong = KIT[:at] + character + KIT[at + 1 :]

    outcome = said(message().replace(KIT, wrong))

    assert outcome == ["bad_kit_id"] or wrong == KIT


def test_a_tube_of_another_kit_is_for_a_person() -> None:
    assert said(message(obr(placer=f"{OTHER_KIT}-1"), obx())) == ["tube_mismatch"]


def test_two_kits_in_one_row_are_for_a_person() -> None:
    assert said(message(pid=PID.replace(KIT, OTHER_KIT), orc=f"ORC|RE|{KIT}")) == ["identity_conflict"]


def test_no_id_at_all_is_for_a_person() -> None:
    assert said(message(obr(placer=""), obx(), pid="PID|1||||Kit^T||19990214", orc="ORC|RE")) == ["identity_missing"]


def test_a_hospital_number_beside_the_kit_id_is_no_kit_id() -> None:
    pid = PID.replace(f"{KIT}^^^ANYSVC^KIT", f"A123456^^^TRUST^MR~{KIT}^^^ANYSVC^KIT~9434765919^^^NHS^NHS")

    found = only(message(pid=pid))

    assert isinstance(found, Finding)
    assert (found.kit_code, found.nhs_number) == ("T4JWW75K3Y", "9434765919")


def test_two_patients_in_one_message_never_mix() -> None:
    second = PID.replace(KIT, OTHER_KIT).replace("19990214", "19880630")
    content = message(
        obr(), obx(), second, f"ORC|RE|{OTHER_KIT}", obr(placer=f"{OTHER_KIT}-1", filler="26V2"), obx("DETECTED")
    )

    first, other = read(content)

    assert isinstance(first, Finding)
    assert isinstance(other, Finding)
    assert (first.kit_code, first.dob, first.outcome) == ("T4JWW75K3Y", date(1999, 2, 14), Outcome.NEGATIVE)
    assert (other.kit_code, other.dob, other.outcome) == ("W8JPVM8V7R", date(1988, 6, 30), Outcome.POSITIVE)


def test_a_quarantined_row_tells_nothing_personal() -> None:
    found = only(message(obr(placer=f"{OTHER_KIT}-1"), obx("Testina Kit"), pid=PID))

    assert isinstance(found, Quarantined)
    assert not {"testina", "kit^", "1999"} & set(found.detail.casefold().split())


# ── Times ────────────────────────────────────────────────────────────────────────────────────


def test_a_time_without_offset_is_london_time() -> None:
    found = only(ordered(obx(at="20260701120000"), collected="20260630", received="20260701"))

    assert isinstance(found, Finding)
    assert found.lab_time == datetime(2026, 7, 1, 11, tzinfo=UTC)


def test_an_hour_that_comes_twice_is_the_later_one_and_is_marked() -> None:
    found = only(ordered(obx(at="202610250130"), collected="20261020", received="202610240812"))

    assert isinstance(found, Finding)
    assert (found.lab_time, found.time_doubtful) == (datetime(2026, 10, 25, 1, 30, tzinfo=UTC), True)


@pytest.mark.parametrize(
    ("collected", "received", "tested", "expected"),
    [
        ("202611020700", "202611020812", "20261102090000", "negative"),
        ("202611022300", "202611020812", "20261103090000", "date_implausible"),
        ("20261102", "202611020812", "20261102090000", "negative"),
        ("20261030", "202611030300", "20261102173900", "date_implausible"),
        ("20261030", "202611021830", "20261102173900", "negative"),
        ("20261102081245", "202611020812", "20261102090000", "negative"),
        ("20261102081345", "202611020812", "20261102090000", "date_implausible"),
    ],
)
def test_times_that_contradict_each_other_are_for_a_person(
    collected: str, received: str, tested: str, expected: str
) -> None:
    order = {"collected": collected, "received": received, "reported": "20261103100000"}

    assert said(ordered(obx(at=tested), **order)) == [expected]


def test_an_offset_spelled_as_a_component_counts() -> None:
    found = only(ordered(obx(at="20260701120000^0000"), collected="20260630", received="20260701"))

    assert isinstance(found, Finding)
    assert found.lab_time == datetime(2026, 7, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "times",
    [
        {"collected": "20261103", "received": "20261102"},
        {"collected": "20270101", "received": ""},
        {"received": "20271102"},
        {"collected": "20261341"},
        {"reported": "yesterday"},
        {"reported": "20200101"},
        {"reported": "20990101"},
    ],
)
def test_impossible_times_are_for_a_person(times: dict[str, str]) -> None:
    assert said(ordered(obx(), **times)) == ["date_implausible"]


@pytest.mark.parametrize("at", ["20990101120000", "20200101120000"])
def test_a_test_before_its_sample_or_after_its_message_is_for_a_person(at: str) -> None:
    """Its time orders versions: far ahead it would freeze every later word of the laboratory."""
    assert said(ordered(obx(at=at))) == ["date_implausible"]


@pytest.mark.parametrize("collected", ["", "202610"])
def test_an_imprecise_time_of_collection_is_no_fault(collected: str) -> None:
    found = only(ordered(obx(), collected=collected))

    assert isinstance(found, Finding)
    assert found.collected_at is None


# ── The message ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mark", ["T", "D", "", "P^T", "p"])
def test_only_a_live_message_gives_findings(mark: str) -> None:
    outcome = said(message().replace("|NL1|P|", f"|NL1|{mark}|"))

    assert (outcome == ["negative"]) == (mark == "P^T")
    assert outcome in (["negative"], ["test_message"])


@given(
    st.lists(
        st.builds(
            obx,
            st.sampled_from(["Not detected", "DETECTED", "", "QNS", "odd", "Non-reactive", "Not detected~DETECTED"]),
            code=st.sampled_from(["CTN", "GCN", "HIVS", "HIVC", "CTGC", "NOPE"]),
            status=st.sampled_from("FPCXWDINUAB"),
            flag=st.sampled_from(["", "N", "A"]),
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from("FPCXAI"),
)
def test_every_row_that_comes_in_is_accounted_for_once(results: list[str], status: str) -> None:
    (found,) = messages(ordered(*results, status=status))

    readings = interpret(found, northlab())

    accounted = [key for key, _ in itertools.groupby(r.row_key for r in readings)]
    assert accounted == [row.row_key for row in found.rows]
    assert not any(isinstance(r, Finding) and r.test in BLOOD_TESTS and r.outcome is Outcome.POSITIVE for r in readings)


@pytest.mark.parametrize("reason", [Quarantine.UNKNOWN_TOKEN, Quarantine.UNKNOWN_STATUS])
def test_a_row_that_might_not_be_negative_says_so(reason: Quarantine) -> None:
    content = ordered(obx("odd")) if reason is Quarantine.UNKNOWN_TOKEN else ordered(obx(status="M"))

    found = only(content)

    assert isinstance(found, Quarantined)
    assert found.reason is reason
    assert found.may_be_non_negative


def test_a_negative_row_with_a_wrong_kit_id_can_wait_and_a_positive_one_can_not() -> None:
    negative = only(message().replace(KIT, "T4J-WW7-5K3X"))
    positive = only(message(obr(), obx("DETECTED")).replace(KIT, "T4J-WW7-5K3X"))

    assert isinstance(negative, Quarantined)
    assert isinstance(positive, Quarantined)
    assert (negative.may_be_non_negative, positive.may_be_non_negative) == (False, True)
