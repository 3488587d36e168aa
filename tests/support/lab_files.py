"""Whole lab files built from rows of plain text, in every format that is read: for attacks and for measuring.

A `Row` is one result as a lab would tell it. Every field is what stands in the file, so that a test can spoil
any one of them; nothing here knows what a word means.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from datetime import date
from itertools import groupby
from typing import Any, NamedTuple

from models.rules.kit import show_kit_code, show_tube_code
from models.rules.vocabulary import Site, Test

COLLECTED = date(2026, 10, 30)
RECEIVED = date(2026, 11, 2)

CT, GC, HIV, SYPHILIS = Test.CHLAMYDIA, Test.GONORRHOEA, Test.HIV, Test.SYPHILIS
BLOODS = (HIV, SYPHILIS)


class Row(NamedTuple):
    """One result. Ids with hyphens; `born` and times ISO where they are meant to be read."""

    kit: str
    tube: str
    family: str
    born: str
    accession: str
    test: str
    site: str
    value: str
    status: str
    order_status: str = "F"
    comment: str = ""
    processing: str = "P"
    application: str = "WINLIMS"
    facility: str = "NORTHLAB"
    at: str = "2026-11-02T17:40"
    column: str = ""
    """The wide table's column."""
    message_id: str = ""
    parent: str = ""


def at_day(text: str, spelling: str) -> str:
    """An ISO day in a lab's own spelling; anything else as it is."""
    try:
        return date.fromisoformat(text).strftime(spelling)
    except ValueError:
        return text


# ── HL7 v2 ───────────────────────────────────────────────────────────────────────────────────

HL7_TEST = {CT: "CTN", GC: "GCN", HIV: "HIVS", SYPHILIS: "TREP"}
HL7_SITE = {Site.URINE: "URN", Site.BLOOD: "CAP", Site.VAGINAL: "VVS", Site.RECTAL: "RES"}
HL7_VALUE = {CT: "Not detected", GC: "Not detected", HIV: "Non-reactive", SYPHILIS: "Non-reactive"}


def hl7(rows: Iterable[Row], *, control_id: str = "", trailer: bool = True) -> bytes:
    """A batch file of ORU^R01 messages: neighbouring rows of one person are one message."""
    out = [f"FHS|^~\\&|WINLIMS|NORTHLAB|STIPIPE|ANYSVC|20261103061500+0000||||{control_id}"]
    out.append("BHS|^~\\&|WINLIMS|NORTHLAB|STIPIPE|ANYSVC|20261103061500+0000")
    count = 0

    def person(row: Row) -> tuple[str, ...]:
        return (row.kit, row.family, row.born, row.processing, row.application, row.facility, row.message_id)

    for _, message in groupby(rows, person):
        count += 1
        of_message = list(message)
        first = of_message[0]
        newest = max(row.at for row in of_message).translate(str.maketrans("", "", "-T:"))
        sent = max("20261103061500", f"{newest}00")
        out.append(
            f"MSH|^~\\&|{first.application}|{first.facility}|STIPIPE|ANYSVC|{sent}+0000||ORU^R01^ORU_R01|"
            f"{first.message_id or f'M{count}-{first.accession}'}|{first.processing}|2.4|||AL|NE|GBR|UNICODE UTF-8"
        )
        born = at_day(first.born, "%Y%m%d")
        out.append(f"PID|1||{first.kit}^^^ANYSVC^KIT||{first.family}^Testina^^^^^L||{born}|F")
        for _, order in groupby(of_message, lambda r: (r.tube, r.accession, r.site, r.order_status, r.parent, r.at)):
            of_order = list(order)
            head = of_order[0]
            at = head.at.translate(str.maketrans("", "", "-T:"))
            out.append(f"ORC|RE|{head.kit}^ANYSVC|{head.accession}^NORTHLAB||CM")
            out.append(
                f"OBR|1|{head.tube}^ANYSVC|{head.accession}^NORTHLAB|PANEL^Panel^NORTHLAB|||{COLLECTED:%Y%m%d}|||||||"
                f"{RECEIVED:%Y%m%d}0812|{head.site}^^NORTHLAB|||||||{at}00||MB|{head.order_status}"
                + (f"|{head.parent}" if head.parent else "")
            )
            for row in of_order:
                out.append(f"OBX|1|ST|{row.test}^^NORTHLAB||{row.value}||||||{row.status}|||{at}00")
                if row.comment:
                    out.append(f"NTE|1|L|{row.comment}")
    if trailer:
        out += [f"BTS|{count}", "FTS|1"]
    return ("\r".join(out) + "\r").encode()


def lone_hl7(rows: Iterable[Row]) -> bytes:
    """The first message of such a file, without an envelope."""
    batch = hl7(rows)
    return batch[batch.index(b"MSH") : batch.index(b"BTS")]


# ── Tables ───────────────────────────────────────────────────────────────────────────────────

LONG_HEADER = (
    "LabNo", "KitCode", "TubeCode", "Surname", "DOB", "Collected", "Received", "Authorised", "TestCode", "Site",
    "Result", "Status", "Comment",
)  # fmt: skip


def long_table(rows: Iterable[Row]) -> bytes:
    """Dialect A: one row a result."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\r\n")
    write.writerow(LONG_HEADER)
    for row in rows:
        day, _, clock = row.at.partition("T")
        write.writerow((
            row.accession, row.kit, row.tube, row.family, at_day(row.born, "%d/%m/%Y"), f"{COLLECTED:%d/%m/%Y}",
            f"{RECEIVED:%d/%m/%Y} 08:05", f"{at_day(day, '%d/%m/%Y')} {clock}", row.test, row.site, row.value,
            row.status, row.comment,
        ))  # fmt: skip
    return b"\xef\xbb\xbf" + out.getvalue().encode()


def control_file(content: bytes) -> bytes:
    """What dialect A's lab writes beside its table."""
    rows = len(list(csv.reader(io.StringIO(content.decode("utf-8-sig"))))) - 1
    return f"file=x.csv\nrows={rows}\nsha256={hashlib.sha256(content).hexdigest()}\n".encode()


WIDE_COLUMNS = ("ct_ur", "gc_ur", "ct_th", "gc_th", "ct_re", "gc_re", "hiv", "syph", "hbv", "hcv")
WIDE_COLUMN = {CT: "ct_ur", GC: "gc_ur", HIV: "hiv", SYPHILIS: "syph"}
WIDE_VALUE = {CT: "NEG", GC: "NEG", HIV: "NR", SYPHILIS: "NR"}


def wide_table(rows: Iterable[Row]) -> bytes:
    """Dialect B: one row a kit, one column a result, counted by its first and last line."""
    lines = []
    for _, kit in groupby(rows, lambda r: (r.kit, r.born)):
        of_kit = list(kit)
        first = of_kit[0]
        cells = {row.column: row.value for row in of_kit}
        comment = next((row.comment for row in of_kit if row.comment), "")
        lines.append(
            [first.kit.replace("-", ""), first.born, f"{RECEIVED}", first.at.partition("T")[0]]
            + [cells.get(column, "") for column in WIDE_COLUMNS]
            + [comment]
        )
    out = io.StringIO()
    write = csv.writer(out, delimiter=";", lineterminator="\r\n")
    write.writerow(["H", "SOUTHVALE PATH", "20261104", f"{len(lines):04d}"])
    write.writerow(["barcode", "dob", "rec_date", "rep_date", *WIDE_COLUMNS, "remark"])
    write.writerows(lines)
    write.writerow(["T", f"{len(lines):04d}"])
    return out.getvalue().encode("cp1252")


QUOTED_TEST = {CT: "C. trachomatis", GC: "N. gonorrhoeae", HIV: "HIV Ag/Ab", SYPHILIS: "T. pallidum"}
QUOTED_SITE = {Site.URINE: "FCU", Site.BLOOD: "DBS"}
QUOTED_VALUE = {CT: "2|NOT DETECTED", GC: "2|NOT DETECTED", HIV: "1|NON REACTIVE", SYPHILIS: "1|NON REACTIVE"}
QUOTED_HEADER = (
    "accession_id", "order_ref", "patient_dob", "specimen_type", "analyte", "result_code", "result_text",
    "result_status", "revision", "released_at",
)  # fmt: skip


def quoted_table(rows: Iterable[Row]) -> bytes:
    """Dialect C: one row a result, a tube id and no kit id, codes with texts."""
    out = io.StringIO()
    write = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    write.writerow(QUOTED_HEADER)
    for row in rows:
        code, _, text = row.value.partition("|")
        write.writerow((
            row.accession, row.tube, at_day(row.born, "%d-%b-%Y"), row.site, row.test, code, text, row.status,
            row.order_status, f"{row.at}:00Z",
        ))  # fmt: skip
    return out.getvalue().encode()


# ── FHIR ─────────────────────────────────────────────────────────────────────────────────────

FHIR_VALUE = {
    CT: "260415000|Not detected",
    GC: "260415000|Not detected",
    HIV: "131194007|Non-reactive",
    SYPHILIS: "131194007|Non-reactive",
}
FHIR_SITE = {Site.URINE: "Urine", Site.BLOOD: "Capillary blood"}


def fhir(rows: Sequence[Row]) -> bytes:
    """A Bundle with one report about one person."""
    first = rows[0]

    def entry(key: str, kind: str, **resource: Any) -> dict[str, Any]:
        return {"fullUrl": f"urn:uuid:{key}", "resource": {"resourceType": kind, **resource}}

    specimens = {(row.tube, row.site): f"s{number}" for number, row in enumerate(rows)}
    patient = {"reference": "urn:uuid:p"}
    entries = [
        entry(
            "p",
            "Patient",
            identifier=[{"system": "https://anysvc.example/kit", "value": first.kit}],
            name=[{"family": first.family, "given": ["Testina"]}],
            birthDate=first.born,
        ),
        entry(
            "r",
            "DiagnosticReport",
            identifier=[{"system": "https://northlab.example/report", "value": first.accession}],
            status=first.order_status,
            code={"coding": [{"system": "http://snomed.info/sct", "code": "721981007"}]},
            subject=patient,
            issued=f"{first.at}:00+00:00",
            result=[{"reference": f"urn:uuid:o{number}"} for number in range(len(rows))],
        ),
    ]
    for number, row in enumerate(rows):
        code, _, word = row.value.partition("|")
        entries.append(
            entry(
                f"o{number}",
                "Observation",
                status=row.status,
                code={"coding": [{"system": "https://northlab.example/test", "code": row.test}]},
                subject=patient,
                effectiveDateTime=f"{COLLECTED}",
                issued=f"{row.at}:00+00:00",
                valueCodeableConcept={
                    "coding": [{"system": "http://snomed.info/sct", "code": code, "display": word}],
                    "text": word,
                },
                specimen={"reference": f"urn:uuid:{specimens[row.tube, row.site]}"},
                **({"note": [{"text": row.comment}]} if row.comment else {}),
            )
        )
    entries += [
        entry(
            key,
            "Specimen",
            identifier=[{"system": "https://anysvc.example/tube", "value": tube}],
            type={"text": site},
            receivedTime=f"{RECEIVED}T08:05:00+00:00",
        )
        for (tube, site), key in specimens.items()
    ]
    bundle: dict[str, Any] = {
        "resourceType": "Bundle",
        "identifier": {"system": "https://northlab.example/bundle", "value": f"B-{first.accession}"},
        "type": "collection",
        "timestamp": "2026-11-04T12:15:00+00:00",
        "entry": entries,
    }
    if first.processing != "P":
        bundle["meta"] = {"tag": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST"}]}
    return json.dumps(bundle).encode()


# ── One kit's rows ───────────────────────────────────────────────────────────────────────────


class Spelling(NamedTuple):
    """How one format names tests, sites and negatives."""

    lab: str
    test: dict[Test, str]
    site: dict[Site, str]
    negative: dict[Test, str]
    status: str = "F"
    order_status: str = "F"


HL7 = Spelling("NORTHLAB", HL7_TEST, HL7_SITE, HL7_VALUE)
LONG = Spelling("NORTHLAB", HL7_TEST, HL7_SITE, HL7_VALUE)
WIDE = Spelling("SOUTHVALE", WIDE_COLUMN, {Site.URINE: "", Site.BLOOD: ""}, WIDE_VALUE)
QUOTED = Spelling("QUAYSIDE", QUOTED_TEST, QUOTED_SITE, QUOTED_VALUE, "FINAL", "1")
FHIR = Spelling("NORTHLAB", HL7_TEST, FHIR_SITE, FHIR_VALUE, "final", "final")


def negative_rows(code: str, family: str, born: str, *, spelling: Spelling, accession: str = "") -> list[Row]:
    """Four final negatives: chlamydia and gonorrhoea of urine (tube 1), HIV and syphilis of blood (tube 2)."""
    return [
        Row(
            kit=show_kit_code(code),
            tube=show_tube_code(code + ("2" if test in BLOODS else "1")),
            family=family,
            born=born,
            accession=accession or f"26V{code}",
            test=spelling.test[test],
            site=spelling.site[Site.BLOOD if test in BLOODS else Site.URINE],
            value=spelling.negative[test],
            status=spelling.status,
            order_status=spelling.order_status,
            column=WIDE_COLUMN[test],
        )
        for test in (CT, GC, HIV, SYPHILIS)
    ]
