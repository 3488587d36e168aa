"""A reader of lab files that can be killed at every commit, every HTTP call and any moment."""

import json
import sys
from dataclasses import replace

import flows.ingest_results
from app.database import begin_on, make_engine
from flows.ingest_results import ingest_waiting_files
from integrations.store import S3FileStore
from tests.support import aws
from tests.support.ingesting import ingest, lab_maps, larkfield
from tests.support.killable import serve_runs

# Several chunks a file, so that a run can die between two of them.
flows.ingest_results.MESSAGES_A_CHUNK = 3


def main():
    given = json.loads(sys.argv[1])
    client = aws.client("s3", given["s3"])  # built once, as it takes longer than a run; it has no connection yet
    lab_maps()
    larkfield()

    def run(boundaries):
        begin = begin_on(make_engine(given["database"]))
        client.meta.events.register("before-send.s3", boundaries.passing)
        client.meta.events.register("after-call.s3", boundaries.passing)
        prepared = ingest(begin, S3FileStore(client, given["bucket"]))
        ingest_waiting_files(replace(prepared, begin=boundaries.watch(begin)), limit=50)

    serve_runs(run)


if __name__ == "__main__":
    main()
