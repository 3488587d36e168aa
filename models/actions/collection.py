"""Parcels that wait at a counter: booked in, handed over for a code, sent back after their time, stock again.

A counter knows parcels by the random code on their outer label; nothing here tells it whose they are. Locks are taken
kit first, as everywhere (ruling 2).
"""

import secrets
from collections.abc import Collection as Several
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlmodel import Session, col, select

from models.actions import audit, event, owed
from models.actions.journey_texts import agreed_to_texts, owe_agreed, reminders_of
from models.actions.kit import ENDS, move_kit
from models.actions.stock import hand_back_parts, recalled_part
from models.rules.clinic import CaseKind
from models.rules.collection import (
    COLLECTION_MOVES,
    CollectionState,
    new_collection_code,
    read_collection_code,
    show_collection_code,
    told_again_at,
    waits_until,
)
from models.rules.errors import Code, ServiceError
from models.rules.kit import KitState, show_kit_code
from models.rules.parcel import Label, due_back_on, read_label
from models.rules.secrets import COLLECTION, BlindIndex, Cipher
from models.rules.service import Service, Services
from models.rules.text import CollectionCode, KitReady, PlaceName, TextPurpose
from models.rules.working_days import london_day
from models.tables.clinic import ClinicCase
from models.tables.collection import Collection
from models.tables.kit import Kit
from models.tables.parcel import Direction, Parcel
from models.tables.person import Contact

_GOES_BACK: Final = "It is not to be handed out any more: send it back to us unopened."
_NO_SUCH_PARCEL: Final = (
    "This is no parcel of ours: scan the label with the address, and set it aside if it says so again."
)


@dataclass(frozen=True, slots=True)
class CounterAnswer:
    """What a counter is told: may the hands go on, and one sentence. `parcel` is the one to fetch for a code."""

    fine: bool
    sentence: str
    parcel: str = ""


def longest_wait(session: Session, kit: Kit, service: Service) -> timedelta:
    """How long after its dispatch a kit may be fetched at its counter; nothing for one that goes to its person.

    It lapses neither on its way nor while it waits: its last day is counted from then, and anew at every step.
    """
    return timedelta(days=service.collection.longest_days if _counter_of(session, kit) else 0)


def set_out(session: Session, kit: Kit, *, now: datetime) -> bool:
    """A kit that was just dispatched goes to a counter, where its person chose one."""
    point = _counter_of(session, kit)
    if not point:
        return False
    session.add(Collection(service_id=kit.service_id, kit_id=_id(kit), point=point, dispatched_at=now))
    session.flush()
    return True


def book_in(
    session: Session,
    text: str,
    *,
    point: str,
    services: Services,
    now: datetime,
    actor: str,
    cipher: Cipher,
    indexes: BlindIndex,
) -> CounterAnswer:
    """A parcel came to a counter: it waits from now on, and its person is sent the code. Safe to repeat."""
    found = _by_parcel(session, text, services)
    if found is None:
        return CounterAnswer(fine=False, sentence=_NO_SUCH_PARCEL)
    kit, row, parcel = found
    service = services[kit.service_id].service
    if row.point != point:
        other = service.collection.point(row.point)
        name = other.name if other else "another counter"
        return CounterAnswer(
            fine=False, sentence=f"Parcel {parcel} is for {name}: keep it apart, and call {service.phone}."
        )
    match row.state:
        case CollectionState.WAITING:
            return CounterAnswer(fine=True, sentence=f"Parcel {parcel} is booked in already.")
        case CollectionState.COLLECTED:
            return CounterAnswer(fine=False, sentence=f"Parcel {parcel} was handed over already: call {service.phone}.")
        case CollectionState.NOT_COLLECTED | CollectionState.BACK:
            return CounterAnswer(fine=False, sentence=f"Parcel {parcel}: {_GOES_BACK}")
        case CollectionState.ON_THE_WAY:
            pass
    row.arrived_at = now
    if kit.state is not KitState.DISPATCHED:  # cancelled, replaced or given up while it was on its way
        _move(session, kit, row, CollectionState.NOT_COLLECTED, now=now, actor=actor)
        return CounterAnswer(fine=False, sentence=f"Parcel {parcel}: {_GOES_BACK}")
    row.hold_until = waits_until(now, service.collection)
    _move(session, kit, row, CollectionState.WAITING, now=now, actor=actor, hold_until=row.hold_until.isoformat())
    _due_back(session, kit, after=now + timedelta(days=service.collection.hold_days), service=service)
    _give_code(session, kit, row, service=service, now=now, actor=actor, cipher=cipher, indexes=indexes)
    return CounterAnswer(fine=True, sentence=f"Parcel {parcel} is booked in: keep it until {_day(row.hold_until)}.")


def find_parcel(
    session: Session, code: str, *, services: Services, now: datetime, actor: str, indexes: BlindIndex
) -> CounterAnswer:
    """Which parcel a code fetches. A code that fetches none is taken down: somebody may be guessing."""
    found = _by_code(session, code, services, indexes)
    if found is None:
        _take_down(session, services, now=now, actor=actor)
        return CounterAnswer(
            fine=False, sentence="No parcel waits under this code: take it once more, letter by letter."
        )
    kit, row = found
    refused = _refusal(session, kit, row, now)
    if refused:
        return CounterAnswer(fine=False, sentence=refused)
    parcel = _parcel_code(session, kit)
    return CounterAnswer(
        fine=True, sentence=f"Fetch parcel {parcel}, and scan it before you hand it over.", parcel=parcel
    )


def hand_over(
    session: Session,
    code: str,
    text: str,
    *,
    services: Services,
    now: datetime,
    actor: str,
    cipher: Cipher,
    indexes: BlindIndex,
) -> CounterAnswer:
    """Hands a parcel over to whoever said its code: only if the parcel in the hand is the code's own.

    From now on its person has the kit: its last day and its reminders are counted from here.
    """
    found = _by_code(session, code, services, indexes)
    if found is None:
        return find_parcel(session, code, services=services, now=now, actor=actor, indexes=indexes)
    kit, row = found
    service = services[kit.service_id].service
    refused = _refusal(session, kit, row, now)
    if refused:
        return CounterAnswer(fine=False, sentence=refused)
    read, parcel = read_label(text), _parcel_code(session, kit)
    if read is None or read.label is not Label.OUTER or read.code != parcel:
        event.record(
            session,
            kit_id=_id(kit),
            service_id=kit.service_id,
            kind="collection.wrong_parcel",
            actor=actor,
            at=now,
            scanned=read.code if read else "",
        )
        told = f"STOP: this is not the parcel of that code. Fetch parcel {parcel}."
        return CounterAnswer(fine=False, sentence=told, parcel=parcel)
    row.collected_at = now
    _move(session, kit, row, CollectionState.COLLECTED, now=now, actor=actor)
    _due_back(session, kit, after=now, service=service)
    owed.cancel_texts(session, [_id(kit)], because="collected", now=now, purposes=[TextPurpose.KIT_READY])
    owe_agreed(session, reminders_of(kit, in_hands_at=now, service=service), service=service, now=now, cipher=cipher)
    return CounterAnswer(fine=True, sentence=f"Parcel {parcel} is handed over.")


def new_code(
    session: Session,
    kit_code: str,
    *,
    services: Services,
    now: datetime,
    actor: str,
    cipher: Cipher,
    indexes: BlindIndex,
) -> str:
    """Gives a waiting parcel another code; the old one is worthless from then on. Returns it only to be read out.

    Where texts reach the person it goes by text, and '' is returned. Raises ServiceError(NOT_FOUND), or
    ServiceError(CONFLICT) for a kit that does not wait at a counter.
    """
    kit = session.exec(
        select(Kit).where(Kit.code == kit_code, col(Kit.service_id).in_(services)).with_for_update()
    ).one_or_none()
    if kit is None:
        raise ServiceError(Code.NOT_FOUND, f"There is no kit {show_kit_code(kit_code)}.", ref=kit_code)
    row = _row(session, kit)
    if row is None or row.state is not CollectionState.WAITING or kit.state is not KitState.DISPATCHED:
        raise ServiceError(Code.CONFLICT, f"Kit {show_kit_code(kit_code)} waits at no counter.", ref=kit_code)
    service = services[kit.service_id].service
    code, by_text = _give_code(session, kit, row, service=service, now=now, actor=actor, cipher=cipher, indexes=indexes)
    return "" if by_text else show_collection_code(code)


def end_uncollected(session: Session, *, services: Services, now: datetime, limit: int, actor: str) -> int:
    """Ends kits that nobody fetched in their time, and says how many. Their last text said until when."""
    rows = session.exec(
        select(Kit, Collection)
        .join(Collection, col(Collection.kit_id) == col(Kit.id))
        .where(
            col(Collection.service_id).in_(services),
            Collection.state == CollectionState.WAITING,
            col(Collection.hold_until) < london_day(now),
            Kit.state == KitState.DISPATCHED,
        )
        .order_by(col(Kit.id))
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    for kit, row in rows:
        _move(session, kit, row, CollectionState.NOT_COLLECTED, now=now, actor=actor)
        move_kit(session, kit, KitState.LAPSED, at=now, actor=actor, reason="not_collected")
        owed.cancel_texts(session, [_id(kit)], because="not_collected", now=now, purposes=[TextPurpose.KIT_READY])
    return len(rows)


_ENDED_BUT_THERE: Final = sa.and_(
    col(Collection.state).in_([CollectionState.WAITING, CollectionState.NOT_COLLECTED]), col(Kit.state).in_(ENDS)
)
"""At a counter, and not to be handed out: to be sent back."""


def report_missing(session: Session, *, service: Service, now: datetime, limit: int, actor: str) -> int:
    """Gives parcels that should be at a counter, or back from it, to a packer: each once. Says how many."""
    policy = service.collection
    late = {
        "not_at_counter": sa.and_(
            col(Collection.state) == CollectionState.ON_THE_WAY,
            col(Kit.state) == KitState.DISPATCHED,
            col(Collection.dispatched_at) < now - timedelta(days=policy.arrives_within_days),
        ),
        "not_back_from_counter": sa.and_(
            _ENDED_BUT_THERE,
            sa.func.coalesce(col(Collection.over_at), col(Kit.closed_at))
            < now - timedelta(days=policy.back_within_days),
        ),
    }
    reported = 0
    for why, which in late.items():
        key = sa.literal("kit:").concat(sa.cast(col(Kit.id), sa.Text)).concat(f":{why}")
        kits = session.exec(
            select(Kit)
            .join(Collection, col(Collection.kit_id) == col(Kit.id))
            .where(Collection.service_id == service.id, which, ~sa.exists().where(col(ClinicCase.key) == key))
            .order_by(col(Kit.id))
            .limit(limit)
            .with_for_update(of=Kit, skip_locked=True)
        ).all()
        for kit in kits:
            _open_case(session, kit, why, service=service, now=now, actor=actor)
        reported += len(kits)
    return reported


def take_back(session: Session, kit: Kit, *, now: datetime, actor: str) -> bool:
    """A box came back to us that was to wait at a counter. Unopened, so its parts are stock again.

    False for a kit that goes to its person, was handed over, or came back before. The kit is locked.
    """
    row = _row(session, kit)
    if row is None or CollectionState.BACK not in COLLECTION_MOVES[row.state] or kit.posted_back_at or kit.received_at:
        return False
    row.back_at = now
    _move(session, kit, row, CollectionState.BACK, now=now, actor=actor)
    hand_back_parts(session, _id(kit), now=now, actor=actor)
    return True


# ── Who waits where ──────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class AtCounter:
    """One parcel at a counter. Nothing about whose it is."""

    parcel: str
    arrived_at: datetime | None
    hold_until: date | None
    goes_back: bool


def at_counter(session: Session, *, service_id: str, point: str) -> list[AtCounter]:
    """The parcels that lie at one counter, those to be sent back first."""
    goes_back = _ENDED_BUT_THERE.label("goes_back")
    rows = session.execute(
        sa.select(col(Parcel.code), col(Collection.arrived_at), col(Collection.hold_until), goes_back)
        .join(Kit, col(Kit.id) == col(Collection.kit_id))
        .join(Parcel, sa.and_(col(Parcel.kit_id) == col(Kit.id), col(Parcel.direction) == Direction.OUT))
        .where(
            col(Collection.service_id) == service_id,
            col(Collection.point) == point,
            sa.or_(
                _ENDED_BUT_THERE,
                sa.and_(col(Collection.state) == CollectionState.WAITING, col(Kit.state) == KitState.DISPATCHED),
            ),
        )
        .order_by(goes_back.desc(), col(Collection.arrived_at), col(Collection.id))
    )
    return [AtCounter(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class CounterLine:
    """How many parcels are on their way to one counter, wait there, and are to come back."""

    point: str
    on_the_way: int
    waiting: int
    goes_back: int


def counters(session: Session, *, service_ids: Several[str]) -> dict[str, list[CounterLine]]:
    """The counters of each service that have something to do."""
    kit_is_out = col(Kit.state) == KitState.DISPATCHED
    counts = [
        sa.func.count().filter(which)
        for which in (
            sa.and_(col(Collection.state) == CollectionState.ON_THE_WAY, kit_is_out),
            sa.and_(col(Collection.state) == CollectionState.WAITING, kit_is_out),
            _ENDED_BUT_THERE,
        )
    ]
    rows = session.execute(
        sa.select(col(Collection.service_id), col(Collection.point), *counts)
        .join(Kit, col(Kit.id) == col(Collection.kit_id))
        .where(
            col(Collection.service_id).in_(service_ids),
            col(Collection.state).not_in([CollectionState.COLLECTED, CollectionState.BACK]),
        )
        .group_by(col(Collection.service_id), col(Collection.point))
        .order_by(col(Collection.service_id), col(Collection.point))
    )
    found: dict[str, list[CounterLine]] = {}
    for service_id, *line in rows:
        found.setdefault(service_id, []).append(CounterLine(*line))
    return found


# ── The parts of it ──────────────────────────────────────────────────────────────────────────


def _by_parcel(session: Session, text: str, services: Services) -> tuple[Kit, Collection, str] | None:
    """The kit, locked, and its way over a counter, by what a scanner read of the outer label."""
    read = read_label(text)
    if read is None or read.label is not Label.OUTER:
        return None
    kit = session.exec(
        select(Kit)
        .join(Parcel, col(Parcel.kit_id) == col(Kit.id))
        .where(Parcel.code == read.code, Parcel.direction == Direction.OUT, col(Kit.service_id).in_(services))
        .with_for_update(of=Kit)
    ).one_or_none()
    row = _row(session, kit) if kit else None
    return (kit, row, read.code) if kit and row else None


def _by_code(session: Session, text: str, services: Services, indexes: BlindIndex) -> tuple[Kit, Collection] | None:
    code = read_collection_code(text)
    if code is None:
        return None
    for service_id in services:
        kit_id = session.exec(
            select(Collection.kit_id).where(
                Collection.service_id == service_id,
                Collection.state == CollectionState.WAITING,
                col(Collection.code_digest).in_(indexes.live(COLLECTION, service_id, code)),
            )
        ).one_or_none()
        if kit_id is None:
            continue
        kit = session.exec(select(Kit).where(Kit.id == kit_id).with_for_update()).one()
        row = _row(session, kit)
        if row is not None and row.code_digest in indexes.live(COLLECTION, service_id, code):
            return kit, row
    return None


def _row(session: Session, kit: Kit) -> Collection | None:
    """A kit's way over a counter, as it is now that the kit is locked."""
    return session.exec(
        select(Collection)
        .where(Collection.kit_id == kit.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()


def _refusal(session: Session, kit: Kit, row: Collection, now: datetime) -> str:
    """Why a parcel must not be handed over, or ''."""
    assert row.hold_until is not None  # it waits
    if row.state is not CollectionState.WAITING or kit.state is not KitState.DISPATCHED:
        return f"Parcel {_parcel_code(session, kit)}: {_GOES_BACK}"
    if london_day(now) > row.hold_until:
        return f"Its time is over: it waited until {_day(row.hold_until)}. A new one can be ordered as before."
    assert kit.expires_on is not None  # printed
    if london_day(now) > kit.expires_on:  # its person is told when it lapses
        return f"Parcel {_parcel_code(session, kit)}: {_GOES_BACK}"
    if recalled_part(session, _id(kit)):
        return f"Parcel {_parcel_code(session, kit)} must not be handed out: set it aside. We get in touch."
    return ""


def _counter_of(session: Session, kit: Kit) -> str:
    """The counter that its person chose, or ''."""
    return session.get_one(Contact, kit.contact_id).collection_point


def _due_back(session: Session, kit: Kit, *, after: datetime, service: Service) -> None:
    """The last day to post a kit back, for somebody who has it `after` that time."""
    assert kit.expires_on is not None  # printed
    kit.due_back_on = due_back_on(after, kit.expires_on, service.packing)
    session.add(kit)
    session.flush()


def _parcel_code(session: Session, kit: Kit) -> str:
    return session.exec(select(Parcel.code).where(Parcel.kit_id == kit.id, Parcel.direction == Direction.OUT)).one()


def _give_code(
    session: Session,
    kit: Kit,
    row: Collection,
    *,
    service: Service,
    now: datetime,
    actor: str,
    cipher: Cipher,
    indexes: BlindIndex,
) -> tuple[str, bool]:
    """A fresh code, and the texts that carry it: now and, while nobody comes, again. Whether they can be sent."""
    code = _free_code(session, row.service_id, indexes)
    row.code_digest, row.codes = indexes.index(COLLECTION, row.service_id, code), row.codes + 1
    session.add(row)
    session.flush()
    assert row.arrived_at is not None  # it waits
    assert row.hold_until is not None
    owed.cancel_texts(session, [_id(kit)], because="new_code", now=now, purposes=[TextPurpose.KIT_READY])
    by_text = kit.contact_id in agreed_to_texts(session, [kit.contact_id])
    if by_text:
        owed.owe_texts(session, _texts(kit, row, code, service, now), service=service, now=now, cipher=cipher)
    elif row.codes == 1:
        _open_case(session, kit, "code_not_texted", service=service, now=now, actor=actor)
    audit.record(
        session,
        action="collection.code_given",
        subject="kit",
        subject_id=_id(kit),
        actor=actor,
        now=now,
        service_id=kit.service_id,
        by_text=by_text,
        codes=row.codes,
    )
    return code, by_text


def _texts(kit: Kit, row: Collection, code: str, service: Service, now: datetime) -> Sequence[owed.OwedText]:
    assert row.arrived_at is not None  # it waits
    assert row.hold_until is not None
    point = service.collection.point(row.point)
    where = PlaceName(point.told_as if point else service.text_name)
    says = KitReady(where, CollectionCode(code), row.hold_until)
    later = [at for at in told_again_at(row.arrived_at, service.collection) if at > now]
    return [
        owed.OwedText(
            kit.order_id, kit.id, kit.contact_id, says, f"kit:{kit.id}:code:{row.codes}:{number}", not_before=at
        )
        for number, at in enumerate([None, *later])
    ]


def _free_code(session: Session, service_id: str, indexes: BlindIndex) -> str:
    """A code under which nothing waits."""
    while True:
        code = new_collection_code(secrets.choice)
        taken = select(Collection.id).where(
            Collection.service_id == service_id,
            Collection.state == CollectionState.WAITING,
            col(Collection.code_digest).in_(indexes.live(COLLECTION, service_id, code)),
        )
        if session.exec(taken).first() is None:
            return code


def _move(
    session: Session,
    kit: Kit,
    row: Collection,
    to: CollectionState,
    *,
    now: datetime,
    actor: str,
    **detail: object,
) -> None:
    assert to in COLLECTION_MOVES[row.state], (row.state, to)
    row.state = to
    if to is CollectionState.NOT_COLLECTED:
        row.over_at = now
    session.add(row)
    session.flush()
    event.record(
        session,
        kit_id=_id(kit),
        service_id=kit.service_id,
        kind=f"collection.{to.value}",
        actor=actor,
        at=now,
        point=row.point,
        **detail,
    )


def _take_down(session: Session, services: Services, *, now: datetime, actor: str) -> None:
    for service_id in services:
        audit.record(
            session,
            action="collection.code_unknown",
            subject="service",
            subject_id=0,
            actor=actor,
            now=now,
            service_id=service_id,
        )


def _open_case(session: Session, kit: Kit, why: str, *, service: Service, now: datetime, actor: str) -> None:
    case = owed.OwedCase(
        key=f"kit:{kit.id}:{why}",
        kind=CaseKind.PARCEL,
        order_id=kit.order_id,
        kit_id=kit.id,
        detail={"why": why},
        reopen=False,
    )
    owed.owe_cases(session, [case], service=service, now=now, actor=actor)


def _day(day: date) -> str:
    return f"{day:%-d %B %Y}"


def _id(kit: Kit) -> int:
    assert kit.id is not None  # a stored row
    return kit.id
