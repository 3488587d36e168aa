"""The lab desk sees every file, every row that waits and every word that is late, and reads one row at a time."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from app.lab_messages import MllpDesk
from flows.ingest_results import ingest_waiting_files
from flows.reconcile import strike
from models.actions.lab_desk import Late, lab_desk, late_kits, list_for_lab, read_row, row_view, send_back
from models.actions.lab_message import keep_message
from models.rules.errors import Code, ServiceError
from models.rules.lab import Form
from models.rules.staff import Actor, Role
from models.rules.vocabulary import Quarantine
from models.tables.lab_message import WayIn
from tests.support import build
from tests.support.ingesting import READ_AT, ask, ingest, services, take
from tests.support.lab_files import FHIR, fhir, hl7
from tests.support.many_kits import send_kits
from tests.support.memory_store import MemoryStore

LARKFIELD = frozenset({"larkfield"})
LIAISON = Actor("lab-1", frozenset({Role.LAB_LIAISON}), LARKFIELD)
CLINICIAN = Actor("doctor-1", frozenset({Role.CLINICIAN}), LARKFIELD)
DAY = timedelta(days=1)


@pytest.fixture
def kits(begin):
    with begin() as session:
        return send_kits(session, 4)


def look(begin, by=LIAISON, now=READ_AT, **which):
    held = services(begin)
    with begin() as session:
        return lab_desk(session, by=by, services=held, now=now, **which)


def late(begin, now):
    held = services(begin)
    with begin() as session:
        return [(each.what, each.kit_code, each.accessions) for each in late_kits(session, held, now=now)]


def view(begin, ref, by=LIAISON):
    held = services(begin)
    with begin() as session:
        return row_view(session, ref, by=by, now=READ_AT, services=held)


# ── Late ─────────────────────────────────────────────────────────────────────────────────────


def test_a_kit_at_the_laboratory_without_all_its_results_is_late_after_the_contracts_days(begin, kits):
    rows = kits[0].rows()
    rows[2] = rows[2]._replace(status="P")
    take(begin, hl7(rows))
    take(begin, hl7(kits[1].rows()))
    received = ask(begin, "SELECT received_at FROM kit WHERE id = :id", id=kits[0].id)[0][0]

    assert late(begin, received + 5 * DAY) == []
    (found,) = late(begin, received + 5 * DAY + timedelta(seconds=1))
    assert found == (Late.NO_RESULT, kits[0].code, (kits[0].rows()[0].accession,))


def test_a_kit_posted_back_of_which_the_laboratory_says_nothing_is_late(begin, db, kits):
    with db.owner_engine.begin() as owner:
        owner.execute(
            text("UPDATE kit SET state = 'coming_back', posted_back_at = :at WHERE id = :id"),
            {"at": READ_AT, "id": kits[2].id},
        )

    assert late(begin, READ_AT + 5 * DAY) == []
    assert late(begin, READ_AT + 6 * DAY) == [(Late.NOT_BOOKED_IN, kits[2].code, ())]


def request_stands(begin, kit, state, *, wants=False):
    """What became of the request for one kit's tests."""
    sent, answered = (READ_AT if state != "owed" else None), (READ_AT if state == "acknowledged" else None)
    with begin() as session:
        session.connection().execute(
            text(
                "INSERT INTO lab_request (ref, service_id, kit_id, lab, state, wants_answer, batch, error_code, "
                "owed_at, sent_at, acknowledged_at) VALUES (:ref, 'larkfield', :kit, 'NORTHLAB', :state, :wants, "
                "'', '', :at, :sent, :answered)"
            ),
            {
                "ref": f"{kit.id:032d}", "kit": kit.id, "state": state, "wants": wants, "at": READ_AT,
                "sent": sent, "answered": answered,
            },
        )  # fmt: skip


def test_a_request_that_its_laboratory_never_acknowledged_is_late(begin, kits):
    for kit, state, wants in ((kits[0], "sent", True), (kits[1], "sent", False), (kits[2], "acknowledged", True)):
        request_stands(begin, kit, state, wants=wants)

    assert late(begin, READ_AT + DAY) == []
    assert late(begin, READ_AT + 2 * DAY) == [(Late.NOT_ACKNOWLEDGED, kits[0].code, ())]


def test_a_request_that_has_not_left_is_late_whether_the_laboratory_answers_or_not(begin, kits):
    request_stands(begin, kits[0], "owed")

    assert late(begin, READ_AT + DAY) == []
    assert late(begin, READ_AT + 2 * DAY) == [(Late.NOT_ACKNOWLEDGED, kits[0].code, ())]


@pytest.mark.parametrize("wants", [False, True])
@pytest.mark.parametrize(("state", "what"), [("refused", Late.REQUEST_REFUSED), ("unsure", Late.REQUEST_IN_DOUBT)])
def test_a_request_that_was_refused_or_is_in_doubt_stands_on_the_desk_at_once(begin, kits, state, what, wants):
    request_stands(begin, kits[0], state, wants=wants)

    assert late(begin, READ_AT) == [(what, kits[0].code, ())]
    assert [(each.check, each.ids) for each in strike(begin, lambda: READ_AT, services(begin)).late] == [
        (what, (kits[0].code,))
    ]


def test_each_contract_has_its_own_days(begin, kits):
    rows = kits[0].rows()
    take(begin, hl7([rows[0]]))
    held = services(begin)
    service = held["larkfield"].service
    patient = tuple(replace(contract, results_within_days=30) for contract in service.labs)
    with begin() as session:
        found = late_kits(
            session,
            {"larkfield": replace(held["larkfield"], service=replace(service, labs=patient))},
            now=READ_AT + 20 * DAY,
        )

    assert found == []


def test_reconciliation_names_what_is_late_and_does_not_call_it_out_of_balance(begin, kits, caplog):
    take(begin, hl7(kits[0].rows()[:1]))
    balance = strike(begin, lambda: READ_AT + 6 * DAY, services(begin))

    assert [(each.check, each.ids) for each in balance.late] == [("no_result", (kits[0].code,))]
    assert f"late: no_result (1): {kits[0].code}" in caplog.text
    # No sender runs here, so the text about receipt is overdue by then. Nothing else is out of balance.
    assert {each.check for each in balance.differences} == {"text_not_overdue"}


# ── The desk ─────────────────────────────────────────────────────────────────────────────────


def test_each_laboratory_and_day_is_counted_with_the_time_from_authorised_to_received(begin, kits):
    take(begin, hl7(kits[0].rows()))
    take(begin, hl7([*kits[1].rows(value="Quatsch")[:1], *kits[1].rows()[1:]]))
    take(begin, hl7(kits[0].rows()))

    (day,) = look(begin).days
    assert (day.lab, day.day, day.files, day.held, day.taken, day.quarantined) == (
        "NORTHLAB",
        READ_AT.date(),
        3,
        0,
        7,
        1,
    )
    authorised = ask(begin, "SELECT authorised_at FROM result_version LIMIT 1")[0][0]
    assert day.hours_median == pytest.approx((READ_AT - authorised).total_seconds() / 3600)
    assert day.hours_p95 >= day.hours_median


def test_rows_that_wait_are_grouped_by_reason_and_listed_by_due_time(begin, kits):
    take(begin, hl7([row for kit in kits[:3] for row in kit.rows(value="Quatsch")[:1]]))
    take(begin, hl7(kits[3].rows(born="1950-01-01", family="")[:1]))

    desk = look(begin)
    assert {(group.reason, group.count) for group in desk.groups} == {
        (Quarantine.UNKNOWN_TOKEN, 3),
        (Quarantine.IDENTITY_MISMATCH, 1),
    }
    assert [row.due_at for row in desk.rows] == sorted(row.due_at for row in desk.rows)
    assert {row.reason for row in look(begin, reason=Quarantine.UNKNOWN_TOKEN).rows} == {Quarantine.UNKNOWN_TOKEN}


def test_a_held_file_stands_on_the_desk_until_its_case_ends(begin, kits):
    take(begin, hl7(kits[0].rows())[:-20])
    (held,) = look(begin).held
    assert (held.lab, held.because) == ("NORTHLAB", Quarantine.INCOMPLETE_FILE)

    with begin() as session:
        session.connection().exec_driver_sql(
            "UPDATE clinic_case SET closed_at = now(), closed_by = 'staff:lab-1', outcome = 'resolved_with_lab'"
        )
    assert look(begin).held == []


def test_somebody_of_another_service_or_role_sees_no_laboratory_and_no_row(begin, kits):
    take(begin, hl7(kits[0].rows(value="Quatsch")[:1]))
    ((ref,),) = ask(begin, "SELECT ref FROM quarantined_row")
    elsewhere = Actor("lab-2", frozenset({Role.LAB_LIAISON}), frozenset({"moorside"}))
    packer = Actor("packer-1", frozenset({Role.PACKER}), LARKFIELD)

    assert look(begin, by=elsewhere).rows == look(begin, by=elsewhere).days == []
    with pytest.raises(ServiceError) as refused:
        view(begin, ref, by=elsewhere)
    assert refused.value.code is Code.NOT_FOUND
    for ask_for in (look, lambda begin, by: view(begin, ref, by=by)):
        with pytest.raises(ServiceError) as refused:
            ask_for(begin, by=packer)
        assert refused.value.code is Code.NOT_ALLOWED


# ── One row ──────────────────────────────────────────────────────────────────────────────────


def test_reading_a_row_is_recorded_and_who_cares_for_nobody_learns_no_name(begin, kits):
    take(begin, hl7(kits[0].rows(test="XYZ", value="Not detected")[:1]))
    ((ref,),) = ask(begin, "SELECT ref FROM quarantined_row")
    seen = view(begin, ref)
    assert seen.may_read

    with begin() as session:
        raw = read_row(session, seen, by=LIAISON, now=READ_AT, cipher=build.cipher())
    fields = dict(raw.fields)

    assert fields["value_raw"] == "Not detected"
    assert fields["family_name"] == fields["dob"] == "given, and not shown to you"
    assert ask(begin, "SELECT actor FROM audit WHERE action = 'lab_row.read'") == [("staff:lab-1",)]


def test_of_a_row_of_no_kit_nobody_is_told_whose_it_is_where_councils_share_a_laboratory(begin, kits):
    take(begin, hl7(kits[0].rows(kit="7K3-F9X-N2PA", tube="7K3-F9X-N2PA-1")[:1]))
    ((ref,),) = ask(begin, "SELECT ref FROM quarantined_row")
    held = services(begin)
    quayton = replace(held["larkfield"], service=replace(held["larkfield"].service, id="quayton"))
    doctor = Actor("doctor-9", frozenset({Role.CLINICIAN}), frozenset({"quayton"}))

    with begin() as session:
        alone = row_view(session, ref, by=CLINICIAN, now=READ_AT, services=held)
        shared = row_view(session, ref, by=doctor, now=READ_AT, services={**held, "quayton": quayton})

    assert (alone.may_see_person, shared.may_see_person) == (True, False)


def test_a_row_that_may_be_bad_news_is_for_those_who_read_results(begin, kits):
    take(begin, hl7(kits[0].rows(value="Quatsch")[:1]))
    ((ref,),) = ask(begin, "SELECT ref FROM quarantined_row")

    with begin() as session, pytest.raises(ServiceError) as refused:
        read_row(session, view(begin, ref), by=LIAISON, now=READ_AT, cipher=build.cipher())
    assert refused.value.code is Code.NOT_ALLOWED
    with begin() as session:
        raw = read_row(session, view(begin, ref, by=CLINICIAN), by=CLINICIAN, now=READ_AT, cipher=build.cipher())
    assert kits[0].family in str(raw.fields)


def test_the_list_for_a_laboratory_names_its_own_numbers_and_nobody(begin, kits):
    take(begin, hl7(kits[0].rows(value="Quatsch")[:2]))
    refs = [ref for (ref,) in ask(begin, "SELECT ref FROM quarantined_row ORDER BY id")]
    held = services(begin)
    for _ in range(2):
        with begin() as session:
            send_back(
                session, row_view(session, refs[0], by=LIAISON, now=READ_AT, services=held), by=LIAISON, now=READ_AT
            )
    with begin() as session:
        (row,) = list_for_lab(session, "NORTHLAB", by=LIAISON, services=held, now=READ_AT)

    assert row.file.endswith(".hl7")
    assert (row.accession, row.reason, row.sent_back_on) == (
        kits[0].rows()[0].accession,
        "unknown_token",
        "2026-11-05",
    )
    assert row.line.isdigit()
    assert row.message_id == ask(begin, "SELECT DISTINCT message_id FROM quarantined_row")[0][0]
    assert row.correlation_id == ""
    assert kits[0].family not in row.what_to_mend
    assert ask(begin, "SELECT action, count(*) FROM audit WHERE action LIKE 'lab_row%' GROUP BY 1 ORDER BY 1") == [
        ("lab_row.sent_back", 1),
        ("lab_rows.listed", 1),
    ]


def sent_back_list(begin):
    """Every row that waits is sent back: the list."""
    held = services(begin)
    refs = [ref for (ref,) in ask(begin, "SELECT ref FROM quarantined_row ORDER BY id")]
    with begin() as session:
        for ref in refs:
            seen = row_view(session, ref, by=LIAISON, now=READ_AT, services=held)
            send_back(session, seen, by=LIAISON, now=READ_AT)
        return list_for_lab(session, "NORTHLAB", by=LIAISON, services=held, now=READ_AT)


def test_what_came_as_an_hl7_message_is_named_by_its_control_id_and_not_by_our_file(begin, kits):
    ready = ingest(begin, MemoryStore())
    for control_id, kit in zip(("NL77", "NL78"), kits, strict=False):
        content = hl7([kit.rows(value="Perhaps", message_id=control_id)[0]._replace(accession="")])
        MllpDesk(ready).take("NORTHLAB", content[content.index(b"MSH") : content.index(b"BTS")])
    ingest_waiting_files(ready, limit=5)

    rows = sent_back_list(begin)

    assert [(row.message_id, row.file, row.line, row.accession) for row in rows] == [
        ("NL77", "", "", ""),
        ("NL78", "", "", ""),
    ]


def test_what_came_as_a_document_is_named_by_its_correlation_id_and_its_own_identifier(begin, kits):
    ready = ingest(begin, MemoryStore())
    content = fhir(kits[0].rows(FHIR, value="Perhaps")[:1])
    with begin() as session:
        keep_message(
            session,
            content,
            way=WayIn.HTTP,
            lab="NORTHLAB",
            service_id="larkfield",
            key="c-17",
            form=Form.FHIR,
            now=READ_AT,
            cipher=build.cipher(),
            indexes=build.indexes(),
        )
    ingest_waiting_files(ready, limit=5)

    (row,) = sent_back_list(begin)

    bundle = json.loads(content)
    assert (row.correlation_id, row.message_id, row.file) == ("c-17", bundle["identifier"]["value"], "")
    assert bundle["entry"][int(row.line) - 1]["resource"]["resourceType"] == "Observation"
