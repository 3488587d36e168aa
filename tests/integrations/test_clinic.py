"""What a clinic's system is given and may say, and how it is told to look (issue 6; laws 1, 2, 5, 8)."""

import json
import re
import threading
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pypdfium2 as pdfium
import pytest
from fhir.resources.R4B.appointment import Appointment
from fhir.resources.R4B.bundle import Bundle
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from integrations.clinic.bell import SignedBell
from integrations.clinic.fhir import REFERRAL_SYSTEM, bundle_of, read_word, waiting_list
from integrations.letters.referral import draw_referral
from integrations.ports import NotSent, Refused
from models.rules.clinic import ClinicSays
from models.rules.errors import Code, ServiceError
from models.rules.referral import HandedResult, Handover, ReferralFor
from models.rules.vocabulary import Outcome, ReportStatus, Site, Test

REF = "0123456789abcdef" * 2
AT = datetime(2026, 11, 24, 12, tzinfo=UTC)


def result(test, outcome, site=Site.BLOOD, status=ReportStatus.FINAL):
    return HandedResult(test, site, outcome, status, "26V1", AT)


def handover(**changes):
    return Handover(
        **{
            "ref": REF,
            "asked": ReferralFor.CONFIRMATION,
            "message": "Prefers <mornings> & tea.",
            "made_at": AT,
            "service": "Larkfield Sexual Health",
            "phone": "0113 496 0000",
            "clinic": "Harbour Clinic",
            "clinic_lines": ("5 Harbour Lane", "LS1 4AP"),
            "given_name": "Siân",
            "family_name": "O'Test",
            "born_on": date(1999, 2, 14),
            "mobile": "+447700900123",
            "address_lines": ("1 Invented Row",),
            "postcode": "LS1 4AP",
            "language": "cy",
            "kit_code": "7K3F9XN2PP",
            "lab": "northlab",
            "results": [
                result(Test.HIV, Outcome.REACTIVE),
                result(Test.SYPHILIS, Outcome.INSUFFICIENT),
                result(Test.CHLAMYDIA, Outcome.POSITIVE, Site.VAGINAL, ReportStatus.CORRECTED),
            ],
            "pending": [(Test.GONORRHOEA, Site.VAGINAL)],
            "told": [("please_expect_our_call", AT), ("spoke", AT + timedelta(hours=2))],
            "agreed_to": ["text"],
            "safe_times": "evening,morning",
            **changes,
        }
    )


def resources(bundle, kind):
    return [each["resource"] for each in bundle["entry"] if each["resource"]["resourceType"] == kind]


# ── What goes out ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "changes", [{}, {"asked": None, "clinic": "", "clinic_lines": ()}, {"results": [], "told": []}]
)
def test_a_case_is_a_bundle_that_another_implementation_of_fhir_reads(changes):
    bundle = bundle_of(handover(**changes))

    read = Bundle.model_validate_json(json.dumps(bundle))

    assert read.type == "collection"
    assert bundle_of(handover(**changes)) == bundle
    urls = [each["fullUrl"] for each in bundle["entry"]]
    assert len(set(urls)) == len(urls)
    [task] = resources(bundle, "Task")
    assert {task["focus"]["reference"], task["for"]["reference"]} <= set(urls)


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("status", list(ReportStatus))
def test_every_outcome_in_every_status_can_be_handed_over(outcome, status):
    bundle = bundle_of(handover(results=[result(Test.HIV, outcome, status=status)], pending=[]))

    Bundle.model_validate_json(json.dumps(bundle))


@pytest.mark.parametrize("outcome", [Outcome.REACTIVE, Outcome.LOW_REACTIVE])
def test_a_screen_that_reacted_is_preliminary_and_no_diagnosis(outcome):
    [seen] = resources(bundle_of(handover(results=[result(Test.HIV, outcome)], pending=[])), "Observation")

    assert seen["status"] == "preliminary"
    assert "Not a diagnosis" in seen["valueCodeableConcept"]["text"]
    assert "positive" not in json.dumps(seen).lower()


def test_a_sample_that_failed_has_no_value():
    failed = [result(Test.SYPHILIS, Outcome.INSUFFICIENT)]
    [seen] = resources(bundle_of(handover(results=failed, pending=[])), "Observation")
    assert "valueCodeableConcept" not in seen
    assert seen["dataAbsentReason"]["text"] == "Not tested: insufficient"


def test_the_list_of_what_waits_names_references_alone():
    bundle = waiting_list([(REF, AT)], {REF: f"https://kits.example.test/api/clinics/harbour/referrals/{REF}"})
    Bundle.model_validate_json(json.dumps(bundle))
    assert not re.search("Siân|1999|7700|7K3F", json.dumps(bundle))


def test_the_letter_says_what_was_asked_found_and_told_and_its_properties_nothing():
    pdf = draw_referral(handover(), date(2026, 11, 25))

    with pdfium.PdfDocument(pdf) as document:
        words = re.sub(r"\s+", " ", document[0].get_textpage().get_text_range())
        properties = document.get_metadata_dict()
    for said in (
        "Harbour Clinic 5 Harbour Lane", "25 November 2026", "Venous blood sample to confirm a reactive screen",
        "Siân O'Test, born 14 February 1999", "Prefers <mornings> & tea.", "Not a diagnosis",
        "Not tested: insufficient",
        "Requested; no result has come", "Text: please expect our call", REF[:12], "evening, morning",
    ):  # fmt: skip
        assert said in words, said
    assert "Test" not in "".join(value for name, value in properties.items() if name != "Producer")
    assert draw_referral(handover(), date(2026, 11, 25)) == pdf


# ── What comes in ────────────────────────────────────────────────────────────────────────────

PATIENT = {"resourceType": "Patient", "birthDate": "1999-02-14"}
BASED_ON = [{"identifier": {"system": REFERRAL_SYSTEM, "value": REF}}]
WORDS = {
    "Appointment": {"status": "fulfilled", "start": "2026-11-25T10:00:00+00:00"},
    "Encounter": {"status": "finished", "period": {"start": "2026-11-25T10:00:00Z"}},
    "Procedure": {"status": "completed", "performedDateTime": "2026-11-25T10:00:00+00:00"},
}


def word(kind, *, bundled=False, **changes):
    said = {"resourceType": kind, "basedOn": BASED_ON, "contained": [PATIENT], **WORDS[kind], **changes}
    if bundled:
        del said["contained"]
        said = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": PATIENT}, {"resource": said}]}
    return json.dumps(said).encode()


@pytest.mark.parametrize("bundled", [False, True])
@pytest.mark.parametrize(
    ("kind", "status", "says"),
    [
        ("Appointment", "booked", ClinicSays.BOOKED),
        ("Appointment", "fulfilled", ClinicSays.ATTENDED),
        ("Appointment", "arrived", ClinicSays.ATTENDED),
        ("Appointment", "noshow", ClinicSays.DID_NOT_ATTEND),
        ("Appointment", "cancelled", ClinicSays.CANCELLED),
        ("Encounter", "finished", ClinicSays.ATTENDED),
        ("Procedure", "completed", ClinicSays.TREATED),
    ],
)
def test_a_clinics_word_is_read_alone_or_in_a_bundle(kind, status, says, bundled):
    read = read_word(word(kind, bundled=bundled, status=status))

    assert (read.referral, read.says, read.born_on) == (REF, says, date(1999, 2, 14))
    assert read.happened_at == datetime(2026, 11, 25, 10, tzinfo=UTC)
    assert "1999" not in repr(read)


def test_the_documented_appointment_is_one_for_another_implementation_too():
    participant = [{"status": "accepted", "actor": {"display": "The person"}}]
    said = json.loads(word("Appointment", participant=participant))
    said["contained"][0]["id"] = "p"
    Appointment.model_validate_json(json.dumps(said))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"\xff", "not JSON"),
        (b"[]", "one FHIR resource"),
        (word("Appointment", status="proposed"), "Appointment.status must be one of booked"),
        (word("Procedure", status="not-done"), "Procedure.status must be one of completed"),
        (word("Procedure", status=None), "Procedure.status must be"),
        (word("Appointment", basedOn=[]), "Appointment.basedOn must carry our referral"),
        (word("Appointment", basedOn=[*BASED_ON, {"identifier": {"system": REFERRAL_SYSTEM, "value": "f" * 32}}]),
         "basedOn must carry"),
        (word("Appointment", basedOn=[{"identifier": {"system": "urn:other", "value": REF}}]), "basedOn must carry"),
        (word("Appointment", start="0001-01-01T00:00:00+23:59"), "Appointment.start must be a date and time"),
        (word("Appointment", start="2026-11-25"), "Appointment.start must be a date and time"),
        (word("Appointment", start="2026-11-25T10:00:00"), "Appointment.start must be a date and time"),
        (word("Encounter", period={}), "Encounter.period.start must be"),
        (word("Procedure", performedDateTime=5), "performedDateTime or Procedure.performedPeriod.start must be"),
        (word("Appointment", contained=[]), "exactly one, with birthDate"),
        (word("Appointment", contained=[PATIENT, PATIENT]), "exactly one, with birthDate"),
        (word("Appointment", contained=[{**PATIENT, "birthDate": "1999"}]), "Patient.birthDate must be a whole date"),
        (word("Appointment", contained=[{**PATIENT, "birthDate": "1999-02-30"}]), "Patient.birthDate must be"),
        (json.dumps({"resourceType": "Observation"}).encode(), "exactly one of Appointment, Encounter, Procedure"),
        (json.dumps({"resourceType": "Bundle", "entry": 5}).encode(), "exactly one of"),
    ],
)  # fmt: skip
def test_what_is_not_certain_is_refused_by_its_element_and_quoted_nowhere(body, says):
    with pytest.raises(ServiceError) as refused:
        read_word(body)
    assert refused.value.code is Code.BAD_INPUT
    assert says in refused.value.message
    assert "1999" not in refused.value.message


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["resourceType", "status", "entry", "resource", "contained", "basedOn", "identifier", "system", "value",
         "birthDate", "start", "period"]), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(JSONISH | st.binary(max_size=60), st.sampled_from(sorted(WORDS)))
def test_nothing_that_anybody_sends_breaks_the_reader(junk, kind):
    bodies = [junk] if isinstance(junk, bytes) else [
        json.dumps(each).encode() for each in (junk, {**json.loads(word(kind)), "contained": junk, "basedOn": junk})
    ]  # fmt: skip
    for body in bodies:
        try:
            read_word(body)
        except ServiceError as refused:
            assert refused.code is Code.BAD_INPUT  # noqa: PT017 - any other error is the failure


# ── The bell ─────────────────────────────────────────────────────────────────────────────────

SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" + "MfKQ9r8GKYqrTwjU"


@contextmanager
def listening(status=204):
    heard = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            heard.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_):
            """Says nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/bell", heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ring(url, secret=SECRET):
    bell = SignedBell(url, secret)
    try:
        bell.ring(REF, AT, now=datetime.now(UTC))
    finally:
        bell.close()


def test_the_bell_names_a_reference_alone_and_another_library_agrees_with_its_signature():
    with listening() as (url, heard):
        ring(url)
    [(headers, body)] = heard

    assert Webhook(SECRET).verify(body.decode(), headers)["data"] == {"referral": REF}
    assert headers["webhook-id"] == REF
    assert json.loads(body).keys() == {"type", "timestamp", "data"}
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "A" * 44).verify(body.decode(), headers)


@pytest.mark.parametrize(
    ("status", "error"),
    [(500, NotSent), (503, NotSent), (429, NotSent), (408, NotSent), (410, Refused), (302, Refused)],
)
def test_what_is_no_yes_is_heard_later_or_never(status, error):
    with listening(status) as (url, heard), pytest.raises(error) as told:
        ring(url)
    assert told.value.code == str(status)
    assert len(heard) == 1, "no redirect is followed, and nothing is tried again"


def test_nobody_there_is_heard_later():
    with listening() as (url, _):
        pass
    with pytest.raises(NotSent):
        ring(url)
