"""A sender of texts that can be killed at every commit, every call and any moment, some hours after the tests' noon."""

import json
import sys
from dataclasses import replace
from datetime import timedelta

from app.database import begin_on, make_engine
from flows.notify_residents import send_due_texts
from integrations.texts.twilio import TwilioSender
from models.rules.service import TextPolicy
from tests.support import build, texts
from tests.support.killable import serve_runs


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


def main():
    given = json.loads(sys.argv[1])
    engine = make_engine(given["database"])
    sender = TwilioSender(
        account_sid=given["account"],
        auth_token=given["token"],
        messaging_service_sid=given["messaging_service"],
        public_base_url=given["callbacks"],
        base_url=given["provider"],
        timeout_seconds=0.5,
    )
    many = build.service(texts=TextPolicy(max_per_run=1_000_000))

    def ready(hours):
        return texts.notify(begin_on(engine), sender, many, now=texts.NOW + timedelta(hours=hours))

    def run(boundaries, hours):
        engine.dispose(close=False)  # the parent's connections are the parent's
        prepared = ready(hours)
        watched = replace(
            prepared,
            begin=boundaries.watch(prepared.begin),
            senders={sender.name: WatchedSender(sender, boundaries)},
        )
        send_due_texts(watched, limit=5_000)

    # Forks inherit what was imported and compiled by a run that finds nothing to do.
    assert sender._client.messages
    send_due_texts(ready(0), limit=1)
    engine.dispose()
    serve_runs(run)


if __name__ == "__main__":
    main()
