"""Clinics' own systems: fetch the referrals made to them, and say what became of a person. FHIR R4.

Every clinic has a key of its own for each service (`Authorization: Bearer …`). The list names references alone; a
fetch is an export and is audited. What a clinic says is idempotent by its correlation id.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Path
from fastapi.responses import Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.database import Begin
from app.web.fhir import (
    FHIR_JSON,
    FhirResponse,
    Issue,
    OperationOutcome,
    OutcomeRoute,
    Refusal,
    correlation_id_of,
    outcomes,
    read_document,
)
from app.wiring import Clock, clinic_fhir
from models.actions.referral import ClinicSystem, fetch, hear, waiting_for
from models.rules.secrets import Cipher
from models.rules.service import Service, Services

AT_ONCE: Final = 500
"""Referrals in one list; who fetches them sees the next ones."""

_BUNDLE: Final[dict[str, Any]] = {FHIR_JSON: {"schema": {"type": "object", "required": ["resourceType"]}}}
_WORD: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        FHIR_JSON: {
            "schema": {
                "type": "object",
                "required": ["resourceType"],
                "properties": {"resourceType": {"enum": ["Appointment", "Encounter", "Procedure", "Bundle"]}},
            }
        }
    },
}
Ref = Annotated[str, Path(description="The referral's reference.", max_length=64)]


@dataclass(frozen=True, slots=True)
class ReferralsApi:
    """All that the routes need, put together by wiring."""

    begin: Begin
    clock: Clock
    services: Services
    cipher: Cipher
    keys: Mapping[str, str]
    """Each clinic's key, by "service/clinic"."""
    public_base_url: str

    def service_of(self, by: ClinicSystem) -> Service:
        """The service that a clinic's key is for."""
        return self.services[by.service_id].service


def referrals_router(api: ReferralsApi) -> APIRouter:
    """The routes under /api/clinics."""
    router = APIRouter(
        prefix="/api/clinics/{clinic}", tags=["clinics"], route_class=OutcomeRoute, redirect_slashes=False
    )
    bearer = HTTPBearer(auto_error=False, description="The clinic's key.")
    systems = {
        hashlib.sha256(key.encode()).digest(): ClinicSystem(*name.split("/", 1)) for name, key in api.keys.items()
    }

    def caller(
        clinic: Annotated[str, Path(description="The clinic's agreed name.", max_length=40)],
        sent: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> ClinicSystem:
        """Compares with every key and never stops early, so that time tells nothing."""
        digest = hashlib.sha256(sent.credentials.encode() if sent else b"").digest()
        matches = [found for known, found in systems.items() if hmac.compare_digest(known, digest)]
        if not matches:
            raise Refusal(401, "login", "Send your clinic's key as Authorization: Bearer <key>.")
        if matches[0].clinic != clinic:
            raise Refusal(403, "forbidden", "This key is another clinic's: look at the address.")
        return matches[0]

    Caller = Annotated[ClinicSystem, Depends(caller)]  # noqa: N806 - a type

    @router.get(
        "/referrals",
        summary="List referrals that wait",
        response_class=FhirResponse,
        responses={200: {"description": "Bundle of Tasks.", "content": _BUNDLE}, **outcomes(401, 403, 503)},
    )
    def waiting(by: Caller) -> Response:
        """Those that you have not fetched, oldest first, by reference alone: whom they are about stands in each."""
        with api.begin() as session:
            found = [(each.ref, each.made_at) for each in waiting_for(session, by, limit=AT_ONCE)]
        urls = {ref: f"{api.public_base_url}/api/clinics/{by.clinic}/referrals/{ref}" for ref, _ in found}
        return FhirResponse(clinic_fhir.waiting_list(found, urls))

    @router.get(
        "/referrals/{ref}",
        summary="Fetch a referral",
        response_class=FhirResponse,
        responses={200: {"description": "Bundle.", "content": _BUNDLE}, **outcomes(401, 403, 404, 422, 503)},
    )
    def show(by: Caller, ref: Ref) -> Response:
        """Patient, ServiceRequest, Task, results and what was told, as it stands now. Recorded as an export."""
        with api.begin() as session:
            given = fetch(session, ref, by=by, now=api.clock(), service=api.service_of(by), cipher=api.cipher)
        return FhirResponse(clinic_fhir.bundle_of(given))

    @router.post(
        "/events",
        summary="Say what became of somebody",
        status_code=202,
        response_class=FhirResponse,
        response_model=OperationOutcome,
        responses={
            200: {"description": "Known already under this correlation id.", "model": OperationOutcome},
            **outcomes(400, 401, 403, 404, 409, 413, 415, 422, 503),
        },
        openapi_extra={"requestBody": _WORD},
    )
    def say(
        by: Caller,
        body: Annotated[bytes, Depends(read_document)],
        x_correlation_id: Annotated[str | None, Header(description="Your name for this event.")] = None,
        idempotency_key: Annotated[str | None, Header(description="The same, under its other usual name.")] = None,
    ) -> Response:
        """An Appointment, an Encounter or a Procedure, based on our referral and with its Patient.

        Once somebody was seen, nobody here chases them. Said of somebody born on another day it changes nothing and
        a clinician looks at it.
        """
        key = correlation_id_of(x_correlation_id, idempotency_key)
        word = clinic_fhir.read_word(body)
        with api.begin() as session:
            heard = hear(
                session,
                word,
                key=key,
                by=by,
                now=api.clock(),
                service=api.service_of(by),
                cipher=api.cipher,
            )
        issues = [
            Issue(
                severity="information",
                code="informational",
                diagnostics=f"Taken: {word.says.replace('_', ' ')}." if heard.is_new else "Taken before under this id.",
            )
        ]
        if not heard.of_the_person:
            issues.append(
                Issue(
                    severity="warning",
                    code="business-rule",
                    diagnostics="The date of birth is not that of the person we referred: a clinician looks at it.",
                    expression=["Patient.birthDate"],
                )
            )
        outcome = OperationOutcome(issue=issues).model_dump(exclude_none=True)
        return FhirResponse(outcome, 202 if heard.is_new else 200)

    return router
