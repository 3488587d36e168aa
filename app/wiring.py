"""Puts the product together: the only place that reads the settings and chooses adapters.

Everyone above asks here for what they need and gets values; each is built when first asked for,
so that a command that only prints something opens nothing.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from typing import Any

from sqlalchemy import Engine, text

from app import embedded_postgres
from app.database import Begin, as_application, begin_on, check_ready, make_engine
from app.settings import LocalPlace, Settings, key_bytes, load_settings, local_place
from integrations.cipher import BlindIndex, Cipher
from integrations.ports import ArrivalQueue, FileStore
from models.rules.errors import Code, ServiceError

__all__ = ["Clock", "LocalPlace", "Wiring", "connect", "local_place", "wiring"]

Clock = Callable[[], datetime]
"""Service time (ruling 12): an aware UTC instant, which a demo's database may have shifted forward."""

DATABASE = "kitpost"
"""The product's database on the embedded server."""


@dataclass(frozen=True)
class Wiring:
    """One installation, put together from its settings."""

    settings: Settings

    @cached_property
    def owner_url(self) -> str:
        """The database as its owner: for migrations. Raises ServiceError(SETTINGS) where it is not known."""
        if self.settings.owner_database_url:
            return self.settings.owner_database_url
        if self.settings.database_url is None:
            admin = embedded_postgres.ensure(self.settings.state_dir, binaries=self.settings.pg_bin)
            return embedded_postgres.create_database(admin, DATABASE)
        raise ServiceError(
            Code.SETTINGS,
            "Set KITPOST_OWNER_DATABASE_URL to the database as its owner: kitpost_app can't change tables.",
        )

    @cached_property
    def engine(self) -> Engine:
        """The database as the product's own role. Opens no connection by itself."""
        return make_engine(self.settings.database_url or as_application(self.owner_url))

    @cached_property
    def begin(self) -> Begin:
        """Opens one transaction."""
        return begin_on(self.engine)

    @cached_property
    def clock(self) -> Clock:
        """Service time. Only a demo asks the database how far it is shifted."""
        if self.settings.environment == "production":
            return _machine_time
        return lambda: _machine_time() + _shift(self.engine)

    @cached_property
    def cipher(self) -> Cipher:
        """Encrypts personal columns."""
        keys = {key_id: key_bytes(key) for key_id, key in self.settings.data_keys.items()}
        return Cipher(keys, self.settings.data_key_current)

    @cached_property
    def index(self) -> BlindIndex:
        """Finds equal personal values."""
        keys = {version: key_bytes(key) for version, key in self.settings.index_keys.items()}
        return BlindIndex(keys, self.settings.index_key_current)

    @cached_property
    def store(self) -> FileStore:
        """Files in S3."""
        from integrations.store import S3FileStore

        return S3FileStore(self._aws("s3", self.settings.s3_endpoint), self.settings.s3_bucket)

    @cached_property
    def arrivals(self) -> ArrivalQueue:
        """What tells of files that landed."""
        from integrations.store import SqsArrivalQueue

        return SqsArrivalQueue(self._aws("sqs", self.settings.sqs_endpoint), self.settings.sqs_queue_url)

    def _aws(self, service: str, endpoint: str | None) -> Any:
        import boto3

        from integrations.store import CLIENT

        secret = self.settings.s3_secret_key
        return boto3.Session().client(  # type: ignore[call-overload]
            service,
            endpoint_url=endpoint,
            region_name=self.settings.s3_region,
            aws_access_key_id=self.settings.s3_access_key,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            config=CLIENT,
        )


@cache
def wiring() -> Wiring:
    """The installation of this process. Raises ServiceError(SETTINGS) with what to put right."""
    settings = load_settings()
    logging.getLogger("kitpost").setLevel(settings.log_level)
    return Wiring(settings)


def connect() -> Wiring:
    """The same, once its database answers and has today's tables.

    Raises ServiceError(SETTINGS | DATABASE_DOWN | DATABASE_NOT_READY), each with one sentence.
    """
    ready = wiring()
    check_ready(ready.engine)
    return ready


def _machine_time() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - the one place where service time begins


def _shift(engine: Engine) -> timedelta:
    with engine.connect() as connection:
        found = connection.execute(text("SELECT service_time_offset_seconds FROM installation WHERE demo")).scalar()
    return timedelta(seconds=found or 0)
