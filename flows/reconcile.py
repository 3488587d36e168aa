"""The daily balance: everything accounted for, or a person is told (H4; FEATURES 34; idea 4)."""

import logging
from typing import Final

from app.database import Begin
from app.wiring import Clock
from models.actions.balance import Balance, strike_balance
from models.rules.errors import Code, ServiceError

ACTOR: Final = "flow:reconcile"
log: Final = logging.getLogger("kitpost")


def reconcile(begin: Begin, clock: Clock) -> Balance:
    """Strikes the balance and says in our own log what does not add up, by opaque ids."""
    with begin() as session:
        balance = strike_balance(session, now=clock())
    for difference in balance.differences:
        log.error("balance: %s (%d): %s", difference.check, difference.count, ", ".join(difference.ids))
    return balance


def check_even(balance: Balance) -> None:
    """Raises ServiceError(UNBALANCED) naming the checks that failed: the run fails, and on-call is told."""
    if not balance.is_even:
        failed = ", ".join(difference.check for difference in balance.differences)
        raise ServiceError(Code.UNBALANCED, f"The daily balance does not add up: {failed}.")
