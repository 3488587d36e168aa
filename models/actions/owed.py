"""What is owed because of a decision: a text, a clinic case. Rows, in the transaction that decides.

These functions are the floor that every stage may import (ruling 11). They work on batches; keys are
derived from what a row tells or is about, so that a rerun finds the row instead of doubling it.
"""

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, select

from models.rules.clinic import OWNER, URGENCY, CaseKind, Urgency, due_at, more_urgent
from models.rules.lab_request import RequestForm, RequestState
from models.rules.secrets import Cipher
from models.rules.service import Service
from models.rules.text import TextPurpose, TextValues, window_of, write_values
from models.rules.vocabulary import Outcome, Site, Test
from models.rules.working_days import next_opening
from models.tables.audit import Audit
from models.tables.bulk import as_array, as_ids, cursor
from models.tables.clinic import CaseItem, ClinicCase
from models.tables.lab_request import LabRequest

DECIDED_AGAIN: Final = "decided_again"
"""Why an unsent result text was stopped: its kit was looked at again."""


@dataclass(frozen=True, slots=True)
class OwedText:
    """One text to owe. `says` is all that it may say, by type; `tells` makes it unique (ruling 3)."""

    order_id: int
    kit_id: int | None
    contact_id: int
    says: TextValues
    tells: str
    """A result text: the digest of the versions it tells. A journey text: its occurrence."""
    decision_id: int | None = None
    not_before: datetime | None = None
    """Service time from which it may leave; None: as soon as its window is open."""


def owe_texts(session: Session, texts: Sequence[OwedText], *, service: Service, now: datetime, cipher: Cipher) -> int:
    """Owes each text once, whatever was owed before, and says how many are new. One statement for the whole batch."""
    once = {(owed.order_id, owed.says.purpose, owed.tells): owed for owed in reversed(texts)}
    if not once:
        return 0
    opens: dict[tuple[datetime, TextPurpose], datetime] = {}
    rows = []
    for owed in once.values():
        ref, purpose, wanted = secrets.token_hex(16), owed.says.purpose, owed.not_before or now
        if (wanted, purpose) not in opens:
            opens[wanted, purpose] = next_opening(wanted, window_of(purpose, service.texts))
        sealed = "\\x" + cipher.encrypt("text", "values", ref, write_values(owed.says)).hex()
        rows.append(
            (
                ref, owed.order_id, owed.kit_id, owed.contact_id, purpose, owed.tells, owed.decision_id, sealed,
                opens[wanted, purpose],
            )
        )  # fmt: skip
    on = cursor(session)
    on.execute(
        """
        INSERT INTO text (ref, order_id, kit_id, contact_id, purpose, tells, decision_id, values, not_before,
                          service_id, owed_at, state, template_version, error_code, attempts, cancelled_because)
        SELECT made.*, %s, %s, 'owed', '', '', 0, ''
        FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::bigint[],
                    %s::bytea[], %s::timestamptz[]) AS made
        ON CONFLICT (order_id, purpose, tells) DO UPDATE
        -- A later decision may tell again what an earlier one stopped before it left: the same row is owed once more.
        SET state = 'owed', cancelled_because = '', settled_at = NULL, decision_id = excluded.decision_id,
            not_before = excluded.not_before, owed_at = excluded.owed_at
        WHERE text.state = 'cancelled' AND text.cancelled_because = %s AND text.attempts = 0
        RETURNING id
        """,
        (service.id, now, *(as_array(column) for column in zip(*rows, strict=True)), DECIDED_AGAIN),
    )
    return len(on.fetchall())


def cancel_texts(
    session: Session,
    kit_ids: Collection[int],
    *,
    because: str,
    now: datetime,
    purposes: Iterable[TextPurpose] = tuple(TextPurpose),
) -> int:
    """Stops unsent texts of these kits, and says how many. A text already handed to the provider is not unsent."""
    if not kit_ids:
        return 0
    on = cursor(session)
    on.execute(
        """
        UPDATE text SET state = 'cancelled', cancelled_because = %s, settled_at = %s
        WHERE kit_id = ANY(%s::bigint[]) AND purpose = ANY(%s)
          -- Said so that it is found by its kit: the index of all that is owed may be far longer.
          AND state || '' = 'owed'
        """,
        (because, now, as_ids(kit_ids), [purpose.value for purpose in purposes]),
    )
    return on.rowcount


def stop_retest_texts(session: Session, person_id: int, *, now: datetime) -> None:
    """Whoever orders again need not be asked to: their unsent texts that ask are stopped."""
    on = cursor(session)
    on.execute(
        """
        UPDATE text SET state = 'cancelled', cancelled_because = 'ordered_again', settled_at = %s
        WHERE order_id IN (SELECT id FROM kit_order WHERE person_id = %s) AND purpose = %s AND state = 'owed'
        """,
        (now, person_id, TextPurpose.RETEST_DUE.value),
    )


def owe_lab_request(session: Session, *, kit_id: int, service: Service, lab: str, now: datetime) -> None:
    """Owes a kit's lab one word of it, once, where the contract asks for that."""
    contract = service.contract(lab)
    if contract is None or contract.requests is RequestForm.NONE:
        return
    session.execute(
        insert(LabRequest)
        .values(
            ref=secrets.token_hex(16),
            service_id=service.id,
            kit_id=kit_id,
            lab=lab,
            state=RequestState.OWED,
            wants_answer=contract.answers_requests,
            batch="",
            error_code="",
            owed_at=now,
        )
        .on_conflict_do_nothing(index_elements=["kit_id"])
    )


@dataclass(frozen=True, slots=True)
class CaseItemDue:
    """One result that is not negative, to be joined to its kit's case."""

    version_id: int
    test: Test
    site: Site
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class OwedCase:
    """One case to open, or to find open again. `key` says what it is about."""

    key: str
    kind: CaseKind
    order_id: int | None = None
    kit_id: int | None = None
    lab: str = ""
    decision_id: int | None = None
    items: tuple[CaseItemDue, ...] = ()
    detail: Mapping[str, object] = field(default_factory=dict)
    owner_role: str = ""
    """Empty: the kind's own queue."""
    urgent: bool = False
    """Cannot wait as long as its kind usually may: due with the most urgent kind."""
    due_at: datetime | None = None
    """When it is due; None: as its kind says."""
    reopen: bool = True
    """Whether news about a closed case opens it again."""

    def urgency(self, kind: CaseKind) -> Urgency:
        """How soon, as a case of a kind that this made or joined."""
        return Urgency.URGENT if self.urgent else URGENCY[kind]

    def due(self, now: datetime, service: Service) -> datetime:
        """When somebody must have taken it up that came in now."""
        return due_at(CaseKind.SAFEGUARDING if self.urgent else self.kind, now, service.clinic)


def result_case_key(kit_id: int) -> str:
    """The key of a kit's one results case (ruling 6)."""
    return f"kit:{kit_id}:results"


def owe_cases(
    session: Session, cases: Sequence[OwedCase], *, service: Service, now: datetime, actor: str
) -> dict[str, int]:
    """Opens each case once and returns the id of each by key.

    A case that exists takes the more urgent kind and the earlier due time; news reopens a closed one.
    Every opening and reopening leaves an audit entry. No case is ever without an owner and a due time.
    """
    if not cases:
        return {}
    known = {
        case.key: case
        for case in session.exec(
            select(ClinicCase)
            .where(sa.column("key").in_([case.key for case in cases]))
            .order_by(sa.column("id"))
            .with_for_update()
            .execution_options(populate_existing=True)
        )
    }
    ids: dict[str, int] = {}
    for owed in cases:
        found = known.get(owed.key)
        if found is None:
            found = known[owed.key] = _open(owed, service=service, now=now)
            session.add(found)
            session.flush()
            _audit(session, found, "case.opened", actor, now)
        else:
            _add_to(session, found, owed, service=service, now=now, actor=actor)
        assert found.id is not None  # flushed above
        ids[owed.key] = found.id
    items = [
        {
            "case_id": ids[owed.key],
            "version_id": item.version_id,
            "test": item.test,
            "site": item.site,
            "outcome": item.outcome,
            "added_at": now,
        }
        for owed in cases
        for item in owed.items
    ]
    if items:
        session.execute(insert(CaseItem).on_conflict_do_nothing(index_elements=["case_id", "version_id"]), items)
    return ids


def _open(owed: OwedCase, *, service: Service, now: datetime) -> ClinicCase:
    return ClinicCase(
        ref=secrets.token_hex(16),
        key=owed.key,
        service_id=service.id,
        kind=owed.kind,
        urgency=owed.urgency(owed.kind),
        order_id=owed.order_id,
        kit_id=owed.kit_id,
        lab=owed.lab,
        decision_id=owed.decision_id,
        detail=dict(owed.detail),
        owner_role=owed.owner_role or OWNER[owed.kind],
        due_at=owed.due_at or owed.due(now, service),
        opened_at=now,
    )


def _add_to(session: Session, case: ClinicCase, owed: OwedCase, *, service: Service, now: datetime, actor: str) -> None:
    was_closed = case.closed_at is not None
    if was_closed and not owed.reopen:
        return
    kind = owed.kind if was_closed else more_urgent(case.kind, owed.kind)
    due = owed.due(now, service)
    changed = was_closed or kind is not case.kind or case.decision_id != owed.decision_id
    if not changed:
        return
    case.due_at = due if was_closed else min(case.due_at, due)
    if was_closed or kind is not case.kind:
        case.kind, case.urgency, case.owner_role = kind, owed.urgency(kind), owed.owner_role or OWNER[kind]
        case.escalation = 0
    case.decision_id = owed.decision_id or case.decision_id
    case.detail = {**case.detail, **owed.detail}
    case.closed_at, case.closed_by, case.outcome = None, "", None
    case.version += 1
    session.add(case)
    _audit(session, case, "case.reopened" if was_closed else "case.added_to", actor, now)


def _audit(session: Session, case: ClinicCase, action: str, actor: str, now: datetime) -> None:
    assert case.id is not None  # flushed by the caller
    session.add(
        Audit(
            service_id=case.service_id,
            actor=actor,
            action=action,
            subject="clinic_case",
            subject_id=case.id,
            detail={"kind": case.kind.value, "due_at": case.due_at.isoformat()},
            occurred_at=now,
        )
    )
