"""A courier that tells us unasked: signed, kept once, read in any order (FEATURES 25, 81). Invented numbers only."""

import hashlib
import hmac
import json
from datetime import timedelta
from itertools import permutations

import httpx
import pytest
from sqlmodel import select

from flows.track_returns import read_news
from integrations.courier.webhook import CourierWebhook
from models.actions.parcel import pair_and_dispatch
from models.rules.errors import Code, ServiceError
from models.rules.kit import KitState
from models.rules.service import ServiceInForce
from models.rules.vocabulary import ScanKind
from models.tables.clinic import ClinicCase
from models.tables.inbox import Inbox, InboxState
from models.tables.kit import Kit
from models.tables.parcel import Direction, Parcel
from tests.support import build, s10, web
from tests.web.conftest import site, street

__all__ = ["site", "street"]

SERVICES = {"larkfield": ServiceInForce(build.service(), 1)}
NUMBER = next(s10.numbers("EP"))
NEWS = CourierWebhook([web.COURIER_SECRET])
WAY = ("in_transit", "out_for_delivery", "delivered")


def event(*statuses, number=NUMBER, event_id=None):
    details = [
        {"object": "TrackingDetail", "status": status, "datetime": (build.NOW + timedelta(days=9 + day)).isoformat()}
        for day, status in enumerate(statuses)
    ]
    result = {"object": "Tracker", "tracking_code": number, "tracking_details": details}
    wanted = event_id or "evt_" + "_".join(statuses)
    return json.dumps({"id": wanted, "description": "tracker.updated", "result": result}).encode()


def tell(site, body, *, secret=web.COURIER_SECRET, signature=None):
    made = "hmac-sha256-hex=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    with httpx.Client(trust_env=False, timeout=30) as courier:
        headers = {"X-Hmac-Signature": made if signature is None else signature}
        return courier.post(f"{site.url}/callbacks/courier", content=body, headers=headers).status_code


def read(begin):
    return read_news(
        begin, NEWS, SERVICES, clock=lambda: build.NOW + timedelta(days=20), cipher=build.cipher(), limit=99
    )


@pytest.fixture
def kit(site):
    with site.home.begin() as session:
        made = build.printed_kit(session)
        pair_and_dispatch(
            session,
            made,
            return_number=NUMBER,
            service=build.service(),
            now=build.NOW,
            actor="packer:p1",
            cipher=build.cipher(),
        )
        return made


def standing(site, kit):
    with site.home.begin() as session:
        row = session.get_one(Kit, kit.id)
        back = session.exec(select(Parcel).where(Parcel.kit_id == kit.id, Parcel.direction == Direction.BACK)).one()
        return row.state, row.posted_back_at, back.status


def test_signed_news_is_kept_encrypted_once_and_then_read(site, kit):
    body = event(*WAY)

    assert [tell(site, body), tell(site, body)] == [204, 204]
    with site.home.begin() as session:
        [kept] = session.exec(select(Inbox).where(Inbox.key == "evt_" + "_".join(WAY))).all()
    assert NUMBER.encode() not in kept.body
    assert (read(site.home.begin), read(site.home.begin)) == (3, 0)
    assert standing(site, kit) == (KitState.COMING_BACK, build.NOW + timedelta(days=9), ScanKind.DELIVERED)


@pytest.mark.parametrize("signature", ["", "hmac-sha256-hex=", "hmac-sha256-hex=" + "0" * 64, "é"])
def test_unsigned_news_is_refused_and_nothing_is_kept(site, kit, signature):
    assert tell(site, event(*WAY), signature=signature.encode()) == 403
    assert tell(site, event(*WAY), secret="another secret") == 403
    assert read(site.home.begin) == 0


def test_the_secret_before_is_taken_while_it_is_changed():
    body = event(*WAY)
    signed = hmac.new(b"the old secret", body, hashlib.sha256).hexdigest()

    CourierWebhook(["the new secret", "the old secret"]).check(f"hmac-sha256-hex={signed}", body)
    with pytest.raises(ServiceError) as refused:
        CourierWebhook(["the new secret"]).check(f"hmac-sha256-hex={signed}", body)
    assert refused.value.code is Code.BAD_SIGNATURE


@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_news_in_any_order_ends_the_same(site, kit, order):
    for number in order:
        body = event(*WAY[: number + 1], event_id=f"evt_{number}")
        assert tell(site, body) == 204
        read(site.home.begin)

    assert standing(site, kit) == (KitState.COMING_BACK, build.NOW + timedelta(days=9), ScanKind.DELIVERED)


def test_a_status_that_nobody_agreed_on_moves_nothing_and_goes_to_a_person(site, kit):
    tell(site, event("failure"))
    read(site.home.begin)

    state, _, status = standing(site, kit)
    assert (state, status) == (KitState.DISPATCHED, ScanKind.LABELLED)
    with site.home.begin() as session:
        [case] = session.exec(select(ClinicCase)).all()
    assert case.detail["why"] == "unknown_scan"


def test_news_of_no_parcel_of_ours_is_settled_and_unreadable_news_stays_for_a_person(site, kit):
    tell(site, event(*WAY, number="XX000000000GB"))
    broken = json.dumps({"id": "evt_broken", "result": {"object": "Tracker", "tracking_code": NUMBER}}).encode()
    tell(site, broken)
    read(site.home.begin)

    with site.home.begin() as session:
        rows = session.exec(select(Inbox).where(Inbox.kind == "courier_event").order_by(Inbox.id)).all()
    assert [(row.state, row.reason) for row in rows] == [
        (InboxState.DONE, "no parcel of ours"),
        (InboxState.FAILED, "unreadable"),
    ]
    assert standing(site, kit)[0] is KitState.DISPATCHED


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b'{"id": 7}'])
def test_signed_rubbish_is_refused(site, body):
    assert tell(site, body) == 422
