"""FHIR R4: a Bundle, a DiagnosticReport with its Observations, or one Observation, by closed checks of our own.

Nothing is fetched: references are resolved inside the file or not at all. Structure and statuses:
lab-messages.md section 3. A file that closes its last bracket is complete; a cut one is no JSON.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import islice
from typing import Any, Final, NamedTuple, NoReturn

from integrations.lab.framing import BrokenFile, Completeness, FileVerdict, Meter, decode, has_control_bytes
from integrations.lab.rows import BLANK_ROW, held_if_damaged
from models.rules import lab_time
from models.rules.lab import ABSENT, ASIDE, ATTACHED, ORDER_ONLY, SPOILT, Coded, Fault, Form, LabMap, LabMessage, LabRow
from models.rules.vocabulary import Quarantine

MAX_FHIR_BYTES: Final = 24 << 20
"""Some 14,000 observations. JSON is read as a whole, eight times its size: a worker stays under 400 MB."""

Resource = Mapping[str, Any]

_TOO_LARGE: Final = f"The FHIR file is larger than {MAX_FHIR_BYTES >> 20} MiB: send it as several."
_MODIFIED: Final = "A resource carries a modifier that can change its meaning and is not known."
_BUNDLE_TYPES: Final = frozenset({"collection", "message", "transaction", "searchset"})
_ROOTS: Final = frozenset({"Bundle", "DiagnosticReport", "Observation"})
_CONTAINED: Final = frozenset(
    {
        *("Observation", "Patient", "Specimen", "ServiceRequest"),
        *("Organization", "Practitioner", "PractitionerRole", "Location", "Device"),
    }
)
_NHS_NUMBER: Final = "https://fhir.nhs.uk/Id/nhs-number"

_ANY: Final = "resourceType id meta language text contained extension identifier"
_ELEMENTS: Final[Mapping[str, frozenset[str]]] = {
    kind: frozenset(f"{_ANY} {own}".split())
    for kind, own in {
        "Observation": """
            basedOn partOf status category code subject focus encounter effectiveDateTime effectivePeriod
            effectiveInstant effectiveTiming issued performer valueQuantity valueCodeableConcept valueString
            valueBoolean valueInteger valueRange valueRatio valueSampledData valueTime valueDateTime valuePeriod
            dataAbsentReason interpretation note bodySite method specimen device referenceRange hasMember derivedFrom
            component""",
        "DiagnosticReport": """
            basedOn status category code subject encounter effectiveDateTime effectivePeriod issued performer
            resultsInterpreter specimen result imagingStudy media conclusion conclusionCode presentedForm""",
        "Specimen": """
            accessionIdentifier status type subject receivedTime parent request collection processing container
            condition note""",
        "ServiceRequest": """
            instantiatesCanonical instantiatesUri basedOn replaces requisition status intent category priority
            doNotPerform code orderDetail quantityQuantity quantityRatio quantityRange subject encounter
            occurrenceDateTime occurrencePeriod occurrenceTiming asNeededBoolean asNeededCodeableConcept authoredOn
            requester performerType performer locationCode locationReference reasonCode reasonReference insurance
            supportingInfo specimen bodySite note patientInstruction relevantHistory""",
        "Patient": """
            active name telecom gender birthDate deceasedBoolean deceasedDateTime address maritalStatus
            multipleBirthBoolean multipleBirthInteger photo contact communication generalPractitioner
            managingOrganization link""",
    }.items()
}
"""Elements of R4. Another one is another version of FHIR, or a mistake; both are kept for a person."""
_WORDS: Final = frozenset(
    {
        *("resourceType", "id", "language", "intent", "priority", "gender", "deceasedDateTime", "conclusion"),
        *("patientInstruction", "effectiveDateTime", "effectiveInstant", "occurrenceDateTime", "issued", "authoredOn"),
        *("receivedTime", "valueString", "valueTime", "valueDateTime"),
    }
)
_SEEN_TO: Final = frozenset(
    {
        *("status", "birthDate", "valueBoolean", "valueInteger", "multipleBirthBoolean", "multipleBirthInteger"),
        *("deceasedBoolean", "asNeededBoolean", "active", "doNotPerform", "instantiatesCanonical", "instantiatesUri"),
    }
)
"""Of these elements those that are words, and those whose type says nothing or is looked at where they are read. All
others are objects, or lists of them."""
_SINGLE: Final = frozenset(
    {
        *(
            "meta",
            "text",
            "code",
            "subject",
            "encounter",
            "type",
            "collection",
            "accessionIdentifier",
            "method",
            "device",
        ),
        *(
            "dataAbsentReason",
            "effectivePeriod",
            "effectiveTiming",
            "valueCodeableConcept",
            "valueQuantity",
            "valueRange",
        ),
        *("valueRatio", "valueSampledData", "valuePeriod", "requisition", "performerType", "requester"),
    }
)
_SINGLE_OF_A_RESULT: Final = _SINGLE | {"specimen", "bodySite"}
"""Elements that are one object and no list."""
_NOT_READ: Final = "?"
"""In the place of words that are of another type: known to no map."""


_DEEPEST: Final = 60
"""Levels of objects and lists in a file. A result within a report within a Bundle has some fifteen."""
_MOST_GROUPS: Final = 20
"""Groups that one result is a member of, directly or not."""


def _parse(raw: bytes) -> Resource:
    """The file's one resource. Raises BrokenFile."""
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    text, _ = decode(raw, "utf-8", "")
    if has_control_bytes(raw):
        raise BrokenFile(Fault(Quarantine.MALFORMED, "The file holds control characters."))
    try:
        found = json.loads(
            text,
            object_pairs_hook=_without_doubles,
            parse_constant=_no_constant,
            parse_int=Decimal,
            parse_float=Decimal,
        )
    except json.JSONDecodeError as error:
        is_cut = error.pos >= len(text.rstrip()) or not text.rstrip().endswith("}")
        reason = Quarantine.INCOMPLETE_FILE if is_cut else Quarantine.MALFORMED
        raise BrokenFile(Fault(reason, f"The JSON can't be read from line {error.lineno} on.")) from None
    except RecursionError:
        raise BrokenFile(Fault(Quarantine.MALFORMED, "The JSON is nested too deeply.")) from None
    except ArithmeticError:
        raise BrokenFile(Fault(Quarantine.MALFORMED, "The JSON holds an impossible number.")) from None
    if _is_deeper(found, _DEEPEST):
        raise BrokenFile(Fault(Quarantine.MALFORMED, "The JSON is nested too deeply."))
    if "\\ud" in text.casefold():
        found = _without_surrogates(found)
    if not isinstance(found, dict) or _text(found.get("resourceType")) not in _ROOTS:
        sentence = "The JSON is no Bundle, DiagnosticReport or Observation."
        raise BrokenFile(Fault(Quarantine.UNSUPPORTED_FORMAT, sentence))
    if found["resourceType"] == "Bundle":
        if _text(found.get("type")) not in _BUNDLE_TYPES:
            raise BrokenFile(Fault(Quarantine.UNSUPPORTED_FORMAT, "Bundles of this type are not read."))
        if not isinstance(found.get("entry"), list) or not found["entry"]:
            raise BrokenFile(Fault(Quarantine.EMPTY_FILE, "The Bundle is empty."))
        if any(_text(link.get("relation")) == "next" for link in _items(found.get("link"))):
            raise BrokenFile(Fault(Quarantine.INCOMPLETE_FILE, "The Bundle is one page of several: send them all."))
    return found


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BrokenFile(Fault(Quarantine.MALFORMED, "A JSON object gives one key twice."))
    return found


def _is_deeper(value: object, levels: int) -> bool:
    """Whether anything in it lies deeper than so many levels. Walked level by level: Python's own depth has an end."""
    level: list[Any] = [value]
    for _ in range(levels):
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _without_surrogates(value: Any) -> Any:
    """The same, with a replacement character for each half of one: it is no text and can't be stored."""
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case dict():
            return {_without_surrogates(key): _without_surrogates(each) for key, each in value.items()}
        case list():
            return [_without_surrogates(each) for each in value]
    return value


def _no_constant(_: str) -> NoReturn:
    raise BrokenFile(Fault(Quarantine.MALFORMED, "The JSON holds an impossible number."))


def _whole(chunks: Iterable[bytes]) -> bytes:
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > MAX_FHIR_BYTES:
            raise BrokenFile(Fault(Quarantine.MALFORMED, _TOO_LARGE))
    return bytes(body)


def check_fhir(meter: Meter, lab: LabMap) -> FileVerdict:
    """The verdict on a FHIR file: whole JSON, a resource that we read."""
    fault: Fault | None = None
    seen = 0
    try:
        seen = len(_Reader(_parse(_whole(meter)), lab).rows())
    except BrokenFile as broken:
        fault = broken.fault
        meter.drain()
    completeness = Completeness.UNPROVEN if fault else Completeness.PROVEN
    return FileVerdict(fault, None, seen, "", meter.sha256, meter.size_bytes, completeness, ())


def is_from(head: bytes, lab: LabMap) -> bool:
    """Whether these first bytes hold an identifier or code system of this lab."""
    text = head.replace(b"\\/", b"/")
    return any(b'"' + system.encode() in text for system in lab.fhir_systems)


def read(chunks: Iterable[bytes], lab: LabMap, skip: int = 0) -> Iterator[LabMessage]:
    """The file as one message. Raises BrokenFile."""
    root = _parse(_whole(chunks))
    if skip:
        return
    reader = _Reader(root, lab)
    rows = reader.rows()
    fault = reader.fault
    if not rows:
        fault = fault or Fault(Quarantine.MALFORMED, "The file holds no result.")
        rows = [BLANK_ROW._replace(position=1, row_key="1")]
    content = json.dumps(root, sort_keys=True, default=str, ensure_ascii=False)
    if "\ufffd" in content:
        rows = [held_if_damaged(row) for row in rows]
    yield LabMessage(
        lab.lab,
        Form.FHIR,
        _message_id(root),
        hashlib.sha256(content.encode()).digest(),
        0,
        1,
        _text(root.get("timestamp")),
        "HTEST" if reader.is_test else "",
        tuple(rows),
        fault,
        (),
    )


# ── Pieces ───────────────────────────────────────────────────────────────────────────────────


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _items(value: object) -> list[Resource]:
    """The objects of a list, or of the one object that stands where a list is expected."""
    if isinstance(value, dict):
        return [value]
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _message_id(root: Resource) -> str:
    return next((_text(one.get("value")) for one in _items(root.get("identifier"))), "") or _text(root.get("id"))


def _words(value: object) -> str:
    """Text without blanks around it; what is no text is not passed over."""
    return "" if value is None else value.strip() if isinstance(value, str) else _NOT_READ


def _concept(value: object) -> tuple[Coded, ...]:
    """A CodeableConcept's codings, and its text as one more without a code."""
    if not isinstance(value, dict):
        return () if value is None else (Coded("", _NOT_READ, ""),)
    coding = value.get("coding")
    codings = [
        Coded(_text(one.get("system")), _words(one.get("code")), _words(one.get("display"))) for one in _items(coding)
    ]
    if (isinstance(coding, list) and len(codings) < len(coding)) or not isinstance(coding, list | dict | None):
        codings.append(Coded("", _NOT_READ, ""))
    text = _words(value.get("text"))
    return tuple([*codings, Coded("", "", text)] if text else codings)


def _notes(resource: Resource) -> tuple[str, ...]:
    return tuple(filter(None, (_words(note.get("text")) for note in _items(resource.get("note")))))


def _flags(interpretation: object) -> tuple[str, ...]:
    """Every code and every word of an interpretation: all may contradict. What is not read is no normal flag."""
    told = [coded for item in _items(interpretation) for coded in _concept(item)]
    words = filter(None, (word for coded in told for word in (coded.code, coded.text)))
    return tuple(words) or ((_NOT_READ,) if interpretation else ())


class _Entry(NamedTuple):
    position: int
    resource: Resource


class _Around(NamedTuple):
    """What a result stands with: whose it is, from where and how sound must agree in all of it."""

    owners: Sequence[_Entry]
    """The result itself, and its report."""
    groups: Sequence[_Entry]
    asked: Sequence[tuple[Resource, _Entry | None]]
    """References to requests, and what they point at."""
    sent: Sequence[tuple[_Entry, Resource, _Entry | None]]
    """References to specimens, each with the resource in which it stands, and what they point at."""
    is_too_much: bool
    """There is more of it than is read."""

    @property
    def requests(self) -> list[_Entry]:
        """The requests that are in the file."""
        return [request for _, request in self.asked if request is not None]

    @property
    def specimens(self) -> list[_Entry]:
        """The specimens that are in the file, each once."""
        return list({id(one.resource): one for _, _, one in self.sent if one is not None}.values())

    @property
    def beyond(self) -> list[_Entry]:
        """All but the result and its report."""
        return [*self.groups, *self.specimens, *self.requests]


_TOO_MUCH: Final = Fault(
    Quarantine.MALFORMED, "The result is in more groups, or of more requests or specimens, than are read."
)
_NOT_ONE_PATIENT: Final = Fault(
    Quarantine.IDENTITY_CONFLICT, "Report, result, request and specimen are not of one patient."
)
_SPECIMEN_ELSEWHERE: Final = Fault(
    Quarantine.SPECIMEN_CONFLICT,
    "The result's specimen is not in the file, and that of its report or group is another.",
)


class _Reader:
    """Finds its way through one file's resources."""

    def __init__(self, root: Resource, lab: LabMap) -> None:
        self._lab = lab
        self.fault: Fault | None = None
        self.is_test = False
        self._by_reference: dict[str, _Entry] = {}
        self._entries: list[_Entry] = []
        self._groups: dict[int, dict[int, _Entry]] = defaultdict(dict)
        """The groups (Observation.hasMember), by identity, that each result, by identity, is a member of."""
        self._flaws: dict[int, Fault | None] = {}
        self._inner: set[int] = set()
        """Resources, by identity, that stand inside another."""
        if root["resourceType"] == "Bundle":
            self._look_at_marks(root)
            if _flaw({key: value for key, value in root.items() if key != "entry"}):
                self._hold(_MODIFIED)
            for position, entry in enumerate(_items(root["entry"]), 1):
                resource = entry.get("resource")
                request = entry.get("request")
                if isinstance(request, dict) and _text(request.get("method")) not in {"POST", "PUT"}:
                    self._hold("An entry asks for something else than to be stored.")
                if not isinstance(resource, dict):
                    self._hold("An entry of the Bundle holds no resource.")
                    continue
                if resource.get("resourceType") == "Bundle":
                    self._hold("A Bundle stands inside another: send its entries.")
                if "modifierExtension" in entry:
                    self._hold(_MODIFIED)
                self._add(position, resource, _text(entry.get("fullUrl")))
        else:
            self._add(1, root, "")
        for group in self._of("Observation"):
            for reference in _items(group.resource.get("hasMember")):
                if (member := self._resolve(reference, group)) is not None:
                    self._groups[id(member.resource)][id(group.resource)] = group
        is_ours = any(
            system.startswith(lab.fhir_systems)
            for resource in [root, *(entry.resource for entry in self._entries)]
            for system in _systems(resource)
        )
        if not lab.fhir_systems or not is_ours:
            self.fault = Fault(Quarantine.UNKNOWN_SENDER, f"No identifier or code system is one of {lab.lab}.")

    def _hold(self, detail: str) -> None:
        self.fault = self.fault or Fault(Quarantine.MALFORMED, detail)

    def _look_at_marks(self, resource: Resource) -> None:
        meta = resource.get("meta")
        marks = [*_items(meta.get("tag")), *_items(meta.get("security"))] if isinstance(meta, dict) else []
        self.is_test = self.is_test or any(_text(mark.get("code")) == "HTEST" for mark in marks)

    def _add(self, position: int, resource: Resource, full_url: str) -> None:
        kind = _text(resource.get("resourceType"))
        self._look_at_marks(resource)
        if kind not in _ELEMENTS and _flaw(resource):
            self._hold(_MODIFIED)  # of a message's header it may change every row
        entry = _Entry(position, resource)
        self._entries.append(entry)
        names = [full_url, f"{kind}/{_text(resource.get('id'))}" if resource.get("id") else ""]
        for name in filter(None, names):
            if name in self._by_reference and self._by_reference[name] != entry:
                self._hold("Two resources of the file have the same name.")
            self._by_reference[name] = entry
        for inner in _items(resource.get("contained")):
            if _text(inner.get("resourceType")) not in _CONTAINED:
                self._hold("A resource contains something that is not read.")
                continue
            self._look_at_marks(inner)
            if _text(inner.get("resourceType")) not in _ELEMENTS and _flaw(inner):
                self._hold(_MODIFIED)
            contained = _Entry(position, inner)
            self._by_reference[f"#{position}#{_text(inner.get('id'))}"] = contained
            self._inner.add(id(inner))
            if inner.get("resourceType") == "Observation":
                self._entries.append(contained)

    def _resolve(self, reference: object, within: _Entry) -> _Entry | None:
        """What a reference points at, inside this file only."""
        target = _text(reference.get("reference")) if isinstance(reference, dict) else ""
        if target.startswith("#"):
            target = f"#{within.position}{target}"
        return self._by_reference.get(target)

    def _of(self, kind: str) -> list[_Entry]:
        return [entry for entry in self._entries if entry.resource.get("resourceType") == kind]

    # ── Rows ─────────────────────────────────────────────────────────────────────────────────

    def rows(self) -> list[LabRow]:
        """One row for each Observation, or for each of its components."""
        rows: list[LabRow] = []
        taken: dict[int, int] = {}
        """The report that each result was listed by."""
        reports = self._of("DiagnosticReport")
        for number, report in enumerate(reports, 1):
            waiting = [(reference, report, 0) for reference in _items(report.resource.get("result"))]
            if not waiting:
                rows.append(self._order_only(report, number))
            while waiting:
                reference, where, depth = waiting.pop(0)
                found = self._resolve(reference, where)
                if found is None or found.resource.get("resourceType") != "Observation" or depth > 5:  # noqa: PLR2004
                    fault = Fault(Quarantine.MALFORMED, "A result that the report lists is not in the file.")
                    key = f"{report.position}.missing.{len(rows)}"
                    row = self._order_only(report, number)
                    rows.append(row._replace(row_key=key, value_type="", fault=fault))
                    continue
                if (other := taken.get(id(found.resource))) is not None:
                    if other != number:
                        self._hold("An Observation is listed by two reports.")
                    continue  # a report may list a group and its members too
                taken[id(found.resource)] = number
                rows += self._rows_of(found, report, number)
                waiting += [(member, found, depth + 1) for member in _items(found.resource.get("hasMember"))]
        for observation in self._of("Observation"):
            if id(observation.resource) in taken:
                continue
            found_rows = self._rows_of(observation, None, 0)
            if reports:
                fault = Fault(Quarantine.MALFORMED, "The Observation is listed by no report of the file.")
                found_rows = [
                    row._replace(fault=fault) if self._is_test_code(row) else row._replace(value_type=ASIDE)
                    for row in found_rows
                ]
            rows += found_rows
        return rows

    def _is_test_code(self, row: LabRow) -> bool:
        keys = [(self._lab.system(c.system) or "", c.code.casefold()) for c in row.test_codes if c.code]
        return any(key in known for key in keys for known in (self._lab.tests, self._lab.combined, self._lab.details))

    def _order_only(self, report: _Entry, number: int) -> LabRow:
        """The row of a report without results."""
        base = self._base(report, report, number)
        return base._replace(test_codes=_concept(report.resource.get("code")), value_type=ORDER_ONLY, row_status_raw="")

    def _rows_of(self, entry: _Entry, report: _Entry | None, number: int) -> list[LabRow]:
        resource = entry.resource
        base = self._base(entry, report, number)
        components = _items(resource.get("component"))
        has_value = any(key[:5] == "value" for key in resource) or "dataAbsentReason" in resource
        if resource.get("hasMember") and not has_value and not components:
            return [base._replace(value_type=ASIDE, test_codes=())]
        rows = [self._with_value(base, resource)] if has_value or not components else []
        for count, component in enumerate(components, 1):
            row = base._replace(row_key=f"{base.row_key}.{count}", test_codes=_concept(component.get("code")))
            rows.append(self._with_value(row, component))
        return rows

    def _with_value(self, row: LabRow, resource: Resource) -> LabRow:
        """The row with its one value, its flags and, for an absent value, the reason."""
        row = row._replace(flags_raw=_flags(resource.get("interpretation")))
        values = [key for key in resource if key[:5] == "value"]
        absent = resource.get("dataAbsentReason")
        if len(values) + (absent is not None) > 1:
            fault = Fault(
                Quarantine.CONFLICTING_VALUES, "The Observation has two values, or a value and a reason for none."
            )
            return row._replace(fault=row.fault or fault)
        if absent is not None:
            texts = tuple(text for coded in _concept(absent) for text in (coded.code, coded.text) if text)
            return row._replace(value_type=ABSENT, value_raw=texts)
        if not values:
            return row
        match values[0], resource[values[0]]:
            case "valueCodeableConcept", value:
                codes = _concept(value)
                return row._replace(value_type="CWE", value_raw=tuple(c.text for c in codes[:1]), value_codes=(codes,))
            case "valueString", str() | None as value:
                return row._replace(value_type="ST", value_raw=(value or "",))
            case "valueQuantity", {"value": Decimal() | str() as value, **more} if str(value).strip():
                number = f"{_text(more.get('comparator'))}{value}"
                return row._replace(value_type="NM", value_raw=(number,), units=_text(more.get("unit")))
            case _, value:
                # What is not read is not blank either: its kind stands for it, and is no word of anybody's.
                told = str(value) if isinstance(value, Decimal | bool) else values[0]
                return row._replace(value_type="NM", value_raw=(told,))

    def _base(self, entry: _Entry, report: _Entry | None, number: int) -> LabRow:
        """All of a row but its value: whose, from where, when, how final."""
        resource = entry.resource
        around = self._around(entry, report)
        subjects = self._subjects(around)
        patients = [patient for _, patient in subjects if patient is not None]
        person = patients[0].resource if patients and patients[0].resource.get("resourceType") == "Patient" else {}
        specimens = [each.resource for each in around.specimens]
        collections = [each for specimen in specimens for each in _items(specimen.get("collection"))]
        kit_refs, tube_refs = self._kits(around, person), self._tubes(around)
        issued = _text(resource.get("issued"))
        told = _text(report.resource.get("issued")) if report else ""
        return BLANK_ROW._replace(
            position=entry.position,
            row_key=self._key_of(entry),
            test_codes=_concept(resource.get("code")),
            row_status_raw=" ".join(dict.fromkeys(_status(each.resource) for each in (entry, *around.groups))),
            tested_raw=issued or told,
            notes=_notes(resource),
            fault=self._doubt_about(around, subjects),
            order_no=number,
            accession=self._accession(report.resource if report else resource),
            panel_codes=_concept(report.resource.get("code")) if report else (),
            kit_refs=kit_refs,
            tube_refs=tube_refs,
            sites_raw=(
                *(coded for specimen in specimens for coded in _concept(specimen.get("type"))),
                *(coded for collection in collections for coded in _concept(collection.get("bodySite"))),
                *_concept(resource.get("bodySite")),
            ),
            report_status_raw=(_text(report.resource.get("status")) or "?") if report else "",
            collected_raw=self._collected(resource, collections, report),
            received_raw=next(filter(None, (_text(specimen.get("receivedTime")) for specimen in specimens)), ""),
            authorised_raw=told or issued,
            order_notes=(
                *(_conclusion(report.resource) if report else ()),
                *(note for each in around.beyond for note in _notes(each.resource)),
            ),
            reject_raw=tuple(word for specimen in specimens for word in _spoilt(specimen)),
            parent_ref=" ".join(_text(r.get("reference")) for r in _items(resource.get("derivedFrom"))),
            has_person=bool(person) or bool(kit_refs or tube_refs),
            family_name=next((_text(name.get("family")) for name in _items(person.get("name"))), ""),
            dob=_text(person.get("birthDate")),
            nhs_number=next(
                (_text(i.get("value")) for i in _items(person.get("identifier")) if i.get("system") == _NHS_NUMBER), ""
            ),
        )

    def _key_of(self, entry: _Entry) -> str:
        """A row's key: the resource's number, and the id of one that stands inside another."""
        if entry.resource.get("resourceType") != "Observation" or id(entry.resource) not in self._inner:
            return str(entry.position)
        return f"{entry.position}#{ascii(_text(entry.resource.get('id')))[1:-1][:64]}"

    # ── What a result stands with ────────────────────────────────────────────────────────────

    def _around(self, entry: _Entry, report: _Entry | None) -> _Around:
        owners = [entry] if report is None else [entry, report]
        groups = self._groups_of(entry)
        is_too_much = len(groups) > _MOST_GROUPS or any(
            len(_items(each.resource.get(key))) > _MOST_GROUPS
            for each in (*owners, *groups)
            for key in ("basedOn", "specimen", "conclusionCode")
        )
        if is_too_much:
            owners, groups = owners[:1], []
        asked = [
            (reference, self._resolve(reference, owner))
            for owner in (*owners, *groups)
            for reference in _items(owner.resource.get("basedOn"))
        ]
        sent = [
            (owner, reference, self._resolve(reference, owner))
            for owner, reference in _sent_from(entry, report, groups)
        ]
        return _Around(owners, groups, asked, sent, is_too_much)

    def _subjects(self, around: _Around) -> list[tuple[object, _Entry | None]]:
        """Each subject that is named, and the patient it points at: None who is not in the message."""
        return [
            (subject, self._resolve(subject, each))
            for each in (*around.owners, *around.beyond)
            for subject in [each.resource.get("subject")]
        ]

    def _doubt_about(self, around: _Around, subjects: Sequence[tuple[object, _Entry | None]]) -> Fault | None:
        """Why a result can't be used for what it stands with."""
        if around.is_too_much:
            return _TOO_MUCH
        patients = [patient for _, patient in subjects if patient is not None]
        # Who is named by reference and is not in the message is another one than who is.
        if patients and any(patient != patients[0] for subject, patient in subjects if patient or _refers(subject)):
            return _NOT_ONE_PATIENT
        flaws = map(self._flaw_of, (*around.owners, *around.beyond, *patients[:1]))
        fault = next(filter(None, flaws), None)
        fault = fault or next(filter(None, map(_annulled, (*around.specimens, *around.requests))), None)
        entry = around.owners[0]
        is_elsewhere = any(one is None and owner is entry and _refers(ref) for owner, ref, one in around.sent)
        return fault or (_SPECIMEN_ELSEWHERE if around.specimens and is_elsewhere else None)

    def _kits(self, around: _Around, person: Resource) -> tuple[str, ...]:
        """Every kit id of patient, subjects and requests."""
        told = [person.get("identifier")]
        told += [_identifier_of(one.resource.get("subject")) for one in (*around.owners, *around.groups)]
        for reference, request in around.asked:
            told += [_identifier_of(reference), request.resource.get("identifier") if request else None]
        return tuple(dict.fromkeys(kit for identifiers in told for kit in self._ids(identifiers)))

    def _tubes(self, around: _Around) -> tuple[str, ...]:
        """Every tube id of the specimens, and of references to them."""
        told = [_identifier_of(reference) for _, reference, _ in around.sent]
        for each in around.specimens:
            told += [each.resource.get("identifier"), each.resource.get("accessionIdentifier")]
        return tuple(dict.fromkeys(tube for identifiers in told for tube in self._ids(identifiers)))

    def _collected(self, resource: Resource, collections: Sequence[Resource], report: _Entry | None) -> str:
        """When the sample was taken: the earliest word of it, as some labs give the time of the test as effective.

        One that is no time comes first, and holds the row.
        """
        told = [_text(each.get("collectedDateTime")) for each in collections]
        told += [_start(each.get("collectedPeriod")) for each in collections]
        days = sorted(filter(None, [*told, _effective(resource)]), key=self._day_of)
        return days[0] if days else _effective(report.resource) if report else ""

    def _groups_of(self, entry: _Entry) -> list[_Entry]:
        """Every group that a result is a member of, and the groups of those, each once."""
        found: dict[int, _Entry] = {}
        waiting = [entry]
        while waiting and len(found) <= _MOST_GROUPS:
            outer = self._groups.get(id(waiting.pop().resource), {})
            new = [(key, group) for key, group in islice(outer.items(), _MOST_GROUPS + 1) if key not in found]
            found.update(new)
            waiting += [group for _, group in new]
        found.pop(id(entry.resource), None)
        return list(found.values())

    def _flaw_of(self, entry: _Entry) -> Fault | None:
        """`_flaw`, found once: a report is looked at for each of its results."""
        key = id(entry.resource)
        if key not in self._flaws:
            self._flaws[key] = _flaw(entry.resource)
        return self._flaws[key]

    def _day_of(self, told: str) -> str:
        """By which words about one time are put in order: a month after its days, and what is no time before all."""
        time = lab_time.read_time(told, lab_time.FHIR, self._lab.zone)
        if time is None and lab_time.first_day(told, lab_time.FHIR) is None:
            return ""
        year, month, day = (*told.split("-"), "99", "99")[:3]
        return f"{year}-{month}-{day[:2]}"

    def _ids(self, identifiers: object) -> list[str]:
        """The values of identifiers in the systems agreed for kits and tubes."""
        found = (
            _text(one.get("value")).strip() for one in _items(identifiers) if one.get("system") in self._lab.kit_systems
        )
        return [value for value in found if value]

    def _accession(self, resource: Resource) -> str:
        """The lab's own number of a report or result."""
        own = [i for i in _items(resource.get("identifier")) if i.get("system") not in self._lab.kit_systems]
        own.sort(key=lambda i: not _text(i.get("system")).startswith(self._lab.fhir_systems))
        return _text(own[0].get("value")) if own else ""


def _sent_from(entry: _Entry, report: _Entry | None, groups: Sequence[_Entry]) -> list[tuple[_Entry, Resource]]:
    """References to specimens, each with the resource it stands in. All that there are must agree.

    The result's own, and one that is the only one of its report or group; without any, all of its groups.
    """
    around = [(owner, _items(owner.resource.get("specimen"))) for owner in ([report] if report else []) + [*groups]]
    named = [] if entry is report else [(entry, _items(entry.resource.get("specimen")))]
    named += [(owner, references) for owner, references in around if len(references) == 1]
    if not any(references for _, references in named):
        named = [(owner, references) for owner, references in around if owner is not report]
    return [(owner, reference) for owner, references in named for reference in references]


def _identifier_of(reference: object) -> object:
    return reference.get("identifier") if isinstance(reference, dict) else None


def _start(period: object) -> str:
    """When a period begins, or else when it ends."""
    return _text(period.get("start")) or _text(period.get("end")) if isinstance(period, dict) else ""


def _status(resource: Resource) -> str:
    """A result's status; one with a blank in it is no status, as it is joined with those of its groups by blanks."""
    status = _text(resource.get("status"))
    return status if status and not any(map(str.isspace, status)) else "?"


def _effective(resource: Resource) -> str:
    """When what a result or report tells of was so: the sample's collection, unless its specimen says otherwise."""
    when = (resource.get("effectiveDateTime"), resource.get("effectiveInstant"))
    return next(filter(None, map(_text, when)), "") or _start(resource.get("effectivePeriod"))


def _conclusion(report: Resource) -> tuple[str, ...]:
    """A report's conclusion in words and codes, and that it has an attachment: comments, never results."""
    codes = (coded.text or coded.code for item in _items(report.get("conclusionCode")) for coded in _concept(item))
    attached = ATTACHED if report.get("presentedForm") else ""
    return tuple(filter(None, [_text(report.get("conclusion")).strip(), *codes, attached]))


def _flaw(resource: Resource) -> Fault | None:
    """Why what a resource says can't be relied on, whatever it says."""
    if "implicitRules" in resource or _has_modifier({k: v for k, v in resource.items() if k != "contained"}):
        return Fault(Quarantine.MALFORMED, _MODIFIED)
    kind = _text(resource.get("resourceType"))
    if kind not in _ELEMENTS:
        return None
    for name, value in resource.items():
        if name.startswith("_"):
            continue
        if name not in _ELEMENTS[kind]:
            return Fault(Quarantine.MALFORMED, f"The {kind} holds an element that is not of FHIR R4.")
        if not _is_of_its_type(name, value, _SINGLE_OF_A_RESULT if kind == "Observation" else _SINGLE):
            return Fault(Quarantine.MALFORMED, f"{kind}.{name} is not of the type that it has in FHIR R4.")
    return None


def _is_of_its_type(name: str, value: object, single: frozenset[str]) -> bool:
    """Whether an element is the words or objects that it should be, so that nothing said is passed over."""
    if value is None or name in _SEEN_TO:
        return True
    if name in _WORDS:
        return isinstance(value, str)
    if name in single:
        return isinstance(value, dict)
    return all(isinstance(each, dict) for each in (value if isinstance(value, list) else [value]))


def _has_modifier(value: object) -> bool:
    """Whether a modifier stands anywhere in it."""
    if isinstance(value, dict):
        return "modifierExtension" in value or any(map(_has_modifier, value.values()))
    return isinstance(value, list) and any(map(_has_modifier, value))


def _refers(subject: object) -> bool:
    """Whether a subject is named by where its resource is, not by an identifier alone."""
    return isinstance(subject, dict) and bool(subject.get("reference"))


def _spoilt(specimen: Resource) -> Iterator[str]:
    """What a specimen says against itself: as SPM-21 and SPM-24 in HL7 v2."""
    if _text(specimen.get("status")) in SPOILT:
        yield _text(specimen.get("status"))
    for condition in _items(specimen.get("condition")):
        yield from (coded.text or coded.code for coded in _concept(condition))


def _annulled(entry: _Entry) -> Fault | None:
    """A specimen or request that was entered in error, or a specimen whose status is no word of FHIR's."""
    status = _text(entry.resource.get("status"))
    if entry.resource.get("resourceType") == "ServiceRequest":
        is_wrong = status == "entered-in-error"
        return Fault(Quarantine.UNKNOWN_STATUS, "The request was entered in error.") if is_wrong else None
    if status in {"", "available"} | SPOILT:
        return None
    return Fault(Quarantine.UNKNOWN_STATUS, "The specimen's status is not available, unavailable or unsatisfactory.")


def _systems(resource: Resource) -> Iterator[str]:
    """The systems of a resource's identifiers and of its code."""
    for identifier in _items(resource.get("identifier")):
        yield _text(identifier.get("system"))
    for coded in _concept(resource.get("code")):
        yield coded.system
