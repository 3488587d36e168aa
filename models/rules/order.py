"""May this person have a kit: accepted, refused with a next step, or held for a clinician.

`decide_order` asks one gate after another. A gate says nothing only when it has *proved* its point;
whatever it does not know, or has never seen, is a reason. `CONSEQUENCE` is the decision table: what
each reason does to the outcome, what the person is told, and which case it opens. Outcome and cases
are independent (ruling 17): a refusal may need a call, an acceptance may need one too.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from typing import Final

from models.rules.panel import BodyPart, Exposure, Panel, choose_panel
from models.rules.person import Postcode, age_on, is_possible_birth_date
from models.rules.phone import Mobile
from models.rules.service import Service
from models.rules.vocabulary import Language, Wording
from models.rules.working_days import LONDON, london_day

RULE_VERSION: Final = "order-2"
"""Cited by every decision. tests/rules/test_order.py holds the digest of the table it stands for (ruling 16)."""

UNLAWFUL_BELOW_AGE_YEARS: Final = 13
"""Under 13 nobody can consent: always a serious-harm case. Source: clinical.md 2 (R49, Sexual Offences Act 2003)."""

CONSENT_AGE_YEARS: Final = 16
"""Under 16: a clinic or a young people's service, never a posted kit. Source: clinical.md 2 (R49, R12, R25)."""

CHANGED_ANSWER_WITHIN: Final = timedelta(days=14)
"""A symptom that stopped an order and is gone from the next one within this time was edited away [D]."""


# ── What is asked ────────────────────────────────────────────────────────────────────────────


class MobileProof(StrEnum):
    """How the ordering channel knows that the mobile is this person's."""

    ONE_TIME_CODE = "one_time_code"
    STAFF_CALL = "staff_call"


class SafeTime(StrEnum):
    """When it is safe to ring, in London time. None named means any of them."""

    MORNING = "morning"
    """09:00-12:00."""
    AFTERNOON = "afternoon"
    """12:00-17:00."""
    EVENING = "evening"
    """17:00-20:00."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where someone lives or wants the parcel: one to five lines and a postcode."""

    lines: tuple[str, ...]
    postcode: Postcode

    def __repr__(self) -> str:
        return "Address(…)"


def write_address(address: Address) -> str:
    """An address as one text for an encrypted column: its lines, then the postcode."""
    return "\n".join((*address.lines, address.postcode))


def read_address(written: str) -> Address:
    """The address that `write_address` wrote."""
    *lines, postcode = written.split("\n")
    return Address(tuple(lines), Postcode(postcode))


@dataclass(frozen=True, slots=True)
class Safeguarding:
    """The questions for under-18s; None is a question without an answer. Source: clinical.md 2 (R9b).

    The sixth of the set, sexual assault, is asked of everyone and stands on the order.
    """

    pressured: bool | None = None
    paid: bool | None = None
    drink_or_drugs: bool | None = None
    low_mood: bool | None = None
    partner_age_gap: bool | None = None

    @property
    def answers(self) -> tuple[bool | None, ...]:
        """The five answers, in the order above."""
        return (self.pressured, self.paid, self.drink_or_drugs, self.low_mood, self.partner_age_gap)


@dataclass(frozen=True, slots=True)
class Order:
    """One person's order, as a channel passed it on. Its repr says nothing of the person."""

    given_name: str = field(repr=False)
    family_name: str = field(repr=False)
    date_of_birth: date = field(repr=False)
    mobile: Mobile
    """Proved to be a mobile that this service texts: only `read_mobile` makes one."""
    mobile_proved_at: datetime
    mobile_proved_how: MobileProof
    residence: Address = field(repr=False)
    delivery: Address = field(repr=False)
    collect_from: str = ""
    """The collection point whose address `delivery` is; '' where the kit goes to the person."""
    mobile_verification_ref: str = ""
    """Names our own proof of this mobile, which counts instead of what the channel says."""
    email: str = field(default="", repr=False)
    body: frozenset[BodyPart] = frozenset()
    exposures: frozenset[Exposure] = frozenset()
    last_risk_on: date | None = None
    """London date of the last sex or other risk."""
    last_risk_at: datetime | None = None
    """The same as an instant, where the channel asks for the hour."""
    symptoms: bool = False
    pregnancy_risk: bool = False
    """Unprotected sex that could lead to a pregnancy nobody wants."""
    sexual_assault: bool = False
    known_hiv: bool = False
    past_syphilis: bool = False
    text_consent: bool = False
    voicemail_consent: bool = False
    letter_consent: bool = False
    safe_times: frozenset[SafeTime] = frozenset()
    wording: Wording = Wording.DISCREET
    language: Language = Language.ENGLISH
    large_print: bool = False
    """The leaflet in large print."""
    call_wanted: bool = False
    """The person asked to be rung."""
    safeguarding: Safeguarding = Safeguarding()


@dataclass(frozen=True, slots=True)
class EarlierStop:
    """An earlier order from the same person, mobile, e-mail or address that did not get a kit."""

    decided_at: datetime
    reasons: frozenset["Reason"]
    same_date_of_birth: bool
    last_risk_at: datetime | None = None
    """The latest moment of the risk told then, see `latest_risk_at`."""


@dataclass(frozen=True, slots=True)
class History:
    """What the database knows that bears on an order."""

    mobile_of_another: bool = False
    """Someone else's live kit is told on this mobile."""
    mobile_frozen_at: datetime | None = None
    """When this mobile turned out to be someone else's, or dead: only a later proof counts."""
    kits_ordered_at: tuple[datetime, ...] = ()
    """When each earlier kit of this person was ordered."""
    safeguarding_case_open: bool = False
    """A safeguarding case is open on this person, or on this mobile, e-mail or address."""
    earlier_stops: tuple[EarlierStop, ...] = ()


# ── What is answered ─────────────────────────────────────────────────────────────────────────


class OrderOutcome(StrEnum):
    """The one outcome of a decision about an order."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    HELD = "held"


class Reason(StrEnum):
    """Why an order was not simply accepted. Stable words: channels, cases and figures cite them.

    In order of weight: what a person is told first comes first.
    """

    UNDER_13 = "under_13"
    """clinical.md 2 (R49): hard stop, safeguarding now, no automatic text."""
    SEXUAL_ASSAULT = "sexual_assault"
    """clinical.md 2 (R12, R25): divert before ordering."""
    PEP_WINDOW = "pep_window"
    """clinical.md 2 (R12, R25): possible HIV exposure within 72 hours; H18."""
    EMERGENCY_CONTRACEPTION = "emergency_contraception"
    """clinical.md 2 (R12, R25): unprotected sex within 5 days and pregnancy risk; H18."""
    RE_ENTRY = "re_entry"
    """FEATURES 11: stopped for age or safeguarding, now back under another date of birth; H12."""
    UNDER_16 = "under_16"
    """clinical.md 2 (R49, R12, R25): no kit, signpost."""
    UNDER_MINIMUM_AGE = "under_minimum_age"
    """clinical.md 0.12: minimum age is the council's choice."""
    SYMPTOMS = "symptoms"
    """clinical.md 2 (R12, R25): divert, where the council says so (R27)."""
    EARLIER_FLAG = "earlier_flag"
    """clinical.md 2 [D]: a flag survives edits until a clinician closes it; H12."""
    SAFEGUARDING_FLAG = "safeguarding_flag"
    """clinical.md 2 (R28, R9b): any answer of an under-18 that raises a flag holds dispatch."""
    SAFEGUARDING_CALL = "safeguarding_call"
    """The same flag where the council dispatches and calls (clinical.md 2 [D])."""
    SAFEGUARDING_UNANSWERED = "safeguarding_unanswered"
    """clinical.md 2 [D]: for 16-17s the questions are mandatory."""
    ANSWERS_CHANGED = "answers_changed"
    """clinical.md 2 [D]: an answer that stopped an order was changed; itself a flag."""
    BIRTH_DATE_IMPOSSIBLE = "birth_date_impossible"
    """clinical.md 2 [D]: checked by the server, never by the form alone."""
    MOBILE_NOT_PROVED = "mobile_not_proved"
    """FEATURES 7, H5: proof in the future, too old, or older than a WRONG reply or bounce."""
    MOBILE_OF_ANOTHER = "mobile_of_another"
    """clinical.md 0.4 (R24): one mobile number, one person."""
    OUT_OF_AREA = "out_of_area"
    """clinical.md 2.1: residence decides, not delivery."""
    AREA_UNKNOWN = "area_unknown"
    """clinical.md 2.1 [D]: a new build is not a refusal; staff look."""
    TOO_OFTEN = "too_often"
    """clinical.md 2 (R26): frequency is itself a vulnerability signal; FEATURES 8."""
    RISK_UNKNOWN = "risk_unknown"
    """H18: without a last risk date nobody can say that PEP is not needed."""
    BODY_NOT_STATED = "body_not_stated"
    """clinical.md 3.1 (R24): kits are chosen by organs."""
    NOTHING_TO_TEST = "nothing_to_test"
    """The panel is empty at this laboratory."""


class Told(StrEnum):
    """What the person is told, as a key; the sentences are in templates/pages/told.toml."""

    ACCEPTED = "accepted"
    TALK_TO_SOMEONE = "talk_to_someone"
    ASSAULT = "assault"
    PEP = "pep"
    CONTRACEPTION = "contraception"
    YOUNG_PEOPLE = "young_people"
    TOO_YOUNG = "too_young"
    SYMPTOMS = "symptoms"
    WE_WILL_CALL = "we_will_call"
    PROVE_MOBILE = "prove_mobile"
    SHARED_MOBILE = "shared_mobile"
    ELSEWHERE = "elsewhere"
    CHECKING_ADDRESS = "checking_address"


class OrderCase(StrEnum):
    """The kinds of clinic case that an order may open; the same words as models.rules.clinic.CaseKind."""

    SAFEGUARDING = "safeguarding"
    ORDER_REVIEW = "order_review"
    REPLY = "reply"
    """A call that was asked for with an order that stands."""


@dataclass(frozen=True, slots=True)
class Need:
    """One case that an order needs, and whether it can wait."""

    case: OrderCase
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Consequence:
    """What one reason does. `outcome` ACCEPTED means that it does not stand in the way of a kit."""

    outcome: OrderOutcome
    told: Told
    need: Need | None = None


_REFUSED: Final = OrderOutcome.REFUSED
_HELD: Final = OrderOutcome.HELD

CONSEQUENCE: Final[Mapping[Reason, Consequence]] = {
    Reason.UNDER_13: Consequence(_REFUSED, Told.TALK_TO_SOMEONE, Need(OrderCase.SAFEGUARDING, urgent=True)),
    Reason.SEXUAL_ASSAULT: Consequence(_REFUSED, Told.ASSAULT, Need(OrderCase.SAFEGUARDING, urgent=True)),
    Reason.PEP_WINDOW: Consequence(_REFUSED, Told.PEP, Need(OrderCase.ORDER_REVIEW, urgent=True)),
    Reason.EMERGENCY_CONTRACEPTION: Consequence(
        _REFUSED, Told.CONTRACEPTION, Need(OrderCase.ORDER_REVIEW, urgent=True)
    ),
    Reason.RE_ENTRY: Consequence(_HELD, Told.WE_WILL_CALL, Need(OrderCase.SAFEGUARDING, urgent=True)),
    Reason.UNDER_16: Consequence(_REFUSED, Told.YOUNG_PEOPLE),
    Reason.UNDER_MINIMUM_AGE: Consequence(_REFUSED, Told.TOO_YOUNG),
    Reason.SYMPTOMS: Consequence(_REFUSED, Told.SYMPTOMS),
    Reason.EARLIER_FLAG: Consequence(_HELD, Told.WE_WILL_CALL, Need(OrderCase.SAFEGUARDING, urgent=True)),
    Reason.SAFEGUARDING_FLAG: Consequence(_HELD, Told.WE_WILL_CALL, Need(OrderCase.SAFEGUARDING, urgent=True)),
    Reason.SAFEGUARDING_CALL: Consequence(
        OrderOutcome.ACCEPTED, Told.ACCEPTED, Need(OrderCase.SAFEGUARDING, urgent=True)
    ),
    Reason.SAFEGUARDING_UNANSWERED: Consequence(_HELD, Told.WE_WILL_CALL, Need(OrderCase.SAFEGUARDING, urgent=True)),
    Reason.ANSWERS_CHANGED: Consequence(_HELD, Told.WE_WILL_CALL, Need(OrderCase.ORDER_REVIEW, urgent=True)),
    Reason.BIRTH_DATE_IMPOSSIBLE: Consequence(_HELD, Told.WE_WILL_CALL, Need(OrderCase.ORDER_REVIEW)),
    Reason.MOBILE_NOT_PROVED: Consequence(_REFUSED, Told.PROVE_MOBILE),
    Reason.MOBILE_OF_ANOTHER: Consequence(_REFUSED, Told.SHARED_MOBILE),
    Reason.OUT_OF_AREA: Consequence(_REFUSED, Told.ELSEWHERE),
    Reason.AREA_UNKNOWN: Consequence(_HELD, Told.CHECKING_ADDRESS, Need(OrderCase.ORDER_REVIEW)),
    Reason.TOO_OFTEN: Consequence(_HELD, Told.WE_WILL_CALL, Need(OrderCase.ORDER_REVIEW)),
    Reason.RISK_UNKNOWN: Consequence(_HELD, Told.WE_WILL_CALL, Need(OrderCase.ORDER_REVIEW, urgent=True)),
    Reason.BODY_NOT_STATED: Consequence(_HELD, Told.WE_WILL_CALL, Need(OrderCase.ORDER_REVIEW)),
    Reason.NOTHING_TO_TEST: Consequence(_HELD, Told.WE_WILL_CALL, Need(OrderCase.ORDER_REVIEW)),
}
"""The decision table. Every reason has a line; every HELD line names a case."""

DIVERSIONS: Final = frozenset(
    {Reason.SEXUAL_ASSAULT, Reason.PEP_WINDOW, Reason.EMERGENCY_CONTRACEPTION, Reason.SYMPTOMS}
)
"""Care that can't wait for a kit: each one is told, not only the first."""

SAFEGUARDING_STOPS: Final = frozenset(
    {
        Reason.UNDER_13,
        Reason.UNDER_16,
        Reason.UNDER_MINIMUM_AGE,
        Reason.SAFEGUARDING_FLAG,
        Reason.SAFEGUARDING_UNANSWERED,
        Reason.EARLIER_FLAG,
        Reason.RE_ENTRY,
    }
)
"""Stops that a new date of birth must not undo (FEATURES 11)."""

NO_AUTOMATIC_TEXT: Final = frozenset({Reason.UNDER_13, Reason.MOBILE_NOT_PROVED, Reason.MOBILE_OF_ANOTHER})
"""A child, or a number that may be someone else's: the channel's own page tells, no text does."""


@dataclass(frozen=True, slots=True)
class OrderDecision:
    """What was decided about one order, why, and what it sets going."""

    outcome: OrderOutcome
    reasons: tuple[Reason, ...]
    told: tuple[Told, ...]
    needs: tuple[Need, ...]
    panel: Panel
    """What the kit holds, or would hold."""
    may_text: bool
    """Whether a text about this order may go to its mobile."""
    rule_version: str = RULE_VERSION


# ── The gates ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Asked:
    order: Order
    history: History
    now: datetime
    service: Service
    authority: str | None
    panel: Panel

    @property
    def age(self) -> int:
        return age_on(self.order.date_of_birth, london_day(self.now))


def latest_risk_at(order: Order, now: datetime) -> datetime | None:
    """The latest moment at which the last risk can have been, aware; None if not told or not yet possible.

    A date without an hour counts as its last moment (or now, if it is today): the reading that keeps PEP open longest.
    """
    if order.last_risk_at is not None:
        return order.last_risk_at if order.last_risk_at <= now else None
    if order.last_risk_on is None or order.last_risk_on > london_day(now):
        return None
    midnight = datetime.combine(order.last_risk_on + timedelta(days=1), time(0), LONDON)
    return min(midnight, now)


def _within(moment: datetime | None, window: timedelta, now: datetime) -> bool:
    """Whether a moment lies at most `window` back. Compared as elapsed time, so clock changes don't count."""
    return moment is not None and now.timestamp() - moment.timestamp() <= window.total_seconds()


def _age(asked: _Asked) -> Iterator[Reason]:
    order, policy = asked.order, asked.service.orders
    if not is_possible_birth_date(order.date_of_birth, london_day(asked.now)):
        yield Reason.BIRTH_DATE_IMPOSSIBLE
    elif asked.age < UNLAWFUL_BELOW_AGE_YEARS:
        yield Reason.UNDER_13
    elif asked.age < CONSENT_AGE_YEARS:
        yield Reason.UNDER_16
    elif asked.age < policy.minimum_age_years:
        yield Reason.UNDER_MINIMUM_AGE


def _safeguarding(asked: _Asked) -> Iterator[Reason]:
    order, policy = asked.order, asked.service.orders
    if asked.age < policy.safeguarding_below_age_years:
        if order.sexual_assault or any(order.safeguarding.answers):
            yield Reason.SAFEGUARDING_FLAG if policy.safeguarding_flag_holds_dispatch else Reason.SAFEGUARDING_CALL
        if None in order.safeguarding.answers and asked.age >= CONSENT_AGE_YEARS:
            yield Reason.SAFEGUARDING_UNANSWERED
    if asked.history.safeguarding_case_open:
        yield Reason.EARLIER_FLAG


def _diversions(asked: _Asked) -> Iterator[Reason]:
    order, policy = asked.order, asked.service.orders
    risk_at = latest_risk_at(order, asked.now)
    if order.sexual_assault:
        yield Reason.SEXUAL_ASSAULT
    if risk_at is None:
        yield Reason.RISK_UNKNOWN
    if not order.known_hiv and _within(risk_at, timedelta(hours=policy.pep_within_hours), asked.now):
        yield Reason.PEP_WINDOW
    within_days = timedelta(days=policy.emergency_contraception_within_days)
    if order.pregnancy_risk and _within(risk_at, within_days, asked.now):
        yield Reason.EMERGENCY_CONTRACEPTION
    if order.symptoms and policy.symptoms_divert:
        yield Reason.SYMPTOMS


def _edits(asked: _Asked) -> Iterator[Reason]:
    diverted_now = set(_diversions(asked))
    for stop in asked.history.earlier_stops:
        if stop.same_date_of_birth:
            if _still_binding(stop, asked) - diverted_now:
                yield Reason.ANSWERS_CHANGED
        elif stop.reasons & SAFEGUARDING_STOPS:
            yield Reason.RE_ENTRY


def _still_binding(stop: EarlierStop, asked: _Asked) -> set[Reason]:
    """The diversions of an earlier stop that time alone has not ended: if one is gone, an answer was changed."""
    policy, now = asked.service.orders, asked.now
    binding = {
        Reason.PEP_WINDOW: _within(stop.last_risk_at, timedelta(hours=policy.pep_within_hours), now),
        Reason.EMERGENCY_CONTRACEPTION: _within(
            stop.last_risk_at, timedelta(days=policy.emergency_contraception_within_days), now
        ),
        Reason.SYMPTOMS: _within(stop.decided_at, CHANGED_ANSWER_WITHIN, now),
    }
    return {reason for reason, binds in binding.items() if binds and reason in stop.reasons}


def _mobile(asked: _Asked) -> Iterator[Reason]:
    order, policy = asked.order, asked.service.orders
    age_of_proof = asked.now - order.mobile_proved_at
    frozen_at = asked.history.mobile_frozen_at
    is_fresh = timedelta(0) <= age_of_proof <= timedelta(days=policy.mobile_proof_max_age_days)
    if not is_fresh or (frozen_at is not None and order.mobile_proved_at <= frozen_at):
        yield Reason.MOBILE_NOT_PROVED
    if asked.history.mobile_of_another:
        yield Reason.MOBILE_OF_ANOTHER


def _area(asked: _Asked) -> Iterator[Reason]:
    if asked.authority is None:
        yield Reason.AREA_UNKNOWN
    elif asked.authority not in asked.service.orders.local_authorities:
        yield Reason.OUT_OF_AREA


def _frequency(asked: _Asked) -> Iterator[Reason]:
    policy = asked.service.orders
    window = timedelta(days=policy.frequency_window_days)
    recent = sum(_within(ordered_at, window, asked.now) for ordered_at in asked.history.kits_ordered_at)
    if recent + 1 >= policy.held_from_kits_in_window:
        yield Reason.TOO_OFTEN


def _contents(asked: _Asked) -> Iterator[Reason]:
    if not asked.order.body:
        yield Reason.BODY_NOT_STATED
    if not asked.panel.samples:
        yield Reason.NOTHING_TO_TEST


_GATES: Final[tuple[Callable[[_Asked], Iterator[Reason]], ...]] = (
    _age,
    _safeguarding,
    _diversions,
    _edits,
    _mobile,
    _area,
    _frequency,
    _contents,
)


def decide_order(
    order: Order, history: History, *, now: datetime, service: Service, authority: str | None
) -> OrderDecision:
    """Decides one order. `authority` is the GSS code of the residence, None where the postcode is not in the data.

    `now` is service time, aware. Pure: the same arguments give the same decision.
    """
    panel = choose_panel(
        body=order.body,
        exposures=order.exposures,
        known_hiv=order.known_hiv,
        past_syphilis=order.past_syphilis,
        policy=service.orders,
        lab_tests=service.labs[0].tests,
    )
    asked = _Asked(order, history, now, service, authority, panel)
    raised = {reason for gate in _GATES for reason in gate(asked)}
    if Reason.UNDER_13 in raised:
        raised = {Reason.UNDER_13}  # a hard stop: nothing else is weighed, and nothing else is said to a child
    reasons = tuple(reason for reason in Reason if reason in raised)

    outcome = _outcome(reasons)
    return OrderDecision(
        outcome=outcome,
        reasons=reasons,
        told=_told(outcome, reasons),
        needs=_needs(order, outcome, reasons),
        panel=panel,
        may_text=order.text_consent and not raised & NO_AUTOMATIC_TEXT,
    )


def _outcome(reasons: tuple[Reason, ...]) -> OrderOutcome:
    outcomes = {CONSEQUENCE[reason].outcome for reason in reasons}
    if OrderOutcome.REFUSED in outcomes:
        return OrderOutcome.REFUSED
    if outcomes <= {OrderOutcome.ACCEPTED}:
        return OrderOutcome.ACCEPTED
    return OrderOutcome.HELD


def _told(outcome: OrderOutcome, reasons: tuple[Reason, ...]) -> tuple[Told, ...]:
    """Every diversion, or else the weightiest reason of the outcome."""
    if outcome is OrderOutcome.ACCEPTED:
        return (Told.ACCEPTED,)
    diverted = tuple(CONSEQUENCE[reason].told for reason in reasons if reason in DIVERSIONS)
    return diverted or next((CONSEQUENCE[r].told,) for r in reasons if CONSEQUENCE[r].outcome is outcome)


def is_about_safeguarding(reason: str) -> bool:
    """Whether a stored reason tells of an answer that stands in a safeguarding note, or of a flag."""
    need = CONSEQUENCE[Reason(reason)].need if reason in set(Reason) else None
    return need is not None and need.case is OrderCase.SAFEGUARDING


def _needs(order: Order, outcome: OrderOutcome, reasons: tuple[Reason, ...]) -> tuple[Need, ...]:
    """One case of a kind, urgent if any reason makes it so; else a call where one was asked for."""
    urgent: dict[OrderCase, bool] = {}
    for reason in reasons:
        if (need := CONSEQUENCE[reason].need) is not None:
            urgent[need.case] = urgent.get(need.case, False) or need.urgent
    if order.call_wanted and not urgent:
        urgent[OrderCase.REPLY if outcome is OrderOutcome.ACCEPTED else OrderCase.ORDER_REVIEW] = False
    return tuple(Need(case, is_urgent) for case, is_urgent in urgent.items())
