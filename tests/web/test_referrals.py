"""A case handed over on its page, fetched by the clinic's system, and answered. Invented people only."""

import json
import re
from dataclasses import replace

import httpx
import pytest
from fhir.resources.R4B.bundle import Bundle
from sqlmodel import select

from app.web.main import create_app
from models.rules.errors import ServiceError
from models.rules.service import ReferralClinic
from models.tables.audit import Audit
from models.tables.clinic import ClinicCase, Referral
from tests.support import build, web
from tests.web.test_clinic_pages import PERSONAL, opened, words

KEY = "a-clinics-key-of-the-tests-that-is-long"
HARBOUR = ReferralClinic("harbour", "Harbour Clinic", ("5 Harbour Lane", "LS1 4AP"))


@pytest.fixture
def clinic(site, street):
    """The site with a clinic that has a key, and that clinic's system."""
    in_force = site.home.services["larkfield"]
    site.home.services["larkfield"] = replace(in_force, service=build.service(clinics=(HARBOUR,)))
    settings = site.home.settings.model_copy(
        update={
            "clinic_keys": web.home_on(
                site.db, public_base_url=street.url, issuer=street.issuer, clinic_keys={"larkfield/harbour": KEY}
            ).settings.clinic_keys
        }
    )
    object.__setattr__(site.home, "settings", settings)
    street.door.app = create_app(site.home)
    with httpx.Client(base_url=f"{site.url}/api/clinics/harbour", trust_env=False, timeout=30) as http:
        http.headers["Authorization"] = f"Bearer {KEY}"
        yield http


def refer(site, path, *, by="demo-adviser", **changes):
    adviser = site.signed_in(by)
    form = {"clinic": "harbour", "asked": "confirmation", "message": "Prefers mornings.", "agreed": "true", **changes}
    return adviser.send(path, f"{path}/refer", **form)


def the_referral(site):
    with site.home.begin() as session:
        return session.exec(select(Referral.ref)).one()


def event(ref, kind="Appointment", born="1999-02-14", **changes):
    return {
        "resourceType": kind,
        "basedOn": [{"identifier": {"system": "urn:kitpost:referral", "value": ref}}],
        "contained": [{"resourceType": "Patient", "birthDate": born}],
        "status": "fulfilled",
        "start": "2026-11-24T11:00:00+00:00",
        **changes,
    }


def send(clinic, body, key="e1"):
    return clinic.post(
        "/events", content=json.dumps(body), headers={"Content-Type": "application/fhir+json", "X-Correlation-ID": key}
    )


def test_a_case_is_referred_on_its_page_fetched_by_the_clinic_and_what_it_says_shows_there(site, clinic):
    path = opened(site)
    page = refer(site, path)
    assert "Referred. The case stays open" in words(page)
    assert "Harbour Clinic: sample from the arm" in words(page)
    assert "Not fetched: send the letter." in words(page), "this clinic has no bell"
    ref = the_referral(site)

    listed = clinic.get("/referrals").json()
    assert [each["resource"]["id"] for each in listed["entry"]] == [ref]
    assert not [word for word in PERSONAL if word in json.dumps(listed)]
    given = clinic.get(listed["entry"][0]["fullUrl"])
    assert given.headers["content-type"] == "application/fhir+json"
    assert Bundle.model_validate_json(given.text).entry
    assert "Testina" in given.text
    assert clinic.get("/referrals").json()["total"] == 0

    taken = send(clinic, event(ref))
    assert (taken.status_code, taken.json()["issue"][0]["diagnostics"]) == (202, "Taken: attended.")
    page = site.signed_in("demo-adviser-2").get(path)
    assert "The clinic says: attended , 24 November 2026, 11:00" in words(page)
    assert "They have been seen at the clinic. Don’t ring them" in words(page)
    assert send(clinic, event(ref)).status_code == 200
    assert send(clinic, event(ref, status="noshow")).status_code == 409


def test_a_referral_without_the_persons_agreement_comes_back_as_it_was_filled_in(site, clinic):
    path = opened(site)
    adviser = site.signed_in("demo-adviser")
    page = adviser.send(path, f"{path}/refer", clinic="harbour", asked="confirmation", message="Only mornings")
    assert "Ask the person first, and tick that they agreed." in words(page)
    assert "Only mornings" in page.text


def test_the_letter_and_the_export_are_files_without_a_name_and_each_is_audited(site, clinic):
    path = opened(site)
    adviser = site.signed_in("demo-adviser")

    letter = adviser.send(path, f"{path}/referral-letter")
    export = adviser.send(path, f"{path}/export")

    assert letter.content.startswith(b"%PDF-")
    assert letter.headers["content-disposition"] == 'attachment; filename="referral.pdf"'
    assert export.headers["content-disposition"] == 'attachment; filename="case.json"'
    assert Bundle.model_validate_json(export.text)
    with site.home.begin() as session:
        assert len(session.exec(select(Audit).where(Audit.action == "case.exported")).all()) == 2


def test_a_word_about_somebody_born_on_another_day_is_kept_told_and_a_clinicians(site, clinic):
    refer(site, opened(site))
    answer = send(clinic, event(the_referral(site), born="1999-02-15"))

    assert answer.status_code == 202
    assert answer.json()["issue"][1]["expression"] == ["Patient.birthDate"]
    assert "1999" not in answer.text
    with site.home.begin() as session:
        assert "identity" in session.exec(select(ClinicCase.kind)).all()


def test_every_refusal_is_an_operation_outcome(site, clinic):
    fhir = {"Content-Type": "application/fhir+json"}
    for method, path, headers, status in (
        ("GET", "/referrals", {"Authorization": "Bearer wrong"}, 401),
        ("GET", f"/referrals/{'0' * 32}", {}, 404),
        ("GET", f"/referrals/{'0' * 70}", {}, 422),
        ("POST", "/events", {"Content-Type": "text/plain", "X-Correlation-ID": "e"}, 415),
        ("POST", "/events", fhir, 400),
        ("POST", "/events", {**fhir, "X-Correlation-ID": "e"}, 422),
    ):
        answer = clinic.request(method, path, headers=headers, content=b"{}" if method == "POST" else None)
        assert (answer.status_code, answer.json()["resourceType"]) == (status, "OperationOutcome"), path


def test_a_key_opens_its_own_clinic_alone(site, clinic):
    other = re.sub("harbour", "moor", str(clinic.base_url))
    assert clinic.get(f"{other}referrals").status_code == 403


def test_a_key_or_a_bell_of_a_clinic_that_nobody_has_stops_the_start(site, street):
    bell = {"url": "https://clinic.example.test/bell", "secret": "whsec_" + "A" * 44}
    for changes in ({"clinic_keys": {"larkfield/none": KEY}}, {"clinic_bells": {"larkfield/none": bell}}):
        home = web.home_on(site.db, public_base_url=street.url, issuer=street.issuer, **changes)
        with pytest.raises(ServiceError, match="larkfield/none, but no council's file has that clinic"):
            create_app(home)
        home.engine.dispose()
