"""The daily balance: everything accounted for, or a person is told (H4; FEATURES 34; idea 4)."""

import logging
from typing import Final

from prefect import flow

from app.database import Begin
from app.wiring import Clock, connect
from flows.guard import guarded
from models.actions.balance import Balance, strike_balance
from models.rules.errors import Code, ServiceError
from models.rules.service import Services

log: Final = logging.getLogger("kitpost")


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


@flow(name="reconcile", retries=0)
@guarded("reconcile")
def reconcile() -> None:
    """Strikes the daily balance and fails, by code, when anything is missing, doubled or ownerless."""
    product = connect()
    check_even(strike(product.begin, product.clock, product.services))
