"""Partner notification of one kit's person: counts by type of partner, and the follow-up that comes due by itself."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import sqlalchemy as sa
from sqlmodel import Session, col, select

from models.actions.case import changed, locked
from models.actions.owed import OwedCase, owe_cases
from models.rules.clinic import CaseKind
from models.rules.errors import Code, ServiceError
from models.rules.partners import PartnerCounts, PartnerType, check_partners, follow_up_at, standing_since
from models.rules.service import Service
from models.rules.staff import Actor
from models.tables.clinic import ClinicCase, PartnerCount


@dataclass(frozen=True, slots=True)
class PartnerLine:
    """The newest counts of one type of partner."""

    partner: PartnerType
    counts: PartnerCounts
    since: Mapping[str, date]
    """The day since which the number of each stage stands, where somebody reached it."""
    actor: str
    occurred_at: datetime


def record_partners(
    session: Session,
    ref: str,
    *,
    by: Actor,
    version: int,
    partner: PartnerType,
    counts: PartnerCounts,
    service: Service,
    now: datetime,
) -> None:
    """Keeps how far the partners of one type came. The first record owes a count again after four weeks.

    Raises ServiceError(BAD_INPUT) for figures that can't be, ServiceError(NOT_NOW) for a case about no kit.
    """
    case = locked(session, ref, by, version, now=now)
    check_partners(counts)
    if case.kit_id is None:
        raise ServiceError(Code.NOT_NOW, "This case is about no kit: record partners in the case of the result.")
    first = _first_talk_at(session, case.kit_id) or now
    session.add(
        PartnerCount(
            kit_id=case.kit_id,
            partner=partner,
            elicited=counts.elicited,
            contactable=counts.contactable,
            notified=counts.notified,
            tested=counts.tested,
            verified=counts.verified,
            treated=counts.treated,
            actor=by.audit_name,
            occurred_at=now,
        )
    )
    again = OwedCase(
        key=f"kit:{case.kit_id}:partners",
        kind=CaseKind.PARTNER_FOLLOW_UP,
        order_id=case.order_id,
        kit_id=case.kit_id,
        due_at=follow_up_at(first),
        reopen=False,
    )
    owe_cases(session, [again], service=service, now=now, actor=by.audit_name)
    changed(session, case, "partners.recorded", by, now, partner=partner.value)


def partners_of(session: Session, case: ClinicCase) -> Sequence[PartnerLine]:
    """The newest counts of each type of partner of this case's kit."""
    counted = session.exec(
        select(PartnerCount).where(col(PartnerCount.kit_id) == case.kit_id).order_by(col(PartnerCount.id))
    )
    by_type: dict[PartnerType, list[PartnerCount]] = defaultdict(list)
    for row in counted:
        by_type[row.partner].append(row)
    return [
        PartnerLine(
            partner,
            _counts(rows[-1]),
            standing_since((row.occurred_at, _counts(row)) for row in rows),
            rows[-1].actor,
            rows[-1].occurred_at,
        )
        for partner, rows in sorted(by_type.items())
    ]


def _counts(row: PartnerCount) -> PartnerCounts:
    return PartnerCounts(row.elicited, row.contactable, row.notified, row.tested, row.verified, row.treated)


def counted_since(session: Session, case: ClinicCase) -> bool:
    """Whether the partners were counted again after the day on which the follow-up was made."""
    newest = session.exec(
        select(sa.func.max(col(PartnerCount.occurred_at))).where(col(PartnerCount.kit_id) == case.kit_id)
    ).one()
    return newest is not None and newest > case.opened_at


def _first_talk_at(session: Session, kit_id: int) -> datetime | None:
    return session.exec(
        select(sa.func.min(col(PartnerCount.occurred_at))).where(col(PartnerCount.kit_id) == kit_id)
    ).one()
