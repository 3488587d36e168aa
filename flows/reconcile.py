"""The daily balance: everything accounted for, or a person is told (H4; FEATURES 34; idea 4)."""

import logging
from typing import Final

from prefect import flow

from app.database import Begin
from app.wiring import Clock, connect
from flows.guard import guarded
from models.actions.balance import Balance, strike_balance
from models.actions.text_status import erase_values
from models.rules.errors import Code, ServiceError
from models.rules.service import Services

log: Final = logging.getLogger("kitpost")

ERASED_AT_ONCE: Final = 500
"""Texts emptied in one transaction."""


def strike(begin: Begin, clock: Clock, services: Services | None = None) -> Balance:
    """Strikes the balance and says in our own log what does not add up and what is late, by opaque ids."""
    with begin() as session:
        balance = strike_balance(session, now=clock(), services=services)
    for late in balance.late:
        log.warning("late: %s (%d): %s", late.check, late.count, ", ".join(late.ids))
    for difference in balance.differences:
        log.error("balance: %s (%d): %s", difference.check, difference.count, ", ".join(difference.ids))
    return balance


def check_even(balance: Balance) -> None:
    """Raises ServiceError(UNBALANCED) naming the checks that failed: the run fails, and on-call is told."""
    if not balance.is_even:
        failed = ", ".join(difference.check for difference in balance.differences)
        raise ServiceError(Code.UNBALANCED, f"The daily balance does not add up: {failed}.")


def erase_old_values(begin: Begin, clock: Clock, services: Services) -> int:
    """Erases what long settled texts were made with, batch by batch, and says how many it were."""
    erased, now = 0, clock()
    for in_force in services.values():
        batch = ERASED_AT_ONCE
        while batch == ERASED_AT_ONCE:
            with begin() as session:
                batch = erase_values(
                    session, service=in_force.service, limit=ERASED_AT_ONCE, now=now, actor="flow:reconcile"
                )
            erased += batch
    return erased


@flow(name="reconcile", retries=0)
@guarded("reconcile")
def reconcile() -> None:
    """Erases what was kept long enough, strikes the balance, and fails, by code, when anything does not add up."""
    product = connect()
    if erased := erase_old_values(product.begin, product.clock, product.services):
        log.info("texts' values erased: %d", erased)
    check_even(strike(product.begin, product.clock, product.services))
