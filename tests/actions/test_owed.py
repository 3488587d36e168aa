"""What is owed is a row, once: a text by what it tells, a case by what it is about."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from models.actions.owed import CaseItemDue, OwedCase, OwedText, cancel_texts, owe_cases, owe_texts
from models.rules.clinic import CaseKind
from models.rules.text import AllClear, OrderReceived, TextPurpose
from models.rules.vocabulary import Outcome, Site, Test
from tests.support import build
from tests.support.ingesting import ask

ALL_CLEAR = AllClear(((Test.CHLAMYDIA, Site.URINE),), None)
NOW = build.NOW


@pytest.fixture
def kit(begin):
    with begin() as session:
        return build.dispatched_kit(session)


def owe(begin, kit, says=ALL_CLEAR, tells="one", **more):
    owed = OwedText(kit.order_id, kit.id, kit.contact_id, says, tells, **more)
    with begin() as session:
        return owe_texts(session, [owed], service=build.service(), now=NOW, cipher=build.cipher())


def cancel(begin, kit, because="decided_again", **more):
    with begin() as session:
        return cancel_texts(session, [kit.id], because=because, now=NOW, **more)


def states(begin):
    return ask(begin, "SELECT tells, state, cancelled_because FROM text ORDER BY id")


def open_case(begin, kit, kind=CaseKind.POSITIVE, *, now=NOW, key="kit:1:results", **more):
    owed = OwedCase(key=key, kind=kind, kit_id=kit.id, **more)
    with begin() as session:
        return owe_cases(session, [owed], service=build.service(), now=now, actor="flow:test")[key]


# ── Texts ────────────────────────────────────────────────────────────────────────────────────


def test_a_text_is_owed_once_for_what_it_tells(begin, kit):
    assert [owe(begin, kit), owe(begin, kit), owe(begin, kit, tells="two")] == [1, 0, 1]


def test_the_values_of_a_text_are_kept_encrypted(begin, kit):
    owe(begin, kit)

    ((sealed,),) = ask(begin, "SELECT values FROM text")
    assert b"chlamydia" not in bytes(sealed)


def test_a_text_waits_for_its_window(begin, kit):
    midnight = NOW.replace(hour=23, minute=30)
    owed = OwedText(kit.order_id, kit.id, kit.contact_id, ALL_CLEAR, "one")
    with begin() as session:
        owe_texts(session, [owed], service=build.service(), now=midnight, cipher=build.cipher())

    ((not_before,),) = ask(begin, "SELECT not_before FROM text")
    assert not_before > midnight
    assert 9 <= not_before.hour < 17


def test_what_was_stopped_by_a_newer_decision_may_be_owed_again(begin, kit):
    owe(begin, kit)
    cancel(begin, kit)

    assert owe(begin, kit) == 1
    assert states(begin) == [("one", "owed", "")]


@pytest.mark.parametrize("because", ["number_frozen", "kit_cancelled"])
def test_what_was_stopped_for_another_reason_stays_stopped(begin, kit, because):
    owe(begin, kit)
    cancel(begin, kit, because)

    assert owe(begin, kit) == 0
    assert states(begin) == [("one", "cancelled", because)]


@pytest.mark.parametrize("state", ["sending", "unsure", "accepted", "delivered", "failed", "handed_over"])
def test_what_left_or_may_have_left_is_neither_stopped_nor_owed_again(begin, kit, db, state):
    owe(begin, kit)
    with db.owner_engine.begin() as owner:
        owner.execute(text("UPDATE text SET state = :state"), {"state": state})

    assert (cancel(begin, kit), owe(begin, kit)) == (0, 0)
    assert states(begin) == [("one", state, "")]


def test_only_the_named_purposes_are_stopped(begin, kit):
    owe(begin, kit)
    owe(begin, kit, OrderReceived())

    assert cancel(begin, kit, purposes=(TextPurpose.ALL_CLEAR,)) == 1
    assert [state for _, state, _ in states(begin)] == ["cancelled", "owed"]


# ── Cases ────────────────────────────────────────────────────────────────────────────────────


def the_case(begin):
    ((found),) = ask(begin, "SELECT kind, owner_role, due_at, closed_at IS NULL, version, escalation FROM clinic_case")
    return found


def test_a_case_is_opened_once_with_an_owner_a_due_time_and_an_audit_line(begin, kit):
    assert open_case(begin, kit) == open_case(begin, kit)

    kind, owner, due_at, is_open, version, _ = the_case(begin)
    assert (kind, is_open, version) == ("positive", True, 1)
    assert owner
    assert due_at > NOW
    assert ask(begin, "SELECT action, actor FROM audit WHERE subject = 'clinic_case'") == [("case.opened", "flow:test")]


def test_worse_news_makes_a_case_worse_and_never_later(begin, kit):
    open_case(begin, kit, CaseKind.FAILED_SAMPLE)
    before = the_case(begin)[2]
    open_case(begin, kit, CaseKind.CORRECTION, now=NOW + timedelta(hours=1))

    kind, _, due_at, _, version, _ = the_case(begin)
    assert (kind, version) == ("correction", 2)
    assert due_at <= before


def test_milder_news_leaves_a_case_as_it_is(begin, kit):
    open_case(begin, kit, CaseKind.CORRECTION)
    before = the_case(begin)
    open_case(begin, kit, CaseKind.FAILED_SAMPLE, now=NOW + timedelta(days=1))

    assert the_case(begin) == before


def close(db):
    with db.owner_engine.begin() as owner:
        owner.execute(
            text("UPDATE clinic_case SET closed_at = now(), closed_by = 'staff:x', outcome = 'released_after_review'")
        )


def test_news_about_a_closed_case_opens_it_again_with_a_new_due_time(begin, kit, db):
    open_case(begin, kit)
    close(db)
    later = NOW + timedelta(days=30)
    open_case(begin, kit, now=later)

    _, _, due_at, is_open, _, _ = the_case(begin)
    assert is_open
    assert due_at > later
    assert ask(begin, "SELECT action FROM audit WHERE subject = 'clinic_case' ORDER BY id DESC LIMIT 1") == [
        ("case.reopened",)
    ]


def test_a_case_that_need_not_be_opened_again_stays_closed(begin, kit, db):
    open_case(begin, kit, reopen=False)
    close(db)
    open_case(begin, kit, reopen=False)

    assert not the_case(begin)[3]


def test_a_result_is_an_item_of_its_case_once(begin, kit):
    item = CaseItemDue(77, Test.CHLAMYDIA, Site.URINE, Outcome.POSITIVE)
    open_case(begin, kit, items=(item,))
    open_case(begin, kit, items=(item, CaseItemDue(78, Test.HIV, Site.BLOOD, Outcome.REACTIVE)))

    assert ask(begin, "SELECT version_id FROM case_item ORDER BY id") == [(77,), (78,)]
