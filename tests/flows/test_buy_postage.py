"""Postage is bought once for each parcel that leaves, and taken back for each that never does."""

from contextlib import suppress
from dataclasses import replace

import pytest
from sqlmodel import select

from flows.buy_postage import Desk, buy_owed
from integrations.courier.click_and_drop import ClickAndDrop
from models.actions.kit import cancel_kit, move_kit
from models.actions.postage import owe_postage
from models.actions.print_batch import reprint_kit
from models.rules.kit import KitState
from models.rules.postage import PostageState, PostPolicy, PostWay
from models.rules.service import CollectionPoint, CollectionPolicy, ServiceInForce
from models.tables.clinic import ClinicCase
from models.tables.kit import Kit, PrintBatch
from models.tables.parcel import Direction, Parcel
from models.tables.postage import Postage
from tests.support import build, courier
from tests.support.memory_store import MemoryStore
from tests.support.postage_seller import KEY, WITH_RETURN

NOW = build.NOW
SERVICE = replace(build.service(), post=PostPolicy(PostWay.CLICK_AND_DROP))


@pytest.fixture(scope="module")
def running():
    with courier.selling() as found:
        yield found


@pytest.fixture
def seller(running):
    running.seller.orders.clear()
    running.seller.failures.clear()
    running.seller.asked.clear()
    running.seller.keeps, running.seller.mute = False, ""
    return running.seller


@pytest.fixture
def post(running, begin):
    """A desk whose courier is the stand-in, and whose store is in memory."""
    with ClickAndDrop(running.url, KEY) as counter:
        yield Desk(
            begin,
            MemoryStore(),
            {"larkfield": counter},
            {"larkfield": ServiceInForce(SERVICE, 1)},
            build.cipher(),
            lambda: NOW,
            pause=lambda _: None,
        )


def owe(begin, count=1, way=PostWay.CLICK_AND_DROP, **changes):
    """Printed kits whose postage is owed, by their parcels' codes."""
    with begin() as session:
        for _ in range(count):
            kit = build.printed_kit(session, **changes)
            batch = session.get_one(PrintBatch, kit.batch_id)
            session.flush()
            assert owe_postage(session, kit.batch_id, batch.ref, way=way, now=NOW) == 1
    return [row.reference for row in rows(begin)]


def rows(begin):
    with begin() as session:
        return list(session.exec(select(Postage).order_by(Postage.id)))


def states(begin):
    return [row.state for row in rows(begin)]


def numbers(begin):
    with begin() as session:
        out = select(Parcel.tracking_number).where(Parcel.direction == Direction.OUT).order_by(Parcel.id)
        return list(session.exec(out))


def cases(begin):
    with begin() as session:
        return [case.detail["why"] for case in session.exec(select(ClinicCase).order_by(ClinicCase.id))]


def wait(begin):
    """Every patience ends: machine time can't be moved, so what waits on it is."""
    with begin() as session:
        for row in session.exec(select(Postage)):
            row.ask_at = row.ask_at and row.recorded_at
            row.claimed_until = row.claimed_until and row.recorded_at
            session.add(row)


def test_each_parcel_gets_postage_a_number_and_its_label_once(post, seller):
    owe(post.begin, 2)
    tally = buy_owed(post, limit=10)
    again = buy_owed(post, limit=10)
    assert (tally.bought, again.bought, len(seller.orders)) == (2, 0, 2)
    assert numbers(post.begin) == ["OT000010017GB", "OT000010027GB"]
    assert [post.store.read(row.label_key)[:5] for row in rows(post.begin)] == [b"%PDF-", b"%PDF-"]


@pytest.mark.parametrize("first", ["bought", "found"])
def test_the_return_label_lies_with_the_postage_however_its_label_came(post, seller, first):
    in_force = post.services["larkfield"]
    council = replace(in_force.service, post=replace(SERVICE.post, return_labels=True))
    desk = replace(post, services={"larkfield": replace(in_force, service=council)})
    owe(post.begin)
    if first == "found":
        seller.failures = ["down"]
        buy_owed(desk, limit=10)
        wait(post.begin)
    buy_owed(desk, limit=10)
    assert [post.store.read(row.label_key) for row in rows(post.begin)] == [WITH_RETURN]


def test_a_run_buys_no_more_than_its_limit(post, seller):
    owe(post.begin, 3)
    assert buy_owed(post, limit=2).bought == 2


def test_nothing_on_the_way_to_the_courier_names_the_kit(post, seller):
    owe(post.begin)
    buy_owed(post, limit=10)
    with post.begin() as session:
        [kit] = session.exec(select(Kit.code))
    assert kit not in str(seller.asked)


def test_a_box_for_a_counter_is_the_counters_post_and_names_nobody_else(post, seller):
    market = CollectionPoint("market", "Larkfield Pharmacy", ("22 Market Street",), "LS1 4AP", "22 Market Street")
    in_force = post.services["larkfield"]
    council = replace(in_force.service, collection=CollectionPolicy(points=(market,)))
    desk = replace(post, services={"larkfield": replace(in_force, service=council)})
    with post.begin() as session:
        person = build.person(session)
        to = build.contact(session, person, collection_point="market")
    owe(post.begin, of=person, to=to)

    buy_owed(desk, limit=10)

    assert seller.asked[0]["recipient"]["address"]["fullName"] == "Larkfield Pharmacy"
    assert "Testina" not in str(seller.asked)


def test_what_may_have_been_bought_is_found_and_not_bought_again(post, seller):
    owe(post.begin)
    seller.failures = ["down"]
    assert buy_owed(post, limit=10).unsure == 1
    assert states(post.begin) == [PostageState.UNSURE]
    buy_owed(post, limit=10)
    assert len(seller.orders) == 1, "nothing is asked before its time"
    wait(post.begin)
    tally = buy_owed(post, limit=10)
    assert (tally.found, tally.labels, len(seller.orders)) == (1, 1, 1)
    assert numbers(post.begin) == ["OT000010017GB"]


def test_what_was_never_bought_is_owed_again_after_two_looks(post, seller):
    owe(post.begin)
    seller.failures = ["closed"]
    buy_owed(post, limit=10)
    wait(post.begin)
    assert buy_owed(post, limit=10).never == 0
    wait(post.begin)
    tally = buy_owed(post, limit=10)
    assert (tally.never, tally.bought, len(seller.orders)) == (1, 1, 1)


def test_too_many_calls_are_put_off_and_the_parcel_stays_owed(post, seller):
    owe(post.begin, 2)
    seller.failures = ["storm"]
    tally = buy_owed(post, limit=10)
    assert (tally.down, tally.alarm, states(post.begin)) == (True, False, [PostageState.OWED] * 2)
    wait(post.begin)
    assert buy_owed(post, limit=10).bought == 2


def test_a_courier_that_refuses_us_rings(post, seller):
    owe(post.begin)
    seller.failures = ["forbidden"]
    assert buy_owed(post, limit=10).alarm


def test_an_address_without_a_town_is_a_packers_case_and_keeps_nobody_waiting(post, seller):
    with post.begin() as session:
        person = build.person(session)
        alone = build.contact(session, person, delivery_address="1 High Street\nLS1 1AA")
        kit = build.printed_kit(session, of=person, to=alone)
        owe_postage(session, kit.batch_id, "one", way=PostWay.CLICK_AND_DROP, now=NOW)
    owe(post.begin)
    assert buy_owed(post, limit=10).bought == 1
    assert states(post.begin) == [PostageState.REFUSED, PostageState.BOUGHT]
    assert cases(post.begin) == ["postage_refused"]


def test_new_paper_is_new_postage_and_what_the_old_had_is_taken_back(post, seller):
    owe(post.begin)
    buy_owed(post, limit=10)
    with post.begin() as session:
        [kit] = session.exec(select(Kit))
        reprint_kit(
            session,
            kit.code,
            because="torn",
            now=NOW,
            actor="packer:1",
            cipher=build.cipher(),
            indexes=build.indexes(),
        )
    assert buy_owed(post, limit=10).cancelled == 1
    assert (seller.orders, states(post.begin), cases(post.begin)) == ({}, [PostageState.CANCELLED], [])


def test_postage_of_a_cancelled_kit_that_the_courier_keeps_is_a_packers_case(post, seller):
    owe(post.begin)
    buy_owed(post, limit=10)
    with post.begin() as session:
        [kit] = session.exec(select(Kit))
        cancel_kit(session, kit, now=NOW, actor="clinician:1", reason="resident_asked")
    seller.keeps = True
    assert buy_owed(post, limit=10).kept == 1
    assert cases(post.begin) == ["postage_to_cancel"]
    assert buy_owed(post, limit=10).kept == 0


def test_a_kit_that_was_cancelled_before_its_turn_costs_nothing(post, seller):
    owe(post.begin)
    with post.begin() as session:
        [kit] = session.exec(select(Kit))
        cancel_kit(session, kit, now=NOW, actor="clinician:1", reason="resident_asked")
    assert buy_owed(post, limit=10).bought == 0
    assert (seller.orders, states(post.begin)) == ({}, [PostageState.CANCELLED])


def test_postage_of_a_parcel_that_left_is_never_taken_back(post, seller):
    owe(post.begin)
    buy_owed(post, limit=10)
    with post.begin() as session:
        [kit] = session.exec(select(Kit))
        kit.due_back_on = NOW.date()
        move_kit(session, kit, KitState.DISPATCHED, at=NOW, actor="packer:1")
        cancel_kit(session, kit, now=NOW, actor="clinician:1", reason="resident_asked")  # after it left: texts end
    assert buy_owed(post, limit=10).cancelled == 0
    assert len(seller.orders) == 1


def test_a_parcel_that_the_courier_has_twice_is_a_packers_case_and_keeps_nobody_waiting(post, seller):
    owe(post.begin)
    seller.failures = ["down"]
    buy_owed(post, limit=10)
    seller.take(seller.asked[0])  # somebody made it once more in the courier's own pages
    owe(post.begin)
    wait(post.begin)

    tally = buy_owed(post, limit=10)

    assert (tally.refused, tally.bought) == (1, 1)
    assert states(post.begin) == [PostageState.REFUSED, PostageState.BOUGHT]
    assert cases(post.begin) == ["postage_refused"]


@pytest.mark.parametrize("trouble", ["look_up", "label", "take_back"])
def test_a_parcel_about_which_the_courier_cannot_answer_keeps_no_other_from_its_postage(post, seller, trouble):
    owe(post.begin)
    if trouble == "look_up":
        seller.failures = ["down"]
    buy_owed(post, limit=10)
    with post.begin() as session:
        [row] = session.exec(select(Postage))
        if trouble == "label":
            row.label_key, row.ask_at = "", row.recorded_at
        session.add(row)
        if trouble == "take_back":
            cancel_kit(session, session.get_one(Kit, row.kit_id), now=NOW, actor="clinician:1", reason="resident_asked")
        reference = row.reference
    owe(post.begin)
    wait(post.begin)

    for _ in range(3):
        seller.mute = reference
        assert buy_owed(post, limit=10).down
        wait(post.begin)

    assert states(post.begin)[-1] is PostageState.BOUGHT
    assert numbers(post.begin)[-1]


class Killed(BaseException):
    """The process ends here."""


def dying(begin, at):
    """Begins transactions until the nth is to begin: then the process is gone."""
    left = at

    def begin_or_die():
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        return begin()

    return begin_or_die


@pytest.mark.parametrize("word", ["", "down"])
@pytest.mark.parametrize("at", range(1, 8))
def test_killed_between_any_two_commits_every_parcel_has_postage_once(post, seller, at, word):
    owe(post.begin, 2)
    seller.failures = [word] if word else []
    with suppress(Killed):
        buy_owed(replace(post, begin=dying(post.begin, at)), limit=10)
    for _ in range(6):
        wait(post.begin)
        buy_owed(post, limit=10)
    references = [order["orderReference"] for order in seller.orders.values()]
    assert sorted(references) == sorted(row.reference for row in rows(post.begin))
    assert states(post.begin) == [PostageState.BOUGHT] * 2
    assert all(numbers(post.begin))
    assert all(row.label_key for row in rows(post.begin))
