"""What staff look at: the worklist, one case, one person's contact details, one kit's timeline.

Each look leaves an audit entry in the transaction that reads, so that nothing can be seen without
it being known who saw it (FEATURES 83; H19). One person is decrypted at a time.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Session, col, select

from models.actions import audit
from models.actions.candour import CandourLine, candour_of
from models.actions.case import contact_of, find_case, order_of, order_outcome
from models.actions.clinic import case_facts, rows_of, standing_proposal
from models.actions.partners import PartnerLine, partners_of
from models.actions.referral import ReferralLine, referrals_of
from models.actions.seal import check_unsealed, is_sealed
from models.actions.treatment import StandingRequest, bars, standing_request
from models.rules.clinic import (
    OUTCOMES_FOR,
    AttemptResult,
    CaseFacts,
    CaseKind,
    CaseOutcome,
    Confirmation,
    Step,
    Urgency,
    next_step,
    reacting,
)
from models.rules.errors import Code, ServiceError
from models.rules.kit import KitState, normalise_kit_code
from models.rules.order import OrderOutcome, SafeTime, is_about_safeguarding, read_address
from models.rules.person import age_on
from models.rules.safe_time import HOURS, is_safe, read_safe_times
from models.rules.secrets import Cipher
from models.rules.staff import OPENS, Action, Actor, check_may, may
from models.rules.text import TextPurpose
from models.rules.treatment import ALL_NO, Treatment, TreatmentBar
from models.rules.vocabulary import DeliveryStatus, Outcome, Quarantine, ReportStatus, Site, Test
from models.rules.working_days import london_day
from models.tables.audit import Audit
from models.tables.bulk import cursor
from models.tables.clinic import CaseAttempt, CaseEnding, ClinicCase, Escalation
from models.tables.kit import Kit, KitEvent, KitTest
from models.tables.order import Order, OrderDecision
from models.tables.person import Contact, Person, PersonSeal, SafeguardingNote
from models.tables.release import ReleaseDecision
from models.tables.result import CommentReview, Effect, LabFile, QuarantinedRow, ResultSeries, ResultVersion
from models.tables.text import Text, TextState

OLDEST: Final = 5
"""So many of the oldest due cases stand on top of every page of the worklist, whatever is filtered (FEATURES 63)."""

PAGE: Final = 50

# ── The worklist ─────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class WorklistRow:
    """One case on the worklist. Who it is about is not here."""

    ref: str
    service_id: str
    kind: CaseKind
    urgency: Urgency
    kit_code: str
    lab: str
    owner_role: str
    assignee: str
    due_at: datetime
    opened_at: datetime
    escalated_to: str
    may_open: bool
    sealed: bool
    """Whose it is must not be known in passing: the kit's code is left out (H26)."""


@dataclass(frozen=True, slots=True)
class Worklist:
    """One page, by due time. `oldest` is filled when a filter or a later page would hide the first ones."""

    rows: Sequence[WorklistRow]
    oldest: Sequence[WorklistRow]
    counts: Mapping[CaseKind, int]
    """Open cases of each kind that this person may see, filtered or not."""
    overdue: int
    page: int
    pages: int


_URGENCY_RANK: Final = sa.case(
    {urgency.value: rank for rank, urgency in enumerate(Urgency)}, value=sa.cast(col(ClinicCase.urgency), sa.String)
)


def worklist(session: Session, *, by: Actor, now: datetime, kind: CaseKind | None = None, page: int = 1) -> Worklist:
    """Open cases that this person may see, oldest due first, and the more urgent first where the due time is one.

    Raises ServiceError(NOT_ALLOWED) for somebody who may see no case of any kind.
    """
    seen = _visible(by)
    counted = session.exec(
        select(ClinicCase.kind, sa.func.count(), sa.func.count().filter(col(ClinicCase.due_at) <= now))
        .where(col(ClinicCase.closed_at).is_(None), seen)
        .group_by(col(ClinicCase.kind))
    ).all()
    counts = {CaseKind(each): number for each, number, _ in counted}
    total = sum(counts.values()) if kind is None else counts.get(kind, 0)
    pages = max(1, -(-total // PAGE))
    page = min(max(page, 1), pages)
    wanted = seen if kind is None else sa.and_(seen, col(ClinicCase.kind) == kind)
    rows = _rows(session, wanted, by, offset=(page - 1) * PAGE, limit=PAGE)
    is_whole = kind is None and page == 1
    for service_id in sorted({row.service_id for row in rows}):
        audit.record(
            session,
            action="worklist.viewed",
            subject="worklist",
            subject_id=0,
            actor=by.audit_name,
            now=now,
            service_id=service_id,
            kind=kind.value if kind else "",
            cases=sum(row.service_id == service_id for row in rows),
        )
    return Worklist(
        rows=rows,
        oldest=() if is_whole else _rows(session, seen, by, offset=0, limit=OLDEST),
        counts=counts,
        overdue=sum(late for _, _, late in counted),
        page=page,
        pages=pages,
    )


def _visible(by: Actor) -> sa.ColumnElement[bool]:
    """Which cases this person may know of: per service, the kinds they may open or oversee."""
    kinds_in: dict[str, list[CaseKind]] = {}
    for service_id in sorted(by.service_ids):
        oversees = may(by, Action.OVERSEE_CASES, service_id)
        kinds = [kind for kind in CaseKind if oversees or may(by, OPENS[kind], service_id)]
        if kinds:
            kinds_in[service_id] = kinds
    if not kinds_in:
        raise ServiceError(Code.NOT_ALLOWED, "Your role has no worklist: ask your service manager.")
    return sa.or_(
        *(
            sa.and_(col(ClinicCase.service_id) == service_id, col(ClinicCase.kind).in_(kinds))
            for service_id, kinds in kinds_in.items()
        )
    )


def _rows(session: Session, wanted: sa.ColumnElement[bool], by: Actor, *, offset: int, limit: int) -> list[WorklistRow]:
    told = (
        select(Escalation.role)
        .where(col(Escalation.case_id) == col(ClinicCase.id), col(Escalation.due_at) == col(ClinicCase.due_at))
        .order_by(col(Escalation.step).desc())
        .limit(1)
        .scalar_subquery()
    )
    sealed = (
        select(PersonSeal.sealed)
        .where(col(PersonSeal.person_id) == col(Kit.person_id))
        .order_by(col(PersonSeal.id).desc())
        .limit(1)
        .scalar_subquery()
    )
    # Columns, not rows as objects: fifty of them are made for each look.
    found = session.execute(
        sa.select(
            col(ClinicCase.ref),
            col(ClinicCase.service_id),
            col(ClinicCase.kind),
            col(ClinicCase.urgency),
            col(Kit.code),
            col(ClinicCase.lab),
            col(ClinicCase.owner_role),
            col(ClinicCase.assignee),
            col(ClinicCase.due_at),
            col(ClinicCase.opened_at),
            told,
            sealed,
        )
        .join(Kit, col(Kit.id) == col(ClinicCase.kit_id), isouter=True)
        .where(col(ClinicCase.closed_at).is_(None), wanted)
        .order_by(col(ClinicCase.due_at), _URGENCY_RANK, col(ClinicCase.id))
        .offset(offset)
        .limit(limit)
    )
    opens = {(kind, service_id): may(by, OPENS[kind], service_id) for kind in CaseKind for service_id in by.service_ids}
    return [
        WorklistRow(
            ref=ref,
            service_id=service_id,
            kind=CaseKind(kind),
            urgency=Urgency(urgency),
            kit_code="" if is_sealed else code or "",
            lab=lab,
            owner_role=owner_role,
            assignee=assignee,
            due_at=due_at,
            opened_at=opened_at,
            escalated_to=role or "",
            may_open=opens[CaseKind(kind), service_id],
            sealed=bool(is_sealed),
        )
        for (
            ref, service_id, kind, urgency, code, lab, owner_role, assignee, due_at, opened_at, role, is_sealed,
        ) in found
    ]  # fmt: skip


# ── One case ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class VersionLine:
    """One version of one result. `comment` is the lab's, where a person must read it."""

    outcome: Outcome
    status: ReportStatus
    effect: Effect
    is_current: bool
    came_at: datetime
    lab_time: datetime | None
    comment: str
    comment_read: bool


@dataclass(frozen=True, slots=True)
class ResultLine:
    """One test at one site: its versions, newest first, or none when nothing has come back."""

    test: Test
    site: Site
    requested: bool
    versions: Sequence[VersionLine]

    @property
    def changed(self) -> bool:
        """Whether the newest version says something else than the one before it."""
        return len(self.versions) > 1 and self.versions[0].outcome is not self.versions[1].outcome


@dataclass(frozen=True, slots=True)
class TextLine:
    """One text of this order: what it was for and how far it got. Its words are not kept."""

    purpose: TextPurpose
    state: TextState
    status: DeliveryStatus | None
    owed_at: datetime
    sent_at: datetime | None
    settled_at: datetime | None
    template_version: str
    cancelled_because: str


@dataclass(frozen=True, slots=True)
class DecisionLine:
    """One decision about the kit's results: what, why, by which rule and which configuration (FEATURES 84)."""

    kind: str
    reasons: Sequence[str]
    rule_version: str
    service_version_id: int
    actor: str
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class AttemptLine:
    """One try, or a note."""

    result: AttemptResult
    note: str
    identity_checked: Sequence[str]
    actor: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class EndingLine:
    """One ending of this case: where, when and how."""

    outcome: CaseOutcome
    place: str
    happened_on: date | None
    treatment: Treatment | None
    actor: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class LabRow:
    """One row of a lab that was set aside, without what it says."""

    ref: str
    position: int
    reason: Quarantine
    detail: str
    accession: str
    may_read: bool


@dataclass(frozen=True, slots=True)
class EarlierKit:
    """Another kit of the same person."""

    code: str
    state: KitState
    created_at: datetime
    found: Sequence[tuple[Test, Site, Outcome]]
    """What stands of it that is not negative."""
    negative: int


@dataclass(frozen=True, slots=True)
class CaseView:
    """One case on one screen. Without the right to read results, `results` says only whether one has come."""

    ref: str
    version: int
    service_id: str
    kind: CaseKind
    urgency: Urgency
    owner_role: str
    assignee: str
    due_at: datetime
    opened_at: datetime
    closed_at: datetime | None
    closed_by: str
    outcome: CaseOutcome | None
    kit_code: str
    lab: str
    detail: Mapping[str, object]
    may: frozenset[Action]
    age_years: int | None
    text_consent: bool
    voicemail_consent: bool
    letter_consent: bool
    safe_times: str
    """Hours of London; '' where none was named."""
    safe_now: bool
    language: str
    wording: str
    has_contact: bool
    has_safeguarding_note: bool
    sealed: bool
    answers: Mapping[str, object]
    order_reasons: Sequence[str]
    order_is_held: bool
    reads_results: bool
    results: Sequence[ResultLine]
    lab_rows: Sequence[LabRow]
    decisions: Sequence[DecisionLine]
    texts: Sequence[TextLine]
    attempts: Sequence[AttemptLine]
    facts: CaseFacts
    """What the rules about this case look at."""
    step: Step
    """What policy recommends now."""
    endings: Sequence[EndingLine]
    partners: Sequence[PartnerLine] | None
    """How far the partners of each type came; None where there is nothing to tell partners."""
    treatment: StandingRequest | None
    """The wish to treat without a visit that rests on these very results."""
    treatment_bars: Sequence[TreatmentBar] | None
    """What the results alone say against treatment without a visit; None where chlamydia was not found."""
    reacting: Sequence[Test]
    confirmed: Mapping[Test, Confirmation]
    escalated_to: Sequence[tuple[str, datetime]]
    proposed_by: str
    """Who wishes to end this without further action; empty when nobody does."""
    earlier_kits: Sequence[EarlierKit]
    outcomes: Sequence[CaseOutcome]
    """The ways in which a case of this kind may end."""
    comment_waits: bool
    candour: Sequence[CandourLine]
    """What its person was told about a result that they had been told wrong."""
    referrals: Sequence[ReferralLine]
    """The clinics it was handed over to, and what they said since."""


def case_view(session: Session, ref: str, *, by: Actor, now: datetime, cipher: Cipher) -> CaseView:
    """Everything about one case but who it is about, for somebody who may open it."""
    case = find_case(session, ref, by)
    assert case.id is not None  # a stored row
    allowed = frozenset(action for action in Action if may(by, action, case.service_id))
    reads_results = Action.READ_RESULTS in allowed
    order, contact, person, kit = _about(session, case)
    has = _has(session, case, person)
    if has["seal"]:
        check_unsealed(session, order.person_id if order else None, by, now)
    safe_times = read_safe_times(contact.safe_times) if contact else frozenset()
    facts = case_facts(session, case, now=now)
    proposal = standing_proposal(session, case) if has["proposal"] else None
    has_chlamydia = reads_results and (Test.CHLAMYDIA, Outcome.POSITIVE) in facts.items
    results = (
        _results(session, kit, cipher, any_read=has["review"]) if kit and reads_results else _whether_come(session, kit)
    )
    audit.record(
        session,
        action="case.viewed",
        subject="clinic_case",
        subject_id=case.id,
        actor=by.audit_name,
        now=now,
        service_id=case.service_id,
        results=reads_results,
        versions=sum(len(line.versions) for line in results),
    )
    return CaseView(
        ref=case.ref,
        version=case.version,
        service_id=case.service_id,
        kind=case.kind,
        urgency=case.urgency,
        owner_role=case.owner_role,
        assignee=case.assignee,
        due_at=case.due_at,
        opened_at=case.opened_at,
        closed_at=case.closed_at,
        closed_by=case.closed_by,
        outcome=case.outcome,
        kit_code=kit.code if kit else "",
        lab=case.lab or (kit.lab if kit else ""),
        detail=case.detail,
        may=allowed,
        age_years=_age(person, now, cipher) if person and reads_results else None,
        text_consent=facts.text_consent,
        voicemail_consent=facts.voicemail_consent,
        letter_consent=facts.letter_consent,
        safe_times=_hours(safe_times),
        safe_now=is_safe(now, safe_times),
        language=contact.language if contact else "",
        wording=contact.wording if contact else "",
        has_contact=contact is not None,
        has_safeguarding_note=has["note"],
        sealed=has["seal"] and person is not None and person.id is not None and is_sealed(session, person.id),
        answers=_answers(case, order) if reads_results else {},
        order_reasons=_order_reasons(session, order, allowed) if reads_results else (),
        order_is_held=order is not None and order_outcome(session, order) is OrderOutcome.HELD,
        reads_results=reads_results,
        results=results,
        lab_rows=[_lab_row(row, allowed) for row in rows_of(session, case)] if has["lab_row"] else [],
        decisions=_decisions(session, kit) if kit and reads_results else (),
        texts=_texts(session, order) if order and reads_results else (),
        attempts=_attempts(session, case, cipher) if has["attempt"] else [],
        facts=facts,
        step=next_step(facts),
        endings=_endings(session, case, cipher) if has["ending"] else [],
        partners=_partners(session, case, any_there=has["partners"])
        if reads_results and _has_partners(case, facts)
        else None,
        treatment=standing_request(session, case) if has_chlamydia and has["treatment"] else None,
        treatment_bars=bars(session, case, ALL_NO, now=now, cipher=cipher) if has_chlamydia else None,
        reacting=sorted(reacting(facts.items)) if reads_results else (),
        confirmed=facts.confirmed if reads_results else {},
        escalated_to=_escalated(session, case) if has["escalation"] else [],
        proposed_by=proposal.actor if proposal else "",
        earlier_kits=_earlier_kits(session, person, kit, by=by, now=now)
        if person and reads_results and has["kits"]
        else (),
        outcomes=[each for each in CaseOutcome if each in OUTCOMES_FOR[case.kind]],
        comment_waits=any(
            version.comment and version.is_current and not version.comment_read
            for line in results
            for version in line.versions
        ),
        candour=candour_of(session, case, cipher) if reads_results and has["candour"] else (),
        referrals=referrals_of(session, case, cipher) if reads_results and has["referral"] else (),
    )


def _about(session: Session, case: ClinicCase) -> tuple[Order | None, Contact | None, Person | None, Kit | None]:
    """Order, contact, person and kit of a case in one question. While they are held, nobody asks for them again."""
    order_id = select(Kit.order_id).where(col(Kit.id) == case.kit_id).scalar_subquery()
    found = session.exec(
        select(Order, Contact, Person, Kit)
        .join(Contact, col(Contact.id) == col(Order.contact_id))
        .join(Person, col(Person.id) == col(Order.person_id))
        .join(Kit, col(Kit.id) == case.kit_id, isouter=True)
        .where(col(Order.id) == (case.order_id if case.kit_id is None else order_id))
    ).one_or_none()
    if found is None:
        return None, None, None, None
    order, contact, person, kit = found
    return order, contact, person, kit


_HAS: Final = """
    SELECT EXISTS (SELECT FROM case_attempt WHERE case_id = %(case)s) AS attempt,
           EXISTS (SELECT FROM case_ending WHERE case_id = %(case)s) AS ending,
           EXISTS (SELECT FROM case_proposal WHERE case_id = %(case)s) AS proposal,
           EXISTS (SELECT FROM escalation WHERE case_id = %(case)s) AS escalation,
           EXISTS (SELECT FROM referral WHERE case_id = %(case)s) AS referral,
           EXISTS (SELECT FROM case_candour WHERE case_id = %(case)s) AS candour,
           EXISTS (SELECT FROM treatment_request WHERE case_id = %(case)s) AS treatment,
           EXISTS (SELECT FROM partner_count WHERE kit_id = %(kit)s) AS partners,
           EXISTS (SELECT FROM comment_review WHERE kit_id = %(kit)s) AS review,
           %(kit)s IS NULL OR EXISTS (SELECT FROM quarantined_row WHERE kit_id = %(kit)s) AS lab_row,
           EXISTS (SELECT FROM safeguarding_note WHERE person_id = %(person)s) AS note,
           EXISTS (SELECT FROM person_seal WHERE person_id = %(person)s) AS seal,
           EXISTS (SELECT FROM kit WHERE person_id = %(person)s AND id IS DISTINCT FROM %(kit)s) AS kits
"""


def _has(session: Session, case: ClinicCase, person: Person | None) -> Mapping[str, bool]:
    """Most of what a case may have it has not: what there is, in one question, so that only that is asked for."""
    on = cursor(session)
    on.execute(_HAS, {"case": case.id, "kit": case.kit_id, "person": person.id if person else None})
    assert on.description is not None  # a SELECT
    [row] = on.fetchall()
    return dict(zip((column.name for column in on.description), row, strict=True))


def _partners(session: Session, case: ClinicCase, *, any_there: bool) -> Sequence[PartnerLine]:
    return partners_of(session, case) if any_there else ()


def _results(session: Session, kit: Kit, cipher: Cipher, *, any_read: bool) -> list[ResultLine]:
    requested = _requested(session, kit)
    reads = select(CommentReview.version_id).where(col(CommentReview.kit_id) == kit.id)
    reviewed = set(session.exec(reads)) if any_read else set()
    versions: dict[tuple[Test, Site], list[VersionLine]] = defaultdict(list)
    found = session.exec(
        select(ResultVersion, ResultSeries.current_version_id, LabFile)
        .join(ResultSeries, col(ResultSeries.id) == col(ResultVersion.series_id))
        .join(LabFile, col(LabFile.id) == col(ResultVersion.file_id))
        .where(col(ResultVersion.kit_id) == kit.id)
        .order_by(col(ResultVersion.id).desc())
    )
    for version, current_id, file in found:
        place = f"{file.ref}:{version.position}:{version.row_key}"
        versions[version.test, version.site].append(
            VersionLine(
                outcome=version.outcome,
                status=version.status,
                effect=version.effect,
                is_current=version.id == current_id,
                came_at=file.arrived_at,
                lab_time=version.lab_time,
                comment=cipher.decrypt("result_version", "comment", place, version.comment) if version.comment else "",
                comment_read=version.id in reviewed,
            )
        )
    return [
        ResultLine(test, site, (test, site) in requested, versions.get((test, site), ()))
        for test, site in sorted(requested | versions.keys())
    ]


def _whether_come(session: Session, kit: Kit | None) -> list[ResultLine]:
    """Requested tests without what came back: for somebody who chases a lab and may not read results."""
    if kit is None:
        return []
    return [ResultLine(test, site, requested=True, versions=()) for test, site in sorted(_requested(session, kit))]


def _requested(session: Session, kit: Kit) -> set[tuple[Test, Site]]:
    found = session.exec(select(KitTest.test, KitTest.site).where(col(KitTest.kit_id) == kit.id))
    return {(Test(test), Site(site)) for test, site in found}


def _lab_row(row: QuarantinedRow, allowed: AbstractSet[Action]) -> LabRow:
    return LabRow(row.ref, row.position, row.reason, row.detail, row.accession, _may_read(row, allowed))


def _may_read(row: QuarantinedRow, allowed: AbstractSet[Action]) -> bool:
    """A row that may be bad news is a result to whoever reads it."""
    needed = {Action.READ_LAB_ROWS} | ({Action.READ_RESULTS} if row.may_be_non_negative else set())
    return needed <= allowed


def _age(person: Person, now: datetime, cipher: Cipher) -> int:
    born = cipher.decrypt("person", "date_of_birth", person.ref, person.date_of_birth)
    return age_on(date.fromisoformat(born), london_day(now))


_ANSWERED: Final = frozenset({CaseKind.ORDER_REVIEW, CaseKind.SAFEGUARDING})
"""Kinds that are about what the person answered."""


def _answers(case: ClinicCase, order: Order | None) -> Mapping[str, object]:
    return order.answers if order and case.kind in _ANSWERED else {}


def _order_reasons(session: Session, order: Order | None, allowed: Collection[Action]) -> Sequence[str]:
    """Why a person decides about an order; an answer of the safeguarding note to who may not read one as that alone."""
    if order is None or order.current_decision_id is None:
        return ()
    decision = session.get(OrderDecision, order.current_decision_id)
    reasons = decision.reasons if decision else ()
    if Action.READ_SAFEGUARDING_NOTES in allowed:
        return reasons
    return list(dict.fromkeys("safeguarding" if is_about_safeguarding(reason) else reason for reason in reasons))


def _decisions(session: Session, kit: Kit) -> list[DecisionLine]:
    found = session.exec(
        select(ReleaseDecision).where(col(ReleaseDecision.kit_id) == kit.id).order_by(col(ReleaseDecision.id).desc())
    )
    return [
        DecisionLine(d.kind.value, d.reasons, d.rule_version, d.service_version_id, d.actor, d.decided_at)
        for d in found
    ]


def _texts(session: Session, order: Order) -> list[TextLine]:
    found = session.exec(select(Text).where(col(Text.order_id) == order.id).order_by(col(Text.id).desc()))
    return [
        TextLine(
            t.purpose,
            t.state,
            t.status,
            t.owed_at,
            t.sent_at,
            t.settled_at,
            t.template_version,
            t.cancelled_because,
        )
        for t in found
    ]


def _attempts(session: Session, case: ClinicCase, cipher: Cipher) -> list[AttemptLine]:
    found = session.exec(
        select(CaseAttempt).where(col(CaseAttempt.case_id) == case.id).order_by(col(CaseAttempt.id).desc())
    )
    return [
        AttemptLine(
            a.result,
            cipher.decrypt("case_attempt", "note", a.ref, a.note) if a.note else "",
            a.identity_checked,
            a.actor,
            a.occurred_at,
        )
        for a in found
    ]


def _has_partners(case: ClinicCase, facts: CaseFacts) -> bool:
    """Whether somebody else may need a test because of this case."""
    return case.kit_id is not None and (
        case.kind is CaseKind.PARTNER_FOLLOW_UP
        or Confirmation.POSITIVE in facts.confirmed.values()
        or any(outcome is Outcome.POSITIVE for _, outcome in facts.items)
    )


def _endings(session: Session, case: ClinicCase, cipher: Cipher) -> list[EndingLine]:
    found = session.exec(select(CaseEnding).where(col(CaseEnding.case_id) == case.id).order_by(col(CaseEnding.id)))
    return [
        EndingLine(
            e.outcome,
            cipher.decrypt("case_ending", "place", e.ref, e.place) if e.place else "",
            e.happened_on,
            e.treatment,
            e.actor,
            e.occurred_at,
        )
        for e in found
    ]


def _escalated(session: Session, case: ClinicCase) -> list[tuple[str, datetime]]:
    found = session.exec(
        select(Escalation)
        .where(col(Escalation.case_id) == case.id, col(Escalation.due_at) == case.due_at)
        .order_by(col(Escalation.step))
    )
    return [(step.role, step.told_at) for step in found]


def _earlier_kits(session: Session, person: Person, kit: Kit | None, *, by: Actor, now: datetime) -> list[EarlierKit]:
    """What this person's other kits found. Whoever asks who saw one of those kits finds this look, too."""
    found = session.exec(select(Kit).where(col(Kit.person_id) == person.id).order_by(col(Kit.id).desc()))
    kits = [each for each in found if kit is None or each.id != kit.id]
    results: dict[int | None, list[ResultSeries]] = defaultdict(list)
    for each in session.exec(
        select(ResultSeries)
        .where(col(ResultSeries.kit_id).in_([each.id for each in kits]))
        .order_by(col(ResultSeries.test), col(ResultSeries.site))
    ):
        results[each.kit_id].append(each)
    for kit_id, seen in results.items():
        assert kit_id is not None  # stored rows
        audit.record(
            session,
            action="kit.results_seen",
            subject="kit",
            subject_id=kit_id,
            actor=by.audit_name,
            now=now,
            service_id=person.service_id,
            versions=len(seen),
        )
    return [
        EarlierKit(
            each.code,
            each.state,
            each.created_at,
            [
                (Test(one.test), Site(one.site), Outcome(one.outcome))
                for one in results[each.id]
                if one.outcome is not Outcome.NEGATIVE
            ],
            sum(one.outcome is Outcome.NEGATIVE for one in results[each.id]),
        )
        for each in kits
    ]


# ── Who somebody is ──────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ContactDetails:
    """Who a case is about and how to reach them. Lives as long as the page that shows it."""

    given_name: str
    family_name: str
    date_of_birth: date
    mobile: str
    mobile_proved_at: datetime
    address_lines: Sequence[str]
    postcode: str

    def __repr__(self) -> str:
        return "ContactDetails()"


def reveal(
    session: Session, ref: str, *, by: Actor, now: datetime, cipher: Cipher, cannot_wait: bool = True
) -> ContactDetails:
    """Name, date of birth, mobile and address of the person of one case. The reveal itself is audited.

    Raises ServiceError(NOT_FOUND) for a case about no person, and ServiceError(NOT_NOW) at a time at which they said
    that ringing is not safe, unless it cannot wait.
    """
    case = find_case(session, ref, by)
    check_may(by, Action.REVEAL_CONTACT, case.service_id)
    contact = contact_of(session, case)
    check_unsealed(session, contact.person_id if contact else None, by, now)
    person = session.get(Person, contact.person_id) if contact else None
    if contact is None or person is None:
        raise ServiceError(Code.NOT_FOUND, "This case is about no person: there are no contact details.")
    times = read_safe_times(contact.safe_times)
    if not is_safe(now, times) and not cannot_wait:
        raise ServiceError(
            Code.NOT_NOW, f"Now is no safe time to ring them: {_hours(times)}. If it can't wait, tick so."
        )
    assert case.id is not None  # a stored row
    audit.record(
        session,
        action="contact.revealed",
        subject="clinic_case",
        subject_id=case.id,
        actor=by.audit_name,
        now=now,
        service_id=case.service_id,
        contact_id=contact.id,
        person_id=person.id,
        safe_time=is_safe(now, times),
    )
    address = read_address(cipher.decrypt("contact", "delivery_address", contact.ref, contact.delivery_address))
    return ContactDetails(
        given_name=cipher.decrypt("person", "given_name", person.ref, person.given_name),
        family_name=cipher.decrypt("person", "family_name", person.ref, person.family_name),
        date_of_birth=date.fromisoformat(cipher.decrypt("person", "date_of_birth", person.ref, person.date_of_birth)),
        mobile=cipher.decrypt("contact", "mobile", contact.ref, contact.mobile),
        mobile_proved_at=contact.mobile_proved_at,
        address_lines=address.lines,
        postcode=address.postcode,
    )


def _hours(times: AbstractSet[SafeTime]) -> str:
    return ", ".join(f"{HOURS[each][0]:%H:%M} to {HOURS[each][1]:%H:%M}" for each in SafeTime if each in times)


@dataclass(frozen=True, slots=True)
class LetterTo:
    """To whom a letter goes, and in which language."""

    given_name: str
    family_name: str
    address_lines: Sequence[str]
    postcode: str
    language: str

    def __repr__(self) -> str:
        return "LetterTo()"


def letter_to(session: Session, ref: str, *, by: Actor, now: datetime, cipher: Cipher) -> LetterTo:
    """To whom the letter of a case goes, once one was recorded. Audited as a reveal.

    Raises ServiceError(NOT_NOW) before a letter was recorded, and where letters were refused.
    """
    case = find_case(session, ref, by)
    contact = contact_of(session, case)
    recorded = select(CaseAttempt.id).where(
        col(CaseAttempt.case_id) == case.id, col(CaseAttempt.result) == AttemptResult.LETTER
    )
    if contact is None or not contact.letter_consent or session.exec(recorded.limit(1)).first() is None:
        raise ServiceError(Code.NOT_NOW, "Record the letter first: it is printed only for who agreed to letters.")
    details = reveal(session, ref, by=by, now=now, cipher=cipher)
    return LetterTo(details.given_name, details.family_name, details.address_lines, details.postcode, contact.language)


def safeguarding_notes(
    session: Session, ref: str, *, by: Actor, now: datetime, cipher: Cipher
) -> list[tuple[datetime, str]]:
    """The safeguarding notes on the person of one case, newest first, for those who may read them. Audited."""
    case = find_case(session, ref, by)
    check_may(by, Action.READ_SAFEGUARDING_NOTES, case.service_id)
    order = order_of(session, case)
    check_unsealed(session, order.person_id if order else None, by, now)
    assert case.id is not None  # a stored row
    audit.record(
        session,
        action="safeguarding_notes.read",
        subject="clinic_case",
        subject_id=case.id,
        actor=by.audit_name,
        now=now,
        service_id=case.service_id,
    )
    found = session.exec(
        select(SafeguardingNote)
        .where(col(SafeguardingNote.person_id) == (order.person_id if order else None))
        .order_by(col(SafeguardingNote.id).desc())
    )
    return [(note.created_at, cipher.decrypt("safeguarding_note", "note", note.ref, note.note)) for note in found]


def read_lab_row(
    session: Session, ref: str, row_ref: str, *, by: Actor, now: datetime, cipher: Cipher
) -> tuple[int, str]:
    """Position and text of one row that was set aside, as the lab sent it. Audited.

    Raises ServiceError(NOT_FOUND) for a row of another case, NOT_ALLOWED for one that may be bad news to
    somebody who may not read results.
    """
    case = find_case(session, ref, by)
    row = next((row for row in rows_of(session, case) if row.ref == row_ref), None)
    if row is None:
        raise ServiceError(Code.NOT_FOUND, "There is no such row in this case: look at it again.")
    if not _may_read(row, {action for action in Action if may(by, action, case.service_id)}):
        raise ServiceError(Code.NOT_ALLOWED, "Your role does not allow this: ask a clinician to read the row.")
    assert row.id is not None  # a stored row
    audit.record(
        session,
        action="lab_row.read",
        subject="quarantined_row",
        subject_id=row.id,
        actor=by.audit_name,
        now=now,
        service_id=case.service_id,
    )
    return row.position, cipher.decrypt("quarantined_row", "raw", row.ref, row.raw)


# ── One kit ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class EventLine:
    """One thing that happened. `detail` is empty for somebody who may not read results."""

    kind: str
    detail: Mapping[str, object]
    actor: str
    occurred_at: datetime
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Look:
    """One look or act that was audited."""

    at: datetime
    actor: str
    action: str
    because: str
    """The reason, where one was asked for: why a seal was broken, why words were shown."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """What happened to one kit, oldest first, and for those entitled what was decided, told and looked at."""

    kit_code: str
    state: KitState
    lab: str
    expires_on: date | None
    events: Sequence[EventLine]
    sealed: bool
    reads_results: bool
    decisions: Sequence[DecisionLine]
    texts: Sequence[TextLine]
    looks: Sequence[Look]
    """The audit of the kit, of its person's seal, of its cases, its texts and its rows set aside."""


def kit_timeline(session: Session, code: str, *, by: Actor, now: datetime) -> Timeline:
    """The timeline of a kit by its code, as people write it. Audited.

    Who asks who looked and reads no results needs no reason for a sealed record: of it they see the looks alone.
    Raises ServiceError(BAD_INPUT) for a mistyped code, ServiceError(NOT_FOUND) for an unknown one and
    another service's, in the same words.
    """
    wanted = normalise_kit_code(code)
    if wanted is None:
        raise ServiceError(Code.BAD_INPUT, "This is no kit code: check each of its ten characters.")
    kit = session.exec(select(Kit).where(col(Kit.code) == wanted)).one_or_none()
    if kit is None or kit.service_id not in by.service_ids:
        raise ServiceError(Code.NOT_FOUND, "There is no such kit: check each of its ten characters.")
    check_may(by, Action.SEE_TIMELINE, kit.service_id)
    reads_results = may(by, Action.READ_RESULTS, kit.service_id)
    audits = may(by, Action.SEE_AUDIT, kit.service_id)
    sealed = is_sealed(session, kit.person_id)
    if reads_results or not audits:
        check_unsealed(session, kit.person_id, by, now)
    assert kit.id is not None  # a stored row
    looks = _looks(session, kit) if audits else ()
    audit.record(
        session,
        action="kit.timeline_viewed",
        subject="kit",
        subject_id=kit.id,
        actor=by.audit_name,
        now=now,
        service_id=kit.service_id,
        results=reads_results,
    )
    order = session.get(Order, kit.order_id)
    events = session.exec(
        select(KitEvent).where(col(KitEvent.kit_id) == kit.id).order_by(col(KitEvent.occurred_at), col(KitEvent.id))
    )
    return Timeline(
        kit_code=kit.code,
        state=kit.state,
        lab=kit.lab,
        expires_on=kit.expires_on,
        events=[
            EventLine(e.kind, e.detail if reads_results else {}, e.actor, e.occurred_at, e.recorded_at)
            for e in (() if sealed and not reads_results else events)
        ],
        sealed=sealed,
        reads_results=reads_results,
        decisions=_decisions(session, kit) if reads_results else (),
        texts=_texts(session, order) if order and reads_results else (),
        looks=looks,
    )


def _looks(session: Session, kit: Kit) -> list[Look]:
    subjects: dict[str, Any] = {
        "person": [kit.person_id],
        "kit": [kit.id],
        "clinic_case": select(ClinicCase.id).where(col(ClinicCase.kit_id) == kit.id),
        "text": select(Text.id).where(sa.or_(col(Text.kit_id) == kit.id, col(Text.order_id) == kit.order_id)),
        "quarantined_row": select(QuarantinedRow.id).where(col(QuarantinedRow.kit_id) == kit.id),
    }
    found = session.exec(
        select(Audit)
        .where(
            sa.or_(
                *(
                    sa.and_(col(Audit.subject) == subject, col(Audit.subject_id).in_(ids))
                    for subject, ids in subjects.items()
                )
            )
        )
        .order_by(col(Audit.id))
    )
    return [Look(each.occurred_at, each.actor, each.action, each.because) for each in found]
