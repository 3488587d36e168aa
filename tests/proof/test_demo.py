"""The whole journey from outside, small: every service, every deployment, two months, and the demo's own judge.

And every flow is killed once in the midst of its work.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

FLOWS = {
    "take-orders",
    "pack-kits",
    "request-tests",
    "track-returns",
    "ingest-results",
    "notify-residents",
    "follow-up-positives",
}


@pytest.mark.proof
@pytest.mark.timeout(1500)
def test_with_every_flow_killed_once_everything_is_accounted_for_in_the_end(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app.demo", "--orders", "80", "--seed", "3", "--kills", "1"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "Everything is accounted for." in done.stdout
    killed = done.stdout.rpartition("Killed in the midst of their work")[2]
    assert set(re.findall(r"^ +1  ([a-z-]+)$", killed, re.MULTILINE)) >= FLOWS, done.stderr[-2000:]
    assert (tmp_path / "var" / "demo" / "ledger.jsonl").stat().st_size > 0
