"""A sender in a process of its own that dies where it is told: at a commit, at a call, or at any moment (ruling 20).

Started once, it forks a run for each line `DIE_AT KILL_AFTER_MS HOURS` on its input (0: not at all; HOURS of service
time after the tests' noon) and answers with the run's exit code and the number of boundaries that it passed.
"""

import json
import os
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from threading import Lock

from app.database import begin_on, make_engine
from flows.notify_residents import send_due_texts
from integrations.texts.twilio import TwilioSender
from tests.support import texts

DIED = 86


class Boundaries:
    """Counts what a run passes, and ends the process at the one that it is to die at."""

    def __init__(self, die_at, told):
        self.die_at, self.told, self.passed, self.lock = die_at, told, 0, Lock()

    def passing(self):
        with self.lock:
            self.passed += 1
            os.pwrite(self.told, b"%08d" % self.passed, 0)
            if self.passed == self.die_at:
                os._exit(DIED)


def watched_begin(begin, boundaries):
    @contextmanager
    def watched():
        with begin() as session:
            yield session
            boundaries.passing()  # before the commit
        boundaries.passing()  # after it

    return watched


class WatchedSender:
    """Every call to the provider has a boundary on either side."""

    def __init__(self, sender, boundaries):
        self._sender, self._boundaries = sender, boundaries
        self.name, self.pace, self.remembers = sender.name, sender.pace, sender.remembers

    def __getattr__(self, name):
        real = getattr(self._sender, name)

        def call(*args):
            self._boundaries.passing()
            try:
                return real(*args)
            finally:
                self._boundaries.passing()

        return call


def run(given, die_at, hours, told):
    begin = begin_on(make_engine(given["database"]))
    sender = TwilioSender(
        account_sid=given["account"],
        auth_token=given["token"],
        messaging_service_sid=given["messaging_service"],
        public_base_url=given["callbacks"],
        base_url=given["provider"],
        timeout_seconds=0.5,
    )
    boundaries = Boundaries(die_at, told)
    prepared = texts.notify(begin, sender, now=texts.NOW + timedelta(hours=hours))
    notify = replace(
        prepared,
        begin=watched_begin(begin, boundaries),
        senders={sender.name: WatchedSender(sender, boundaries)},
    )
    send_due_texts(notify, limit=500)


def main():
    given = json.loads(sys.argv[1])
    told = os.memfd_create("boundaries")
    for line in sys.stdin:
        die_at, kill_after_ms, hours = map(int, line.split())
        os.pwrite(told, b"%08d" % 0, 0)
        child = os.fork()
        if child == 0:
            try:
                run(given, die_at, hours, told)
            except BaseException as error:  # noqa: BLE001
                print(type(error).__name__, error, file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        if kill_after_ms:
            time.sleep(kill_after_ms / 1000)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), int(os.pread(told, 8, 0)), flush=True)


if __name__ == "__main__":
    main()
