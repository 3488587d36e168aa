"""What two hundred people do on the pages, for Locust: look at the worklist, open a case, take it, record an attempt.

Reads and writes mixed: of ten acts three write, and whoever writes has opened the case first. All
together ask some forty times a second, each at a moment of their own: people are not a metronome.
"""

import json
import os
import re
from itertools import cycle
from pathlib import Path
from random import Random

from locust import HttpUser, events, task

GIVEN = json.loads(Path(os.environ["BENCH_SHIFT"]).read_text())
"""Cookies of the people, the references of the cases, and the doors of the application."""

EACH_SECONDS = 6.4
"""Between two acts of one person, on average: 200 people, 1.3 requests an act."""
chance = Random(1)
people = iter(GIVEN["cookies"])
doors = cycle(GIVEN["hosts"])


class Adviser(HttpUser):
    """One of them. Cases are drawn from all that are open, and each person has cases of their own."""

    host = GIVEN["hosts"][0]

    def wait_time(self):
        return chance.expovariate(1 / EACH_SECONDS)

    def on_start(self):
        self.client.headers["Cookie"] = next(people)
        self.client.base_url = next(doors)

    def page(self, path, name):
        answer = self.client.get(path, name=name)
        if answer.status_code != 200 or "<h1 " not in answer.text:
            raise AssertionError(answer.status_code)
        return answer.text

    def act(self, path, what, **form):
        shown = self.page(path, "case")
        csrf = re.search(r'name="csrf" value="([^"]+)"', shown)
        version = re.search(r'name="version" value="(\d+)"', shown)
        if not csrf or not version:
            return  # somebody else has it
        with self.client.post(
            f"{path}/{what}", {"csrf": csrf[1], "version": version[1], **form}, name=what, allow_redirects=False,
            catch_response=True,
        ) as answer:  # fmt: skip
            # Two people may want one case: the second is told so.
            answer.success() if answer.status_code in {303, 409} else answer.failure(str(answer.status_code))

    @task(3)
    def look_at_the_worklist(self):
        self.page("/worklist", "worklist")

    @task(4)
    def look_at_a_case(self):
        self.page(chance.choice(GIVEN["cases"]), "case")

    @task(2)
    def record_an_attempt(self):
        self.act(chance.choice(GIVEN["cases"]), "attempts", result="no_answer")

    @task(1)
    def take_a_case(self):
        self.act(chance.choice(GIVEN["cases"]), "claim")


@events.quitting.add_listener
def _fail_on_errors(environment, **_):
    if environment.stats.total.fail_ratio > 0:
        environment.process_exit_code = 1
