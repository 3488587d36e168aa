"""The demo's hands: the kitpost command, the order API, the store, Prefect, the stand-ins. All from outside."""

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import boto3
import httpx
from dotenv import dotenv_values

from app.demo.reaper import Reaper

LOOPBACK: Final = "127.0.0.1"
READY: Final = "Ctrl-C ends them all."
READY_WITHIN_SECONDS: Final = 180.0
FLOW_WITHIN_SECONDS: Final = 300.0
"""Long enough for what a killed process held to become free again: its lease is two minutes."""

LOOK_EVERY_SECONDS: Final = 0.5
SWEEP_EVERY_SECONDS: Final = 10.0
ENDED: Final = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


class World(AbstractContextManager["World"]):
    """Starts `kitpost up` in a folder of its own, and ends it again."""

    def __init__(self, folder: Path, *, seed: int, faults: float) -> None:
        self.folder = folder
        self._options = ("--seed", str(seed), "--faults", str(faults), "--any-ports")
        self._up: subprocess.Popen[str] | None = None
        self._clock: subprocess.Popen[str] | None = None
        self.reaper: Reaper | None = None
        """Whoever kills flow runs; a run that died is then started again."""
        self._inherited = {k: v for k, v in os.environ.items() if not k.startswith("KITPOST_")}  # noqa: TID251 - to pass on
        self.settings: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._up = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "app.cli", "up", *self._options],
            env={**self._inherited, "KITPOST_STATE_DIR": str(self.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._up.stdout is not None
        self.addresses = {}
        for line in self._up.stdout:
            if line.strip() == READY:
                break
            name, _, where = line.strip().partition(" ")
            self.addresses[name] = where.strip()
        else:
            raise RuntimeError(f"kitpost up ended with {self._up.wait()}: see {self.folder}/logs")
        self.settings = {k: v for k, v in dotenv_values(self.folder / "local.env").items() if v is not None}
        local = boto3.Session("local", "local", region_name=self.settings["KITPOST_S3_REGION"])
        self._s3 = local.client("s3", endpoint_url=self.settings["KITPOST_S3_ENDPOINT"])
        self._prefect = httpx.Client(base_url=self.settings["KITPOST_PREFECT_API_URL"] + "/", timeout=30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._clock is not None:
            self._clock.kill()
            self._clock.communicate()
        if self._up is not None:
            self._up.terminate()
            self._up.communicate()
        self._prefect.close()
        self._s3.close()

    def kill(self, each: int, *, chance: random.Random) -> Reaper:
        """Begins to kill the first runs of every flow."""
        self.reaper = Reaper(self._prefect, self.folder, each=each, chance=chance)
        return self.reaper

    @property
    def pid(self) -> int:
        """The supervisor, whose children are all the services."""
        assert self._up is not None
        return self._up.pid

    # ── The command ──────────────────────────────────────────────────────────────────────────

    def kitpost(self, *words: str, typed: str = "", may_fail: bool = False) -> str:
        """Runs one command as a person would, and returns what it printed."""
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "app.cli", *words],
            env={**self._inherited, **self.settings, "COLUMNS": "100"},
            input=typed,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode and not may_fail:
            raise RuntimeError(f"kitpost {' '.join(words[:2])} ended with {done.returncode}: {done.stderr[-600:]}")
        return done.stdout

    def move_clock(self, when: datetime) -> bool:
        """Moves service time, by one command that is kept open; False when it was refused."""
        if self._clock is None:
            self._clock = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "clock", "follow"],
                env={**self._inherited, **self.settings},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
            )
        assert self._clock.stdin is not None
        assert self._clock.stdout is not None
        self._clock.stdin.write(f"{when.isoformat()}\n")
        return "Service time is" in self._clock.stdout.readline()

    # ── The order API ────────────────────────────────────────────────────────────────────────

    def order_client(self) -> httpx.Client:
        """The web channel's own client, with its key."""
        key = json.loads(self.settings["KITPOST_API_KEYS"])["larkfield/web"]
        base = self.settings["KITPOST_PUBLIC_BASE_URL"]
        return httpx.Client(base_url=base, headers={"Authorization": f"Bearer {key}"}, timeout=30)

    # ── The store ────────────────────────────────────────────────────────────────────────────

    def put(self, key: str, body: bytes) -> None:
        """Leaves one file in the bucket, as a lab's upload does."""
        self._s3.put_object(Bucket=self.settings["KITPOST_S3_BUCKET"], Key=key, Body=body)

    def send(self, message: bytes) -> str:
        """Says one HL7 message over MLLP, as a lab's own system does, and returns the code of the answer (MSA-1)."""
        place = LOOPBACK, int(self.settings["KITPOST_MLLP_PORT"])
        with socket.create_connection(place, timeout=30) as line:
            line.sendall(b"\x0b" + message + b"\x1c\r")
            answer = b""
            while not answer.endswith(b"\x1c\r"):
                if not (more := line.recv(65_536)):
                    raise RuntimeError("an HL7 message was not answered")
                answer += more
        return answer.partition(b"\rMSA|")[2].partition(b"|")[0].decode("ascii")

    def files(self, prefix: str) -> list[str]:
        """The keys under a prefix."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.settings["KITPOST_S3_BUCKET"], Prefix=prefix
        )
        return [each["Key"] for page in pages for each in page.get("Contents", [])]

    def read(self, key: str) -> bytes:
        """One file of the bucket."""
        return bytes(self._s3.get_object(Bucket=self.settings["KITPOST_S3_BUCKET"], Key=key)["Body"].read())

    # ── Prefect ──────────────────────────────────────────────────────────────────────────────

    def run(self, *flows: str) -> Mapping[str, str]:
        """Starts deployments on the Prefect server, at once, and waits for each: its last state's words."""
        started = {name: self._start(name) for name in flows}
        return {name: self._wait(name, run) for name, run in started.items()}

    def _start(self, name: str) -> str:
        """A run that will take all that waits now: one that an event or the schedule asked for, or else ours."""
        for run in self._open_runs(name):
            if run["state_type"] != "RUNNING":
                return str(run["id"])
        found = self._prefect.get(f"deployments/name/{name}/{name}").raise_for_status().json()
        created = self._prefect.post(f"deployments/{found['id']}/create_flow_run", json={}).raise_for_status().json()
        return str(created["id"])

    def _open_runs(self, name: str) -> list[dict[str, Any]]:
        """Runs of a deployment that are at work or should be by now."""
        now = datetime.now(UTC).isoformat()  # noqa: TID251 - Prefect's clock, not the service's
        wanted = {
            "deployments": {"name": {"any_": [name]}},
            "flow_runs": {
                "state": {"type": {"any_": ["SCHEDULED", "PENDING", "RUNNING"]}},
                "expected_start_time": {"before_": now},
            },
        }
        runs: list[dict[str, Any]] = self._prefect.post("flow_runs/filter", json=wanted).raise_for_status().json()
        return runs

    def _wait(self, name: str, run: str) -> str:
        give_up = time.monotonic() + FLOW_WITHIN_SECONDS
        while time.monotonic() < give_up:
            state = self._prefect.get(f"flow_runs/{run}").raise_for_status().json()["state"] or {}
            kind, words = state.get("type", ""), state.get("message") or ""
            if kind == "COMPLETED" or (kind == "FAILED" and "parked" in words):
                return "completed" if kind == "COMPLETED" else "parked for a person"
            if kind == "CANCELLED" or (kind == "CRASHED" and self.reaper is not None):
                # Another run held the slot, and may have passed what was there when we asked. Or it was killed.
                if kind == "CRASHED" or all(each["state_type"] != "RUNNING" for each in self._open_runs(name)):
                    run = self._start(name)
            elif kind in ENDED:
                raise RuntimeError(f"{name} ended {kind.lower()}: {words[:200]} (see {self.folder}/logs/worker.log)")
            time.sleep(LOOK_EVERY_SECONDS)
        raise RuntimeError(f"{name} took longer than {FLOW_WITHIN_SECONDS:.0f} s")

    def wait_for_lab_files(self, labs: Iterable[str] = ("NORTHLAB",)) -> None:
        """Until every file was taken up by the event that its landing set off, or by the sweep."""
        give_up = time.monotonic() + FLOW_WITHIN_SECONDS
        sweep = time.monotonic() + SWEEP_EVERY_SECONDS
        while any(self.files(f"{lab}/incoming/") for lab in labs):
            if time.monotonic() > give_up:
                raise RuntimeError(f"a lab file was not taken up: see {self.folder}/logs")
            if self.reaper is not None and time.monotonic() > sweep:  # the schedule's own sweep is minutes away
                self.run("ingest-results")
                sweep = time.monotonic() + SWEEP_EVERY_SECONDS
            time.sleep(LOOK_EVERY_SECONDS)

    # ── The stand-ins ────────────────────────────────────────────────────────────────────────

    def tell_courier(self, journeys: list[dict[str, Any]]) -> None:
        """What the courier's scanners saw."""
        told = httpx.URL(self.settings["KITPOST_COURIER_BASE_URL"]).join("/_parcels")
        httpx.post(told, json=journeys, timeout=30).raise_for_status()

    def text_back(self, number: str, body: str) -> None:
        """Somebody answers their last text."""
        reply = {"number": number, "body": body}
        answer = httpx.post(self.settings["KITPOST_TWILIO_BASE_URL"] + "/_reply", json=reply, timeout=30)
        if answer.raise_for_status().json()["answered"] != httpx.codes.OK:
            raise RuntimeError("the reply was not taken")

    def provider_ledger(self) -> list[dict[str, Any]]:
        """Every text that the provider accepted, with number and body: the judge's evidence."""
        answer = httpx.get(self.settings["KITPOST_TWILIO_BASE_URL"] + "/_ledger", timeout=60).raise_for_status()
        messages: list[dict[str, Any]] = answer.json()["messages"]
        return messages


def memory_mb(root: int) -> float:
    """Summed PSS of a process and all below it, in MB: shared pages counted once (Linux; 0 elsewhere)."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, parent = int(entry.parent.name), int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(pid)
    waiting, total = [root], 0
    while waiting:
        pid = waiting.pop()
        waiting += children.get(pid, [])
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1024
