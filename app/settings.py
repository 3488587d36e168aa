"""What differs between one installation and another: the only reader of the environment.

A council's own choices (ages, panels, sending hours) are not here; they are TOML files under
app/service. `app.wiring` reads these settings and hands plain values to everyone else.
"""

import base64
import binascii
import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.rules.errors import Code, ServiceError

PREFIX: Final = "KITPOST_"

LOCAL_FILE: Final = "local.env"
"""In the state folder: what `kitpost up` made up for the services that it runs. Never read in production."""

DATABASE_DRIVER: Final = "postgresql+psycopg://"


def _database_url(url: str) -> str:
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return DATABASE_DRIVER + url.removeprefix(scheme)
    if not url.startswith(DATABASE_DRIVER):
        raise ValueError("must start with postgresql://")
    return url


def _web_address(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    return url.rstrip("/")


def _key(secret: SecretStr) -> SecretStr:
    key_bytes(secret)
    return secret


def _long(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value()) < SHORTEST_SECRET:
        raise ValueError(f"must have at least {SHORTEST_SECRET} characters")
    return secret


CREDENTIALS: Final = {
    "twilio": ("twilio_account_sid", "twilio_auth_token", "twilio_messaging_service_sid"),
    "govuk_notify": ("notify_api_key", "notify_template_id", "notify_callback_token"),
}
"""What a provider of texts needs: all of it, or none."""


def _e164(value: str) -> str:
    if not re.fullmatch(r"\+[1-9]\d{6,14}", value):
        raise ValueError("must be a number as +447700900123")
    return value


SHORTEST_SECRET: Final = 32
KEY_BYTES: Final = 32

DatabaseUrl = Annotated[str, AfterValidator(_database_url)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
Key = Annotated[SecretStr, AfterValidator(_key)]


def _bell_secret(value: SecretStr) -> SecretStr:
    """As the Standard Webhooks specification writes one."""
    if not re.fullmatch(r"whsec_[A-Za-z0-9+/]{32,}={0,2}", value.get_secret_value()):
        raise ValueError("a bell's secret is whsec_ and at least 24 random bytes in base64")
    return value


LongSecret = Annotated[SecretStr, AfterValidator(_long)]


class MllpLab(BaseModel):
    """A laboratory's own MLLP listener, as KITPOST_MLLP_LABS describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    port: int = Field(ge=1, le=65535)
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class SftpLab(BaseModel):
    """A laboratory's SFTP directory, as KITPOST_SFTP_LABS describes it. `host_key` pins the server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    port: int = Field(default=22, ge=1, le=65535)
    user: str
    key: Path
    host_key: str
    folder: str = "."
    renames: bool = False
    """The laboratory writes every file under another name and renames it: what has its own name is whole."""


class Bell(BaseModel):
    """Where a clinic's system is told that a referral waits, as KITPOST_CLINIC_BELLS describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: WebAddress
    secret: Annotated[SecretStr, AfterValidator(_bell_secret)]


class Settings(BaseSettings):
    """Every setting. `description` is what docs/running.md and a refusal to start both say of it."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    environment: Literal["demo", "production"] = Field(
        default="production", description="`production`, or `demo` for invented people on one machine"
    )
    state_dir: Path = Field(
        default=Path("var"), description="folder for the embedded database, logs and the demo's own secrets"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="how much the log named `kitpost` says"
    )
    public_base_url: WebAddress = Field(
        description="address under which residents and providers reach us, such as https://kits.example.gov.uk"
    )
    service_dir: Path | None = Field(
        default=None, description="folder of the councils' TOML files; unset, the ones that ship with kitpost"
    )
    labs_dir: Path | None = Field(
        default=None, description="folder of the laboratories' TOML files; unset, the ones that ship with kitpost"
    )

    database_url: DatabaseUrl | None = Field(
        default=None, description="PostgreSQL 15 or later, as the role kitpost_app; unset, the embedded server"
    )
    owner_database_url: DatabaseUrl | None = Field(
        default=None, description="the same database as its owner, for `kitpost migrate` alone"
    )
    pg_bin: Path | None = Field(
        default=None, description="folder with initdb, pg_ctl and postgres for the embedded server"
    )

    data_keys: dict[str, Key] = Field(
        min_length=1, description='AES keys of personal columns, as JSON: {"2026a": "32 bytes in base64"}'
    )
    data_key_current: str = Field(description="name of the key in KITPOST_DATA_KEYS that writes new rows")
    index_keys: dict[int, Key] = Field(
        min_length=1, description='keys of the blind indexes by version, as JSON: {"1": "32 bytes in base64"}'
    )
    index_key_current: int = Field(default=1, description="version in KITPOST_INDEX_KEYS that writes new rows")
    session_secret: LongSecret = Field(description="signs the staff's session cookie; 32 characters or more, random")

    s3_bucket: str = Field(min_length=1, description="bucket for lab files, print batches and letters")
    s3_region: str = Field(default="eu-west-2", description="region of bucket and queue")
    s3_endpoint: WebAddress | None = Field(default=None, description="address of another S3 than AWS's")
    s3_access_key: str | None = Field(default=None, description="unset, the machine's own AWS role is used")
    s3_secret_key: SecretStr | None = Field(default=None, description="goes with KITPOST_S3_ACCESS_KEY")
    sqs_queue_url: str = Field(min_length=1, description="queue that tells of files landing in the bucket")
    sqs_endpoint: WebAddress | None = Field(default=None, description="address of another SQS than AWS's")

    text_provider: Literal["twilio", "govuk_notify"] = Field(
        default="twilio", description="whom new texts go through, unless a person chose with `kitpost texts use`"
    )
    test_mobile: Annotated[str, AfterValidator(_e164)] | None = Field(
        default=None, description="the one number that `kitpost texts send --to-test` sends to, as +447700900123"
    )
    twilio_account_sid: str | None = Field(
        default=None, min_length=1, description="Twilio account, AC and 32 more; needed where texts go through Twilio"
    )
    twilio_auth_token: SecretStr | None = Field(
        default=None, min_length=1, description="Twilio's primary auth token; needed likewise"
    )
    twilio_auth_token_secondary: SecretStr | None = Field(
        default=None, description="the other auth token, accepted on callbacks while tokens are changed"
    )
    twilio_messaging_service_sid: str | None = Field(
        default=None, min_length=1, description="Twilio messaging service, MG and 32 more; needed likewise"
    )
    twilio_timeout_seconds: float = Field(
        default=10.0, gt=0, le=60, description="how long one call to Twilio may take before it counts as unsure"
    )
    twilio_base_url: WebAddress = Field(default="https://api.twilio.com", description="where Twilio's API answers")
    twilio_at_once: int = Field(default=32, ge=1, le=64, description="calls to Twilio under way at the same time")
    twilio_per_second: float = Field(default=300.0, gt=0, description="most texts handed to Twilio in a second")
    notify_api_key: SecretStr | None = Field(
        default=None, min_length=73, description="GOV.UK Notify's API key; needed where texts go through Notify"
    )
    notify_template_id: str | None = Field(
        default=None,
        min_length=36,
        description="Notify's template, whose whole content is ((message)); needed likewise",
    )
    notify_callback_token: LongSecret | None = Field(
        default=None, description="bearer token of Notify's delivery receipts; 32 characters or more; needed likewise"
    )
    notify_callback_token_secondary: LongSecret | None = Field(
        default=None, description="the other bearer token, accepted while tokens are changed"
    )
    notify_sender_id: str | None = Field(default=None, description="Notify's id of the sender; unset, its default")
    notify_timeout_seconds: float = Field(
        default=10.0, gt=0, le=60, description="how long one call to Notify may take before it counts as unsure"
    )
    notify_base_url: WebAddress = Field(
        default="https://api.notifications.service.gov.uk", description="where Notify's API answers"
    )
    notify_at_once: int = Field(default=16, ge=1, le=64, description="calls to Notify under way at the same time")
    notify_per_second: float = Field(
        default=40.0, gt=0, description="most requests to Notify in a second; it allows 3,000 a minute"
    )

    courier_base_url: WebAddress = Field(
        default="https://api.royalmail.net/mailpieces/v2", description="where the courier's tracking API answers"
    )
    courier_client_id: str = Field(min_length=1, description="client id for the courier's tracking API")
    courier_client_secret: SecretStr = Field(min_length=1, description="client secret for the courier's tracking API")
    courier_webhook_secret: SecretStr | None = Field(
        default=None, min_length=16, description="signs what a courier tells us unasked; without it nothing is taken"
    )
    courier_webhook_secret_secondary: SecretStr | None = Field(
        default=None, min_length=16, description="the one before or after it, while the secret is changed"
    )
    click_and_drop_base_url: WebAddress = Field(
        default="https://api.parcel.royalmail.com/api/v1", description="where Royal Mail's Click & Drop answers"
    )
    click_and_drop_keys: dict[str, SecretStr] = Field(
        default_factory=dict,
        description='keys of services that buy postage there, as JSON: {"service": "its Click & Drop API key"}',
    )

    oidc_issuer: WebAddress = Field(description="OpenID Connect issuer that staff sign in with")
    oidc_client_id: str = Field(min_length=1, description="our client id at that issuer")
    oidc_client_secret: SecretStr = Field(min_length=1, description="our client secret at that issuer")

    api_keys: dict[str, LongSecret] = Field(
        default_factory=dict,
        description='keys of ordering channels, as JSON: {"service/channel": "32 characters or more, random"}',
    )

    clinic_keys: dict[str, LongSecret] = Field(
        default_factory=dict,
        description='keys of clinics that fetch referrals, as JSON: {"service/clinic": "32 characters or more"}',
    )
    clinic_bells: dict[str, Bell] = Field(
        default_factory=dict,
        description='clinics told by webhook, as JSON: {"service/clinic": {"url": "https://…", "secret": "whsec_…"}}',
    )
    lab_keys: dict[str, LongSecret] = Field(
        default_factory=dict,
        description="keys of laboratories that send results over HTTP, as JSON: "
        '{"service/LAB": "32 characters or more, random"}',
    )
    mllp_host: str = Field(default="127.0.0.1", description="address that `kitpost mllp` listens on")
    mllp_port: int = Field(default=2575, ge=0, le=65535, description="port that `kitpost mllp` listens on")
    mllp_certificate: Path | None = Field(
        default=None, description="our certificate for MLLP over TLS, PEM; unset, MLLP is for loopback only"
    )
    mllp_key: Path | None = Field(default=None, description="goes with KITPOST_MLLP_CERTIFICATE")
    mllp_clients_ca: Path | None = Field(
        default=None, description="whose certificates laboratories show, PEM; unset, they are known by address"
    )
    mllp_peers: dict[str, str] = Field(
        default_factory=dict,
        description='who may speak MLLP, as JSON: {"lims.northlab.example": "NORTHLAB"}, the name in a certificate; '
        "without KITPOST_MLLP_CLIENTS_CA an address or network instead",
    )
    mllp_labs: dict[str, MllpLab] = Field(
        default_factory=dict,
        description='laboratories that are told of kits over MLLP, as JSON: {"NORTHLAB": {"host": "…", "port": 2575, '
        '"ca": "ca.pem", "certificate": "ours.pem", "key": "ours.key"}}',
    )
    sftp_labs: dict[str, SftpLab] = Field(
        default_factory=dict,
        description='laboratories whose SFTP servers we fetch files from, as JSON: {"QUAYSIDE": {"host": "…", '
        '"user": "kitpost", "key": "id_ed25519", "host_key": "ssh-ed25519 AAAA…", "folder": "results"}}; with '
        '"renames": true the laboratory promises to rename a file once it is whole',
    )
    mllp_longest_message_bytes: int = Field(
        default=1 << 20, ge=1024, le=1 << 20, description="longer messages are refused, and the connection ended"
    )

    smtp_host: str = Field(default="", description="mail server for notices to staff on duty; without it none is sent")
    smtp_port: int = Field(default=587, ge=1, le=65535, description="its port")
    smtp_user: str = Field(default="", description="user there; empty: nobody signs in")
    smtp_password: SecretStr | None = Field(default=None, description="password there")
    smtp_sender: str = Field(default="", description="address that notices come from; names no purpose")
    smtp_over_tls: bool = Field(default=True, description="STARTTLS; only a server on this machine may go without")

    prefect_api_url: WebAddress = Field(
        default="http://127.0.0.1:4200/api", description="Prefect's API; keep it on loopback or behind a proxy"
    )

    warm_socket: Path | None = Field(
        default=None,
        description="Unix socket on which kitpost warm takes flow runs over; else each imports all",
    )

    @model_validator(mode="after")
    def _belongs_together(self) -> "Settings":
        if self.data_key_current not in self.data_keys:
            raise ValueError("KITPOST_DATA_KEY_CURRENT names no key in KITPOST_DATA_KEYS")
        if self.index_key_current not in self.index_keys:
            raise ValueError("KITPOST_INDEX_KEY_CURRENT names no version in KITPOST_INDEX_KEYS")
        if (self.s3_access_key is None) != (self.s3_secret_key is None):
            raise ValueError("KITPOST_S3_ACCESS_KEY and KITPOST_S3_SECRET_KEY must be set together or not at all")
        self._texts_can_leave()
        if self.smtp_host and not self.smtp_sender:
            raise ValueError("KITPOST_SMTP_SENDER is not set: a mail server wants to know who writes")
        if self.smtp_host and not self.smtp_over_tls and self.smtp_host not in {"localhost", "127.0.0.1", "::1"}:
            raise ValueError("KITPOST_SMTP_OVER_TLS may be false only for a mail server on this machine")
        if self.environment == "production":
            if any(not str(bell.url).startswith("https://") for bell in self.clinic_bells.values()):
                raise ValueError("KITPOST_CLINIC_BELLS: every url must start with https:// in production")
            open_ways = [name for name in ("public_base_url", "twilio_base_url", "notify_base_url", "courier_base_url",
                                           "click_and_drop_base_url", "oidc_issuer")
                         if not str(getattr(self, name)).startswith("https://")]  # fmt: skip
            if open_ways:
                raise ValueError(f"{_variable(open_ways[0])} must start with https:// in production")
        return self

    def _texts_can_leave(self) -> None:
        """Raises ValueError unless the chosen provider, and any other that is named at all, is named whole."""
        for provider, names in CREDENTIALS.items():
            given = [name for name in names if getattr(self, name) is not None]
            if len(given) < len(names) and (given or provider == self.text_provider):
                lacking = next(name for name in names if name not in given)
                raise ValueError(f"{_variable(lacking)} is not set ({type(self).model_fields[lacking].description})")


@dataclass(frozen=True, slots=True)
class LocalPlace:
    """Where one machine keeps its state and its labs' files: all that is known before there are settings."""

    state_dir: Path
    pg_bin: Path | None
    labs_dir: Path | None = None

    @property
    def settings_file(self) -> Path:
        """What `kitpost up` made up; each `kitpost` command on this machine reads it outside production."""
        return self.state_dir / LOCAL_FILE


def local_place() -> LocalPlace:
    """KITPOST_STATE_DIR, KITPOST_PG_BIN and KITPOST_LABS_DIR, before the rest is read."""
    state_dir = os.environ.get(_variable("state_dir")) or Settings.model_fields["state_dir"].default
    pg_bin = os.environ.get(_variable("pg_bin"))
    labs_dir = os.environ.get(_variable("labs_dir"))
    return LocalPlace(Path(state_dir).resolve(), Path(pg_bin) if pg_bin else None, Path(labs_dir) if labs_dir else None)


def load_settings() -> Settings:
    """Reads the environment, and beneath it, outside production, what `kitpost up` wrote.

    Raises ServiceError(SETTINGS): one sentence for each wrong variable, never a value.
    """
    _refuse_unknown_variables()
    try:
        return Settings(_env_file=_local_file())
    except ValidationError as error:
        first = {item["loc"][:1]: item for item in reversed(error.errors(include_input=False, include_url=False))}
        told = "; ".join(_told(item) for item in reversed(first.values()))
    except ValueError as error:  # a variable that should hold JSON and does not
        told = f"{_variable_named_in(str(error))} is not JSON: see docs/running.md for its form"
    hint = "" if _local_file() is None else " To look around on this machine with invented people, run: kitpost up."
    raise ServiceError(Code.SETTINGS, f"kitpost can't start: {told}.{hint}")


def key_bytes(secret: SecretStr) -> bytes:
    """The 32 bytes that a base64 key stands for. Raises ValueError that doesn't hold the key."""
    try:
        raw = base64.b64decode(secret.get_secret_value(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != KEY_BYTES:
        raise ValueError(f"must be {KEY_BYTES} random bytes in base64")
    return raw


def settings_table() -> str:
    """Every setting as a Markdown table, for docs/running.md (a test keeps that page current)."""
    rows = ["| variable | needed | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        if field.is_required():
            needed = "yes"
        elif default is None or default == {}:
            needed = "no"
        else:
            needed = f"no: `{default}`"
        rows.append(f"| `{_variable(name)}` | {needed} | {field.description} |")
    return "\n".join(rows)


def _local_file() -> Path | None:
    """The made-up settings of the local services, unless the environment says that this is production."""
    return None if os.environ.get(_variable("environment")) == "production" else local_place().settings_file


def _refuse_unknown_variables() -> None:
    known = {_variable(name) for name in Settings.model_fields}
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        meant = f"did you mean {near[0]}?" if near else "docs/running.md lists them all."
        raise ServiceError(Code.SETTINGS, f"kitpost can't start: there is no setting {unknown[0]}; {meant}")


def _told(item: Any) -> str:
    """One wrong variable in words: which, what is wrong, what it should be."""
    words = item["msg"].removeprefix("Value error, ")
    if not item["loc"]:
        return str(words)
    name = str(item["loc"][0]).lower().removeprefix(PREFIX.lower())
    field = Settings.model_fields.get(name)
    meant = f" ({field.description})" if field else ""
    if item["type"] == "missing":
        return f"{_variable(name)} is not set{meant}"
    if item["type"] == "value_error":
        return f"{_variable(name)} {words}{meant}"
    return f"{_variable(name)} is wrong: {words[0].lower()}{words[1:]}{meant}"


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _variable_named_in(message: str) -> str:
    """pydantic-settings names the field in quotes: error parsing value for field "data_keys" from source."""
    return next((_variable(name) for name in Settings.model_fields if f'"{name}"' in message), "A variable")
