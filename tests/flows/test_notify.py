"""Sending run by run: one call an attempt, nothing twice, nothing lost (law 7; H9, H11, H29; FEATURES 51, 79-81)."""

from collections import deque
from datetime import UTC, datetime, timedelta

import pytest
from sqlmodel import select

from flows.notify_residents import send_due_texts
from integrations.ports import NotSent, RefusalKind, Refused, Unsure
from models.rules.service import TextPolicy
from models.rules.vocabulary import DeliveryStatus
from models.tables.text import AttemptState, Text, TextState
from tests.support import build
from tests.support.fake_sender import TAKEN_UNSURE, FakeSender, WatchedBegin
from tests.support.texts import (
    NOW,
    attempts,
    callback,
    cases,
    fresh,
    notify,
    owed_journey_text,
    owed_result,
    pass_machine_time,
)


@pytest.fixture
def watched(begin):
    return WatchedBegin(begin)


@pytest.fixture
def sender(watched):
    return FakeSender(watched)


@pytest.fixture
def send(watched, sender):
    def send(*choices, now=NOW, limit=500):
        return send_due_texts(notify(watched, sender, *choices, now=now), limit=limit)

    return send


@pytest.fixture
def owed(begin):
    with begin() as session:
        return owed_result(session)


def states(begin):
    with begin() as session:
        return sorted(state.value for state in session.exec(select(Text.state)))


def test_a_due_text_leaves_once_and_its_session_is_closed_before_the_call(begin, owed, send, sender):
    tally = send()
    send()

    assert [message.attempt_ref for message in sender.ledger] == [attempts(begin, owed)[0].ref]
    assert fresh(begin, owed).state is TextState.ACCEPTED
    assert tally.counts["accepted"] == 1


def test_the_fake_fails_when_a_session_is_open(watched, sender):
    with watched(), pytest.raises(AssertionError):
        sender.redact("SM1")


def test_a_run_sends_no_more_than_its_limit(begin, send, sender):
    with begin() as session:
        for _ in range(5):
            owed_result(session)

    send(limit=2)

    assert len(sender.ledger) == 2
    send()
    assert len(sender.ledger) == 5


def test_a_burst_beyond_the_ceiling_waits_for_a_person_and_the_tally_says_so(begin, send, sender):
    with begin() as session:
        for _ in range(5):
            owed_result(session)
    small = build.service(texts=TextPolicy(max_per_run=3))

    tally = send(small)
    send(small)

    assert len(sender.ledger) == 3
    assert tally.held == 2
    assert tally.needs_a_person


def test_every_service_is_sent_for_and_a_foreign_one_is_left_alone(begin, send, sender):
    with begin() as session:
        owed_result(session)
        of = build.person(session, service_id="elsewhere")
        to = build.contact(session, of)
        other = build.kit(session, of=of, to=to)
        from tests.support.texts import owe

        text = owe(session, other, service=build.service(id="elsewhere"))

    send()

    assert len(sender.ledger) == 1
    assert fresh(begin, text).state is TextState.OWED


@pytest.mark.parametrize(
    ("trouble", "state"),
    [
        (NotSent("no_connection"), TextState.OWED),
        (Refused("21610", RefusalKind.OPTED_OUT), TextState.FAILED),
        (Unsure("ReadTimeout"), TextState.UNSURE),
        (ZeroDivisionError(), TextState.UNSURE),
        (TAKEN_UNSURE, TextState.UNSURE),
    ],
)
def test_what_a_call_comes_to_decides_what_happens_next(begin, owed, send, sender, trouble, state):
    sender.troubles.append(trouble)

    send()
    send()

    assert fresh(begin, owed).state is state
    assert sender.calls["send"] == 1


def test_a_taken_text_whose_answer_was_lost_is_found_and_not_sent_again(begin, owed, send, sender):
    sender.troubles.append(TAKEN_UNSURE)
    send()
    pass_machine_time(begin, minutes=16)

    send()

    assert fresh(begin, owed).state is TextState.ACCEPTED
    assert len(sender.ledger) == 1


def test_a_text_that_was_never_taken_is_sent_anew_after_two_look_ups(begin, owed, send, sender):
    sender.troubles.append(Unsure("ReadTimeout"))
    for _ in range(3):
        send()
        pass_machine_time(begin, minutes=16)

    assert fresh(begin, owed).state is TextState.ACCEPTED
    assert len(sender.ledger) == 1
    assert sender.calls["find"] == 2


def test_a_provider_that_is_down_is_not_knocked_at_for_every_text(begin, send, sender):
    with begin() as session:
        for _ in range(45):
            owed_result(session)
    sender.down = True

    send()

    assert sender.calls["send"] == 40  # one batch
    assert states(begin) == ["owed"] * 45


def test_a_fault_of_our_own_account_stops_the_run_and_asks_for_a_person(begin, send, sender):
    with begin() as session:
        for _ in range(45):
            owed_result(session)
    sender.troubles.append(NotSent("20003", alarm=True))

    tally = send()

    assert tally.needs_a_person
    assert sender.calls["send"] == 40


def test_one_bad_number_does_not_keep_the_others_waiting(begin, send, sender):
    with begin() as session:
        texts = [owed_result(session) for _ in range(3)]
    sender.troubles = deque([None, Refused("21614", RefusalKind.LANDLINE), None])

    send()

    assert states(begin) == ["accepted", "accepted", "failed"]
    assert sum(len(cases(begin, text)) for text in texts) == 1


def test_callbacks_are_merged_before_anything_is_sent(begin, owed, send, sender):
    send()
    with begin() as session:
        callback(session, attempts(begin, owed)[0], DeliveryStatus.FAILED, error_code="30003")
    send()
    with begin() as session:
        callback(session, attempts(begin, owed)[0], DeliveryStatus.DELIVERED, status_raw="delivered")

    send(now=NOW + timedelta(hours=4))

    assert fresh(begin, owed).state is TextState.DELIVERED
    assert len(sender.ledger) == 1


def test_a_settled_text_is_blanked_at_the_provider(begin, owed, send, sender):
    send()
    with begin() as session:
        callback(session, attempts(begin, owed)[0], DeliveryStatus.DELIVERED)

    send()

    assert [message.redacted for message in sender.ledger] == [True]


def test_a_silent_text_is_asked_about_and_settled_without_any_callback(begin, owed, send, sender):
    send()
    sender.ledger[0].status = DeliveryStatus.DELIVERED
    pass_machine_time(begin, minutes=31)

    send()

    assert fresh(begin, owed).state is TextState.DELIVERED


def test_nothing_leaves_at_night_at_the_weekend_or_on_christmas_day(begin, send, sender):
    moments = [
        datetime(2026, 10, 25, 1, 30, tzinfo=UTC),  # the hour that comes twice
        datetime(2026, 11, 24, 3, 0, tzinfo=UTC),
        datetime(2026, 11, 28, 7, 59, tzinfo=UTC),
        datetime(2026, 12, 24, 20, 0, tzinfo=UTC),
    ]
    with begin() as session:
        owed_result(session, at=moments[0] - timedelta(days=2))
        owed_journey_text(session, at=moments[0] - timedelta(days=2))

    for moment in moments:
        send(now=moment)

    assert sender.calls["send"] == 0


def test_routine_texts_leave_on_a_saturday_and_results_wait_for_monday(begin, send, sender):
    saturday, monday = datetime(2026, 11, 28, 10, 0, tzinfo=UTC), datetime(2026, 11, 30, 9, 0, tzinfo=UTC)
    with begin() as session:
        result = owed_result(session, at=saturday)
        journey = owed_journey_text(session, at=saturday)

    send(now=saturday)
    assert (fresh(begin, result).state, fresh(begin, journey).state) == (TextState.OWED, TextState.ACCEPTED)
    send(now=monday - timedelta(seconds=1))
    assert fresh(begin, result).state is TextState.OWED
    send(now=monday)
    assert fresh(begin, result).state is TextState.ACCEPTED


def test_a_restored_backup_sends_nothing_again_that_was_under_way_in_it(begin, send, sender):
    """FEATURES 80; H29: what the backup holds as claimed, unsure, accepted or settled is looked up, never sent."""
    with begin() as session:
        texts = [owed_result(session) for _ in range(4)]
    sender.troubles = deque([None, TAKEN_UNSURE, TAKEN_UNSURE, None])
    send()
    with begin() as session:  # as the backup has them: one call not answered for at all
        one = next(text for text in texts if fresh(begin, text).state is TextState.UNSURE)
        (attempt,) = attempts(begin, one)
        attempt.state, attempt.ask_at = AttemptState.STARTED, None
        stored = fresh(begin, one)
        stored.state = TextState.SENDING
        session.add_all([attempt, stored])
    pass_machine_time(begin, days=3)

    for _ in range(3):
        send()
        pass_machine_time(begin, hours=1)

    assert len(sender.ledger) == 4
    assert states(begin) == ["accepted"] * 4


def test_no_run_raises_for_what_the_world_does(begin, owed, send, sender):
    sender.lists_nothing = True
    sender.troubles.append(TAKEN_UNSURE)
    send()
    pass_machine_time(begin, hours=11)
    sender.down = True

    send()

    assert fresh(begin, owed).state is TextState.HANDED_OVER
    assert len(cases(begin, owed)) == 1


def test_more_callbacks_than_one_batch_are_all_read(begin, send, sender):
    with begin() as session:
        texts = [owed_result(session) for _ in range(45)]
    send()
    with begin() as session:
        for text in texts:
            callback(session, attempts(begin, text)[0], DeliveryStatus.DELIVERED)

    tally = send()

    assert tally.callbacks == 45
    assert states(begin) == ["delivered"] * 45
