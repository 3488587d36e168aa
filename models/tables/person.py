"""The only tables that say who somebody is. Every such column is encrypted by the application.

Equality is by keyed blind index (HMAC, per service, with a key version: two are live during a
rotation). Nothing here is ever joined by name.
"""

from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from models.tables.columns import identity, link, recorded, reference, words


class Person(SQLModel, table=True):
    """One resident of one service. Encrypted under (table, column, ref)."""

    __tablename__ = "person"
    __table_args__ = (sa.UniqueConstraint("id", "service_id"),)

    id: int | None = identity()
    service_id: str = Field(max_length=40)
    ref: str = reference()
    given_name: bytes
    family_name: bytes
    date_of_birth: bytes
    residence: bytes
    created_at: datetime = recorded()


class PersonIndex(SQLModel, table=True):
    """Blind indexes by which a person may be found again: mobile, e-mail, folded address, name with date of birth."""

    __tablename__ = "person_index"
    __table_args__ = (
        sa.ForeignKeyConstraint(["person_id", "service_id"], ["person.id", "person.service_id"]),
        sa.UniqueConstraint("person_id", "domain", "key_version", "digest"),
        sa.Index("ix_person_index_lookup", "service_id", "domain", "key_version", "digest"),
    )

    id: int | None = identity()
    person_id: int = Field(sa_type=sa.BigInteger)
    service_id: str = Field(max_length=40)
    domain: str = Field(max_length=20)
    key_version: int
    digest: bytes


class MobileHolder(SQLModel, table=True):
    """Whose a mobile is, per service: one mobile, one person (H5; FEATURES 6)."""

    __tablename__ = "mobile_holder"
    __table_args__ = (
        sa.UniqueConstraint("service_id", "key_version", "digest"),
        sa.ForeignKeyConstraint(["person_id", "service_id"], ["person.id", "person.service_id"]),
    )

    id: int | None = identity()
    service_id: str = Field(max_length=40)
    key_version: int
    digest: bytes
    person_id: int = Field(sa_type=sa.BigInteger, index=True)
    frozen_at: datetime | None = None
    """Set by a WRONG reply or a bounce: no content goes to this number until it is proved again."""


class Contact(SQLModel, table=True):
    """How one order's person may be reached, as they said in that order. Encrypted under (table, column, ref)."""

    __tablename__ = "contact"
    __table_args__ = (sa.ForeignKeyConstraint(["person_id", "service_id"], ["person.id", "person.service_id"]),)

    id: int | None = identity()
    service_id: str = Field(max_length=40)
    person_id: int = Field(sa_type=sa.BigInteger, index=True)
    ref: str = reference()
    mobile: bytes
    mobile_proved_at: datetime
    mobile_proved_how: str = Field(max_length=40)
    delivery_address: bytes
    collection_point: str = Field(default="", max_length=40, sa_column_kwargs={"server_default": ""})
    """Whose address that is, where the kit waits at a counter; '' where it goes to the person."""
    text_consent: bool
    voicemail_consent: bool
    letter_consent: bool
    safe_times: str = Field(default="", max_length=80)
    language: str = Field(max_length=2)
    wording: str = Field(max_length=10)
    large_print: bool = Field(default=False, sa_column_kwargs={"server_default": sa.false()})
    """The leaflet in the box, in large print."""
    created_at: datetime = recorded()


class ChoiceOfTexts(StrEnum):
    """What a person last said about texts as such."""

    OPT_OUT = "opt_out"
    OPT_IN = "opt_in"


class ChoiceSource(StrEnum):
    """How a choice came to be known."""

    REPLY = "reply"
    PROVIDER = "provider"
    """The provider refused a text because the person had sent STOP."""


class TextChoice(SQLModel, table=True):
    """One person's STOP or START. Insert only; the newest counts, and outweighs what any order agreed to (H24)."""

    __tablename__ = "text_choice"
    __table_args__ = (
        sa.ForeignKeyConstraint(["person_id", "service_id"], ["person.id", "person.service_id"]),
        sa.Index("ix_text_choice_person_id", "person_id", "id"),
    )

    id: int | None = identity()
    service_id: str = Field(max_length=40)
    person_id: int = Field(sa_type=sa.BigInteger)
    choice: ChoiceOfTexts = words(ChoiceOfTexts, "choice")
    source: ChoiceSource = words(ChoiceSource, "source")
    occurred_at: datetime
    recorded_at: datetime = recorded()


class VerificationState(StrEnum):
    """Where the proof of one number is. A code that may have arrived counts as sent."""

    SENDING = "sending"
    SENT = "sent"
    NOT_SENT = "not_sent"
    CONFIRMED = "confirmed"


class MobileVerification(SQLModel, table=True):
    """One code texted to one number, to prove that whoever orders holds it. The code itself is never stored."""

    __tablename__ = "mobile_verification"
    __table_args__ = (
        sa.CheckConstraint("(state = 'confirmed') = (confirmed_at IS NOT NULL)", name="confirmed_at_a_time"),
        sa.Index("ix_mobile_verification_number", "service_id", "digest", "asked_at"),
        sa.Index("ix_mobile_verification_channel", "service_id", "channel", "asked_at"),
    )

    id: int | None = identity()
    ref: str = reference()
    """Ours; rides in the callback's address, and an order names it."""
    service_id: str = Field(max_length=40)
    channel: str = Field(max_length=40)
    key_version: int
    digest: bytes
    """The number's blind index."""
    code_hmac: bytes
    """Keyed, over the code and the reference."""
    state: VerificationState = words(VerificationState, "state", default=VerificationState.SENDING)
    tries: int = 0
    """How often a code was offered for it."""
    provider: str = Field(max_length=20)
    provider_id: str = Field(default="", max_length=60, index=True)
    asked_at: datetime
    expires_at: datetime
    confirmed_at: datetime | None = None
    recorded_at: datetime = recorded()


class PersonSeal(SQLModel, table=True):
    """A seal put on a person's record or taken away. Insert only; the newest counts (H26)."""

    __tablename__ = "person_seal"

    id: int | None = identity()
    person_id: int = link("person.id")
    sealed: bool
    actor: str = Field(max_length=80)
    occurred_at: datetime
    recorded_at: datetime = recorded()


class SealBreak(SQLModel, table=True):
    """One member of staff who opened a sealed record, for a shift. Why is in the audit. Insert only."""

    __tablename__ = "seal_break"

    id: int | None = identity()
    person_id: int = link("person.id")
    actor: str = Field(max_length=80)
    occurred_at: datetime
    recorded_at: datetime = recorded()


class SafeguardingNote(SQLModel, table=True):
    """Answers and notes that only safeguarding roles may read; the rest of a case shows that one exists."""

    __tablename__ = "safeguarding_note"

    id: int | None = identity()
    service_id: str = Field(max_length=40)
    person_id: int = link("person.id")
    order_id: int | None = Field(default=None, sa_type=sa.BigInteger, index=True)
    ref: str = reference()
    flags: int
    """How many answers raised a flag; which ones is in the encrypted note."""
    note: bytes
    created_at: datetime = recorded()
