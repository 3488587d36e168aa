"""What a person may throw about sending, and how a restored backup is found out (H11, H29; FEATURES 79, 80).

The kill switches, the choice of provider, and the fence: every run of the sender is counted here and outside.
A database that has counted fewer runs than the world has is a backup that was restored: texts may have left
of which it knows nothing. From then on nothing is sent to a number that got a text this database cannot account for.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col, select

from models.actions import audit
from models.actions.text_choice import OPTED_OUT
from models.rules.errors import Code, ServiceError
from models.rules.staff import Action, Actor, services_where
from models.rules.text import CLASS_OF, TextClass, TextPurpose
from models.tables.bulk import cursor
from models.tables.service import Installation
from models.tables.text import Text, TextState, TextStop


def set_sending(session: Session, *, stopped: bool, actor: str, because: str, now: datetime) -> None:
    """The kill switch of the whole installation: from the commit on no call begins. Calls already begun end.

    Raises ServiceError(DATABASE_NOT_READY) where there is no switch to throw.
    """
    changed = session.execute(sa.update(Installation).values(sending_stopped=stopped).returning(col(Installation.id)))
    if changed.scalar_one_or_none() is None:
        raise _not_ready()
    action = "texts.stopped" if stopped else "texts.started"
    audit.record(session, action=action, subject="installation", subject_id=1, actor=actor, now=now, because=because)


def set_class_sending(
    session: Session,
    *,
    service_id: str,
    text_class: TextClass,
    stopped: bool,
    actor: str,
    because: str,
    now: datetime,
) -> None:
    """The kill switch of one class of one service's texts: from the commit on no call of that class begins."""
    session.execute(
        insert(TextStop)
        .values(service_id=service_id, text_class=text_class, stopped=stopped)
        .on_conflict_do_update(index_elements=["service_id", "text_class"], set_={"stopped": stopped})
    )
    audit.record(
        session,
        action="texts.stopped" if stopped else "texts.started",
        subject="service",
        subject_id=0,
        actor=actor,
        now=now,
        service_id=service_id,
        because=because,
        text_class=text_class.value,
    )


def sending_stopped(session: Session) -> bool:
    """Whether the whole installation's kill switch is set."""
    return bool(session.exec(select(Installation.sending_stopped)).one_or_none())


def stopped_classes(session: Session, service_id: str) -> frozenset[TextClass]:
    """The classes of a service's texts that may not leave now: all of them while the installation is stopped."""
    on = cursor(session)  # asked for every batch: one question, and nothing to put together
    on.execute(
        """
        SELECT coalesce((SELECT sending_stopped FROM installation), false),
               ARRAY(SELECT text_class FROM text_stop WHERE service_id = %s AND stopped)
        """,
        (service_id,),
    )
    [(everything, classes)] = on.fetchall()
    return frozenset(TextClass) if everything else frozenset(map(TextClass, classes))


def may_call(session: Session, *, service_id: str, text_class: TextClass, person_id: int | None = None) -> bool:
    """Asked right before each call, so that a switch, and a person's own STOP, stop within one message.

    `person_id` None: whoever holds the number is not known, or asked for this very text.
    """
    on = cursor(session)
    on.execute(
        f"""
        SELECT NOT sending_stopped AND NOT EXISTS (
            SELECT FROM text_stop WHERE service_id = %s AND text_class = %s AND stopped
        ) AND NOT {OPTED_OUT.format("%s::bigint")} FROM installation
        """,  # noqa: S608 - a constant
        (service_id, text_class.value, person_id),
    )
    return on.fetchone() == (True,)


def leaving_now(session: Session, service_id: str) -> frozenset[TextPurpose]:
    """The purposes that no switch stops."""
    stopped = stopped_classes(session, service_id)
    return frozenset(purpose for purpose in TextPurpose if CLASS_OF[purpose] not in stopped)


# ── Whom new texts go through ────────────────────────────────────────────────────────────────


def choose_provider(session: Session, *, provider: str, actor: str, because: str, now: datetime) -> None:
    """A person sends new texts through another provider; an empty name: the one of the settings.

    Texts with an attempt that may have gone stay with theirs (see `text.claim_texts`).
    """
    changed = session.execute(sa.update(Installation).values(text_provider=provider).returning(col(Installation.id)))
    if changed.scalar_one_or_none() is None:
        raise _not_ready()
    audit.record(
        session,
        action="texts.provider_chosen",
        subject="installation",
        subject_id=1,
        actor=actor,
        now=now,
        because=because,
        provider=provider,
    )


def chosen_provider(session: Session) -> str:
    """The provider that a person chose; empty: nobody did."""
    return session.exec(select(Installation.text_provider)).one_or_none() or ""


# ── The fence ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class SenderRun:
    """One run of the sender, counted."""

    number: int
    """To be written outside before anything is sent."""
    at: datetime
    """Machine time."""
    restored_from: datetime | None
    """Machine time since when texts may have left that this database does not know; None: it knows all."""
    just_found: bool
    """Whether this run is the one that found it out."""


def count_run(session: Session, *, outside: int | None, actor: str, now: datetime) -> SenderRun:
    """Counts a run and compares with the count that is kept outside the database; None: nothing is kept there.

    A count that is lost is no proof of anything: a database that has sent before is then treated as restored,
    except a demo's, whose outside is thrown away with every start.
    Raises ServiceError(DATABASE_NOT_READY) where there is nothing to count in.
    """
    row = session.exec(select(Installation).with_for_update().execution_options(populate_existing=True)).one_or_none()
    if row is None:
        raise _not_ready()
    lost = outside is None and row.sender_runs > 0 and not row.demo
    behind = lost or (outside or 0) > row.sender_runs
    just_found = behind and row.restored_from is None
    if just_found:
        row.restored_from = row.sender_ran_at or row.created_at
        audit.record(
            session,
            action="texts.backup_found",
            subject="installation",
            subject_id=1,
            actor=actor,
            now=now,
            runs_here=row.sender_runs,
            runs_outside=outside,
        )
    row.sender_runs = max(row.sender_runs, outside or 0) + 1
    at: datetime = session.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    row.sender_ran_at = at
    session.add(row)
    session.flush()
    return SenderRun(row.sender_runs, at, row.restored_from, just_found)


def unaccounted(session: Session, taken: Mapping[str, str]) -> frozenset[str]:
    """The numbers, of texts that providers took, whose text this database does not know by the provider's id."""
    on = cursor(session)
    on.execute(
        """
        SELECT taken.id FROM unnest(%s::text[]) AS taken (id)
        WHERE NOT EXISTS (SELECT FROM text_attempt a WHERE a.provider_id = taken.id)
          AND NOT EXISTS (SELECT FROM mobile_verification v WHERE v.provider_id = taken.id)
          AND NOT EXISTS (SELECT FROM duty_notice d WHERE d.provider_id = taken.id)
        """,
        (list(taken),),
    )
    return frozenset(taken[str(row[0])] for row in on.fetchall())


def caught_up(session: Session, *, actor: str, because: str, now: datetime) -> bool:
    """A person says that a restored database knows again what there is to know. False: it was not restored."""
    changed = session.execute(
        sa.update(Installation)
        .where(col(Installation.restored_from).is_not(None))
        .values(restored_from=None)
        .returning(col(Installation.id))
    )
    if changed.scalar_one_or_none() is None:
        return False
    audit.record(
        session,
        action="texts.backup_caught_up",
        subject="installation",
        subject_id=1,
        actor=actor,
        now=now,
        because=because,
    )
    return True


def restored_from(session: Session) -> datetime | None:
    """Since when this database may not know what left; None: it knows all."""
    return session.exec(select(Installation.restored_from)).one_or_none()


def _not_ready() -> ServiceError:
    return ServiceError(Code.DATABASE_NOT_READY, "This database was never set up: run kitpost migrate first.")


# ── For staff ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ClassView:
    """One class of one service's texts."""

    text_class: TextClass
    stopped: bool
    owed: int


@dataclass(frozen=True, slots=True)
class SendingView:
    """What leaves now of one service, and what waits for a person."""

    service_id: str
    classes: tuple[ClassView, ...]
    held: int
    """Texts of a burst beyond the ceiling of one run."""
    held_since: datetime | None


@dataclass(frozen=True, slots=True)
class Sending:
    """The whole installation's sending, as one person may see it."""

    stopped: bool
    restored: bool
    provider: str
    """Whom a person chose; empty: the one of the settings."""
    services: tuple[SendingView, ...]


def sending(session: Session, *, by: Actor) -> Sending:
    """What leaves now, in every service where this person may stop it. Raises ServiceError(NOT_ALLOWED)."""
    service_ids = sorted(services_where(by, Action.STOP_TEXTS))
    if not service_ids:
        raise ServiceError(Code.NOT_ALLOWED, "Your role does not allow this: ask your service manager.")
    row = session.exec(select(Installation)).one()
    return Sending(
        row.sending_stopped,
        row.restored_from is not None,
        row.text_provider,
        tuple(_view(session, service_id) for service_id in service_ids),
    )


def _view(session: Session, service_id: str) -> SendingView:
    owed = session.execute(
        sa.select(col(Text.purpose), sa.func.count(), sa.func.count(col(Text.held_at)), sa.func.min(col(Text.held_at)))
        .where(col(Text.service_id) == service_id, col(Text.state) == TextState.OWED)
        .group_by(col(Text.purpose))
    ).all()
    waiting = Counter[TextClass]()
    for purpose, many, _, _ in owed:
        waiting[CLASS_OF[purpose]] += many
    stopped = frozenset(
        session.exec(select(TextStop.text_class).where(col(TextStop.service_id) == service_id, col(TextStop.stopped)))
    )
    return SendingView(
        service_id,
        tuple(ClassView(each, each in stopped, waiting[each]) for each in TextClass),
        sum(held for _, _, held, _ in owed),
        min((since for _, _, _, since in owed if since), default=None),
    )
