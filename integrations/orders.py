"""Reads orders from outside: one shape for the API, CSV and JSON lines, and one sentence for each fault.

`OrderIn` is the published contract. Nothing is guessed: an unknown field, word or form of date is a
fault that names its field and never quotes what stood there. A good row is not held up by a bad one.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import IO, Annotated, Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from models.rules.errors import Code, ServiceError
from models.rules.order import Address, MobileProof, Order, Safeguarding, SafeTime
from models.rules.panel import BodyPart, Exposure
from models.rules.person import OLDEST_AGE_YEARS, Postcode, is_possible_birth_date, read_postcode
from models.rules.phone import MobileRefused, read_mobile
from models.rules.service import CollectionPolicy, OrderPolicy, Service
from models.rules.vocabulary import Language, Wording
from models.rules.working_days import london_day

NO_POINTS: Final = CollectionPolicy()

_PRINTABLE: Final = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"
ChannelRef = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,80}$")]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=_PRINTABLE)]
Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=60, pattern=_PRINTABLE)]
OptionalLine = Annotated[str, StringConstraints(strip_whitespace=True, max_length=60, pattern=_PRINTABLE)]
Short = Annotated[str, StringConstraints(strip_whitespace=True, max_length=40)]
Email = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=254, pattern=r"^([^@\s]+@[^@\s]+\.[^@\s]+)?$")
]

EXAMPLE: Final[dict[str, Any]] = {
    "channel_ref": "web-000123",
    "given_name": "Testina",
    "family_name": "Kit",
    "date_of_birth": "1998-04-23",
    "mobile": "07700 900123",
    "mobile_proved_at": "2026-11-24T09:58:00+00:00",
    "mobile_proved_how": "one_time_code",
    "residence_line_1": "1 Invented Row",
    "residence_line_2": "Leeds",
    "residence_postcode": "LS1 4AP",
    "body_parts": ["vagina"],
    "exposures": ["receptive_oral"],
    "last_risk_on": "2026-11-01",
    "symptoms": False,
    "pregnancy_risk": False,
    "sexual_assault": False,
    "known_hiv": False,
    "past_syphilis": False,
    "text_consent": True,
    "voicemail_consent": False,
    "letter_consent": False,
    "safe_times": ["morning", "evening"],
    "wording": "discreet",
    "language": "en",
}
"""An order that is accepted where Leeds is the commissioned area. The person does not exist."""


class OrderIn(BaseModel):
    """One order. All answers are the person's own; the person ordering is the person who will use the kit."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, json_schema_extra={"example": EXAMPLE}
    )

    channel_ref: ChannelRef = Field(
        description="Your own reference for this order, with nothing personal in it. Sent again: the same order."
    )
    given_name: Name
    family_name: Name
    date_of_birth: date = Field(description="YYYY-MM-DD.")
    mobile: Short = Field(description="The person's own mobile. Landlines, pagers and 070 numbers are refused.")
    mobile_proved_at: AwareDatetime = Field(description="When the person proved the mobile to be theirs, with offset.")
    mobile_proved_how: MobileProof
    mobile_verification_ref: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{32})?$")] = Field(
        "", description="The verification_ref under which we proved this mobile; it counts instead of mobile_proved_at."
    )
    email: Email = ""
    residence_line_1: Line = Field(description="Where the person lives: this decides who pays, not where the kit goes.")
    residence_line_2: OptionalLine = ""
    residence_line_3: OptionalLine = ""
    residence_line_4: OptionalLine = ""
    residence_postcode: Short
    delivery_line_1: OptionalLine = Field("", description="Left out: the kit goes to the residence.")
    delivery_line_2: OptionalLine = ""
    delivery_line_3: OptionalLine = ""
    delivery_line_4: OptionalLine = ""
    delivery_postcode: Short = ""
    collect_from: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{0,40}$")] = Field(
        "", description="The id of a collection point, instead of a delivery address. Its code goes by text."
    )
    body_parts: frozenset[BodyPart] = Field(description="What the person has; the samples depend on it.")
    exposures: frozenset[Exposure] = Field(description="What may have exposed the person; an empty list is an answer.")
    last_risk_on: date | None = Field(None, description="London date of the last sex or other risk.")
    last_risk_at: AwareDatetime | None = Field(None, description="The same with the hour, where you ask for it.")
    symptoms: bool
    pregnancy_risk: bool = Field(description="Unprotected sex that could lead to an unwanted pregnancy.")
    sexual_assault: bool
    known_hiv: bool
    past_syphilis: bool
    text_consent: bool
    voicemail_consent: bool
    letter_consent: bool
    safe_times: frozenset[SafeTime] = Field(
        frozenset(), description="When it is safe to ring; none named: any of them."
    )
    wording: Wording
    language: Language
    large_print: bool = Field(default=False, description="The leaflet in large print.")
    call_wanted: bool = Field(default=False, description="The person asks to be rung.")
    safeguarding_pressured: bool | None = Field(None, description="Required below 18: pressured into sex?")
    safeguarding_paid: bool | None = Field(None, description="Required below 18: paid or rewarded for sex?")
    safeguarding_drink_or_drugs: bool | None = Field(None, description="Required below 18: drink or drugs involved?")
    safeguarding_low_mood: bool | None = Field(None, description="Required below 18: depressed or low?")
    safeguarding_partner_age_gap: bool | None = Field(
        None, description="Required below 18: much older or younger partner?"
    )

    def canonical(self) -> bytes:
        """The order's meaning as bytes: equal for equal orders, however they were spelled.

        A field that came later is left out where it is empty, so that orders of before stay the same orders.
        """
        values = self.model_dump(mode="json", exclude=_LATER - self.model_fields_set)
        return json.dumps(
            {name: sorted(v) if isinstance(v, list) else v for name, v in sorted(values.items())}
        ).encode()


_LATER: Final = {"mobile_verification_ref", "collect_from"}
FIELDS: Final = tuple(OrderIn.model_fields)
REQUIRED: Final = tuple(name for name, info in OrderIn.model_fields.items() if info.is_required())
_LISTS: Final = frozenset({"body_parts", "exposures", "safe_times"})
_BOOLEANS: Final = frozenset(
    name for name, info in OrderIn.model_fields.items() if info.annotation in (bool, bool | None)
)
_DAYS: Final = frozenset({"date_of_birth", "last_risk_on"})
_INSTANTS: Final = frozenset({"mobile_proved_at", "last_risk_at"})
_DAY_FORM: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_INSTANT_FORM: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})", re.ASCII)
"""Checked before pydantic sees them: it would read a date written as a number as seconds since 1970."""
_YES_NO: Final = {"yes": True, "no": False, "true": True, "false": False}
LIST_SEPARATOR: Final = ";"
"""Between the words of one CSV cell: receptive_anal;receptive_oral."""


# ── Faults ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one field, and what to do. Never quotes the value."""

    field: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.field}: {self.sentence}"


class OrderUnreadable(ServiceError):  # noqa: N818 - what is the matter with the order, as in Refused and Unsure
    """An order that can't be taken as it is; `faults` say why, field by field."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__(Code.BAD_INPUT, " ".join(str(fault) for fault in self.faults))


_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "mobile_proved_how": tuple(MobileProof),
    "body_parts": tuple(BodyPart),
    "exposures": tuple(Exposure),
    "safe_times": tuple(SafeTime),
    "wording": tuple(Wording),
    "language": tuple(Language),
}
_NO_SUCH_POINT: Final = "There is no such collection point: ask for the list, or leave it out."
_DAY_SENTENCE: Final = "Give a date that exists, as YYYY-MM-DD."
_INSTANT_SENTENCE: Final = "Give a date and time with its offset, like 2026-11-24T09:58:00+00:00."
_SENTENCES: Final[Mapping[str, str]] = {
    "missing": "This field is required.",
    "extra_forbidden": "This field is not part of an order: check its spelling, or leave it out.",
    "string_too_short": "This field is empty: fill it in.",
    "string_too_long": "This is too long: shorten it.",
}


def _fault(error: Mapping[str, Any]) -> Fault:
    """One of pydantic's errors in plain words."""
    name = str(error["loc"][0])[:60] if error["loc"] else "order"
    kind = error["type"]
    if kind in _SENTENCES:
        return Fault(name, _SENTENCES[kind])
    if name in _WORDS:
        return Fault(name, f"Use only these words: {', '.join(_WORDS[name])}.")
    if name in _INSTANTS:
        return Fault(name, _INSTANT_SENTENCE)
    if name in _DAYS:
        return Fault(name, _DAY_SENTENCE)
    if name in _BOOLEANS:
        return Fault(name, "Answer true or false (in CSV: yes or no).")
    if name == "channel_ref":
        return Fault(name, "Use up to 80 letters, digits and . _ : - only, and nothing personal.")
    if name == "mobile_verification_ref":
        return Fault(name, "Give the verification_ref that we answered with, or leave it out.")
    if name == "collect_from":
        return Fault(name, _NO_SUCH_POINT)
    if name == "email":
        return Fault(name, "This is not an e-mail address: correct it, or leave it out.")
    return Fault(name, "This can't be read: write it as plain text in one line.")


# ── Shape ────────────────────────────────────────────────────────────────────────────────────


def parse_order(body: bytes) -> OrderIn:
    """One order as JSON. Raises OrderUnreadable for anything but one object of the published shape."""
    try:
        values = json.loads(body, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise OrderUnreadable([Fault("order", "This is not one JSON object in UTF-8 with each field once.")])
    return _validated(values)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuses a field that stands twice: nobody can say which of two answers is meant."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _validated(values: Mapping[str, object]) -> OrderIn:
    faults = [Fault(name, _DAY_SENTENCE) for name in _DAYS if not _has_form(_DAY_FORM, values.get(name))]
    faults += [Fault(name, _INSTANT_SENTENCE) for name in _INSTANTS if not _has_form(_INSTANT_FORM, values.get(name))]
    try:
        order_in = OrderIn.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        faults += [_fault(each) for each in error.errors(include_url=False, include_input=False)]
    else:
        if not faults:
            return order_in
    raise OrderUnreadable(sorted(set(faults), key=_place))


def _has_form(form: re.Pattern[str], value: object) -> bool:
    return not isinstance(value, str) or form.fullmatch(value) is not None


def _place(fault: Fault) -> int:
    """Faults in the order of the published fields; others last."""
    return FIELDS.index(fault.field) if fault.field in FIELDS else len(FIELDS)


# ── Meaning ──────────────────────────────────────────────────────────────────────────────────


def read_order(
    order_in: OrderIn,
    *,
    today: date,
    policy: OrderPolicy,
    allow_test_numbers: bool,
    collection: CollectionPolicy = NO_POINTS,
) -> Order:
    """The order as the rules know it. `today` is the London date.

    Raises OrderUnreadable for an impossible date of birth, a number that can't be texted, a postcode
    that is not British, a delivery address without one of its parts, or a counter that is none of ours.
    """
    faults: list[Fault] = []
    if not is_possible_birth_date(order_in.date_of_birth, today):
        faults.append(
            Fault("date_of_birth", f"Nobody alive was born then: check for the future or {OLDEST_AGE_YEARS} years ago.")
        )
    mobile = None
    try:
        mobile = read_mobile(order_in.mobile, allow_test_numbers=allow_test_numbers, policy=policy)
    except MobileRefused as refused:
        faults.append(Fault("mobile", refused.message))

    residence = _address(order_in, "residence", faults)
    delivers_elsewhere = any(getattr(order_in, name) for name in FIELDS if name.startswith("delivery_"))
    if order_in.collect_from:
        delivery = _counter(order_in, collection, faults, delivers_elsewhere=delivers_elsewhere)
    else:
        delivery = _address(order_in, "delivery", faults) if delivers_elsewhere else residence
    if faults or mobile is None or residence is None or delivery is None:
        raise OrderUnreadable(faults)

    return Order(
        given_name=order_in.given_name,
        family_name=order_in.family_name,
        date_of_birth=order_in.date_of_birth,
        mobile=mobile,
        mobile_proved_at=order_in.mobile_proved_at,
        mobile_proved_how=order_in.mobile_proved_how,
        mobile_verification_ref=order_in.mobile_verification_ref,
        email=order_in.email,
        residence=residence,
        delivery=delivery,
        collect_from=order_in.collect_from,
        body=order_in.body_parts,
        exposures=order_in.exposures,
        last_risk_on=order_in.last_risk_on,
        last_risk_at=order_in.last_risk_at,
        symptoms=order_in.symptoms,
        pregnancy_risk=order_in.pregnancy_risk,
        sexual_assault=order_in.sexual_assault,
        known_hiv=order_in.known_hiv,
        past_syphilis=order_in.past_syphilis,
        text_consent=order_in.text_consent,
        voicemail_consent=order_in.voicemail_consent,
        letter_consent=order_in.letter_consent,
        safe_times=order_in.safe_times,
        wording=order_in.wording,
        language=order_in.language,
        large_print=order_in.large_print,
        call_wanted=order_in.call_wanted,
        safeguarding=Safeguarding(
            pressured=order_in.safeguarding_pressured,
            paid=order_in.safeguarding_paid,
            drink_or_drugs=order_in.safeguarding_drink_or_drugs,
            low_mood=order_in.safeguarding_low_mood,
            partner_age_gap=order_in.safeguarding_partner_age_gap,
        ),
    )


def _counter(
    order_in: OrderIn, collection: CollectionPolicy, faults: list[Fault], *, delivers_elsewhere: bool
) -> Address | None:
    """Where a kit goes that is fetched at a counter; None, and the faults, where it can't."""
    point = collection.point(order_in.collect_from)
    if point is None:
        faults.append(Fault("collect_from", _NO_SUCH_POINT))
    if delivers_elsewhere:
        faults.append(Fault("collect_from", "Give a collection point or a delivery address, not both."))
    if not order_in.text_consent:
        faults.append(Fault("collect_from", "Its code goes by text: text_consent must be true, or have it delivered."))
    return Address(point.lines, Postcode(point.postcode)) if point and not faults else None


def order_reader(*, allow_test_numbers: bool) -> Callable[[str, Service, datetime], Order]:
    """What `Intake.read` asks for: a stored order's text, its service and the moment -> the order as the rules know it.

    Raises OrderUnreadable, like both of its steps.
    """

    def read(body: str, service: Service, now: datetime) -> Order:
        order_in = parse_order(body.encode())
        today = london_day(now)
        return read_order(
            order_in,
            today=today,
            policy=service.orders,
            allow_test_numbers=allow_test_numbers,
            collection=service.collection,
        )

    return read


def _address(order_in: OrderIn, which: str, faults: list[Fault]) -> Address | None:
    lines = tuple(line for n in range(1, 5) if (line := getattr(order_in, f"{which}_line_{n}")))
    written = getattr(order_in, f"{which}_postcode")
    postcode = read_postcode(written)
    if not lines:
        faults.append(Fault(f"{which}_line_1", "Give the address as well as its postcode."))
    if postcode is None:
        wrong = "This is not a UK postcode: kits go to UK addresses only, and none is repaired by guessing."
        faults.append(Fault(f"{which}_postcode", wrong if written else "Give the postcode as well as the address."))
        return None
    return Address(lines, postcode) if lines else None


# ── Files ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class GoodRow:
    """A row of the published shape, and the line of the file on which it ends."""

    line: int
    order: OrderIn = field(repr=False)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that can't be taken, why, and what it held, to be kept for a person."""

    line: int
    faults: tuple[Fault, ...]
    raw: bytes = field(repr=False)


def read_json_lines(file: IO[bytes]) -> Iterator[GoodRow | BadRow]:
    """One JSON order a line; empty lines are passed over."""
    for number, raw in enumerate(file, start=1):
        body = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
        if not body.strip():
            continue
        try:
            yield GoodRow(number, parse_order(body))
        except OrderUnreadable as unreadable:
            yield BadRow(number, unreadable.faults, raw)


def read_csv(file: IO[bytes]) -> Iterator[GoodRow | BadRow]:
    """Orders as UTF-8 CSV with a header of field names, one a line. An empty cell is a field left out.

    No field holds a line break, so every line is read by itself: a lone quotation mark spoils its own
    row and not the rest of the file. Raises ServiceError(BAD_INPUT) when the header is not an order's:
    then no row is read at all.
    """
    header = [name.strip() for name in _cells(next(iter(file), b"").removeprefix(b"\xef\xbb\xbf")) or []]
    _check_header(header)
    for number, raw in enumerate(file, start=2):
        if not raw.strip(b"\r\n ,"):
            continue
        try:
            yield GoodRow(number, _csv_order(header, _cells(raw)))
        except OrderUnreadable as unreadable:
            yield BadRow(number, unreadable.faults, raw)


def _cells(line: bytes) -> list[str] | None:
    """One line's cells, or None for a line that is not UTF-8 or not CSV."""
    try:
        return next(csv.reader([line.decode().rstrip("\r\n")], strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        return None


def _check_header(header: list[str]) -> None:
    unknown = len(set(header) - set(FIELDS))
    missing = [name for name in REQUIRED if name not in header]
    if unknown or missing or len(set(header)) != len(header):
        wanted = f" Missing: {', '.join(missing)}." if missing else ""
        extra = f" Not part of an order: {unknown} of the columns." if unknown else ""
        twice = " A column stands twice." if len(set(header)) != len(header) else ""
        raise ServiceError(
            Code.BAD_INPUT,
            f"The first line of the CSV file must name an order's fields; no row was read.{wanted}{extra}{twice}",
        )


def _csv_order(header: list[str], cells: list[str] | None) -> OrderIn:
    if cells is None:
        raise OrderUnreadable([Fault("order", "This line is not CSV in UTF-8: look for a lone quotation mark.")])
    if len(cells) != len(header):
        sentence = f"The row has {len(cells)} cells and the header {len(header)}: look for a stray comma."
        raise OrderUnreadable([Fault("order", sentence)])
    values = {name: _typed(name, cell.strip()) for name, cell in zip(header, cells, strict=True) if cell.strip()}
    empty_lists: dict[str, object] = {name: [] for name in _LISTS & set(header)}
    return _validated(empty_lists | values)


def _typed(name: str, cell: str) -> object:
    """A cell as JSON would hold it. What is no yes or no stays text, and is refused as such."""
    if name in _LISTS:
        return [word.strip() for word in cell.split(LIST_SEPARATOR) if word.strip()]
    return _YES_NO.get(cell.lower(), cell) if name in _BOOLEANS else cell
