"""The application as a whole: what it refuses to start with, and what it shows to machines."""

import os
import subprocess
import sys

from fastapi.routing import iter_route_contexts
from starlette.routing import Mount

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


def test_no_route_reads_a_body_of_unsaid_length_that_it_does_not_count(site, street):
    """Whoever has no key could fill the memory: a body in pieces says nowhere how long it is."""
    counted = ("/api/labs/", "/api/clinics/", "/api/orders")
    for route in iter_route_contexts(street.door.app.routes):
        if isinstance(route.original_route, Mount) or "POST" not in route.methods:
            continue
        answer = site.browser().http.post(route.path, content=iter([b"{", b"}"]))
        expected = {401, 403, 404, 413, 422} if route.path.startswith(counted) else {413}
        assert answer.status_code in expected, route.path


def test_an_address_that_no_database_could_hold_leads_nowhere(site):
    adviser = site.signed_in("demo-clinician")
    for path in ("/cases/%00", "/messages/%00", "/labs/rows/%00", "/api/orders/%00"):
        assert adviser.get(path).status_code == 404
