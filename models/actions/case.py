"""One clinic case as every act on it needs it: found for its reader, locked, counted and audited.

The floor of `clinic`, `treatment` and `partners`. The kit is locked before the case: the order in which
decisions lock them (ruling 2). A case that its reader may not know of is answered as one that does not exist.
"""

from datetime import datetime

from sqlmodel import Session, col, select

from models.actions import audit
from models.actions.seal import check_unsealed
from models.rules.errors import Code, ServiceError
from models.rules.order import OrderOutcome
from models.rules.staff import OPENS, Action, Actor, check_may
from models.tables.clinic import ClinicCase
from models.tables.kit import Kit
from models.tables.order import Order, OrderDecision
from models.tables.person import Contact


def find_case(session: Session, ref: str, by: Actor) -> ClinicCase:
    """The case behind a reference, for somebody who may open its kind.

    Raises ServiceError(NOT_FOUND) for an unknown one and for another service's, in the same words,
    and ServiceError(NOT_ALLOWED) for a kind that is not theirs.
    """
    case = session.exec(select(ClinicCase).where(col(ClinicCase.ref) == ref)).one_or_none()
    if case is None or case.service_id not in by.service_ids:
        raise ServiceError(Code.NOT_FOUND, "There is no such case: go back to the worklist.")
    check_may(by, OPENS[case.kind], case.service_id)
    return case


def locked(
    session: Session,
    ref: str,
    by: Actor,
    version: int,
    *,
    now: datetime,
    needs: Action = Action.WORK_CASES,
    held_by_anyone: bool = False,
) -> ClinicCase:
    """The case, locked after its kit, open, as the form saw it, unsealed to this person, and in nobody else's hands."""
    case = find_case(session, ref, by)
    order = order_of(session, case)
    check_unsealed(session, order.person_id if order else None, by, now)
    check_may(by, Action.WORK_CASES, case.service_id)
    check_may(by, needs, case.service_id)
    if case.kit_id is not None:
        session.exec(select(Kit.id).where(col(Kit.id) == case.kit_id).with_for_update())
    session.refresh(case, with_for_update=True)
    if case.closed_at is not None:
        raise ServiceError(Code.CONFLICT, "This case is closed already: look at it again.")
    if case.version != version:
        raise ServiceError(Code.CONFLICT, "Somebody else changed this case meanwhile: look at it again.")
    if not held_by_anyone and case.assignee not in ("", by.audit_name):
        raise ServiceError(Code.CONFLICT, "A colleague is working on this case: ask them to hand it back.")
    return case


def changed(session: Session, case: ClinicCase, action: str, by: Actor, now: datetime, **detail: str) -> None:
    """Counts a change of a case, so that older forms are refused, and leaves its audit entry."""
    case.version += 1
    case.touched_at = now
    session.add(case)
    leave_audit(session, case, action, by, now, **detail)
    session.flush()


def leave_audit(session: Session, case: ClinicCase, action: str, by: Actor, now: datetime, **detail: str) -> None:
    """Leaves the audit entry of an act on a case."""
    audit.record(
        session,
        action=action,
        subject="clinic_case",
        subject_id=id_of(case),
        actor=by.audit_name,
        now=now,
        service_id=case.service_id,
        **detail,
    )


def id_of(case: ClinicCase) -> int:
    """The key of a stored case."""
    assert case.id is not None  # a stored row
    return case.id


def order_of(session: Session, case: ClinicCase) -> Order | None:
    """The order behind a case, through its kit where it has one."""
    kit = session.get(Kit, case.kit_id) if case.kit_id is not None else None
    order_id = kit.order_id if kit else case.order_id
    return None if order_id is None else session.get(Order, order_id)


def contact_of(session: Session, case: ClinicCase) -> Contact | None:
    """How the person of this case may be reached; None for a case about a lab's rows alone."""
    order = order_of(session, case)
    return None if order is None else session.get(Contact, order.contact_id)


def order_outcome(session: Session, order: Order) -> OrderOutcome | None:
    """What stands of an order: None while undecided, and for one that its person cancelled."""
    if order.current_decision_id is None or order.cancelled_at is not None:
        return None
    return session.get_one(OrderDecision, order.current_decision_id).outcome
