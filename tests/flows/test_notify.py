"""Sending run by run: one call an attempt, nothing twice, nothing lost (law 7; H9, H11, H29; FEATURES 51, 79-81)."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import monotonic

import pytest
from sqlmodel import select

from flows.notify_residents import Pacer, send_due_texts
from integrations.ports import NotSent, Pace, RefusalKind, Refused, Unsure
from models.actions.text_switch import choose_provider, set_class_sending, set_sending
from models.rules.service import TextPolicy
from models.rules.text import TextClass
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


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr("flows.notify_residents.BATCH", 3)


@pytest.mark.usefixtures("small_batches")
def test_a_provider_that_is_down_is_not_knocked_at_for_every_text(begin, send, sender):
    with begin() as session:
        for _ in range(10):
            owed_result(session)
    sender.down = True

    send()

    assert sender.calls["send"] == 3  # one batch; the next was claimed meanwhile, and not called
    assert states(begin) == ["owed"] * 10


@pytest.mark.usefixtures("small_batches")
def test_a_fault_of_our_own_account_stops_the_run_and_asks_for_a_person(begin, send, sender):
    with begin() as session:
        for _ in range(10):
            owed_result(session)
    sender.troubles.append(NotSent("20003", alarm=True))

    tally = send()

    assert tally.needs_a_person
    assert sender.calls["send"] == 3


@pytest.mark.usefixtures("small_batches")
def test_what_was_held_back_from_a_provider_that_is_down_leaves_as_soon_as_it_is_up(begin, send, sender):
    with begin() as session:
        for _ in range(6):
            owed_result(session)
    sender.down = True
    send()
    sender.down = False

    send()  # the three that were called wait for their retry

    assert len(sender.ledger) == 3
    pass_machine_time(begin, seconds=16)
    send()
    assert len(sender.ledger) == 6


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


# ── Switches ─────────────────────────────────────────────────────────────────────────────────


def throw(begin, text_class, *, stopped=True):
    with begin() as session:
        set_class_sending(
            session, service_id="larkfield", text_class=text_class, stopped=stopped, actor="staff:a",
            because="wrong wording", now=NOW,
        )  # fmt: skip


def test_a_stopped_class_waits_and_the_others_leave(begin, send):
    with begin() as session:
        result, journey = owed_result(session), owed_journey_text(session)
    throw(begin, TextClass.RESULT)

    send()

    assert (fresh(begin, result).state, fresh(begin, journey).state) == (TextState.OWED, TextState.ACCEPTED)
    throw(begin, TextClass.RESULT, stopped=False)
    send()
    assert fresh(begin, result).state is TextState.ACCEPTED


@pytest.mark.parametrize("whole", [True, False])
def test_a_switch_thrown_while_a_batch_is_on_its_way_stops_within_one_message(begin, watched, whole):
    """FEATURES 79: what was claimed and not yet called goes back to what is owed."""
    with begin() as session:
        for _ in range(6):
            owed_result(session)

    def thrown_after_the_second(_text):
        if len(sender.ledger) == 2 and whole:
            with begin() as session:
                set_sending(session, stopped=True, actor="staff:a", because="wrong wording", now=NOW)
        elif len(sender.ledger) == 2:
            throw(begin, TextClass.RESULT)

    sender = FakeSender(watched, pace=Pace(at_once=1, per_second=1e6), when_called=thrown_after_the_second)

    tally = send_due_texts(notify(watched, sender), limit=500)

    assert len(sender.ledger) == 2
    assert states(begin) == ["accepted"] * 2 + ["owed"] * 4
    assert not tally.needs_a_person


def test_calls_are_spaced_over_all_threads_as_the_provider_allows():
    pacer, began = Pacer(per_second=100), monotonic()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: pacer.wait(), range(11)))

    assert monotonic() - began >= 0.1


# ── Two providers ────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def two(begin, watched):
    """A provider, another, and a run with both."""
    one, other = FakeSender(watched, name="one"), FakeSender(watched, name="other")
    prepared = replace(notify(watched, one), senders={"one": one, "other": other})

    def run(*, now=NOW):
        return send_due_texts(replace(prepared, clock=lambda: now), limit=500)

    return one, other, run


def use(begin, provider):
    with begin() as session:
        choose_provider(session, provider=provider, actor="staff:a", because="the other is down", now=NOW)


def test_new_texts_go_through_the_provider_that_a_person_chose(begin, owed, two):
    one, other, run = two
    use(begin, "other")

    run()

    assert (len(one.ledger), len(other.ledger)) == (0, 1)
    assert [each.provider for each in attempts(begin, owed)] == ["other"]


def test_a_text_that_provably_did_not_go_may_change_its_provider(begin, owed, two):
    one, other, run = two
    one.down = True
    run()
    use(begin, "other")
    pass_machine_time(begin, seconds=16)

    run()

    assert [each.provider for each in attempts(begin, owed)] == ["one", "other"]
    assert len(other.ledger) == 1


@pytest.mark.parametrize("trouble", [Unsure("ReadTimeout"), TAKEN_UNSURE, None])
def test_a_text_that_may_have_gone_through_one_provider_never_goes_through_the_other(begin, owed, two, trouble):
    """Not found, found, or taken and failed at the phone: it stays where it was tried (law 7)."""
    one, other, run = two
    one.troubles.append(trouble)
    run()
    use(begin, "other")
    if trouble is None:
        one.ledger[0].status, one.ledger[0].error_code = DeliveryStatus.FAILED, "30003"
    for hours in range(8):
        pass_machine_time(begin, minutes=31)
        run(now=NOW + timedelta(hours=hours))

    assert other.calls["send"] == other.calls["find"] == 0
    assert {each.provider for each in attempts(begin, owed)} == {"one"}
    assert len(one.ledger) == (2 if trouble is None else 1)


def test_a_provider_whose_credentials_are_gone_rings_and_loses_nothing(begin, owed, two):
    _, _, run = two
    use(begin, "gone")

    tally = run()

    assert tally.needs_a_person
    assert fresh(begin, owed).state is TextState.OWED


# ── Restored backups (FEATURES 80; H29) ──────────────────────────────────────────────────────


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
