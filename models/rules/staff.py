"""Who among the staff may do what: one table, one question (ruling 18).

Least privilege: a right that no row grants does not exist, and no right reaches beyond the
services that a person's sign-in names (ruling 16). Sources: FEATURES 62-67, 83; H4, H19.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from models.rules.clinic import CaseKind
from models.rules.errors import Code, ServiceError


class Role(StrEnum):
    """What somebody is employed to do. Comes with their sign-in, never from us."""

    HEALTH_ADVISER = "health_adviser"
    SENIOR_HEALTH_ADVISER = "senior_health_adviser"
    CLINICIAN = "clinician"
    LAB_LIAISON = "lab_liaison"
    PACKER = "packer"
    SERVICE_MANAGER = "service_manager"
    SAFEGUARDING_LEAD = "safeguarding_lead"
    AUDITOR = "auditor"
    COUNTER = "counter"
    """Of a pharmacy or a clinic's desk, where kits are fetched."""


class Action(StrEnum):
    """Everything that the staff pages let somebody do."""

    CLINICAL_CASES = "clinical_cases"
    """See and open cases about a resident's results, orders and undelivered texts."""
    SAFEGUARDING_CASES = "safeguarding_cases"
    LAB_CASES = "lab_cases"
    PARCEL_CASES = "parcel_cases"
    OVERSEE_CASES = "oversee_cases"
    """See on the worklist that a case of any kind stands there and when it is due; not open it."""
    WORK_CASES = "work_cases"
    """Claim, hand back, record attempts and close, within the kinds that one may open."""
    READ_RESULTS = "read_results"
    """What was tested, what came back, what was decided and told."""
    READ_LAB_ROWS = "read_lab_rows"
    """A lab's row that was set aside, as it came: one at a time. One that may be bad news takes READ_RESULTS too."""
    LIAISE_WITH_LABS = "liaise_with_labs"
    """See what the laboratories send and owe; have rows read again, send them back, wish to take one as a kit's."""
    ATTACH_ROWS = "attach_rows"
    """Be the second person who takes a row in quarantine as a certain kit's."""
    REVEAL_CONTACT = "reveal_contact"
    """Name, date of birth, mobile and address of one person at a time."""
    RECORD_CONFIRMATION = "record_confirmation"
    """What the sample from the arm said of a reactive screen."""
    SECOND_NO_FURTHER_ACTION = "second_no_further_action"
    """Be the second, senior person (FEATURES 64)."""
    SIGN_CANDOUR = "sign_candour"
    """Be the second person under what somebody was told about a wrong result (H3)."""
    PRESCRIBE = "prescribe"
    """Sign for treatment without a visit (H15)."""
    RELEASE_AFTER_REVIEW = "release_after_review"
    """Read a lab's comment and say that it is harmless (ruling 8)."""
    SETTLE_ORDERS = "settle_orders"
    """Accept or refuse an order that was held for a person."""
    SEAL_RECORDS = "seal_records"
    """Seal a person's record, so that nobody opens it without a reason, and take the seal away (H26)."""
    READ_SAFEGUARDING_NOTES = "read_safeguarding_notes"
    SEE_TIMELINE = "see_timeline"
    """What happened to a kit, without findings."""
    STOP_TEXTS = "stop_texts"
    """Stop a class of the service's texts and start it again, and let a held burst go (H11)."""
    PACK_KITS = "pack_kits"
    """Scan at a bench, set a kit aside, have its paper printed anew, book stock in and out."""
    HAND_OVER_PARCELS = "hand_over_parcels"
    """Book parcels in at a collection point, hand them over for a code, send them back. Parcels' codes alone."""
    SEE_LOGISTICS = "see_logistics"
    """How many kits stand where and for how long, and what stock there is. Counts, and codes of kits."""
    SEE_BOARD = "see_board"
    """How many cases wait in which queue, and how soon people are reached. Counts alone."""
    RECALL_STOCK = "recall_stock"
    """Say that a lot must not be used: opens a case for every kit that holds it."""
    SEE_AUDIT = "see_audit"
    """Who looked at a kit and its cases, and what they did."""


_ADVISER: Final = frozenset(
    {
        Action.CLINICAL_CASES,
        Action.SAFEGUARDING_CASES,
        Action.PARCEL_CASES,
        Action.WORK_CASES,
        Action.READ_RESULTS,
        Action.READ_LAB_ROWS,
        Action.REVEAL_CONTACT,
        Action.RECORD_CONFIRMATION,
        Action.SEE_TIMELINE,
    }
)
_SENIOR: Final = _ADVISER | {
    Action.LAB_CASES,
    Action.LIAISE_WITH_LABS,
    Action.ATTACH_ROWS,
    Action.SECOND_NO_FURTHER_ACTION,
    Action.SIGN_CANDOUR,
    Action.RELEASE_AFTER_REVIEW,
    Action.SETTLE_ORDERS,
    Action.SEAL_RECORDS,
    Action.READ_SAFEGUARDING_NOTES,
    Action.STOP_TEXTS,
    Action.SEE_LOGISTICS,
    Action.SEE_BOARD,
    Action.RECALL_STOCK,
    Action.SEE_AUDIT,
}

GRANTS: Final[Mapping[Role, frozenset[Action]]] = {
    Role.HEALTH_ADVISER: _ADVISER,
    Role.SENIOR_HEALTH_ADVISER: _SENIOR,
    Role.CLINICIAN: _SENIOR | {Action.PRESCRIBE},
    Role.LAB_LIAISON: frozenset(
        {
            Action.LAB_CASES,
            Action.WORK_CASES,
            Action.READ_LAB_ROWS,
            Action.LIAISE_WITH_LABS,
            Action.SEE_TIMELINE,
        }
    ),
    Role.PACKER: frozenset(
        {Action.PARCEL_CASES, Action.WORK_CASES, Action.PACK_KITS, Action.SEE_LOGISTICS, Action.RECALL_STOCK}
    ),
    Role.SERVICE_MANAGER: frozenset(
        {
            Action.OVERSEE_CASES,
            Action.STOP_TEXTS,
            Action.SEE_TIMELINE,
            Action.SEE_LOGISTICS,
            Action.SEE_BOARD,
            Action.RECALL_STOCK,
        }
    ),
    Role.SAFEGUARDING_LEAD: frozenset(
        {
            Action.SAFEGUARDING_CASES,
            Action.WORK_CASES,
            Action.READ_RESULTS,
            Action.REVEAL_CONTACT,
            Action.SETTLE_ORDERS,
            Action.READ_SAFEGUARDING_NOTES,
            Action.SEE_TIMELINE,
        }
    ),
    Role.AUDITOR: frozenset({Action.SEE_TIMELINE, Action.SEE_AUDIT}),
    Role.COUNTER: frozenset({Action.HAND_OVER_PARCELS}),
}
"""The whole of it: `docs/` and the access matrix test are drawn from this table."""

OPENS: Final[Mapping[CaseKind, Action]] = {
    CaseKind.SAFEGUARDING: Action.SAFEGUARDING_CASES,
    CaseKind.CORRECTION: Action.CLINICAL_CASES,
    CaseKind.IDENTITY: Action.CLINICAL_CASES,
    CaseKind.REACTIVE: Action.CLINICAL_CASES,
    CaseKind.POSITIVE: Action.CLINICAL_CASES,
    CaseKind.RESULT_REVIEW: Action.CLINICAL_CASES,
    CaseKind.ORDER_REVIEW: Action.CLINICAL_CASES,
    CaseKind.REPLY: Action.CLINICAL_CASES,
    CaseKind.UNDELIVERED_TEXT: Action.CLINICAL_CASES,
    CaseKind.LAB_ROW: Action.LAB_CASES,
    CaseKind.FAILED_SAMPLE: Action.CLINICAL_CASES,
    CaseKind.RESULTS_OVERDUE: Action.LAB_CASES,
    CaseKind.PARCEL: Action.PARCEL_CASES,
    CaseKind.PARTNER_FOLLOW_UP: Action.CLINICAL_CASES,
}
"""What opening a case of a kind takes."""


def who_may_work(kind: CaseKind) -> tuple[Role, ...]:
    """The roles that may open and work a case of a kind, and so take it over."""
    return tuple(role for role in Role if {OPENS[kind], Action.WORK_CASES} <= GRANTS[role])


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody who signed in: an opaque id, and what their employer says of them. No name."""

    staff_id: str
    roles: frozenset[Role]
    service_ids: frozenset[str]

    @property
    def audit_name(self) -> str:
        """How audit entries and events name this person."""
        return f"staff:{self.staff_id}"


def may(actor: Actor, action: Action, service_id: str) -> bool:
    """Whether this person may do this in this service. Everything not granted is refused."""
    return service_id in actor.service_ids and any(action in GRANTS[role] for role in actor.roles)


def services_where(actor: Actor, action: Action) -> frozenset[str]:
    """The services in which this person may do this."""
    return frozenset(service for service in actor.service_ids if may(actor, action, service))


def check_may(actor: Actor, action: Action, service_id: str) -> None:
    """Raises ServiceError(NOT_ALLOWED) unless this person may do this in this service."""
    if not may(actor, action, service_id):
        raise ServiceError(Code.NOT_ALLOWED, "Your role does not allow this: ask your service manager.")
