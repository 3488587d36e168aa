"""The application as a whole: what it refuses to start with, and what it shows to machines."""

import os
import subprocess
import sys

from tests.support import web

VARIABLES = {
    "KITPOST_ENVIRONMENT": "demo",
    "KITPOST_PUBLIC_BASE_URL": "http://127.0.0.1:1",
    "KITPOST_DATABASE_URL": "postgresql://kitpost_app@127.0.0.1:1/kitpost",
    "KITPOST_DATA_KEYS": '{"a": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}',
    "KITPOST_DATA_KEY_CURRENT": "a",
    "KITPOST_INDEX_KEYS": '{"1": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}',
    "KITPOST_SESSION_SECRET": "s" * 32,
    "KITPOST_S3_BUCKET": "kitpost",
    "KITPOST_SQS_QUEUE_URL": "http://127.0.0.1:1/queue",
    "KITPOST_TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
    "KITPOST_TWILIO_AUTH_TOKEN": "t",
    "KITPOST_TWILIO_MESSAGING_SERVICE_SID": "MG" + "0" * 32,
    "KITPOST_COURIER_CLIENT_ID": "c",
    "KITPOST_COURIER_CLIENT_SECRET": "c",
    "KITPOST_OIDC_ISSUER": "http://127.0.0.1:1",
    "KITPOST_OIDC_CLIENT_ID": "c",
    "KITPOST_OIDC_CLIENT_SECRET": "c",
}


def start(tmp_path, **changes: str | None) -> subprocess.CompletedProcess[str]:
    """The server with these variables, as `kitpost up` starts it."""
    variables = {**os.environ, **VARIABLES, "KITPOST_STATE_DIR": str(tmp_path), **changes}
    return subprocess.run(
        [sys.executable, "-m", "uvicorn", "--factory", "app.web.main:app", "--port", "0"],
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_a_database_that_is_down_at_start_is_one_sentence_and_an_exit_code(tmp_path):
    ended = start(tmp_path)

    assert ended.returncode == 69
    assert ended.stderr.strip() == (
        "The database does not answer: check that PostgreSQL runs and that KITPOST_DATABASE_URL is right."
    )


def test_a_missing_setting_at_start_is_one_sentence_that_names_it(tmp_path):
    ended = start(tmp_path, KITPOST_OIDC_CLIENT_SECRET=None)

    assert ended.returncode == 78
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "KITPOST_OIDC_CLIENT_SECRET is not set" in ended.stderr


def test_the_published_description_is_of_the_ordering_api_alone(site):
    described = site.browser().get("/api/openapi.json").json()

    assert {path.split("/")[1] for path in described["paths"]} == {"api"}


def test_a_channel_submits_an_order_through_the_whole_application(site):
    refused = site.browser().http.post("/api/orders", json={})
    unreadable = site.browser().http.post(
        "/api/orders", json={}, headers={"Authorization": f"Bearer {web.CHANNEL_KEY}"}
    )

    assert (refused.status_code, unreadable.status_code) == (401, 422)
    assert unreadable.headers["content-type"] == "application/problem+json"
