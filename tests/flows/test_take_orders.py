"""Waiting orders are decided, and one that can't be does not keep the others waiting."""

import json
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from app.database import Begin
from flows.take_orders import Tally, take_waiting_orders
from integrations.orders import EXAMPLE, parse_order
from models.actions.order import Intake, submit_order, waiting_orders
from models.rules.order import Order
from models.rules.service import Service
from models.tables.inbox import Inbox
from models.tables.kit import Kit
from tests.support import build
from tests.support.intake import larkfield_intake

NOW = build.NOW


@pytest.fixture
def intake(begin: Begin) -> Intake:
    return larkfield_intake(begin)


def submit(begin: Begin, intake: Intake, number: int, **changes: Any) -> int:
    values = {
        **EXAMPLE,
        "channel_ref": f"web-{number}",
        "mobile": f"07700 900{number:03d}",
        "residence_line_1": f"{number} Invented Row",
        "mobile_proved_at": NOW.isoformat(),
        **changes,
    }
    order_in = parse_order(json.dumps(values).encode())
    with begin() as session:
        return submit_order(
            session,
            service_id="larkfield",
            channel="web",
            channel_ref=order_in.channel_ref,
            content=order_in.canonical(),
            now=NOW,
            intake=intake,
        )


def run(begin: Begin, intake: Intake, limit: int = 100) -> Tally:
    return take_waiting_orders(begin, intake, clock=lambda: NOW, limit=limit)


def kits(begin: Begin) -> int:
    with begin() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(Kit)) or 0


def test_waiting_orders_end_accepted_refused_or_held(begin: Begin, intake: Intake) -> None:
    submit(begin, intake, 1)
    submit(begin, intake, 2, symptoms=True)
    submit(begin, intake, 3, residence_postcode="LS1 9AA", family_name="Other")

    assert run(begin, intake) == Tally(accepted=1, refused=1, held=1)
    assert kits(begin) == 1


def test_a_second_run_changes_nothing(begin: Begin, intake: Intake) -> None:
    submit(begin, intake, 1)
    run(begin, intake)

    assert run(begin, intake) == Tally()
    assert kits(begin) == 1


def test_a_run_takes_no_more_than_its_limit_and_the_oldest_first(begin: Begin, intake: Intake) -> None:
    ids = [submit(begin, intake, number, family_name=f"Kit{chr(64 + number)}") for number in (1, 2, 3)]

    assert run(begin, intake, limit=2).accepted == 2
    with begin() as session:
        assert list(waiting_orders(session, limit=10)) == ids[2:]


def test_an_order_that_can_not_be_read_is_set_aside_beside_good_ones(begin: Begin, intake: Intake) -> None:
    submit(begin, intake, 1, mobile="0113 496 0000")
    submit(begin, intake, 2)

    assert run(begin, intake) == Tally(accepted=1, set_aside=1)


def test_an_order_that_fails_stays_waiting_and_writes_nothing(begin: Begin, intake: Intake) -> None:
    def broken(body: str, service: Service, now: Any) -> Order:
        if "web-1" in body:
            raise RuntimeError("a fault of ours")
        return intake.read(body, service, now)

    first = submit(begin, intake, 1)
    submit(begin, intake, 2)

    assert run(begin, replace(intake, read=broken)) == Tally(accepted=1, failed=1)
    with begin() as session:
        assert list(waiting_orders(session, limit=10)) == [first]
    assert run(begin, intake) == Tally(accepted=1)


def test_an_order_in_another_process_hands_is_passed_over(begin: Begin, intake: Intake) -> None:
    held, _ = submit(begin, intake, 1), submit(begin, intake, 2, family_name="Other")

    with begin() as holder:
        holder.execute(sa.select(col(Inbox.id)).where(col(Inbox.id) == held).with_for_update())
        assert run(begin, intake) == Tally(accepted=1)
