"""Keeps lab messages that come one by one, and decides into which files they go (law 9; ruling 15).

A message is stored before its sender is answered. From there on it is read like any file of the lab:
its place among the lab's files is decided first, so that a filing cut short makes the same file again.
"""

import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col

from models.rules.errors import Code, ServiceError
from models.rules.lab import Form
from models.rules.secrets import BlindIndex, Cipher
from models.tables.bulk import cursor
from models.tables.lab_message import LabMessageIn, MessageState, WayIn

LEASE_SECONDS: Final = 60
"""Machine time that a filing may take before another process does it again."""

MOST_IN_A_FILE: Final = 500
MOST_BYTES_IN_A_FILE: Final = 8 << 20
_LONGEST_KEY: Final = 200
_ENDING: Final = {Form.HL7: "hl7", Form.FHIR: "json", Form.CSV: "csv"}


class Kept(StrEnum):
    """What became of a message that is stored now."""

    NEW = "new"
    AGAIN = "again"
    """The same was stored before, and nothing was done."""
    UNDER_A_USED_ID = "under_a_used_id"
    """New, under an id that the lab used for other content before: kept like any other, and a person asks why."""


def keep_message(  # noqa: PLR0913 - one message, by name
    session: Session,
    content: bytes,
    *,
    way: WayIn,
    lab: str,
    service_id: str,
    key: str,
    form: Form,
    now: datetime,
    cipher: Cipher,
    indexes: BlindIndex,
) -> Kept:
    """Stores one message whole and encrypted, once.

    Raises ServiceError(CONFLICT) where a document's id was used for other content, which HTTP's contract forbids,
    ServiceError(BAD_INPUT) for a key that is too long.
    """
    if len(key) > _LONGEST_KEY:
        raise ServiceError(Code.BAD_INPUT, f"The message's id is longer than {_LONGEST_KEY} characters.")
    ref = secrets.token_hex(16)
    content_hmac = indexes.content_hmac(content)
    stored = session.execute(
        insert(LabMessageIn)
        .values(
            ref=ref,
            way=way,
            lab=lab,
            service_id=service_id,
            key=key,
            form=form,
            content_hmac=content_hmac,
            # Latin-1 gives each byte a character: whatever encoding the lab uses, the same bytes come out again.
            body=cipher.encrypt("lab_message_in", "body", ref, content.decode("latin-1")),
            state=MessageState.WAITING,
            object_key="",
            received_at=now,
        )
        .on_conflict_do_nothing()
        .returning(col(LabMessageIn.id))
    )
    is_new = stored.scalar_one_or_none() is not None
    if not _is_used_otherwise(session, way, lab, service_id, key, content_hmac):
        return Kept.NEW if is_new else Kept.AGAIN
    if way is WayIn.HTTP:
        raise ServiceError(Code.CONFLICT, "This id was used for other content: send a new message under a new id.")
    return Kept.UNDER_A_USED_ID if is_new else Kept.AGAIN


def _is_used_otherwise(session: Session, way: WayIn, lab: str, service_id: str, key: str, content_hmac: bytes) -> bool:
    """Whether a lab's key stands for other content too. Two that come at the very same moment may both say no."""
    on = cursor(session)
    on.execute(
        """
        SELECT EXISTS (SELECT FROM lab_message_in
                       WHERE (way, lab, service_id, key) = (%s, %s, %s, %s) AND content_hmac <> %s)
        """,
        (way.value, lab, service_id, key, content_hmac),
    )
    return bool(on.fetchone()[0])  # type: ignore[index] # EXISTS answers


@dataclass(frozen=True, slots=True)
class FileToMake:
    """One file of a lab's incoming folder, made of messages in the order in which they came."""

    key: str
    form: Form
    messages: tuple[bytes, ...] = field(repr=False)


def decide_files(session: Session, *, labs: Collection[str]) -> list[str]:
    """Gives waiting messages their places among the labs' files, and returns the keys that the caller must make.

    HL7 messages that wait together go into one file; a FHIR document is a file of its own. Filings that fell
    silent are returned too.
    """
    on = cursor(session)
    on.execute(
        """
        SELECT id, ref, lab, form, octet_length(body) FROM lab_message_in
        WHERE state = 'waiting' AND lab = ANY(%s) ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
        """,
        (list(labs), MOST_IN_A_FILE),
    )
    place: dict[int, str] = {}
    gathering: dict[str, tuple[str, int]] = {}
    for message_id, ref, lab, form, size in on:
        key, gathered = gathering.get(lab, ("", 0))
        if form != Form.HL7 or not key or gathered + size > MOST_BYTES_IN_A_FILE:
            key, gathered = f"{lab}/incoming/{ref}.{_ENDING[Form(form)]}", 0
        place[message_id] = key
        if form == Form.HL7:
            gathering[lab] = (key, gathered + size)
    on.execute(
        """
        UPDATE lab_message_in AS m SET state = 'filing', object_key = placed.key,
               claimed_until = clock_timestamp() + make_interval(secs => %s)
        FROM unnest(%s::bigint[], %s::text[]) AS placed (id, key) WHERE m.id = placed.id
        """,
        (LEASE_SECONDS, list(place), list(place.values())),
    )
    on.execute(
        """
        UPDATE lab_message_in SET claimed_until = clock_timestamp() + make_interval(secs => %s)
        WHERE state = 'filing' AND lab = ANY(%s) AND claimed_until < clock_timestamp() RETURNING object_key
        """,
        (LEASE_SECONDS, list(labs)),
    )
    return list(dict.fromkeys([*place.values(), *(key for (key,) in on)]))


def file_to_make(session: Session, key: str, *, cipher: Cipher) -> FileToMake | None:
    """What goes into one file, or None once it is made."""
    on = cursor(session)
    on.execute(
        "SELECT ref, form, body FROM lab_message_in WHERE object_key = %s AND state = 'filing' ORDER BY id", (key,)
    )
    rows = on.fetchall()
    if not rows:
        return None
    messages = tuple(
        cipher.decrypt("lab_message_in", "body", ref, bytes(body)).encode("latin-1") for ref, _, body in rows
    )
    return FileToMake(key, Form(rows[0][1]), messages)


def note_filed(session: Session, key: str) -> None:
    """The file stands in the store, so the copy here is blanked; what recognises a repeat stays."""
    cursor(session).execute(
        """
        UPDATE lab_message_in SET state = 'filed', body = '', claimed_until = NULL
        WHERE object_key = %s AND state = 'filing'
        """,
        (key,),
    )


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where one message is: not read yet (no file), or in this file, which is finished or not."""

    received_at: datetime
    file_id: int | None
    finished: bool


def find_message(session: Session, *, way: WayIn, lab: str, service_id: str, key: str) -> Whereabouts:
    """What became of one message. Raises ServiceError(NOT_FOUND).

    Its file may have been put back: after a hold the newest reading counts. One that used it is the last word,
    and a copy that a repeated filing left behind is none.
    """
    on = cursor(session)
    on.execute(
        """
        SELECT m.received_at, f.id, f.finished_at IS NOT NULL
        FROM lab_message_in m LEFT JOIN lab_file f ON f.lab = m.lab AND f.object_key = m.object_key
        WHERE (m.way, m.lab, m.service_id, m.key) = (%s, %s, %s, %s) ORDER BY f.state = 'done' DESC, f.id DESC LIMIT 1
        """,
        (way.value, lab, service_id, key),
    )
    found = on.fetchone()
    if found is None:
        raise ServiceError(Code.NOT_FOUND, "Nothing was stored under this id.")
    return Whereabouts(*found)
