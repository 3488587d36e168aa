"""Claims kits into print batches, and releases, holds or voids what was printed.

A batch is claimed (commit), drawn and stored with no transaction open, and settled (commit). Killed in
between it stays `drawing`; after its lease someone draws it again, from the same rows to the same bytes.
Its kits leave `to_pack` only with the release, so nothing is printed twice that was not voided between.
"""

import secrets
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

import sqlalchemy as sa
import sqlalchemy.orm
from sqlmodel import Session, col, select

from models.actions import audit, event, owed
from models.actions.kit import move_kit, renew_codes
from models.actions.postage import owe_postage
from models.actions.stock import equip_kits, hand_back_parts
from models.rules.clinic import CaseKind
from models.rules.errors import Code, ServiceError
from models.rules.kit import KitState, show_kit_code
from models.rules.order import Address, read_address
from models.rules.postage import PostWay
from models.rules.secrets import ADDRESS, BlindIndex, Cipher
from models.rules.service import Service
from models.rules.vocabulary import Language, Specimen, Test
from models.rules.working_days import london_day
from models.tables.kit import BatchState, Kit, KitSample, KitTest, PrintBatch
from models.tables.parcel import Direction, Parcel
from models.tables.person import Contact, Person, PersonIndex

LEASE: Final = timedelta(minutes=2)
"""Machine time in which a batch is drawn, proved and stored; a full one takes some seconds."""

SAME_ADDRESS_WITHIN: Final = timedelta(days=7)
"""Two kits to one address within a week are flagged for the packer: they can be swapped at home (FEATURES 22)."""

LOOKED_AT: Final = 10
"""Waiting kits looked at for each that is wanted, so that one component that is short doesn't keep all others."""

CONTACT_SHEET: Final = "contact-sheet.png"
"""Beside a batch's paper in the store."""

_TESTS: Final = list(Test)


@dataclass(frozen=True, slots=True)
class KitToPrint:
    """What stands on one kit's paper. Its repr names the kit alone."""

    kit_code: str
    parcel_code: str
    return_number: str
    name: str
    address: Address
    date_of_birth: date
    tubes: tuple[tuple[str, Specimen, tuple[Test, ...]], ...]
    """Tube code, specimen, tests; in the order of the tube digits."""
    language: Language
    expires_on: date
    lab: str
    collection_point: str
    """The id of the counter where it is fetched, or ''."""
    same_address_as: tuple[str, ...]
    """Codes of other kits that went or go to this address within a week."""

    def __repr__(self) -> str:
        return f"KitToPrint({self.kit_code!r})"


@dataclass(frozen=True, slots=True)
class Paper:
    """Where the proved paper of a batch lies in the store."""

    pdf_key: str
    pdf_sha256: str
    manifest_key: str


def claim_batch(session: Session, *, service: Service, size: int, now: datetime) -> PrintBatch | None:
    """A batch to draw: one whose lease ran out first, else a new one of the kits that wait longest, else None."""
    machine = sa.func.clock_timestamp()
    left = session.exec(
        select(PrintBatch)
        .where(
            PrintBatch.service_id == service.id,
            PrintBatch.state == BatchState.DRAWING,
            col(PrintBatch.claimed_until) < machine,
        )
        .order_by(col(PrintBatch.id))
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if left is not None:
        lease = sa.update(PrintBatch).where(col(PrintBatch.id) == left.id).values(claimed_until=machine + LEASE)
        session.execute(lease, execution_options={"synchronize_session": False})
        return left
    waiting = session.exec(
        select(Kit)
        .where(Kit.service_id == service.id, Kit.state == KitState.TO_PACK, col(Kit.batch_id).is_(None))
        .order_by(col(Kit.id))
        .limit(size * (LOOKED_AT if service.stock.controlled else 1))
        .with_for_update(skip_locked=True)
    ).all()
    for kit in waiting:
        kit.expires_on = london_day(now) + timedelta(days=service.packing.kit_valid_days)
    if service.stock.controlled:
        whole = equip_kits(session, waiting, service=service, now=now, size=size)
        for kit in waiting:
            if kit not in whole:
                kit.expires_on = None
        waiting = whole
    if not waiting:
        return None
    batch = _insert_batch(session, service, kits=len(waiting), state=BatchState.DRAWING, now=now)
    for kit in waiting:
        kit.batch_id = batch.id
    session.flush()
    return batch


def kits_to_print(session: Session, batch_id: int, cipher: Cipher) -> list[KitToPrint]:
    """Everything on the paper of a batch, in the order of its kits. The same rows give the same values."""
    rows = session.exec(
        select(Kit, Person, Contact, Parcel)
        .join(Person, col(Person.id) == col(Kit.person_id))
        .join(Contact, col(Contact.id) == col(Kit.contact_id))
        .join(Parcel, sa.and_(col(Parcel.kit_id) == col(Kit.id), col(Parcel.direction) == Direction.OUT))
        .where(Kit.batch_id == batch_id)
        .order_by(col(Kit.id))
    ).all()
    ids = [kit.id for kit, *_ in rows]
    samples: dict[int, list[KitSample]] = defaultdict(list)
    for sample in session.exec(
        select(KitSample).where(col(KitSample.kit_id).in_(ids)).order_by(col(KitSample.tube_code))
    ):
        samples[sample.kit_id].append(sample)
    tests: dict[str, list[Test]] = defaultdict(list)
    for requested in session.exec(select(KitTest).where(col(KitTest.kit_id).in_(ids))):
        tests[requested.tube_code].append(requested.test)
    numbers = dict(
        session.exec(
            select(Parcel.kit_id, Parcel.tracking_number).where(
                col(Parcel.kit_id).in_(ids), Parcel.direction == Direction.BACK
            )
        ).all()
    )
    neighbours = _same_address(session, batch_id)
    found = []
    for kit, person, contact, parcel in rows:
        assert kit.id is not None  # a stored row
        assert kit.expires_on is not None  # set when the batch was claimed
        given, family, born = (
            cipher.decrypt("person", column, person.ref, getattr(person, column))
            for column in ("given_name", "family_name", "date_of_birth")
        )
        delivery = cipher.decrypt("contact", "delivery_address", contact.ref, contact.delivery_address)
        found.append(
            KitToPrint(
                kit_code=kit.code,
                parcel_code=parcel.code,
                return_number=numbers[kit.id],
                name=f"{given} {family}",
                address=read_address(delivery),
                date_of_birth=date.fromisoformat(born),
                tubes=tuple(
                    (each.tube_code, each.specimen, tuple(sorted(tests[each.tube_code], key=_TESTS.index)))
                    for each in samples[kit.id]
                ),
                language=Language(contact.language),
                expires_on=kit.expires_on,
                lab=kit.lab,
                collection_point=contact.collection_point,
                same_address_as=tuple(neighbours[kit.code]),
            )
        )
    return found


def release_batch(
    session: Session,
    batch_id: int,
    kit_codes: Sequence[str],
    *,
    paper: Paper,
    way: PostWay,
    now: datetime,
    actor: str,
) -> bool:
    """Releases a proved batch: its kits may be packed, and their postage is owed.

    False where someone else settled it or its kits changed.

    A kit cancelled meanwhile stays cancelled: its paper is refused at the bench.
    """
    batch, kits = _locked(session, batch_id)
    if batch.state is not BatchState.DRAWING or [kit.code for kit in kits] != list(kit_codes):
        return False
    batch.state, batch.released_at = BatchState.RELEASED, now
    batch.pdf_key, batch.pdf_sha256, batch.manifest_key = paper.pdf_key, paper.pdf_sha256, paper.manifest_key
    for kit in kits:
        if kit.state is KitState.TO_PACK:
            move_kit(session, kit, KitState.PRINTED, at=now, actor=actor, batch=batch.ref)
    owe_postage(session, batch_id, batch.ref, way=way, now=now)
    _audit(session, batch, "batch.released", now=now, actor=actor)
    return True


def hold_batch(session: Session, batch_id: int, *, because: str, service: Service, now: datetime, actor: str) -> bool:
    """Keeps a batch from the packers until a person voids it. False where someone else settled it."""
    batch, kits = _locked(session, batch_id)
    if batch.state is not BatchState.DRAWING:
        return False
    _hold(session, batch, kits[0], because=because, service=service, now=now, actor=actor)
    return True


def set_aside(
    session: Session, batch_id: int, kit_code: str, *, because: str, service: Service, now: datetime, actor: str
) -> bool:
    """Takes one kit whose paper can't be printed out of a batch into a held one of its own: the others go on."""
    batch, kits = _locked(session, batch_id)
    if batch.state is not BatchState.DRAWING:
        return False
    alone = next((kit for kit in kits if kit.code == kit_code), None)
    if alone is None:
        return True  # someone else did
    if len(kits) == 1:
        _hold(session, batch, alone, because=because, service=service, now=now, actor=actor)
        return True
    held = _insert_batch(session, service, kits=1, state=BatchState.DRAWING, now=now)
    alone.batch_id = held.id
    batch.kits -= 1
    session.flush()
    _hold(session, held, alone, because=because, service=service, now=now, actor=actor)
    return True


def look_at_batch(session: Session, ref: str, *, services: Collection[str], now: datetime, actor: str) -> str:
    """The key of a batch's verification picture. Names and addresses are in it: who looks is audited (law 10).

    Raises ServiceError(NOT_FOUND) for a batch of nobody's here, or one whose paper was never proved.
    """
    batch = session.exec(
        select(PrintBatch).where(PrintBatch.ref == ref, col(PrintBatch.service_id).in_(services))
    ).one_or_none()
    if batch is None or not batch.pdf_key:
        raise ServiceError(Code.NOT_FOUND, "There is no such batch, or it was never proved.")
    _audit(session, batch, "batch.looked_at", now=now, actor=actor)
    return f"{batch.pdf_key.rpartition('/')[0]}/{CONTACT_SHEET}"


def void_batch(
    session: Session, ref: str, *, because: str, now: datetime, actor: str, cipher: Cipher, indexes: BlindIndex
) -> int:
    """A person destroyed a batch's paper: those of its kits not dispatched are packed again, under new codes.

    Says how many. The codes on the old paper are void for ever, in case some of it was not destroyed.

    Raises ServiceError(NOT_FOUND) for an unknown batch, ServiceError(CONFLICT) for one still being drawn.
    """
    batch_id = session.exec(select(PrintBatch.id).where(PrintBatch.ref == ref)).one_or_none()
    if batch_id is None:
        raise ServiceError(Code.NOT_FOUND, f"There is no print batch {ref}.", ref=ref)
    batch, kits = _locked(session, batch_id)
    if batch.state is BatchState.DRAWING:
        raise ServiceError(Code.CONFLICT, f"Print batch {ref} is still being drawn: wait for it.", ref=ref)
    back = [kit for kit in kits if _send_back(session, kit, batch, now=now, actor=actor)]
    for kit in back:
        renew_codes(session, kit, because=because, now=now, actor=actor, cipher=cipher, indexes=indexes)
    batch.state = BatchState.VOIDED
    _audit(session, batch, "batch.voided", now=now, actor=actor, because=because)
    return len(back)


def reprint_kit(
    session: Session,
    code: str,
    *,
    because: str,
    now: datetime,
    actor: str,
    cipher: Cipher,
    indexes: BlindIndex,
    within: Collection[str] | None = None,
) -> str:
    """A person destroyed one kit's paper: it is packed again in the next batch, under a new code, which is returned.

    `within` names the services whose kits this person may touch; None: any.

    Raises ServiceError(NOT_FOUND), or ServiceError(CONFLICT) when the kit does not wait with printed or held paper.
    """
    kit = session.exec(select(Kit).where(Kit.code == code).with_for_update()).one_or_none()
    if kit is None or kit.id is None or (within is not None and kit.service_id not in within):
        raise ServiceError(Code.NOT_FOUND, f"There is no kit {show_kit_code(code)}.", ref=code)
    batch = session.get(PrintBatch, kit.batch_id) if kit.batch_id else None
    drawing = batch is None or batch.state is BatchState.DRAWING
    if batch is None or drawing or not _send_back(session, kit, batch, now=now, actor=actor):
        raise ServiceError(
            Code.CONFLICT, f"Kit {show_kit_code(code)} has no paper that could be printed again.", ref=code
        )
    renew_codes(session, kit, because=because, now=now, actor=actor, cipher=cipher, indexes=indexes)
    audit.record(
        session,
        action="kit.reprint",
        subject="kit",
        subject_id=kit.id,
        actor=actor,
        now=now,
        service_id=kit.service_id,
        because=because,
        batch=batch.ref,
        void=show_kit_code(code),
    )
    return kit.code


def _send_back(session: Session, kit: Kit, batch: PrintBatch, *, now: datetime, actor: str) -> bool:
    """Back to the kits that wait for a batch. False for a kit that has left or ended."""
    assert kit.id is not None  # a stored row
    if kit.state in {KitState.PRINTED, KitState.QUARANTINED}:
        move_kit(session, kit, KitState.TO_PACK, at=now, actor=actor, reason="reprint", batch=batch.ref)
    elif kit.state is KitState.TO_PACK:
        event.record(
            session,
            kit_id=kit.id,
            service_id=kit.service_id,
            kind="print.voided",
            actor=actor,
            at=now,
            batch=batch.ref,
        )
    else:
        return False
    hand_back_parts(session, kit.id, now=now, actor=actor)
    kit.batch_id = kit.expires_on = None
    session.add(kit)
    return True


def _locked(session: Session, batch_id: int) -> tuple[PrintBatch, list[Kit]]:
    """A batch and its kits, in the order of their ids, locked."""
    batch = session.exec(
        select(PrintBatch).where(PrintBatch.id == batch_id).with_for_update().execution_options(populate_existing=True)
    ).one()
    kits = session.exec(
        select(Kit)
        .where(Kit.batch_id == batch_id)
        .order_by(col(Kit.id))
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()
    return batch, list(kits)


def _insert_batch(session: Session, service: Service, *, kits: int, state: BatchState, now: datetime) -> PrintBatch:
    ref = secrets.token_hex(16)
    session.execute(
        sa.insert(PrintBatch).values(
            ref=ref,
            service_id=service.id,
            state=state,
            kits=kits,
            claimed_until=sa.func.clock_timestamp() + LEASE,
            created_at=now,
        )
    )
    return session.exec(select(PrintBatch).where(PrintBatch.ref == ref)).one()


def _hold(
    session: Session, batch: PrintBatch, kit: Kit, *, because: str, service: Service, now: datetime, actor: str
) -> None:
    batch.state, batch.held_because = BatchState.HELD, because[:400]
    session.add(batch)
    case = owed.OwedCase(
        key=f"batch:{batch.ref}",
        kind=CaseKind.PARCEL,
        order_id=kit.order_id,
        kit_id=kit.id,
        detail={"why": "batch_held", "batch": batch.ref},
    )
    owed.owe_cases(session, [case], service=service, now=now, actor=actor)
    _audit(session, batch, "batch.held", now=now, actor=actor, because=because[:400])


def _audit(session: Session, batch: PrintBatch, action: str, *, now: datetime, actor: str, because: str = "") -> None:
    assert batch.id is not None  # a stored row
    audit.record(
        session,
        action=action,
        subject="print_batch",
        subject_id=batch.id,
        actor=actor,
        now=now,
        service_id=batch.service_id,
        because=because,
        batch=batch.ref,
        kits=batch.kits,
    )


def _same_address(session: Session, batch_id: int) -> dict[str, list[str]]:
    """For each kit of a batch, the codes of other kits of the same service and folded address within a week."""
    mine, theirs = sa.orm.aliased(PersonIndex), sa.orm.aliased(PersonIndex)
    other = sa.orm.aliased(Kit)
    rows = session.execute(
        sa.select(col(Kit.code), col(other.code))
        .distinct()
        .join(mine, sa.and_(col(mine.person_id) == col(Kit.person_id), col(mine.domain) == ADDRESS))
        .join(
            theirs,
            sa.and_(
                col(theirs.service_id) == col(mine.service_id),
                col(theirs.domain) == col(mine.domain),
                col(theirs.key_version) == col(mine.key_version),
                col(theirs.digest) == col(mine.digest),
            ),
        )
        .join(
            other,
            sa.and_(
                col(other.person_id) == col(theirs.person_id),
                col(other.id) != col(Kit.id),
                col(other.created_at).between(
                    col(Kit.created_at) - SAME_ADDRESS_WITHIN, col(Kit.created_at) + SAME_ADDRESS_WITHIN
                ),
            ),
        )
        .where(col(Kit.batch_id) == batch_id)
        .order_by(col(other.code))
    )
    found: dict[str, list[str]] = defaultdict(list)
    for code, neighbour in rows:
        found[code].append(neighbour)
    return found
