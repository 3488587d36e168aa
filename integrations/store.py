"""Files in S3, and the queue that tells of new ones. Speaks boto3; any S3 and SQS will do."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import unquote_plus

from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from integrations.ports import StoredObject
from models.rules.errors import Code, ServiceError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_sqs import SQSClient

PIECE_BYTES: Final = 1024 * 1024

LONGEST_WAIT_SECONDS: Final = 20
"""SQS holds a request no longer than this."""

CLIENT: Final = Config(
    connect_timeout=5, read_timeout=LONGEST_WAIT_SECONDS + 10, retries={"mode": "standard", "max_attempts": 3}
)
"""How wiring builds both clients. Repeats are harmless here: the same key and body, or a read."""

_ONE_AT_A_TIME: Final = TransferConfig(use_threads=False)

_GONE: Final = frozenset({"NoSuchKey", "NoSuchVersion", "404", "NotFound"})

_ARCHIVED: Final = "InvalidObjectState"
"""A bucket's rules may move old objects where they can't be read before somebody has them restored."""


class S3FileStore:
    """Files in one bucket. The bucket's own policy encrypts them at rest and keeps their versions."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def put(self, key: str, body: bytes, content_type: str) -> str:
        """Stores one object and returns its version id, '' in a bucket without versions."""
        with self._clear_errors():
            stored = self._client.put_object(Bucket=self._bucket, Key=key, Body=body, ContentType=content_type)
        return stored.get("VersionId", "")

    def put_file(self, key: str, file: IO[bytes]) -> None:
        """Stores what a file holds, in parts where it is large: never more than a few of them are in memory."""
        with self._clear_errors():
            self._client.upload_fileobj(file, self._bucket, key, Config=_ONE_AT_A_TIME)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object under a prefix, in key order, without its version."""
        with self._clear_errors():
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
                for item in page.get("Contents", []):
                    yield StoredObject(item["Key"], "", item["Size"], _whole_seconds(item["LastModified"]))

    def names(self, folder: str) -> Iterator[str]:
        """The keys of what stands directly in a folder, folders in it among them."""
        with self._clear_errors():
            for page in self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=folder, Delimiter="/"
            ):
                yield from (item["Key"] for item in page.get("Contents", []) if item["Key"] != folder)
                yield from (each["Prefix"] for each in page.get("CommonPrefixes", []))

    def pin(self, key: str) -> StoredObject:
        """The object as it is now, with its version."""
        found = self._head(key)
        if found is None:
            raise _not_found()
        return found

    def read(self, key: str, version_id: str = "") -> bytes:
        """The whole object."""
        return b"".join(self.stream(key, version_id))

    def stream(self, key: str, version_id: str = "") -> Iterator[bytes]:
        """The object in pieces of a megabyte; one cut short on the way raises, and is never taken for whole."""
        with self._clear_errors():
            if version_id:
                found = self._client.get_object(Bucket=self._bucket, Key=key, VersionId=version_id)
            else:
                found = self._client.get_object(Bucket=self._bucket, Key=key)
            yield from found["Body"].iter_chunks(PIECE_BYTES)

    def move(self, key: str, to: str, version_id: str = "") -> None:
        """Copies, then deletes. Done already, it changes nothing. With a version, no other version is touched."""
        if self._head(key, version_id) is None:
            if self._head(to) is None:
                raise _not_found()
            return
        of: dict[str, Any] = {"VersionId": version_id} if version_id else {}
        with self._clear_errors():
            source: Any = {"Bucket": self._bucket, "Key": key, **of}
            self._client.copy_object(Bucket=self._bucket, Key=to, CopySource=source)
            self._client.delete_object(Bucket=self._bucket, Key=key, **of)

    def check(self) -> None:
        """Raises ServiceError(BUCKET_MISSING | STORE_DOWN) unless the bucket is there and answers."""
        try:
            with self._clear_errors():
                self._client.head_bucket(Bucket=self._bucket)
        except ServiceError as error:
            # A HEAD has no body, so a missing bucket is a bare 404 like a missing object.
            raise self._bucket_missing() if error.code is Code.NOT_FOUND else error from error

    def _head(self, key: str, version_id: str = "") -> StoredObject | None:
        of: dict[str, Any] = {"VersionId": version_id} if version_id else {}
        try:
            with self._clear_errors():
                found = self._client.head_object(Bucket=self._bucket, Key=key, **of)
        except ServiceError as error:
            if error.code is Code.NOT_FOUND:
                return None
            raise
        return StoredObject(
            key, found.get("VersionId", ""), found["ContentLength"], _whole_seconds(found["LastModified"])
        )

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code == "NoSuchBucket":
                raise self._bucket_missing() from error
            if code in _GONE:
                raise _not_found() from error
            if code == _ARCHIVED:
                raise ServiceError(
                    Code.NOT_NOW, "The file is archived in the store: have it restored there, then try again."
                ) from error
            raise ServiceError(
                Code.STORE_DOWN,
                f"The file store refused with {code or 'no reason'}: check its keys and the bucket's policy.",
            ) from error
        except BotoCoreError as error:
            raise _no_answer("KITPOST_S3_ENDPOINT", error) from error

    def _bucket_missing(self) -> ServiceError:
        return ServiceError(
            Code.BUCKET_MISSING, f"There is no bucket {self._bucket}: create it, or put KITPOST_S3_BUCKET right."
        )


class SqsArrivalQueue:
    """Arrivals as S3 announces them on a queue. Messages that announce no new object are taken off and ignored."""

    def __init__(self, client: "SQSClient", queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def receive(self, wait_seconds: int) -> Sequence[tuple[str, str]]:
        """(receipt, object key) of up to ten messages, waiting up to `wait_seconds` (at most 20)."""
        with self._clear_errors():
            answer = self._client.receive_message(
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=10,
                WaitTimeSeconds=min(wait_seconds, LONGEST_WAIT_SECONDS),
            )
        arrivals: list[tuple[str, str]] = []
        for message in answer.get("Messages", []):
            keys = keys_announced(message.get("Body", ""))
            arrivals += [(message["ReceiptHandle"], key) for key in keys]
            if not keys:
                self.done(message["ReceiptHandle"])
        return arrivals

    def done(self, receipt: str) -> None:
        """Takes one message off the queue; one that is off already is no error."""
        with self._clear_errors():
            self._client.delete_message(QueueUrl=self._queue_url, ReceiptHandle=receipt)

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "no reason")
            raise ServiceError(
                Code.STORE_DOWN, f"The arrivals queue refused with {code}: check KITPOST_SQS_QUEUE_URL and its policy."
            ) from error
        except BotoCoreError as error:
            raise _no_answer("KITPOST_SQS_ENDPOINT", error) from error


def keys_announced(body: str) -> Sequence[str]:
    """The keys of the new objects that an S3 event names, unquoted. None for S3's test event and anything else."""
    try:
        event = json.loads(body)
        records = event.get("Records", [])
        return [
            unquote_plus(record["s3"]["object"]["key"])
            for record in records
            if str(record["eventName"]).removeprefix("s3:").startswith("ObjectCreated:")
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _whole_seconds(at: datetime) -> datetime:
    """What S3 itself says; some stand-ins are finer in a listing than in an answer to HEAD, and both are compared."""
    return at.replace(microsecond=0)


def _not_found() -> ServiceError:
    return ServiceError(Code.NOT_FOUND, "The file is not in the store: it was moved or deleted since it was recorded.")


def _no_answer(setting: str, error: BotoCoreError) -> ServiceError:
    return ServiceError(
        Code.STORE_DOWN, f"The file store does not answer ({type(error).__name__}): check the network and {setting}."
    )
