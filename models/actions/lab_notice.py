"""Notes what was wrong at a laboratory's door, so that what is refused there still reaches a person.

A laboratory's client may log a refusal where nobody looks, and its results would be missed only once they
are late. Nothing of what was sent is kept here: an HMAC tells a retry from another message.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session

from models.actions.owed import OwedCase, owe_cases
from models.rules.clinic import CaseKind
from models.rules.secrets import BlindIndex
from models.rules.service import Service, Services
from models.rules.vocabulary import Quarantine
from models.tables.bulk import cursor
from models.tables.lab_message import WayIn


@dataclass(frozen=True, slots=True)
class Noticed:
    """What was wrong with a message: the laboratory, its way in, the word, and whether nothing of it was kept."""

    lab: str
    way: WayIn
    reason: Quarantine
    refused: bool


def take_notice(
    session: Session, noticed: Noticed, content: bytes, *, now: datetime, indexes: BlindIndex, services: Services
) -> None:
    """Counts it, and opens the lab desk's case of this laboratory and word, unless it only came again.

    What comes again after its case was closed is news: nobody has mended it.
    """
    on = cursor(session)
    # Two at once: the laboratory's lock decides who is first, so that the other one finds the case.
    on.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"lab door {noticed.lab}",))
    on.execute(
        """
        INSERT INTO lab_notice (lab, way, reason, refused, content_hmac, times, first_at, last_at)
        VALUES (%s, %s, %s, %s, %s, 1, %s, %s)
        ON CONFLICT (lab, way, reason, content_hmac) DO UPDATE
        SET times = lab_notice.times + 1, last_at = greatest(lab_notice.last_at, excluded.last_at)
        RETURNING times
        """,
        (
            noticed.lab, noticed.way.value, noticed.reason.value, noticed.refused, indexes.content_hmac(content),
            now, now,
        ),
    )  # fmt: skip
    (times,) = on.fetchone()  # type: ignore[misc] # written or found
    key = f"door:{noticed.lab}:{noticed.reason.value}"
    on.execute("SELECT EXISTS (SELECT FROM clinic_case WHERE key = %s AND closed_at IS NULL)", (key,))
    if times > 1 and on.fetchone()[0]:  # type: ignore[index] # EXISTS answers
        return
    case = OwedCase(
        key=key,
        kind=CaseKind.LAB_ROW,
        lab=noticed.lab,
        detail={"quarantine": noticed.reason.value, "way": noticed.way.value},
    )
    owe_cases(session, [case], service=_who_looks_after(noticed.lab, services), now=now, actor=f"lab:{noticed.lab}")


def _who_looks_after(lab: str, services: Services) -> Service:
    """The first service with a contract with this laboratory."""
    held = [each for each, in_force in services.items() if in_force.service.contract(lab) is not None]
    return services[min(held or services)].service


@dataclass(frozen=True, slots=True)
class NoticeLine:
    """What was noticed of late of one laboratory, by way in and word."""

    lab: str
    way: WayIn
    reason: Quarantine
    refused: bool
    messages: int
    """Different ones."""
    times: int
    """How often they came, with every retry."""
    last_at: datetime


def notices_since(session: Session, labs: Collection[str], since: datetime) -> list[NoticeLine]:
    """What was noticed at these laboratories' doors since then, latest first."""
    on = cursor(session)
    on.execute(
        """
        SELECT lab, way, reason, refused, count(*), sum(times), max(last_at) FROM lab_notice
        WHERE lab = ANY(%s) AND last_at >= %s GROUP BY lab, way, reason, refused ORDER BY max(last_at) DESC, lab
        """,
        (list(labs), since),
    )
    return [
        NoticeLine(lab, WayIn(way), Quarantine(reason), refused, messages, int(times), last_at)
        for lab, way, reason, refused, messages, times, last_at in on
    ]
