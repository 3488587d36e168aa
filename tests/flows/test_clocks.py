"""When texts leave over both nights on which the clocks change, Easter and Christmas: on London's wall clock (H9)."""

from datetime import UTC, datetime, timedelta

import pytest

from flows.notify_residents import send_due_texts
from models.rules.text import OrderReceived, ReturnReminder
from models.rules.text_delivery import REMEDIES, again_at
from models.tables.text import TextState
from tests.support import build
from tests.support.fake_sender import FakeSender
from tests.support.texts import fresh, notify, owed_result


def utc(year, month, day, hour, minute=0):
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


SEASONS = {
    # owed in the evening: news from 8, reminders from 10, results on the next working day from 9
    "clocks go back": (utc(2026, 10, 24, 20), utc(2026, 10, 25, 8), utc(2026, 10, 25, 10), utc(2026, 10, 26, 9)),
    "clocks go forward, and Easter Monday": (
        utc(2027, 3, 27, 21), utc(2027, 3, 28, 7), utc(2027, 3, 28, 9), utc(2027, 3, 30, 8),
    ),
    "Christmas, Boxing Day on a Saturday": (
        utc(2026, 12, 24, 20, 30), utc(2026, 12, 25, 8), utc(2026, 12, 25, 10), utc(2026, 12, 29, 9),
    ),
}  # fmt: skip


@pytest.mark.parametrize("season", SEASONS)
def test_every_class_leaves_at_its_own_opening_and_not_a_second_sooner(begin, season):
    evening, *openings = SEASONS[season]
    with begin() as session:
        texts = [
            owed_result(session, OrderReceived(), kind=None, at=evening, mobile_proved_at=evening),
            owed_result(
                session, ReturnReminder(evening.date(), last=False), kind=None, at=evening, mobile_proved_at=evening
            ),
            owed_result(session, at=evening, mobile_proved_at=evening),
        ]
    sender = FakeSender()
    night = [
        evening + timedelta(minutes=30 * n) for n in range(1, 16, 3)
    ]  # the hour that comes twice, or never, is among them
    moments = sorted({*night, *(opening - timedelta(seconds=1) for opening in openings), *openings})

    left = {}
    for now in moments:
        send_due_texts(notify(begin, sender, now=now), limit=9)
        for text in texts:
            if fresh(begin, text).state is TextState.ACCEPTED:
                left.setdefault(text.purpose, now)

    assert list(left.values()) == openings
    assert len(sender.ledger) == 3


def test_a_failed_result_is_tried_again_on_the_next_working_day_after_christmas(begin):
    window = build.service().texts.result_window
    eve = utc(2026, 12, 24, 16)

    assert again_at(REMEDIES["30003"], 1, eve, window) == utc(2026, 12, 29, 9)
    assert again_at(REMEDIES["temporary-failure"], 2, eve, window) == utc(2026, 12, 29, 9)
