"""Postage for outbound parcels: owed when paper is released, bought or handed over once, cancelled with its paper.

The row is the outbox. A purchase is committed as BUYING before the courier is called; whatever is not known
afterwards is looked up by our own reference, never bought again blindly. Leases and patience run on the database's
own clock (ruling 12).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from psycopg import sql
from sqlmodel import Session, col, select

from models.actions import audit, event, owed
from models.rules.clinic import CaseKind
from models.rules.order import read_address
from models.rules.postage import LEASE, LOOK_AFTER, LOOKS, PATIENCE, PostageState, PostWay, Recipient, recipient
from models.rules.secrets import Cipher
from models.rules.service import Service
from models.tables.bulk import cursor
from models.tables.kit import Kit
from models.tables.postage import Postage

_WAITS: Final = sql.SQL("""
    EXISTS (SELECT FROM parcel p JOIN kit k ON k.id = p.kit_id WHERE p.code = postage.reference
            AND p.direction = 'out' AND k.state IN ('printed', 'quarantined'))
""")
"""The parcel's paper is good and has not left."""

_NEVER_LEFT: Final = sql.SQL("""
    NOT EXISTS (SELECT FROM parcel p JOIN kit k ON k.id = p.kit_id WHERE p.code = postage.reference
                AND p.direction = 'out' AND (k.dispatched_at IS NOT NULL OR k.state IN ('printed', 'quarantined')))
""")
"""The parcel's paper is void, or its kit was cancelled before it left."""

_VOID: Final = sql.SQL("state = 'bought' AND (ask_at IS NULL OR ask_at <= clock_timestamp()) AND ") + _NEVER_LEFT
_TO_LOOK_UP: Final = sql.SQL("state = 'unsure' AND ask_at <= clock_timestamp()")
_WITHOUT_LABEL: Final = sql.SQL("state = 'bought' AND label_key = '' AND ask_at <= clock_timestamp()")


@dataclass(frozen=True, slots=True)
class Purchase:
    """One parcel whose postage is being bought, or handed over. Its repr says nothing of the person."""

    reference: str
    label_key: str
    to: Recipient = field(repr=False)
    owed_at: datetime


@dataclass(frozen=True, slots=True)
class Held:
    """Postage that the courier is asked about."""

    reference: str
    label_key: str
    courier_id: str


def _label_key(batch: str, row_id: int) -> str:
    """Where a label lies in the store: beside its batch's paper, in its order. No code of ours stands in it."""
    return f"batches/{batch}/postage/{row_id:09d}.pdf"


def owe_postage(session: Session, batch_id: int, batch: str, *, way: PostWay, now: datetime) -> int:
    """Owes postage for every printed kit of a batch, once, and says how many are new."""
    if way is PostWay.NONE:
        return 0
    on = cursor(session)
    on.execute(
        """
        INSERT INTO postage (reference, service_id, kit_id, batch, way, state, tries, lookups, courier_id, label_key,
                             error_code, owed_at)
        SELECT p.code, k.service_id, k.id, %s, %s, 'owed', 0, 0, '', '', '', %s
        FROM kit k JOIN parcel p ON p.kit_id = k.id AND p.direction = 'out'
        WHERE k.batch_id = %s AND k.state = 'printed' ORDER BY k.id
        ON CONFLICT (reference) DO NOTHING
        """,
        (batch, way.value, now, batch_id),
    )
    return on.rowcount


def tidy(session: Session, *, service_id: str) -> int:
    """Purchases whose process fell silent become unsure; what is owed for paper that is void is cancelled.

    Says how many became unsure.
    """
    on = cursor(session)
    on.execute(
        sql.SQL("""
        UPDATE postage SET state = 'cancelled', error_code = 'not_waiting', ask_at = NULL
        WHERE service_id = %s AND state = 'owed' AND NOT {waits}
        """).format(waits=_WAITS),
        (service_id,),
    )
    on.execute(
        """
        UPDATE postage SET state = 'unsure', claimed_until = NULL, lookups = 0, error_code = 'cut_short',
               ask_at = clock_timestamp() + %s
        WHERE service_id = %s AND state = 'buying' AND claimed_until < clock_timestamp()
        """,
        (LOOK_AFTER, service_id),
    )
    return on.rowcount


def claim_purchase(session: Session, *, service: Service, now: datetime, actor: str, cipher: Cipher) -> Purchase | None:
    """The postage that is owed longest, for this process alone; None if none is due.

    Where the address has no town of its own the courier would refuse it: a packer gets a case, and the next is taken.
    """
    on = cursor(session)
    while True:
        on.execute(
            sql.SQL("""
            UPDATE postage SET state = 'buying', tries = tries + 1, ask_at = NULL, error_code = '',
                   claimed_until = clock_timestamp() + %s
            WHERE id = (SELECT id FROM postage
                        WHERE service_id = %s AND way = 'click_and_drop' AND state = 'owed'
                          AND (ask_at IS NULL OR ask_at <= clock_timestamp()) AND {waits}
                        ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
            RETURNING reference
            """).format(waits=_WAITS),
            (LEASE, service.id),
        )
        found = on.fetchone()
        if found is None:
            return None
        [purchase] = _purchases(session, [found[0]], service, cipher)
        if isinstance(purchase, Purchase):
            return purchase
        refuse(session, found[0], "no_town", service=service, now=now, actor=actor)


def settle_bought(
    session: Session,
    reference: str,
    *,
    courier_id: str,
    tracking_number: str,
    label_key: str,
    wants_label: bool,
    now: datetime,
    actor: str,
) -> None:
    """The courier has it. With `wants_label` a label that has not come is asked for from now on."""
    row = _locked(session, reference)
    if row.state in {PostageState.BUYING, PostageState.UNSURE}:
        event.record(session, kit_id=row.kit_id, service_id=row.service_id, kind="postage.bought", actor=actor, at=now)
    elif row.state is not PostageState.BOUGHT:
        return
    key = label_key or row.label_key
    cursor(session).execute(
        """
        UPDATE postage SET state = 'bought', claimed_until = NULL, lookups = 0, courier_id = %s, error_code = '',
               bought_at = coalesce(bought_at, %s), label_key = %s,
               ask_at = CASE WHEN %s THEN clock_timestamp() END
        WHERE id = %s
        """,
        (courier_id, now, key, wants_label and not key, row.id),
    )
    if tracking_number:
        _track(session, row, tracking_number)


def give_back(session: Session, reference: str, code: str, *, after_seconds: float | None) -> None:
    """A purchase that certainly came to nothing: tried again later."""
    cursor(session).execute(
        """
        UPDATE postage SET state = 'owed', claimed_until = NULL, error_code = %s, ask_at = clock_timestamp() + %s
        WHERE reference = %s AND state = 'buying'
        """,
        (code[:80], PATIENCE if after_seconds is None else timedelta(seconds=after_seconds), reference),
    )


def become_unsure(session: Session, reference: str, code: str) -> None:
    """A purchase that may have been made: looked up after a while."""
    cursor(session).execute(
        """
        UPDATE postage SET state = 'unsure', claimed_until = NULL, lookups = 0, error_code = %s,
               ask_at = clock_timestamp() + %s
        WHERE reference = %s AND state = 'buying'
        """,
        (code[:80], LOOK_AFTER, reference),
    )


def refuse(session: Session, reference: str, code: str, *, service: Service, now: datetime, actor: str) -> None:
    """A purchase that no machine can make: a packer has a case, with a due time."""
    row = _locked(session, reference)
    if row.state not in {PostageState.BUYING, PostageState.UNSURE}:
        return
    row.state, row.claimed_until, row.ask_at = PostageState.REFUSED, None, None
    row.error_code = code[:80]
    session.add(row)
    _open_case(session, row, "postage_refused", service=service, now=now, actor=actor)


def unsure_purchases(session: Session, *, service_id: str, limit: int) -> list[Held]:
    """Purchases that are to be looked up now, the oldest first."""
    return _held(session, _TO_LOOK_UP, service_id, limit)


def put_off(session: Session, reference: str) -> None:
    """Before the courier is asked about one parcel: if it can't be, the next run asks about the others first."""
    cursor(session).execute(
        "UPDATE postage SET ask_at = clock_timestamp() + %s WHERE reference = %s AND state IN ('unsure', 'bought')",
        (LOOK_AFTER, reference),
    )


def not_found(session: Session, reference: str) -> bool:
    """A look-up that found nothing. True when it proves that nothing was bought: then it is owed again."""
    on = cursor(session)
    on.execute(
        """
        UPDATE postage SET
            state = CASE WHEN lookups + 1 >= %(looks)s THEN 'owed' ELSE state END,
            lookups = CASE WHEN lookups + 1 >= %(looks)s THEN 0 ELSE lookups + 1 END,
            ask_at = CASE WHEN lookups + 1 >= %(looks)s THEN NULL ELSE clock_timestamp() + %(after)s END
        WHERE reference = %(reference)s AND state = 'unsure'
        RETURNING state
        """,
        {"looks": LOOKS, "after": LOOK_AFTER, "reference": reference},
    )
    return on.fetchone() == ("owed",)


def missing_labels(session: Session, *, service_id: str, limit: int) -> list[Held]:
    """Bought postage whose label is still to be fetched."""
    return _held(session, _WITHOUT_LABEL, service_id, limit)


def without_label(session: Session, reference: str, code: str) -> None:
    """The courier gives no label for it: a packer prints it at the courier's."""
    cursor(session).execute(
        "UPDATE postage SET ask_at = NULL, error_code = %s WHERE reference = %s AND state = 'bought'",
        (code[:80], reference),
    )


def void_purchases(session: Session, *, service_id: str, limit: int) -> list[Held]:
    """Bought postage of parcels that will never leave: their paper is void, or their kit was cancelled."""
    return _held(session, _VOID, service_id, limit)


def settle_void(session: Session, reference: str, *, kept: bool, service: Service, now: datetime, actor: str) -> None:
    """Postage of a parcel that never leaves is done with. `kept`: the courier could not take it back, a packer must."""
    row = _locked(session, reference)
    if row.state is not PostageState.BOUGHT:
        return
    row.state, row.ask_at, row.error_code = PostageState.CANCELLED, None, "kept" if kept else ""
    session.add(row)
    if kept:
        _open_case(session, row, "postage_to_cancel", service=service, now=now, actor=actor)


def hand_over(
    session: Session, *, service: Service, batch: str, now: datetime, actor: str, cipher: Cipher
) -> tuple[list[Purchase], int]:
    """What a file tells the courier, in the order of kits: all that is owed, or with `batch` all of it, again.

    Returns it with how many more have no town in their address: those are cases. Names and addresses leave with
    it, so it is in the audit.
    """
    on = cursor(session)
    if batch:
        on.execute(
            sql.SQL(
                "SELECT reference FROM postage WHERE service_id = %s AND way = 'file' AND batch = %s"
                " AND state = 'bought' AND {waits} ORDER BY id FOR UPDATE"
            ).format(waits=_WAITS),
            (service.id, batch),
        )
    else:
        on.execute(
            sql.SQL("""
            UPDATE postage SET state = 'buying', tries = tries + 1, claimed_until = clock_timestamp() + %s
            WHERE id IN (SELECT id FROM postage WHERE service_id = %s AND way = 'file' AND state = 'owed' AND {waits}
                         ORDER BY id FOR UPDATE SKIP LOCKED)
            RETURNING reference
            """).format(waits=_WAITS),
            (LEASE, service.id),
        )
    references = [reference for (reference,) in on]
    found = _purchases(session, references, service, cipher)
    ready = [each for each in found if isinstance(each, Purchase)]
    refused = [each for each in found if isinstance(each, str)]
    for reference in refused:
        refuse(session, reference, "no_town", service=service, now=now, actor=actor)
    on.execute(
        """
        UPDATE postage SET state = 'bought', claimed_until = NULL, bought_at = %s
        WHERE reference = ANY(%s) AND state = 'buying'
        """,
        (now, [each.reference for each in ready]),
    )
    audit.record(
        session,
        action="postage.exported",
        subject="service",
        subject_id=0,
        actor=actor,
        now=now,
        service_id=service.id,
        parcels=len(ready),
        batch=batch,
    )
    return ready, len(refused)


def take_number(session: Session, reference: str, number: str, *, service_id: str) -> str:
    """Keeps the courier's number of one parcel that was handed over. Returns what is wrong with it, or nothing."""
    row = session.exec(
        select(Postage).where(Postage.reference == reference, Postage.service_id == service_id).with_for_update()
    ).one_or_none()
    if row is None:
        return "Order reference: no parcel of ours"
    if row.state is PostageState.CANCELLED:
        return "Order reference: its paper is void: destroy the label and cancel it at the courier's"
    if row.state is not PostageState.BOUGHT:
        return "Order reference: was never handed over"
    return "" if _track(session, row, number) else "Tracking number: is another parcel's, or this one has another"


def _track(session: Session, row: Postage, number: str) -> bool:
    """Puts a number on the outbound parcel, if it has none and nobody else has it. False where it has another."""
    session.flush()
    on = cursor(session)
    on.execute("SELECT id FROM kit WHERE id = %s FOR UPDATE", (row.kit_id,))  # locks are taken kit first (ruling 2)
    on.execute(
        """
        UPDATE parcel SET tracking_number = %(number)s
        WHERE code = %(code)s AND direction = 'out' AND tracking_number IN ('', %(number)s)
          AND NOT EXISTS (SELECT FROM parcel o WHERE o.tracking_number = %(number)s AND o.code <> %(code)s)
        """,
        {"number": number, "code": row.reference},
    )
    return on.rowcount > 0


def _locked(session: Session, reference: str) -> Postage:
    return session.exec(
        select(Postage)
        .where(Postage.reference == reference)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()


def _held(session: Session, which: sql.Composable, service_id: str, limit: int) -> list[Held]:
    on = cursor(session)
    on.execute(
        sql.SQL(
            "SELECT reference, batch, id, courier_id FROM postage WHERE service_id = %s AND {which}"
            " ORDER BY ask_at NULLS FIRST, id LIMIT %s"
        ).format(which=which),
        (service_id, limit),
    )
    return [Held(reference, _label_key(batch, row_id), courier) for reference, batch, row_id, courier in on]


def _purchases(session: Session, references: Sequence[str], service: Service, cipher: Cipher) -> list[Purchase | str]:
    """For each reference, in the order of kits, what the courier is told; the reference alone where it has no town."""
    on = cursor(session)
    on.execute(
        """
        SELECT t.reference, t.batch, t.id, t.owed_at, p.ref, p.given_name, p.family_name, c.ref, c.delivery_address,
               c.collection_point
        FROM postage t JOIN kit k ON k.id = t.kit_id JOIN person p ON p.id = k.person_id
        JOIN contact c ON c.id = k.contact_id
        WHERE t.reference = ANY(%s) ORDER BY t.id
        """,
        (list(references),),
    )
    found: list[Purchase | str] = []
    for reference, batch, row_id, owed_at, person, given, family, contact, delivery, point_id in on:
        address = read_address(cipher.decrypt("contact", "delivery_address", contact, bytes(delivery)))
        names = (
            cipher.decrypt("person", "given_name", person, bytes(given)),
            cipher.decrypt("person", "family_name", person, bytes(family)),
        )
        # A box that waits at a counter names its counter, and nobody else.
        point = service.collection.point(point_id)
        to = recipient(point.name if point else " ".join(names), address.lines, address.postcode)
        found.append(Purchase(reference, _label_key(batch, row_id), to, owed_at) if to else reference)
    return found


def _open_case(session: Session, row: Postage, why: str, *, service: Service, now: datetime, actor: str) -> None:
    kit = session.exec(select(Kit).where(col(Kit.id) == row.kit_id)).one()
    case = owed.OwedCase(
        key=f"postage:{row.reference}",
        kind=CaseKind.PARCEL,
        order_id=kit.order_id,
        kit_id=kit.id,
        detail={"why": why, "parcel": row.reference},
    )
    owed.owe_cases(session, [case], service=service, now=now, actor=actor)
