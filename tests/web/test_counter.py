"""The page of a counter, as somebody behind it uses it, and the order that leads there. Invented people only."""

import re
from dataclasses import replace

import pytest
from sqlmodel import select

from models.actions.parcel import pair_and_dispatch
from models.rules.service import CollectionPoint, CollectionPolicy, ServiceInForce
from models.tables.collection import Collection
from models.tables.kit import Kit
from models.tables.parcel import Direction, Parcel
from models.tables.text import Text
from tests.support import build, s10
from tests.support.web import words

MARKET = CollectionPoint("market", "Larkfield Pharmacy", ("22 Market Street",), "LS1 4AP", "22 Market Street")
HARBOUR = replace(MARKET, id="harbour", name="Harbour House", told_as="Harbour House")
numbers = s10.numbers("KW")


@pytest.fixture
def council(site):
    """A site whose council has two counters."""
    made = build.service(collection=CollectionPolicy(points=(MARKET, HARBOUR)))
    site.home.services["larkfield"] = ServiceInForce(made, site.home.services["larkfield"].version_id)
    return made


def parcel_for_a_counter(site, council, **contact):
    with site.home.begin() as session:
        person = build.person(session, given_name="Hidden", family_name="Resident")
        to = build.contact(session, person, collection_point="market", **contact)
        kit = build.printed_kit(session, of=person, to=to)
        pair_and_dispatch(
            session, kit, return_number=next(numbers), service=council, now=build.NOW, actor="packer:p",
            cipher=site.home.cipher,
        )  # fmt: skip
        return kit.code, session.exec(
            select(Parcel.code).where(Parcel.kit_id == kit.id, Parcel.direction == Direction.OUT)
        ).one()


def code_in_text(site):
    with site.home.begin() as session:
        text = session.exec(select(Text).where(Text.purpose == "kit_ready")).first()
        written = site.home.cipher.decrypt("text", "values", text.ref, text.values)
    return re.search(r'"code":"(\w+)"', written).group(1)


def test_a_counters_day_begins_at_the_counter_and_shows_nobodys_name(site, council):
    kit, parcel = parcel_for_a_counter(site, council)
    cora = site.signed_in("demo-counter")
    assert cora.get("/").headers["location"] == "/counter"
    assert "At which counter are you?" in words(cora.get("/counter"))

    page = cora.send("/counter", "/counter/point", point="larkfield/market")
    assert "Somebody comes for a parcel: ask for their code." in words(page)
    page = cora.send("/counter", "/counter/arrived", parcel=parcel)
    assert f"Parcel {parcel} is booked in: keep it until 5 January 2027." in words(page)

    code = code_in_text(site)
    page = cora.send("/counter", "/counter/code", code=f"{code[:3].lower()} {code[3:]}")
    assert f"Fetch parcel {parcel}, and scan it before you hand it over." in words(page)
    page = cora.send("/counter", "/counter/handed", parcel="23456789CDFH")
    assert "STOP: this is not the parcel of that code." in words(page)
    page = cora.send("/counter", "/counter/handed", parcel=parcel)
    assert f"Parcel {parcel} is handed over." in words(page)
    assert "Waiting here: 0" in words(page)
    for said in (kit, "Resident", "Hidden", code):
        assert said not in page.text
    with site.home.begin() as session:
        assert session.exec(select(Collection)).one().state == "collected"


def test_a_code_that_was_found_is_asked_for_anew_once_the_counter_changes(site, council):
    _, parcel = parcel_for_a_counter(site, council)
    cora = site.signed_in("demo-counter")
    cora.send("/counter", "/counter/point", point="larkfield/market")
    cora.send("/counter", "/counter/arrived", parcel=parcel)
    cora.send("/counter", "/counter/code", code=code_in_text(site))
    assert "Scan the parcel in your hand" in words(cora.get("/counter"))

    cora.send("/counter", "/counter/point")
    page = cora.send("/counter", "/counter/point", point="larkfield/harbour")

    assert "Scan the parcel in your hand" not in words(page)
    assert "Waiting here: 0" in words(page)


def test_a_counter_that_is_none_of_ours_is_not_chosen(site, council):
    cora = site.signed_in("demo-counter")
    page = cora.send("/counter", "/counter/point", point="moorside/market")
    assert "At which counter are you?" in words(page)


def test_the_service_sees_what_lies_where_and_gives_another_code_by_text_or_by_voice(site, council):
    kit, parcel = parcel_for_a_counter(site, council)
    silent, second = parcel_for_a_counter(site, council, text_consent=False)
    cora = site.signed_in("demo-counter")
    cora.send("/counter", "/counter/point", point="larkfield/market")
    for each in (parcel, second):
        cora.send("/counter", "/counter/arrived", parcel=each)
    packer = site.signed_in("demo-packer")
    assert "Larkfield Pharmacy 0 2 0" in words(packer.get("/logistics"))
    assert "Code not texted" in words(packer.get("/logistics"))

    page = packer.send("/logistics", "/logistics/larkfield/code", code=kit)
    assert "has a new code, the old one is void. It goes to them by text." in words(page)
    page = packer.send("/logistics", "/logistics/larkfield/code", code=silent)
    said = re.search(r"Read it to nobody but them: (\w{3} \w{3})\.", words(page)).group(1)

    assert f"Fetch parcel {second}" in words(cora.send("/counter", "/counter/code", code=said))


def test_where_there_is_no_counter_the_pages_say_so(site):
    assert "No kits are fetched at a counter here." in words(site.signed_in("demo-counter").get("/counter"))
    assert "At counters" not in words(site.signed_in("demo-packer").get("/logistics"))


def test_a_kits_timeline_tells_of_its_counter(site, council):
    kit, parcel = parcel_for_a_counter(site, council)
    cora = site.signed_in("demo-counter")
    cora.send("/counter", "/counter/point", point="larkfield/market")
    cora.send("/counter", "/counter/arrived", parcel=parcel)
    with site.home.begin() as session:
        assert session.exec(select(Kit)).one().state == "dispatched"
    assert "Collection: waiting" in words(site.signed_in("demo-manager").get(f"/kits/{kit}"))
