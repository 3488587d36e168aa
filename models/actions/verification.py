"""Proves mobiles with codes: one row a code, written before it is sent (law 7; H5; FEATURES 53).

A code is asked for by somebody who waits for it. It is never repeated by us: whoever got none asks for another.
"""

import hmac
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlmodel import Session, col, select

from models.actions import audit
from models.rules.errors import Code, ServiceError
from models.rules.secrets import MOBILE, BlindIndex
from models.rules.text_delivery import Answer, DidNotSend, Took, WillNot
from models.rules.verification import CODE_DIGITS, LIFETIME, Offer, judge, may_ask
from models.tables.person import MobileVerification, VerificationState

_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class AskedCode:
    """A code to send. Printing it does not show it."""

    ref: str
    code: str = field(repr=False)
    expires_at: datetime


def ask_for_code(
    session: Session, *, service_id: str, channel: str, mobile: str, provider: str, now: datetime, indexes: BlindIndex
) -> AskedCode:
    """Makes a code for a number in E.164 and writes down that it is about to be sent.

    Raises ServiceError(NOT_NOW) where this number or this channel has asked too often.
    """
    digest = indexes.index(MOBILE, service_id, mobile)
    # Two requests at once are counted one after the other.
    number = int.from_bytes(digest[:8], "big", signed=True)
    session.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))
    asked_at = session.exec(
        select(MobileVerification.asked_at).where(
            col(MobileVerification.service_id) == service_id,
            col(MobileVerification.digest).in_(indexes.live(MOBILE, service_id, mobile)),
            col(MobileVerification.asked_at) > now - _DAY,
        )
    ).all()
    by_channel = session.exec(
        select(sa.func.count()).where(
            col(MobileVerification.service_id) == service_id,
            col(MobileVerification.channel) == channel,
            col(MobileVerification.asked_at) > now - _HOUR,
        )
    ).one()
    if not may_ask(asked_at, by_channel, now=now):
        raise ServiceError(Code.NOT_NOW, "A code was sent a moment ago, or too many were: wait, then ask again.")
    ref, code = secrets.token_hex(16), f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}}"
    session.add(
        MobileVerification(
            ref=ref,
            service_id=service_id,
            channel=channel,
            key_version=indexes.current_version,
            digest=digest,
            code_hmac=_sealed(indexes, ref, code),
            provider=provider,
            asked_at=now,
            expires_at=now + LIFETIME,
        )
    )
    session.flush()
    return AskedCode(ref, code, now + LIFETIME)


def record_code_sent(session: Session, ref: str, answer: Answer) -> bool:
    """Writes down what sending a code came to. False: it certainly did not go. Repeating it changes nothing."""
    row = session.exec(select(MobileVerification).where(col(MobileVerification.ref) == ref).with_for_update()).one()
    if row.state is VerificationState.SENDING:
        unsent = isinstance(answer, DidNotSend | WillNot)
        row.state = VerificationState.NOT_SENT if unsent else VerificationState.SENT
        row.provider_id = answer.provider_id if isinstance(answer, Took) else ""
        session.add(row)
    return row.state is not VerificationState.NOT_SENT


def offer_code(
    session: Session,
    ref: str,
    code: str,
    *,
    service_id: str,
    channel: str,
    now: datetime,
    actor: str,
    indexes: BlindIndex,
) -> tuple[Offer, datetime | None]:
    """Takes one offer of a code, and says since when the number is proved. A confirmed one stays so.

    Raises ServiceError(NOT_FOUND) for a code that this channel never asked for.
    """
    row = _own(session, ref, service_id, channel, lock=True)
    if row is None:
        raise ServiceError(Code.NOT_FOUND, "There is no such verification here: ask for a code first.")
    right = hmac.compare_digest(row.code_hmac, _sealed(indexes, ref, code))
    if row.confirmed_at is not None:
        return (Offer.CONFIRMED, row.confirmed_at) if right else (Offer.WRONG, None)
    offer = judge(right=right, tries=row.tries, expires_at=row.expires_at, now=now)
    row.tries += 1
    if offer is Offer.CONFIRMED:
        row.state, row.confirmed_at = VerificationState.CONFIRMED, now
        assert row.id is not None  # a stored row
        audit.record(
            session,
            action="mobile.proved",
            subject="mobile_verification",
            subject_id=row.id,
            actor=actor,
            now=now,
            service_id=service_id,
        )
    session.add(row)
    session.flush()
    return offer, row.confirmed_at


def proved_at(
    session: Session, ref: str, *, service_id: str, channel: str, mobile: str, indexes: BlindIndex
) -> datetime | None:
    """When this very number was proved through this channel under this reference; None: it was not."""
    row = _own(session, ref, service_id, channel)
    if row is None or row.digest not in indexes.live(MOBILE, service_id, mobile):
        return None
    return row.confirmed_at


def _own(session: Session, ref: str, service_id: str, channel: str, *, lock: bool = False) -> MobileVerification | None:
    query = select(MobileVerification).where(
        col(MobileVerification.ref) == ref,
        col(MobileVerification.service_id) == service_id,
        col(MobileVerification.channel) == channel,
    )
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    return session.exec(query).one_or_none()


def _sealed(indexes: BlindIndex, ref: str, code: str) -> bytes:
    return indexes.content_hmac(f"code|{ref}|{code}".encode())
