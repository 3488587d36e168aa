"""The installation's one row: a demo's shifted clock (ruling 12)."""

from datetime import datetime, timedelta

from sqlmodel import Session

from models.actions import audit
from models.rules.errors import Code, ServiceError
from models.tables.bulk import cursor


def move_clock(session: Session, *, to: datetime, actor: str) -> timedelta:
    """Shifts service time forward to an instant, in a demo's database only, and says how far it is shifted now.

    Raises ServiceError(NOT_ALLOWED) in any other database, NOT_NOW while a text is in flight or for a
    time that has passed: service time never goes back.
    """
    on = cursor(session)
    on.execute("SELECT demo, service_time_offset_seconds, clock_timestamp() FROM installation FOR UPDATE")
    row = on.fetchone()
    if row is None or not row[0]:
        raise ServiceError(Code.NOT_ALLOWED, "Only a database that was made for a demo has a clock that can be moved.")
    _, offset, machine_time = row
    on.execute("SELECT EXISTS (SELECT FROM text WHERE state = 'sending')")
    if on.fetchone() == (True,):
        raise ServiceError(Code.NOT_NOW, "A text is being sent: move the clock when it is done.")
    shift = int((to - machine_time).total_seconds())
    if shift < offset:
        raise ServiceError(Code.NOT_NOW, "Service time only moves forward: that time has passed.")
    on.execute("UPDATE installation SET service_time_offset_seconds = %s", (shift,))
    audit.record(
        session, action="clock.moved", subject="installation", subject_id=1, actor=actor, now=to, offset_seconds=shift
    )
    return timedelta(seconds=shift)
