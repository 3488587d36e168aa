"""Lab files, result series and their versions, repeats, and everything that was kept for a person.

The keys that stop doubles (file, message, series) are small tables that are never partitioned;
the versions behind them are insert-only and ready to be (ruling 4).
"""

from datetime import datetime
from enum import StrEnum
from typing import Final

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from models.rules.lab import Unread
from models.rules.vocabulary import Outcome, Quarantine, ReportStatus, Site, Test
from models.tables.columns import identity, link, recorded, reference, words

LONGEST_KEY: Final = 1024
"""Bytes that S3 allows for a key, and for the id of a version: what a laboratory may call its file."""


class FileState(StrEnum):
    """How far a lab file got. Every file ends as DONE, HELD or DUPLICATE."""

    ARRIVED = "arrived"
    READING = "reading"
    DONE = "done"
    HELD = "held"
    DUPLICATE = "duplicate"


class LabFile(SQLModel, table=True):
    """One file as a lab sent it. The bytes are in the store; this is their hash, place and verdict."""

    __tablename__ = "lab_file"
    __table_args__ = (
        sa.UniqueConstraint("lab", "object_key", "object_version"),
        sa.Index(
            "ix_lab_file_first_of_its_bytes",
            "lab",
            "content_sha256",
            unique=True,
            # Of a held file nothing was used: the same bytes may come again and be read.
            postgresql_where=sa.text("state NOT IN ('duplicate', 'held') AND content_sha256 <> ''"),
        ),
        sa.Index("ix_lab_file_open", "id", postgresql_where=sa.text("state IN ('arrived', 'reading')")),
    )

    id: int | None = identity()
    ref: str = reference()
    lab: str = Field(max_length=40)
    object_key: str = Field(max_length=LONGEST_KEY)
    object_version: str = Field(default="", max_length=LONGEST_KEY)
    content_sha256: str = Field(default="", max_length=64)
    control_id: str = Field(default="", max_length=80)
    size_bytes: int = Field(sa_type=sa.BigInteger)
    state: FileState = words(FileState, "state", default=FileState.ARRIVED)
    held_because: Quarantine | None = words(Quarantine, "held_because", nullable=True)
    detail: str = Field(default="", max_length=400)
    complete: bool = False
    """Whether the lab's own trailer or control file proved that nothing is missing."""
    messages_read: int = 0
    """The resumable position: messages whose rows are committed."""
    rows_read: int = 0
    rows_detail: int = 0
    rows_replayed: int = 0
    """Rows of messages that were already known, and of known files."""
    rows_quarantined: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """Results that could not be used when the file was read; those that wait still are counted elsewhere."""
    go_ahead_by: str = Field(default="", max_length=80, sa_column_kwargs={"server_default": ""})
    """Who looked at a file held for too many quarantined results and let these very bytes be read all the same."""
    duplicate_of_id: int | None = Field(default=None, sa_type=sa.BigInteger)
    lab_map_version_id: int | None = link("lab_map_version.id", nullable=True, index=False)
    claimed_until: datetime | None = None
    """Machine time: a reading file whose claim ran out is taken up again where it stood."""
    moved: bool = False
    """Whether the object stands in processed/ or quarantine/."""
    arrived_at: datetime
    finished_at: datetime | None = None
    recorded_at: datetime = recorded()


class UnreadObject(SQLModel, table=True):
    """An object that has lain in the store for more than a day and is no file of ours: nobody reads it as it stands.

    A picture of the store, drawn anew by every run of ingest. A row stays when its object is gone.
    """

    __tablename__ = "unread_object"
    __table_args__ = (sa.UniqueConstraint("object_key"),)

    id: int | None = identity()
    ref: str = reference()
    lab: str = Field(default="", max_length=40)
    """Whose it is by its folder, however that is spelt; '' where that tells nothing."""
    object_key: str = Field(max_length=LONGEST_KEY)
    why: Unread = words(Unread, "why")
    lies_since: datetime
    """By the store's clock."""
    gone_at: datetime | None = None
    """Machine time: it was read, moved or deleted."""
    recorded_at: datetime = recorded()


class LabMessageKey(SQLModel, table=True):
    """Messages already taken: the same one again has no effect (H9)."""

    __tablename__ = "lab_message_key"
    __table_args__ = (sa.PrimaryKeyConstraint("lab", "content_sha256", "message_id"),)

    lab: str = Field(max_length=40)
    content_sha256: bytes
    message_id: str = Field(max_length=80)
    file_id: int = Field(sa_type=sa.BigInteger)


class ResultSeries(SQLModel, table=True):
    """One result as a lab knows it, and which of its versions is current (ruling 1)."""

    __tablename__ = "result_series"
    __table_args__ = (
        sa.UniqueConstraint("lab", "accession", "test", "site", "sub_id"),
        sa.ForeignKeyConstraint(["kit_id", "service_id"], ["kit.id", "kit.service_id"]),
        sa.Index("ix_result_series_kit", "kit_id"),
    )

    id: int | None = identity()
    service_id: str = Field(max_length=40)
    lab: str = Field(max_length=40)
    accession: str = Field(max_length=80)
    test: Test = words(Test, "test")
    site: Site = words(Site, "site")
    sub_id: str = Field(max_length=40)
    kit_id: int = Field(sa_type=sa.BigInteger)
    tube_code: str = Field(default="", max_length=11)
    current_version_id: int = Field(sa_type=sa.BigInteger)
    outcome: Outcome = words(Outcome, "outcome")
    status: ReportStatus = words(ReportStatus, "status")
    lab_time: datetime | None = None
    collected_at: datetime | None = None
    note_review: bool = False
    corrected: bool = False
    """Whether the current version changed what an earlier final one said."""


class Effect(StrEnum):
    """What a version did to its series when it came."""

    FIRST = "first"
    PROGRESS = "progress"
    CORRECTION = "correction"
    OUT_OF_ORDER = "out_of_order"
    FROZEN = "frozen"


class ResultVersion(SQLModel, table=True):
    """One version of one result, exactly as it was understood. Insert only."""

    __tablename__ = "result_version"
    __table_args__ = (
        # The rows of a file stand together: ranges of pages are enough to find them.
        sa.Index(
            "ix_result_version_file_id",
            "file_id",
            postgresql_using="brin",
            postgresql_with={"autosummarize": "on"},
        ),
    )

    id: int | None = identity()
    series_id: int = Field(sa_type=sa.BigInteger)
    kit_id: int = Field(sa_type=sa.BigInteger, index=True)
    service_id: str = Field(max_length=40)
    test: Test = words(Test, "test")
    site: Site = words(Site, "site")
    file_id: int = Field(sa_type=sa.BigInteger)
    position: int
    outcome: Outcome = words(Outcome, "outcome")
    status: ReportStatus = words(ReportStatus, "status")
    effect: Effect = words(Effect, "effect")
    previous_id: int | None = Field(default=None, sa_type=sa.BigInteger)
    note_review: bool
    comment: bytes | None = None
    """The lab's comment where a person must read it; encrypted under (table, column, the file's ref:position:row)."""
    row_key: str = Field(default="", max_length=120)
    lab_time: datetime | None = None
    collected_at: datetime | None = None
    received_at: datetime | None = None
    authorised_at: datetime | None = None
    lab_map_version_id: int | None = Field(default=None, sa_type=sa.BigInteger)
    recorded_at: datetime = recorded()


class ResultRepeat(SQLModel, table=True):
    """A row that said again what is already stored: linked, without effect. Insert only."""

    __tablename__ = "result_repeat"

    id: int | None = identity()
    version_id: int = Field(sa_type=sa.BigInteger, index=True)
    file_id: int = Field(sa_type=sa.BigInteger, index=True)
    position: int
    row_key: str = Field(max_length=120)
    recorded_at: datetime = recorded()


class QuarantinedRow(SQLModel, table=True):
    """A row that was not used, why, and what became of it. Never deleted, never read as a result."""

    __tablename__ = "quarantined_row"
    __table_args__ = (
        # A row that names two kits waits once for each; one that was read again in vain waits anew.
        sa.Index(
            "ix_quarantined_row_waits_once",
            "file_id",
            "position",
            "row_key",
            "kit_id",
            unique=True,
            postgresql_nulls_not_distinct=True,
            postgresql_where=sa.text("resolved_at IS NULL"),
        ),
        sa.CheckConstraint("(resolved_at IS NULL) = (resolution = '')", name="resolved_with_a_word"),
        sa.CheckConstraint("(sent_back_at IS NULL) = (sent_back_by = '')", name="sent_back_by_somebody"),
        sa.Index("ix_quarantined_row_open", "lab", "reason", postgresql_where=sa.text("resolved_at IS NULL")),
        sa.Index("ix_quarantined_row_kit", "kit_id", postgresql_where=sa.text("kit_id IS NOT NULL")),
    )

    id: int | None = identity()
    ref: str = reference()
    file_id: int = link("lab_file.id")
    lab: str = Field(max_length=40)
    position: int
    row_key: str = Field(default="", max_length=120)
    """Which part of a row that holds several results."""
    message_id: str = Field(default="", max_length=80, sa_column_kwargs={"server_default": ""})
    """The lab's own name for the message, for the receipt."""
    reason: Quarantine = words(Quarantine, "reason")
    detail: str = Field(max_length=400)
    accession: str = Field(default="", max_length=80)
    kit_id: int | None = link("kit.id", nullable=True, index=False)
    service_id: str = Field(default="", max_length=40)
    test: Test | None = words(Test, "test", nullable=True)
    site: Site | None = words(Site, "site", nullable=True)
    may_be_non_negative: bool
    raw: bytes
    """The row as it was read, encrypted under (table, column, ref); shown one at a time and audited."""
    owner_role: str = Field(max_length=40)
    due_at: datetime
    resolved_at: datetime | None = None
    resolution: str = Field(default="", max_length=60)
    sent_back_at: datetime | None = None
    """When it was put on the list that the laboratory is sent; it waits here until the laboratory has mended it."""
    sent_back_by: str = Field(default="", max_length=80, sa_column_kwargs={"server_default": ""})
    recorded_at: datetime = recorded()


class RowAttachment(SQLModel, table=True):
    """Somebody's wish to take a set-aside row as a certain kit's, and what a second person said to it (law 1)."""

    __tablename__ = "row_attachment"
    __table_args__ = (
        sa.CheckConstraint("(settled_at IS NULL) = (settled_by = '')", name="settled_by_somebody"),
        sa.CheckConstraint("NOT approved OR settled_by NOT IN ('', proposed_by)", name="approved_by_another"),
        sa.Index("ix_row_attachment_open", "row_id", unique=True, postgresql_where=sa.text("settled_at IS NULL")),
    )

    id: int | None = identity()
    row_id: int = link("quarantined_row.id")
    kit_id: int = link("kit.id", index=False)
    tube_code: str = Field(default="", max_length=11)
    proposed_by: str = Field(max_length=80)
    proposed_at: datetime
    approved: bool = False
    settled_by: str = Field(default="", max_length=80)
    settled_at: datetime | None = None
    recorded_at: datetime = recorded()


class CommentReview(SQLModel, table=True):
    """A named person read the comment of one version and found that it changes nothing (ruling 8). Insert only."""

    __tablename__ = "comment_review"
    __table_args__ = (sa.PrimaryKeyConstraint("kit_id", "version_id"),)

    kit_id: int = Field(sa_type=sa.BigInteger, foreign_key="kit.id")
    version_id: int = Field(sa_type=sa.BigInteger)
    actor: str = Field(max_length=80)
    reviewed_at: datetime
    recorded_at: datetime = recorded()
