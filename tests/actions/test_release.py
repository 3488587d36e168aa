"""What a decision writes: itself, its text or case and the kit's move, together, once, and only what may be told."""

from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from flows.ingest_results import ACTOR, ingest_waiting_files
from flows.reconcile import strike
from models.actions.release import close_finished_kits, decide_kits, expire_holds, review
from models.rules.errors import Code, ServiceError
from models.rules.kit import CLOSED_TO_TEXTS, KitState
from tests.support import build
from tests.support.ingesting import READ_AT, ask, case_of, drop_bytes, effects_of, ingest, services, take, texts_of
from tests.support.lab_files import hl7
from tests.support.many_kits import send_kits
from tests.support.memory_store import MemoryStore

EARLIER, LATER = "2026-11-02T09:00", "2026-11-03T09:00"
RESULT_TEXTS = {"all_clear", "swab_positive", "failed_sample"}
NURSE = "staff:nurse"


@pytest.fixture
def kit(begin):
    with begin() as session:
        return send_kits(session, 1)[0]


def rows(kit, *values, at=EARLIER, message_id="one", **changes):
    """The kit's four rows: chlamydia, gonorrhoea, HIV, syphilis; the first ones with these values."""
    made = kit.rows(at=at, message_id=message_id, **changes)
    return [row._replace(value=value or row.value) for row, value in zip(made, [*values, "", "", "", ""], strict=False)]


def decide_again(begin, kit, trigger, *, at=READ_AT):
    force = services(begin)
    with begin() as session:
        session.connection().execute(text("SELECT FROM kit WHERE id = :id FOR UPDATE"), {"id": kit.id})
        return decide_kits(session, {kit.id: trigger}, now=at, actor=ACTOR, services=force, cipher=build.cipher())


def read_comments(begin, kit, *, at=READ_AT):
    force = services(begin)["larkfield"]
    with begin() as session:
        return review(
            session,
            kit_id=kit.id,
            actor=NURSE,
            now=at,
            service=force.service,
            service_version_id=force.version_id,
            cipher=build.cipher(),
        )


def end_waits(begin, *, at):
    force = services(begin)
    with begin() as session:
        return expire_holds(session, limit=10, now=at, actor=ACTOR, services=force, cipher=build.cipher())


def as_owner(db, query, **binds):
    with db.owner_engine.begin() as owner:
        owner.execute(text(query), binds)


def result_texts(begin, kit):
    return [(purpose, state) for purpose, state in texts_of(begin, kit.id) if purpose in RESULT_TEXTS]


def is_even(begin, at=READ_AT):
    return strike(begin, lambda: at).differences == ()


# ── One transaction ──────────────────────────────────────────────────────────────────────────


class LostConnectionError(ConnectionError):
    pass


class FailsOnceDecided:
    """Transactions on a database that loses the connection at the commit of a decision."""

    def __init__(self, begin):
        self.begin = begin

    @contextmanager
    def __call__(self):
        with self.begin() as session:
            yield session
            if session.connection().execute(text("SELECT count(*) FROM release_decision")).scalar():
                raise LostConnectionError


def test_results_decision_text_case_and_position_are_kept_together_or_not_at_all(begin, kit):
    store = MemoryStore()
    drop_bytes(store, hl7(rows(kit, "DETECTED")))
    with pytest.raises(LostConnectionError):
        ingest_waiting_files(replace(ingest(begin, store), begin=FailsOnceDecided(begin)), limit=1)

    for table in ("result_version", "result_series", "release_decision", "text", "clinic_case", "lab_message_key"):
        assert ask(begin, f"SELECT count(*) FROM {table}") == [(0,)]
    assert ask(begin, "SELECT state, messages_read FROM lab_file") == [("reading", 0)]
    assert ask(begin, "SELECT state FROM kit") == [("dispatched",)]


def test_a_decision_names_its_reasons_inputs_rule_and_council_and_leaves_an_audit_line(begin, kit):
    take(begin, hl7(rows(kit)))

    ((kind, reasons, inputs, rule, actor, versions),) = ask(
        begin,
        """SELECT d.kind, d.reasons, d.inputs, d.rule_version, d.actor,
                  (SELECT count(*) FROM service_version v WHERE v.id = d.service_version_id)
           FROM release_decision d""",
    )
    assert (kind, reasons, rule, actor, versions) == ("all_clear", ["all_requested_negative"], "release-2", ACTOR, 1)
    assert [(test, site) for test, site, _ in inputs] == [
        ("chlamydia", "urine"),
        ("gonorrhoea", "urine"),
        ("hiv", "blood"),
        ("syphilis", "blood"),
    ]
    assert ask(begin, "SELECT count(*) FROM audit WHERE action = 'release.decided'") == [(1,)]


def test_the_same_results_decide_once_for_a_trigger(begin, kit):
    take(begin, hl7(rows(kit)))

    assert decide_again(begin, kit, "results") == {}
    assert ask(begin, "SELECT count(*) FROM release_decision") == [(1,)]
    assert texts_of(begin, kit.id) == [("all_clear", "owed")]


def test_another_trigger_on_the_same_results_owes_the_same_text_and_not_a_second(begin, kit):
    take(begin, hl7(rows(kit)))

    assert set(decide_again(begin, kit, "person")) == {kit.id}
    assert texts_of(begin, kit.id) == [("all_clear", "owed")]
    assert is_even(begin)


# ── Ways out ─────────────────────────────────────────────────────────────────────────────────

REACTIVE = ("", "", "Reactive")
WAYS_OUT = {
    "all negative": ((), "all_clear", None),
    "a chlamydia": (("DETECTED",), "swab_positive", "positive"),
    "a failed sample": (("", "", "", "Insufficient"), "failed_sample", "failed_sample"),
    "a reactive blood": (REACTIVE, "please_expect_our_call", "reactive"),
    "a reactive blood and a chlamydia": (("DETECTED", "", "Reactive"), "please_expect_our_call", "reactive"),
    "an equivocal swab": (("Equivocal",), "please_expect_our_call", "positive"),
    "a blood said to be positive": (("", "", "Positive"), "please_expect_our_call", "reactive"),
}


@pytest.mark.parametrize("name", WAYS_OUT)
def test_each_outcome_has_one_way_out(begin, kit, name):
    values, purpose, kind = WAYS_OUT[name]
    take(begin, hl7(rows(kit, *values)))

    assert texts_of(begin, kit.id) == [(purpose, "owed")]
    assert (case_of(begin, kit.id) or (None,))[0] == kind
    assert is_even(begin)


def test_a_reaction_is_in_nothing_that_could_be_texted(begin, kit):
    take(begin, hl7(rows(kit, *REACTIVE)))

    ((ref, sealed),) = ask(begin, "SELECT ref, values FROM text")
    said = build.cipher().decrypt("text", "values", ref, bytes(sealed))
    assert "hiv" not in said
    assert "reactive" not in said


def test_an_incomplete_kit_is_told_that_its_sample_arrived_and_nothing_of_results(begin, kit):
    take(begin, hl7(rows(kit)[:3]))

    assert texts_of(begin, kit.id) == [("received_at_lab", "owed")]
    assert ask(begin, "SELECT hold_until IS NOT NULL FROM kit") == [(True,)]
    assert is_even(begin)


def test_a_chlamydia_with_others_pending_is_told_now_and_the_rest_by_a_person(begin, kit, db):
    take(begin, hl7(rows(kit, "DETECTED")[:1]))
    assert result_texts(begin, kit) == [("swab_positive", "owed")]
    as_owner(db, "UPDATE text SET state = 'delivered'")

    take(begin, hl7(rows(kit, "DETECTED", message_id="two")))

    assert result_texts(begin, kit) == [("swab_positive", "delivered")]
    assert ask(begin, "SELECT kind, reasons FROM release_decision ORDER BY id DESC LIMIT 1") == [
        ("person", ["swab_positive", "already_in_touch"])
    ]


def test_without_consent_to_texts_a_person_tells_even_an_all_clear(begin, kit, db):
    as_owner(db, "UPDATE contact SET text_consent = false")
    take(begin, hl7(rows(kit)))

    assert texts_of(begin, kit.id) == []
    assert case_of(begin, kit.id) is not None


@pytest.mark.parametrize("how", ["proved long ago", "bounced since"])
def test_a_number_that_is_not_fresh_gets_no_result(begin, kit, db, how):
    if how == "proved long ago":
        as_owner(db, "UPDATE contact SET mobile_proved_at = mobile_proved_at - interval '200 days'")
    else:
        as_owner(db, "UPDATE mobile_holder SET frozen_at = now()")
    take(begin, hl7(rows(kit)))

    assert texts_of(begin, kit.id) == [("please_expect_our_call", "owed")]
    assert case_of(begin, kit.id) is not None
    assert is_even(begin)


def test_somebody_under_age_on_the_day_of_the_result_is_a_safeguarding_case(begin):
    with begin() as session:
        (kit,) = send_kits(session, 1, born="2012-11-06")
    take(begin, hl7(rows(kit)))

    assert texts_of(begin, kit.id) == []
    assert case_of(begin, kit.id)[0] == "safeguarding"


# ── Kits that are not open ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", sorted(CLOSED_TO_TEXTS - {KitState.REPLACED}))  # that one: test_replacement.py
@pytest.mark.parametrize("value", ["", "DETECTED"])
def test_a_kit_that_is_no_longer_open_has_its_result_taken_and_a_person_told(begin, kit, db, state, value):
    as_owner(
        db,
        "UPDATE kit SET closed_at = now(), closed_reason = 'test', state = :state"
        + (", received_at = now(), reported_at = now()" if state == "closed" else ""),
        state=state,
    )
    take(begin, hl7(rows(kit, value)))

    assert texts_of(begin, kit.id) == []
    assert len(effects_of(begin, kit.id, "chlamydia")) == 1
    assert case_of(begin, kit.id) is not None
    assert ask(begin, "SELECT received_at IS NOT NULL FROM kit") == [(True,)]
    assert ask(begin, "SELECT state FROM kit") == [("reported" if state == "closed" else state,)]
    assert is_even(begin)


# ── Corrections ──────────────────────────────────────────────────────────────────────────────


def test_a_correction_before_the_text_stops_it(begin, kit):
    take(begin, hl7(rows(kit)))
    take(begin, hl7(rows(kit, "DETECTED", at=LATER, message_id="two", status="C")[:1]))

    assert texts_of(begin, kit.id) == [("all_clear", "cancelled"), ("please_expect_our_call", "owed")]
    assert case_of(begin, kit.id) == ("correction", "clinician")
    assert is_even(begin)


@pytest.mark.parametrize("state", ["sending", "unsure", "accepted", "delivered", "failed"])
def test_a_correction_after_the_text_may_have_left_sends_nothing(begin, kit, db, state):
    take(begin, hl7(rows(kit)))
    as_owner(db, "UPDATE text SET state = :state", state=state)
    take(begin, hl7(rows(kit, "DETECTED", at=LATER, message_id="two", status="C")[:1]))

    assert texts_of(begin, kit.id) == [("all_clear", state)]
    assert case_of(begin, kit.id) == ("correction", "clinician")
    assert ask(begin, "SELECT reasons FROM release_decision ORDER BY id DESC LIMIT 1") == [(["corrected_after_told"],)]


def test_nothing_that_comes_later_makes_a_corrected_kit_an_all_clear(begin, kit):
    take(begin, hl7(rows(kit, "DETECTED")))
    take(begin, hl7(rows(kit, at=LATER, message_id="two", status="C")[:1]))
    take(begin, hl7(rows(kit, at="2026-11-04T09:00", message_id="three")))

    assert ("all_clear", "owed") not in texts_of(begin, kit.id)
    assert decide_again(begin, kit, "person")[kit.id].kind == "call"


def test_a_withdrawal_says_nothing_of_the_value_it_still_carries(begin, kit):
    take(begin, hl7(rows(kit)))
    take(begin, hl7(rows(kit, "DETECTED", at=LATER, message_id="two", status="W")[:1]))

    assert effects_of(begin, kit.id, "chlamydia") == [("negative", "first"), ("withdrawn", "correction")]
    assert result_texts(begin, kit) == [("all_clear", "cancelled")]
    assert case_of(begin, kit.id) == ("correction", "clinician")


# ── Comments ─────────────────────────────────────────────────────────────────────────────────


def test_a_comment_holds_the_result_until_a_named_person_has_read_it(begin, kit):
    first, *others = rows(kit)
    take(begin, hl7([first._replace(comment="Specimen slightly short."), *others]))
    assert result_texts(begin, kit) == []

    assert read_comments(begin, kit).kind == "all_clear"

    assert result_texts(begin, kit) == [("all_clear", "owed")]
    assert ask(begin, "SELECT actor FROM comment_review") == [(NURSE,)]
    assert is_even(begin)


def test_a_comment_is_read_once(begin, kit):
    take(begin, hl7(rows(kit, comment="Specimen slightly short.")))
    read_comments(begin, kit)

    with pytest.raises(ServiceError) as refused:
        read_comments(begin, kit)
    assert refused.value.code is Code.NOT_NOW


def test_where_there_is_no_comment_there_is_nothing_to_release(begin, kit):
    take(begin, hl7(rows(kit)[:3]))

    with pytest.raises(ServiceError) as refused:
        read_comments(begin, kit)
    assert refused.value.code is Code.NOT_NOW


def test_a_new_comment_after_the_review_holds_the_text_again(begin, kit):
    first, *others = rows(kit)
    take(begin, hl7([first._replace(comment="Specimen slightly short."), *others]))
    read_comments(begin, kit)
    later = first._replace(comment="Result from another sample, disregard.", message_id="two")
    take(begin, hl7([later]))

    assert result_texts(begin, kit) == [("all_clear", "cancelled")]
    assert case_of(begin, kit.id) is not None


# ── Waits ────────────────────────────────────────────────────────────────────────────────────


def test_a_wait_that_is_over_is_handed_to_a_person_once(begin, kit):
    take(begin, hl7(rows(kit)[:3]))
    ((until,),) = ask(begin, "SELECT hold_until FROM kit")

    assert end_waits(begin, at=until - timedelta(seconds=1)) == 0
    assert end_waits(begin, at=until) == 1
    assert end_waits(begin, at=until + timedelta(days=1)) == 0

    assert case_of(begin, kit.id)[0] == "results_overdue"
    assert ask(begin, "SELECT count(*) FROM clinic_case") == [(1,)]
    assert is_even(begin)


def test_results_that_come_before_the_wait_is_over_end_it(begin, kit):
    take(begin, hl7(rows(kit)[:3]))
    take(begin, hl7(rows(kit, message_id="two")))

    assert end_waits(begin, at=READ_AT + timedelta(days=30)) == 0
    assert case_of(begin, kit.id) is None


# ── The end ──────────────────────────────────────────────────────────────────────────────────


def close(begin, at=READ_AT):
    with begin() as session:
        return close_finished_kits(session, limit=10, now=at, actor=ACTOR)


def test_a_kit_is_finished_once_its_text_arrived(begin, kit, db):
    take(begin, hl7(rows(kit)))
    for state in ("owed", "sending", "unsure", "accepted"):
        as_owner(db, "UPDATE text SET state = :state", state=state)
        assert close(begin) == 0
    as_owner(db, "UPDATE text SET state = 'delivered'")

    assert close(begin) == 1
    assert close(begin) == 0
    assert ask(begin, "SELECT state, closed_reason FROM kit") == [("closed", "told")]


@pytest.mark.parametrize("what", ["an open case", "a row in quarantine", "a frozen kit"])
def test_a_kit_with_something_left_to_do_stays_open(begin, kit, db, what):
    take(begin, hl7(rows(kit, "DETECTED" if what == "an open case" else "")))
    if what == "a row in quarantine":
        take(begin, hl7(rows(kit, "Not sure", at=LATER, message_id="two")[:1]))
        as_owner(
            db, "UPDATE clinic_case SET closed_at = now(), closed_by = 'staff:x', outcome = 'released_after_review'"
        )
    if what == "a frozen kit":
        as_owner(db, "UPDATE kit SET frozen_at = now()")
    as_owner(db, "UPDATE text SET state = 'delivered', cancelled_because = ''")

    assert close(begin) == 0
