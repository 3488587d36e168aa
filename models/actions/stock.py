"""Stock by lot: booked in and out with a reason, put into kits, and recalled from every kit that holds it."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col, select

from models.actions import audit, event, owed
from models.rules.clinic import CaseKind
from models.rules.errors import Code, ServiceError
from models.rules.kit import KitState
from models.rules.service import Service, Services
from models.rules.stock import Lot, Low, low_stock, must_outlive, parts_of, pick
from models.rules.text import TextPurpose
from models.rules.vocabulary import Specimen
from models.rules.working_days import london_day
from models.tables.kit import Kit, KitSample
from models.tables.stock import KitPart, StockLot, StockMove

NOT_LEFT: Final = frozenset({KitState.TO_PACK, KitState.PRINTED, KitState.QUARANTINED})
"""Kits that lie in our room: a packer looks after their recall. Anyone else's is a clinical matter."""


def receive_lot(
    session: Session,
    *,
    service: Service,
    component: str,
    lot: str,
    pieces: int,
    expires_on: date,
    now: datetime,
    actor: str,
) -> StockLot:
    """Books a delivery in. The same lot may come in several deliveries, under one expiry.

    Raises ServiceError(BAD_INPUT) for a component of no recipe, no pieces or a lot that has expired;
    ServiceError(CONFLICT) for a lot that is recalled, or known under another expiry.
    """
    if component not in {name for recipe in service.recipes for name in recipe.components}:
        raise ServiceError(Code.BAD_INPUT, f"No recipe of {service.id} holds a {component}: check its name.")
    if pieces < 1 or not lot.strip():
        raise ServiceError(Code.BAD_INPUT, "Say how many pieces came, and under which lot number.")
    if expires_on < london_day(now):
        raise ServiceError(Code.BAD_INPUT, f"Lot {lot} expired on {expires_on}: send it back.")
    session.execute(
        insert(StockLot)
        .values(
            ref=secrets.token_hex(16),
            service_id=service.id,
            component=component,
            lot=lot,
            expires_on=expires_on,
            on_hand=0,
            created_at=now,
        )
        .on_conflict_do_nothing(index_elements=["service_id", "component", "lot"])
    )
    row = _locked_lot(session, service_id=service.id, component=component, lot=lot)
    if row.recalled_at is not None:
        raise ServiceError(Code.CONFLICT, f"Lot {lot} of {component} is recalled: don't use it.")
    if row.expires_on != expires_on:
        raise ServiceError(Code.CONFLICT, f"Lot {lot} of {component} expires on {row.expires_on}: look again.")
    _move(session, row, pieces, because="received", now=now, actor=actor)
    return row


def adjust_lot(
    session: Session, *, service_id: str, component: str, lot: str, pieces: int, because: str, now: datetime, actor: str
) -> StockLot:
    """Corrects a lot by so many pieces, more or less, with a reason: counted, broken, thrown away.

    Raises ServiceError(NOT_FOUND), or ServiceError(BAD_INPUT) without a reason or for more than there are.
    """
    row = _locked_lot(session, service_id=service_id, component=component, lot=lot)
    if not because.strip() or pieces == 0:
        raise ServiceError(Code.BAD_INPUT, "Say by how many pieces, and why.")
    if row.on_hand + pieces < 0:
        raise ServiceError(Code.BAD_INPUT, f"There are only {row.on_hand} of {component} in lot {lot}.")
    _move(session, row, pieces, because=because.strip(), now=now, actor=actor)
    return row


@dataclass(frozen=True, slots=True)
class Recalled:
    """Where a recalled lot is."""

    in_our_room: int
    """Kits not dispatched: set aside, a packer's."""
    outside: int
    """Kits that left: each is a person's, and nothing about them is decided by itself any more."""


def recall_lot(
    session: Session, *, service: Service, component: str, lot: str, because: str, now: datetime, actor: str
) -> Recalled:
    """A maker or a laboratory says that a lot must not be used. Finds every kit that holds it; safe to repeat.

    Kits in our room are set aside. Whoever has one, or has sent one in, is a case for a health adviser:
    reminders stop, and no result of such a kit is released without a person.
    Raises ServiceError(NOT_FOUND), or ServiceError(BAD_INPUT) without a reason.
    """
    if not because.strip():
        raise ServiceError(Code.BAD_INPUT, "Say why the lot is recalled, and who says so.")
    row = _locked_lot(session, service_id=service.id, component=component, lot=lot)
    first = row.recalled_at is None
    row.recalled_at = row.recalled_at or now
    session.add(row)
    holds = select(KitPart.kit_id).where(KitPart.lot_id == row.id, KitPart.pieces > 0)
    kits = session.exec(select(Kit).where(col(Kit.id).in_(holds)).order_by(col(Kit.id)).with_for_update()).all()
    cases, outside = [], []
    for kit in kits:
        assert kit.id is not None  # a stored row
        here = kit.state in NOT_LEFT
        if kit.state is KitState.CANCELLED and kit.dispatched_at is None:
            continue
        if not here:
            outside.append(kit)
        cases.append(
            owed.OwedCase(
                key=f"recall:{row.ref}:{kit.id}",
                kind=CaseKind.PARCEL,
                order_id=kit.order_id,
                kit_id=kit.id,
                detail={"why": "lot_recalled", "component": component, "lot": lot},
                owner_role="" if here else "health_adviser",
                urgent=True,
                reopen=False,
            )
        )
        if first:
            event.record(
                session,
                kit_id=kit.id,
                service_id=kit.service_id,
                kind="stock.recalled",
                actor=actor,
                at=now,
                component=component,
                lot=lot,
            )
    owed.owe_cases(session, cases, service=service, now=now, actor=actor)
    for kit in outside:
        kit.frozen_at = kit.frozen_at or now
        session.add(kit)
    ids = [kit.id for kit in outside if kit.id is not None]
    owed.cancel_texts(session, ids, because="lot_recalled", now=now, purposes=[TextPurpose.RETURN_REMINDER])
    assert row.id is not None  # a stored row
    audit.record(
        session,
        action="stock.recalled",
        subject="stock_lot",
        subject_id=row.id,
        actor=actor,
        now=now,
        service_id=service.id,
        because=because.strip(),
        kits=len(cases),
    )
    return Recalled(len(cases) - len(outside), len(outside))


def equip_kits(session: Session, kits: Sequence[Kit], *, service: Service, now: datetime, size: int) -> list[Kit]:
    """Puts parts into up to `size` of these kits, in their order, and returns those that are whole.

    Each kit then expires with its first part. A kit that lacks a component stays where it is, untouched.
    """
    today = london_day(now)
    outlives = must_outlive(
        today,
        return_within_days=service.packing.return_within_days,
        days_to_dispatch=service.stock.days_to_dispatch + service.collection.longest_days,
    )
    rows = {
        row.id: row
        for row in session.exec(
            select(StockLot)
            .where(StockLot.service_id == service.id, col(StockLot.recalled_at).is_(None), StockLot.on_hand > 0)
            .order_by(col(StockLot.id))
            .with_for_update()
        )
        if row.id is not None
    }
    specimens: dict[int, set[Specimen]] = {kit.id: set() for kit in kits if kit.id is not None}
    for sample in session.exec(select(KitSample).where(col(KitSample.kit_id).in_(specimens))):
        specimens[sample.kit_id].add(sample.specimen)
    whole: list[Kit] = []
    for kit in kits:
        if len(whole) == size:
            break
        assert kit.id is not None  # a stored row
        wanted = parts_of(service.recipes, kit.lab, specimens[kit.id])
        picked = pick(map(_as_lot, rows.values()), wanted, outlives)
        if picked is None:
            continue
        for lot_id, pieces in picked.items():
            _move(session, rows[lot_id], -pieces, because="packed", now=now, actor="stock", kit_id=kit.id)
        _put_in(session, kit.id, picked)
        first_to_expire = min((rows[lot_id].expires_on for lot_id in picked), default=None)
        if kit.expires_on is not None and first_to_expire is not None:
            kit.expires_on = min(kit.expires_on, first_to_expire)
        whole.append(kit)
    session.flush()
    return whole


def hand_back_parts(session: Session, kit_id: int, *, now: datetime, actor: str) -> None:
    """Puts the parts of a kit that has not left back into their lots."""
    held = session.exec(
        select(KitPart, StockLot)
        .join(StockLot, col(StockLot.id) == col(KitPart.lot_id))
        .where(KitPart.kit_id == kit_id, KitPart.pieces > 0)
        .order_by(col(StockLot.id))
        .with_for_update()
    ).all()
    for part, row in held:
        _move(session, row, part.pieces, because="handed back", now=now, actor=actor, kit_id=kit_id)
        part.pieces = 0
        session.add(part)


def recalled_part(session: Session, kit_id: int) -> str:
    """A component of this kit whose lot is recalled, or ''."""
    found = session.exec(
        select(StockLot.component)
        .join(KitPart, col(KitPart.lot_id) == col(StockLot.id))
        .where(KitPart.kit_id == kit_id, KitPart.pieces > 0, col(StockLot.recalled_at).is_not(None))
        .limit(1)
    ).first()
    return found or ""


@dataclass(frozen=True, slots=True)
class LotLine:
    """One lot in a list."""

    service_id: str
    component: str
    lot: str
    expires_on: date
    on_hand: int
    in_kits: int
    """Pieces in kits that have not been handed back."""
    recalled_at: datetime | None
    usable: bool
    """Whether packing may take from it today."""


def list_lots(session: Session, *, services: Services, now: datetime) -> list[LotLine]:
    """Every lot of these services that holds anything or is in a kit, the earliest expiry first."""
    in_kits = sa.func.coalesce(
        select(sa.func.sum(KitPart.pieces)).where(KitPart.lot_id == StockLot.id).scalar_subquery(), 0
    )
    rows = session.exec(
        select(StockLot, in_kits)
        .where(col(StockLot.service_id).in_(services), sa.or_(col(StockLot.on_hand) > 0, in_kits > 0))
        .order_by(col(StockLot.service_id), col(StockLot.component), col(StockLot.expires_on), col(StockLot.lot))
    ).all()
    return [
        LotLine(
            row.service_id,
            row.component,
            row.lot,
            row.expires_on,
            row.on_hand,
            int(pieces),
            row.recalled_at,
            usable=row.recalled_at is None
            and row.on_hand > 0
            and row.expires_on >= _outlives(services[row.service_id].service, now),
        )
        for row, pieces in rows
    ]


def running_low(session: Session, *, services: Services, now: datetime) -> Mapping[str, list[Low]]:
    """By service, the components of which little that may be packed is left; nothing where no stock is kept."""
    found: dict[str, list[Low]] = {}
    for service_id, in_force in services.items():
        service = in_force.service
        if not service.stock.controlled:
            continue
        rows = session.exec(select(StockLot).where(StockLot.service_id == service_id)).all()
        if low := low_stock([_as_lot(row) for row in rows], service.stock, _outlives(service, now)):
            found[service_id] = low
    return found


def _outlives(service: Service, now: datetime) -> date:
    return must_outlive(
        london_day(now),
        return_within_days=service.packing.return_within_days,
        days_to_dispatch=service.stock.days_to_dispatch + service.collection.longest_days,
    )


def _as_lot(row: StockLot) -> Lot:
    assert row.id is not None  # a stored row
    return Lot(row.id, row.component, row.expires_on, row.on_hand, recalled=row.recalled_at is not None)


def _locked_lot(session: Session, *, service_id: str, component: str, lot: str) -> StockLot:
    row = session.exec(
        select(StockLot)
        .where(StockLot.service_id == service_id, StockLot.component == component, StockLot.lot == lot)
        .with_for_update()
    ).one_or_none()
    if row is None:
        raise ServiceError(Code.NOT_FOUND, f"There is no lot {lot} of {component} in {service_id}.")
    return row


def _move(
    session: Session,
    row: StockLot,
    pieces: int,
    *,
    because: str,
    now: datetime,
    actor: str,
    kit_id: int | None = None,
) -> None:
    row.on_hand += pieces
    session.add(row)
    assert row.id is not None  # a stored row
    session.add(
        StockMove(lot_id=row.id, kit_id=kit_id, pieces=pieces, because=because[:200], actor=actor, moved_at=now)
    )


def _put_in(session: Session, kit_id: int, picked: Mapping[int, int]) -> None:
    if not picked:
        return
    wanted = insert(KitPart).values(
        [{"kit_id": kit_id, "lot_id": lot_id, "pieces": pieces} for lot_id, pieces in sorted(picked.items())]
    )
    session.execute(
        wanted.on_conflict_do_update(index_elements=["kit_id", "lot_id"], set_={"pieces": wanted.excluded.pieces})
    )
