"""The fictional laboratory: opens parcels, reads the request form as printed, tests, and reports in its own words.

It knows nothing of the product but the paper in the box: the form's kit number, name, date of birth and
tubes are read from the PDF that a resident would find. Its spelling tables are its own.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final

import pypdfium2

FORM_MM: Final = (148, 210)
_KIT: Final = re.compile(r"^([2-9CDFHJ-NPRTV-Y]{3}-[2-9CDFHJ-NPRTV-Y]{3}-[2-9CDFHJ-NPRTV-Y]{4})$", re.MULTILINE)
_TUBE: Final = re.compile(r"^([2-9CDFHJ-NPRTV-Y]{3}-[2-9CDFHJ-NPRTV-Y]{3}-[2-9CDFHJ-NPRTV-Y]{4}-\d)$")
_PERSON: Final = re.compile(r"^([A-Z]\w+ [A-Z]\w+) (\d{2}/\d{2}/\d{4})$", re.MULTILINE)
_PARCEL: Final = re.compile(r"^([2-9CDFHJ-NPRTV-Y]{12})$", re.MULTILINE)

SPECIMENS: Final = {
    "Vaginal swab": ("VVS", "Vulvovaginal swab"),
    "Urine": ("URN", "First catch urine"),
    "Rectal swab": ("RES", "Rectal swab"),
    "Throat swab": ("", "Throat swab"),
    "Finger-prick blood": ("CAP", "Capillary blood"),
}
TESTS: Final = {
    "Chlamydia": ("CTN", "Chlamydia trachomatis NAAT"),
    "Gonorrhoea": ("GCN", "Neisseria gonorrhoeae NAAT"),
    "HIV": ("HIVS", "HIV 1/2 Ag/Ab screen"),
    "Syphilis": ("TREP", "Treponema pallidum total antibody"),
    "Hepatitis B": ("HBSA", "Hepatitis B surface antigen"),
    "Hepatitis C": ("HCVA", "Hepatitis C antibody"),
}
BLOOD: Final = frozenset({"HIV", "Syphilis", "Hepatitis B", "Hepatitis C"})


@dataclass(frozen=True, slots=True)
class TubeOnForm:
    """One tube: its number, what is in it, what is asked of it."""

    number: str
    specimen: str
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Form:
    """A request form as the laboratory reads it."""

    kit: str
    name: str
    born_on: date
    tubes: tuple[TubeOnForm, ...]
    parcel: str
    """From the outer label in the same pack: the demo's packers scan it."""

    @property
    def blood_tests(self) -> tuple[str, ...]:
        """What is asked of the blood tube, if there is one."""
        return tuple(test for tube in self.tubes for test in tube.tests if test in BLOOD)

    @property
    def swab_tube(self) -> TubeOnForm | None:
        """The first tube that is not blood."""
        return next((tube for tube in self.tubes if tube.specimen != "Finger-prick blood"), None)


def read_packs(pdf: bytes) -> list[Form]:
    """Every kit of a print batch: outer label first, request form last."""
    document = pypdfium2.PdfDocument(pdf)
    forms, parcel = [], ""
    for page in document:
        text = page.get_textpage().get_text_range().replace("\r\n", "\n")
        width_mm = page.get_width() * 25.4 / 72
        if found := _PARCEL.search(text):
            parcel = found[1]
        if abs(width_mm - FORM_MM[0]) < 1:
            forms.append(_read_form(text, parcel))
    return forms


def _read_form(text: str, parcel: str) -> Form:
    kit, person = _KIT.search(text), _PERSON.search(text)
    assert kit is not None
    assert person is not None
    day, month, year = map(int, person[2].split("/"))
    lines = text.split("\n")
    tubes = []
    for place, line in enumerate(lines):
        if tube := _TUBE.match(line.strip()):
            above, below = " ".join(lines[place - 2 : place]), " ".join(lines[place + 1 : place + 3])
            specimen = next(words for words in SPECIMENS if words in above)
            tests = tuple(test for test in TESTS if re.search(rf"\b{test}\b", below))
            tubes.append(TubeOnForm(tube[1], specimen, tests))
    return Form(kit[1], person[1], date(year, month, day), tuple(tubes), parcel)


# ── What is in the tubes ─────────────────────────────────────────────────────────────────────

Asked = tuple[str, str]
"""(tube number, test)."""


@dataclass(slots=True)
class Findings:
    """What one kit's tubes hold, and how the laboratory will say it."""

    form: Form
    values: dict[Asked, str]
    waiting: set[Asked] = field(default_factory=set)
    cancelled: set[Asked] = field(default_factory=set)
    corrected: set[Asked] = field(default_factory=set)
    comment: str = ""
    born_on: date | None = None


VALUES: Final[Mapping[str, Mapping[str, str]]] = {
    "chlamydia": {"Chlamydia": "DETECTED"},
    "chlamydia_so_far": {"Chlamydia": "DETECTED"},
    "gonorrhoea": {"Gonorrhoea": "DETECTED"},
    "hiv_reactive": {"HIV": "Reactive"},
    "syphilis_reactive": {"Syphilis": "Reactive"},
    "positive_and_reactive": {"Chlamydia": "DETECTED", "HIV": "Reactive"},
    "equivocal": {"Gonorrhoea": "Equivocal"},
    "inhibitory": {"Chlamydia": "Inhibitory", "Gonorrhoea": "Inhibitory"},
    "unknown_word": {"Gonorrhoea": "NR"},
    "late_return": {"Chlamydia": "DETECTED"},
    "cancelled_late": {"Gonorrhoea": "DETECTED"},
}
"""What a story's swab (the first of the kit) and blood say; everything else is negative."""


def examine(form: Form, story: str) -> Findings:
    """The findings that belong to a story; a story that this kit can't have becomes a plain negative."""
    values = {
        (tube.number, test): "Non-reactive" if test in BLOOD else "Not detected"
        for tube in form.tubes
        for test in tube.tests
    }
    found = Findings(form, values)
    blood = {asked for asked in values if asked[1] in BLOOD}
    swab = form.swab_tube.number if form.swab_tube else ""
    for test, value in VALUES.get(story, {}).items():
        for asked in values:
            if asked[1] == test and (asked in blood or asked[0] == swab):
                values[asked] = value
    if story == "failed_blood":
        found.cancelled |= blood
        values.update(dict.fromkeys(blood, "Insufficient sample"))
    if story == "comment":
        found.comment = "Specimen leaked in transit; result obtained from residual fluid."
    if story == "wrong_birth_date":
        found.born_on = form.born_on.replace(day=1 if form.born_on.day != 1 else 2)
    if story in {"partial_then_final", "never_final", "chlamydia_so_far"}:
        found.waiting |= blood
    return found


# ── How it is said ───────────────────────────────────────────────────────────────────────────


def read_requests(body: bytes) -> list[tuple[str, frozenset[str]]]:
    """What a file of orders asks for: the kit of each message, and its tubes."""
    found = []
    for message in body.decode("ascii").split("MSH|")[1:]:
        segments = [line.split("|") for line in message.split("\r")]
        kit = next(fields[3].partition("^")[0] for fields in segments if fields[0] == "PID")
        found.append((kit, frozenset(fields[2].partition("&")[0] for fields in segments if fields[0] == "SPM")))
    return found


def as_hl7(
    batch: Sequence[Findings], *, control: str, now: datetime, collected: date, accession: Mapping[str, str]
) -> bytes:
    """One FHS/BHS batch with counts, segment ends CR, as this laboratory's system writes it."""
    sent = f"{now:%Y%m%d%H%M%S}+0000"
    head = rf"|^~\&|WINLIMS|NORTHLAB|STIPIPE|ANYSVC|{sent}"
    segments = [f"FHS{head}||{control}.hl7||{control}", f"BHS{head}||||{control}"]
    for number, found in enumerate(batch, start=1):
        form = found.form
        born = found.born_on or form.born_on
        given, _, family = form.name.partition(" ")
        segments.append(f"MSH{head}||ORU^R01^ORU_R01|{control}{number:05d}|P|2.4|||AL|NE|GBR|UNICODE UTF-8")
        segments.append(f"PID|1||{form.kit}^^^ANYSVC^KIT||{family}^{given}^^^^^L||{born:%Y%m%d}|U")
        for place, tube in enumerate(form.tubes, start=1):
            segments += _order(found, tube, place, now=now, collected=collected, accession=accession[form.kit])
    return "\r".join([*segments, f"BTS|{len(batch)}", "FTS|1", ""]).encode()


def _order(
    found: Findings, tube: TubeOnForm, place: int, *, now: datetime, collected: date, accession: str
) -> Iterable[str]:
    asked = [(tube.number, test) for test in tube.tests]
    number = f"{accession}{place}"
    waits = any(each in found.waiting for each in asked)
    corrected = any(each in found.corrected for each in asked)
    code, words = SPECIMENS[tube.specimen]
    status = "C" if corrected else "I" if waits else "F"
    tested = f"{now - timedelta(hours=1):%Y%m%d%H%M%S}"
    received = f"{now - timedelta(hours=26):%Y%m%d%H%M}"
    yield f"ORC|RE|{found.form.kit}^ANYSVC|{number}^NORTHLAB||{'IP' if waits else 'CM'}"
    yield (
        f"OBR|{place}|{tube.number}^ANYSVC|{number}^NORTHLAB|PANEL^Panel^NORTHLAB|||{collected:%Y%m%d}|||||||{received}"
        f"|{code}^{words}^NORTHLAB|||||||{now:%Y%m%d%H%M%S}||MB|{status}"
    )
    for row, each in enumerate(asked, start=1):
        test_code, test_words = TESTS[each[1]]
        value, row_status = found.values[each], "F"
        if each in found.waiting:
            value, row_status = "", "I"
        elif each in found.cancelled:
            row_status = "X"
        elif each in found.corrected:
            row_status = "C"
        yield f"OBX|{row}|ST|{test_code}^{test_words}^NORTHLAB||{value}|||{_flag(value)}|||{row_status}|||{tested}"
    if found.comment and place == 1:
        yield f"NTE|1|L|{found.comment}"


def _flag(value: str) -> str:
    if value in {"DETECTED", "Reactive"}:
        return "A"
    return "N" if value in {"Not detected", "Non-reactive"} else ""


def as_csv(batch: Sequence[Findings], *, now: datetime, collected: date, accession: Mapping[str, str]) -> bytes:
    """The long table with a BOM, CRLF and days first. Its control file is written by the caller."""
    rows = ["LabNo,KitCode,TubeCode,Surname,DOB,Collected,Received,Authorised,TestCode,Site,Result,Status,Comment"]
    for found in batch:
        form = found.form
        for place, tube in enumerate(form.tubes, start=1):
            code, words = SPECIMENS[tube.specimen]
            for test in tube.tests:
                asked = (tube.number, test)
                status = "X" if asked in found.cancelled else "F"
                family, born = form.name.partition(" ")[2], found.born_on or form.born_on
                rows.append(
                    f"{accession[form.kit]}{place},{form.kit},{tube.number},{family},{born:%d/%m/%Y},"
                    f"{collected:%d/%m/%Y},{now - timedelta(hours=26):%d/%m/%Y %H:%M},{now:%d/%m/%Y %H:%M},"
                    f"{TESTS[test][0]},{code or words},{found.values[asked]},{status},{found.comment}"
                )
    return b"\xef\xbb\xbf" + "\r\n".join([*rows, ""]).encode()
