"""Makes kits, moves them from state to state, and ends them with a reason.

`move_kit` is the one function that changes a kit's state. It asks the rules, writes the moment and
the event, and loses no race: the row must still be in the state that the caller saw.
"""

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col, select

from models.actions import event, owed
from models.actions.stock import hand_back_parts
from models.rules.clinic import CaseKind, CaseOutcome
from models.rules.errors import Code, ServiceError
from models.rules.kit import KitCode, KitState, TubeCode, may_move, new_kit_code, new_parcel_code, show_kit_code
from models.rules.panel import Panel
from models.rules.person import fold_name
from models.rules.secrets import KIT_BORN, KIT_FAMILY, BlindIndex, Cipher, kit_born, kit_family
from models.rules.text import TextPurpose
from models.tables.bench import VoidCode
from models.tables.clinic import ClinicCase
from models.tables.kit import Kit, KitIdentity, KitSample, KitTest, PrintBatch
from models.tables.parcel import Direction, Parcel
from models.tables.person import Person

_ATTEMPTS: Final = 20
"""Of 1.8e12 kit codes a new one is taken about once in ten million tries; twenty in a row is a broken source."""

_MOMENT: Final = {
    KitState.DISPATCHED: "dispatched_at",
    KitState.COMING_BACK: "posted_back_at",
    KitState.AT_LAB: "received_at",
    KitState.REPORTED: "reported_at",
}
"""The column that keeps when a kit first reached a state."""

ENDS: Final = frozenset(
    {KitState.CLOSED, KitState.CANCELLED, KitState.LAPSED, KitState.RETURNED_TO_SENDER, KitState.REPLACED}
)
"""States that need a reason: no kit ends silently."""

JOURNEY_TEXTS: Final = (
    TextPurpose.ORDER_RECEIVED,
    TextPurpose.KIT_POSTED,
    TextPurpose.KIT_READY,
    TextPurpose.RETURN_REMINDER,
    TextPurpose.RECEIVED_AT_LAB,
    TextPurpose.DELAYED,
)
"""What a kit that was cancelled need not say any more. Result texts have their own law."""


def create_kit(  # noqa: PLR0913 - everything that is printed or matched, once, by name
    session: Session,
    *,
    order_id: int,
    service_id: str,
    person_id: int,
    contact_id: int,
    date_of_birth: date,
    family_name_folded: str,
    panel: Panel,
    lab: str,
    now: datetime,
    actor: str,
    indexes: BlindIndex,
    replaces_kit_id: int | None = None,
) -> Kit:
    """One kit for an accepted order, ready to pack: its codes, tubes, requested tests, identity and two parcels.

    Raises ServiceError(BAD_INPUT) for a panel without samples: there would be nothing to post.
    """
    if not panel.samples:
        raise ServiceError(Code.BAD_INPUT, "A kit needs at least one sample: this panel has none.")
    kit = _insert_kit(
        session,
        order_id=order_id,
        service_id=service_id,
        person_id=person_id,
        contact_id=contact_id,
        lab=lab,
        now=now,
        replaces_kit_id=replaces_kit_id,
    )
    kit_id = kit.id
    assert kit_id is not None  # RETURNING gave it
    for digit, sample in enumerate(panel.samples, start=1):
        tube = TubeCode(f"{kit.code}{digit}")
        session.add(KitSample(kit_id=kit_id, tube_code=tube, specimen=sample.specimen))
        session.add_all(KitTest(kit_id=kit_id, test=test, site=sample.site, tube_code=tube) for test in sample.tests)
    session.add(
        KitIdentity(
            kit_id=kit_id,
            key_version=indexes.current_version,
            date_of_birth=indexes.index(KIT_BORN, service_id, kit_born(kit.code, date_of_birth.isoformat())),
            family_name=indexes.index(KIT_FAMILY, service_id, kit_family(kit.code, family_name_folded)),
        )
    )
    _insert_parcels(session, kit_id=kit_id, service_id=service_id, now=now)
    event.record(
        session,
        kit_id=kit_id,
        service_id=service_id,
        kind="kit.created",
        actor=actor,
        at=now,
        samples=len(panel.samples),
        lab=lab,
    )
    session.flush()
    return kit


def move_kit(
    session: Session, kit: Kit, to: KitState, *, at: datetime, actor: str, reason: str = "", **detail: object
) -> None:
    """Moves a kit to a state, in the world's time, with its event. `kit` shows the new row afterwards.

    `reason` is a short code without personal words; a state that ends a kit needs one. `detail` goes
    into the event: codes and ids only.
    Raises ServiceError(CONFLICT) where the rules forbid the move, or someone else moved the kit first.
    """
    start = kit.state
    if not may_move(start, to):
        raise ServiceError(
            Code.CONFLICT, f"Kit {show_kit_code(kit.code)} is {start.value} and can't become {to.value}.", ref=kit.code
        )
    ends = to in ENDS
    if ends and not reason:
        raise ServiceError(Code.BAD_INPUT, f"Kit {show_kit_code(kit.code)} can't end without a reason.", ref=kit.code)
    changes: dict[str, object] = {
        "state": to,
        "closed_at": at if ends else None,
        "closed_reason": reason if ends else "",
    }
    moment = _MOMENT.get(to)
    if moment:
        changes[moment] = getattr(kit, moment) or at
    moved = session.scalars(
        sa.update(Kit).where(col(Kit.id) == kit.id, col(Kit.state) == start).values(**changes).returning(Kit),
        execution_options={"populate_existing": True},
    ).one_or_none()
    if moved is None:
        raise ServiceError(
            Code.CONFLICT, f"Kit {show_kit_code(kit.code)} was changed by someone else: look again.", ref=kit.code
        )
    assert kit.id is not None  # a stored row
    if reason:
        detail["reason"] = reason
    event.record(
        session,
        kit_id=kit.id,
        service_id=kit.service_id,
        kind=f"kit.{to.value}",
        actor=actor,
        at=at,
        before=start.value,
        **detail,
    )


def renew_codes(
    session: Session, kit: Kit, *, because: str, now: datetime, actor: str, cipher: Cipher, indexes: BlindIndex
) -> None:
    """Gives a kit that has not left new codes. Every code that may stand on paper somewhere is void for ever.

    Only so can labels that somebody forgot to destroy never be packed with those that were printed after them.
    """
    assert kit.id is not None  # a stored row
    person = session.get_one(Person, kit.person_id)
    born, family = (
        cipher.decrypt("person", column, person.ref, getattr(person, column))
        for column in ("date_of_birth", "family_name")
    )
    old, new = kit.code, _free_kit_code(session)
    parcels = session.exec(select(Parcel).where(Parcel.kit_id == kit.id).with_for_update()).all()
    tubes = session.exec(select(KitSample.tube_code).where(KitSample.kit_id == kit.id)).all()
    void = {old, *tubes, *(each.code for each in parcels), *(each.tracking_number for each in parcels)} - {""}
    session.execute(
        insert(VoidCode)
        .values(
            [
                {"code": code, "kit_id": kit.id, "because": because[:400], "actor": actor, "voided_at": now}
                for code in sorted(void)
            ]
        )
        .on_conflict_do_nothing()
    )
    kit.code = new
    session.add(kit)
    for parcel in parcels:
        parcel.code, parcel.tracking_number = _free_parcel_code(session), ""
        session.add(parcel)
    for table in (KitSample, KitTest):
        renewed = sa.literal(new).concat(sa.func.right(col(table.tube_code), 1))
        session.execute(sa.update(table).where(col(table.kit_id) == kit.id).values(tube_code=renewed))
    session.execute(
        sa.update(KitIdentity)
        .where(col(KitIdentity.kit_id) == kit.id, col(KitIdentity.key_version) == indexes.current_version)
        .values(
            date_of_birth=indexes.index(KIT_BORN, kit.service_id, kit_born(new, born)),
            family_name=indexes.index(KIT_FAMILY, kit.service_id, kit_family(new, fold_name(family))),
        )
    )
    event.record(
        session,
        kit_id=kit.id,
        service_id=kit.service_id,
        kind="kit.codes_renewed",
        actor=actor,
        at=now,
        void=show_kit_code(old),
    )
    session.flush()


def is_void(session: Session, code: str) -> bool:
    """Whether a code was on paper that was voided."""
    return session.get(VoidCode, code) is not None


def cancel_kit(session: Session, kit: Kit, *, now: datetime, actor: str, reason: str) -> None:
    """Cancels a kit that has not come back. Before dispatch it stops the parcel; after, only our texts.

    Whatever the lab still reports for it is stored and seen by a person (ruling 10).
    Raises ServiceError(CONFLICT) once its sample is on the way back.
    """
    move_kit(session, kit, KitState.CANCELLED, at=now, actor=actor, reason=reason)
    assert kit.id is not None  # a stored row
    if kit.dispatched_at is None:
        hand_back_parts(session, kit.id, now=now, actor=actor)
    owed.cancel_texts(session, [kit.id], because="kit_cancelled", now=now, purposes=JOURNEY_TEXTS)


@dataclass(frozen=True, slots=True)
class KitLine:
    """One kit in a list."""

    code: str
    service_id: str
    state: KitState
    lab: str
    created_at: datetime
    batch: str


def list_kits(session: Session, *, states: Collection[KitState], service_id: str, limit: int) -> list[KitLine]:
    """Kits in any of these states, those that wait longest first; '' is every service."""
    wanted = (
        select(Kit, PrintBatch.ref)
        .outerjoin(PrintBatch, col(PrintBatch.id) == col(Kit.batch_id))
        .where(col(Kit.state).in_(states))
        .order_by(col(Kit.id))
        .limit(limit)
    )
    if service_id:
        wanted = wanted.where(Kit.service_id == service_id)
    return [
        KitLine(kit.code, kit.service_id, kit.state, kit.lab, kit.created_at, ref or "")
        for kit, ref in session.exec(wanted)
    ]


@dataclass(frozen=True, slots=True)
class CaseLine:
    """One case about a kit: what kind, whose, until when, and how it ended."""

    kind: CaseKind
    owner_role: str
    opened_at: datetime
    due_at: datetime
    outcome: CaseOutcome | None


def cases_about(session: Session, kit_code: str) -> list[CaseLine]:
    """The cases about a kit, oldest first. Nothing about the person."""
    found = session.exec(
        select(ClinicCase)
        .join(Kit, col(Kit.id) == col(ClinicCase.kit_id))
        .where(Kit.code == kit_code)
        .order_by(col(ClinicCase.id))
    )
    return [CaseLine(each.kind, each.owner_role, each.opened_at, each.due_at, each.outcome) for each in found]


def _insert_kit(
    session: Session,
    *,
    order_id: int,
    service_id: str,
    person_id: int,
    contact_id: int,
    lab: str,
    now: datetime,
    replaces_kit_id: int | None,
) -> Kit:
    """A kit row under a code that no other kit has. A taken code is passed over, not an error."""
    for _ in range(_ATTEMPTS):
        code: KitCode = new_kit_code(secrets.choice)
        if is_void(session, code):
            continue
        made = session.scalars(
            insert(Kit)
            .values(
                service_id=service_id,
                code=code,
                order_id=order_id,
                person_id=person_id,
                contact_id=contact_id,
                lab=lab,
                state=KitState.TO_PACK,
                closed_reason="",
                replaces_kit_id=replaces_kit_id,
                created_at=now,
            )
            .on_conflict_do_nothing(index_elements=["code"])
            .returning(Kit)
        ).one_or_none()
        if made is not None:
            return made
    raise _no_free_code("kit")


def _free_kit_code(session: Session) -> KitCode:
    """A code that no kit has or ever had."""
    for _ in range(_ATTEMPTS):
        code = new_kit_code(secrets.choice)
        if not is_void(session, code) and session.exec(select(Kit.id).where(Kit.code == code)).first() is None:
            return code
    raise _no_free_code("kit")


def _free_parcel_code(session: Session) -> str:
    """A code that no parcel has or ever had."""
    for _ in range(_ATTEMPTS):
        code = new_parcel_code(secrets.choice)
        if not is_void(session, code) and session.exec(select(Parcel.id).where(Parcel.code == code)).first() is None:
            return code
    raise _no_free_code("parcel")


def _no_free_code(of: str) -> ServiceError:
    return ServiceError(Code.UNEXPECTED, f"No free {of} code was found: check the machine's source of randomness.")


def _insert_parcels(session: Session, *, kit_id: int, service_id: str, now: datetime) -> None:
    """A parcel each way, under codes that no other parcel has. A taken code is passed over, not an error."""
    wanted = set(Direction)
    for _ in range(_ATTEMPTS):
        made = session.execute(
            insert(Parcel).on_conflict_do_nothing(index_elements=["code"]).returning(col(Parcel.direction)),
            [
                {
                    "kit_id": kit_id,
                    "service_id": service_id,
                    "direction": direction,
                    "code": new_parcel_code(secrets.choice),
                    "created_at": now,
                }
                for direction in sorted(wanted)
            ],
        ).scalars()
        wanted -= set(made)
        if not wanted:
            return
    raise _no_free_code("parcel")
