"""What staff do to clinic cases: take one, try to reach somebody, record what came of it, end it.

Every function asks `may` before it looks, locks the kit and then the case (the order in which
decisions lock them, ruling 2), refuses a form that was drawn from an older version, and leaves an
audit entry. A case that its reader may not know of is answered as one that does not exist.
"""

import secrets
from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col, select

from models.actions import audit, candour, duty, event, owed, release
from models.actions.case import changed, contact_of, id_of, leave_audit, locked, order_of, order_outcome
from models.actions.order import Intake, Taken, settle_order
from models.actions.partners import counted_since
from models.actions.referral import last_word
from models.actions.text_choice import OPTED_OUT, opted_out
from models.actions.text_moves import undelivered_case_key
from models.actions.treatment import signed_way
from models.rules.candour import Candour
from models.rules.clinic import (
    AttemptResult,
    CaseFacts,
    CaseKind,
    CaseOutcome,
    Confirmation,
    EndingDetails,
    IdentityCheck,
    SnoozeReason,
    check_ending,
    check_identity,
    check_may_close,
    check_snooze,
    is_stale,
    next_due_at,
    reacting,
)
from models.rules.errors import Code, ServiceError
from models.rules.order import OrderOutcome
from models.rules.person import age_on
from models.rules.release import ReleaseDecision
from models.rules.safe_time import next_safe, read_safe_times
from models.rules.secrets import MOBILE, BlindIndex, Cipher
from models.rules.service import ClinicPolicy, Service, ServiceInForce
from models.rules.staff import Action, Actor, Role, check_may, who_may_work
from models.rules.text import CLASS_OF, ExpectCall, RetestDue, TextClass, TextPurpose, retest_due_at
from models.rules.text_delivery import is_result
from models.rules.vocabulary import Outcome, Test
from models.rules.working_days import add_working_hours, london_day
from models.tables.bulk import cursor
from models.tables.clinic import (
    CaseAttempt,
    CaseConfirmation,
    CaseEnding,
    CaseItem,
    CaseProposal,
    CaseSnooze,
    ClinicCase,
    Escalation,
)
from models.tables.person import Contact, MobileHolder, Person, SafeguardingNote
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


def claim(session: Session, ref: str, *, by: Actor, version: int, now: datetime) -> None:
    """Puts a case into this person's hands. Claiming what one holds already changes nothing.

    Raises ServiceError(CONFLICT) when a colleague holds it or changed it.
    """
    case = locked(session, ref, by, version, now=now)
    if case.assignee == by.audit_name:
        return
    case.assignee = by.audit_name
    changed(session, case, "case.claimed", by, now)


def hand_back(session: Session, ref: str, *, by: Actor, version: int, now: datetime) -> None:
    """Puts a case back for anyone to take: by who holds it, or by a senior person for somebody absent."""
    case = locked(session, ref, by, version, now=now, held_by_anyone=True)
    if case.assignee not in ("", by.audit_name):
        check_may(by, Action.SECOND_NO_FURTHER_ACTION, case.service_id)
    if case.assignee:
        was, case.assignee = case.assignee, ""
        changed(session, case, "case.handed_back", by, now, was=was)


def hand_over(
    session: Session, ref: str, *, by: Actor, version: int, to: Role, note: str, now: datetime, cipher: Cipher
) -> None:
    """Puts a case into another role's queue, with a word of why: it is that role's from now on.

    Raises ServiceError(BAD_INPUT) without a note, and for a role that may not work this kind of case.
    """
    case = locked(session, ref, by, version, now=now)
    if to not in who_may_work(case.kind):
        raise ServiceError(Code.BAD_INPUT, "This role may not work such a case: choose another queue.")
    _add_attempt(session, case, by=by, result=AttemptResult.NOTE, note=note, now=now, cipher=cipher)
    case.owner_role, case.assignee = to.value, ""
    changed(session, case, "case.handed_over", by, now, to=to.value)


def snooze(
    session: Session,
    ref: str,
    *,
    by: Actor,
    version: int,
    reason: SnoozeReason,
    until: datetime,
    now: datetime,
    policy: ClinicPolicy,
) -> None:
    """Lets a case rest until an instant, for a reason, within the policy's limits; it stays in this person's hands.

    Raises ServiceError(NOT_NOW) for too long a rest or one too many.
    """
    case = locked(session, ref, by, version, now=now)
    before = session.exec(
        select(sa.func.count()).where(
            col(CaseSnooze.case_id) == id_of(case), col(CaseSnooze.occurred_at) >= _news_at(session, case)
        )
    ).one()
    check_snooze(until, now=now, snoozed_before=before, policy=policy)
    session.add(CaseSnooze(case_id=id_of(case), reason=reason, until_at=until, actor=by.audit_name, occurred_at=now))
    case.due_at, case.escalation, case.assignee = until, 0, by.audit_name
    changed(session, case, "case.snoozed", by, now, reason=reason.value)


def record_attempt(  # noqa: PLR0913 - one form, by name
    session: Session,
    ref: str,
    *,
    by: Actor,
    version: int,
    result: AttemptResult,
    note: str,
    now: datetime,
    service: Service,
    cipher: Cipher,
    indexes: BlindIndex,
    identity: AbstractSet[IdentityCheck] = frozenset(),
) -> None:
    """Records one try at reaching the person, or a note, and moves the due time as the ladder says.

    A text is owed by it, once a day; a number found wrong or dead is frozen, and its unsent texts are
    stopped. The case falls to whoever tries. Raises ServiceError(NOT_NOW) for a channel that the person has
    refused or whose number is frozen (FEATURES 65), and for a second text on one day; ServiceError(BAD_INPUT)
    for a note that is missing or too long, and for a talk without a check of who it was.
    """
    case = locked(session, ref, by, version, now=now)
    check_identity(result, identity)
    contact = contact_of(session, case)
    _check_channel(session, contact, result)
    _add_attempt(session, case, by=by, result=result, note=note, now=now, cipher=cipher, identity=identity)
    due = next_due_at(result, now, case.due_at, service.clinic)
    if due != case.due_at and contact is not None:
        due = next_safe(due, read_safe_times(contact.safe_times), service.clinic)
    if due != case.due_at:
        case.due_at, case.escalation = due, 0
    case.assignee = by.audit_name
    match result:
        case AttemptResult.SPOKE:
            _stop_expect_call(session, case, now)
        case AttemptResult.TEXT:
            _owe_text(session, case, service=service, now=now, cipher=cipher)
        case AttemptResult.WRONG_PERSON | AttemptResult.NUMBER_DEAD if contact is not None:
            _freeze_number(session, case, contact, now=now, cipher=cipher, indexes=indexes)
        case _:
            pass
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
    changed(session, case, "case.attempted", by, now, result=result.value)


def record_confirmation(
    session: Session, ref: str, *, by: Actor, version: int, test: Test, confirmation: Confirmation, now: datetime
) -> None:
    """Records what the sample from the arm said of one reactive screen; a later record of the same test counts.

    A refusal is the person's own word, so somebody must have spoken to them. Raises ServiceError(BAD_INPUT)
    for a test that did not react in this case, ServiceError(NOT_NOW) for a refusal that nobody heard.
    """
    case = locked(session, ref, by, version, now=now, needs=Action.RECORD_CONFIRMATION)
    if test not in reacting(_standing_items(session, case)):
        raise ServiceError(Code.BAD_INPUT, "This test has no reactive result here: choose one of those listed.")
    if confirmation is Confirmation.DECLINED and not case_facts(session, case, now=now).attempts.get(
        AttemptResult.SPOKE
    ):
        raise ServiceError(Code.NOT_NOW, "Only the person can decline: record first that you spoke to them.")
    session.add(
        CaseConfirmation(
            case_id=id_of(case), test=test, confirmation=confirmation, actor=by.audit_name, occurred_at=now
        )
    )
    changed(session, case, "case.confirmed", by, now, test=test.value)


def close_case(  # noqa: PLR0913 - one form, by name
    session: Session,
    ref: str,
    *,
    by: Actor,
    version: int,
    outcome: CaseOutcome,
    now: datetime,
    service: Service,
    cipher: Cipher,
    details: EndingDetails = EndingDetails(),  # noqa: B008 - a frozen value
) -> Ending:
    """Ends a case, if the rules allow it, or records the wish to end it without further action.

    No further action takes two people: the first proposes, and the second, who must be senior, agrees
    while nothing has changed since (FEATURES 64). Raises ServiceError(NOT_NOW) with what is missing,
    ServiceError(BAD_INPUT) for an ending that does not say where, when or how.
    """
    no_further_action = outcome is CaseOutcome.NO_FURTHER_ACTION
    case = locked(session, ref, by, version, now=now, held_by_anyone=no_further_action)
    if outcome is CaseOutcome.RELEASED_AFTER_REVIEW:
        raise ServiceError(Code.NOT_NOW, "Read the lab's comment first: the review itself ends this case.")
    check_may_close(case_facts(session, case, now=now), outcome, seconded=True)
    check_ending(outcome, details, today=london_day(now), remote_signed=signed_way(session, case))
    _check_order(session, case, outcome)
    if outcome is CaseOutcome.PARTNERS_FOLLOWED_UP and not counted_since(session, case):
        raise ServiceError(Code.NOT_NOW, "Ask how the partners stand now, and record the numbers first.")
    if no_further_action and not _seconded(session, case, by):
        case.version += 1
        session.add(CaseProposal(case_id=id_of(case), case_version=case.version, actor=by.audit_name, occurred_at=now))
        leave_audit(session, case, "case.no_further_action_proposed", by, now)
        return Ending.WAITS_FOR_SECOND
    _close(session, case, outcome, by, now, details=details, cipher=cipher)
    if outcome is CaseOutcome.TREATED:
        _owe_retest(session, case, service=service, now=now, cipher=cipher)
    return Ending.CLOSED


def release_after_review(
    session: Session, ref: str, *, by: Actor, version: int, now: datetime, service: ServiceInForce, cipher: Cipher
) -> ReleaseDecision:
    """A named person read the lab's comments and found them harmless: decide again, and end the case if it may.

    Where the new decision still needs a person, the case stays open with the new reasons.
    """
    case = locked(session, ref, by, version, now=now, needs=Action.RELEASE_AFTER_REVIEW)
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
        check_may_close(case_facts(session, case, now=now), CaseOutcome.RELEASED_AFTER_REVIEW)
        _close(session, case, CaseOutcome.RELEASED_AFTER_REVIEW, by, now, cipher=cipher)
    return decision


def settle_held_order(
    session: Session, ref: str, *, by: Actor, version: int, accept: bool, because: str, now: datetime, intake: Intake
) -> Taken:
    """Accepts or refuses the held order behind a case. An order review ends with it; a safeguarding case goes on."""
    case = locked(session, ref, by, version, now=now, needs=Action.SETTLE_ORDERS)
    order = order_of(session, case)
    if order is None:
        raise ServiceError(Code.NOT_NOW, "This case is about no order: there is nothing to settle.")
    taken = settle_order(
        session, order.ref, accept=accept, because=because, now=now, actor=by.audit_name, intake=intake
    )
    if case.kind is CaseKind.ORDER_REVIEW:
        ended = CaseOutcome.ORDER_ACCEPTED if accept else CaseOutcome.ORDER_REFUSED
        _close(session, case, ended, by, now, cipher=intake.cipher)
    else:
        changed(session, case, "case.order_settled", by, now, outcome=taken.outcome.value)
    return taken


_FACTS: Final = f"""
    WITH standing AS (
        SELECT i.test, i.outcome, i.added_at FROM case_item i
        JOIN result_version v ON v.id = i.version_id JOIN result_series s ON s.id = v.series_id
        WHERE i.case_id = %(case)s AND i.version_id >= s.current_version_id),
    news AS (SELECT greatest(max(added_at), %(opened)s) AS at FROM standing)
    SELECT news.at,
           ARRAY(SELECT ARRAY[test, outcome] FROM standing),
           (SELECT json_object_agg(result, tries) FROM (
                SELECT result, count(*) AS tries FROM case_attempt
                WHERE case_id = %(case)s AND occurred_at >= news.at GROUP BY result) AS tried),
           (SELECT count(*) FROM text WHERE contact_id = %(contact)s AND purpose = ANY(%(purposes)s)
                AND state IN ('accepted', 'delivered') AND owed_at >= news.at),
           EXISTS (SELECT FROM mobile_holder WHERE person_id = %(person)s AND frozen_at >= %(proved)s),
           {OPTED_OUT.format("%(person)s")},
           EXISTS (SELECT FROM case_confirmation WHERE case_id = %(case)s),
           EXISTS (SELECT FROM referral WHERE case_id = %(case)s)
    FROM news
"""  # noqa: S608 - a constant
_RESULT_TEXTS: Final = [purpose.value for purpose, kind in CLASS_OF.items() if kind is TextClass.RESULT]


def case_facts(session: Session, case: ClinicCase, *, now: datetime) -> CaseFacts:
    """All that the rules about a case may look at, as it stands now."""
    contact, on = contact_of(session, case), cursor(session)
    asked = {"case": case.id, "opened": case.opened_at, "purposes": _RESULT_TEXTS, "contact": None, "person": None}
    asked |= {"proved": None}
    if contact is not None:
        asked |= {"contact": contact.id, "person": contact.person_id, "proved": contact.mobile_proved_at}
    on.execute(_FACTS, asked)
    [(news_at, items, tried, texts_left, frozen, opted_out, confirmed, referred)] = on.fetchall()
    return CaseFacts(
        kind=case.kind,
        items=frozenset((Test(test), Outcome(outcome)) for test, outcome in items),
        attempts={AttemptResult(result): tries for result, tries in (tried or {}).items()},
        confirmed=confirmations(session, case) if confirmed else {},
        text_consent=contact is not None and contact.text_consent and not opted_out,
        voicemail_consent=contact is not None and contact.voicemail_consent,
        letter_consent=contact is not None and contact.letter_consent,
        texts_left=texts_left,
        number_usable=contact is not None and not frozen,
        candour=candour.state_of(session, case) if case.kind is CaseKind.CORRECTION else Candour.NOT_NEEDED,
        clinic_says=last_word(session, case, news_at) if referred else None,
        days_since_news=(london_day(now) - london_day(news_at)).days,
    )


def _news_at(session: Session, case: ClinicCase) -> datetime:
    """When the newest result of a case came that still stands, or when it was opened."""
    newest = session.exec(_standing(case, sa.func.max(col(CaseItem.added_at)))).one()
    return max(newest or case.opened_at, case.opened_at)


def _may_text(session: Session, contact: Contact) -> bool:
    """Whether this person agreed to texts and has not said STOP since."""
    return contact.text_consent and not opted_out(session, [contact.person_id])


def _is_frozen(session: Session, contact: Contact) -> bool:
    """Whether this contact's number was found wrong or dead since it was proved (FEATURES 54)."""
    frozen = select(MobileHolder.id).where(
        col(MobileHolder.person_id) == contact.person_id, col(MobileHolder.frozen_at) >= contact.mobile_proved_at
    )
    return session.exec(frozen.limit(1)).first() is not None


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

    On the worklist and the case's page, and by a text owed to the role's duty phone.

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
    told = Counter(role for case in cases for role in _escalate(session, case, now, policy, actor))
    duty.owe_notices(session, told, service_id=service_id, policy=policy, now=now)
    last = cases[-1] if cases else None
    return Escalated(len(cases), told.total(), (last.due_at, id_of(last)) if last else None)


def _escalate(session: Session, case: ClinicCase, now: datetime, policy: ClinicPolicy, actor: str) -> list[str]:
    """Takes every step whose time has come, and says which roles were told.

    The case is changed once: PostgreSQL checks the kit of a row that changes twice in one transaction, with a lock
    on the kit, and kits are locked before their cases and by id (ruling 2).
    """
    told = []
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
            subject_id=id_of(case),
            actor=actor,
            now=now,
            service_id=case.service_id,
            step=number,
            role=step.role,
        )
        told.append(step.role)
    if told:
        case.escalation += len(told)
    return told


def return_stale_claims(session: Session, *, now: datetime, service: Service, limit: int, actor: str) -> int:
    """Puts due cases back for anyone whose holder has done nothing for too long, and says how many (FEATURES 62)."""
    held = session.exec(
        select(ClinicCase)
        .where(
            col(ClinicCase.service_id) == service.id,
            col(ClinicCase.closed_at).is_(None),
            col(ClinicCase.due_at) <= now,
            col(ClinicCase.assignee) != "",
            sa.func.coalesce(col(ClinicCase.touched_at), col(ClinicCase.opened_at))
            <= now - timedelta(hours=service.clinic.claim_working_hours),
        )
        .order_by(col(ClinicCase.due_at), col(ClinicCase.id))
        .limit(limit)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).all()
    returned = 0
    for case in held:
        if not is_stale(touched=case.touched_at or case.opened_at, due=case.due_at, now=now, policy=service.clinic):
            continue
        was, case.assignee = case.assignee, ""
        case.version += 1
        audit.record(
            session,
            action="case.claim_ended",
            subject="clinic_case",
            subject_id=id_of(case),
            actor=actor,
            now=now,
            service_id=case.service_id,
            was=was,
        )
        returned += 1
    return returned


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


def _check_channel(session: Session, contact: Contact | None, result: AttemptResult) -> None:
    refused: Mapping[AttemptResult, tuple[bool, str]] = {
        AttemptResult.TEXT: (contact is None or not _may_text(session, contact), "texts"),
        AttemptResult.VOICEMAIL: (contact is None or not contact.voicemail_consent, "voicemail"),
        AttemptResult.LETTER: (contact is None or not contact.letter_consent, "letters"),
    }
    is_refused, channel = refused.get(result, (False, ""))
    if is_refused:
        raise ServiceError(Code.NOT_NOW, f"This person has not agreed to {channel}: try another way.")
    if result in (AttemptResult.TEXT, AttemptResult.VOICEMAIL) and contact is not None and _is_frozen(session, contact):
        raise ServiceError(
            Code.NOT_NOW, "This number is somebody else's or dead: no text or voicemail until it is proved again."
        )


def _add_attempt(
    session: Session,
    case: ClinicCase,
    *,
    by: Actor,
    result: AttemptResult,
    note: str,
    now: datetime,
    cipher: Cipher,
    identity: AbstractSet[IdentityCheck] = frozenset(),
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
            case_id=id_of(case),
            result=result,
            note=cipher.encrypt("case_attempt", "note", ref, note) if note else None,
            identity_checked=sorted(identity),
            actor=by.audit_name,
            occurred_at=now,
        )
    )


def _owe_text(session: Session, case: ClinicCase, *, service: Service, now: datetime, cipher: Cipher) -> None:
    """Owes the text that says nothing but that we would like to talk: one a London day."""
    order = order_of(session, case)
    assert order is not None  # a person who agreed to texts ordered something
    assert order.id is not None  # a stored row
    text = owed.OwedText(
        order_id=order.id,
        kit_id=case.kit_id,
        contact_id=order.contact_id,
        says=ExpectCall(),
        tells=f"case:{case.id}:{london_day(now)}",
        decision_id=case.decision_id,
    )
    if not owed.owe_texts(session, [text], service=service, now=now, cipher=cipher):
        raise ServiceError(Code.NOT_NOW, "A text was asked for today already: try another way, or wait for tomorrow.")


def _owe_retest(session: Session, case: ClinicCase, *, service: Service, now: datetime, cipher: Cipher) -> None:
    """Owes the text that asks a young person to order again, months later. A new order stops it.

    It is the order's, not the kit's: the kit may be closed by then. Nobody with a safeguarding note gets one.
    """
    order, contact = order_of(session, case), contact_of(session, case)
    if order is None or order.id is None or contact is None or not _may_text(session, contact):
        return
    person = session.get_one(Person, contact.person_id)
    born_on = date.fromisoformat(cipher.decrypt("person", "date_of_birth", person.ref, person.date_of_birth))
    due = retest_due_at(
        _standing_items(session, case),
        age_years=age_on(born_on, london_day(now)),
        treated_at=now,
        after_days=service.texts.retest_after_days,
    )
    noted = select(SafeguardingNote.id).where(col(SafeguardingNote.person_id) == person.id).limit(1)
    if due is None or session.exec(noted).first() is not None:
        return
    text = owed.OwedText(order.id, None, order.contact_id, RetestDue(), f"case:{case.id}", not_before=due)
    owed.owe_texts(session, [text], service=service, now=now, cipher=cipher)


def _freeze_number(
    session: Session, case: ClinicCase, contact: Contact, *, now: datetime, cipher: Cipher, indexes: BlindIndex
) -> None:
    """No text goes to this number until its person proves it again, and none that is under way leaves (FEATURES 54)."""
    mobile = cipher.decrypt("contact", "mobile", contact.ref, contact.mobile)
    session.execute(
        sa.update(MobileHolder)
        .where(
            col(MobileHolder.service_id) == contact.service_id,
            col(MobileHolder.person_id) == contact.person_id,
            col(MobileHolder.digest).in_(indexes.live(MOBILE, contact.service_id, mobile)),
        )
        .values(frozen_at=now)
        .execution_options(synchronize_session=False)
    )
    if case.kit_id is not None:
        owed.cancel_texts(session, [case.kit_id], because="number_not_theirs", now=now)


def _standing_items(session: Session, case: ClinicCase) -> frozenset[tuple[Test, Outcome]]:
    """Items whose version is current, or newer than the current one because it froze the kit (ruling 1)."""
    found = session.exec(_standing(case, col(CaseItem.test), col(CaseItem.outcome)))
    return frozenset((Test(test), Outcome(outcome)) for test, outcome in found)


def _standing(case: ClinicCase, *what: Any) -> Any:
    """The query for something of a case's standing items."""
    return (
        select(*what)
        .select_from(CaseItem)
        .join(ResultVersion, col(ResultVersion.id) == col(CaseItem.version_id))
        .join(ResultSeries, col(ResultSeries.id) == col(ResultVersion.series_id))
        .where(col(CaseItem.case_id) == case.id, col(CaseItem.version_id) >= col(ResultSeries.current_version_id))
    )


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


def _close(
    session: Session,
    case: ClinicCase,
    outcome: CaseOutcome,
    by: Actor,
    now: datetime,
    *,
    cipher: Cipher,
    details: EndingDetails = EndingDetails(),  # noqa: B008 - a frozen value
) -> None:
    ref = secrets.token_hex(16)
    session.add(
        CaseEnding(
            ref=ref,
            case_id=id_of(case),
            outcome=outcome,
            place=cipher.encrypt("case_ending", "place", ref, details.place) if details.place else None,
            happened_on=details.on,
            treatment=details.treatment,
            actor=by.audit_name,
            occurred_at=now,
        )
    )
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
    changed(session, case, "case.closed", by, now, outcome=outcome.value)


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
            purposes=[TextPurpose.PLEASE_EXPECT_OUR_CALL, TextPurpose.DELAYED],
        )
