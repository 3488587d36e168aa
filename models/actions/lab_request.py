"""What laboratories are told of dispatched kits: claimed, sent once, acknowledged (FEATURES 82).

A request is owed in the transaction that dispatches its kit (`owed.owe_lab_request`). A file that was cut
short is made again with the same bytes under the same name: what it holds is settled by what was claimed for
it, whatever has become of that since. A message that may have arrived is unsure, and no machine sends it again.
"""

import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final

from sqlmodel import Session

from models.actions import audit
from models.rules.errors import Code, ServiceError
from models.rules.kit import show_kit_code
from models.rules.lab import Answer
from models.rules.lab_request import KitRequest, RequestState, TubeRequest
from models.rules.secrets import Cipher
from models.rules.vocabulary import Specimen, Test
from models.tables.bulk import cursor

LEASE_SECONDS: Final = 120
"""Machine time that one sending may take."""

CONTROL_ID_CHARACTERS: Final = 20
"""As many as MSH-10 has in every version before 2.7."""


@dataclass(frozen=True, slots=True)
class Sending:
    """Requests of one service to one lab that leave together. The same sending always holds the same requests."""

    batch: str
    requests: tuple[KitRequest, ...] = field(repr=False)


def claim_sending(
    session: Session, *, service_id: str, lab: str, size: int, again: bool, cipher: Cipher
) -> Sending | None:
    """Up to `size` owed requests for this process alone, the oldest first; None if there are none.

    With `again` a sending that fell silent comes first, whole. Without, its requests become unsure: they
    may have arrived.
    """
    on = cursor(session)
    scope = (service_id, lab)
    if again:
        on.execute(
            """
            UPDATE lab_request SET claimed_until = clock_timestamp() + make_interval(secs => %s)
            WHERE state = 'sending' AND batch = (
                SELECT batch FROM lab_request WHERE state = 'sending' AND service_id = %s AND lab = %s
                  AND claimed_until < clock_timestamp() ORDER BY id LIMIT 1)
            RETURNING batch
            """,
            (LEASE_SECONDS, *scope),
        )
        found = on.fetchone()
        if found:
            return Sending(found[0], _requests(session, found[0], cipher))
    else:
        on.execute(
            """
            UPDATE lab_request SET state = 'unsure', error_code = 'cut_short'
            WHERE state = 'sending' AND service_id = %s AND lab = %s AND claimed_until < clock_timestamp()
            """,
            scope,
        )
    batch = secrets.token_hex(8)
    on.execute(
        """
        UPDATE lab_request
        SET state = 'sending', batch = %s, claimed_until = clock_timestamp() + make_interval(secs => %s)
        WHERE id IN (SELECT r.id FROM lab_request r JOIN kit k ON k.id = r.kit_id
                     WHERE r.state = 'owed' AND r.service_id = %s AND r.lab = %s AND k.state <> 'cancelled'
                     ORDER BY r.id LIMIT %s FOR UPDATE OF r SKIP LOCKED)
        """,
        (batch, LEASE_SECONDS, *scope, size),
    )
    return Sending(batch, _requests(session, batch, cipher)) if on.rowcount else None


def _requests(session: Session, batch: str, cipher: Cipher) -> tuple[KitRequest, ...]:
    """All that was claimed together: one that a lab answered meanwhile stands in the file all the same."""
    on = cursor(session)
    on.execute(
        """
        SELECT left(r.ref, %s), k.id, k.code, k.dispatched_at, p.ref, p.date_of_birth
        FROM lab_request r JOIN kit k ON k.id = r.kit_id JOIN person p ON p.id = k.person_id
        WHERE r.batch = %s ORDER BY r.id
        """,
        (CONTROL_ID_CHARACTERS, batch),
    )
    rows = on.fetchall()
    on.execute(
        """
        SELECT s.kit_id, s.tube_code, s.specimen, array_agg(t.test ORDER BY t.test)
        FROM kit_sample s JOIN kit_test t USING (kit_id, tube_code)
        WHERE s.kit_id = ANY(%s) GROUP BY 1, 2, 3 ORDER BY 2
        """,
        ([row[1] for row in rows],),
    )
    tubes: dict[int, list[TubeRequest]] = {}
    for kit_id, code, specimen, tests in on:
        tubes.setdefault(kit_id, []).append(TubeRequest(code, Specimen(specimen), tuple(map(Test, tests))))
    return tuple(
        KitRequest(
            control_id=control_id,
            kit_code=code,
            date_of_birth=date.fromisoformat(cipher.decrypt("person", "date_of_birth", person_ref, bytes(sealed))),
            dispatched_at=dispatched_at,
            tubes=tuple(tubes[kit_id]),
        )
        for control_id, kit_id, code, dispatched_at, person_ref, sealed in rows
    )


def settle_sending(session: Session, batch: str, state: RequestState, *, now: datetime, error_code: str = "") -> int:
    """Says how one sending ended, and how many requests that was. One that was settled already is left as it is."""
    on = cursor(session)
    on.execute(
        """
        UPDATE lab_request SET state = %s, error_code = %s, claimed_until = NULL,
               sent_at = CASE WHEN %s IN ('sent', 'acknowledged', 'unsure', 'refused') THEN %s ELSE sent_at END,
               acknowledged_at = CASE WHEN %s = 'acknowledged' THEN %s::timestamptz END
        WHERE batch = %s AND state = 'sending'
        """,
        (state.value, error_code[:40], state.value, now, state.value, now, batch),
    )
    return on.rowcount


def ask_again(
    session: Session, code: str, *, services: Collection[str], because: str, now: datetime, actor: str
) -> None:
    """A person asked the lab, and has one kit's request sent once more, under the same control id: a repeat is known.

    No machine does this (a request in doubt may have arrived). Raises ServiceError(NOT_FOUND), or
    ServiceError(CONFLICT) for a request that waits already, is under way, or was answered; NOT_NOW while a file that
    holds it is not written for certain; BAD_INPUT without a reason.
    """
    if not because.strip():
        raise ServiceError(Code.BAD_INPUT, "Say what the laboratory said: it is kept in the audit.")
    on = cursor(session)
    on.execute(
        """
        SELECT r.id, r.state, r.service_id, k.id,
               EXISTS (SELECT FROM lab_request o WHERE o.batch = r.batch AND o.state = 'sending')
        FROM lab_request r JOIN kit k ON k.id = r.kit_id
        WHERE k.code = %s AND k.service_id = ANY(%s) FOR UPDATE OF r
        """,
        (code, list(services)),
    )
    found = on.fetchone()
    if found is None:
        raise ServiceError(Code.NOT_FOUND, f"No laboratory was to be told of kit {show_kit_code(code)}.", ref=code)
    request_id, state, service_id, kit_id, is_being_written = found
    if state not in {RequestState.UNSURE, RequestState.REFUSED, RequestState.SENT}:
        raise ServiceError(
            Code.CONFLICT, f"The request of kit {show_kit_code(code)} is {state}: nothing is to be sent.", ref=code
        )
    if is_being_written:
        raise ServiceError(
            Code.NOT_NOW, f"The file with the request of kit {show_kit_code(code)} is being written: try again later.",
            ref=code,
        )  # fmt: skip
    on.execute("UPDATE lab_request SET state = 'owed', batch = '', error_code = '' WHERE id = %s", (request_id,))
    audit.record(
        session,
        action="lab_request.again",
        subject="kit",
        subject_id=kit_id,
        actor=actor,
        now=now,
        service_id=service_id,
        because=because[:400],
        was=state,
    )


def take_answer(session: Session, answer: Answer, *, lab: str, now: datetime, takes_back: bool = False) -> bool:
    """A lab's own answer to one request, that came by itself; False if it is no request of ours that waits for one.

    To say yes once more changes nothing: a lab may answer when it has a request and again when it has taken it in.
    With `takes_back` a no counts after a yes too: on the line that brought both, the later word is the lab's. A code
    that is neither changes nothing.
    """
    if not answer.is_yes and not answer.is_no:
        return False
    on = cursor(session)
    on.execute(
        """
        UPDATE lab_request
        SET state = CASE WHEN %(accepted)s THEN 'acknowledged' ELSE 'refused' END, error_code = %(code)s,
            acknowledged_at = CASE WHEN %(accepted)s THEN coalesce(acknowledged_at, %(now)s::timestamptz) END,
            claimed_until = NULL
        WHERE lab = %(lab)s AND left(ref, 20) = %(control_id)s
          AND (state IN ('sending', 'sent', 'unsure', 'refused')
               OR (state = 'acknowledged' AND (%(accepted)s OR %(takes_back)s)))
        """,
        {
            "accepted": answer.is_yes,
            "takes_back": takes_back,
            "code": "" if answer.is_yes else answer.code[:40],
            "now": now,
            "lab": lab,
            "control_id": answer.about[:CONTROL_ID_CHARACTERS],
        },
    )
    return on.rowcount > 0


def acknowledge_by_results(session: Session) -> int:
    """A result proves that the lab knows the kit: its request needs no other answer. Says how many."""
    on = cursor(session)
    on.execute(
        """
        UPDATE lab_request r SET state = 'acknowledged', acknowledged_at = k.received_at, error_code = ''
        FROM kit k WHERE k.id = r.kit_id AND k.received_at IS NOT NULL
          AND r.state IN ('owed', 'sent', 'unsure', 'refused')
        """
    )
    return on.rowcount


def drop_needless(session: Session) -> int:
    """Of a kit that was cancelled no laboratory is told any more: no sample of it is to be tested. Says how many."""
    on = cursor(session)
    on.execute(
        """
        UPDATE lab_request r SET state = 'not_needed' FROM kit k
        WHERE k.id = r.kit_id AND k.state = 'cancelled' AND r.state = 'owed'
        """
    )
    return on.rowcount
