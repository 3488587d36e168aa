"""Stock over the database: booked, packed, handed back, recalled (FEATURES 18). Invented lots only."""

from dataclasses import replace
from datetime import date, timedelta

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from flows.reconcile import strike
from models.actions.kit import cancel_kit
from models.actions.parcel import pair_and_dispatch
from models.actions.print_batch import claim_batch, reprint_kit
from models.actions.stock import adjust_lot, list_lots, recall_lot, receive_lot, running_low
from models.rules.errors import Code, ServiceError
from models.rules.kit import KitState
from models.rules.service import CollectionPoint, CollectionPolicy, ServiceInForce
from models.rules.stock import Recipe, StockPolicy
from models.rules.text import ReturnReminder, TextPurpose
from models.rules.vocabulary import Specimen
from models.tables.clinic import ClinicCase
from models.tables.kit import BatchState, Kit, PrintBatch
from models.tables.stock import KitPart, StockLot, StockMove
from models.tables.text import Text, TextState
from tests.support import build, s10

WHO = "cli:test"
SOON, LATER, LATEST = date(2026, 12, 20), date(2027, 3, 1), date(2027, 9, 1)
SERVICE = build.service(
    recipes=(
        Recipe("northlab", {"return_pouch": 1}),
        Recipe("northlab", {"swab_tube": 1}, Specimen.VULVOVAGINAL_SWAB),
        Recipe("northlab", {"lancet": 3}, Specimen.CAPILLARY_BLOOD),
    ),
    stock=StockPolicy(controlled=True, low_below={"lancet": 10}),
)
SERVICES = {"larkfield": ServiceInForce(SERVICE, 1)}


def receive(session, component, lot, pieces, expires_on=LATEST):
    return receive_lot(
        session,
        service=SERVICE,
        component=component,
        lot=lot,
        pieces=pieces,
        expires_on=expires_on,
        now=build.NOW,
        actor=WHO,
    )


def claim(begin, size=10):
    with begin() as session:
        return claim_batch(session, service=SERVICE, size=size, now=build.NOW)


def recall(begin, component, lot):
    with begin() as session:
        return recall_lot(
            session,
            service=SERVICE,
            component=component,
            lot=lot,
            because="the maker says so",
            now=build.NOW,
            actor=WHO,
        )


def held(begin, kit):
    with begin() as session:
        return dict(
            session.exec(
                select(StockLot.lot, KitPart.pieces)
                .join(KitPart, col(KitPart.lot_id) == col(StockLot.id))
                .where(KitPart.kit_id == kit.id, KitPart.pieces > 0)
            ).all()
        )


def books_balance(begin):
    """Every lot holds what its moves add up to, and what left it is in kits or was written off."""
    with begin() as session:
        moved = dict(
            session.exec(select(StockMove.lot_id, sa.func.sum(StockMove.pieces)).group_by(StockMove.lot_id)).all()
        )
        lots = {lot.id: lot.on_hand for lot in session.exec(select(StockLot))}
    return lots == {lot: moved.get(lot, 0) for lot in lots}


@pytest.fixture
def stocked(begin):
    with begin() as session:
        receive(session, "return_pouch", "P1", 5)
        receive(session, "swab_tube", "OLD", 5, SOON)
        receive(session, "swab_tube", "S1", 1, LATER)
        receive(session, "swab_tube", "S2", 5)
        receive(session, "lancet", "L1", 9)


@pytest.fixture
def kits(begin, stocked):
    with begin() as session:
        return [build.kit(session) for _ in range(4)]


def test_packing_takes_the_earliest_lot_that_outlives_the_window_and_the_kit_expires_with_it(begin, kits):
    claim(begin)

    assert [held(begin, kit) for kit in kits[:2]] == [{"P1": 1, "S1": 1, "L1": 3}, {"P1": 1, "S2": 1, "L1": 3}]
    with begin() as session:
        assert [session.get_one(Kit, kit.id).expires_on for kit in kits[:2]] == [LATER, LATEST]
    assert books_balance(begin)


def test_where_kits_wait_at_counters_their_parts_outlive_the_longest_wait_too(begin, kits):
    counter = CollectionPoint("market", "Larkfield Pharmacy", ("22 Market Street",), "LS1 4AP", "22 Market Street")
    with_counters = replace(SERVICE, collection=CollectionPolicy(points=(counter,)))

    with begin() as session:
        claim_batch(session, service=with_counters, size=10, now=build.NOW)

    assert held(begin, kits[0]) == {"P1": 1, "S2": 1, "L1": 3}, "S1 is good until 1 March: not for long enough"


def test_a_kit_that_lacks_a_component_waits_whole_and_the_others_go_on(begin, kits):
    batch = claim(begin)

    assert batch.kits == 3  # nine lancets
    assert held(begin, kits[3]) == {}
    with begin() as session:
        waiting = session.get_one(Kit, kits[3].id)
        assert (waiting.state, waiting.batch_id, waiting.expires_on) == (KitState.TO_PACK, None, None)
        receive(session, "lancet", "L2", 3)
    assert claim(begin).kits == 1


def test_without_anything_to_pack_there_is_no_batch(begin):
    with begin() as session:
        build.kit(session)

    assert claim(begin) is None


@pytest.mark.parametrize("how", ["reprinted", "cancelled"])
def test_a_kit_that_does_not_leave_hands_its_parts_back(begin, kits, how):
    claim(begin, size=1)
    with begin() as session:
        batch = session.exec(select(PrintBatch)).one()
        batch.state = BatchState.RELEASED
    with begin() as session:
        if how == "cancelled":
            cancel_kit(session, session.get_one(Kit, kits[0].id), now=build.NOW, actor=WHO, reason="asked_by_resident")
        else:
            keys = {"cipher": build.cipher(), "indexes": build.indexes()}
            reprint_kit(session, kits[0].code, because="smudged", now=build.NOW, actor=WHO, **keys)

    assert held(begin, kits[0]) == {}
    with begin() as session:
        assert {lot.lot: lot.on_hand for lot in session.exec(select(StockLot))} == {
            "P1": 5, "OLD": 5, "S1": 1, "S2": 5, "L1": 9,
        }  # fmt: skip
    assert books_balance(begin)
    assert claim(begin).kits == 3


def test_a_recall_finds_every_kit_that_holds_the_lot_wherever_it_is(begin, kits):
    claim(begin)
    with begin() as session:
        out = session.get_one(Kit, kits[1].id)
        out.state, out.dispatched_at, out.due_back_on = KitState.DISPATCHED, build.NOW, LATER

    found = recall(begin, "lancet", "L1")

    assert (found.in_our_room, found.outside) == (2, 1)
    with begin() as session:
        cases = session.exec(select(ClinicCase).order_by(col(ClinicCase.kit_id))).all()
        frozen = [session.get_one(Kit, kit.id).frozen_at is not None for kit in kits]
    assert [(case.kit_id, case.owner_role) for case in cases] == [
        (kits[0].id, "packer"),
        (kits[1].id, "health_adviser"),
        (kits[2].id, "packer"),
    ]
    assert all(case.due_at > build.NOW and case.detail["lot"] == "L1" for case in cases)
    assert frozen == [False, True, False, False]  # what left is only a person's to decide about


def test_a_recall_said_twice_opens_each_case_once(begin, kits):
    claim(begin)

    assert recall(begin, "swab_tube", "S1") == recall(begin, "swab_tube", "S1")
    with begin() as session:
        assert len(session.exec(select(ClinicCase)).all()) == 1


def test_a_recall_stops_the_reminders_to_use_it(begin, kits):
    claim(begin, size=1)
    with begin() as session:
        from models.actions.owed import OwedText, owe_texts

        kit = session.get_one(Kit, kits[0].id)
        kit.state, kit.dispatched_at, kit.due_back_on = KitState.DISPATCHED, build.NOW, LATER
        text = OwedText(kit.order_id, kit.id, kit.contact_id, ReturnReminder(LATER, last=False), "1")
        owe_texts(session, [text], service=SERVICE, now=build.NOW, cipher=build.cipher())

    recall(begin, "lancet", "L1")

    with begin() as session:
        text = session.exec(select(Text).where(Text.purpose == TextPurpose.RETURN_REMINDER)).one()
    assert (text.state, text.cancelled_because) == (TextState.CANCELLED, "lot_recalled")


def test_a_kit_with_a_recalled_part_cannot_be_dispatched(begin, kits):
    claim(begin, size=1)
    with begin() as session:
        session.get_one(Kit, kits[0].id).state = KitState.PRINTED
    recall(begin, "lancet", "L1")

    with begin() as session, pytest.raises(ServiceError, match="recalled lancet") as refused:
        pair_and_dispatch(
            session,
            session.get_one(Kit, kits[0].id),
            return_number=next(s10.numbers()),
            service=SERVICE,
            now=build.NOW,
            actor=WHO,
            cipher=build.cipher(),
        )

    assert refused.value.code is Code.CONFLICT


def test_a_recalled_lot_takes_no_delivery_and_is_packed_no_more(begin, kits):
    recall(begin, "lancet", "L1")

    assert claim(begin) is None
    with begin() as session, pytest.raises(ServiceError, match="recalled"):
        receive(session, "lancet", "L1", 9)


def test_one_lot_number_has_one_expiry(begin, stocked):
    with begin() as session, pytest.raises(ServiceError, match="expires on"):
        receive(session, "lancet", "L1", 9, LATER)


@pytest.mark.parametrize(("component", "expires_on"), [("glove", LATEST), ("lancet", date(2026, 11, 23))])
def test_a_delivery_of_something_unknown_or_expired_is_refused(begin, component, expires_on):
    with begin() as session, pytest.raises(ServiceError) as refused:
        receive(session, component, "X", 9, expires_on)

    assert refused.value.code is Code.BAD_INPUT


def test_a_lot_is_corrected_with_a_reason_and_never_below_nothing(begin, stocked):
    def adjust(pieces, because):
        with begin() as session:
            return adjust_lot(
                session,
                service_id="larkfield",
                component="lancet",
                lot="L1",
                pieces=pieces,
                because=because,
                now=build.NOW,
                actor=WHO,
            ).on_hand

    assert adjust(-2, "broken in the post") == 7
    for pieces, because in ((-8, "counted"), (-1, " ")):
        with pytest.raises(ServiceError) as refused:
            adjust(pieces, because)
        assert refused.value.code is Code.BAD_INPUT
    assert books_balance(begin)


def test_what_runs_low_is_said_by_component(begin, stocked):
    with begin() as session:
        low = running_low(session, services=SERVICES, now=build.NOW)
        lots = list_lots(session, services=SERVICES, now=build.NOW)

    assert [(each.component, each.pieces, each.below) for each in low["larkfield"]] == [("lancet", 9, 10)]
    assert {line.lot for line in lots if not line.usable} == {"OLD"}
    assert timedelta(0) < min(line.expires_on for line in lots) - build.NOW.date()


def test_the_daily_balance_says_what_runs_low(begin, stocked):
    late = strike(begin, lambda: build.NOW, SERVICES).late

    assert [each.ids for each in late if each.check == "low_stock"] == [("larkfield:lancet:9",)]
