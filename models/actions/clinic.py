"""What staff do to clinic cases: take one, try to reach somebody, record what came of it, end it.

Every function asks `may` before it looks, locks the kit and then the case (the order in which
decisions lock them, ruling 2), refuses a form that was drawn from an older version, and leaves an
audit entry. A case that its reader may not know of is answered as one that does not exist.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col, select

from models.actions import audit, event, owed, release
from models.actions.order import Intake, Taken, settle_order
from models.actions.text_moves import undelivered_case_key
from models.rules.clinic import (
    AttemptResult,
    CaseFacts,
    CaseKind,
    CaseOutcome,
    Confirmation,
    check_may_close,
    next_due_at,
    reacting,
)
from models.rules.errors import Code, ServiceError
from models.rules.order import OrderOutcome
from models.rules.release import ReleaseDecision
from models.rules.secrets import Cipher
from models.rules.service import ClinicPolicy, Service, ServiceInForce
from models.rules.staff import OPENS, Action, Actor, check_may
from models.rules.text import TextPurpose
from models.rules.text_delivery import is_result
from models.rules.vocabulary import Outcome, Test
from models.rules.working_days import add_working_hours
from models.tables.clinic import CaseAttempt, CaseConfirmation, CaseItem, CaseProposal, ClinicCase, Escalation
from models.tables.kit import Kit
from models.tables.order import Order, OrderDecision
from models.tables.person import Contact
from models.tables.result import QuarantinedRow, ResultSeries, ResultVersion
from models.tables.text import Text, TextState

LONGEST_NOTE: Final = 2000

_SETTLED_AS: Final = {
    CaseOutcome.ORDER_ACCEPTED: OrderOutcome.ACCEPTED,
    CaseOutcome.ORDER_REFUSED: OrderOutcome.REFUSED,
}


class Ending(StrEnum):
    """What came of the wish to end a case."""

    CLOSED = "closed"
    WAITS_FOR_SECOND = "waits_for_second"


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


def claim(session: Session, ref: str, *, by: Actor, version: int, now: datetime) -> None:
    """Puts a case into this person's hands. Claiming what one holds already changes nothing.

    Raises ServiceError(CONFLICT) when a colleague holds it or changed it.
    """
    case = _locked(session, ref, by, version)
    if case.assignee == by.audit_name:
        return
    case.assignee = by.audit_name
    _changed(session, case, "case.claimed", by, now)


def hand_back(session: Session, ref: str, *, by: Actor, version: int, now: datetime) -> None:
    """Puts a case back for anyone to take: by who holds it, or by a senior person for somebody absent."""
    case = _locked(session, ref, by, version, held_by_anyone=True)
    if case.assignee not in ("", by.audit_name):
        check_may(by, Action.SECOND_NO_FURTHER_ACTION, case.service_id)
    if case.assignee:
        was, case.assignee = case.assignee, ""
        _changed(session, case, "case.handed_back", by, now, was=was)


def record_attempt(  # noqa: PLR0913 - one form, by name
    session: Session,
    ref: str,
    *,
    by: Actor,
    version: int,
    result: AttemptResult,
    note: str,
    now: datetime,
    policy: ClinicPolicy,
    cipher: Cipher,
) -> None:
    """Records one try at reaching the person, or a note, and moves the due time as the ladder says.

    The case falls to whoever tries. Raises ServiceError(NOT_NOW) for a channel that the person has
    refused (FEATURES 65), ServiceError(BAD_INPUT) for a note that is missing or too long.
    """
    case = _locked(session, ref, by, version)
    _check_channel(session, case, result)
    _add_attempt(session, case, by=by, result=result, note=note, now=now, cipher=cipher)
    due = next_due_at(result, now, case.due_at, policy)
    if due != case.due_at:
        case.due_at, case.escalation = due, 0
    case.assignee = by.audit_name
    if result is AttemptResult.SPOKE:
        _stop_expect_call(session, case, now)
    if case.kit_id is not None and result is not AttemptResult.NOTE:
        event.record(
            session,
            kit_id=case.kit_id,
            service_id=case.service_id,
            kind="contact.attempted",
            actor=by.audit_name,
            at=now,
            result=result.value,
        )
    _changed(session, case, "case.attempted", by, now, result=result.value)


def record_confirmation(
    session: Session, ref: str, *, by: Actor, version: int, test: Test, confirmation: Confirmation, now: datetime
) -> None:
    """Records what the sample from the arm said of one reactive screen; a later record of the same test counts.

    Raises ServiceError(BAD_INPUT) for a test that did not react in this case.
    """
    case = _locked(session, ref, by, version, needs=Action.RECORD_CONFIRMATION)
    if test not in reacting(_standing_items(session, case)):
        raise ServiceError(Code.BAD_INPUT, "This test has no reactive result here: choose one of those listed.")
    session.add(
        CaseConfirmation(case_id=_id(case), test=test, confirmation=confirmation, actor=by.audit_name, occurred_at=now)
    )
    _changed(session, case, "case.confirmed", by, now, test=test.value)


def close_case(session: Session, ref: str, *, by: Actor, version: int, outcome: CaseOutcome, now: datetime) -> Ending:
    """Ends a case, if the rules allow it, or records the wish to end it without further action.

    No further action takes two people: the first proposes, and the second, who must be senior, agrees
    while nothing has changed since (FEATURES 64). Raises ServiceError(NOT_NOW) with what is missing.
    """
    no_further_action = outcome is CaseOutcome.NO_FURTHER_ACTION
    case = _locked(session, ref, by, version, held_by_anyone=no_further_action)
    if outcome is CaseOutcome.RELEASED_AFTER_REVIEW:
        raise ServiceError(Code.NOT_NOW, "Read the lab's comment first: the review itself ends this case.")
    check_may_close(case_facts(session, case), outcome, seconded=True)
    _check_order(session, case, outcome)
    if no_further_action and not _seconded(session, case, by):
        case.version += 1
        session.add(CaseProposal(case_id=_id(case), case_version=case.version, actor=by.audit_name, occurred_at=now))
        _audit(session, case, "case.no_further_action_proposed", by, now)
        return Ending.WAITS_FOR_SECOND
    _close(session, case, outcome, by, now)
    return Ending.CLOSED


def release_after_review(
    session: Session, ref: str, *, by: Actor, version: int, now: datetime, service: ServiceInForce, cipher: Cipher
) -> ReleaseDecision:
    """A named person read the lab's comments and found them harmless: decide again, and end the case if it may.

    Where the new decision still needs a person, the case stays open with the new reasons.
    """
    case = _locked(session, ref, by, version, needs=Action.RELEASE_AFTER_REVIEW)
    if case.kit_id is None:
        raise ServiceError(Code.NOT_NOW, "This case is about no kit: there is no comment to read.")
    decision = release.review(
        session,
        kit_id=case.kit_id,
        actor=by.audit_name,
        now=now,
        service=service.service,
        service_version_id=service.version_id,
        cipher=cipher,
    )
    session.refresh(case)
    if not decision.case:
        check_may_close(case_facts(session, case), CaseOutcome.RELEASED_AFTER_REVIEW)
        _close(session, case, CaseOutcome.RELEASED_AFTER_REVIEW, by, now)
    return decision


def settle_held_order(
    session: Session, ref: str, *, by: Actor, version: int, accept: bool, because: str, now: datetime, intake: Intake
) -> Taken:
    """Accepts or refuses the held order behind a case. An order review ends with it; a safeguarding case goes on."""
    case = _locked(session, ref, by, version, needs=Action.SETTLE_ORDERS)
    order = order_of(session, case)
    if order is None:
        raise ServiceError(Code.NOT_NOW, "This case is about no order: there is nothing to settle.")
    taken = settle_order(
        session, order.ref, accept=accept, because=because, now=now, actor=by.audit_name, intake=intake
    )
    if case.kind is CaseKind.ORDER_REVIEW:
        _close(session, case, CaseOutcome.ORDER_ACCEPTED if accept else CaseOutcome.ORDER_REFUSED, by, now)
    else:
        _changed(session, case, "case.order_settled", by, now, outcome=taken.outcome.value)
    return taken


def order_outcome(session: Session, order: Order) -> OrderOutcome | None:
    """What stands of an order: None while undecided, and for one that its person cancelled."""
    if order.current_decision_id is None or order.cancelled_at is not None:
        return None
    return session.get_one(OrderDecision, order.current_decision_id).outcome


def case_facts(session: Session, case: ClinicCase) -> CaseFacts:
    """All that the rule about closing may look at, as it stands now."""
    contact = contact_of(session, case)
    attempts = session.exec(
        select(CaseAttempt.result, sa.func.count())
        .where(col(CaseAttempt.case_id) == case.id)
        .group_by(col(CaseAttempt.result))
    )
    return CaseFacts(
        kind=case.kind,
        items=_standing_items(session, case),
        attempts={AttemptResult(result): count for result, count in attempts},
        confirmed=confirmations(session, case),
        text_consent=contact is not None and contact.text_consent,
        voicemail_consent=contact is not None and contact.voicemail_consent,
        letter_consent=contact is not None and contact.letter_consent,
    )


def confirmations(session: Session, case: ClinicCase) -> dict[Test, Confirmation]:
    """The latest confirmatory outcome of each test of a case."""
    found = session.exec(
        select(CaseConfirmation.test, CaseConfirmation.confirmation)
        .where(col(CaseConfirmation.case_id) == case.id)
        .order_by(col(CaseConfirmation.id))
    )
    return {Test(test): Confirmation(said) for test, said in found}


def standing_proposal(session: Session, case: ClinicCase) -> CaseProposal | None:
    """The wish to end this case without further action, while nothing has changed since it was made."""
    return session.exec(
        select(CaseProposal).where(col(CaseProposal.case_id) == case.id, col(CaseProposal.case_version) == case.version)
    ).one_or_none()


def contact_of(session: Session, case: ClinicCase) -> Contact | None:
    """How the person of this case may be reached; None for a case about a lab's rows alone."""
    order = order_of(session, case)
    return None if order is None else session.get(Contact, order.contact_id)


def order_of(session: Session, case: ClinicCase) -> Order | None:
    """The order behind a case, through its kit where it has one."""
    kit = session.get(Kit, case.kit_id) if case.kit_id is not None else None
    order_id = kit.order_id if kit else case.order_id
    return None if order_id is None else session.get(Order, order_id)


# ── Escalation ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Escalated:
    """One batch: how many cases were looked at, how many steps were told, and where to go on."""

    cases: int
    steps: int
    after: tuple[datetime, int] | None
    """Due time and id of the last case looked at; None when there is none left."""


def escalate_due(
    session: Session,
    *,
    now: datetime,
    service_id: str,
    policy: ClinicPolicy,
    limit: int,
    actor: str,
    after: tuple[datetime, int] | None = None,
) -> Escalated:
    """Tells the next person of the ladder about every overdue case, each step once per due time (FEATURES 62).

    Looks at up to `limit` cases, oldest due first, from `after` on. Cases that somebody works on at
    this very moment are passed over: the next run finds them.
    """
    place = sa.tuple_(col(ClinicCase.due_at), col(ClinicCase.id))
    overdue = (
        select(ClinicCase)
        .where(
            col(ClinicCase.service_id) == service_id,
            col(ClinicCase.closed_at).is_(None),
            col(ClinicCase.due_at) <= now,
            col(ClinicCase.escalation) < len(policy.escalation),
        )
        .order_by(col(ClinicCase.due_at), col(ClinicCase.id))
        .limit(limit)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    if after is not None:
        overdue = overdue.where(place > sa.tuple_(*after))
    cases = session.exec(overdue).all()
    steps = sum(_escalate(session, case, now, policy, actor) for case in cases)
    last = cases[-1] if cases else None
    return Escalated(len(cases), steps, (last.due_at, _id(last)) if last else None)


def _escalate(session: Session, case: ClinicCase, now: datetime, policy: ClinicPolicy, actor: str) -> int:
    told = 0
    for number, step in enumerate(policy.escalation[case.escalation :], start=case.escalation):
        if add_working_hours(case.due_at, step.after_working_hours, policy.opens, policy.closes) > now:
            break
        session.execute(
            insert(Escalation)
            .values(case_id=case.id, step=number, role=step.role, due_at=case.due_at, told_at=now)
            .on_conflict_do_nothing(index_elements=["case_id", "step", "due_at"])
        )
        audit.record(
            session,
            action="case.escalated",
            subject="clinic_case",
            subject_id=_id(case),
            actor=actor,
            now=now,
            service_id=case.service_id,
            step=number,
            role=step.role,
        )
        case.escalation = number + 1
        told += 1
    return told


def open_missing_cases(session: Session, *, service: Service, now: datetime, limit: int, actor: str) -> int:
    """Opens the case of each result text that did not reach its person and has none, and says how many.

    The action that gives a text up opens its case in the same transaction; this finds what a repair, a
    restored backup or a fault of ours left behind (FEATURES 51; H4).
    """
    key = sa.func.concat("text:", col(Text.id), ":undelivered")
    untold = session.exec(
        select(Text)
        .where(
            col(Text.service_id) == service.id,
            col(Text.state).in_([TextState.FAILED, TextState.HANDED_OVER]),
            col(Text.purpose).in_([purpose for purpose in TextPurpose if is_result(purpose)]),
            ~sa.exists().where(col(ClinicCase.key) == key),
        )
        .order_by(col(Text.id))
        .limit(limit)
    ).all()
    cases = [
        owed.OwedCase(
            key=undelivered_case_key(text.id),
            kind=CaseKind.UNDELIVERED_TEXT,
            order_id=text.order_id,
            kit_id=text.kit_id,
            decision_id=text.decision_id,
            detail={"text": text.ref, "why": "found_without_case"},
            reopen=False,
        )
        for text in untold
        if text.id is not None
    ]
    return len(owed.owe_cases(session, cases, service=service, now=now, actor=actor))


def open_and_overdue(session: Session, *, now: datetime) -> tuple[int, int]:
    """How many cases are open in this installation, and how many of them are past their due time."""
    counted = select(sa.func.count(), sa.func.count().filter(col(ClinicCase.due_at) <= now)).where(
        col(ClinicCase.closed_at).is_(None)
    )
    is_open, overdue = session.exec(counted).one()
    return is_open, overdue


# ── Beneath ──────────────────────────────────────────────────────────────────────────────────


def _locked(
    session: Session,
    ref: str,
    by: Actor,
    version: int,
    *,
    needs: Action = Action.WORK_CASES,
    held_by_anyone: bool = False,
) -> ClinicCase:
    """The case, locked after its kit, open, as the form saw it, and in nobody else's hands."""
    case = find_case(session, ref, by)
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


def _check_channel(session: Session, case: ClinicCase, result: AttemptResult) -> None:
    contact = contact_of(session, case)
    refused: Mapping[AttemptResult, tuple[bool, str]] = {
        AttemptResult.TEXT: (contact is None or not contact.text_consent, "texts"),
        AttemptResult.VOICEMAIL: (contact is None or not contact.voicemail_consent, "voicemail"),
        AttemptResult.LETTER: (contact is None or not contact.letter_consent, "letters"),
    }
    is_refused, channel = refused.get(result, (False, ""))
    if is_refused:
        raise ServiceError(Code.NOT_NOW, f"This person has not agreed to {channel}: try another way.")


def _add_attempt(
    session: Session, case: ClinicCase, *, by: Actor, result: AttemptResult, note: str, now: datetime, cipher: Cipher
) -> None:
    note = note.strip()
    if result is AttemptResult.NOTE and not note:
        raise ServiceError(Code.BAD_INPUT, "Write the note, or choose what the attempt came to.")
    if len(note) > LONGEST_NOTE:
        raise ServiceError(Code.BAD_INPUT, f"A note may have up to {LONGEST_NOTE} characters: shorten it.")
    ref = secrets.token_hex(16)
    session.add(
        CaseAttempt(
            ref=ref,
            case_id=_id(case),
            result=result,
            note=cipher.encrypt("case_attempt", "note", ref, note) if note else None,
            actor=by.audit_name,
            occurred_at=now,
        )
    )


def _standing_items(session: Session, case: ClinicCase) -> frozenset[tuple[Test, Outcome]]:
    """Items whose version is current, or newer than the current one because it froze the kit (ruling 1)."""
    found = session.exec(
        select(CaseItem.test, CaseItem.outcome)
        .join(ResultVersion, col(ResultVersion.id) == col(CaseItem.version_id))
        .join(ResultSeries, col(ResultSeries.id) == col(ResultVersion.series_id))
        .where(col(CaseItem.case_id) == case.id, col(CaseItem.version_id) >= col(ResultSeries.current_version_id))
    )
    return frozenset((Test(test), Outcome(outcome)) for test, outcome in found)


def _check_order(session: Session, case: ClinicCase, outcome: CaseOutcome) -> None:
    """No case ends over an order that still waits, or as if the order had been decided otherwise."""
    order = order_of(session, case)
    stands = order_outcome(session, order) if order else None
    if stands is OrderOutcome.HELD:
        raise ServiceError(Code.NOT_NOW, "The order behind this case is still held: accept or refuse it first.")
    if outcome in _SETTLED_AS and stands is not _SETTLED_AS[outcome]:
        raise ServiceError(Code.NOT_NOW, "The order was not decided like this: look at it again.")


def _seconded(session: Session, case: ClinicCase, by: Actor) -> bool:
    """Whether this person agrees to somebody else's wish. Raises ServiceError(NOT_ALLOWED) unless they are senior."""
    proposal = standing_proposal(session, case)
    if proposal is None or proposal.actor == by.audit_name:
        return False
    check_may(by, Action.SECOND_NO_FURTHER_ACTION, case.service_id)
    return True


def _close(session: Session, case: ClinicCase, outcome: CaseOutcome, by: Actor, now: datetime) -> None:
    case.outcome, case.closed_at, case.closed_by = outcome, now, by.audit_name
    _resolve_rows(session, case, outcome, now)
    _stop_expect_call(session, case, now)
    if case.kit_id is not None:
        event.record(
            session,
            kit_id=case.kit_id,
            service_id=case.service_id,
            kind="case.closed",
            actor=by.audit_name,
            at=now,
            outcome=outcome.value,
        )
    _changed(session, case, "case.closed", by, now, outcome=outcome.value)


def rows_of(session: Session, case: ClinicCase) -> list[QuarantinedRow]:
    """The lab's rows behind a case that nobody has resolved: its kit's, or those that its key names."""
    waiting = select(QuarantinedRow).where(col(QuarantinedRow.resolved_at).is_(None)).order_by(col(QuarantinedRow.id))
    if case.kit_id is not None:
        return list(session.exec(waiting.where(col(QuarantinedRow.kit_id) == case.kit_id)))
    if case.kind is not CaseKind.LAB_ROW:
        return []
    of_the_lab = sa.func.concat(
        "file:", col(QuarantinedRow.file_id), ":", col(QuarantinedRow.reason), ":", col(QuarantinedRow.owner_role)
    )
    return list(session.exec(waiting.where(col(QuarantinedRow.kit_id).is_(None), of_the_lab == case.key)))


def _resolve_rows(session: Session, case: ClinicCase, outcome: CaseOutcome, now: datetime) -> None:
    """Whoever ends a case has looked at what the lab sent beside it: the rows leave quarantine unused."""
    for row in rows_of(session, case):
        row.resolved_at, row.resolution = now, outcome.value
        session.add(row)


def _stop_expect_call(session: Session, case: ClinicCase, now: datetime) -> None:
    """Nobody is asked to expect a call that they have had."""
    if case.kit_id is not None:
        owed.cancel_texts(
            session,
            [case.kit_id],
            because="already_spoken_to",
            now=now,
            purposes=[TextPurpose.PLEASE_EXPECT_OUR_CALL],
        )


def _changed(session: Session, case: ClinicCase, action: str, by: Actor, now: datetime, **detail: str) -> None:
    case.version += 1
    session.add(case)
    _audit(session, case, action, by, now, **detail)
    session.flush()


def _audit(session: Session, case: ClinicCase, action: str, by: Actor, now: datetime, **detail: str) -> None:
    audit.record(
        session,
        action=action,
        subject="clinic_case",
        subject_id=_id(case),
        actor=by.audit_name,
        now=now,
        service_id=case.service_id,
        **detail,
    )


def _id(case: ClinicCase) -> int:
    assert case.id is not None  # a stored row
    return case.id
