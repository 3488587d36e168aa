"""Runs in a process that dies where it is told: at a commit, at a call, or at any moment (ruling 20).

A worker is started once and forks a run for each line `DIE_AT KILL_AFTER_MS ...` on its input (0: not at all), so
that a hundred runs take no hundred starts. `Killable` is the test's end of it.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

KILLED = -signal.SIGKILL


class Boundaries:
    """Counts what a run passes, and kills the process at the one that it is to die at."""

    def __init__(self, die_at, told):
        self.die_at, self.told, self.passed, self.lock = die_at, told, 0, Lock()

    def passing(self, **_):
        with self.lock:
            self.passed += 1
            os.pwrite(self.told, b"%08d" % self.passed, 0)
            if self.passed == self.die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, begin):
        """Transactions with a boundary on either side of the commit."""

        @contextmanager
        def watched():
            with begin() as session:
                yield session
                self.passing()
            self.passing()

        return watched


def serve_runs(run):
    """The worker's end: forks `run(boundaries, *numbers)` for each line; answers with exit code and boundaries."""
    told = os.memfd_create("boundaries")
    for line in sys.stdin:
        die_at, kill_after_ms, *numbers = map(int, line.split())
        os.pwrite(told, b"%08d" % 0, 0)
        child = os.fork()
        if child == 0:
            try:
                run(Boundaries(die_at, told), *numbers)
            except BaseException as error:  # noqa: BLE001
                print(type(error).__name__, error, file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        if kill_after_ms:
            time.sleep(kill_after_ms / 1000)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), int(os.pread(told, 8, 0)), flush=True)


class Killable:
    """A worker of tests/support, and what to tell it. `given` is all that it knows of the test."""

    def __init__(self, worker, **given):
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.support.{worker}", json.dumps(given)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def run(self, *numbers, die_at=0, kill_after_ms=0):
        """One run: its exit code, and how many boundaries it passed."""
        self._process.stdin.write(" ".join(map(str, (die_at, kill_after_ms, *numbers))) + "\n")
        code, passed = self._process.stdout.readline().split()
        return int(code), int(passed)

    def close(self):
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()
