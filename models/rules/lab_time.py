"""Times as labs write them, with their precision: the year alone is not the first of January.

Three spellings: HL7 (2026110218[15[00]][+0000]), FHIR (2026-11-02[T18:15:00Z]), and one declared
strptime format per CSV column. None is ever tried after another.
"""

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta, timezone
from functools import lru_cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

HL7: Final = "hl7"
FHIR: Final = "fhir"
ISO8601: Final = "iso8601"

_HL7 = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,4}))?)?)?)?)?)?(?:\^?([+-]?\d{4}))?", re.ASCII
)
_FHIR = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d):(\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d))?)?)?", re.ASCII)

_COARSE: Final = {HL7: re.compile(r"(\d{4})(\d\d)?", re.ASCII), FHIR: re.compile(r"(\d{4})(?:-(\d\d))?", re.ASCII)}

_CLOCKS: Final = ("%H", "%I", "%X", "%c")
"""What a strptime format has for the hour."""

_FURTHEST: Final = timedelta(hours=14)
"""No place on earth is further from UTC."""
_EARLIEST: Final = 1900
_LATEST: Final = 9000
"""Years outside are misspelt, and the calendar's own ends can't be counted in another zone."""


class LabTime(NamedTuple):
    """A time as precise as it was sent, at least to the day.

    `at` is aware UTC, the start of the day where no clock time was sent; `on` is the day in the lab's
    zone. `is_doubtful`: a wall-clock hour that the change of clocks repeats (the later is taken) or skips.
    """

    at: datetime
    on: date
    has_clock: bool
    is_doubtful: bool


@lru_cache(maxsize=8_192)
def read_time(text: str, form: str, zone: str) -> LabTime | None:
    """A time of at least day precision, or None. `form` is HL7, FHIR, ISO8601 or a strptime format."""
    parts = _parts(text.strip(), form)
    if parts is None:
        return None
    naive, offset, has_clock = parts
    here = ZoneInfo(zone)
    if not _EARLIEST <= naive.year <= _LATEST or (offset is not None and abs(offset) > _FURTHEST):
        return None
    if offset is not None:
        at = naive.replace(tzinfo=timezone(offset)).astimezone(UTC)
        return LabTime(at, at.astimezone(here).date(), has_clock, is_doubtful=False)
    first, second = naive.replace(tzinfo=here), naive.replace(tzinfo=here, fold=1)
    is_doubtful = has_clock and first.utcoffset() != second.utcoffset()
    # Where an hour is skipped, fold=0 reads it with the offset before the change: the later instant too.
    at = max(first.astimezone(UTC), second.astimezone(UTC)) if is_doubtful else first.astimezone(UTC)
    return LabTime(at, naive.date(), has_clock, is_doubtful)


def first_day(text: str, form: str) -> date | None:
    """The first day of a month or year that was sent alone, in HL7 or FHIR; None for anything else."""
    coarse = _COARSE.get(form)
    found = coarse.fullmatch(text) if coarse else None
    try:
        return date(int(found[1]), int(found[2] or 1), 1) if found else None
    except ValueError:
        return None


def read_day(text: str, form: str) -> date | None:
    """The full date of a date or time, whatever the zone, or None: a date of birth has no clock."""
    parts = _parts(text.strip(), form)
    return parts[0].date() if parts else None


def _parts(text: str, form: str) -> tuple[datetime, timedelta | None, bool] | None:
    try:
        if form == HL7:
            return _hl7(text)
        if form == FHIR:
            return _fhir(text)
        if form == ISO8601:
            moment = datetime.fromisoformat(text)
            return (moment.replace(tzinfo=None), moment.utcoffset(), True) if moment.tzinfo and "T" in text else None
        # The format itself says whether there is an offset; the day is what a date of birth needs.
        moment = datetime.strptime(text, form)  # noqa: DTZ007
        return moment.replace(tzinfo=None), moment.utcoffset(), any(clock in form for clock in _CLOCKS)
    except (ValueError, OverflowError):
        return None


def _hl7(text: str) -> tuple[datetime, timedelta | None, bool] | None:
    if text.isascii() and text.isdigit() and len(text) in {8, 12, 14}:  # the common ones, without the regex
        clock = (int(text[8:10]), int(text[10:12]), int(text[12:14] or 0)) if len(text) > 8 else (0, 0, 0)  # noqa: PLR2004
        return datetime(int(text[:4]), int(text[4:6]), int(text[6:8]), *clock), None, len(text) > 8  # noqa: DTZ001, PLR2004
    found = _HL7.fullmatch(text)
    if not found or found[3] is None:
        return None
    *parts, fraction, zone = found.groups()
    offset, hour = None, found[4]
    if zone is not None and hour is not None:  # a day has no offset: 20261102^0000 is a day in the lab's zone
        sign = -1 if zone[0] == "-" else 1
        offset = sign * timedelta(hours=int(zone[-4:-2]), minutes=int(zone[-2:]))
    return _moment(parts, fraction), offset, hour is not None


def _fhir(text: str) -> tuple[datetime, timedelta | None, bool] | None:
    found = _FHIR.fullmatch(text)
    if not found or found[3] is None:
        return None
    *parts, fraction, zone = found.groups()
    moment = _moment(parts, fraction)
    if found[4] is None:
        return moment, None, False
    if zone is None:
        return None  # FHIR: a clock time needs a zone
    sign = -1 if zone[0] == "-" else 1
    offset = timedelta(0) if zone == "Z" else sign * timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6]))
    return moment, offset, True


def _moment(parts: Iterable[str | None], fraction: str | None) -> datetime:
    """A wall clock's time of year, month, day, hour, minute and second, to the microsecond."""
    year, month, day, hour, minute, second = (int(part or 0) for part in parts)
    return datetime(year, month, day, hour, minute, second, int(f"{fraction or 0:0<6}"[:6]))  # noqa: DTZ001
