"""What happens at the packing benches: every scan kept once, whatever the line does, and kits set aside.

A bench may be offline for an hour. Its scans then come late, in order, some of them twice; each carries an
id that its page made, so that a scan that was taken already is only answered again.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlmodel import Session, col, select

from models.actions import owed
from models.actions.kit import move_kit
from models.actions.parcel import ScanAnswer, on_the_bench, scan
from models.rules.clinic import CaseKind
from models.rules.errors import Code, ServiceError
from models.rules.kit import KitState, show_kit_code
from models.rules.parcel import Bench, WhySetAside, read_label
from models.rules.secrets import Cipher
from models.rules.service import Services
from models.rules.vocabulary import Language, Specimen
from models.tables.bench import BenchScan
from models.tables.bulk import cursor
from models.tables.kit import Kit, KitEvent, KitSample
from models.tables.parcel import Direction, Parcel
from models.tables.person import Contact

LATEST: Final = 8
"""Scans that a bench shows again."""


@dataclass(frozen=True, slots=True)
class BenchRead:
    """One scan as a bench sends it. `ref` is its own id for this scan; `at` is when it was read (aware UTC)."""

    ref: str
    code: str
    at: datetime


def take_scan(
    session: Session, read: BenchRead, *, bench: str, services: Services, actor: str, cipher: Cipher
) -> ScanAnswer:
    """Takes one scan, or answers again one that was taken before. Scans of one person at one bench queue up here."""
    on = cursor(session)
    on.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"bench|{actor}|{bench}",))
    on.execute(
        """
        SELECT s.fine, s.sentence, coalesce(k.code, ''), s.dispatched
        FROM bench_scan s LEFT JOIN kit k ON k.id = s.kit_id WHERE s.ref = %s
        """,
        (read.ref,),
    )
    before = on.fetchone()
    if before is not None:
        return ScanAnswer(*before)
    try:
        answer = scan(session, read.code, services=services, now=read.at, actor=actor, cipher=cipher, bench=bench)
    except ServiceError as error:
        if error.code is not Code.CONFLICT:
            raise
        answer = ScanAnswer(fine=False, sentence=error.message, kit_code=error.ref)
    ours = read_label(read.code)
    cursor(session).execute(
        """
        INSERT INTO bench_scan (ref, actor, bench, code, kit_id, fine, dispatched, sentence, scanned_at)
        SELECT %s, %s, %s, %s, (SELECT id FROM kit WHERE code = %s), %s, %s, %s, %s
        """,
        (
            read.ref,
            actor,
            bench,
            ours.code if ours else "",
            answer.kit_code,
            answer.fine,
            answer.dispatched,
            answer.sentence,
            read.at,
        ),
    )
    return answer


@dataclass(frozen=True, slots=True)
class WaitingKit:
    """One printed kit by its codes: what belongs together. Nothing of the person."""

    code: str
    outer: str
    return_number: str
    tubes: tuple[tuple[str, Specimen], ...]
    language: Language
    large_print: bool
    """Of the leaflet that belongs in the box."""


@dataclass(frozen=True, slots=True)
class AsideKit:
    """One kit that was set aside, and why."""

    code: str
    why: WhySetAside
    since: datetime


@dataclass(frozen=True, slots=True)
class BenchView:
    """What a bench page shows when it is loaded."""

    table: Bench | None
    latest: tuple[BenchScan, ...]
    dispatched_since: int
    aside: tuple[AsideKit, ...]
    leaflet: tuple[Language, bool] | None
    """Of the kit on the table: in which language, and whether in large print."""


def waiting_kits(session: Session, *, services: Services, limit: int) -> list[WaitingKit]:
    """Kits that wait at the benches, those printed first at the front: so that a bench can judge while offline."""
    kits = session.exec(
        select(Kit.id, Kit.code, Contact.language, Contact.large_print)
        .join(Contact, col(Contact.id) == col(Kit.contact_id))
        .where(col(Kit.service_id).in_(services), Kit.state == KitState.PRINTED)
        .order_by(col(Kit.id))
        .limit(limit)
    ).all()
    ids = [kit_id for kit_id, *_ in kits]
    tubes: dict[int, list[tuple[str, Specimen]]] = {kit_id: [] for kit_id in ids if kit_id is not None}
    for sample in session.exec(
        select(KitSample).where(col(KitSample.kit_id).in_(ids)).order_by(col(KitSample.tube_code))
    ):
        tubes[sample.kit_id].append((sample.tube_code, sample.specimen))
    parcels = {
        (each.kit_id, each.direction): each for each in session.exec(select(Parcel).where(col(Parcel.kit_id).in_(ids)))
    }
    return [
        WaitingKit(
            code,
            parcels[kit_id, Direction.OUT].code,
            parcels[kit_id, Direction.BACK].tracking_number,
            tuple(tubes[kit_id]),
            Language(language),
            large_print,
        )
        for kit_id, code, language, large_print in kits
        if kit_id is not None
    ]


def bench_view(session: Session, *, bench: str, services: Services, actor: str, since: datetime) -> BenchView:
    """Where one person stands at one bench. `dispatched_since` counts from an instant on."""
    mine = (BenchScan.actor == actor, BenchScan.bench == bench)
    latest = session.exec(select(BenchScan).where(*mine).order_by(col(BenchScan.id).desc()).limit(LATEST)).all()
    dispatched = session.exec(
        select(sa.func.count())
        .select_from(BenchScan)
        .where(*mine, col(BenchScan.dispatched), BenchScan.scanned_at >= since)
    ).one()
    aside = session.exec(
        select(Kit.code, KitEvent.detail, KitEvent.occurred_at)
        .join(KitEvent, col(KitEvent.kit_id) == col(Kit.id))
        .where(col(Kit.service_id).in_(services), Kit.state == KitState.QUARANTINED, KitEvent.kind == "kit.quarantined")
        .order_by(col(KitEvent.id))
    )
    newest = {code: AsideKit(code, WhySetAside(str(detail["reason"])), at) for code, detail, at in aside}
    table = on_the_bench(session, actor=actor, bench=bench)
    leaflet = None
    if table:
        of_kit = select(Contact.language, Contact.large_print).join(Kit, col(Kit.contact_id) == col(Contact.id))
        language, large_print = session.exec(of_kit.where(Kit.code == table.kit_code)).one()
        leaflet = (Language(language), large_print)
    return BenchView(table, tuple(latest), dispatched, tuple(newest.values()), leaflet)


def set_kit_aside(
    session: Session, code: str, why: WhySetAside, *, services: Services, now: datetime, actor: str
) -> None:
    """Takes a printed kit off the bench, and gives it to a packer with a due time. It can't be dispatched so.

    Raises ServiceError(NOT_FOUND), or ServiceError(CONFLICT) for a kit that does not wait at a bench.
    """
    kit = _locked(session, code, services)
    move_kit(session, kit, KitState.QUARANTINED, at=now, actor=actor, reason=why.value)
    case = owed.OwedCase(
        key=f"kit:{kit.id}:set_aside",
        kind=CaseKind.PARCEL,
        order_id=kit.order_id,
        kit_id=kit.id,
        detail={"why": f"set_aside_{why.value}"},
    )
    owed.owe_cases(session, [case], service=services[kit.service_id].service, now=now, actor=actor)


def pack_on(session: Session, code: str, *, services: Services, now: datetime, actor: str) -> None:
    """Puts a kit that was set aside back to the bench with the paper it has: all was found right.

    Raises ServiceError(NOT_FOUND), or ServiceError(CONFLICT) for a kit that is not set aside.
    """
    kit = _locked(session, code, services)
    if kit.state is not KitState.QUARANTINED:
        raise ServiceError(Code.CONFLICT, f"Kit {show_kit_code(code)} is not set aside.", ref=code)
    move_kit(session, kit, KitState.PRINTED, at=now, actor=actor, reason="found_right")


def _locked(session: Session, code: str, services: Services) -> Kit:
    kit = session.exec(
        select(Kit).where(Kit.code == code, col(Kit.service_id).in_(services)).with_for_update()
    ).one_or_none()
    if kit is None:
        raise ServiceError(Code.NOT_FOUND, f"There is no kit {show_kit_code(code)}.", ref=code)
    return kit
