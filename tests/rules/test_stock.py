"""What packing may take (FEATURES 18; H17): the earliest lot that outlives the window, whole kits or none."""

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from models.rules.stock import Lot, Recipe, StockPolicy, low_stock, must_outlive, parts_of, pick, usable
from models.rules.vocabulary import Specimen

TODAY = date(2026, 11, 25)
COMPONENTS = ["lancet", "swab_tube", "return_pouch"]

lots = st.lists(
    st.builds(
        Lot,
        lot_id=st.integers(1, 1_000),
        component=st.sampled_from(COMPONENTS),
        expires_on=st.integers(-5, 200).map(lambda days: TODAY + timedelta(days=days)),
        on_hand=st.integers(0, 5),
        recalled=st.booleans(),
    ),
    max_size=12,
    unique_by=lambda lot: lot.lot_id,
)
wanted = st.dictionaries(st.sampled_from(COMPONENTS), st.integers(1, 4), min_size=1)
windows = st.integers(0, 120).map(lambda days: TODAY + timedelta(days=days))


@given(lots, wanted, windows)
def test_a_picked_kit_is_whole_and_of_lots_that_may_be_used(stock, need, outlives):
    picked = pick(stock, need, outlives)
    if picked is None:
        return
    by_id = {lot.lot_id: lot for lot in stock}

    for component, pieces in need.items():
        assert sum(taken for lot, taken in picked.items() if by_id[lot].component == component) == pieces
    assert all(usable(by_id[lot], outlives) and 0 < taken <= by_id[lot].on_hand for lot, taken in picked.items())


@given(lots, wanted, windows)
def test_nothing_is_picked_only_when_a_component_is_short(stock, need, outlives):
    enough = all(
        sum(lot.on_hand for lot in stock if lot.component == component and usable(lot, outlives)) >= pieces
        for component, pieces in need.items()
    )

    assert (pick(stock, need, outlives) is not None) == enough


@given(lots, wanted, windows)
def test_no_earlier_usable_lot_is_left_lying_while_a_later_one_is_taken(stock, need, outlives):
    picked = pick(stock, need, outlives) or {}
    by_id = {lot.lot_id: lot for lot in stock}
    for taken in picked:
        for lot in stock:
            earlier = lot.component == by_id[taken].component and lot.expires_on < by_id[taken].expires_on
            if earlier and usable(lot, outlives):
                assert picked.get(lot.lot_id) == lot.on_hand


def test_a_lot_is_good_to_its_last_day_and_not_beyond_it():
    outlives = must_outlive(TODAY, return_within_days=60, days_to_dispatch=7)

    assert outlives == TODAY + timedelta(days=67)
    assert usable(Lot(1, "lancet", outlives, 1), outlives)
    assert not usable(Lot(1, "lancet", outlives - timedelta(days=1), 1), outlives)


def test_a_kit_holds_its_boxs_parts_once_and_each_samples_parts():
    recipes = [
        Recipe("northlab", {"return_pouch": 1}),
        Recipe("northlab", {"lancet": 3}, Specimen.CAPILLARY_BLOOD),
        Recipe("northlab", {"swab_tube": 1}, Specimen.RECTAL_SWAB),
        Recipe("northlab", {"swab_tube": 1}, Specimen.VULVOVAGINAL_SWAB),
        Recipe("quayside", {"return_pouch": 9}),
    ]

    found = parts_of(recipes, "northlab", [Specimen.RECTAL_SWAB, Specimen.VULVOVAGINAL_SWAB])

    assert found == {"return_pouch": 1, "swab_tube": 2}


def test_pieces_too_old_to_pack_do_not_hide_that_stock_is_low():
    stock = [Lot(1, "lancet", TODAY, 500), Lot(2, "lancet", TODAY + timedelta(days=300), 9)]

    [low] = low_stock(stock, StockPolicy(low_below={"lancet": 10}), TODAY + timedelta(days=67))

    assert (low.component, low.pieces) == ("lancet", 9)
    assert low_stock(stock, StockPolicy(low_below={"lancet": 9}), TODAY + timedelta(days=67)) == []
