"""Lab messages built by keyword: one ordinary NORTHLAB message, and what to change in it."""

from functools import cache
from pathlib import Path

from app.service.labs import load_lab_maps
from integrations.lab import reader
from models.rules.lab import LabMap, LabMessage
from models.rules.reading import Detail, Finding, Quarantined, Reading
from models.rules.result import interpret

GOLDEN = Path(__file__).parents[1] / "golden" / "lab"

KIT = "T4J-WW7-5K3Y"
OTHER_KIT = "W8J-PVM-8V7R"


@cache
def maps() -> dict[str, LabMap]:
    return dict(load_lab_maps())


def northlab() -> LabMap:
    return maps()["NORTHLAB"]


def obx(
    value: str = "Not detected",
    *,
    code: str = "CTN^Chlamydia trachomatis NAAT^NORTHLAB",
    kind: str = "ST",
    flag: str = "",
    status: str = "F",
    sub_id: str = "",
    at: str = "20261102173900",
    at19: str = "",
) -> str:
    fields = ["OBX", "1", kind, code, sub_id, value, "", "", flag, "", "", status, "", "", at, "", "", "", "", at19]
    return "|".join(fields).rstrip("|")


def obr(
    *,
    placer: str = f"{KIT}-1^ANYSVC",
    filler: str = "26V0451201^NORTHLAB",
    panel: str = "CTGC^Chlamydia and gonorrhoea NAAT^NORTHLAB",
    collected: str = "20261030",
    received: str = "202611020812",
    specimen: str = "VVS^Vulvovaginal swab^NORTHLAB",
    reported: str = "20261102174000",
    status: str = "F",
    parent: str = "",
) -> str:
    fields = [""] * 30
    fields[0], fields[1], fields[2], fields[3], fields[4] = "OBR", "1", placer, filler, panel
    fields[7], fields[14], fields[15], fields[22], fields[25], fields[26] = (
        collected,
        received,
        specimen,
        reported,
        status,
        parent,
    )
    return "|".join(fields).rstrip("|")


MSH = (
    "MSH|^~\\&|WINLIMS|NORTHLAB|STIPIPE|ANYSVC|20261103061500+0000||ORU^R01^ORU_R01|NL1|P|2.4|||AL|NE|GBR|UNICODE UTF-8"
)
PID = f"PID|1||{KIT}^^^ANYSVC^KIT||Kit^Testina^^^^^L||19990214|F"
ORC = f"ORC|RE|{KIT}^ANYSVC|26V0451201^NORTHLAB||CM"


def message(*segments: str, msh: str = MSH, pid: str = PID, orc: str = ORC, end: str = "\r") -> str:
    """One message: header, patient, then the segments given, or an ordinary order with one result."""
    body = segments or (obr(), obx())
    return end.join(part for part in (msh, pid, orc, *body) if part) + end


def ordered(*results: str, **order: str) -> str:
    """One message with one order and these results."""
    return message(obr(**order), *results)


def messages(content: str | bytes, lab: LabMap | None = None) -> list[LabMessage]:
    raw = content.encode() if isinstance(content, str) else content
    return list(reader.read_messages([raw], lab or northlab()))


def read(content: str | bytes, lab: LabMap | None = None) -> list[Reading]:
    """What every row of the file comes to; no envelope is asked for."""
    lab = lab or northlab()
    return [reading for found in messages(content, lab) for reading in interpret(found, lab)]


def only(content: str | bytes, lab: LabMap | None = None) -> Finding | Quarantined:
    """The one answer of a file with one result."""
    (reading,) = (r for r in read(content, lab) if not isinstance(r, Detail))
    return reading


def said(content: str | bytes, lab: LabMap | None = None) -> list[str]:
    """Each result's outcome, or its quarantine reason."""
    return [str(say(r)) for r in read(content, lab) if not isinstance(r, Detail)]


def say(reading: Reading) -> str:
    if isinstance(reading, Detail):
        return "detail"
    return reading.outcome if isinstance(reading, Finding) else reading.reason
