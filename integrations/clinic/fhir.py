"""A case as FHIR R4 for a clinic's own record, and a clinic's words about it, read.

What goes out is one Bundle of type collection: Patient, ServiceRequest, Task, an Observation a result and a
Communication a thing told. A screen that reacted is a preliminary observation whose words say that it is no diagnosis
(law 5). What comes in is an Appointment, an Encounter or a Procedure that is based on our request and names the
patient's date of birth. Nothing is guessed: a status that is not listed here is refused by its name.
"""

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any, Final

from models.rules.clinic import AttemptResult, ClinicSays
from models.rules.errors import Code, ServiceError
from models.rules.referral import ClinicWord, HandedResult, Handover, ReferralFor
from models.rules.vocabulary import REACTIONS, SAMPLE_FAILURES, Outcome, ReportStatus, Site, Test

SYSTEM: Final = "urn:kitpost"
REFERRAL_SYSTEM: Final = f"{SYSTEM}:referral"
"""Of the reference that a clinic's words must carry."""

SPOKE: Final = AttemptResult.SPOKE.value

_ROOT: Final = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")
_REF: Final = re.compile(r"[0-9a-f]{32}")
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)

# ── What goes out ────────────────────────────────────────────────────────────────────────────

ASKED: Final[Mapping[ReferralFor, str]] = {
    ReferralFor.CONFIRMATION: "Venous blood sample to confirm a reactive screen",
    ReferralFor.TREATMENT: "Treatment",
    ReferralFor.ASSESSMENT: "Assessment",
}
_WORDS: Final[Mapping[Outcome, str]] = {
    Outcome.REACTIVE: "Screening test reactive. Not a diagnosis: it needs a venous sample to confirm.",
    Outcome.LOW_REACTIVE: "Screening test weakly reactive. Not a diagnosis: it needs a venous sample to confirm.",
    Outcome.POSITIVE: "Detected",
    Outcome.NEGATIVE: "Not detected",
    Outcome.EQUIVOCAL: "Equivocal: it needs a new sample.",
}
_STATUS: Final[Mapping[ReportStatus, str]] = {
    ReportStatus.PRELIMINARY: "preliminary",
    ReportStatus.FINAL: "final",
    ReportStatus.CORRECTED: "corrected",
    ReportStatus.CANCELLED: "cancelled",
    ReportStatus.WITHDRAWN: "entered-in-error",
}
_NAMES: Final[Mapping[Test, str]] = {Test.HIV: "HIV"}


def bundle_of(given: Handover) -> dict[str, Any]:
    """One case as a Bundle. The same case gives the same Bundle, until something about it changes."""
    patient, request = _full(given, "patient"), _full(given, "request")
    subject = {"reference": patient}
    entries = [(patient, _patient(given)), (request, _request(given, subject))]
    entries.append((_full(given, "task"), _task(given, subject, request)))
    entries += [
        (_full(given, f"result/{each.accession}/{each.test}/{each.site}"), _observation(each, subject))
        for each in given.results
    ]
    entries += [(_full(given, f"pending/{test}/{site}"), _pending(test, site, subject)) for test, site in given.pending]
    entries += [
        (_full(given, f"told/{number}"), _communication(what, at, subject))
        for number, (what, at) in enumerate(given.told)
    ]
    return {
        "resourceType": "Bundle",
        "identifier": {"system": REFERRAL_SYSTEM, "value": given.ref},
        "type": "collection",
        "timestamp": _instant(given.made_at),
        "entry": [{"fullUrl": url, "resource": resource} for url, resource in entries],
    }


def waiting_list(referrals: Sequence[tuple[str, datetime]], url_of: Mapping[str, str]) -> dict[str, Any]:
    """Referrals that wait to be fetched, by reference alone, as a searchset."""
    return {
        "resourceType": "Bundle",
        "type": "searchset",
        "total": len(referrals),
        "entry": [
            {
                "fullUrl": url_of[ref],
                "resource": {
                    "resourceType": "Task",
                    "id": ref,
                    "identifier": [{"system": REFERRAL_SYSTEM, "value": ref}],
                    "status": "requested",
                    "intent": "order",
                    "authoredOn": _instant(made_at),
                },
            }
            for ref, made_at in referrals
        ],
    }


def _patient(given: Handover) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "name": [{"use": "usual", "family": given.family_name, "given": [given.given_name]}],
        "birthDate": given.born_on.isoformat(),
        "telecom": [{"system": "phone", "value": given.mobile, "use": "mobile"}],
        "address": [{"use": "home", "line": list(given.address_lines), "postalCode": given.postcode}],
        "communication": [
            {
                "language": {"coding": [{"system": "urn:ietf:bcp:47", "code": given.language}]},
                "preferred": True,
            }
        ],
    }


def _request(given: Handover, subject: dict[str, str]) -> dict[str, Any]:
    agreed = ", ".join(given.agreed_to) or "nothing but calls"
    notes = [
        given.message,
        f"Agreed to: {agreed}. Safe times to ring: {given.safe_times.replace(',', ', ') or 'not said'}.",
    ]
    asked = given.asked or ReferralFor.ASSESSMENT
    return {
        "resourceType": "ServiceRequest",
        "identifier": [{"system": REFERRAL_SYSTEM, "value": given.ref}],
        "status": "active",
        "intent": "order" if given.asked else "proposal",
        "code": {"coding": [{"system": f"{SYSTEM}:asked", "code": asked.value}], "text": ASKED[asked]},
        "subject": subject,
        "authoredOn": _instant(given.made_at),
        "requester": {"display": given.service},
        "performer": [{"display": given.clinic}] if given.clinic else [{"display": "Not referred"}],
        "note": [{"text": text} for text in notes if text],
    }


def _task(given: Handover, subject: dict[str, str], request: str) -> dict[str, Any]:
    return {
        "resourceType": "Task",
        "identifier": [{"system": REFERRAL_SYSTEM, "value": given.ref}],
        "status": "requested" if given.asked else "draft",
        "intent": "order" if given.asked else "proposal",
        "focus": {"reference": request},
        "for": subject,
        "authoredOn": _instant(given.made_at),
        "requester": {"display": given.service},
        "description": f"Tell us what becomes of it, or call {given.phone}.",
    }


def _observation(result: HandedResult, subject: dict[str, str]) -> dict[str, Any]:
    reacted = result.outcome in REACTIONS
    status = _STATUS[result.status]
    observation = {
        "resourceType": "Observation",
        "status": "preliminary" if reacted and status == "final" else status,
        "code": _test(result.test),
        "subject": subject,
        "bodySite": {"text": result.site.value},
        "identifier": [{"system": f"{SYSTEM}:accession", "value": result.accession}],
    }
    if result.at is not None:
        observation["issued"] = _instant(result.at)
    coding = [{"system": f"{SYSTEM}:outcome", "code": result.outcome.value}]
    words = observed_words(result.outcome)
    if result.outcome in SAMPLE_FAILURES:
        observation["dataAbsentReason"] = {"coding": coding, "text": words}
    else:
        observation["valueCodeableConcept"] = {"coding": coding, "text": words}
    return observation


def observed_words(outcome: Outcome) -> str:
    """What a clinic reads of an outcome. A screen that reacted is never called a diagnosis."""
    words = outcome.value.replace("_", " ")
    return f"Not tested: {words}" if outcome in SAMPLE_FAILURES else _WORDS.get(outcome, words.capitalize())


def _pending(test: Test, site: Site, subject: dict[str, str]) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "registered",
        "code": _test(test),
        "subject": subject,
        "bodySite": {"text": site.value},
        "dataAbsentReason": {"text": "Requested; no result has come"},
    }


def told_words(what: str) -> str:
    """What a clinic reads of one thing that the person was told."""
    return "We spoke to the person" if what == SPOKE else f"Text: {what.replace('_', ' ')}"


def _communication(what: str, at: datetime, subject: dict[str, str]) -> dict[str, Any]:
    return {
        "resourceType": "Communication",
        "status": "completed",
        "subject": subject,
        "sent": _instant(at),
        "medium": [{"text": "telephone" if what == SPOKE else "text message"}],
        "payload": [{"contentString": told_words(what)}],
    }


def test_name(test: Test) -> str:
    """What a clinic calls a test."""
    return _NAMES.get(test, test.value.replace("_", " ").capitalize())


def _test(test: Test) -> dict[str, Any]:
    name = test_name(test)
    return {"coding": [{"system": f"{SYSTEM}:test", "code": test.value, "display": name}], "text": name}


def _full(given: Handover, part: str) -> str:
    return f"urn:uuid:{uuid.uuid5(_ROOT, f'{SYSTEM}:{given.ref}:{part}')}"


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


# ── What comes in ────────────────────────────────────────────────────────────────────────────

_SAYS: Final[Mapping[str, Mapping[str, ClinicSays]]] = {
    "Appointment": {
        "booked": ClinicSays.BOOKED,
        "pending": ClinicSays.BOOKED,
        "arrived": ClinicSays.ATTENDED,
        "checked-in": ClinicSays.ATTENDED,
        "fulfilled": ClinicSays.ATTENDED,
        "noshow": ClinicSays.DID_NOT_ATTEND,
        "cancelled": ClinicSays.CANCELLED,
    },
    "Encounter": {
        "arrived": ClinicSays.ATTENDED,
        "triaged": ClinicSays.ATTENDED,
        "in-progress": ClinicSays.ATTENDED,
        "finished": ClinicSays.ATTENDED,
    },
    "Procedure": {"completed": ClinicSays.TREATED},
}
"""What each status means to us. A Procedure is the treatment."""

_WHEN: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "Appointment": (("start",),),
    "Encounter": (("period", "start"),),
    "Procedure": (("performedDateTime",), ("performedPeriod", "start")),
}


def read_word(body: bytes) -> ClinicWord:
    """What a clinic sent, as one word about one referral.

    Raises ServiceError(BAD_INPUT) with the element at fault and what to do; never with what stood there.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise _bad("This is not JSON in UTF-8.") from None
    resources = list(_resources(document))
    told = [each for each in resources if str(each.get("resourceType")) in _SAYS]
    patients = [each for each in resources if each.get("resourceType") == "Patient"]
    if len(told) != 1:
        raise _bad(f"Send exactly one of {', '.join(_SAYS)}, alone or in a Bundle.")
    if len(patients) != 1:
        raise _bad("Send the Patient with it, contained or in the Bundle: exactly one, with birthDate.")
    [resource] = told
    kind = str(resource["resourceType"])
    status = resource.get("status")
    if not isinstance(status, str) or status not in _SAYS[kind]:
        raise _bad(f"{kind}.status must be one of {', '.join(_SAYS[kind])}.")
    return ClinicWord(
        referral=_referral(resource, kind),
        says=_SAYS[kind][status],
        happened_at=_moment(resource, kind),
        born_on=_born(patients[0]),
    )


def _resources(document: object) -> Iterator[Mapping[str, Any]]:
    """A resource, or those of a Bundle, each with what it contains."""
    if not isinstance(document, dict):
        raise _bad("Send one FHIR resource as a JSON object.")
    top = [document]
    if document.get("resourceType") == "Bundle":
        top = [inner for each in _dicts(document.get("entry")) for inner in _dicts([each.get("resource")])]
    for each in top:
        yield each
        yield from _dicts(each.get("contained"))


def _referral(resource: Mapping[str, Any], kind: str) -> str:
    identifiers = [inner for each in _dicts(resource.get("basedOn")) for inner in _dicts([each.get("identifier")])]
    found = {str(each.get("value")) for each in identifiers if each.get("system") == REFERRAL_SYSTEM}
    if len(found) != 1 or not _REF.fullmatch(min(found)):
        raise _bad(f"{kind}.basedOn must carry our referral: identifier.system {REFERRAL_SYSTEM}, and its value.")
    return found.pop()


def _dicts(value: object) -> list[dict[str, Any]]:
    """The objects of a list; nothing of what is no list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _moment(resource: Mapping[str, Any], kind: str) -> datetime:
    for path in _WHEN[kind]:
        value: object = resource
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, str):
            with suppress(ValueError, OverflowError):
                at = datetime.fromisoformat(value)
                if at.tzinfo is not None:
                    return at.astimezone(UTC)
    names = " or ".join(".".join((kind, *path)) for path in _WHEN[kind])
    raise _bad(f"{names} must be a date and time with its offset.")


def _born(patient: Mapping[str, Any]) -> date:
    written = patient.get("birthDate")
    if isinstance(written, str) and _DAY.fullmatch(written):
        with suppress(ValueError):
            return date.fromisoformat(written)
    raise _bad("Patient.birthDate must be a whole date, as YYYY-MM-DD.")


def _bad(sentence: str) -> ServiceError:
    return ServiceError(Code.BAD_INPUT, sentence)
