"""Files and arrivals, against an S3 and SQS server over HTTP."""

import io
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from integrations.store import CLIENT, S3FileStore, SqsArrivalQueue, keys_announced
from models.rules.errors import Code, ServiceError
from tests.support import aws

BUCKET = "kits"
LANDED = "northlab/incoming/24 Nov+b 50% é.hl7"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with aws.moto() as address:
        yield address


@pytest.fixture
def s3(endpoint: str) -> Any:
    client = aws.client("s3", endpoint)
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": aws.REGION})
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    yield client
    for found in client.list_object_versions(Bucket=BUCKET).get("Versions", []):
        client.delete_object(Bucket=BUCKET, Key=found["Key"], VersionId=found["VersionId"])
    for gone in client.list_object_versions(Bucket=BUCKET).get("DeleteMarkers", []):
        client.delete_object(Bucket=BUCKET, Key=gone["Key"], VersionId=gone["VersionId"])
    client.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def store(s3: Any) -> S3FileStore:
    return S3FileStore(s3, BUCKET)


@pytest.fixture
def sqs(endpoint: str) -> Any:
    return aws.client("sqs", endpoint)


@pytest.fixture
def queue_url(sqs: Any) -> Iterator[str]:
    url = sqs.create_queue(QueueName="arrivals")["QueueUrl"]
    yield url
    sqs.delete_queue(QueueUrl=url)


@pytest.fixture
def queue(sqs: Any, queue_url: str) -> SqsArrivalQueue:
    return SqsArrivalQueue(sqs, queue_url)


def test_what_was_put_is_read(store):
    store.put("print/7.pdf", b"%PDF", "application/pdf")

    assert store.read("print/7.pdf") == b"%PDF"


def test_a_file_replaced_after_it_was_recorded_is_still_read_as_it_was(store):
    pinned = store.put(LANDED, b"first", "text/plain")
    store.put(LANDED, b"second", "text/plain")

    assert store.read(LANDED, pinned) == b"first"


def test_a_large_file_comes_in_pieces_and_whole(store):
    content = bytes(range(256)) * 10_000
    store.put("northlab/incoming/large.csv", content, "text/csv")

    pieces = list(store.stream("northlab/incoming/large.csv"))

    assert len(pieces) > 1
    assert b"".join(pieces) == content


def test_an_open_file_that_is_put_in_parts_is_read_whole(store):
    content = bytes(range(256)) * 40_000  # more than one part
    store.put_file(LANDED, io.BytesIO(content))

    assert store.read(LANDED) == content


def test_listing_keeps_to_the_prefix_and_the_order(store):
    for key in ("northlab/incoming/b", "northlab/incoming/a", "southlab/incoming/c"):
        store.put(key, key.encode(), "text/plain")

    found = list(store.list("northlab/incoming/"))

    assert [item.key for item in found] == ["northlab/incoming/a", "northlab/incoming/b"]
    assert [item.size_bytes for item in found] == [len(item.key) for item in found]


def test_the_names_in_a_folder_are_those_of_its_objects_and_folders_and_of_nothing_deeper(store):
    for key in ("a.hl7", "northlab/", "northlab/b.hl7", "northlab/incoming/c", "northlab/incoming/d/e"):
        store.put(key, b"", "text/plain")

    assert sorted(store.names("")) == ["a.hl7", "northlab/"]
    assert sorted(store.names("northlab/")) == ["northlab/b.hl7", "northlab/incoming/"]
    assert list(store.names("elsewhere/")) == []


def test_an_object_is_pinned_to_its_version_and_dated_as_it_is_listed(store):
    version_id = store.put(LANDED, b"results", "text/plain")
    [listed] = store.list(LANDED)

    pinned = store.pin(LANDED)

    assert pinned == replace(listed, version_id=version_id)
    store.put(LANDED, b"later results", "text/plain")
    assert store.read(LANDED, pinned.version_id) == b"results"


def test_an_object_that_the_store_will_not_show_is_listed_all_the_same(s3, store):
    """As AWS does not one that was put with a key of the sender's own: HEAD answers a bare 400."""
    store.put(LANDED, b"results", "text/plain")

    class ShowsNothing:
        get_paginator = staticmethod(s3.get_paginator)

        @staticmethod
        def head_object(**_: Any) -> Any:
            raise ClientError({"Error": {"Code": "400", "Message": "Bad Request"}}, "HeadObject")

    blind: Any = ShowsNothing()
    assert [item.key for item in S3FileStore(blind, BUCKET).list("northlab/")] == [LANDED]
    with pytest.raises(ServiceError) as refused:
        S3FileStore(blind, BUCKET).pin(LANDED)
    assert refused.value.code is Code.STORE_DOWN


def test_moving_twice_changes_nothing_the_second_time(store):
    store.put(LANDED, b"results", "text/plain")

    store.move(LANDED, "northlab/done/1")
    store.move(LANDED, "northlab/done/1")

    assert store.read("northlab/done/1") == b"results"
    assert list(store.list("northlab/incoming/")) == []


def test_moving_a_version_leaves_the_newer_file_of_the_same_name_where_it_is(store):
    older = store.put(LANDED, b"older", "text/plain")
    newer = store.put(LANDED, b"newer", "text/plain")

    store.move(LANDED, "northlab/done/1", older)
    store.move(LANDED, "northlab/done/1", older)

    assert store.read("northlab/done/1") == b"older"
    assert store.pin(LANDED).version_id == newer
    assert store.read(LANDED, newer) == b"newer"


@pytest.mark.parametrize(
    "call",
    [lambda s: s.read("gone"), lambda s: s.pin("gone"), lambda s: s.move("gone", "there")],
    ids=["read", "pin", "move"],
)
def test_a_file_that_is_gone_is_said_to_be(store, call):
    with pytest.raises(ServiceError) as refused:
        call(store)

    assert refused.value.code is Code.NOT_FOUND


def test_an_archived_file_is_said_to_be(s3, store):
    s3.put_object(Bucket=BUCKET, Key=LANDED, Body=b"old", StorageClass="GLACIER")

    with pytest.raises(ServiceError, match="archived in the store: have it restored") as refused:
        store.read(LANDED)

    assert refused.value.code is Code.NOT_NOW


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.check(),
        lambda s: s.put("a", b"", "text/plain"),
        lambda s: list(s.list("a")),
        lambda s: s.read("a"),
    ],
    ids=["check", "put", "list", "read"],
)
def test_a_missing_bucket_is_named_with_its_setting(s3, call):
    with pytest.raises(ServiceError, match=r"no bucket elsewhere: .*KITPOST_S3_BUCKET") as refused:
        call(S3FileStore(s3, "elsewhere"))

    assert refused.value.code is Code.BUCKET_MISSING


def nothing_listens() -> str:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}"


def test_a_store_that_is_down_is_said_to_be_and_no_key_is_told():
    client = aws.client("s3", nothing_listens())
    client.meta.config.retries = {"max_attempts": 0}

    with pytest.raises(ServiceError, match="does not answer") as refused:
        S3FileStore(client, BUCKET).read(LANDED)

    assert refused.value.code is Code.STORE_DOWN
    assert LANDED not in refused.value.message


def test_a_file_that_lands_is_announced_under_its_true_key_until_it_is_done(s3, sqs, store, queue, queue_url):
    arn = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    s3.put_bucket_notification_configuration(
        Bucket=BUCKET,
        NotificationConfiguration={"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]},
    )
    store.put(LANDED, b"results", "text/plain")

    [(receipt, key)] = queue.receive(0)
    queue.done(receipt)

    assert key == LANDED
    assert queue.receive(0) == []


@pytest.mark.parametrize(
    "body",
    [
        '{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "kits"}',
        '{"Records": [{"eventName": "ObjectRemoved:Delete", "s3": {"object": {"key": "a"}}}]}',
        '{"Records": [{"eventName": "ObjectCreated:Put"}]}',
        '{"Records": 7}',
        "[]",
        "no JSON",
        "",
    ],
)
def test_a_message_that_announces_no_new_file_is_taken_off_and_ignored(sqs, queue, queue_url, body):
    if body:
        sqs.send_message(QueueUrl=queue_url, MessageBody=body)

    assert keys_announced(body) == []
    assert queue.receive(0) == []
    counted = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    left = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=counted)["Attributes"]
    assert set(left.values()) == {"0"}


@pytest.mark.parametrize(
    ("quoted", "key"),
    [("a/b+c.hl7", "a/b c.hl7"), ("a%2Fb%2Bc.hl7", "a/b+c.hl7"), ("a/%C3%A9.csv", "a/é.csv"), ("a/50%25", "a/50%")],
)
def test_keys_are_unquoted_as_s3_quotes_them(quoted, key):
    record = {"eventName": "ObjectCreated:Put", "s3": {"object": {"key": quoted}}}

    assert keys_announced(json.dumps({"Records": [record]})) == [key]


def test_a_queue_that_is_missing_is_named_with_its_setting(sqs, queue_url):
    with pytest.raises(ServiceError, match="KITPOST_SQS_QUEUE_URL") as refused:
        SqsArrivalQueue(sqs, queue_url + "-elsewhere").receive(0)

    assert refused.value.code is Code.STORE_DOWN


def test_no_call_waits_for_ever():
    assert isinstance(CLIENT, Config)
    assert CLIENT.connect_timeout <= 5
    assert CLIENT.read_timeout <= 30
