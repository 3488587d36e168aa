"""Packs and dispatches kits scan by scan, and takes in what the courier says of their parcels.

The bench has no memory of its own: which kit a packer has open, and what was scanned of it, is read
from the kit's events. A kit is dispatched by the scan of its outer label, whole, in one transaction,
with every text that is then owed.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from models.actions import collection, event, owed
from models.actions.journey_texts import FIRST, owe_agreed, reminders_of, tells
from models.actions.kit import ENDS, is_void, move_kit
from models.actions.stock import recalled_part
from models.rules.clinic import CaseKind
from models.rules.errors import Code, ServiceError
from models.rules.kit import AWAITING_RETURN, KitState, may_move, show_kit_code, show_tube_code
from models.rules.parcel import (
    ENDED,
    MOVED,
    Bench,
    BenchVerdict,
    Label,
    ReturnVerdict,
    Scanned,
    due_back_on,
    judge_return,
    judge_scan,
    lapse_of,
    merge,
    probably_delivered_at,
    read_label,
    reminder_arm,
)
from models.rules.secrets import Cipher
from models.rules.service import Service, Services
from models.rules.text import KitLapsed, KitPosted, TextPurpose
from models.rules.vocabulary import ScanKind
from models.rules.working_days import london_day
from models.tables.bulk import cursor
from models.tables.clinic import ClinicCase
from models.tables.kit import Kit
from models.tables.parcel import CourierEvent, Direction, Parcel

_UNSENT_ONCE_BACK: Final = (
    TextPurpose.KIT_POSTED, TextPurpose.KIT_READY, TextPurpose.RETURN_REMINDER, TextPurpose.KIT_LAPSED
)  # fmt: skip
"""Texts that no longer hold once the parcel was posted back."""


# ── At the packing bench ─────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ScanAnswer:
    """What the packer is told of one scan: may the hands go on, and one sentence."""

    fine: bool
    sentence: str
    kit_code: str = ""
    dispatched: bool = False


def scan(
    session: Session, text: str, *, services: Services, now: datetime, actor: str, cipher: Cipher, bench: str = ""
) -> ScanAnswer:
    """Takes one scan of an actor at a bench: opens a kit, adds a piece to it, blocks it, or dispatches it.

    A kit of a service that is not among `services` is no kit for this actor.
    """
    at = _Place(actor, bench)
    read = read_label(text)
    if read is None:
        return ScanAnswer(fine=False, sentence="This is no code of ours, or it was misread: scan it again.")
    if read.label is Label.FORM:
        kit = session.exec(
            select(Kit).where(Kit.code == read.code, col(Kit.service_id).in_(services)).with_for_update()
        ).one_or_none()
        if kit is None and is_void(session, read.code):
            return ScanAnswer(
                fine=False, sentence=f"The paper of kit {show_kit_code(read.code)} is void for ever: destroy it."
            )
        if kit is None:
            return ScanAnswer(fine=False, sentence=f"There is no kit {show_kit_code(read.code)}: set the form aside.")
        return _scan_form(session, kit, now=now, at=at)
    kit = _open_kit(session, at)
    if kit is None or kit.service_id not in services:
        return _scan_without_kit(session, read)
    table = _bench(session, kit, at)
    verdict = judge_scan(table, read)
    number = read.code if read.label is Label.RETURN else table.scanned_return
    if verdict in {BenchVerdict.OK, BenchVerdict.DISPATCH} and number and _is_taken(session, number, kit):
        # Scanned at two benches: whoever dispatches first has it.
        read, verdict = Scanned(Label.RETURN, number), BenchVerdict.WRONG
    if verdict is BenchVerdict.DISPATCH:
        service = services[kit.service_id].service
        with session.begin_nested():  # whoever catches the conflict finds nothing half done
            pair_and_dispatch(
                session, kit, return_number=number, service=service, now=now, actor=actor, cipher=cipher, bench=bench
            )
    return _answer(session, kit, table, read, verdict, now=now, at=at)


def on_the_bench(session: Session, *, actor: str, bench: str) -> Bench | None:
    """What one person has open at one bench, and what was scanned of it."""
    at = _Place(actor, bench)
    kit = _open_kit(session, at)
    return _bench(session, kit, at) if kit is not None else None


def pair_and_dispatch(
    session: Session,
    kit: Kit,
    *,
    return_number: str,
    service: Service,
    now: datetime,
    actor: str,
    cipher: Cipher,
    bench: str = "",
) -> None:
    """Pairs a printed kit with its return label and dispatches it, with every text and request owed from now on.

    Raises ServiceError(CONFLICT) when the label is on another parcel, or the kit is not waiting to be packed.
    """
    assert kit.id is not None  # a stored row
    if kit.expires_on is None:
        raise ServiceError(Code.CONFLICT, f"Kit {show_kit_code(kit.code)} was not printed.", ref=kit.code)
    if component := recalled_part(session, kit.id):
        raise ServiceError(
            Code.CONFLICT,
            f"Kit {show_kit_code(kit.code)} holds a recalled {component}: set it aside.",
            ref=kit.code,
        )
    try:
        with session.begin_nested():
            session.execute(
                sa.update(Parcel)
                .where(col(Parcel.kit_id) == kit.id, col(Parcel.direction) == Direction.BACK)
                .values(tracking_number=return_number)
            )
    except IntegrityError:
        raise ServiceError(
            Code.CONFLICT,
            f"The return label of kit {show_kit_code(kit.code)} is on another parcel: take a new one.",
            ref=kit.code,
        ) from None
    at_counter = collection.longest_wait(session, kit, service)
    due_back = due_back_on(now + at_counter, kit.expires_on, service.packing)
    kit.due_back_on = due_back
    kit.reminder_arm = reminder_arm(kit.code, service.returns.split)
    move_kit(
        session,
        kit,
        KitState.DISPATCHED,
        at=now,
        actor=actor,
        return_number=return_number,
        due_back_on=due_back.isoformat(),
        bench=bench,
    )
    owed.owe_lab_request(session, kit_id=kit.id, service=service, lab=kit.lab, now=now)
    if collection.set_out(session, kit, now=now):
        return  # its person is told when it waits at the counter
    posted = owed.OwedText(kit.order_id, kit.id, kit.contact_id, KitPosted(due_back), tells(kit, FIRST))
    in_hands_at = probably_delivered_at(now, service.returns)
    owe_agreed(
        session,
        [posted, *reminders_of(kit, in_hands_at=in_hands_at, service=service)],
        service=service,
        now=now,
        cipher=cipher,
    )


def came_back_to_sender(
    session: Session, kit: Kit, *, service: Service, at: datetime, now: datetime, actor: str
) -> None:
    """The outbound parcel could not be delivered: the kit ends, its texts stop, a packer asks for a better address."""
    assert kit.id is not None  # a stored row
    if may_move(kit.state, KitState.RETURNED_TO_SENDER):
        move_kit(session, kit, KitState.RETURNED_TO_SENDER, at=at, actor=actor, reason="not_delivered")
        owed.cancel_texts(session, [kit.id], because="returned_to_sender", now=now, purposes=_UNSENT_ONCE_BACK)
    _open_case(session, kit, "returned_to_sender", service=service, now=now, actor=actor)


def scan_returned(session: Session, text: str, *, services: Services, now: datetime, actor: str) -> ScanAnswer:
    """Takes the outer label of a box that the post brought back to us, see `came_back_to_sender`."""
    read = read_label(text)
    parcel = (
        read
        and session.exec(
            select(Parcel).where(Parcel.code == read.code, Parcel.direction == Direction.OUT)
        ).one_or_none()
    )
    if not parcel:
        return ScanAnswer(fine=False, sentence="This is no outer label of ours: scan the one with the address.")
    kit = session.exec(select(Kit).where(Kit.id == parcel.kit_id).with_for_update()).one()
    shown = show_kit_code(kit.code)
    if kit.dispatched_at is None:
        return ScanAnswer(fine=False, sentence=f"Kit {shown} was never dispatched.", kit_code=kit.code)
    unopened, was_out = collection.take_back(session, kit, now=now, actor=actor), kit.state not in ENDS
    if unopened and not was_out:
        told = f"Kit {shown} came back from its counter: its parts are stock again. Take them out, destroy its paper."
        return ScanAnswer(fine=True, sentence=told, kit_code=kit.code)
    came_back_to_sender(session, kit, service=services[kit.service_id].service, at=now, now=now, actor=actor)
    return ScanAnswer(fine=True, sentence=f"Kit {shown} came back: a case asks for its address.", kit_code=kit.code)


def _scan_form(session: Session, kit: Kit, *, now: datetime, at: "_Place") -> ScanAnswer:
    shown = show_kit_code(kit.code)
    match kit.state:
        case KitState.PRINTED:
            pass
        case KitState.TO_PACK:
            return ScanAnswer(fine=False, sentence=f"The paper of kit {shown} is void: destroy it and wait for new.")
        case KitState.QUARANTINED:
            told = f"Kit {shown} is set aside: see why on the packing page before you pack it."
            return ScanAnswer(fine=False, sentence=told, kit_code=kit.code)
        case KitState.CANCELLED:
            return ScanAnswer(fine=False, sentence=f"Kit {shown} was cancelled: destroy its paper.")
        case _:
            return ScanAnswer(fine=True, sentence=f"Kit {shown} was dispatched already.", kit_code=kit.code)
    open_kit = _open_kit(session, at)
    if open_kit is not None and open_kit.id == kit.id:
        bench = _bench(session, kit, at)
        if judge_scan(bench, Scanned(Label.FORM, kit.code)) is BenchVerdict.AGAIN:
            return ScanAnswer(fine=True, sentence=f"Kit {shown} is open: {_still(bench)}.", kit_code=kit.code)
    _record(session, kit, "pack.opened", Scanned(Label.FORM, kit.code), now=now, at=at)
    session.flush()
    told = f"Kit {shown}: {_still(_bench(session, kit, at))}."
    if open_kit is not None and open_kit.id != kit.id:
        told += f" Kit {show_kit_code(open_kit.code)} was left unfinished: start it again from its form."
    return ScanAnswer(fine=True, sentence=told, kit_code=kit.code)


def _scan_without_kit(session: Session, read: Scanned) -> ScanAnswer:
    if read.label is Label.OUTER:
        kit = session.exec(
            select(Kit).join(Parcel, col(Parcel.kit_id) == col(Kit.id)).where(Parcel.code == read.code)
        ).one_or_none()
        if kit is None:
            return ScanAnswer(fine=False, sentence="There is no such parcel: set the label aside.")
        if kit.dispatched_at is not None:
            return ScanAnswer(fine=True, sentence="This parcel was dispatched already.", kit_code=kit.code)
    return ScanAnswer(fine=False, sentence="No kit is open: scan the kit's request form first.")


def _answer(
    session: Session, kit: Kit, bench: Bench, read: Scanned, verdict: BenchVerdict, *, now: datetime, at: "_Place"
) -> ScanAnswer:
    """Keeps what the scan proved, and says it."""
    shown = show_kit_code(kit.code)
    match verdict:
        case BenchVerdict.OK:
            _record(session, kit, "pack.scanned", read, now=now, at=at)
            scanned = replace(bench, scanned=bench.scanned | {read})
            told = f"{_named(read)} belongs to kit {shown}: {_still(scanned)}."
            return ScanAnswer(fine=True, sentence=told, kit_code=kit.code)
        case BenchVerdict.AGAIN:
            told = f"{_named(read)} was scanned already: {_still(bench)}."
            return ScanAnswer(fine=True, sentence=told, kit_code=kit.code)
        case BenchVerdict.WRONG:
            _record(session, kit, "pack.wrong", read, now=now, at=at)
            told = f"{_named(read)} does NOT belong to kit {shown}: stop, take it out, scan the form of {shown} again."
            return ScanAnswer(fine=False, sentence=told, kit_code=kit.code)
        case BenchVerdict.BLOCKED:
            told = f"Kit {shown} is blocked by a wrong piece: scan its request form to start it again."
            return ScanAnswer(fine=False, sentence=told, kit_code=kit.code)
        case BenchVerdict.MISSING:
            return ScanAnswer(fine=False, sentence=f"Not yet: for kit {shown}, {_still(bench)}.", kit_code=kit.code)
        case BenchVerdict.DISPATCH:
            return ScanAnswer(
                fine=True, sentence=f"Kit {shown} is whole and dispatched.", kit_code=kit.code, dispatched=True
            )


@dataclass(frozen=True, slots=True)
class _Place:
    """Who scans, and where: two people, or two benches, never mix their pieces."""

    actor: str
    bench: str


def _open_kit(session: Session, at: _Place) -> Kit | None:
    """The printed kit that was opened last here and has not been dispatched, locked."""
    on = cursor(session)
    on.execute(
        """
        SELECT kind, kit_id FROM kit_event
        WHERE actor = %s AND coalesce(detail ->> 'bench', '') = %s AND kind IN ('pack.opened', 'kit.dispatched')
        ORDER BY id DESC LIMIT 1
        """,
        (at.actor, at.bench),
    )
    last = on.fetchone()
    if last is None or last[0] != "pack.opened":
        return None
    kit = session.get(Kit, last[1], with_for_update=True, populate_existing=True)
    return kit if kit is not None and kit.state is KitState.PRINTED else None


def _bench(session: Session, kit: Kit, at: _Place) -> Bench:
    """What was scanned here of a kit since it was opened last."""
    scanned: set[Scanned] = set()
    blocked = False
    on = cursor(session)
    on.execute(
        """
        SELECT kind, detail ->> 'label', detail ->> 'code' FROM kit_event
        WHERE kit_id = %s AND actor = %s AND coalesce(detail ->> 'bench', '') = %s AND starts_with(kind, 'pack.')
        ORDER BY id
        """,
        (kit.id, at.actor, at.bench),
    )
    for kind, label, code in on:
        match kind:
            case "pack.opened":
                scanned, blocked = set(), False
            case "pack.scanned":
                scanned.add(Scanned(Label(label), code))
            case _:
                blocked = True
    on.execute(
        """
        SELECT outward.code, back.tracking_number, ARRAY(SELECT tube_code FROM kit_sample WHERE kit_id = outward.kit_id)
        FROM parcel outward JOIN parcel back ON back.kit_id = outward.kit_id AND back.direction = 'back'
        WHERE outward.kit_id = %s AND outward.direction = 'out'
        """,
        (kit.id,),
    )
    [(outer_code, return_number, tubes)] = on.fetchall()
    return Bench(
        kit_code=kit.code,
        tubes=frozenset(tubes),
        outer_code=outer_code,
        return_number=return_number,
        scanned=frozenset(scanned),
        blocked=blocked,
    )


def _is_taken(session: Session, number: str, kit: Kit) -> bool:
    """Whether a return label is on another kit's parcel, or was on paper that is void."""
    if is_void(session, number):
        return True
    other = select(Parcel.id).where(Parcel.tracking_number == number, Parcel.kit_id != kit.id)
    return session.exec(other).first() is not None


def _record(session: Session, kit: Kit, kind: str, read: Scanned, *, now: datetime, at: _Place) -> None:
    assert kit.id is not None  # a stored row
    event.record(
        session,
        kit_id=kit.id,
        service_id=kit.service_id,
        kind=kind,
        actor=at.actor,
        at=now,
        label=read.label.value,
        code=read.code,
        bench=at.bench,
    )


def _named(read: Scanned) -> str:
    match read.label:
        case Label.TUBE:
            return f"Tube {show_tube_code(read.code)}"
        case Label.RETURN:
            return f"Return label {read.code}"
        case Label.OUTER:
            return f"Outer label {read.code}"
        case Label.FORM:
            return f"Form {show_kit_code(read.code)}"


def _still(bench: Bench) -> str:
    tubes, labels = bench.missing.count(Label.TUBE), bench.missing.count(Label.RETURN)
    wanted = [f"{tubes} tube{'s' if tubes > 1 else ''}"] if tubes else []
    wanted += ["the return label"] if labels else []
    return f"scan {' and '.join(wanted)}" if wanted else "scan the outer label to dispatch it"


# ── On the way ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class CourierScan:
    """One courier event of one of our parcels. `raw_code` is the courier's own word."""

    parcel_id: int
    kind: ScanKind
    raw_code: str
    occurred_at: datetime


def parcels_to_ask(session: Session, *, asked_before: datetime, limit: int) -> list[tuple[int, str]]:
    """(id, tracking number) of parcels that may have moved since they were asked about, the longest ago first.

    Nothing is asked of a parcel that arrived, or of a kit whose sample or end we know of already. A
    lapsed kit is asked about while it can be used: it may still come.
    """
    rows = session.exec(
        select(Parcel.id, Parcel.tracking_number)
        .join(Kit, col(Kit.id) == col(Parcel.kit_id))
        .where(
            Parcel.tracking_number != "",
            col(Parcel.status).not_in(ENDED),
            sa.or_(col(Parcel.polled_at).is_(None), col(Parcel.polled_at) < asked_before),
            sa.or_(
                col(Kit.state).in_([KitState.DISPATCHED, KitState.COMING_BACK]),
                sa.and_(col(Kit.state) == KitState.LAPSED, col(Kit.expires_on) >= london_day(asked_before)),
            ),
        )
        .order_by(col(Parcel.polled_at).nulls_first(), col(Parcel.id))
        .limit(limit)
    )
    return [(parcel_id, number) for parcel_id, number in rows if parcel_id is not None]


def take_scans(
    session: Session,
    asked: Sequence[int],
    scans: Iterable[CourierScan],
    *,
    services: Services,
    now: datetime,
    actor: str,
) -> int:
    """Stores what the courier said of these parcels and says how many events are new.

    Parcels and kits only move forward; the same events in any order, any number of times, end the same.
    """
    kits = _locked_kits(session, asked)
    parcels = session.exec(select(Parcel).where(col(Parcel.id).in_(asked)).order_by(col(Parcel.id)).with_for_update())
    new = _store(session, scans)
    for parcel in parcels:
        assert parcel.id is not None  # a stored row
        parcel.polled_at = now
        kit = kits[parcel.kit_id]
        before = parcel.status
        for each in new.get(parcel.id, ()):
            parcel.status = merge(parcel.status, each.kind)
            if each.kind in MOVED:
                parcel.first_scan_at = min(parcel.first_scan_at or each.occurred_at, each.occurred_at)
                parcel.last_scan_at = max(parcel.last_scan_at or each.occurred_at, each.occurred_at)
        session.add(parcel)
        session.flush()
        if parcel.status is not before:
            _tell(session, kit, parcel, now=now, actor=actor)
        if any(each.kind is ScanKind.UNKNOWN for each in new.get(parcel.id, ())):
            service = services[kit.service_id].service
            _open_case(session, kit, "unknown_scan", service=service, now=now, actor=actor)
        if new.get(parcel.id):
            _follow(session, kit, parcel, service=services[kit.service_id].service, now=now, actor=actor)
    return sum(map(len, new.values()))


def lapse_unreturned(
    session: Session, *, services: Services, now: datetime, limit: int, actor: str, cipher: Cipher
) -> int:
    """Ends kits whose last day has passed without a return scan, tells their people, and says how many.

    A kit whose return parcel has not been asked about since then waits: its scan may only be unread.
    """
    found = session.exec(
        select(Kit, Parcel)
        .join(Parcel, sa.and_(col(Parcel.kit_id) == col(Kit.id), col(Parcel.direction) == Direction.BACK))
        .where(col(Kit.state).in_(AWAITING_RETURN), col(Kit.due_back_on) < london_day(now))
        .where(sa.or_(col(Parcel.tracking_number) == "", col(Parcel.polled_at) > _day_after(Kit.due_back_on)))
        .order_by(col(Kit.id))
        .limit(limit)
        .with_for_update(of=Kit, skip_locked=True)
    ).all()
    lapsed = 0
    for kit, parcel in found:
        assert kit.id is not None  # a stored row
        assert kit.due_back_on is not None  # the query's condition
        service = services[kit.service_id].service
        verdict = judge_return(
            now=now,
            lapses_at=lapse_of(kit.due_back_on),
            posted_back_at=parcel.first_scan_at,
            last_scan_at=parcel.last_scan_at,
            policy=service.returns,
        )
        if verdict is not ReturnVerdict.LAPSE:
            continue
        move_kit(session, kit, KitState.LAPSED, at=now, actor=actor, reason="not_returned")
        owed.cancel_texts(session, [kit.id], because="kit_lapsed", now=now, purposes=[TextPurpose.RETURN_REMINDER])
        owe_agreed(
            session,
            [owed.OwedText(kit.order_id, kit.id, kit.contact_id, KitLapsed(), tells(kit, FIRST))],
            service=service,
            now=now,
            cipher=cipher,
        )
        lapsed += 1
    return lapsed


def report_stuck(session: Session, *, service: Service, now: datetime, limit: int, actor: str) -> int:
    """Gives a council's parcels that have been silent too long to a person, each once. Says how many.

    Of parcels on their way out those that a courier has scanned: of others no scan is missed.
    """
    stuck = _report_silent_outbound(session, service=service, now=now, limit=limit, actor=actor)
    silent_since = now - timedelta(days=service.returns.no_movement_days)
    about = sa.literal("kit:").concat(sa.cast(col(Kit.id), sa.Text)).concat(":stuck")
    found = session.exec(
        select(Kit, Parcel)
        .join(Parcel, sa.and_(col(Parcel.kit_id) == col(Kit.id), col(Parcel.direction) == Direction.BACK))
        .where(
            Kit.service_id == service.id,
            Kit.state == KitState.COMING_BACK,
            sa.func.coalesce(col(Parcel.last_scan_at), col(Kit.posted_back_at)) < silent_since,
            ~sa.exists().where(col(ClinicCase.key) == about),
        )
        .order_by(col(Kit.id))
        .limit(limit)
        .with_for_update(of=Kit, skip_locked=True)
    ).all()
    for kit, parcel in found:
        assert kit.due_back_on is not None  # dispatched
        verdict = judge_return(
            now=now,
            lapses_at=lapse_of(kit.due_back_on),
            posted_back_at=kit.posted_back_at,
            last_scan_at=parcel.last_scan_at,
            policy=service.returns,
        )
        if verdict is ReturnVerdict.STUCK:
            _open_case(session, kit, "stuck", service=service, now=now, actor=actor)
            stuck += 1
    return stuck


def _report_silent_outbound(session: Session, *, service: Service, now: datetime, limit: int, actor: str) -> int:
    about = sa.literal("kit:").concat(sa.cast(col(Kit.id), sa.Text)).concat(":silent_outbound")
    kits = session.exec(
        select(Kit)
        .join(Parcel, sa.and_(col(Parcel.kit_id) == col(Kit.id), col(Parcel.direction) == Direction.OUT))
        .where(
            Kit.service_id == service.id,
            Kit.state == KitState.DISPATCHED,
            col(Parcel.status).not_in(ENDED),
            col(Parcel.last_scan_at) < now - timedelta(days=service.returns.outbound_days),
            ~sa.exists().where(col(ClinicCase.key) == about),
        )
        .order_by(col(Kit.id))
        .limit(limit)
        .with_for_update(of=Kit, skip_locked=True)
    ).all()
    for kit in kits:
        _open_case(session, kit, "silent_outbound", service=service, now=now, actor=actor)
    return len(kits)


def _locked_kits(session: Session, parcel_ids: Sequence[int]) -> dict[int, Kit]:
    """The kits of these parcels, locked in the order that every transaction keeps (ruling 2)."""
    ids = select(Parcel.kit_id).where(col(Parcel.id).in_(parcel_ids))
    rows = session.exec(select(Kit).where(col(Kit.id).in_(ids)).order_by(col(Kit.id)).with_for_update())
    return {kit.id: kit for kit in rows if kit.id is not None}


def _store(session: Session, scans: Iterable[CourierScan]) -> dict[int, list[CourierScan]]:
    """Keeps the events that are new, by parcel."""
    wanted = {(each.parcel_id, each.raw_code, each.occurred_at): each for each in scans}
    if not wanted:
        return {}
    stored = session.execute(
        insert(CourierEvent)
        .values(
            [
                {
                    "parcel_id": each.parcel_id,
                    "kind": each.kind,
                    "raw_code": each.raw_code,
                    "occurred_at": each.occurred_at,
                }
                for each in wanted.values()
            ]
        )
        .on_conflict_do_nothing(index_elements=["parcel_id", "raw_code", "occurred_at"])
        .returning(col(CourierEvent.parcel_id), col(CourierEvent.raw_code), col(CourierEvent.occurred_at))
    )
    new: dict[int, list[CourierScan]] = defaultdict(list)
    for parcel_id, raw_code, occurred_at in stored:
        new[parcel_id].append(wanted[parcel_id, raw_code, occurred_at])
    return new


def _follow(session: Session, kit: Kit, parcel: Parcel, *, service: Service, now: datetime, actor: str) -> None:
    """What a parcel's new place means for its kit."""
    assert kit.id is not None  # a stored row
    if parcel.direction is Direction.OUT:
        if parcel.status is ScanKind.RETURNED_TO_SENDER:
            at = parcel.last_scan_at or now
            came_back_to_sender(session, kit, service=service, at=at, now=now, actor=actor)
        return
    if parcel.first_scan_at is None:
        return
    if kit.state in {KitState.DISPATCHED, KitState.LAPSED}:
        move_kit(session, kit, KitState.COMING_BACK, at=parcel.first_scan_at, actor=actor)
    elif kit.posted_back_at is None or parcel.first_scan_at < kit.posted_back_at:
        kit.posted_back_at = parcel.first_scan_at
        session.add(kit)
    owed.cancel_texts(session, [kit.id], because="posted_back", now=now, purposes=_UNSENT_ONCE_BACK)
    if parcel.status in {ScanKind.RETURNING, ScanKind.RETURNED_TO_SENDER}:
        _open_case(session, kit, "refused_by_lab", service=service, now=now, actor=actor)


def _tell(session: Session, kit: Kit, parcel: Parcel, *, now: datetime, actor: str) -> None:
    assert kit.id is not None  # a stored row
    event.record(
        session,
        kit_id=kit.id,
        service_id=kit.service_id,
        kind=f"parcel.{parcel.status.value}",
        actor=actor,
        at=parcel.last_scan_at or now,
        direction=parcel.direction.value,
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


def _day_after(day: object) -> sa.ColumnElement[datetime]:
    """The London midnight that ends a date column's day: `lapse_of` in SQL."""
    return sa.func.timezone("Europe/London", sa.cast(day, sa.DateTime) + sa.text("interval '1 day'"))
