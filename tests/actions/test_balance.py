"""The daily balance sees one result, one text, one task gone, and names which rows to look at (ruling 20)."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from flows.reconcile import check_even, strike
from models.actions.balance import _CHECKS
from models.actions.release import expire_holds
from models.rules.errors import Code, ServiceError
from tests.support import build
from tests.support.ingesting import READ_AT, ask, services, take
from tests.support.lab_files import hl7
from tests.support.many_kits import send_kits

CLEAR, POSITIVE, REACTIVE, HELD, WAITING, OVERDUE, SILENT = range(1, 8)
"""Kit ids of the small world below, by what became of each."""


@pytest.fixture
def world(begin, db):
    """One kit of each kind, one row of no kit of ours, and one file that was cut."""
    with begin() as session:
        clear, positive, reactive, held, waiting, overdue, _ = send_kits(session, 7)
    take(begin, hl7(overdue.rows()[:3]))
    force = services(begin)
    with begin() as session:
        late = READ_AT + timedelta(days=10)
        expire_holds(session, limit=9, now=late, actor="flow:test", services=force, cipher=build.cipher())
    chlamydia, *rest = positive.rows()
    swab, other, hiv, syphilis = reactive.rows()
    unknown, *known = held.rows()
    rows = [
        *clear.rows(),
        chlamydia._replace(value="DETECTED"),
        *rest,
        swab,
        other,
        hiv._replace(value="Reactive"),
        syphilis,
        unknown._replace(value="Perhaps"),
        *known,
        *waiting.rows()[:3],
        *clear.rows(kit="T4J-WW7-5K3Y", tube="T4J-WW7-5K3Y-1", accession="26V1")[:1],
    ]
    take(begin, hl7(rows))
    take(begin, hl7(rows, control_id="cut")[:-9])
    assert ask(begin, "SELECT array_agg(id ORDER BY id) FROM kit") == [([1, 2, 3, 4, 5, 6, 7],)]
    return begin


def spoil(db, query):
    """What no role of the product may do: a row altered or gone."""
    with db.owner_engine.begin() as owner:
        owner.execute(text("SET LOCAL session_replication_role = replica"))
        assert owner.execute(text(query)).rowcount >= 1, "nothing was spoilt"


def found(begin):
    return {difference.check: difference for difference in strike(begin, lambda: READ_AT).differences}


def test_a_whole_world_is_even(world):
    balance = strike(world, lambda: READ_AT)

    assert balance.differences == ()
    check_even(balance)
    assert balance.figures["lab rows read"] == balance.figures["result versions stored"] + 2
    assert balance.figures["quarantined rows"] == 2
    assert balance.figures["results that are not negative"] == balance.figures["case items"] == 2


ONE_ROW = {
    "order_decided": f"UPDATE kit_order SET current_decision_id = NULL WHERE id = {CLEAR}",
    "accepted_order_has_kit": f"DELETE FROM kit WHERE id = {SILENT}",
    "kit_state_agrees_with_facts": f"UPDATE kit SET received_at = NULL WHERE id = {CLEAR}",
    "kit_asks_for_something": f"DELETE FROM kit_test WHERE kit_id = {SILENT}",
    "file_rows_accounted": "DELETE FROM quarantined_row WHERE id = (SELECT max(id) FROM quarantined_row)",
    "held_file_used_nothing": """
        INSERT INTO result_version (series_id, kit_id, service_id, test, site, file_id, position, outcome, status,
                                    effect, note_review, row_key)
        SELECT series_id, kit_id, service_id, test, site, (SELECT id FROM lab_file WHERE state = 'held'), position,
               outcome, status, 'out_of_order', note_review, row_key
        FROM result_version WHERE id = (SELECT min(id) FROM result_version)""",
    "held_file_has_case": """
        DELETE FROM clinic_case WHERE key = 'file:' || (SELECT id FROM lab_file WHERE state = 'held')""",
    "head_is_a_version": f"UPDATE result_series SET outcome = 'equivocal' WHERE kit_id = {CLEAR} AND test = 'hiv'",
    "non_negative_has_item": "DELETE FROM case_item WHERE outcome = 'positive'",
    "item_has_result": "UPDATE case_item SET outcome = 'equivocal' WHERE outcome = 'positive'",
    "quarantined_row_has_case": "DELETE FROM clinic_case WHERE key LIKE 'file:%:unknown_kit:%'",
    "decision_is_current": f"UPDATE kit SET current_decision_id = NULL WHERE id = {CLEAR}",
    "owed_text_exists_once": f"DELETE FROM text WHERE kit_id = {POSITIVE}",
    "result_text_has_decision": f"UPDATE text SET decision_id = NULL WHERE kit_id = {CLEAR}",
    "owed_case_exists": f"DELETE FROM clinic_case WHERE kit_id = {OVERDUE}",
    "waiting_kit_has_a_limit": f"UPDATE kit SET hold_until = NULL WHERE id = {WAITING}",
    "sent_text_has_one_taker": f"UPDATE text SET state = 'accepted' WHERE kit_id = {CLEAR}",
    "failed_text_has_case": f"UPDATE text SET state = 'failed' WHERE kit_id = {CLEAR}",
    "text_not_overdue": f"UPDATE text SET not_before = '2026-11-01T12:00Z' WHERE kit_id = {CLEAR}",
    "nothing_waits_unread": "UPDATE lab_file SET state = 'reading', arrived_at = '2026-11-01T12:00Z' WHERE id = 1",
    "nothing_lies_unread": """
        INSERT INTO unread_object (ref, lab, object_key, why, lies_since)
        VALUES ('unread', 'NORTHLAB', 'northlab/incoming/a.hl7', 'misplaced', '2026-11-01T12:00Z')""",
    "reported_kit_is_told_or_owned": f"""
        UPDATE text SET state = 'cancelled', cancelled_because = 'lost' WHERE kit_id = {CLEAR}""",
    "lab_request_was_sent": f"""
        INSERT INTO lab_request (ref, service_id, kit_id, lab, state, wants_answer, batch, error_code, owed_at)
        SELECT 'request', service_id, id, lab, 'refused', true, '', 'AR', created_at FROM kit WHERE id = {SILENT}""",
    "lab_request_was_acknowledged": f"""
        INSERT INTO lab_request (ref, service_id, kit_id, lab, state, wants_answer, batch, error_code, owed_at, sent_at)
        SELECT 'request', service_id, id, lab, 'sent', true, '', '', created_at, created_at FROM kit
        WHERE id = {SILENT}""",
    "replaced_kit_has_a_successor": f"UPDATE kit SET replaces_kit_id = {CLEAR} WHERE id = {SILENT}",
    "stock_adds_up": """INSERT INTO stock_lot (ref, service_id, component, lot, expires_on, on_hand, created_at)
                        VALUES ('lot', 'larkfield', 'lancet', 'L1', '2027-09-01', 5, '2026-11-24T12:00Z')""",
    "kit_at_counter": f"""
        UPDATE contact SET collection_point = 'market' WHERE id = (SELECT contact_id FROM kit WHERE id = {SILENT})""",
    "overdue_case_was_escalated": f"UPDATE clinic_case SET due_at = '2026-10-30T12:00Z' WHERE kit_id = {POSITIVE}",
}


def test_every_check_is_provoked_once():
    assert set(ONE_ROW) == {name for name, _, _ in _CHECKS}


@pytest.mark.parametrize("check", ONE_ROW)
def test_one_row_altered_is_seen_by_its_check_and_by_no_other(world, db, check):
    spoil(db, ONE_ROW[check])

    differences = found(world)

    assert set(differences) == {check}
    assert differences[check].count == len(differences[check].ids) == 1


def test_the_run_fails_by_code_and_names_the_check(world, db):
    spoil(db, ONE_ROW["non_negative_has_item"])

    with pytest.raises(ServiceError, match="non_negative_has_item") as failed:
        check_even(strike(world, lambda: READ_AT))
    assert failed.value.code is Code.UNBALANCED


DELETED = {
    "a result": (
        f"DELETE FROM result_version WHERE kit_id = {CLEAR} AND test = 'hiv'",
        {"file_rows_accounted", "head_is_a_version"},
    ),
    "a positive result": (
        "DELETE FROM result_version WHERE outcome = 'positive'",
        {"file_rows_accounted", "head_is_a_version", "item_has_result"},
    ),
    "a result and its series": (
        f"""WITH gone AS (DELETE FROM result_series WHERE kit_id = {CLEAR} AND test = 'hiv'
                          RETURNING current_version_id)
            DELETE FROM result_version USING gone WHERE id = current_version_id""",
        {"file_rows_accounted", "decision_is_current"},
    ),
    "a text": (
        f"DELETE FROM text WHERE kit_id = {CLEAR}",
        {"owed_text_exists_once", "reported_kit_is_told_or_owned"},
    ),
    "the task of a positive": (
        f"DELETE FROM clinic_case WHERE kit_id = {POSITIVE}",
        {"non_negative_has_item", "item_has_result", "owed_case_exists"},
    ),
    "the task of a row in quarantine": (
        f"DELETE FROM clinic_case WHERE kit_id = {HELD}",
        {"quarantined_row_has_case", "owed_case_exists"},
    ),
    "a neutral text": (f"DELETE FROM text WHERE kit_id = {REACTIVE}", {"owed_text_exists_once"}),
}


@pytest.mark.parametrize("what", DELETED)
def test_one_result_one_text_and_one_task_gone_are_each_seen(world, db, what):
    query, checks = DELETED[what]
    spoil(db, query)

    assert set(found(world)) == checks


def test_a_text_that_a_provider_took_twice_is_seen(world, db):
    for number in (1, 2):
        spoil(
            db,
            f"""INSERT INTO text_attempt (ref, text_id, number, provider, state, provider_id, error_code, lookups,
                                          started_at, lease_until)
                SELECT 'a{number}', id, {number}, 'fake', 'accepted', 'SM{number}', '', 0, now(), now()
                FROM text WHERE kit_id = {CLEAR}""",
        )
    spoil(db, f"UPDATE text SET state = 'delivered' WHERE kit_id = {CLEAR}")
    assert set(found(world)) == {"sent_text_has_one_taker"}

    spoil(db, "UPDATE text_attempt SET status = 'failed' WHERE number = 1")
    assert set(found(world)) == set()  # the first one certainly never arrived


def test_ids_are_opaque_and_at_most_twenty(world, db):
    spoil(db, "UPDATE result_series SET outcome = 'equivocal' WHERE outcome = 'negative'")

    difference = found(world)["head_is_a_version"]
    assert len(difference.ids) == min(difference.count, 20)
    assert all(each.isdigit() for each in difference.ids)


def test_whoever_has_not_heard_by_the_end_of_the_working_day_is_named(world):
    def unheard(at):
        return [each for each in strike(world, lambda: at, services(world)).late if each.check == "same_day"]

    [(ref,)] = ask(world, "SELECT ref FROM text WHERE purpose = 'all_clear' AND state = 'owed'")

    assert unheard(READ_AT) == []
    [late] = unheard(READ_AT + timedelta(days=4))
    assert (late.count, late.ids) == (1, (ref,))
