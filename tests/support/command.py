"""The kitpost command in this process, at home in one database."""

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import cli
from app.wiring import wiring
from tests.support import postgres

KEY = base64.b64encode(bytes(range(32))).decode()
SECRET = "swordfish-swordfish-swordfish-swordfish"

BUILDERS_INDEX_KEYS = f'{{"1": "{base64.b64encode(bytes(reversed(range(32)))).decode()}"}}'
"""The key of tests.support.build, for whoever finds people by their indexes."""

SETTINGS = {
    "PUBLIC_BASE_URL": "https://kits.example.test/",
    "DATA_KEYS": f'{{"test": "{KEY}"}}',
    "DATA_KEY_CURRENT": "test",
    "INDEX_KEYS": f'{{"1": "{KEY}"}}',
    "SESSION_SECRET": SECRET,
    "S3_BUCKET": "kits",
    "SQS_QUEUE_URL": "https://sqs.example.test/1/arrivals",
    "TWILIO_ACCOUNT_SID": "AC0",
    "TWILIO_AUTH_TOKEN": SECRET,
    "TWILIO_MESSAGING_SERVICE_SID": "MG0",
    "COURIER_CLIENT_ID": "us",
    "COURIER_CLIENT_SECRET": SECRET,
    "OIDC_ISSUER": "https://id.example.test",
    "OIDC_CLIENT_ID": "us",
    "OIDC_CLIENT_SECRET": SECRET,
}


@contextmanager
def at_home(
    db: postgres.Database, monkeypatch: pytest.MonkeyPatch, state_dir: Path, **more: str
) -> Iterator[Callable[..., str]]:
    """What runs a command and gives what it printed; any exit code but the one expected fails."""
    for name, value in {**SETTINGS, "STATE_DIR": str(state_dir), "DATABASE_URL": db.url, **more}.items():
        monkeypatch.setenv(f"KITPOST_{name}", value)
    monkeypatch.setenv("COLUMNS", "400")
    wiring.cache_clear()

    def run(*words: str, exit_code: int = 0) -> str:
        result = CliRunner().invoke(cli, list(words), catch_exceptions=False)
        assert result.exit_code == exit_code, result.output
        return result.output

    yield run
    wiring().engine.dispose()
    wiring.cache_clear()
