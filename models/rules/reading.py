"""What one row of a lab is read as: a finding, a detail of one, or a quarantine. Plain values, and how numbers link.

Made by models/rules/result.py; matched, compared and stored by models/actions/result.py.
"""

import re
from collections.abc import Iterable
from datetime import date, datetime
from functools import lru_cache
from typing import Final, NamedTuple

from models.rules.vocabulary import Outcome, Quarantine, ReportStatus, Site, Test

HELD: Final = "note_review"
"""Our word for a result whose value is understood and kept, and which a person reads before anybody is told."""


class Finding(NamedTuple):
    """One result that was understood. Not yet matched with a kit of ours.

    `kit_code` has ten characters, `tube_code` eleven, no hyphens. Times are aware UTC; a day without
    a clock time stands for its start in the lab's zone. `lab_time` orders versions (lab-messages.md 5).
    `order_corrected`: the order says corrected but this row says final; compare it with what is stored.
    `note_review`: a comment that is not on the reviewed list holds it for a person (ruling 8).
    """

    position: int
    row_key: str
    message_id: str
    accession: str
    kit_code: str
    tube_code: str | None
    dob: date
    family_name: str | None
    nhs_number: str | None
    test: Test
    site: Site
    sub_id: str
    outcome: Outcome
    status: ReportStatus
    order_corrected: bool
    lab_time: datetime | None
    time_doubtful: bool
    revision: int | None
    collected_at: datetime | None
    received_at: datetime | None
    authorised_at: datetime | None
    note_review: bool
    urgent_note: bool
    comment: str
    parent_ref: str

    @property
    def word(self) -> str:
        """Its outcome, and that a person reads it first: what replay and rehearsal count."""
        return f"{self.outcome.value} ({HELD})" if self.note_review else self.outcome.value


class Quarantined(NamedTuple):
    """One row kept for a person. `detail` tells the lab what to mend and holds nothing personal.

    `may_be_non_negative`: a clinician sees it the same day (lab-messages.md 7).
    """

    position: int
    row_key: str
    message_id: str
    accession: str
    kit_code: str | None
    tube_code: str | None
    test: Test | None
    site: Site | None
    status: ReportStatus | None
    collected_at: datetime | None
    authorised_at: datetime | None
    reason: Quarantine
    detail: str
    may_be_non_negative: bool
    kits_named: tuple[str, ...] = ()
    """Every kit whose code or tube the row names: more than one where it contradicts itself, and each is stopped."""


class Detail(NamedTuple):
    """A row that is no result and is accounted for: an index, a document, a panel's head, an order without rows yet."""

    position: int
    row_key: str


Reading = Finding | Quarantined | Detail


def refused(found: Finding, reason: Quarantine, detail: str) -> Quarantined:
    """A result that was understood and can't be used."""
    return Quarantined(
        found.position,
        found.row_key,
        found.message_id,
        found.accession,
        found.kit_code,
        found.tube_code,
        found.test,
        found.site,
        found.status,
        found.collected_at,
        found.authorised_at,
        reason,
        detail,
        may_be_non_negative=found.outcome is not Outcome.NEGATIVE,
    )


_WORD_BORDERS: Final = re.compile(r"[&^~|\s]+")


@lru_cache(maxsize=64)
def numbers_in(parent_ref: str) -> frozenset[str]:
    """What a result's words about its parent may name. The rows of an order share them."""
    return frozenset(_WORD_BORDERS.split(parent_ref)) - {""}


def names(parent_ref: str, number: str) -> bool:
    """Whether what a result says of its parent (OBR-26 and 29, derivedFrom) names this number."""
    return number in numbers_in(parent_ref)


def follows(found: Finding, number: str, suffixes: Iterable[str]) -> bool:
    """Whether a result follows the report of this number, by its parent's number or an agreed suffix (ruling 7)."""
    if names(found.parent_ref, number):
        return True  # OBR-29 or derivedFrom names the very report that this one follows
    own = found.accession
    return any(suffix and (own == number + suffix or number == own + suffix) for suffix in suffixes)
