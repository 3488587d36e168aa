"""Packing killed at every commit and object of a batch; scans and courier events shuffled, doubled or missing.

A batch of 1,000 and the next one; PACK_KILL_KITS asks for another number of kits than 1,100.
"""

import json
import os
import random
import subprocess
import sys
import uuid
from collections import Counter
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlmodel import select

from models.actions.bench import BenchRead, take_scan
from models.actions.parcel import CourierScan, take_scans
from models.rules.kit import KitState
from models.rules.service import ServiceInForce
from models.rules.vocabulary import ScanKind
from models.tables.kit import Kit, KitEvent, KitSample
from models.tables.parcel import Direction, Parcel
from tests.support import build, s10

KITS = int(os.environ.get("PACK_KILL_KITS", "1100"))
SERVICES = {"larkfield": ServiceInForce(build.service(), 1)}
DAY = timedelta(days=1)
BOUNDARIES_OF_A_BATCH = 6
"""Claim, read, three objects, release: a run is killed at each, and once in the batch after."""
numbers = s10.numbers("PR")


def run_until(url, folder, lines):
    """Starts a run and kills it with SIGKILL at its nth commit or stored object; True once one ended by itself."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.support.pack_worker", url, str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        for _ in range(lines):
            if worker.stdout.readline() in {"done\n", ""}:
                break
        else:
            worker.kill()
            worker.wait()
            return False
        worker.wait()
        assert worker.returncode == 0
        return True
    finally:
        worker.kill()
        worker.wait()
        worker.stdout.close()


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_packing_killed_again_and_again_prints_every_kit_once_and_uses_no_code_twice(begin, db, tmp_path):
    with begin() as session:
        for _ in range(KITS):
            build.kit(session)
    for boundary in range(1, BOUNDARIES_OF_A_BATCH + 2):
        assert not run_until(db.url, tmp_path, boundary)
        with db.owner_engine.begin() as owner:
            owner.execute(text("UPDATE print_batch SET claimed_until = now() - interval '1 minute'"))
    assert run_until(db.url, tmp_path, 10_000)

    with db.owner_engine.connect() as connection:
        states = Counter(connection.execute(text("SELECT state FROM kit")).scalars())
        batches = dict(connection.execute(text("SELECT ref, kits FROM print_batch WHERE state = 'released'")).all())
        left = connection.execute(text("SELECT count(*) FROM print_batch WHERE state <> 'released'")).scalar_one()
        printed = Counter(connection.execute(text("SELECT kit_id FROM kit_event WHERE kind = 'kit.printed'")).scalars())
    manifests = [json.loads(path.read_text()) for path in tmp_path.glob("*manifest.json")]
    on_paper = Counter(kit["kit"] for each in manifests for kit in each["kits"])
    codes = Counter(code for each in manifests for kit in each["kits"] for code in [kit["parcel"], *kit["tubes"]])
    assert (states, left) == ({"printed": KITS}, 0)
    assert {each["batch"]: len(each["kits"]) for each in manifests} == batches
    assert (len(on_paper), set(on_paper.values())) == (KITS, {1})
    assert set(codes.values()) == {1}
    assert (len(printed), set(printed.values())) == (KITS, {1})


# ── Shuffled, doubled, missing ───────────────────────────────────────────────────────────────

COURIER = (
    (ScanKind.LABELLED, "EVAIE", 1),
    (ScanKind.IN_NETWORK, "EVDAV", 5),
    (ScanKind.ATTEMPTED, "EVKNA", 6),
    (ScanKind.OUT_FOR_DELIVERY, "EVGPD", 7),
    (ScanKind.DELIVERED, "EVKSP", 8),
    (ScanKind.UNKNOWN, "EVXXX", 6),
)


def pack(begin, kit, codes):
    for code in codes:
        with begin() as session:
            read = BenchRead(str(uuid.uuid4()), code, build.NOW)
            take_scan(session, read, bench="1", services=SERVICES, actor="staff:p", cipher=build.cipher())
    with begin() as session:
        return session.get_one(Kit, kit.id).state


def follow(begin, kit, events):
    """Each event in a transaction of its own, in the order given. Where parcel and kit then stand."""
    with begin() as session:
        back = session.exec(select(Parcel.id).where(Parcel.kit_id == kit.id, Parcel.direction == Direction.BACK)).one()
    for kind, code, day in events:
        with begin() as session:
            scan = CourierScan(back, kind, code, build.NOW + day * DAY)
            take_scans(session, [back], [scan], services=SERVICES, now=build.NOW + 20 * DAY, actor="flow:t")
    with begin() as session:
        row, parcel = session.get_one(Kit, kit.id), session.get_one(Parcel, back)
        return row.state, row.posted_back_at, parcel.status, parcel.first_scan_at, parcel.last_scan_at


@pytest.mark.proof
@pytest.mark.timeout(300)
def test_whatever_comes_shuffled_doubled_or_not_at_all_the_state_is_the_same_and_no_kit_leaves_the_books(begin):
    chance = random.Random(12)
    made = 0
    for _ in range(12):
        seen = [each for each in COURIER if chance.random() < 0.7]
        ends = set()
        for _ in range(2):
            with begin() as session:
                kit = build.printed_kit(session)
                tubes = session.exec(select(KitSample.tube_code).where(KitSample.kit_id == kit.id)).all()
                outer = session.exec(
                    select(Parcel.code).where(Parcel.kit_id == kit.id, Parcel.direction == Direction.OUT)
                ).one()
            made += 1
            hands = [kit.code, *tubes, next(numbers), outer]
            astray = [code for code in hands[1:-1] for _ in range(chance.choice([0, 1, 2]))]
            chance.shuffle(astray)
            state = pack(begin, kit, [kit.code, *astray, outer])
            whole = set(astray) >= set(hands[1:-1])
            assert state is (KitState.DISPATCHED if whole else KitState.PRINTED)
            assert pack(begin, kit, hands) is KitState.DISPATCHED
            events = [each for each in seen for _ in range(chance.choice([1, 1, 2]))]
            chance.shuffle(events)
            ends.add(follow(begin, kit, events))
        assert len(ends) == 1, (seen, ends)
        [(state, posted, *_)] = ends
        moved = [day for kind, _, day in seen if kind not in {ScanKind.LABELLED, ScanKind.UNKNOWN}]
        assert (state is KitState.COMING_BACK) == bool(moved)
        assert posted == (build.NOW + min(moved) * DAY if moved else None)
    with begin() as session:
        assert len(session.exec(select(Kit.id)).all()) == made
        dispatched = session.exec(select(KitEvent.kit_id).where(KitEvent.kind == "kit.dispatched")).all()
    assert len(dispatched) == len(set(dispatched)) == made
