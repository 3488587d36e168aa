"""FHIR R4 by closed checks: what the report says, whose it is, and nothing from outside the file."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from integrations.lab import reader
from models.rules.reading import Detail, Finding
from models.rules.result import interpret
from models.rules.vocabulary import ReportStatus
from tests.support.lab import GOLDEN, KIT, OTHER_KIT, northlab, say

SNOMED = "http://snomed.info/sct"
LOCAL = "https://northlab.example/test"
KIT_SYSTEM = "https://anysvc.example/kit"
Body = dict[str, Any]


def observation(**changed: Any) -> Body:
    """One Observation that stands alone, as suppliers of self-sampling kits send it, patient inside."""
    body: Body = {
        "resourceType": "Observation",
        "id": "o1",
        "contained": [
            {
                "resourceType": "Patient",
                "id": "p",
                "identifier": [{"system": KIT_SYSTEM, "value": KIT}],
                "name": [{"family": "Kit"}],
                "birthDate": "1999-02-14",
            },
            {"resourceType": "Specimen", "id": "s", "type": {"text": "Vulvovaginal swab"}},
        ],
        "identifier": [{"system": "https://northlab.example/result", "value": "26V1"}],
        "status": "final",
        "code": {"coding": [{"system": LOCAL, "code": "CTN"}]},
        "subject": {"reference": "#p"},
        "specimen": {"reference": "#s"},
        "issued": "2026-11-04T12:05:00Z",
        "valueCodeableConcept": {"coding": [{"system": SNOMED, "code": "260415000", "display": "Not detected"}]},
    }
    body |= changed
    return {key: value for key, value in body.items() if value is not None}


def bundle(change: Callable[[Body], object] = lambda _: None) -> Body:
    body: Body = json.loads((GOLDEN / "06-fhir-bundle.json").read_bytes())
    change(body)
    return body


def resource(body: Body, number: int) -> Body:
    found: Body = body["entry"][number - 1]["resource"]
    return found


def said(body: object) -> list[str]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    verdict = reader.check_file([raw], northlab())
    if verdict.held:
        return [str(verdict.held.reason)]
    return [str(say(r)) for m in reader.read_messages([raw], northlab()) for r in interpret(m, northlab())]


def findings(body: Body) -> list[Finding]:
    raw = json.dumps(body).encode()
    read = [r for m in reader.read_messages([raw], northlab()) for r in interpret(m, northlab())]
    return [r for r in read if isinstance(r, Finding)]


def value(code: str, display: str = "", text: str = "") -> Body:
    coding = {"system": SNOMED, "code": code} | ({"display": display} if display else {})
    return {"valueCodeableConcept": {"coding": [coding]} | ({"text": text} if text else {})}


ODD_PLACES = {
    "the root's type": lambda b: b.update(resourceType={}),
    "the Bundle's type": lambda b: b.update(type=["collection"]),
    "an entry's request": lambda b: b["entry"][0].update(request={"method": {}}),
    "what is contained": lambda b: resource(b, 1).update(contained=[{"resourceType": []}]),
    "a status": lambda b: resource(b, 2).update(status={}),
    "a birth date": lambda b: resource(b, 1).update(birthDate=[]),
    "a code": lambda b: resource(b, 3).update(code={"coding": [{"code": {}}]}),
}


@pytest.mark.parametrize("place", ODD_PLACES)
def test_an_object_where_a_word_belongs_is_refused_and_stops_nobody(place: str) -> None:
    assert set(said(bundle(ODD_PLACES[place]))) - {"negative", "positive"}


def test_one_observation_alone_is_a_result() -> None:
    (found,) = findings(observation())

    assert (found.kit_code, found.test, found.site, found.outcome) == (
        "T4JWW75K3Y",
        "chlamydia",
        "vaginal",
        "negative",
    )
    assert found.accession == "26V1"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"status": "registered"}, "pending"),
        ({"status": "preliminary"}, "pending"),
        ({"status": "amended"}, "negative"),
        ({"status": "corrected"}, "negative"),
        ({"status": "entered-in-error"}, "withdrawn"),
        ({"status": "cancelled"}, "cancelled_no_reason"),
        ({"status": "unknown"}, "unknown_status"),
        ({"status": "finished"}, "unknown_status"),
        ({"status": "Final"}, "unknown_status"),
        ({"status": None}, "unknown_status"),
        ({"status": 1}, "unknown_status"),
        (value("260373001", "Detected"), "positive"),
        (value("260415000", "Detected"), "code_display_conflict"),
        (value("260415000", "Not detected", "Detected"), "code_display_conflict"),
        (value("260415000", "", "Not detected"), "negative"),
        (value("99999"), "unknown_token"),
        ({"valueCodeableConcept": {"text": "Not detected"}}, "negative"),
        ({"valueCodeableConcept": {}}, "empty_value"),
        ({"valueCodeableConcept": None, "valueString": "Not detected"}, "negative"),
        ({"valueCodeableConcept": None, "valueString": "negative-ish"}, "unknown_token"),
        ({"valueCodeableConcept": None, "valueBoolean": False}, "unknown_token"),
        ({"valueCodeableConcept": None, "valueQuantity": {"value": 0}}, "unknown_token"),
        ({"valueCodeableConcept": None}, "empty_value"),
        ({"valueString": "Not detected"}, "conflicting_values"),
        ({"dataAbsentReason": {"text": "x"}}, "conflicting_values"),
        ({"valueCodeableConcept": None, "dataAbsentReason": {"text": "Insufficient sample"}}, "insufficient"),
        ({"valueCodeableConcept": None, "dataAbsentReason": {"text": "unsupported"}}, "empty_value"),
        ({"interpretation": [{"coding": [{"code": "N"}]}]}, "negative"),
        ({"interpretation": [{"coding": [{"code": "A"}]}]}, "flag_conflict"),
        ({"interpretation": [{"text": "abnormal"}]}, "flag_conflict"),
        ({"code": {"coding": [{"system": LOCAL, "code": "MGN"}]}}, "unknown_test"),
        ({"code": {"coding": [{"system": "http://loinc.org", "code": "21613-5"}]}}, "negative"),
        ({"code": {"text": "Chlamydia"}}, "unknown_test"),
        ({"code": {"coding": [{"system": SNOMED, "code": "89293008"}]}}, "unknown_test"),
        ({"specimen": None}, "site_unknown"),
        ({"specimen": {"reference": "Specimen/elsewhere"}}, "site_unknown"),
        ({"subject": None}, "identity_missing"),
        ({"subject": {"reference": "Patient/elsewhere"}}, "identity_missing"),
        ({"modifierExtension": [{"url": "x"}]}, "malformed"),
        ({"implicitRules": "https://x.example"}, "malformed"),
        ({"comment": "STU3"}, "malformed"),
        ({"related": []}, "malformed"),
        ({"contained": [{"resourceType": "Questionnaire", "id": "p"}]}, "malformed"),
        ({"meta": {"security": [{"code": "HTEST"}]}}, "test_message"),
    ],
)
def test_an_observation_is_a_result_only_if_all_of_it_is_understood(changed: Body, expected: str) -> None:
    assert said(observation(**changed)) == [expected]


@pytest.mark.parametrize("birth_date", ["1999", "1999-02", "14/02/1999", "", None, 19990214])
def test_a_birth_date_must_be_full(birth_date: object) -> None:
    body = observation()
    body["contained"][0]["birthDate"] = birth_date

    assert said(body) == ["identity_missing"]


def test_a_note_holds_the_result() -> None:
    (found,) = findings(observation(note=[{"text": "Repeat advised"}]))

    assert found.note_review


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("final", ["negative", "positive", "negative"]),
        ("amended", ["negative", "positive", "negative"]),
        ("appended", ["negative", "positive", "negative"]),
        ("registered", ["pending"] * 3),
        ("partial", ["pending"] * 3),
        ("preliminary", ["pending"] * 3),
        ("entered-in-error", ["withdrawn"] * 3),
        ("cancelled", ["cancelled_no_reason"] * 3),
        ("unknown", ["unknown_status"] * 3),
        ("other", ["unknown_status"] * 3),
        (None, ["unknown_status"] * 3),
    ],
)
def test_the_report_can_only_make_its_rows_less_certain(status: str | None, expected: list[str]) -> None:
    assert said(bundle(lambda b: resource(b, 2).update(status=status))) == expected


@pytest.mark.parametrize("status", ["partial", "preliminary", "registered"])
def test_a_report_that_is_not_final_lets_none_of_its_rows_stand(status: str) -> None:
    def change(body: Body) -> None:
        resource(body, 2)["status"] = status
        resource(body, 4)["status"] = "preliminary"

    assert said(bundle(change)) == ["pending"] * 3


@pytest.mark.parametrize("status", ["corrected", "amended"])
def test_what_stands_in_a_corrected_report_is_corrected(status: str) -> None:
    found = findings(bundle(lambda b: resource(b, 2).update(status=status)))

    assert [each.status for each in found] == [ReportStatus.CORRECTED] * 3


def test_an_appended_report_and_a_conclusion_hold_every_row() -> None:
    appended = findings(bundle(lambda b: resource(b, 2).update(status="appended")))
    concluded = findings(bundle(lambda b: resource(b, 2).update(conclusion="Please recall")))

    assert all(f.note_review for f in appended + concluded)


def test_a_result_that_is_listed_and_missing_is_for_a_person() -> None:
    assert said(bundle(lambda b: b["entry"].pop(3))) == ["negative", "malformed", "negative"]


def test_a_test_that_no_report_lists_is_for_a_person() -> None:
    assert said(bundle(lambda b: resource(b, 2)["result"].pop(1))) == ["negative", "negative", "malformed"]


def test_an_answer_to_a_question_at_order_is_no_result_and_is_accounted_for() -> None:
    answer = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "History of syphilis"},
        "valueString": "Yes",
    }

    assert said(bundle(lambda b: b["entry"].append({"resource": answer}))) == [
        "negative",
        "positive",
        "negative",
        "detail",
    ]


def test_another_patients_observation_in_the_report_is_for_a_person() -> None:
    def swap(body: Body) -> None:
        other = copy.deepcopy(body["entry"][0])
        other["fullUrl"] = "urn:uuid:other"
        body["entry"].append(other)
        resource(body, 3)["subject"] = {"reference": "urn:uuid:other"}

    assert said(bundle(swap)) == ["identity_conflict", "positive", "negative"]


@pytest.mark.parametrize("whose", [3, 6], ids=["the result", "its specimen"])
def test_a_patient_who_is_named_and_not_there_is_another_one(whose: int) -> None:
    named = {"reference": "Patient/999", "display": "Someone Else"}

    told = said(bundle(lambda b: resource(b, whose).update(subject=named)))

    assert told[0] == "identity_conflict"
    assert told[2] == "negative"


@pytest.mark.parametrize(
    "spoilt",
    [
        {"status": "unsatisfactory"},
        {"status": "unavailable"},
        {"condition": [{"coding": [{"code": "HEM", "display": "Hemolyzed"}]}]},
        {"note": [{"text": "wrong patient?"}]},
    ],
    ids=["unsatisfactory", "unavailable", "condition", "note"],
)
def test_what_a_specimen_says_against_itself_holds_its_results(spoilt: Body) -> None:
    found = findings(bundle(lambda b: resource(b, 6).update(spoilt)))

    assert [each.note_review for each in found] == [True, True, False]


@pytest.mark.parametrize("status", ["entered-in-error", "fine"])
def test_a_specimen_that_is_annulled_or_of_no_known_status_bears_no_result(status: str) -> None:
    assert said(bundle(lambda b: resource(b, 6).update(status=status)))[:2] == ["unknown_status"] * 2


def test_a_report_with_an_attachment_is_read_by_a_person() -> None:
    found = findings(bundle(lambda b: resource(b, 2).update(presentedForm=[{"contentType": "application/pdf"}])))

    assert all(each.note_review for each in found)


def test_a_tube_of_another_kit_is_for_a_person() -> None:
    def swap(body: Body) -> None:
        resource(body, 6)["identifier"][0]["value"] = f"{KIT}-1"

    assert said(bundle(swap)) == ["tube_mismatch", "tube_mismatch", "negative"]


def in_group(*, also_listed: bool = False, **head: Any) -> Body:
    """The sample with all its results in one group."""

    def group(body: Body) -> None:
        report = resource(body, 2)
        members = report["result"]
        report["result"] = [{"reference": "urn:uuid:g"}, *(members if also_listed else [])]
        whole = {"resourceType": "Observation", "status": "final", "code": {"text": "Panel"}, "hasMember": members}
        body["entry"].append({"fullUrl": "urn:uuid:g", "resource": whole | head})

    return bundle(group)


@pytest.mark.parametrize("report", [{}, {"also_listed": True}], ids=["the group", "the group and its members"])
def test_a_group_is_no_result_and_its_members_are(report: dict[str, bool]) -> None:
    assert sorted(said(in_group(**report))) == ["detail", "negative", "negative", "positive"]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("preliminary", "pending"),
        ("registered", "pending"),
        ("entered-in-error", "withdrawn"),
        ("cancelled", "cancelled_no_reason"),
        ("unknown", "unknown_status"),
        ("final final", "unknown_status"),
        ("final corrected", "unknown_status"),
        (None, "unknown_status"),
    ],
)
def test_a_group_can_only_make_its_members_less_certain(status: str | None, expected: str) -> None:
    assert sorted(said(in_group(status=status))) == sorted(["detail", *[expected] * 3])


@pytest.mark.parametrize("status", ["corrected", "amended"])
def test_what_is_in_a_corrected_group_is_corrected(status: str) -> None:
    found = findings(in_group(status=status))

    assert [each.status for each in found] == [ReportStatus.CORRECTED] * 3


def test_a_status_with_a_blank_in_it_is_none() -> None:
    assert said(observation(status="final corrected")) == ["unknown_status"]


OTHERS_KIT = {"system": KIT_SYSTEM, "value": KIT}


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ({"basedOn": [{"identifier": OTHERS_KIT}]}, "identity_conflict"),
        ({"subject": {"identifier": OTHERS_KIT}}, "identity_conflict"),
        ({"subject": {"reference": "Patient/other"}}, "identity_conflict"),
        ({"basedOn": [{"reference": "ServiceRequest/gone"}]}, "unknown_status"),
        ({"modifierExtension": []}, "malformed"),
    ],
)
def test_what_a_group_says_of_whose_it_is_must_agree(head: Body, expected: str) -> None:
    body = in_group(**head)
    for kind in ("ServiceRequest", "Specimen"):
        body["entry"].append({"resource": {"resourceType": kind, "id": "gone", "status": "entered-in-error"}})

    assert set(said(body)) - {"detail"} == {expected}


def test_a_deep_document_is_held_and_stops_nobody() -> None:
    deep: Any = []
    for _ in range(600):
        deep = [deep]

    assert said(observation(extension=deep)) == ["malformed"]


def test_a_result_in_more_groups_than_anybody_has_is_for_a_person() -> None:
    body = bundle()
    member = {"reference": body["entry"][2]["fullUrl"]}
    for number in range(30):
        group = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "hasMember": [member] * 50}
        body["entry"].append({"fullUrl": f"urn:uuid:g{number}", "resource": group})

    assert said(body)[:3] == ["malformed", "positive", "negative"]


@pytest.mark.parametrize(
    "when",
    [
        {"effectiveDateTime": "yesterday"},
        {"effectiveDateTime": "2026-13"},
        {"effectivePeriod": {"start": "1 November"}},
    ],
)
def test_a_time_of_collection_that_can_not_be_read_is_for_a_person(when: Body) -> None:
    assert said(bundle(lambda b: resource(b, 3).update({"effectiveDateTime": None} | when)))[0] == "date_implausible"


def test_a_year_of_collection_beside_a_day_of_it_adds_nothing() -> None:
    assert said(bundle(lambda b: resource(b, 6).update(collection={"collectedDateTime": "2026"})))[0] == "negative"


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ({"valueCodeableConcept": {"coding": [{"system": SNOMED, "code": "11214006"}]}}, "unknown_token"),
        ({"valueCodeableConcept": {"text": "Reactive"}}, "unknown_token"),
        ({"valueRange": {"low": {"value": 8}}}, "unknown_token"),
        ({"interpretation": [{"coding": [{"code": "POS"}]}]}, "unknown_token"),
        ({"valueQuantity": {"value": 0.2}}, "negative"),
        ({"valueQuantity": {"value": "", "code": "42.7"}}, "unknown_token"),
        ({"valueQuantity": {"extension": [{"url": "x", "valueDecimal": 42.7}]}}, "unknown_token"),
        ({"interpretation": [{"coding": [{"system": "x"}]}]}, "unknown_token"),
        ({"dataAbsentReason": {"coding": [{"code": "error"}]}}, "unknown_token"),
        ({"dataAbsentReason": {}}, "unknown_token"),
        ({"dataAbsentReason": {"coding": [{"code": "not-performed"}], "text": "Not performed"}}, "negative"),
    ],
)
def test_an_index_that_is_not_read_is_not_blank(index: Body, expected: str) -> None:
    assert said(with_index(**index))[2] == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"valueString": 42.7},
        {"valueString": ["42.7"]},
        {"valueQuantity": [{"value": 42}]},
        {"interpretation": ["H"]},
        {"note": ["leaked"]},
        {"note": "leaked"},
        {"subject": [{"reference": "#p"}]},
        {"bodySite": [{"text": "Rectal swab"}]},
    ],
    ids=str,
)
def test_an_element_of_another_type_than_it_has_is_not_passed_over(wrong: Body) -> None:
    beside = with_index(**wrong)
    own_value = {"valueCodeableConcept": None} if any(key[:5] == "value" for key in wrong) else {}

    assert said(beside)[3] == "malformed"
    assert [each.note_review for each in findings(beside) if each.test == "hiv"] == [True]
    assert said(observation(**wrong | own_value)) == ["malformed"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"note": [{"text": ["leaked"]}]}, "negative"),
        ({"interpretation": [{"coding": [{"code": "N"}], "text": "Abnormal"}]}, "flag_conflict"),
        ({"interpretation": [{"coding": [{"code": "N"}]}, {"text": "Reactive"}]}, "flag_conflict"),
        ({"interpretation": [{"coding": [{"code": "N", "display": "Positive"}]}]}, "flag_conflict"),
        ({"interpretation": [{"coding": ["N"]}]}, "flag_conflict"),
        ({"interpretation": [{"text": "Negative (weak reactive)"}]}, "flag_conflict"),
        ({"interpretation": [{"coding": [{"code": "N"}], "text": "(Reactive)"}]}, "flag_conflict"),
        ({"valueCodeableConcept": {"coding": ["260415000"]}}, "unknown_token"),
        ({"bodySite": {"text": ["Rectal swab"]}}, "site_unknown"),
    ],
)
def test_what_stands_deeper_and_is_not_read_is_not_passed_over_either(change: Body, expected: str) -> None:
    body = observation(**change)

    assert said(body) == [expected]
    assert [each.note_review for each in findings(body)] == ([True] if expected == "negative" else [])


@pytest.mark.parametrize(
    "normal",
    [
        {"coding": [{"code": "N", "display": "Normal (applies to non-numeric results)"}]},
        {"coding": [{"code": "NEG", "display": "Negative"}], "text": "Negative"},
        {"text": "Normal"},
    ],
)
def test_a_normal_flag_in_hl7s_own_words_contradicts_no_negative(normal: Body) -> None:
    assert said(observation(interpretation=[normal])) == ["negative"]


@pytest.mark.parametrize("kind", ["Practitioner", "PractitionerRole", "Organization", "Location", "Device"])
def test_who_made_a_result_may_stand_inside_it(kind: str) -> None:
    body = observation()
    body["contained"].append({"resourceType": kind, "id": "x"})

    assert said(body) == ["negative"]


def test_an_element_that_is_null_is_not_there() -> None:
    body = bundle(lambda b: resource(b, 3).update(note=None, interpretation=None))

    assert said(body) == ["negative", "positive", "negative"]


def test_a_cancelled_result_may_say_why_in_a_note() -> None:
    absent = {
        "coding": [{"system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "not-performed"}]
    }
    why = {"valueCodeableConcept": None, "status": "cancelled", "dataAbsentReason": absent, "note": [{"text": "QNS"}]}

    assert said(observation(**why)) == ["insufficient"]


@pytest.mark.parametrize(
    ("reason", "condition", "expected", "is_held"),
    [
        ({"text": "Reactive"}, ["QNS"], "cancelled_no_reason", None),
        ({"text": "Repeat needed"}, ["QNS"], "cancelled_no_reason", None),
        ({"coding": [{"code": "QNS"}], "text": "Reactive, then not enough left"}, [], "unknown_token", None),
        ({"coding": [{"code": "not-performed", "display": "Not Performed"}]}, ["QNS"], "insufficient", False),
        ({"coding": [{"code": "unknown"}]}, ["QNS", "Wrong patient"], "insufficient", True),
        ({"coding": [{"code": "unknown"}]}, ["QNS", "Haemolysed"], "conflicting_values", None),
    ],
)
def test_all_that_says_why_a_result_is_cancelled_must_be_known_and_agree(
    reason: Body,
    condition: list[str],
    expected: str,
    is_held: bool | None,  # noqa: FBT001
) -> None:
    body = observation(status="cancelled", valueCodeableConcept=None, dataAbsentReason=reason)
    body["contained"][1].update(status="unsatisfactory", condition=[{"text": text} for text in condition])

    assert said(body) == [expected]
    assert is_held is None or [each.note_review for each in findings(body)] == [is_held]


@pytest.mark.parametrize(("text", "expected"), [("QNS", "insufficient"), ("QNS, and reactive", "empty_value")])
def test_a_final_result_without_a_value_says_why_in_known_words_alone(text: str, expected: str) -> None:
    absent = {"coding": [{"code": "QNS"}], "text": text}

    assert said(observation(valueCodeableConcept=None, dataAbsentReason=absent)) == [expected]


@pytest.mark.parametrize("around", ["report", "group"])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"identifier": [{"system": "https://anysvc.example/tube", "value": f"{KIT}-1"}]}, "tube_mismatch"),
        ({"type": {"text": "Urine"}}, "specimen_conflict"),
        ({"status": "entered-in-error"}, "unknown_status"),
    ],
)
def test_the_only_specimen_of_a_report_or_group_must_agree_with_the_results_own(
    around: str, change: Body, expected: str
) -> None:
    body = in_group() if around == "group" else bundle()
    other = copy.deepcopy(resource(body, 6)) | change
    body["entry"].append({"fullUrl": "urn:uuid:other", "resource": other | {"id": "other"}})
    owner = body["entry"][-2]["resource"] if around == "group" else resource(body, 2)
    other_one = {"reference": "urn:uuid:other"}
    owner["specimen"] = other_one if around == "group" else [other_one]

    assert expected in said(body)
    assert "positive" not in said(body)


def test_a_specimen_that_is_not_there_is_not_that_of_the_report() -> None:
    def change(body: Body) -> None:
        resource(body, 2)["specimen"] = [resource(body, 3)["specimen"]]
        resource(body, 3)["specimen"] = {"reference": "Specimen/elsewhere"}

    assert said(bundle(change))[0] == "specimen_conflict"


def test_a_tube_may_be_named_without_its_specimen() -> None:
    tube = {"system": "https://anysvc.example/tube", "value": f"{OTHER_KIT}-1"}

    assert said(observation(specimen={"identifier": tube})) == ["tube_mismatch"]


@pytest.mark.parametrize("clock", ["2026-11-03T99:00:00Z", "2026-11-03T09:00:00"])
def test_a_time_that_can_not_be_read_is_not_passed_over_for_its_day(clock: str) -> None:
    def change(body: Body) -> None:
        resource(body, 3)["effectiveDateTime"] = clock
        resource(body, 6)["collection"] = {"collectedDateTime": "2026-11-03"}

    assert said(bundle(change))[0] == "date_implausible"


@pytest.mark.parametrize(
    ("report", "group", "expected"),
    [
        ("final", "preliminary", "unknown_status"),
        ("partial", "registered", "positive"),
        ("partial", "final", "positive"),
    ],
)
def test_a_correction_in_a_group_that_is_not_final_never_becomes_a_wait(report: str, group: str, expected: str) -> None:
    body = in_group(status=group)
    resource(body, 2)["status"] = report
    resource(body, 4)["status"] = "corrected"

    assert expected in said(body)


def test_what_still_runs_in_a_corrected_group_waits() -> None:
    body = in_group(status="amended")
    resource(body, 2)["status"] = "amended"
    resource(body, 4)["status"] = "registered"
    del resource(body, 4)["valueCodeableConcept"], resource(body, 4)["interpretation"]

    assert sorted(said(body)) == ["detail", "negative", "negative", "pending"]


def test_a_correction_in_a_partial_report_is_heard_and_nothing_else_of_it_is() -> None:
    def change(body: Body) -> None:
        resource(body, 2)["status"] = "partial"
        resource(body, 4)["status"] = "corrected"

    assert said(bundle(change)) == ["pending", "positive", "pending"]


def test_the_specimens_own_time_of_collection_goes_before_that_of_the_test() -> None:
    def change(body: Body) -> None:
        resource(body, 3)["effectiveDateTime"] = "2026-11-03T09:00:00Z"
        resource(body, 6).update(receivedTime="2026-11-03T08:05:00Z")
        resource(body, 6)["collection"] = {"collectedDateTime": "2026-11-03T07:00:00Z"}

    assert said(bundle(change))[0] == "negative"


def test_a_cancelled_result_may_say_why_beside_a_code_for_no_value() -> None:
    absent = {
        "coding": [{"system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "not-performed"}]
    }
    why = {
        "valueCodeableConcept": None,
        "status": "cancelled",
        "dataAbsentReason": absent | {"text": "Insufficient sample"},
    }

    assert said(observation(**why)) == ["insufficient"]


def test_a_group_of_groups_speaks_to_all_that_is_in_it() -> None:
    body = in_group()
    outer = {"resourceType": "Observation", "status": "preliminary", "code": {"text": "All"}}
    outer["hasMember"] = [{"reference": "urn:uuid:g"}]
    body["entry"].append({"fullUrl": "urn:uuid:outer", "resource": outer})
    resource(body, 2)["result"] = [{"reference": "urn:uuid:outer"}]

    assert sorted(said(body)) == ["detail", "detail", "pending", "pending", "pending"]


def test_groups_that_hold_each_other_are_read_to_an_end() -> None:
    body = in_group()
    resource(body, 3)["hasMember"] = [{"reference": "urn:uuid:g"}]

    # A group of one specimen has members of another: none of the two is believed.
    assert sorted(said(body)) == ["detail", "negative", "positive", "tube_mismatch"]


def test_a_note_on_a_group_or_a_request_holds_the_results() -> None:
    note = [{"text": "Result from another sample"}]
    asked = bundle(lambda b: resource(b, 3).update(basedOn=[{"reference": "ServiceRequest/1"}]))
    asked["entry"].append({"resource": {"resourceType": "ServiceRequest", "id": "1", "note": note}})

    assert [each.note_review for each in findings(in_group(note=note))] == [True] * 3
    assert [each.note_review for each in findings(asked)] == [True, False, False]


def test_a_request_for_another_person_is_for_a_person() -> None:
    body = bundle(lambda b: resource(b, 3).update(basedOn=[{"reference": "ServiceRequest/1"}]))
    other = copy.deepcopy(body["entry"][0])
    other["fullUrl"] = "urn:uuid:other"
    request = {"resourceType": "ServiceRequest", "id": "1", "subject": {"reference": "urn:uuid:other"}}
    body["entry"] += [other, {"resource": request}]

    assert said(body) == ["identity_conflict", "positive", "negative"]


def test_an_index_that_no_report_lists_is_for_a_person() -> None:
    index = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": LOCAL, "code": "HIVC"}]},
        "valueQuantity": {"value": 42.7},
    }

    assert said(bundle(lambda b: b["entry"].append({"resource": index})))[3] == "malformed"


@pytest.mark.parametrize(
    ("number", "when"),
    [
        (3, {"effectiveDateTime": None, "effectiveInstant": "2026-08-01T09:00:00Z"}),
        (3, {"effectiveDateTime": None, "effectivePeriod": {"end": "2026-08-01T09:00:00Z"}}),
        (6, {"collection": {"collectedPeriod": {"start": "2026-08-01T09:00:00Z"}}}),
        (6, {"collection": {"collectedDateTime": "2026-08-01"}}),
        (2, {"effectiveDateTime": "2026-08-01"}),
    ],
    ids=["instant", "period", "the specimen's period", "the specimen's day", "the report's day"],
)
def test_a_sample_is_as_old_as_the_earliest_word_of_its_collection(number: int, when: Body) -> None:
    def change(body: Body) -> None:
        if number == 2:
            for each in (3, 6):
                resource(body, each).pop("effectiveDateTime", None)
                resource(body, each).pop("collection", None)
        resource(body, number).update(when)

    assert said(bundle(change))[0] == "too_old"


def test_the_body_site_of_a_collection_must_agree() -> None:
    def change(site: str) -> Body:
        collection = {"collectedDateTime": "2026-11-01", "bodySite": {"text": site}}
        return bundle(lambda b: resource(b, 6).update(collection=collection))

    assert said(change("Rectal swab"))[0] == "specimen_conflict"
    assert said(change("Vulvovaginal swab"))[0] == "negative"
    assert said(change("Elbow"))[0] == "site_unknown"


def test_half_a_character_in_an_id_keeps_its_rows_apart() -> None:
    whole, half = "26V0455001", "26V\\ud800"
    raw = json.dumps(bundle()).replace(whole, half, 1).encode()

    assert said(raw) == ["encoding"] * 3
    assert all("\ud800" not in str(m) for m in reader.read_messages([raw], northlab()))
    assert said(json.dumps(bundle()).replace("Ashgrovel", "\\ud83d\\ude00", 1).encode())[0] == "negative"


def test_a_bundle_in_a_bundle_does_not_vanish() -> None:
    assert said(bundle(lambda b: b["entry"].append({"resource": bundle()}))) == ["malformed"] * 3


def test_one_page_of_a_search_is_not_the_whole_of_it() -> None:
    link = [{"relation": "self", "url": "a"}, {"relation": "next", "url": "b"}]

    assert said(bundle(lambda b: b.update(type="searchset", link=link))) == ["incomplete_file"]


@pytest.mark.parametrize(
    ("number", "change", "expected"),
    [
        (6, {"collection": {"collectedDateTime": "2026-11-01", "modifierExtension": []}}, ["malformed"] * 2),
        (6, {"foo": 1}, ["malformed"] * 2),
        (3, {"referenceRange": [{"text": "x", "modifierExtension": []}]}, ["malformed"]),
        (3, {"implicitRules": "x"}, ["malformed"]),
        (1, {"modifierExtension": []}, ["malformed"] * 3),
        (2, {"modifierExtension": []}, ["malformed"] * 3),
        (1, {"_birthDate": {"extension": []}}, []),
    ],
)
def test_a_modifier_or_an_unknown_element_refuses_the_rows_that_it_touches(
    number: int, change: Body, expected: list[str]
) -> None:
    told = said(bundle(lambda b: resource(b, number).update(change)))

    assert told == expected + ["negative", "positive", "negative"][len(expected) :]


def test_a_modifier_of_a_request_refuses_the_row_that_it_asked_for() -> None:
    body = bundle(lambda b: resource(b, 3).update(basedOn=[{"reference": "ServiceRequest/1"}]))
    body["entry"].append({"resource": {"resourceType": "ServiceRequest", "id": "1", "modifierExtension": []}})

    assert said(body) == ["malformed", "positive", "negative"]


def test_a_modifier_of_an_entry_refuses_every_row() -> None:
    assert said(bundle(lambda b: b["entry"][2].update(modifierExtension=[]))) == ["malformed"] * 3


def test_a_result_that_two_reports_list_is_for_a_person() -> None:
    def twice(body: Body) -> None:
        other = copy.deepcopy(body["entry"][1])
        other["fullUrl"] = "urn:uuid:other-report"
        body["entry"].append(other)

    assert set(said(bundle(twice))) == {"malformed"}


def test_a_modifier_of_the_message_itself_refuses_every_row() -> None:
    header = {"resourceType": "MessageHeader", "modifierExtension": []}

    assert said(bundle(lambda b: b["entry"].append({"resource": header}))) == ["malformed"] * 3
    assert said(bundle(lambda b: b.update(implicitRules="x"))) == ["malformed"] * 3


@pytest.mark.parametrize(
    ("code", "display", "text", "expected"),
    [
        ("260415000", "Not detected", "Not detected", "negative"),
        ("260385009", "Negative", "Negative", "negative"),
        ("260385009", "", "Negative", "negative"),
        ("10828004", "Positive", "Positive", "positive"),
        ("10828004", "Positive", "Negative", "code_display_conflict"),
        ("260385009", "Negative", "Positive", "code_display_conflict"),
    ],
)
def test_the_text_of_a_concept_may_be_the_agreed_words_of_its_code(
    code: str, display: str, text: str, expected: str
) -> None:
    assert said(observation(**value(code, display, text))) == [expected]


def test_components_are_results_of_their_own() -> None:
    components = [
        {"code": {"coding": [{"system": LOCAL, "code": "CTN"}]}, **value("260415000")},
        {"code": {"coding": [{"system": LOCAL, "code": "GCN"}]}, **value("260373001")},
    ]
    body = observation(code={"text": "CT and GC"}, valueCodeableConcept=None, component=components)

    assert said(body) == ["negative", "positive"]


def test_a_report_without_results_does_not_vanish() -> None:
    def empty(body: Body) -> None:
        resource(body, 2)["result"] = []
        del body["entry"][2:5]

    assert said(bundle(empty)) == ["unknown_test"]


def with_index(**told: Any) -> Body:
    """The sample with a cut-off index beside its HIV screen."""

    def add(body: Body) -> None:
        row = copy.deepcopy(body["entry"][4])
        row["fullUrl"] = "urn:uuid:index"
        found = row["resource"]
        del found["valueCodeableConcept"], found["interpretation"]
        found.update(code={"coding": [{"system": LOCAL, "code": "HIVC"}]}, **told)
        body["entry"].append(row)
        resource(body, 2)["result"].append({"reference": "urn:uuid:index"})

    return bundle(add)


def test_a_cut_off_index_speaks_to_its_screen() -> None:
    def below(number: float) -> Body:
        return with_index(valueQuantity={"value": number, "comparator": "<"})

    assert said(below(0.5)) == ["negative", "positive", "negative", "detail"]
    assert said(below(5.0)) == ["negative", "positive", "conflicting_values", "detail"]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"resourceType": "Observation", "status": "final", "status": "preliminary"}', "malformed"),
        (b'{"resourceType": "Observation", "valueQuantity": {"value": NaN}}', "malformed"),
        (b'[{"resourceType": "Observation"}]', "unsupported_format"),
        (b'{"resourceType": "Patient"}', "unsupported_format"),
        (b'{"resourceType": "Bundle", "type": "history", "entry": [{}]}', "unsupported_format"),
        (b'{"resourceType": "Bundle", "type": "collection", "entry": []}', "empty_file"),
        (b'{"resourceType": "Observation"', "incomplete_file"),
        (b'{"resourceType": "Observation", "id": \xff}', "encoding"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "malformed"),
        (b'{"resourceType" "Observation"}', "malformed"),
    ],
)
def test_a_body_that_is_no_report_is_held_with_its_reason(raw: bytes, expected: str) -> None:
    assert said(raw) == [expected]


def test_a_byte_order_mark_changes_nothing() -> None:
    assert said(b"\xef\xbb\xbf" + json.dumps(observation()).encode()) == ["negative"]


def test_a_file_of_more_than_is_read_at_once_is_held_with_what_to_do() -> None:
    start = json.dumps(observation()).encode()
    held = reader.check_file(iter([start, *[b" " * (1 << 20)] * 24]), northlab()).held
    assert held is not None
    assert held.detail == "The FHIR file is larger than 24 MiB: send it as several."
    assert reader.check_file(iter([start, *[b" " * (1 << 20)] * 23]), northlab()).held is None


def test_a_report_of_another_lab_gives_nothing() -> None:
    raw = json.dumps(bundle()).replace("northlab.example", "otherlab.example")

    assert set(said(raw.encode())) == {"unknown_sender"}


def test_nothing_outside_the_file_is_ever_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def no_network(*_: object) -> None:
        raise AssertionError("the reader opened a connection")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    body = observation(subject={"reference": "https://northlab.example/Patient/1"})

    assert said(body) == ["identity_missing"]


def test_a_detail_is_never_a_finding() -> None:
    raw = json.dumps(bundle(lambda b: resource(b, 5).update(code={"coding": [{"system": LOCAL, "code": "HIVC"}]})))

    readings = [r for m in reader.read_messages([raw.encode()], northlab()) for r in interpret(m, northlab())]

    assert not any(isinstance(r, Finding) and r.test == "hiv" for r in readings)
    assert not any(isinstance(r, Detail) for r in readings)
