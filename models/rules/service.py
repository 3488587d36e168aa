"""A council's choices, as values. Read from TOML by app/service, stored as a version, cited by every decision.

A *service* is one council's sexual health service. Facts that differ between councils, or that
clinical.md tags [U] or [2], are fields here; facts of law and medicine are constants in the rule
that uses them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import time
from enum import StrEnum
from typing import Final

from models.rules.lab_request import RequestForm, RequestWay
from models.rules.postage import PostPolicy
from models.rules.stock import Recipe, StockPolicy
from models.rules.vocabulary import Test


@dataclass(frozen=True, slots=True)
class OrderPolicy:
    """Who may order, and how often. Ages in whole years, by date of birth in London."""

    minimum_age_years: int = 16
    safeguarding_below_age_years: int = 18
    local_authorities: frozenset[str] = frozenset()
    """GSS codes of the commissioned area, decided by residence (clinical.md 2.1)."""
    held_from_kits_in_window: int = 3
    """The nth order in the window is held for a clinical call, not refused (FEATURES 8; R26)."""
    frequency_window_days: int = 183
    pep_within_hours: int = 72
    emergency_contraception_within_days: int = 5
    symptoms_divert: bool = True
    safeguarding_flag_holds_dispatch: bool = True
    crown_dependency_mobiles: bool = True
    irish_mobiles: bool = False
    pharyngeal_for_all: bool = False
    """False: a throat swab only for men who have sex with men (clinical.md 3.1)."""
    hepatitis_b: bool = False
    hepatitis_c_for_higher_risk: bool = True
    mobile_proof_max_age_days: int = 180


class Paper(StrEnum):
    """What a packing room's printer takes."""

    THERMAL = "thermal"
    """One label a page, each in its own size, for printers with a roll; the form in A5."""
    A4 = "a4"
    """An office printer: a kit's labels on one sheet with lines to cut along, two forms on another."""


@dataclass(frozen=True, slots=True)
class PackPolicy:
    """What leaves the packing room, and when."""

    batch_size: int = 50
    paper: Paper = Paper.THERMAL
    kit_valid_days: int = 365
    """From packing to the day after which the kit should not be used (clinical.md 6)."""
    return_within_days: int = 60
    """Days from dispatch after which an unreturned kit lapses; told in the last reminder."""
    return_address: tuple[str, ...] = ()
    """Printed on the outer label: a box number, nothing that names the service's purpose."""
    responsible_person: str = ""
    responsible_phone: str = ""


@dataclass(frozen=True, slots=True)
class ReminderSplit:
    """Two timings of reminders compared on real kits: who gets which is a hash of the kit, and nobody's choice."""

    name: str
    """Changing it draws anew, for kits dispatched from then on."""
    days_b: tuple[int, ...]
    """Of arm b, instead of `reminder_days`."""
    percent_b: int = 50


@dataclass(frozen=True, slots=True)
class ReturnPolicy:
    """Reminders and lapses. Days count from probable delivery unless said otherwise."""

    probable_delivery_working_days: int = 2
    reminder_days: tuple[int, ...] = (7, 15, 30)
    """HomeTest's 7, 15, 30 (clinical.md 6), counted here from probable delivery (FEATURES 28)."""
    split: ReminderSplit | None = None
    """None: everyone gets `reminder_days`."""
    no_movement_days: int = 30
    """Return parcel scanned once and then silent for this long: a person looks."""
    outbound_days: int = 10
    """Outbound parcel that a courier scanned and then lost sight of for this long: a person asks and posts another."""


@dataclass(frozen=True, slots=True)
class ReleasePolicy:
    """When a result may be told, and how long a partial one may wait."""

    partial_hold_working_days: int = 3
    """A kit with some results and some pending: after this a person is told (FEATURES 47)."""
    number_proof_max_age_days: int = 180
    """Older proof of the mobile: a neutral text and a case, no content (H5; ruling 14)."""
    window_days: Mapping[Test, int] | None = None
    """Days after a risk within which a negative does not count (clinical.md 3.2: sources differ)."""


@dataclass(frozen=True, slots=True)
class TextWindow:
    """When texts of a class may leave: London wall time, start included, end excluded."""

    opens: time
    closes: time
    working_days_only: bool


@dataclass(frozen=True, slots=True)
class TextPolicy:
    """How texts leave (sms-and-post.md A3)."""

    result_window: TextWindow = TextWindow(time(9), time(16, 30), working_days_only=True)
    """Every outcome's first contact, so that time of day tells nothing (FEATURES 50; H22)."""
    routine_window: TextWindow = TextWindow(time(8), time(20), working_days_only=False)
    reminder_window: TextWindow = TextWindow(time(10), time(19), working_days_only=False)
    max_per_run: int = 500
    """More than this due at once waits for a person's release (H11; FEATURES 79)."""
    unsure_grace_minutes: float = 15
    """Machine time before an unsure text is looked up: must exceed the provider's listing lag."""
    unsure_person_after_hours: int = 10
    """Machine time after which a still unsure text goes to a person: the provider's validity period."""
    retest_after_days: int = 91
    """Days after treatment for chlamydia after which an under-25 is asked to order again; 0: nobody is."""
    silent_person_after_hours: int = 72
    """Service time without a final status after which a person takes over (H23)."""
    values_kept_days: int = 4383
    """Days after a text settled until what its words were made with is erased. Twelve years: the longest that
    clinical.md's retention table asks for anyone (17 now, kept until the 28th birthday); a council may say less."""


@dataclass(frozen=True, slots=True)
class EscalationStep:
    """Who is told next when a case passes its due time by so many working hours."""

    after_working_hours: int
    role: str


@dataclass(frozen=True, slots=True)
class ClinicPolicy:
    """Due times in working hours (09:00-17:00 London, Monday to Friday, no bank holidays)."""

    opens: time = time(9)
    closes: time = time(17)
    due_working_hours: Mapping[str, int] | None = None
    """By CaseKind value. Missing kinds are refused at start."""
    escalation: tuple[EscalationStep, ...] = (
        EscalationStep(0, "health_adviser"),
        EscalationStep(4, "senior_health_adviser"),
        EscalationStep(12, "service_manager"),
    )
    retry_working_hours: int = 8
    """After an attempt that reached nobody, the next one is due this much later."""
    after_spoke_working_hours: int = 24
    """After a talk, what it left to do (a booking, a treatment, a confirmation) is looked at again this much later."""
    claim_working_hours: int = 8
    """A due case whose holder has done nothing for so long goes back to the queue."""
    snooze_working_hours: int = 40
    """The longest rest of a case at a time."""
    snoozes: int = 3
    """So often may a case rest since its newest result."""
    duty_phones: Mapping[str, str] | None = None
    """By role: the number, as +44..., texted when a step of the ladder is told to that role. It names nobody."""
    duty_mails: Mapping[str, str] | None = None
    """By role: the address that is written to then, as duty@example.gov.uk: a shared one, which names nobody."""


LONGEST_TOLD_AS: Final = 40
"""Characters of a counter's name in a text: with them it still fits."""


@dataclass(frozen=True, slots=True)
class CollectionPoint:
    """One counter where kits may be fetched."""

    id: str
    """What channels order by."""
    name: str
    """On the outer label in the person's stead, and on the channel's page."""
    lines: tuple[str, ...]
    postcode: str
    told_as: str
    """How a text names it: an address, nothing that speaks of health (ruling 14)."""
    hours: str = ""
    """When it is open, for the channel's page."""


@dataclass(frozen=True, slots=True)
class CollectionPolicy:
    """Where kits may be fetched, and how long they wait."""

    points: tuple[CollectionPoint, ...] = ()
    hold_days: int = 42
    """Six weeks, the day of arrival not counted; then it goes back (clinical.md 2, R29)."""
    remind_after_days: tuple[int, ...] = (7, 28)
    """Days after arrival on which the code is sent once more."""
    arrives_within_days: int = 10
    """From dispatch; then somebody asks where it is."""
    back_within_days: int = 21
    """From the end of its wait; then somebody asks where it is."""

    @property
    def longest_days(self) -> int:
        """From dispatch until a kit is fetched, at the longest: on its way, then at the counter. 0 without any."""
        return self.arrives_within_days + self.hold_days if self.points else 0

    def point(self, point_id: str) -> CollectionPoint | None:
        """One counter by its id, or None."""
        return next((each for each in self.points if each.id == point_id), None)


@dataclass(frozen=True, slots=True)
class ReferralClinic:
    """One clinic that cases are handed over to."""

    id: str
    name: str
    lines: tuple[str, ...] = ()
    """Its address, the postcode last: on letters."""


@dataclass(frozen=True, slots=True)
class LabContract:
    """One laboratory's contract with one service (ruling 16)."""

    lab: str
    carries_tube: bool
    """False only by a signed setting: then kit id, date of birth and requested site must do (ruling 9)."""
    tubeless_signed_by: str = ""
    tests: frozenset[Test] = frozenset()
    name: str = ""
    """Printed on the return label and the request form, above its address."""
    address: tuple[str, ...] = ()
    results_within_days: int = 5
    """From receipt to the last final result; after it the kit stands on the lab desk's list (FEATURES 34)."""
    booked_in_within_days: int = 5
    """From posting back to the laboratory's first word of it."""
    acknowledged_within_days: int = 1
    """From a request to the laboratory's acknowledgement of it, where the contract has one."""
    requests: RequestForm = RequestForm.NONE
    """How the lab is told of dispatched kits; `none`: it keys them from the form in the box."""
    requests_by: RequestWay = RequestWay.STORE
    answers_requests: bool = False
    """Whether the lab acknowledges each request; if not, its first result is the only word of it."""


@dataclass(frozen=True, slots=True)
class Service:
    """All that one council chose."""

    id: str
    name: str
    text_name: str
    """How texts sign off: neutral, no clinic, no health word."""
    phone: str
    phone_hours: str
    web: str
    orders: OrderPolicy
    packing: PackPolicy
    returns: ReturnPolicy
    release: ReleasePolicy
    texts: TextPolicy
    clinic: ClinicPolicy
    labs: tuple[LabContract, ...]
    """The first lab takes new kits."""
    recipes: tuple[Recipe, ...] = ()
    """What kits are made of, by laboratory and sample."""
    stock: StockPolicy = field(default_factory=StockPolicy)
    post: PostPolicy = field(default_factory=PostPolicy)
    collection: CollectionPolicy = field(default_factory=CollectionPolicy)
    clinics: tuple[ReferralClinic, ...] = ()
    channels: tuple[str, ...] = ("web",)
    """Ordering channels that hold an API key for this service."""

    def clinic_named(self, clinic_id: str) -> ReferralClinic | None:
        """A clinic that cases are handed over to, or None."""
        return next((each for each in self.clinics if each.id == clinic_id), None)

    def contract(self, lab: str) -> LabContract | None:
        """The contract with a lab, or None: then none of its results is ours."""
        return next((c for c in self.labs if c.lab == lab), None)


@dataclass(frozen=True, slots=True)
class ServiceInForce:
    """A council's choices and the id of the stored version that a decision cites."""

    service: Service
    version_id: int


Services = Mapping[str, ServiceInForce]
"""Every service of this installation, by id."""
