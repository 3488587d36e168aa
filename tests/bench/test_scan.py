"""One scan at a packing bench: processor time of the product, and exchanges with the database, kit after kit.

SCAN_BENCH asks for another number of kits than 60.
"""

import os
import time
import uuid

import pytest
import sqlalchemy as sa
from sqlmodel import select

from models.actions.bench import BenchRead, take_scan
from models.rules.service import ServiceInForce
from models.tables.kit import KitSample
from models.tables.parcel import Direction, Parcel
from tests.support import build, s10

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

KITS = int(os.environ.get("SCAN_BENCH", "60"))
SERVICES = {"larkfield": ServiceInForce(build.service(), 1)}


def test_what_one_scan_costs(begin, engine, capsys):
    numbers = s10.numbers()
    codes = []
    for _ in range(KITS):
        with begin() as session:
            kit = build.printed_kit(session)
            tubes = session.exec(select(KitSample.tube_code).where(KitSample.kit_id == kit.id)).all()
            outer = session.exec(
                select(Parcel.code).where(Parcel.kit_id == kit.id, Parcel.direction == Direction.OUT)
            ).one()
            codes += [kit.code, *sorted(tubes), next(numbers), outer]
    statements = []
    sa.event.listen(engine, "before_cursor_execute", lambda *told: statements.append(told[2]))
    cipher, dispatched, began = build.cipher(), 0, time.process_time()

    for code in codes:
        with begin() as session:
            told = take_scan(
                session,
                BenchRead(str(uuid.uuid4()), code, build.NOW),
                bench="1",
                services=SERVICES,
                actor="staff:p1",
                cipher=cipher,
            )
            dispatched += told.dispatched

    took_ms = 1000 * (time.process_time() - began)
    assert dispatched == KITS
    with capsys.disabled():
        print(
            f"\n{len(codes)} scans of {KITS} kits: {took_ms / len(codes):.1f} ms of processor and "
            f"{len(statements) / len(codes):.1f} statements each"
        )
