"""`kitpost orders` on a whole installation: the command, its wiring and the flow, as they run in production."""

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from integrations.orders import EXAMPLE
from models.tables.order import Order
from tests.support.postgres import Database

ROOT = Path(__file__).parents[2]
KEY = base64.b64encode(bytes(range(32))).decode()
SECRET = "swordfish-swordfish-swordfish-swordfish"
A_MINUTE_AGO = datetime.fromtimestamp(time.time() - 60, UTC).isoformat()
"""The command asks the machine's own clock."""
GOOD = EXAMPLE | {"residence_postcode": "EC1A 1BB", "mobile_proved_at": A_MINUTE_AGO}
"""Larkfield's area is played by the City of London."""

Kitpost = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(db: Database, tmp_path: Path) -> Kitpost:
    """Runs Python with an installation's environment, apart from this process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KITPOST_")} | {
        "PYTHONPATH": str(ROOT),
        "KITPOST_ENVIRONMENT": "demo",
        "KITPOST_STATE_DIR": str(tmp_path),
        "KITPOST_DATABASE_URL": db.url,
        "KITPOST_PUBLIC_BASE_URL": "http://127.0.0.1:1",
        "KITPOST_DATA_KEYS": f'{{"a": "{KEY}"}}',
        "KITPOST_DATA_KEY_CURRENT": "a",
        "KITPOST_INDEX_KEYS": f'{{"1": "{KEY}"}}',
        "KITPOST_SESSION_SECRET": SECRET,
        "KITPOST_S3_BUCKET": "kits",
        "KITPOST_SQS_QUEUE_URL": "http://127.0.0.1:1/arrivals",
        "KITPOST_TWILIO_ACCOUNT_SID": "AC0",
        "KITPOST_TWILIO_AUTH_TOKEN": SECRET,
        "KITPOST_TWILIO_MESSAGING_SERVICE_SID": "MG0",
        "KITPOST_COURIER_CLIENT_ID": "us",
        "KITPOST_COURIER_CLIENT_SECRET": SECRET,
        "KITPOST_OIDC_ISSUER": "http://127.0.0.1:1",
        "KITPOST_OIDC_CLIENT_ID": "us",
        "KITPOST_OIDC_CLIENT_SECRET": SECRET,
    }

    def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return run_python


def kitpost(run: Kitpost, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "app.cli", "orders", *arguments)


def test_a_file_is_imported_taken_by_the_flow_shown_and_settled(run: Kitpost, db: Database, tmp_path: Path) -> None:
    file = tmp_path / "orders.jsonl"
    rows = [GOOD | {"channel_ref": "a", "last_risk_on": None}, GOOD | {"channel_ref": "b", "mobile": "020 7946 0321"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    imported = kitpost(run, "import", str(file), "--service", "larkfield", "--channel", "clinic")
    taken = run(
        "-c",
        "from app.wiring import connect; from flows.take_orders import take_waiting_orders as take; home = connect();"
        "print(take(home.begin, home.intake, clock=home.clock, limit=10))",
    )
    assert imported.stdout == "1 orders are stored, 1 rows were refused.\n", imported.stderr
    assert imported.returncode == 65
    assert imported.stderr.startswith("orders.jsonl, line 2: mobile: This is a landline")
    assert "held=1" in taken.stdout, taken.stderr

    with db.engine.connect() as connection:
        ref = connection.execute(sa.select(sa.column("ref")).select_from(sa.table(Order.__tablename__))).scalar_one()
    settled = kitpost(run, "settle", ref, "--accept", "--because", "Spoke: no risk for months")
    shown = kitpost(run, "show", ref)
    kept = kitpost(run, "kept")

    assert settled.stdout == "The order is accepted.\n"
    assert re.findall(r"Z (\w+)( \(no longer stands\))?: ", shown.stdout) == [
        ("held", " (no longer stands)"),
        ("accepted", ""),
    ]
    assert "mobile: This is a landline" in kept.stdout
    assert not any("Testina" in said.stdout + said.stderr for said in (imported, taken, settled, shown, kept))


def test_a_reference_that_nobody_has_is_one_sentence_and_its_own_exit_code(run: Kitpost) -> None:
    answer = kitpost(run, "show", "nobody")

    assert (answer.returncode, answer.stderr) == (66, "There is no such order: check its reference.\n")
