"""Kits, their tubes, what each must answer, the batches they were printed in, and what happened to them."""

from datetime import date, datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from models.rules.kit import KitState
from models.rules.vocabulary import Site, Specimen, Test
from models.tables.columns import document, identity, link, recorded, reference, words


class BatchState(StrEnum):
    """A print batch is released only after every barcode in it was decoded and agreed (FEATURES 17)."""

    DRAWING = "drawing"
    RELEASED = "released"
    HELD = "held"
    VOIDED = "voided"
    """Its paper is void: a person sent its kits back to be packed again."""


class PrintBatch(SQLModel, table=True):
    """One print batch of kit packs and where its PDF and manifest are."""

    __tablename__ = "print_batch"

    id: int | None = identity()
    ref: str = reference()
    service_id: str = Field(max_length=40)
    state: BatchState = words(BatchState, "state", default=BatchState.DRAWING)
    kits: int
    pdf_key: str = Field(default="", max_length=200)
    pdf_sha256: str = Field(default="", max_length=64)
    manifest_key: str = Field(default="", max_length=200)
    held_because: str = Field(default="", max_length=400)
    claimed_until: datetime
    """Machine time: a batch still drawing after this is drawn again."""
    created_at: datetime
    released_at: datetime | None = None
    recorded_at: datetime = recorded()


class Kit(SQLModel, table=True):
    """One kit for one person, from acceptance to the last word about it."""

    __tablename__ = "kit"
    __table_args__ = (
        sa.UniqueConstraint("id", "service_id"),
        sa.ForeignKeyConstraint(["order_id", "service_id"], ["kit_order.id", "kit_order.service_id"]),
        sa.ForeignKeyConstraint(["person_id", "service_id"], ["person.id", "person.service_id"]),
        sa.CheckConstraint(
            "state IN ('to_pack', 'printed', 'quarantined', 'cancelled') OR dispatched_at IS NOT NULL",
            name="dispatched_before_return",
        ),
        sa.CheckConstraint("state <> 'printed' OR batch_id IS NOT NULL", name="printed_in_a_batch"),
        sa.CheckConstraint("(closed_reason = '') = (closed_at IS NULL)", name="closed_with_a_reason"),
        sa.CheckConstraint("dispatched_at IS NULL OR due_back_on IS NOT NULL", name="dispatched_with_a_day_to_be_back"),
        sa.CheckConstraint(
            "state NOT IN ('closed', 'cancelled', 'lapsed', 'returned_to_sender', 'replaced') OR closed_at IS NOT NULL",
            name="never_ends_silently",
        ),
        sa.Index("ix_kit_state", "service_id", "state"),
        sa.Index("ix_kit_hold_until", "hold_until", postgresql_where=sa.text("hold_until IS NOT NULL")),
        sa.Index("ix_kit_to_pack", "id", postgresql_where=sa.text("state = 'to_pack'")),
        sa.Index("ix_kit_of_order", "order_id", unique=True, postgresql_where=sa.text("state <> 'replaced'")),
        sa.Index("ix_kit_unreturned", "due_back_on", postgresql_where=sa.text("state = 'dispatched'")),
    )

    id: int | None = identity()
    service_id: str = Field(max_length=40)
    code: str = Field(max_length=10, min_length=10, unique=True)
    order_id: int = Field(sa_type=sa.BigInteger)
    """An order has one kit that counts, and may have had others that it replaced."""
    replaces_kit_id: int | None = link("kit.id", nullable=True, index=False)
    """The kit in whose stead this one was sent."""
    person_id: int = Field(sa_type=sa.BigInteger, index=True)
    contact_id: int = link("contact.id", index=False)
    lab: str = Field(max_length=40)
    state: KitState = words(KitState, "state", default=KitState.TO_PACK)
    batch_id: int | None = link("print_batch.id", nullable=True)
    expires_on: date | None = None
    """Printed on the request form; not to be used after this London date."""
    due_back_on: date | None = None
    """Last London date by which to post it back, as the person was told; after it the kit lapses."""
    dispatched_at: datetime | None = None
    reminder_arm: str = Field(default="", max_length=20, sa_column_kwargs={"server_default": ""})
    """Which wording or timing of reminders it got, where the council compares two; '' where it does not."""
    posted_back_at: datetime | None = None
    received_at: datetime | None = None
    reported_at: datetime | None = None
    hold_until: datetime | None = None
    """Service time at which a partial result's wait ends and a person is told."""
    frozen_at: datetime | None = None
    """Set when only a person may decide about this kit: a late correction, a wrong patient (rulings 1, 6)."""
    current_decision_id: int | None = Field(default=None, sa_type=sa.BigInteger)
    """The release decision that stands; a text of an older one is never claimed (ruling 2)."""
    closed_at: datetime | None = None
    closed_reason: str = Field(default="", max_length=60)
    created_at: datetime
    recorded_at: datetime = recorded()


class KitIdentity(SQLModel, table=True):
    """Blind indexes that a lab row must equal: kit with date of birth, kit with folded family name (ruling 15)."""

    __tablename__ = "kit_identity"
    __table_args__ = (sa.PrimaryKeyConstraint("kit_id", "key_version"),)

    kit_id: int = Field(sa_type=sa.BigInteger, foreign_key="kit.id")
    key_version: int
    date_of_birth: bytes
    family_name: bytes


class KitSample(SQLModel, table=True):
    """One tube of a kit."""

    __tablename__ = "kit_sample"
    __table_args__ = (sa.UniqueConstraint("kit_id", "tube_code"),)

    id: int | None = identity()
    kit_id: int = link("kit.id")
    tube_code: str = Field(max_length=11, min_length=11, unique=True)
    specimen: Specimen = words(Specimen, "specimen")


class KitTest(SQLModel, table=True):
    """One requested (test, site) of a kit: the set a release is measured against (ruling 5)."""

    __tablename__ = "kit_test"
    __table_args__ = (sa.PrimaryKeyConstraint("kit_id", "test", "site"),)

    kit_id: int = Field(sa_type=sa.BigInteger, foreign_key="kit.id")
    test: Test = words(Test, "test")
    site: Site = words(Site, "site")
    tube_code: str = Field(max_length=11)


class KitEvent(SQLModel, table=True):
    """What happened to a kit, in the world's time and in ours. Insert only; the timeline is read from here."""

    __tablename__ = "kit_event"
    __table_args__ = (
        sa.Index(
            "ix_kit_event_bench",
            "actor",
            "id",
            postgresql_where=sa.text("kind IN ('pack.opened', 'kit.dispatched')"),
        ),
    )

    id: int | None = identity()
    kit_id: int = Field(sa_type=sa.BigInteger, index=True)
    service_id: str = Field(max_length=40)
    kind: str = Field(max_length=40)
    detail: dict[str, object] = document(dict)
    actor: str = Field(max_length=80)
    occurred_at: datetime
    recorded_at: datetime = recorded()
