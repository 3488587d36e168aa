"""Every flow as Prefect runs it, on a real installation: only Prefect's server is the test harness's."""

import re
from collections.abc import Iterator

import pytest
from prefect import Flow
from prefect.client.schemas import State
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness

import app.wiring
from flows.buy_postage import buy_postage
from flows.follow_up_positives import follow_up_positives
from flows.guard import FlowError
from flows.ingest_results import ingest_results
from flows.notify_residents import notify_residents
from flows.pack_kits import pack_kits
from flows.reconcile import reconcile
from flows.request_tests import request_tests
from flows.take_orders import take_orders
from flows.track_returns import track_returns
from models.rules.errors import Code
from models.rules.postage import PostPolicy, PostWay
from tests.support import aws, build, courier
from tests.support.postgres import Database
from tests.support.web import home_on

pytestmark = [
    pytest.mark.proof,
    pytest.mark.timeout(180),
]  # the harness alone takes ten seconds, on a busy machine forty

NEEDS = {
    take_orders: "inbox",
    pack_kits: "print_batch",
    buy_postage: "postage",
    request_tests: "lab_request",
    track_returns: "parcel",
    ingest_results: "lab_file",
    notify_residents: "text",
    follow_up_positives: "clinic_case",
    reconcile: "kit",
}
"""Each flow, and a table that it can't do without."""


@pytest.fixture(scope="module")
def prefect() -> Iterator[None]:
    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield


@pytest.fixture(scope="module")
def world() -> Iterator[dict[str, str]]:
    """The store and the courier on loopback, as settings lead to them."""
    with aws.moto() as store, courier.stand_in() as parcels:
        aws.client("s3", store).create_bucket(
            Bucket="kitpost", CreateBucketConfiguration={"LocationConstraint": aws.REGION}
        )
        yield {
            "s3_endpoint": store,
            "s3_access_key": "test",
            "s3_secret_key": "test",
            "courier_base_url": parcels.url,
        }


@pytest.fixture
def installed(
    prefect: None, world: dict[str, str], db: Database, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    home = home_on(db, public_base_url="http://127.0.0.1:1", issuer="http://127.0.0.1:1", **world)
    with home.begin() as session:  # a council that posts by file, so that its parcels are looked at
        council = build.in_force(session, build.service(post=PostPolicy(PostWay.FILE)))
    vars(home)["services"] = {"larkfield": council}
    monkeypatch.setattr(app.wiring, "wiring", lambda: home)
    yield db
    home.engine.dispose()


def run(flow: Flow) -> State:
    return flow(return_state=True)


@pytest.mark.parametrize("flow", NEEDS, ids=lambda flow: flow.name)
def test_a_flow_runs_under_prefect_and_hands_it_nothing(installed, flow):
    ended = run(flow)

    assert ended.is_completed(), ended
    assert ended.result() is None


@pytest.mark.parametrize(("flow", "table"), NEEDS.items(), ids=lambda each: getattr(each, "name", each))
def test_a_flow_that_fails_tells_prefect_a_code_and_a_reference_alone(installed, flow, table):
    with installed.owner_engine.begin() as owner:
        owner.exec_driver_sql(f"REVOKE SELECT ON {table} FROM kitpost_app")
    try:
        ended = run(flow)
    finally:
        with installed.owner_engine.begin() as owner:
            owner.exec_driver_sql(f"GRANT SELECT ON {table} TO kitpost_app")

    assert ended.is_failed()
    failure = ended.result(raise_on_failure=False)
    assert type(failure) is FlowError
    assert (failure.code, failure.__cause__, failure.__context__) == (Code.UNEXPECTED, None, None)
    assert re.fullmatch(r"unexpected [0-9a-f]{8}", str(failure))
    assert ended.message == f"Flow run encountered an exception: FlowError: {failure}"
