"""The laboratories' way in over HTTP: results as FHIR R4, stored as they came before they are answered.

Every laboratory has a key of its own for each service it works for (`Authorization: Bearer …`). Sending is
idempotent by the laboratory's correlation id. Every answer, good or bad, is an OperationOutcome that says what
to mend and where, and never what stood there. What can't be used of a stored document waits for a person:
only what can't be a result at all is refused.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, NamedTuple

from fastapi import APIRouter, BackgroundTasks, Depends, Header, Path, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError

from app.lab_messages import file_messages, note_refusal
from app.lab_reading import Ingest
from app.wiring import lab_files
from models.actions.lab_message import Kept, find_message, keep_message
from models.actions.lab_receipt import receipt_of
from models.rules.errors import Code, ServiceError
from models.rules.lab import Form, LabMap
from models.rules.lab_receipt import receipt_as_json
from models.rules.quarantine import SENTENCES
from models.rules.reading import Finding, Quarantined, Reading
from models.rules.result import interpret
from models.rules.service import Services
from models.rules.vocabulary import Quarantine
from models.tables.lab_message import WayIn

LONGEST_BODY_BYTES: Final = 4 << 20
"""A Bundle of one person's results is about 10 KB; a thousand people's fit."""

FHIR_JSON: Final = "application/fhir+json"
QUARANTINE_SYSTEM: Final = "urn:kitpost:quarantine"
"""Of the codes in `details`: the words of docs/lab-integration.md."""

_TAKEN_TYPES: Final = frozenset({FHIR_JSON, "application/json"})
_CORRELATION: Final = r"[A-Za-z0-9._~:+=@-]{1,200}"
_NO_NAMES: Final = frozenset({".", ".."})
"""In an address they are the folder and the one above it: nobody could ask what became of such a document."""
_SAFE_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")

Severity = Literal["error", "warning", "information"]


class Issue(BaseModel):
    """One thing to know about what was sent."""

    severity: Severity
    code: str = Field(description="FHIR's issue type.")
    details: dict[str, Any] | None = Field(default=None, description="A coded reason, and what mends it.")
    diagnostics: str = Field(description="One sentence about this very place.")
    expression: list[str] | None = Field(default=None, description="Where, as FHIRPath.")


class OperationOutcome(BaseModel):
    """FHIR R4 OperationOutcome."""

    resourceType: Literal["OperationOutcome"] = "OperationOutcome"  # noqa: N815 - FHIR's name
    issue: list[Issue] = Field(min_length=1)


class DeliveryOut(BaseModel):
    """How far a document got."""

    correlation_id: str
    received_at: str
    state: Literal["stored", "reading", "finished"]
    receipt: dict[str, Any] | None = Field(description="Once finished: the receipt of docs/lab-integration.md.")


class Refusal(Exception):  # noqa: N818 - it is an answer
    """What was sent is not taken. Becomes an OperationOutcome."""

    def __init__(
        self,
        status: int,
        code: str,
        diagnostics: str,
        expression: str = "",
        *,
        word: Quarantine = Quarantine.MALFORMED,
    ) -> None:
        super().__init__(diagnostics)
        self.status = status
        self.word = word
        """The same for our lab desk."""
        self.issue = Issue(
            severity="error",
            code=code,
            diagnostics=diagnostics,
            expression=[expression] if expression else None,
        )


class Sender(NamedTuple):
    """A laboratory, working for one service, as its key proves it."""

    service_id: str
    lab: str


@dataclass(frozen=True, slots=True)
class LabResultsApi:
    """All that the routes need, put together by wiring. `ingest` is asked for when something is first sent."""

    ingest: Callable[[], Ingest]
    services: Services
    maps: Mapping[str, LabMap]
    keys: Mapping[str, str]
    """Each laboratory's key, by "service/LAB"."""
    public_base_url: str


def lab_results_router(api: LabResultsApi) -> APIRouter:
    """The routes under /api/labs and /api/fhir. Raises ServiceError(SETTINGS) for a key of no contract."""
    router = APIRouter(prefix="/api", tags=["laboratories"], route_class=OutcomeRoute, redirect_slashes=False)
    bearer = HTTPBearer(auto_error=False, description="The laboratory's key.")
    senders = {hashlib.sha256(key.encode()).digest(): _sender(name, api) for name, key in api.keys.items()}

    def caller(
        lab: Annotated[str, Path(description="The laboratory's agreed name.", max_length=40)],
        sent: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> Sender:
        """Compares with every key and never stops early, so that time tells nothing."""
        digest = hashlib.sha256(sent.credentials.encode() if sent else b"").digest()
        matches = [found for known, found in senders.items() if hmac.compare_digest(known, digest)]
        if not matches:
            raise Refusal(401, "login", "Send your laboratory's key as Authorization: Bearer <key>.")
        if matches[0].lab != lab:
            raise Refusal(403, "forbidden", "This key is another laboratory's: look at the address.")
        return matches[0]

    Caller = Annotated[Sender, Depends(caller)]  # noqa: N806 - a type

    async def document(by: Caller, request: Request) -> bytes:
        """Asked for after the key, so that what is refused unread is noted too."""
        try:
            return await read_document(request)
        except Refusal as refused:
            word = refused.word
            await run_in_threadpool(lambda: _note(api.ingest(), by, b"", word))
            raise

    @router.post(
        "/labs/{lab}/results",  # noqa: FAST003 - the caller's dependency reads the lab
        summary="Send results",
        status_code=202,
        response_class=FhirResponse,
        response_model=OperationOutcome,
        responses={
            200: {"description": "Stored before under this correlation id.", "model": OperationOutcome},
            **outcomes(400, 401, 403, 409, 413, 415, 422, 503),
        },
        openapi_extra={"requestBody": _REQUEST_BODY},
    )
    def send(
        by: Caller,
        body: Annotated[bytes, Depends(document)],
        later: BackgroundTasks,
        x_correlation_id: Annotated[str | None, Header(description="Your name for this document.")] = None,
        idempotency_key: Annotated[str | None, Header(description="The same, under its other usual name.")] = None,
    ) -> Response:
        """Stores a Bundle, a DiagnosticReport or one Observation, and says what we can't use of it.

        The answer comes once the document is stored. Send it again under the same correlation id if none came:
        nothing is taken twice. Other content under a used id is a conflict. `warning` issues name results that
        wait for a person; a correction is a new document under a new id.
        """
        lab_map, ingest = api.maps[by.lab], api.ingest()
        with _refusals_noted(ingest, by, body):
            correlation_id = correlation_id_of(x_correlation_id, idempotency_key)
            verdict = lab_files.check_file([body], lab_map)
            if verdict.held is not None:
                reason = verdict.held.reason
                raise Refusal(422, _ISSUE_CODES.get(reason, "invalid"), verdict.held.detail, word=reason)
            is_new = _keep(ingest, by, body, correlation_id)
        if is_new:
            later.add_task(_file_now, ingest)
        outcome = OperationOutcome(issue=list(_issues(body, lab_map, is_new=is_new)))
        location = f"{api.public_base_url}/api/labs/{by.lab}/results/{correlation_id}"
        return FhirResponse(
            outcome.model_dump(exclude_none=True), 202 if is_new else 200, {"Location": location}, background=later
        )

    @router.get(
        "/labs/{lab}/results/{correlation_id}",  # noqa: FAST003 - as above
        summary="Ask what became of results",
        responses=outcomes(401, 403, 404, 422, 503),
    )
    def show(
        by: Caller,
        correlation_id: Annotated[str, Path(description="Your name for the document.", pattern=f"^{_CORRELATION}$")],
    ) -> DeliveryOut:
        """How far one of your documents got, and its receipt once it was read."""
        with api.ingest().begin() as session:
            found = find_message(session, way=WayIn.HTTP, lab=by.lab, service_id=by.service_id, key=correlation_id)
            receipt = receipt_of(session, found.file_id) if found.file_id and found.finished else None
        return DeliveryOut(
            correlation_id=correlation_id,
            received_at=found.received_at.isoformat().replace("+00:00", "Z"),
            state="finished" if receipt else "reading" if found.file_id else "stored",
            receipt=json.loads(receipt_as_json(receipt)) if receipt else None,
        )

    @router.get("/fhir/metadata", summary="What we can do", response_class=FhirResponse, responses=_CAPABILITY)
    def metadata() -> Response:
        """FHIR R4 CapabilityStatement."""
        return FhirResponse(_capability_statement(api.public_base_url))

    return router


class FhirResponse(JSONResponse):
    """FHIR as JSON."""

    media_type = FHIR_JSON


class OutcomeRoute(APIRoute):
    """Answers an expected failure, of a dependency too, with an OperationOutcome."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's own handler, with such an answer round it."""
        handle = super().get_route_handler()

        async def answering(request: Request) -> Response:
            try:
                return await handle(request)
            except Refusal as refused:
                return _refused(refused)
            except RequestValidationError:
                return _refused(Refusal(422, "invalid", "A part of the address is too long, or no name that we take."))
            except OperationalError:
                return _refused(Refusal(503, "transient", "It could not be stored just now: send it again."))
            except ServiceError as error:
                status, code = _STATUS.get(error.code, (0, ""))
                if not status:
                    raise
                return _refused(Refusal(status, code, error.message))

        return answering


_STATUS: Final[Mapping[Code, tuple[int, str]]] = {
    Code.NOT_FOUND: (404, "not-found"),
    Code.CONFLICT: (409, "duplicate"),
    Code.BAD_INPUT: (422, "invalid"),
    Code.DATABASE_DOWN: (503, "transient"),
    Code.STORE_DOWN: (503, "transient"),
}


def _refused(refused: Refusal) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if refused.status == HTTPStatus.UNAUTHORIZED else None
    outcome = OperationOutcome(issue=[refused.issue])
    return FhirResponse(outcome.model_dump(exclude_none=True), refused.status, headers)


async def read_document(request: Request) -> bytes:
    """The body as sent, and no more of it than is allowed. Asked for after the key."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in _TAKEN_TYPES:
        raise Refusal(415, "not-supported", f"Send {FHIR_JSON}.", word=Quarantine.UNSUPPORTED_FORMAT)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LONGEST_BODY_BYTES:
            sentence = f"Send at most {LONGEST_BODY_BYTES} bytes at once, or use files."
            raise Refusal(413, "too-long", sentence, word=Quarantine.TOO_MANY_QUARANTINED)
    return bytes(body)


def _sender(name: str, api: LabResultsApi) -> Sender:
    service_id, _, lab = name.partition("/")
    in_force = api.services.get(service_id)
    if in_force is None or in_force.service.contract(lab) is None or lab not in api.maps:
        raise ServiceError(Code.SETTINGS, f"KITPOST_LAB_KEYS names {name}, but there is no such contract and map.")
    return Sender(service_id, lab)


def correlation_id_of(*sent: str | None) -> str:
    """The one name that a sender gave to what it sent, in either header. Raises Refusal."""
    named = {each for each in sent if each is not None}
    if len(named) != 1:
        sentence = "Send X-Correlation-ID." if not named else "X-Correlation-ID and Idempotency-Key differ: send one."
        raise Refusal(400, "required" if not named else "invalid", sentence, "http.X-Correlation-ID")
    [correlation_id] = named
    if correlation_id in _NO_NAMES or not re.fullmatch(_CORRELATION, correlation_id):
        sentence = "A correlation id has 1 to 200 letters, digits or . _ ~ : + = @ -, and is more than a dot or two."
        raise Refusal(400, "invalid", sentence, "http.X-Correlation-ID")
    return correlation_id


def _keep(ingest: Ingest, by: Sender, body: bytes, correlation_id: str) -> bool:
    """Stores a document, and says whether it is new. Raises ServiceError(CONFLICT)."""
    with ingest.begin() as session:
        kept = keep_message(
            session,
            body,
            way=WayIn.HTTP,
            lab=by.lab,
            service_id=by.service_id,
            key=correlation_id,
            form=Form.FHIR,
            now=ingest.clock(),
            cipher=ingest.cipher,
            indexes=ingest.indexes,
        )
    return kept is Kept.NEW


@contextmanager
def _refusals_noted(ingest: Ingest, by: Sender, body: bytes) -> Iterator[None]:
    """What is refused here reaches our lab desk too: a client may log it where nobody looks."""
    try:
        yield
    except Refusal as refused:
        _note(ingest, by, body, refused.word)
        raise
    except ServiceError as error:
        if error.code is Code.CONFLICT:
            _note(ingest, by, body, Quarantine.CONTROL_ID_REUSE)
        raise


def _note(ingest: Ingest, by: Sender, body: bytes, reason: Quarantine) -> None:
    note_refusal(ingest, by.lab, body, way=WayIn.HTTP, reason=reason)


def _file_now(ingest: Ingest) -> None:
    """Hands it to the readers. If that fails, it is stored all the same, and ingest's own sweep does it."""
    try:
        file_messages(ingest)
    except (ServiceError, OperationalError):
        return


# ── What is said of a document ───────────────────────────────────────────────────────────────

_ISSUE_CODES: Final[Mapping[Quarantine, str]] = {
    Quarantine.UNKNOWN_TOKEN: "code-invalid",
    Quarantine.UNKNOWN_TEST: "code-invalid",
    Quarantine.UNKNOWN_STATUS: "code-invalid",
    Quarantine.SITE_UNKNOWN: "code-invalid",
    Quarantine.UNKNOWN_SENDER: "code-invalid",
    Quarantine.EMPTY_VALUE: "required",
    Quarantine.IDENTITY_MISSING: "required",
    Quarantine.CANCELLED_NO_REASON: "required",
    Quarantine.BAD_KIT_ID: "value",
    Quarantine.DATE_IMPLAUSIBLE: "value",
    Quarantine.CODE_DISPLAY_CONFLICT: "invariant",
    Quarantine.FLAG_CONFLICT: "invariant",
    Quarantine.CONFLICTING_VALUES: "invariant",
    Quarantine.IDENTITY_CONFLICT: "invariant",
    Quarantine.SPECIMEN_CONFLICT: "invariant",
    Quarantine.MALFORMED: "structure",
    Quarantine.ENCODING: "structure",
    Quarantine.INCOMPLETE_FILE: "incomplete",
    Quarantine.EMPTY_FILE: "required",
    Quarantine.UNSUPPORTED_FORMAT: "not-supported",
}
"""FHIR's issue types; what is not here is a business rule."""


def _issues(body: bytes, lab_map: LabMap, *, is_new: bool) -> Iterator[Issue]:
    """What we could say of it before it is matched: first that it is stored, then each result that can't be used."""
    readings = [
        reading
        for message in lab_files.read_messages([body], lab_map)
        for reading in interpret(message, lab_map)
        if isinstance(reading, Finding | Quarantined)
    ]
    held = [reading for reading in readings if isinstance(reading, Quarantined)]
    before = "Stored." if is_new else "Stored before under this id: nothing was done again."
    counts = (
        f"{len(readings)} results, of which {len(held)} wait for a person." if held else f"{len(readings)} results."
    )
    yield Issue(severity="information", code="informational", diagnostics=f"{before} {counts}")
    root = _root_of(body) if held else ""
    for reading in held:
        yield Issue(
            severity="warning",
            code=_ISSUE_CODES.get(reading.reason, "business-rule"),
            details={
                "coding": [{"system": QUARANTINE_SYSTEM, "code": reading.reason.value}],
                "text": SENTENCES[reading.reason].lab,
            },
            diagnostics=reading.detail,
            expression=[_place(root, reading)],
        )


def _root_of(body: bytes) -> str:
    """The type of a document that was read before. Its numbers stay text: Python makes none of thousands of digits."""
    document = json.loads(body.removeprefix(b"\xef\xbb\xbf"), parse_int=str, parse_float=str)
    return str(document["resourceType"])


def _place(root: str, reading: Reading) -> str:
    """Where a result stands, as FHIRPath."""
    resource = f"Bundle.entry[{reading.position - 1}].resource" if root == "Bundle" else root
    inner = reading.row_key.partition("#")[2]
    return f"{resource}.contained.where(id='{inner}')" if _SAFE_ID.fullmatch(inner) else resource


# ── What we say of ourselves ─────────────────────────────────────────────────────────────────

_OUTCOME_SCHEMA: Final = {FHIR_JSON: {"schema": {"$ref": "#/components/schemas/OperationOutcome"}}}
_WORDS: Final = {
    400: "No usable correlation id.",
    401: "No key, or an unknown one.",
    403: "Another laboratory's key.",
    404: "Nothing under this id.",
    409: "The id was used for other content.",
    413: "Too long.",
    415: "Not FHIR JSON.",
    422: "No document that we read: not JSON, another resource, another version.",
    503: "Not stored: send it again.",
}


def outcomes(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """An OperationOutcome under each of these statuses, for the OpenAPI description."""
    return {status: {"description": _WORDS[status], "content": _OUTCOME_SCHEMA} for status in statuses}


_REQUEST_BODY: Final = {
    "required": True,
    "content": {
        FHIR_JSON: {
            "schema": {
                "type": "object",
                "required": ["resourceType"],
                "properties": {"resourceType": {"enum": ["Bundle", "DiagnosticReport", "Observation"]}},
            },
        }
    },
}

_CAPABILITY: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "CapabilityStatement.", "content": {FHIR_JSON: {"schema": {"type": "object"}}}}
}

_STATED_ON: Final = "2026-11-25"
"""When what the statement says last changed."""


def _capability_statement(public_base_url: str) -> dict[str, Any]:
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": _STATED_ON,
        "kind": "instance",
        "implementation": {"description": "kitpost: results of self-sampling kits", "url": f"{public_base_url}/api"},
        "fhirVersion": "4.0.1",
        "format": ["json", FHIR_JSON],
        "messaging": [
            {
                "endpoint": [
                    {
                        "protocol": {
                            "system": "http://terminology.hl7.org/CodeSystem/message-transport",
                            "code": "http",
                        },
                        "address": f"{public_base_url}/api/labs/{{lab}}/results",
                    }
                ],
                "documentation": (
                    "POST a Bundle (collection, message, transaction or searchset), a DiagnosticReport with its "
                    "Observations contained, or one Observation, with your key as a bearer token and "
                    "X-Correlation-ID. 202: stored. 200: stored before. 409: the id was used for other content. "
                    "GET the Location of the answer for the receipt."
                ),
            }
        ],
    }
