"""The settings: complete or refused, with a sentence that names the variable and never its value."""

import base64
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from app.settings import PREFIX, Settings, load_settings
from models.rules.errors import Code, ServiceError

ROOT = Path(__file__).parents[2]
KEY = base64.b64encode(bytes(range(32))).decode()
SECRET = "swordfish-swordfish-swordfish-swordfish"
COMPLETE = {
    "KITPOST_PUBLIC_BASE_URL": "https://kits.example.test/",
    "KITPOST_DATABASE_URL": "postgresql://kitpost_app@db.example.test/kitpost",
    "KITPOST_DATA_KEYS": f'{{"2026a": "{KEY}"}}',
    "KITPOST_DATA_KEY_CURRENT": "2026a",
    "KITPOST_INDEX_KEYS": f'{{"1": "{KEY}"}}',
    "KITPOST_SESSION_SECRET": SECRET,
    "KITPOST_S3_BUCKET": "kits",
    "KITPOST_SQS_QUEUE_URL": "https://sqs.example.test/1/arrivals",
    "KITPOST_TWILIO_ACCOUNT_SID": "AC0",
    "KITPOST_TWILIO_AUTH_TOKEN": SECRET,
    "KITPOST_TWILIO_MESSAGING_SERVICE_SID": "MG0",
    "KITPOST_COURIER_CLIENT_ID": "us",
    "KITPOST_COURIER_CLIENT_SECRET": SECRET,
    "KITPOST_OIDC_ISSUER": "https://id.example.test",
    "KITPOST_OIDC_CLIENT_ID": "us",
    "KITPOST_OIDC_CLIENT_SECRET": SECRET,
}


@pytest.fixture(autouse=True)
def _an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def load(monkeypatch: pytest.MonkeyPatch, changes: Mapping[str, str | None] = {}) -> Settings:
    for name, value in {**COMPLETE, **changes}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    return load_settings()


def refusal(monkeypatch: pytest.MonkeyPatch, changes: Mapping[str, str | None]) -> str:
    with pytest.raises(ServiceError) as refused:
        load(monkeypatch, changes)
    assert refused.value.code is Code.SETTINGS
    return refused.value.message


def test_a_complete_environment_is_taken(monkeypatch):
    settings = load(monkeypatch)

    assert settings.environment == "production"
    assert settings.database_url == "postgresql+psycopg://kitpost_app@db.example.test/kitpost"
    assert settings.public_base_url == "https://kits.example.test"


@pytest.mark.parametrize("name", sorted(COMPLETE.keys() - {"KITPOST_DATABASE_URL"}))
def test_each_variable_that_is_missing_is_named(monkeypatch, name):
    assert f"{name} is not set" in refusal(monkeypatch, {name: None})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KITPOST_DATABASE_URL", "mysql://swordfish@db/kitpost"),
        ("KITPOST_DATA_KEYS", '{"2026a": "swordfish"}'),
        ("KITPOST_DATA_KEYS", "{swordfish"),
        ("KITPOST_DATA_KEYS", "{}"),
        ("KITPOST_DATA_KEY_CURRENT", "swordfish"),
        ("KITPOST_INDEX_KEYS", '{"swordfish": "swordfish"}'),
        ("KITPOST_INDEX_KEY_CURRENT", "7"),
        ("KITPOST_SESSION_SECRET", "swordfish"),
        ("KITPOST_API_KEYS", '{"larkfield/web": "swordfish"}'),
        ("KITPOST_S3_ACCESS_KEY", "swordfish"),
        ("KITPOST_LOG_LEVEL", "swordfish"),
        ("KITPOST_ENVIRONMENT", "swordfish"),
        ("KITPOST_OIDC_ISSUER", "swordfish"),
        ("KITPOST_PUBLIC_BASE_URL", "http://swordfish.example.test"),
    ],
)
def test_a_wrong_variable_is_named_and_its_value_is_not(monkeypatch, name, value):
    sentence = refusal(monkeypatch, {name: value})

    assert name in sentence
    assert "swordfish" not in sentence


def test_every_wrong_variable_is_named_at_once(monkeypatch):
    sentence = refusal(monkeypatch, {"KITPOST_S3_BUCKET": None, "KITPOST_LOG_LEVEL": "LOUD"})

    assert "KITPOST_S3_BUCKET" in sentence
    assert "KITPOST_LOG_LEVEL" in sentence


NOTIFY = {
    "KITPOST_NOTIFY_API_KEY": f"live-{'0' * 36}-{'1' * 36}",
    "KITPOST_NOTIFY_TEMPLATE_ID": "2" * 36,
    "KITPOST_NOTIFY_CALLBACK_TOKEN": SECRET,
}
NO_TWILIO = {name: None for name in COMPLETE if name.startswith("KITPOST_TWILIO_")}


def test_either_provider_of_texts_is_enough_and_both_may_be_named(monkeypatch):
    notify = {"KITPOST_TEXT_PROVIDER": "govuk_notify", **NOTIFY}

    assert load(monkeypatch, NOTIFY).text_provider == "twilio"
    assert load(monkeypatch, {**notify, **NO_TWILIO}).text_provider == "govuk_notify"


def test_a_provider_that_is_named_by_half_is_refused(monkeypatch):
    half = {"KITPOST_NOTIFY_API_KEY": NOTIFY["KITPOST_NOTIFY_API_KEY"]}

    assert "KITPOST_NOTIFY_TEMPLATE_ID is not set" in refusal(monkeypatch, half)


def test_a_provider_that_is_chosen_must_be_named(monkeypatch):
    message = refusal(monkeypatch, {"KITPOST_TEXT_PROVIDER": "govuk_notify"})

    assert "KITPOST_NOTIFY_API_KEY is not set" in message


@pytest.mark.parametrize(
    ("bell", "says"),
    [
        ({"url": "http://clinic.example.test", "secret": "whsec_" + "A" * 32}, "must start with https://"),
        ({"url": "https://clinic.example.test", "secret": "swordfish"}, "KITPOST_CLINIC_BELLS"),
        ({"url": "ftp://clinic.example.test", "secret": "whsec_" + "A" * 32}, "KITPOST_CLINIC_BELLS"),
    ],
)
def test_a_clinic_is_told_over_https_and_signed_alone(monkeypatch, bell, says):
    message = refusal(monkeypatch, {"KITPOST_CLINIC_BELLS": json.dumps({"larkfield/harbour-clinic": bell})})

    assert says in message
    assert "swordfish" not in message


def test_mail_goes_in_the_open_only_on_this_machine(monkeypatch):
    mail = {"KITPOST_SMTP_HOST": "localhost", "KITPOST_SMTP_SENDER": "kits@example.test"}
    load(monkeypatch, {**mail, "KITPOST_SMTP_OVER_TLS": "false"})

    message = refusal(monkeypatch, {**mail, "KITPOST_SMTP_HOST": "mail.example.test", "KITPOST_SMTP_OVER_TLS": "false"})

    assert "KITPOST_SMTP_OVER_TLS may be false only for a mail server on this machine" in message


def test_a_misspelt_variable_is_not_silently_ignored(monkeypatch):
    sentence = refusal(monkeypatch, {"KITPOST_DATABSE_URL": "postgresql://db/kitpost"})

    assert "no setting KITPOST_DATABSE_URL; did you mean KITPOST_DATABASE_URL?" in sentence


def test_no_secret_shows_when_settings_are_printed(monkeypatch):
    settings = load(monkeypatch)

    assert "swordfish" not in repr(settings)
    assert KEY not in repr(settings)


def write_local_file(folder: Path) -> None:
    (folder / "var").mkdir()
    lines = [f"{name}='{value}'\n" for name, value in (COMPLETE | {"KITPOST_ENVIRONMENT": "demo"}).items()]
    (folder / "var" / "local.env").write_text("".join(lines))


def test_what_kitpost_up_wrote_is_read_where_nothing_is_set(tmp_path):
    write_local_file(tmp_path)

    assert load_settings().environment == "demo"


def test_what_kitpost_up_wrote_is_never_read_in_production(monkeypatch, tmp_path):
    write_local_file(tmp_path)
    monkeypatch.setenv("KITPOST_ENVIRONMENT", "production")

    with pytest.raises(ServiceError, match="KITPOST_S3_BUCKET is not set"):
        load_settings()


def test_nothing_else_in_the_product_reads_the_environment():
    allowed = {"app/settings.py", "app/local.py", "app/cli/deploy.py", "app/prefect/__init__.py", "app/prefect/warm.py"}
    readers = {
        path.relative_to(ROOT).as_posix()
        for package in ("app", "flows", "integrations", "models")
        for path in (ROOT / package).rglob("*.py")
        if not path.is_relative_to(ROOT / "app" / "demo")  # stands outside
        and re.search(r"os\.(environ|getenv)\b|from os import .*environ", path.read_text(encoding="utf-8"))
    }

    assert readers <= allowed


def test_the_tests_themselves_run_without_settings():
    assert not [name for name in os.environ if name.startswith(PREFIX)]
