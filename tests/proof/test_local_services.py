"""`kitpost up` as a person types it: every service on loopback, every flow deployed, and nothing left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml
from dotenv import dotenv_values

from app import embedded_postgres
from tests.support.lab import message
from tests.support.mllp import Line

pytestmark = [pytest.mark.proof, pytest.mark.timeout(400)]

ROOT: Final = Path(__file__).parents[2]
PREFECT_YAML: Final = yaml.safe_load((ROOT / "prefect.yaml").read_text())
READY: Final = "Ctrl-C ends them all."


@dataclass
class Up:
    """A running `kitpost up`."""

    process: "subprocess.Popen[str]"
    state: Path
    environment: dict[str, str]

    def kitpost(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "app.cli", *words], env=self.environment, capture_output=True, text=True, check=False
        )

    def prefect(self, path: str, body: object = None) -> Any:
        address = dotenv_values(self.state / "local.env")["KITPOST_PREFECT_API_URL"]
        answer = httpx.post(f"{address}/{path}", json=body if body is not None else {}, timeout=30)
        answer.raise_for_status()
        return answer.json()


def start(state: Path) -> Up:
    environment = {**os.environ, "KITPOST_STATE_DIR": str(state)}
    said = state / "said.txt"
    with said.open("w") as out:
        command = [sys.executable, "-m", "app.cli", "up"]
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, text=True
        )
    wait_until(lambda: READY in said.read_text() or process.poll() is not None, 150)
    assert READY in said.read_text(), said.read_text()
    return Up(process, state, environment)


def exit_code(running: Up) -> int:
    """What it ended with; one that does not end is killed, so that only this test fails."""
    try:
        return running.process.wait(60)
    finally:
        running.process.kill()
        running.process.wait()


@pytest.fixture(scope="module")
def new_state() -> Iterator[Callable[[], Path]]:
    made: list[Path] = []

    def make() -> Path:
        folder = Path(tempfile.mkdtemp(prefix="kitpost-up-"))
        folder.chmod(0o711)
        made.append(folder)
        return folder

    yield make
    for folder in made:
        embedded_postgres.stop(folder)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def up(new_state: Callable[[], Path]) -> Iterator[Up]:
    running = start(new_state())
    yield running
    running.process.terminate()
    running.process.wait(60)


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    give_up = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < give_up:
        time.sleep(0.2)
    return found


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_each_deployment_of_prefect_yaml_is_on_the_server_with_its_limit_and_schedule(up):
    found = {deployment["name"]: deployment for deployment in up.prefect("deployments/filter")}

    assert set(found) == {wanted["name"] for wanted in PREFECT_YAML["deployments"]}
    for wanted in PREFECT_YAML["deployments"]:
        there = found[wanted["name"]]
        assert there["entrypoint"] == wanted["entrypoint"]
        assert there["pull_steps"] in (None, [])
        assert there["global_concurrency_limit"]["limit"] == wanted["concurrency_limit"]["limit"]
        assert there["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
        assert [schedule["slug"] for schedule in there["schedules"]] == [s["slug"] for s in wanted["schedules"]]


def test_the_worker_really_runs_a_deployed_flow(up):
    [deployment] = [d for d in up.prefect("deployments/filter") if d["name"] == "take-orders"]
    run = up.prefect(f"deployments/{deployment['id']}/create_flow_run")

    def state() -> str:
        return up.prefect("flow_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})[0]["state"]["type"]

    wait_until(lambda: state() in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}, 90)
    assert state() == "COMPLETED"


def test_a_laboratorys_message_is_answered(up):
    port = dotenv_values(up.state / "local.env")["KITPOST_MLLP_PORT"]

    with Line(port) as laboratory:
        answer = laboratory.send(message().encode())

    assert "\rMSA|AA|NL1" in answer


def test_deploying_again_makes_nothing_twice(up):
    before = sorted(automation["name"] for automation in up.prefect("automations/filter"))

    done = up.kitpost("deploy")

    assert done.returncode == 0, done.stderr
    assert sorted(automation["name"] for automation in up.prefect("automations/filter")) == before
    assert len(before) == len(set(before))
    assert "crash-zombie-runs" in before


def test_what_it_made_up_is_for_its_owner_alone(up):
    assert (up.state / "local.env").stat().st_mode & 0o777 == 0o600


def listening_addresses(pids: set[int]) -> list[str]:
    """The local addresses, in the kernel's hexadecimal, that these processes accept connections on."""
    opened = [link.readlink().name for pid in pids for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    inodes = {name.removeprefix("socket:[").removesuffix("]") for name in opened if name.startswith("socket:[")}
    lines = [
        line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    return [words[1].split(":")[0] for words in lines if words[3] == "0A" and words[9] in inodes]


def test_every_service_listens_on_loopback_alone(up):
    family = {up.process.pid, *children_of(up.process.pid)}

    # The kernel's table is not one moment's: an entry may be missed once.
    assert wait_until(lambda: len(listening_addresses(family)) >= 7, 10)
    assert set(listening_addresses(family)) == {"0100007F"}


def test_all_together_they_stay_under_a_gigabyte_and_a_half(up):
    def pss(pid: int) -> int:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))

    postmaster = int((up.state / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
    family = [up.process.pid, *children_of(up.process.pid), postmaster, *children_of(postmaster)]

    assert sum(pss(pid) for pid in family) < 1.5 * 1024 * 1024


def test_a_second_one_in_the_same_folder_is_refused_with_a_sentence(up):
    second = up.kitpost("up")

    assert second.returncode == 65
    assert "are running already" in second.stderr


def test_ctrl_c_ends_all_and_another_start_keeps_the_keys(new_state):
    state = new_state()
    first = start(state)
    children, settings = children_of(first.process.pid), dotenv_values(state / "local.env")

    first.process.send_signal(signal.SIGINT)

    assert exit_code(first) == 0
    assert not [pid for pid in children if is_alive(pid)]
    assert not (state / "postgres" / "data" / "postmaster.pid").exists()

    second = start(state)
    again = dotenv_values(state / "local.env")
    assert json.loads(again["KITPOST_DATA_KEYS"] or "") == json.loads(settings["KITPOST_DATA_KEYS"] or "")
    assert again["KITPOST_API_KEYS"] == settings["KITPOST_API_KEYS"]

    family = children_of(second.process.pid)
    second.process.kill()  # and a SIGKILL leaves no child behind either
    second.process.wait()
    assert wait_until(lambda: not [pid for pid in family if is_alive(pid)], 20)
