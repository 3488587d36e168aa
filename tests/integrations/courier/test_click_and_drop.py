"""Click & Drop, spoken to its stand-in over HTTP; both sides judged by Royal Mail's published description."""

import json
import socket
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from openapi_core import OpenAPI
from openapi_core.testing import MockRequest, MockResponse

from integrations.courier.click_and_drop import ClickAndDrop
from integrations.ports import Bought, NotSent, Posting, Refused, Unsure
from models.rules.postage import PostPolicy, PostWay, recipient
from tests.support import courier
from tests.support.postage_seller import KEY, LABEL, WITH_RETURN

DESCRIPTION = Path(__file__).parents[2] / "contract" / "royal_mail_click_and_drop_openapi.json"
POSTING = Posting(
    "2VXK7M3HDNQP",
    recipient("Siân Ŵyn O’Hara", ("Flat 2", "17 Llŷn Road", "Larkfield"), "E8 1AA"),
    PostPolicy(PostWay.CLICK_AND_DROP, weight_grams=240, service_code="TPN24", sender_name="PO Box 12"),
    ordered_at=datetime(2026, 11, 25, 10, 30, tzinfo=UTC),
)


@pytest.fixture(scope="module")
def running():
    with courier.selling() as found:
        yield found


@pytest.fixture
def world(running):
    running.seller.orders.clear()
    running.seller.failures.clear()
    running.seller.asked.clear()
    running.seller.keeps, running.seller.mute = False, ""
    return running


@pytest.fixture
def post(world):
    with ClickAndDrop(world.url, KEY) as found:
        yield found


def test_one_order_gives_its_number_and_its_label(post):
    assert post.buy(POSTING) == Bought("1001", "OT000010017GB", LABEL)


def test_the_courier_is_told_no_contents_and_sends_no_notices(world, post):
    post.buy(POSTING)
    [asked] = world.seller.asked
    assert asked["postageDetails"] == {
        "receiveEmailNotification": False,
        "receiveSmsNotification": False,
        "serviceCode": "TPN24",
    }
    assert asked["recipient"] == {
        "address": {
            "fullName": "Sian Wyn O'Hara",
            "addressLine1": "Flat 2",
            "addressLine2": "17 Llyn Road",
            "city": "Larkfield",
            "postcode": "E8 1AA",
            "countryCode": "GB",
        }
    }
    assert asked["packages"] == [{"weightInGrams": 240, "packageFormatIdentifier": "largeLetter"}]
    assert asked["sender"] == {"tradingName": "PO Box 12"}


def test_an_account_without_labels_asks_for_none(world):
    with ClickAndDrop(world.url, KEY) as post:
        assert post.buy(replace(POSTING, policy=replace(POSTING.policy, labels=False))) == Bought("1001")


def test_the_label_that_brings_a_parcel_back_comes_with_its_postage_where_the_council_wants_it(post):
    both = replace(POSTING, policy=replace(POSTING.policy, return_labels=True))
    bought = post.buy(both)
    assert bought.label == WITH_RETURN
    assert post.label(bought.courier_id, with_return=True) == WITH_RETURN


def test_what_may_have_been_taken_is_unsure_and_found_by_our_reference(world, post):
    world.seller.failures = ["down"]
    with pytest.raises(Unsure):
        post.buy(POSTING)
    found = post.find(POSTING.reference)
    assert found == Bought("1001", "OT000010017GB")
    assert post.label(found.courier_id, with_return=False) == LABEL


def test_a_connection_that_breaks_after_the_order_left_is_unsure():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up():
            line, _ = server.accept()
            line.recv(65536)
            line.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with (
            ClickAndDrop(f"http://127.0.0.1:{server.getsockname()[1]}", KEY) as post,
            pytest.raises(Unsure),
        ):
            post.buy(POSTING)
        thread.join()


def test_a_reference_that_the_courier_does_not_know_is_not_found(post):
    assert post.find("2VXK7M3HDNQP") is None


def test_two_orders_under_one_reference_are_for_a_person(world, post):
    post.buy(POSTING)
    post.buy(POSTING)
    with pytest.raises(Refused) as told:
        post.find(POSTING.reference)
    assert told.value.code == "twice"


@pytest.mark.parametrize(
    ("word", "alarm", "after"), [("storm", False, 7.0), ("forbidden", True, None)], ids=["too many", "not allowed"]
)
def test_what_proves_that_nothing_was_bought_may_be_tried_later(world, post, word, alarm, after):
    world.seller.failures = [word]
    with pytest.raises(NotSent) as told:
        post.buy(POSTING)
    assert (told.value.alarm, told.value.retry_after_seconds) == (alarm, after)
    assert world.seller.orders == {}


def test_nobody_there_means_not_bought():
    with ClickAndDrop("http://127.0.0.1:9", KEY) as post, pytest.raises(NotSent):
        post.buy(POSTING)


def test_a_wrong_key_rings(world):
    with ClickAndDrop(world.url, "another") as post, pytest.raises(NotSent) as told:
        post.buy(POSTING)
    assert told.value.alarm


def test_a_refusal_names_the_field_and_never_its_value(world, post):
    no_town = replace(POSTING, to=recipient("Ann Other", ("1 High Street", ""), "E8 1AA"))
    with pytest.raises(Refused) as told:
        post.buy(no_town)
    assert told.value.code == "city"


def test_postage_is_taken_back_once_and_what_is_gone_is_gone_enough(world, post):
    bought = post.buy(POSTING)
    post.cancel(bought.courier_id)
    post.cancel(bought.courier_id)
    assert world.seller.orders == {}


def test_postage_that_the_courier_keeps_is_refused_so_that_a_person_cancels_it(world, post):
    bought = post.buy(POSTING)
    world.seller.keeps = True
    with pytest.raises(Refused):
        post.cancel(bought.courier_id)


def test_every_call_and_every_answer_is_royal_mails(world, post):
    plain = json.loads(DESCRIPTION.read_text(encoding="utf-8"))
    described = OpenAPI.from_dict({**plain, "servers": [{"url": "http://courier.test"}]})
    exchanges = []
    post._http.event_hooks["response"] = [lambda answer: (answer.read(), exchanges.append(answer))]
    bought = post.buy(POSTING)
    post.find(POSTING.reference)
    post.label(bought.courier_id, with_return=True)
    world.seller.keeps = True
    with pytest.raises(Refused):
        post.cancel(bought.courier_id)
    world.seller.keeps = False
    post.cancel(bought.courier_id)
    world.seller.failures = ["closed"]
    with pytest.raises(Unsure):
        post.buy(POSTING)
    assert len(exchanges) == 6
    for answer in exchanges:
        asked = answer.request
        request = MockRequest(
            "http://courier.test",
            asked.method.lower(),
            asked.url.path,
            args=dict(asked.url.params),
            headers=dict(asked.headers),
            data=asked.content or None,
            content_type=asked.headers.get("content-type", ""),
        )
        if asked.content:
            described.validate_request(request)
        described.validate_response(
            request,
            MockResponse(answer.content, answer.status_code, content_type=answer.headers["content-type"]),
        )


def test_nothing_of_the_person_shows_when_a_posting_is_printed():
    assert "Hara" not in repr(POSTING)
    assert "Llyn" not in repr(POSTING)
