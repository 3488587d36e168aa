"""The ordering channels' way in, over HTTP and a real PostgreSQL (FEATURES 1, 14, 86; ruling 17)."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from sqlmodel import select

from app.database import Begin
from app.web.api import LONGEST_BODY_BYTES, OrdersApi, collection_points_router, orders_router
from app.web.told import load_sentences
from app.wiring import TEMPLATES
from integrations.orders import EXAMPLE
from models.rules.errors import ServiceError
from models.rules.kit import KitState
from models.rules.service import CollectionPoint, CollectionPolicy, ServiceInForce
from models.tables.inbox import Inbox
from models.tables.kit import Kit
from models.tables.person import Contact
from tests.support import build
from tests.support.http import Client
from tests.support.intake import larkfield_intake

WEB_KEY = "web-key-of-larkfield-0123456789abcdef"
CLINIC_KEY = "clinic-key-of-larkfield-0123456789ab"


class Clock:
    now = build.NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def api(begin: Begin, clock: Clock) -> OrdersApi:
    return OrdersApi(
        begin=begin,
        clock=clock,
        intake=larkfield_intake(begin),
        sentences=load_sentences(TEMPLATES / "pages" / "told.toml"),
        keys={"larkfield/web": WEB_KEY, "larkfield/clinic": CLINIC_KEY},
    )


@pytest.fixture
def client(api: OrdersApi) -> Client:
    application = FastAPI()
    application.include_router(orders_router(api))
    return Client(application, Authorization=f"Bearer {WEB_KEY}")


def order(**changes: Any) -> dict[str, Any]:
    return {**EXAMPLE, "mobile_proved_at": build.NOW.isoformat(), **changes}


def kits(begin: Begin) -> int:
    with begin() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(Kit)) or 0


def test_an_order_is_answered_at_once_with_its_decision(client: Client, begin: Begin) -> None:
    answer = client.post("/api/orders", json=order())

    assert answer.status_code == 201
    assert answer.json() | {"order_ref": "?"} == {
        "order_ref": "?",
        "channel_ref": "web-000123",
        "outcome": "accepted",
        "reasons": [],
        "told": [{"key": "accepted", "sentence": "Thank you. Your kit will come in plain packaging."}],
        "decided_at": "2026-11-24T12:00:00Z",
        "cancelled": False,
    }
    assert kits(begin) == 1


def test_a_pep_diversion_says_at_once_where_to_go(client: Client, begin: Begin) -> None:
    answer = client.post("/api/orders", json=order(last_risk_at="2026-11-24T09:00:00+00:00", last_risk_on=None))

    [told] = answer.json()["told"]
    assert (answer.status_code, answer.json()["outcome"], told["key"]) == (201, "refused", "pep")
    assert "Go now".casefold() in told["sentence"].casefold()
    assert kits(begin) == 0


def test_a_person_is_told_in_their_own_language_and_by_their_services_phone(client: Client) -> None:
    answer = client.post("/api/orders", json=order(language="cy", symptoms=True))

    [told] = answer.json()["told"]
    assert told["sentence"].startswith("Os oes gennych symptomau")
    assert "0113 496 0000" in told["sentence"]


def test_a_double_click_makes_one_kit_and_gets_the_same_answer(client: Client, begin: Begin, clock: Clock) -> None:
    first = client.post("/api/orders", json=order())
    clock.now += timedelta(minutes=1)
    again = client.post("/api/orders", json=dict(reversed(order().items())))

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert kits(begin) == 1


def test_another_order_under_a_used_reference_is_a_conflict(client: Client, begin: Begin) -> None:
    client.post("/api/orders", json=order())

    answer = client.post("/api/orders", json=order(known_hiv=True))

    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "about:blank#conflict"
    assert kits(begin) == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"date_of_birth": "1998-02-30"}, "date_of_birth"),
        ({"date_of_birth": "2030-01-01"}, "date_of_birth"),
        ({"mobile": "0113 496 0000"}, "mobile"),
        ({"residence_postcode": "75008"}, "residence_postcode"),
        ({"shoe_size": 42}, "shoe_size"),
        ({"symptoms": "no"}, "symptoms"),
    ],
)
def test_a_fault_is_answered_with_its_field_and_one_sentence_and_nothing_is_stored(
    client: Client, begin: Begin, changes: dict[str, object], field: str
) -> None:
    answer = client.post("/api/orders", json=order(**changes))

    [error] = answer.json()["errors"]
    assert (answer.status_code, error["field"]) == (422, field)
    assert error["sentence"].endswith(".")
    with begin() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Inbox)) == 0


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[1]", b"x" * (LONGEST_BODY_BYTES + 1)])
def test_what_is_no_order_is_refused_as_a_problem(client: Client, body: bytes) -> None:
    answer = client.post("/api/orders", content=body)

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("sent", ["", "Bearer ", "Bearer wrong", f"Basic {WEB_KEY}", f"Bearer {WEB_KEY}x"])
def test_without_a_channels_key_nothing_is_read_and_nothing_stored(client: Client, begin: Begin, sent: str) -> None:
    headers = {"Authorization": sent}
    answers = [
        client.post("/api/orders", json=order(), headers=headers),
        client.get("/api/orders/web-000123", headers=headers),
        client.post("/api/orders/web-000123/cancel", headers=headers),
    ]

    assert [(answer.status_code, answer.headers["www-authenticate"]) for answer in answers] == [(401, "Bearer")] * 3
    with begin() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Inbox)) == 0


def test_a_channel_sees_and_cancels_its_own_orders_only(client: Client, begin: Begin) -> None:
    client.post("/api/orders", json=order())
    other = {"Authorization": f"Bearer {CLINIC_KEY}"}

    assert client.get("/api/orders/web-000123").json()["outcome"] == "accepted"
    assert client.get("/api/orders/web-000123", headers=other).status_code == 404
    assert client.post("/api/orders/web-000123/cancel", headers=other).status_code == 404
    with begin() as session:
        assert session.scalars(sa.select(Kit)).one().state is KitState.TO_PACK


def test_one_reference_of_two_channels_is_two_orders(client: Client, begin: Begin) -> None:
    client.post("/api/orders", json=order())
    answer = client.post("/api/orders", json=order(), headers={"Authorization": f"Bearer {CLINIC_KEY}"})

    assert answer.status_code == 201
    assert kits(begin) == 2


def test_a_channel_lists_the_counters_and_orders_to_one(api: OrdersApi, begin: Begin) -> None:
    market = CollectionPoint("market", "Larkfield Pharmacy", ("22 Market St",), "LS1 4AP", "22 Market St", "9 to 5")
    council = build.service(channels=("web", "clinic"), collection=CollectionPolicy(points=(market,)))
    api = replace(api, intake=replace(api.intake, services={"larkfield": ServiceInForce(council, 1)}))
    application = FastAPI()
    application.include_router(orders_router(api))
    application.include_router(collection_points_router(api))
    client = Client(application, Authorization=f"Bearer {WEB_KEY}")

    [point] = client.get("/api/collection-points").json()
    answer = client.post("/api/orders", json=order(collect_from=point["id"]))

    assert point == {
        "id": "market",
        "name": "Larkfield Pharmacy",
        "lines": ["22 Market St"],
        "postcode": "LS1 4AP",
        "hours": "9 to 5",
    }
    assert (answer.status_code, answer.json()["outcome"]) == (201, "accepted")
    with begin() as session:
        assert session.exec(select(Contact.collection_point)).one() == "market"
    assert Client(application).get("/api/collection-points").status_code == 401


def test_cancelling_stops_the_kit_and_may_be_repeated(client: Client, begin: Begin) -> None:
    client.post("/api/orders", json=order())
    answers = [client.post("/api/orders/web-000123/cancel") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert answers[0].json()["cancelled"]
    with begin() as session:
        assert session.scalars(sa.select(Kit)).one().state is KitState.CANCELLED


def test_the_openapi_description_shows_an_order_and_how_to_prove_who_asks(client: Client) -> None:
    described = client.get("/openapi.json").json()
    submit = described["paths"]["/api/orders"]["post"]
    content = submit["requestBody"]["content"]["application/json"]

    assert content["example"] == EXAMPLE
    assert set(EXAMPLE) <= set(content["schema"]["properties"])
    assert "$ref" not in json.dumps(content)
    assert submit["security"] == [{"HTTPBearer": []}]
    assert {"201", "200", "401", "409", "422"} <= set(submit["responses"])


def test_the_key_of_a_channel_that_no_service_has_stops_the_start(api: OrdersApi) -> None:
    with pytest.raises(ServiceError, match="larkfield/fax"):
        orders_router(replace(api, keys={"larkfield/fax": WEB_KEY}))
