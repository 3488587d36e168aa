"""Writes requests for laboratories: HL7 OML^O21, a FHIR Bundle of ServiceRequests, or a table.

The same requests always give the same bytes. Tests and specimens are named by our own words, which each
laboratory maps once (docs/lab-integration.md). Sources: HL7 v2.5.1 chapter 4 (OML_O21); FHIR R4.
"""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any, Final

from integrations.lab.hl7_words import envelope
from models.rules.lab_request import KitRequest, RequestForm
from models.rules.vocabulary import Specimen, Test
from models.rules.working_days import LONDON

ENDING: Final = {RequestForm.HL7: "hl7", RequestForm.FHIR: "json", RequestForm.CSV: "csv"}
CONTENT_TYPE: Final = {
    RequestForm.HL7: "x-application/hl7-v2+er7",
    RequestForm.FHIR: "application/fhir+json",
    RequestForm.CSV: "text/csv; charset=utf-8",
}
CSV_COLUMNS: Final = ("request_id", "kit", "tube", "date_of_birth", "specimen", "test", "dispatched_at")

_HL7_SYSTEM: Final = "99KITPOST"
_TEST_NAME: Final = {
    Test.CHLAMYDIA: "Chlamydia trachomatis NAAT",
    Test.GONORRHOEA: "Neisseria gonorrhoeae NAAT",
    Test.SYPHILIS: "Treponema pallidum antibody",
    Test.HIV: "HIV antigen and antibody",
    Test.HEPATITIS_B: "Hepatitis B surface antigen",
    Test.HEPATITIS_C: "Hepatitis C antibody",
    Test.TRICHOMONAS: "Trichomonas vaginalis NAAT",
    Test.MYCOPLASMA_GENITALIUM: "Mycoplasma genitalium NAAT",
}
_SPECIMEN_NAME: Final = {
    Specimen.VULVOVAGINAL_SWAB: "Vulvovaginal swab",
    Specimen.FIRST_CATCH_URINE: "First catch urine",
    Specimen.RECTAL_SWAB: "Rectal swab",
    Specimen.PHARYNGEAL_SWAB: "Throat swab",
    Specimen.CAPILLARY_BLOOD: "Capillary blood",
}


def write_requests(
    form: RequestForm, requests: Sequence[KitRequest], *, service_id: str, lab: str, batch: str
) -> bytes:
    """One file of requests in the form that the lab has chosen."""
    match form:
        case RequestForm.HL7:
            return envelope([oml(each, service_id=service_id, lab=lab) for each in requests], batch)
        case RequestForm.FHIR:
            return _bundle(requests, service_id=service_id, batch=batch)
        case RequestForm.CSV:
            return _table(requests)
        case RequestForm.NONE:
            raise AssertionError("a lab that wants no requests is owed none")


def oml(request: KitRequest, *, service_id: str, lab: str) -> bytes:
    """One kit as OML^O21 of v2.5.1: an order for each test of a tube, with the tube as its specimen."""
    at = request.dispatched_at.astimezone(LONDON).strftime("%Y%m%d%H%M%S%z")
    kit = request.kit_code
    lines = [
        f"MSH|^~\\&|KITPOST|{service_id}||{lab}|{at}||OML^O21^OML_O21|{request.control_id}|P|2.5.1",
        # The name stays with us: 'U' says that it is not specified.
        f"PID|1||{kit}^^^KITPOST^KIT||^^^^^^U||{request.date_of_birth:%Y%m%d}",
    ]
    number = 0
    for tube in request.tubes:
        specimen = f"{tube.specimen.value}^{_SPECIMEN_NAME[tube.specimen]}^{_HL7_SYSTEM}"
        for test in tube.tests:
            number += 1
            lines += [
                f"ORC|NW|{tube.tube_code}^KITPOST||{kit}^KITPOST|||||{at}",
                f"OBR|{number}|{tube.tube_code}^KITPOST||{test.value}^{_TEST_NAME[test]}^{_HL7_SYSTEM}",
                f"SPM|1|{tube.tube_code}&KITPOST||{specimen}",
            ]
    return "".join(f"{line}\r" for line in lines).encode("ascii")


def _bundle(requests: Sequence[KitRequest], *, service_id: str, batch: str) -> bytes:
    entries: list[dict[str, Any]] = []
    for request in requests:
        patient = f"urn:kitpost:patient:{request.kit_code}"
        entries.append(
            _entry(
                patient,
                "Patient",
                identifier=[_identifier("kit", request.kit_code)],
                birthDate=request.date_of_birth.isoformat(),
            )
        )
        for tube in request.tubes:
            specimen = f"urn:kitpost:specimen:{tube.tube_code}"
            entries.append(
                _entry(
                    specimen,
                    "Specimen",
                    identifier=[_identifier("tube", tube.tube_code)],
                    type=_coded("specimen", tube.specimen.value, _SPECIMEN_NAME[tube.specimen]),
                    subject={"reference": patient},
                )
            )
            entries += [
                _entry(
                    f"urn:kitpost:request:{tube.tube_code}:{test.value}",
                    "ServiceRequest",
                    identifier=[_identifier("request", f"{request.control_id}-{tube.tube_code}-{test.value}")],
                    requisition=_identifier("kit", request.kit_code),
                    status="active",
                    intent="order",
                    code=_coded("test", test.value, _TEST_NAME[test]),
                    subject={"reference": patient},
                    specimen=[{"reference": specimen}],
                    authoredOn=request.dispatched_at.isoformat(timespec="seconds"),
                    requester={"display": service_id},
                )
                for test in tube.tests
            ]
    bundle = {
        "resourceType": "Bundle",
        "identifier": _identifier("batch", batch),
        "type": "collection",
        "entry": entries,
    }
    return json.dumps(bundle, ensure_ascii=False, indent=1).encode() + b"\n"


def _entry(full_url: str, kind: str, **resource: Any) -> dict[str, Any]:
    return {"fullUrl": full_url, "resource": {"resourceType": kind, **resource}}


def _identifier(kind: str, value: str) -> dict[str, str]:
    return {"system": f"urn:kitpost:{kind}", "value": value}


def _coded(kind: str, code: str, display: str) -> dict[str, Any]:
    return {"coding": [{"system": f"urn:kitpost:{kind}", "code": code, "display": display}]}


def _table(requests: Sequence[KitRequest]) -> bytes:
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\r\n")
    write.writerow(CSV_COLUMNS)
    for request in requests:
        for tube in request.tubes:
            for test in tube.tests:
                write.writerow((
                    request.control_id, request.kit_code, tube.tube_code, request.date_of_birth.isoformat(),
                    tube.specimen.value, test.value, request.dispatched_at.isoformat(timespec="seconds"),
                ))  # fmt: skip
    return out.getvalue().encode()
