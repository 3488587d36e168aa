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
    body = json.dumps(
        {
            "attempt_ref": attempt_ref,
            "provider_id": provider_id,
            "status": status.value,
            "status_raw": status_raw,
            "error_code": error_code,
            "form": dict(form),
        }
    )
    ref = secrets.token_hex(16)
    stored = session.execute(
        insert(Inbox)
        .values(
            ref=ref,
            kind=InboxKind.TEXT_STATUS,
            service_id="",
            key=key,
            content_hmac=indexes.content_hmac(body.encode()),
            body=cipher.encrypt("inbox", "body", ref, body),
            state=InboxState.WAITING,
            reason="",
            received_at=now,
        )
        .on_conflict_do_nothing(index_elements=["kind", "service_id", "key"])
        .returning(col(Inbox.id))
    )
    return stored.scalar_one_or_none() is not None
