"""Kills flow runs in the midst of their work, as a power cut would: SIGKILL at random moments, each flow so many times.

Nothing is told to the product: it finds a process gone, as it would in life.
"""

import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Final, Self

import httpx

LOOK_EVERY_SECONDS: Final = 0.1
WITHIN_SECONDS: Final = 1.5
"""A run of the small demo works about as long. One that has ended by then is spared, and the next is taken within half
the time: on any machine each flow is caught at work, if it runs often enough (`spares`)."""


class Reaper:
    """Kills the first runs of every flow while it is open. `killed` counts by flow."""

    def __init__(self, prefect: httpx.Client, folder: Path, *, each: int, chance: random.Random) -> None:
        self._prefect = prefect
        self._folder = folder
        self._each = each
        self._chance = chance
        self._over = Event()
        self._thread = Thread(target=self._watch, daemon=True)
        self._within: defaultdict[str, float] = defaultdict(lambda: WITHIN_SECONDS)
        self.killed = Counter[str]()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def spares(self, flow: str) -> bool:
        """Whether a flow has been quicker than its killer so far."""
        return self.killed[flow] < self._each

    def _watch(self) -> None:
        seen: set[int] = set()
        doomed: list[tuple[float, int, str]] = []
        while not self._over.wait(LOOK_EVERY_SECONDS):
            for pid, run in self._runs():
                flow = None if pid in seen else self._flow_at_work(run)
                if flow is not None:
                    seen.add(pid)
                    doomed.append((time.monotonic() + self._chance.uniform(0, self._within[flow]), pid, flow))
            due = [each for each in doomed if each[0] <= time.monotonic()]
            doomed = [each for each in doomed if each not in due]
            for _, pid, flow in due:
                if self.killed[flow] >= self._each:
                    continue
                if _kill(pid):
                    self.killed[flow] += 1
                else:
                    self._within[flow] /= 2

    def _runs(self) -> Iterator[tuple[int, str]]:
        """Processes of this installation that carry out a flow run, with the run's id."""
        for file in Path("/proc").glob("[0-9]*/environ"):
            try:
                names = dict(each.partition("=")[::2] for each in file.read_text(errors="replace").split("\0"))
            except OSError:  # it ended meanwhile, or is somebody else's
                continue
            run = names.get("PREFECT__FLOW_RUN_ID")
            if run and names.get("KITPOST_STATE_DIR") == str(self._folder):
                yield int(file.parent.name), run

    def _flow_at_work(self, run: str) -> str | None:
        """The flow's name once the run's own code may have begun."""
        try:
            found = self._prefect.get(f"flow_runs/{run}").raise_for_status().json()
            if found["state_type"] != "RUNNING":
                return None
            return str(self._prefect.get(f"flows/{found['flow_id']}").raise_for_status().json()["name"])
        except httpx.HTTPError:  # a busy server: the run is looked at again in a moment
            return None


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
