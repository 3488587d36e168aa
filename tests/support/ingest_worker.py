"""A reader of lab files in a process of its own that is killed where it is told: at a commit, an HTTP call, any moment.

Started once, it forks a run for each line `DIE_AT KILL_AFTER_MS` on its input (0: not at all) and answers with the
run's exit code and the number of boundaries that it passed (ruling 20).
"""

import json
import os
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import replace

import flows.ingest_results
from app.database import begin_on, make_engine
from flows.ingest_results import ingest_waiting_files
from integrations.store import S3FileStore
from tests.support import aws
from tests.support.ingesting import ingest, lab_maps, larkfield

# Several chunks a file, so that a run can die between two of them.
flows.ingest_results.MESSAGES_A_CHUNK = 3


class Boundaries:
    """Counts what a run passes, and kills the process at the one that it is to die at."""

    def __init__(self, die_at, told):
        self.die_at, self.told, self.passed = die_at, told, 0

    def passing(self, **_):
        self.passed += 1
        os.pwrite(self.told, b"%08d" % self.passed, 0)
        if self.passed == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)


def watched_begin(begin, boundaries):
    @contextmanager
    def watched():
        with begin() as session:
            yield session
            boundaries.passing()  # before the commit
        boundaries.passing()  # after it

    return watched


def run(given, client, die_at, told):
    begin = begin_on(make_engine(given["database"]))
    boundaries = Boundaries(die_at, told)
    client.meta.events.register("before-send.s3", boundaries.passing)
    client.meta.events.register("after-call.s3", boundaries.passing)
    prepared = ingest(begin, S3FileStore(client, given["bucket"]))
    ingest_waiting_files(replace(prepared, begin=watched_begin(begin, boundaries)), limit=50)


def main():
    given = json.loads(sys.argv[1])
    told = os.memfd_create("boundaries")
    client = aws.client("s3", given["s3"])  # built once, as it takes longer than a run; it has no connection yet
    lab_maps()
    larkfield()
    for line in sys.stdin:
        die_at, kill_after_ms = map(int, line.split())
        os.pwrite(told, b"%08d" % 0, 0)
        child = os.fork()
        if child == 0:
            try:
                run(given, client, die_at, told)
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
