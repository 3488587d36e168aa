"""Keeps what a text provider calls back with, before anything is read into it (ruling 15)."""

import json
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col

from models.rules.errors import Code, ServiceError
from models.rules.secrets import BlindIndex, Cipher
from models.rules.vocabulary import DeliveryStatus
from models.tables.inbox import Inbox, InboxKind, InboxState

LONGEST_KEY: Final = 200


def keep_text_status(  # noqa: PLR0913 - one callback, by name
    session: Session,
    *,
    attempt_ref: str,
    provider_id: str,
    status: DeliveryStatus,
    status_raw: str,
    error_code: str | None,
    form: Mapping[str, str],
    now: datetime,
    cipher: Cipher,
    indexes: BlindIndex,
) -> bool:
    """Stores one status callback whose signature was checked, whole and encrypted; False for one known already.

    It is the same callback when attempt, provider's id, status and error are the same: all else may differ.
    Raises ServiceError(BAD_INPUT) for words that no provider sends.
    """
    key = "|".join((attempt_ref, provider_id, status_raw, error_code or ""))
    if len(key) > LONGEST_KEY:
        raise ServiceError(Code.BAD_INPUT, "The callback's attempt, message or status is too long to be real.")
    letter = json.dumps(
        {
            "attempt_ref": attempt_ref,
            "provider_id": provider_id,
            "status": status.value,
            "status_raw": status_raw,
            "error_code": error_code,
            "form": dict(form),
        }
    )
    return _keep(session, InboxKind.TEXT_STATUS, key, letter, now=now, cipher=cipher, indexes=indexes)


def keep_text_reply(  # noqa: PLR0913 - one reply, by name
    session: Session,
    *,
    provider_id: str,
    from_e164: str,
    body: str,
    provider_word: str,
    form: Mapping[str, str],
    now: datetime,
    cipher: Cipher,
    indexes: BlindIndex,
) -> bool:
    """Stores one reply whose signature was checked, whole and encrypted; False for one known by its provider's id.

    Raises ServiceError(BAD_INPUT) for an id that no provider gives.
    """
    if not 0 < len(provider_id) <= LONGEST_KEY:
        raise ServiceError(Code.BAD_INPUT, "The reply's id is missing, or too long to be real.")
    letter = json.dumps({"from": from_e164, "body": body, "provider_word": provider_word, "form": dict(form)})
    return _keep(session, InboxKind.TEXT_REPLY, provider_id, letter, now=now, cipher=cipher, indexes=indexes)


def _keep(
    session: Session,
    kind: InboxKind,
    key: str,
    letter: str,
    *,
    now: datetime,
    cipher: Cipher,
    indexes: BlindIndex,
) -> bool:
    ref = secrets.token_hex(16)
    stored = session.execute(
        insert(Inbox)
        .values(
            ref=ref,
            kind=kind,
            service_id="",
            key=key,
            content_hmac=indexes.content_hmac(letter.encode()),
            body=cipher.encrypt("inbox", "body", ref, letter),
            state=InboxState.WAITING,
            reason="",
            received_at=now,
        )
        .on_conflict_do_nothing(index_elements=["kind", "service_id", "key"])
        .returning(col(Inbox.id))
    )
    return stored.scalar_one_or_none() is not None
