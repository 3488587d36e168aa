"""The clinic's cases: what a person must take up, by when, what was tried, and how it ended."""

from datetime import date, datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from models.rules.candour import Harm
from models.rules.clinic import (
    AttemptResult,
    CaseKind,
    CaseOutcome,
    ClinicSays,
    Confirmation,
    NoticeChannel,
    SnoozeReason,
    Urgency,
)
from models.rules.partners import PartnerType
from models.rules.referral import BellState, ReferralFor
from models.rules.treatment import Treatment
from models.rules.vocabulary import Outcome, Site, Test
from models.tables.columns import document, identity, link, recorded, reference, words


class ClinicCase(SQLModel, table=True):
    """One thing that a person must take up. `key` is what it is about, so that a rerun finds it again."""

    __tablename__ = "clinic_case"
    __table_args__ = (
        sa.UniqueConstraint("key"),
        sa.CheckConstraint("kit_id IS NOT NULL OR order_id IS NOT NULL OR lab <> ''", name="about_something"),
        sa.CheckConstraint("(closed_at IS NULL) = (outcome IS NULL)", name="closed_only_with_an_outcome"),
        sa.CheckConstraint("(closed_at IS NULL) = (closed_by = '')", name="closed_by_somebody"),
        sa.CheckConstraint("owner_role <> ''", name="always_owned"),
        sa.ForeignKeyConstraint(["kit_id", "service_id"], ["kit.id", "kit.service_id"]),
        sa.ForeignKeyConstraint(["order_id", "service_id"], ["kit_order.id", "kit_order.service_id"]),
        sa.Index("ix_clinic_case_worklist", "service_id", "due_at", postgresql_where=sa.text("closed_at IS NULL")),
        # Every look at the worklist counts all that is open, by kind and by whether it is due: from here alone.
        sa.Index("ix_clinic_case_open", "service_id", "kind", "due_at", postgresql_where=sa.text("closed_at IS NULL")),
    )

    id: int | None = identity()
    ref: str = reference()
    key: str = Field(max_length=80)
    service_id: str = Field(max_length=40)
    kind: CaseKind = words(CaseKind, "kind")
    urgency: Urgency = words(Urgency, "urgency")
    order_id: int | None = Field(default=None, sa_type=sa.BigInteger, index=True)
    kit_id: int | None = Field(default=None, sa_type=sa.BigInteger, index=True)
    lab: str = Field(default="", max_length=40)
    decision_id: int | None = link("release_decision.id", nullable=True, index=False)
    detail: dict[str, object] = document(dict)
    owner_role: str = Field(max_length=40)
    assignee: str = Field(default="", max_length=80)
    touched_at: datetime | None = None
    """When its holder last did something; without that for too long it goes back to the queue."""
    due_at: datetime
    escalation: int = 0
    """How many steps of the ladder have been told."""
    opened_at: datetime
    closed_at: datetime | None = None
    closed_by: str = Field(default="", max_length=80)
    outcome: CaseOutcome | None = words(CaseOutcome, "outcome", nullable=True)
    version: int = 1
    """Counts changes: a form based on an older one is refused."""
    recorded_at: datetime = recorded()


class CaseItem(SQLModel, table=True):
    """One result that is not negative, in its kit's case. Joined to the result by id both ways (ruling 6)."""

    __tablename__ = "case_item"
    __table_args__ = (sa.UniqueConstraint("case_id", "version_id"),)

    id: int | None = identity()
    case_id: int = link("clinic_case.id")
    version_id: int = Field(sa_type=sa.BigInteger, index=True)
    test: Test = words(Test, "test")
    site: Site = words(Site, "site")
    outcome: Outcome = words(Outcome, "outcome")
    added_at: datetime
    recorded_at: datetime = recorded()


class CaseAttempt(SQLModel, table=True):
    """One try at reaching the person, or a note. Insert only. The note is encrypted under (table, column, ref)."""

    __tablename__ = "case_attempt"

    id: int | None = identity()
    ref: str = reference()
    case_id: int = link("clinic_case.id")
    result: AttemptResult = words(AttemptResult, "result")
    note: bytes | None = None
    identity_checked: list[str] = document(list)
    """What the person said of themselves before anything was told, as words of IdentityCheck."""
    actor: str = Field(max_length=80)
    occurred_at: datetime
    recorded_at: datetime = recorded()


class CaseConfirmation(SQLModel, table=True):
    """What the venous sample said of a reactive screen, or that the person declined one (FEATURES 67). Insert only.

    The latest of a test counts: who declined today may give a sample next month.
    """

    __tablename__ = "case_confirmation"

    id: int | None = identity()
    case_id: int = link("clinic_case.id")
    test: Test = words(Test, "test")
    confirmation: Confirmation = words(Confirmation, "confirmation")
    actor: str = Field(max_length=80)
    occurred_at: datetime
    recorded_at: datetime = recorded()


class CaseProposal(SQLModel, table=True):
    """One person's wish to end a case without further action. Insert only (FEATURES 64).

    It stands while the case's version is still `case_version`: any news or attempt in between makes it void.
    """

    __tablename__ = "case_proposal"
    __table_args__ = (sa.UniqueConstraint("case_id", "case_version"),)

    id: int | None = identity()
    case_id: int = link("clinic_case.id")
    case_version: int
    actor: str = Field(max_length=80)
    occurred_at: datetime
    recorded_at: datetime = recorded()


class CaseSnooze(SQLModel, table=True):
    """One rest that a case was given, with its reason. Insert only."""

    __tablename__ = "case_snooze"

    id: int | None = identity()
    case_id: int = link("clinic_case.id")
    reason: SnoozeReason = words(SnoozeReason, "reason")
    until_at: datetime
    actor: str = Field(max_length=80)
    occurred_at: datetime
    recorded_at: datetime = recorded()


class CaseEnding(SQLModel, table=True):
    """One ending of a case, with where, when and how. Insert only: a case that is opened again ends again."""

    __tablename__ = "case_ending"

    id: int | None = identity()
    ref: str = reference()
    case_id: int = link("clinic_case.id")
    outcome: CaseOutcome = words(CaseOutcome, "outcome")
    place: bytes | None = None
    """The clinic or service. Encrypted under (table, column, ref): somebody may write more than that into it."""
    happened_on: date | None = None
    treatment: Treatment | None = words(Treatment, "treatment", nullable=True)
    actor: str = Field(max_length=80)
    occurred_at: datetime
    recorded_at: datetime = recorded()


class TreatmentRequest(SQLModel, table=True):
    """One wish to treat without a visit, with what the person answered. Insert only (H15)."""

    __tablename__ = "treatment_request"
    __table_args__ = (sa.CheckConstraint("way IN ('by_post', 'at_pharmacy')", name="without_a_visit"),)

    id: int | None = identity()
    case_id: int = link("clinic_case.id")
    way: Treatment = words(Treatment, "way")
    answers: dict[str, bool] = document()
    stands_on: str = Field(max_length=64)
    """The digest of the results that it rests on: with other results it is void."""
    actor: str = Field(max_length=80)
    occurred_at: datetime
    recorded_at: datetime = recorded()


class TreatmentSignature(SQLModel, table=True):
    """A prescriber's signature under one wish to treat without a visit. Insert only."""

    __tablename__ = "treatment_signature"
    __table_args__ = (sa.UniqueConstraint("request_id"),)

    id: int | None = identity()
    request_id: int = link("treatment_request.id", index=False)
    actor: str = Field(max_length=80)
    occurred_at: datetime
    recorded_at: datetime = recorded()


class PartnerCount(SQLModel, table=True):
    """How far one kit's person's partners of one type came, as of one moment. Insert only; no partner is named."""

    __tablename__ = "partner_count"
    __table_args__ = (
        sa.CheckConstraint(
            "elicited >= contactable AND contactable >= notified AND notified >= tested "
            "AND notified >= treated AND tested >= verified AND verified >= 0 AND treated >= 0",
            name="no_more_than_before",
        ),
    )

    id: int | None = identity()
    kit_id: int = link("kit.id")
    partner: PartnerType = words(PartnerType, "partner")
    elicited: int
    contactable: int
    notified: int
    tested: int
    verified: int
    treated: int
    actor: str = Field(max_length=80)
    occurred_at: datetime
    recorded_at: datetime = recorded()


class CaseCandour(SQLModel, table=True):
    """What somebody was told about a result that they had been told wrong. Insert only (H3)."""

    __tablename__ = "case_candour"

    id: int | None = identity()
    ref: str = reference()
    case_id: int = link("clinic_case.id")
    account: bytes
    """What was wrong and what was said. Encrypted under (table, column, ref)."""
    harm: Harm = words(Harm, "harm")
    apologised: bool
    offered_in_writing: bool
    actor: str = Field(max_length=80)
    occurred_at: datetime
    recorded_at: datetime = recorded()


class CandourSignature(SQLModel, table=True):
    """A second person's signature under it. Insert only."""

    __tablename__ = "candour_signature"
    __table_args__ = (sa.UniqueConstraint("candour_id"),)

    id: int | None = identity()
    candour_id: int = link("case_candour.id", index=False)
    actor: str = Field(max_length=80)
    occurred_at: datetime
    recorded_at: datetime = recorded()


class Referral(SQLModel, table=True):
    """One case handed over to a clinic, and whether that clinic knows and has fetched it."""

    __tablename__ = "referral"
    __table_args__ = (
        sa.CheckConstraint("(bell = 'ringing') = (claimed_until IS NOT NULL)", name="ringing_on_a_lease"),
        sa.Index("ix_referral_bell", "id", postgresql_where=sa.text("bell IN ('owed', 'ringing')")),
        sa.Index("ix_referral_waiting", "service_id", "clinic", postgresql_where=sa.text("fetched_at IS NULL")),
    )

    id: int | None = identity()
    ref: str = reference()
    service_id: str = Field(max_length=40)
    case_id: int = link("clinic_case.id")
    clinic: str = Field(max_length=40)
    asked: ReferralFor = words(ReferralFor, "asked")
    message: bytes | None = None
    """What somebody wrote to the clinic. Encrypted under (table, column, ref)."""
    bell: BellState = words(BellState, "bell")
    rings: int = 0
    ring_at: datetime | None = None
    """Machine time of the next ring."""
    claimed_until: datetime | None = None
    """Machine time."""
    error_code: str = Field(default="", max_length=40)
    actor: str = Field(max_length=80)
    made_at: datetime
    fetched_at: datetime | None = None
    """When the clinic first fetched it: that it has it."""
    recorded_at: datetime = recorded()


class ClinicWordRow(SQLModel, table=True):
    """One thing that a clinic said of a referral. Insert only; the same one twice is one row."""

    __tablename__ = "clinic_word"
    __table_args__ = (sa.UniqueConstraint("service_id", "clinic", "key"),)

    id: int | None = identity()
    service_id: str = Field(max_length=40)
    clinic: str = Field(max_length=40)
    key: str = Field(max_length=200)
    """The clinic's own name for what it sent."""
    referral_id: int = link("referral.id")
    says: ClinicSays = words(ClinicSays, "says")
    happened_at: datetime
    of_the_person: bool
    """Whether the date of birth was that of the person referred. If not, it counts for nothing but a doubt."""
    heard_at: datetime
    recorded_at: datetime = recorded()


class NoticeState(StrEnum):
    """Where a text to a duty phone is."""

    OWED = "owed"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    UNSURE = "unsure"


class DutyNotice(SQLModel, table=True):
    """One text or e-mail owed to a role on duty: how many cases were told to it. At most one an hour. No case in it."""

    __tablename__ = "duty_notice"
    __table_args__ = (
        sa.UniqueConstraint("service_id", "role", "hour_at", "channel"),
        sa.Index("ix_duty_notice_open", "id", postgresql_where=sa.text("state IN ('owed', 'sending')")),
    )

    id: int | None = identity()
    ref: str = reference()
    service_id: str = Field(max_length=40)
    role: str = Field(max_length=40)
    channel: NoticeChannel = words(NoticeChannel, "channel")
    hour_at: datetime
    """The full hour (service time) whose steps it tells."""
    cases: int
    state: NoticeState = words(NoticeState, "state", default=NoticeState.OWED)
    claimed_until: datetime | None = None
    """Machine time: a call not answered for by then is unsure."""
    provider_id: str = Field(default="", max_length=60, index=True)
    error_code: str = Field(default="", max_length=20)
    owed_at: datetime
    settled_at: datetime | None = None
    recorded_at: datetime = recorded()


class Escalation(SQLModel, table=True):
    """One step of the ladder taken for one case: who was told, and when. Insert only."""

    __tablename__ = "escalation"
    __table_args__ = (sa.UniqueConstraint("case_id", "step", "due_at"),)

    id: int | None = identity()
    case_id: int = link("clinic_case.id")
    step: int
    role: str = Field(max_length=40)
    due_at: datetime
    told_at: datetime
    recorded_at: datetime = recorded()
