"""What couriers tell us unasked: kept as it came, once, and read later in the order of arrival (ruling 15)."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col, select

from models.actions.parcel import CourierScan, take_scans
from models.rules.secrets import BlindIndex, Cipher
from models.rules.service import Services
from models.rules.vocabulary import ScanKind
from models.tables.inbox import Inbox, InboxKind, InboxState
from models.tables.parcel import Parcel


@dataclass(frozen=True, slots=True)
class ToldScan:
    """One event of one tracking number, which may be none of ours."""

    tracking_number: str
    kind: ScanKind
    raw_code: str
    occurred_at: datetime


def keep_news(
    session: Session, *, event_id: str, body: bytes, now: datetime, cipher: Cipher, indexes: BlindIndex
) -> bool:
    """Stores one signed event, whole and encrypted; False for one known already."""
    ref = secrets.token_hex(16)
    stored = session.execute(
        insert(Inbox)
        .values(
            ref=ref,
            kind=InboxKind.COURIER_EVENT,
            service_id="",
            key=event_id,
            content_hmac=indexes.content_hmac(body),
            body=cipher.encrypt("inbox", "body", ref, body.decode("utf-8", errors="backslashreplace")),
            state=InboxState.WAITING,
            reason="",
            received_at=now,
        )
        .on_conflict_do_nothing(index_elements=["kind", "service_id", "key"])
        .returning(col(Inbox.id))
    )
    return stored.scalar_one_or_none() is not None


def next_news(session: Session, *, cipher: Cipher) -> tuple[int, bytes] | None:
    """The event that waits longest, locked for the rest of the transaction, or None."""
    row = session.exec(
        select(Inbox)
        .where(Inbox.kind == InboxKind.COURIER_EVENT, Inbox.state == InboxState.WAITING)
        .order_by(col(Inbox.id))
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if row is None or row.id is None:
        return None
    return row.id, cipher.decrypt("inbox", "body", row.ref, row.body).encode()


def settle_news(
    session: Session, inbox_id: int, scans: Sequence[ToldScan] | None, *, services: Services, now: datetime, actor: str
) -> int:
    """Takes in what an event said and says how much of it is new; None: it could not be read, and stays for a person.

    A number that is no parcel of ours changes nothing: couriers tell of every label that we ever made.
    """
    row = session.get_one(Inbox, inbox_id)
    if scans is None:
        row.state, row.reason = InboxState.FAILED, "unreadable"
        return 0
    numbers = {each.tracking_number for each in scans}
    found = session.exec(
        select(Parcel.tracking_number, Parcel.id).where(
            col(Parcel.tracking_number).in_(numbers), Parcel.tracking_number != ""
        )
    )
    parcels = {number: parcel_id for number, parcel_id in found if parcel_id is not None}
    ours = [
        CourierScan(parcels[each.tracking_number], each.kind, each.raw_code, each.occurred_at)
        for each in scans
        if each.tracking_number in parcels
    ]
    row.state, row.reason = InboxState.DONE, "" if ours else "no parcel of ours"
    if not ours:
        return 0
    return take_scans(session, sorted(parcels.values()), ours, services=services, now=now, actor=actor)
