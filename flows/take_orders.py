"""Submitted orders -> decisions -> kits to pack, refusals, holds: imports, and whatever the API left undecided.

One order is one transaction. An order that can't be read is set aside for a person, one that fails for
another reason stays waiting; both let the others go on and end the run as failed.
"""

from dataclasses import dataclass
from typing import Final

from prefect import flow

from app.database import Begin
from app.wiring import Clock, connect
from flows.guard import guarded, log
from models.actions.order import Intake, KeptAside, Taken, take_order, waiting_orders
from models.rules.errors import Code, ServiceError
from models.rules.order import OrderOutcome

ACTOR: Final = "flow:take_orders"


@dataclass(slots=True)
class Tally:
    """Counts of one run: all that Prefect is told."""

    accepted: int = 0
    refused: int = 0
    held: int = 0
    set_aside: int = 0
    failed: int = 0

    def add(self, outcome: OrderOutcome) -> None:
        """Counts one decision."""
        match outcome:
            case OrderOutcome.ACCEPTED:
                self.accepted += 1
            case OrderOutcome.REFUSED:
                self.refused += 1
            case OrderOutcome.HELD:
                self.held += 1


def take_waiting_orders(begin: Begin, intake: Intake, *, clock: Clock, limit: int) -> Tally:
    """Decides up to `limit` waiting orders, oldest first. What another process has in hand is passed over."""
    tally = Tally()
    with begin() as session:
        waiting = waiting_orders(session, limit=limit)
    for inbox_id in waiting:
        try:
            with begin() as session:
                taken = take_order(session, inbox_id, now=clock(), actor=ACTOR, intake=intake, wait=False)
        except Exception as error:  # noqa: BLE001 - one order's surprise must not keep the others waiting
            log.error("take-orders: inbox %d failed: %s", inbox_id, type(error).__name__)
            tally.failed += 1
            continue
        match taken:
            case Taken():
                tally.add(taken.outcome)
            case KeptAside():
                tally.set_aside += 1
            case None:
                continue
    return tally


@flow(name="take-orders", retries=0)
@guarded("take-orders")
def take_orders(limit: int = 500) -> None:
    """Decides waiting orders; fails, by code, when some need a person's eye."""
    home = connect()
    tally = take_waiting_orders(home.begin, home.intake, clock=home.clock, limit=limit)
    log.info(
        "take-orders: %d accepted, %d refused, %d held, %d set aside, %d failed",
        tally.accepted,
        tally.refused,
        tally.held,
        tally.set_aside,
        tally.failed,
    )
    if tally.set_aside or tally.failed:
        raise ServiceError(
            Code.PARKED, f"{tally.set_aside} orders can't be read, {tally.failed} failed: see `kitpost orders kept`."
        )
