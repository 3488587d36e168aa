"""Taking orders on a real PostgreSQL (FEATURES 1-14; H1 H12 H13). Every person here is invented."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from app.database import Begin
from integrations.orders import EXAMPLE, parse_order
from models.actions.casebook import case_view
from models.actions.kit import move_kit
from models.actions.order import (
    Intake,
    KeptAside,
    Taken,
    cancel_order,
    decisions_of,
    find_order,
    keep_unreadable,
    settle_order,
    submit_order,
    take_order,
    waiting_orders,
)
from models.rules.clinic import CaseKind, Urgency
from models.rules.errors import Code, ServiceError
from models.rules.kit import KitState
from models.rules.order import OrderOutcome
from models.rules.secrets import KIT_FAMILY, kit_family
from models.rules.service import OrderPolicy, ServiceInForce
from models.rules.staff import Actor, Role
from models.rules.text import TextPurpose
from models.rules.vocabulary import Site, Test
from models.tables.clinic import ClinicCase
from models.tables.inbox import Inbox, InboxState
from models.tables.kit import Kit, KitIdentity, KitTest
from models.tables.order import Order as OrderRow
from models.tables.order import OrderDecision
from models.tables.person import Contact, MobileHolder, Person, SafeguardingNote
from models.tables.text import Text, TextState
from tests.support import build
from tests.support.intake import larkfield_intake

NOW = build.NOW
BY = "flow:take_orders"
YOUNG = {
    "date_of_birth": "2009-11-24",
    "safeguarding_pressured": False,
    "safeguarding_paid": False,
    "safeguarding_drink_or_drugs": False,
    "safeguarding_low_mood": False,
    "safeguarding_partner_age_gap": False,
}
"""Seventeen today, and nothing to worry about."""
SOMEONE_ELSE = {
    "given_name": "Tester",
    "family_name": "Sample",
    "date_of_birth": "1980-01-01",
    "residence_line_1": "77 Nowhere Street",
}


@pytest.fixture
def intake(begin: Begin) -> Intake:
    return larkfield_intake(begin)


Place = Callable[..., Taken]


@pytest.fixture
def place(begin: Begin, intake: Intake) -> Place:
    """Submits and takes one order, as the API does: two transactions."""
    count = iter(range(1, 1000))

    def place_one(*, now: datetime = NOW, **answers: Any) -> Taken:
        values = {"channel_ref": f"web-{next(count)}", "mobile_proved_at": now.isoformat()} | answers
        taken = take(begin, intake, submit(begin, intake, now=now, **values), now=now)
        assert isinstance(taken, Taken)
        return taken

    return place_one


def content(**answers: Any) -> bytes:
    return parse_order(as_json({**EXAMPLE, "mobile_proved_at": NOW.isoformat(), **answers})).canonical()


def as_json(values: dict[str, Any]) -> bytes:
    return json.dumps(values).encode()


def submit(begin: Begin, intake: Intake, *, now: datetime = NOW, **answers: Any) -> int:
    with begin() as session:
        return submit_order(
            session,
            service_id="larkfield",
            channel="web",
            channel_ref=answers.get("channel_ref", EXAMPLE["channel_ref"]),
            content=content(**answers),
            now=now,
            intake=intake,
        )


def take(begin: Begin, intake: Intake, inbox_id: int, *, now: datetime = NOW) -> Taken | KeptAside | None:
    with begin() as session:
        return take_order(session, inbox_id, now=now, actor=BY, intake=intake)


def count(begin: Begin, table: type) -> int:
    with begin() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def open_cases(session: Session) -> list[ClinicCase]:
    return list(session.exec(select(ClinicCase).where(col(ClinicCase.closed_at).is_(None))))


# ── One order ────────────────────────────────────────────────────────────────────────────────


def test_an_accepted_order_owes_a_kit_a_text_and_nothing_else(begin: Begin, place: Place) -> None:
    taken = place()

    with begin() as session:
        kit = session.exec(select(Kit)).one()
        text = session.exec(select(Text)).one()
        tests = {(row.test, row.site) for row in session.exec(select(KitTest))}

        assert taken.outcome is OrderOutcome.ACCEPTED
        assert kit.state is KitState.TO_PACK
        assert tests == {
            (Test.CHLAMYDIA, Site.VAGINAL),
            (Test.GONORRHOEA, Site.VAGINAL),
            (Test.HIV, Site.BLOOD),
            (Test.SYPHILIS, Site.BLOOD),
        }
        assert (text.purpose, text.state, text.kit_id) == (TextPurpose.ORDER_RECEIVED, TextState.OWED, kit.id)
        assert open_cases(session) == []


def test_a_lab_row_will_find_the_kit_by_the_family_name_as_folded(begin: Begin, intake: Intake, place: Place) -> None:
    place(family_name="O'Dunmere")

    with begin() as session:
        kit = session.exec(select(Kit)).one()
        identity = session.exec(select(KitIdentity)).one()

    assert identity.family_name in intake.indexes.live(KIT_FAMILY, "larkfield", kit_family(kit.code, "odunmere"))


def test_the_decision_names_its_rule_its_service_version_and_its_actor(begin: Begin, place: Place) -> None:
    place()

    with begin() as session:
        decision = session.exec(select(OrderDecision)).one()
        order = session.exec(select(OrderRow)).one()

    assert (decision.rule_version, decision.actor, decision.decided_at) == ("order-2", BY, NOW)
    assert order.current_decision_id == decision.id
    assert order.authority == "E08000035"


def test_nobody_is_told_by_text_who_did_not_agree_to_texts(begin: Begin, place: Place) -> None:
    place(text_consent=False)

    assert count(begin, Kit) == 1
    assert count(begin, Text) == 0


def test_how_a_person_may_be_reached_is_kept_as_they_said(begin: Begin, place: Place) -> None:
    place(
        text_consent=True,
        voicemail_consent=False,
        letter_consent=True,
        safe_times=["evening"],
        wording="named",
        large_print=True,
    )

    with begin() as session:
        contact = session.exec(select(Contact)).one()

    assert (contact.text_consent, contact.voicemail_consent, contact.letter_consent) == (True, False, True)
    assert (contact.safe_times, contact.wording, contact.language, contact.large_print) == (
        "evening",
        "named",
        "en",
        True,
    )


def test_the_kit_goes_to_the_delivery_address_and_residence_decides_the_area(
    begin: Begin, intake: Intake, place: Place
) -> None:
    taken = place(delivery_line_1="9 Collect Lane", delivery_postcode="SW1A 1AA")

    with begin() as session:
        contact = session.exec(select(Contact)).one()
        sealed = intake.cipher.decrypt("contact", "delivery_address", contact.ref, contact.delivery_address)

    assert taken.outcome is OrderOutcome.ACCEPTED
    assert sealed == "9 Collect Lane\nSW1A 1AA"


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"residence_postcode": "SW1A 1AA"}, "out_of_area"),
        ({"symptoms": True}, "symptoms"),
        ({"date_of_birth": "2011-11-24"}, "under_16"),
    ],
)
def test_a_refusal_makes_no_kit_no_text_and_no_case(
    begin: Begin, place: Place, answers: dict[str, object], reason: str
) -> None:
    taken = place(**answers)

    assert (taken.outcome, taken.reasons) == (OrderOutcome.REFUSED, (reason,))
    assert [count(begin, table) for table in (Kit, Text, ClinicCase)] == [0, 0, 0]


def test_a_child_under_13_opens_an_urgent_safeguarding_case_and_nothing_else(begin: Begin, place: Place) -> None:
    taken = place(date_of_birth="2013-11-25")

    with begin() as session:
        [case] = open_cases(session)

    assert (taken.outcome, taken.reasons) == (OrderOutcome.REFUSED, ("under_13",))
    assert (case.kind, case.urgency, case.owner_role) == (CaseKind.SAFEGUARDING, Urgency.URGENT, "safeguarding_lead")
    assert [count(begin, table) for table in (Kit, Text)] == [0, 0]


def test_a_pep_refusal_opens_a_case_that_is_urgent_though_order_reviews_are_not(begin: Begin, place: Place) -> None:
    place(last_risk_on="2026-11-24")

    with begin() as session:
        [case] = open_cases(session)

    assert (case.kind, case.urgency) == (CaseKind.ORDER_REVIEW, Urgency.URGENT)
    assert case.detail == {"reasons": ["pep_window"]}


def test_an_unknown_postcode_is_held_with_a_case(begin: Begin, place: Place) -> None:
    taken = place(residence_postcode="LS1 9AA")

    with begin() as session:
        [case] = open_cases(session)

    assert (taken.outcome, taken.reasons) == (OrderOutcome.HELD, ("area_unknown",))
    assert case.kind is CaseKind.ORDER_REVIEW


def test_safeguarding_answers_stand_apart_and_encrypted(begin: Begin, intake: Intake, place: Place) -> None:
    place(**YOUNG | {"safeguarding_paid": True})

    with begin() as session:
        note = session.exec(select(SafeguardingNote)).one()
        answers = session.exec(select(OrderRow)).one().answers

    assert note.flags == 1
    assert "Paid for sex: yes" in intake.cipher.decrypt("safeguarding_note", "note", note.ref, note.note)
    assert not any("safeguarding" in key or "assault" in key or "paid" in key for key in answers)


def test_without_a_flag_there_is_no_note(begin: Begin, place: Place) -> None:
    place(**YOUNG)

    assert count(begin, SafeguardingNote) == 0


def test_nothing_that_says_who_somebody_is_stands_readable_in_any_table(
    begin: Begin, engine: Engine, place: Place, intake: Intake
) -> None:
    place(
        given_name="Zebedeeah",
        family_name="Quillfeather",
        email="zq@quillfeather.example",
        residence_line_1="4 Plantedname Row",
        delivery_line_1="5 Otherplace Way",
        delivery_postcode="SW1A 1AA",
        **YOUNG | {"safeguarding_low_mood": True},
    )
    with begin() as session:
        keep_unreadable(
            session, service_id="larkfield", channel="web", raw=b"Zebedeeah,?", why="mobile: x", now=NOW, intake=intake
        )

    with engine.connect() as connection:
        dump = []
        for table in sa.inspect(engine).get_table_names():
            dump += [
                bytes(value).decode("latin-1") if isinstance(value, bytes | memoryview) else str(value)
                for row in connection.execute(sa.text(f'SELECT * FROM "{table}"'))
                for value in row
            ]

    planted = ["Zebedeeah", "Quillfeather", "quillfeather", "zebedeeah", "7700900123", "Plantedname", "Otherplace",
               "2009-11-24", "LS1 4AP", "SW1A", "low mood"]  # fmt: skip
    assert len(dump) > 100
    assert [word for word in planted if any(word in value for value in dump)] == []


# ── Twice, late, at once ─────────────────────────────────────────────────────────────────────


def test_the_same_order_twice_makes_one_kit_and_one_text(begin: Begin, intake: Intake) -> None:
    first = take(begin, intake, submit(begin, intake))
    again = take(begin, intake, submit(begin, intake, now=NOW + timedelta(hours=1)), now=NOW + timedelta(hours=1))

    assert first == again
    assert [count(begin, table) for table in (Inbox, OrderRow, Kit, Text)] == [1, 1, 1, 1]


def test_the_same_reference_with_another_answer_is_a_conflict_and_changes_nothing(begin: Begin, intake: Intake) -> None:
    submit(begin, intake)

    with pytest.raises(ServiceError) as caught:
        submit(begin, intake, known_hiv=True)

    assert caught.value.code is Code.CONFLICT
    assert count(begin, Inbox) == 1


def test_two_processes_with_one_order_make_one_kit(begin: Begin, intake: Intake) -> None:
    inbox_id = submit(begin, intake)
    together = threading.Barrier(2)
    answers: list[object] = []

    def run() -> None:
        together.wait()
        answers.append(take(begin, intake, inbox_id))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers[0] == answers[1]
    assert isinstance(answers[0], Taken)
    assert count(begin, Kit) == 1


def test_two_people_with_one_new_mobile_at_the_same_moment_get_one_kit(begin: Begin, intake: Intake) -> None:
    ids = [submit(begin, intake, channel_ref="a"), submit(begin, intake, channel_ref="b", **SOMEONE_ELSE)]
    together = threading.Barrier(2)
    answers: list[Taken | KeptAside | None] = []

    def run(inbox_id: int) -> None:
        together.wait()
        answers.append(take(begin, intake, inbox_id))

    threads = [threading.Thread(target=run, args=(inbox_id,)) for inbox_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answer.outcome for answer in answers if isinstance(answer, Taken)) == ["accepted", "refused"]
    assert count(begin, Kit) == 1


def test_an_order_in_another_process_hands_is_passed_over(begin: Begin, intake: Intake) -> None:
    inbox_id = submit(begin, intake)

    with begin() as holder:
        holder.exec(select(Inbox).where(Inbox.id == inbox_id).with_for_update()).one()
        with begin() as session:
            assert take_order(session, inbox_id, now=NOW, actor=BY, intake=intake, wait=False) is None


def test_only_orders_that_nobody_took_are_waiting(begin: Begin, intake: Intake) -> None:
    first, second = submit(begin, intake, channel_ref="a"), submit(begin, intake, channel_ref="b", **SOMEONE_ELSE)
    take(begin, intake, first)

    with begin() as session:
        assert list(waiting_orders(session, limit=10)) == [second]


def test_an_order_that_can_not_be_read_after_all_is_kept_with_its_reason(begin: Begin, intake: Intake) -> None:
    inbox_id = submit(begin, intake, mobile="0113 496 0000")

    kept = take(begin, intake, inbox_id)

    assert isinstance(kept, KeptAside)
    assert kept.why.startswith("mobile: This is a landline")
    with begin() as session:
        assert session.get_one(Inbox, inbox_id).state is InboxState.FAILED
    assert take(begin, intake, inbox_id) == kept


def test_a_bad_row_is_kept_once_and_leaves_its_reference_free(begin: Begin, intake: Intake) -> None:
    kept = []
    for _ in range(2):
        with begin() as session:
            kept.append(
                keep_unreadable(
                    session, service_id="larkfield", channel="web", raw=b"web-000123,?", why="x", now=NOW, intake=intake
                )
            )
    taken = take(begin, intake, submit(begin, intake))

    assert kept == [True, False]
    assert isinstance(taken, Taken)


# ── One mobile, one person (FEATURES 6) ──────────────────────────────────────────────────────


def test_a_second_person_on_a_live_mobile_is_refused(place: Place) -> None:
    place()

    assert place(**SOMEONE_ELSE).reasons == ("mobile_of_another",)


def test_a_twin_on_the_same_mobile_is_another_person(place: Place) -> None:
    place()

    assert place(given_name="Testora").reasons == ("mobile_of_another",)


def test_once_the_kit_has_ended_the_mobile_may_be_another_persons(begin: Begin, place: Place) -> None:
    first = place()
    with begin() as session:
        cancel_order(session, first.order_ref, now=NOW, actor=BY)

    assert place(**SOMEONE_ELSE).outcome is OrderOutcome.ACCEPTED
    with begin() as session:
        holder = session.exec(select(MobileHolder)).one()
        newest = session.exec(select(Kit).order_by(col(Kit.id).desc())).first()
        assert newest is not None
        assert holder.person_id == newest.person_id


def test_a_returning_person_is_known_again_by_name_birth_and_address_on_a_new_mobile(
    begin: Begin, place: Place
) -> None:
    place()
    place(mobile="07700 900456")

    assert count(begin, Person) == 1
    assert count(begin, MobileHolder) == 2


def test_the_same_name_and_birth_date_alone_are_not_the_same_person(begin: Begin, place: Place) -> None:
    place()
    place(mobile="07700 900456", residence_line_1="77 Nowhere Street")

    assert count(begin, Person) == 2


def test_a_frozen_mobile_needs_a_newer_proof(begin: Begin, place: Place) -> None:
    place()
    with begin() as session:
        session.exec(select(MobileHolder)).one().frozen_at = NOW + timedelta(hours=1)
    later = NOW + timedelta(hours=2)

    assert place(now=later, mobile_proved_at=NOW.isoformat()).reasons == ("mobile_not_proved",)
    assert place(now=later).outcome is OrderOutcome.ACCEPTED
    with begin() as session:
        assert session.exec(select(MobileHolder)).one().frozen_at is None


# ── Frequency, flags, re-entry (FEATURES 8, 10, 11; H12) ─────────────────────────────────────


def test_the_third_kit_in_six_months_is_held_on_whatever_mobile(place: Place) -> None:
    place()
    place()

    assert place(mobile="07700 900789").reasons == ("too_often",)


def test_a_kit_that_was_cancelled_before_dispatch_does_not_count(begin: Begin, place: Place) -> None:
    for _ in range(2):
        with begin() as session:
            cancel_order(session, place().order_ref, now=NOW, actor=BY)

    assert place().outcome is OrderOutcome.ACCEPTED


@pytest.mark.parametrize(
    "shared",
    [
        {"mobile": "07700 900124", "residence_line_1": "5 Moved Away", "email": "t@kit.example"},
        {"mobile": "07700 900123", "residence_line_1": "5 Moved Away"},
        {"mobile": "07700 900124", "residence_line_1": "1, INVENTED ROW"},
    ],
    ids=["email", "mobile", "address"],
)
def test_coming_back_as_an_adult_from_the_same_place_makes_no_kit_and_one_urgent_case(
    begin: Begin, place: Place, shared: dict[str, str]
) -> None:
    place(date_of_birth="2011-11-25", email="T@Kit.example")

    taken = place(date_of_birth="2008-11-24", given_name="Tess", **shared)

    with begin() as session:
        [case] = open_cases(session)
    assert (taken.outcome, taken.reasons) == (OrderOutcome.HELD, ("re_entry",))
    assert (case.kind, case.urgency) == (CaseKind.SAFEGUARDING, Urgency.URGENT)
    assert count(begin, Kit) == 0


def test_a_flag_survives_edits_of_answers_and_of_the_date_of_birth(begin: Begin, place: Place) -> None:
    place(**YOUNG | {"safeguarding_pressured": True})

    assert "earlier_flag" in place(**YOUNG).reasons
    assert {"earlier_flag", "re_entry"} <= set(place(date_of_birth="1999-01-01").reasons)
    assert count(begin, Kit) == 0


def test_a_pep_answer_changed_minutes_later_is_held(place: Place) -> None:
    place(last_risk_on="2026-11-24")

    assert place(last_risk_on="2026-11-01").reasons == ("answers_changed",)


def test_a_neighbour_at_the_same_address_is_not_held_for_someone_elses_symptoms(place: Place) -> None:
    place(symptoms=True)
    neighbour = SOMEONE_ELSE | {"residence_line_1": "1 Invented Row", "mobile": "07700 900456"}

    assert place(**neighbour).outcome is OrderOutcome.ACCEPTED


def test_a_twin_at_the_same_address_is_not_held_for_the_others_symptoms(place: Place) -> None:
    place(symptoms=True)

    assert place(given_name="Testora", mobile="07700 900456").outcome is OrderOutcome.ACCEPTED


# ── A person's word ──────────────────────────────────────────────────────────────────────────


def settle(
    begin: Begin, intake: Intake, ref: str, *, accept: bool, because: str = "spoke", now: datetime = NOW
) -> Taken:
    with begin() as session:
        return settle_order(session, ref, accept=accept, because=because, now=now, actor="staff:nurse", intake=intake)


def test_a_held_order_that_a_person_accepts_gets_its_kit_and_keeps_both_decisions(
    begin: Begin, intake: Intake, place: Place
) -> None:
    held = place(residence_postcode="LS1 9AA", exposures=["receptive_anal"])

    settled = settle(begin, intake, held.order_ref, accept=True, because="New build, council confirmed")

    with begin() as session:
        sites = {row.site for row in session.exec(select(KitTest))}
    assert settled.outcome is OrderOutcome.ACCEPTED
    assert sites == {Site.VAGINAL, Site.RECTAL, Site.BLOOD}
    assert count(begin, OrderDecision) == 2


def test_a_held_order_that_a_person_refuses_gets_no_kit(begin: Begin, intake: Intake, place: Place) -> None:
    held = place(residence_postcode="LS1 9AA")

    assert settle(begin, intake, held.order_ref, accept=False).outcome is OrderOutcome.REFUSED
    assert count(begin, Kit) == 0


def test_only_a_held_order_can_be_settled_and_only_once(begin: Begin, intake: Intake, place: Place) -> None:
    refused, held = place(date_of_birth="2011-11-24"), place(residence_postcode="LS1 9AA", **SOMEONE_ELSE)
    settle(begin, intake, held.order_ref, accept=True)

    for ref in (refused.order_ref, held.order_ref):
        with pytest.raises(ServiceError, match="not held"):
            settle(begin, intake, ref, accept=True)


def test_staff_override_a_refusal_for_the_area_with_a_reason_and_no_other_refusal(
    begin: Begin, intake: Intake, place: Place
) -> None:
    elsewhere = place(residence_postcode="SW1A 1AA")
    young = place(**{**SOMEONE_ELSE, "residence_postcode": "SW1A 1AA", "date_of_birth": "2011-11-24"})
    assert {elsewhere.outcome, young.outcome} == {OrderOutcome.REFUSED}

    settled = settle(begin, intake, elsewhere.order_ref, accept=True, because="Council confirmed: moved last week")

    assert settled.outcome is OrderOutcome.ACCEPTED
    with begin() as session:
        decisions = [(each.outcome, each.because) for each in decisions_of(session, elsewhere.order_ref)]
    assert decisions == [
        (OrderOutcome.REFUSED, ""),
        (OrderOutcome.ACCEPTED, "Council confirmed: moved last week"),
    ]
    for ref, accept in ((young.order_ref, True), (elsewhere.order_ref, True), (elsewhere.order_ref, False)):
        with pytest.raises(ServiceError, match="nothing to settle"):
            settle(begin, intake, ref, accept=accept)


def test_why_an_order_stopped_tells_no_answer_of_a_safeguarding_note_to_who_may_not_read_one(
    begin: Begin, intake: Intake, place: Place
) -> None:
    place(sexual_assault=True)

    def reasons(role: Role) -> list[str]:
        by = Actor("anna", frozenset({role}), frozenset({"larkfield"}))
        with begin() as session:
            ref = session.exec(select(ClinicCase.ref)).one()
            return list(case_view(session, ref, by=by, now=NOW, cipher=build.cipher()).order_reasons)

    assert reasons(Role.HEALTH_ADVISER) == ["safeguarding"]
    assert reasons(Role.CLINICIAN) == ["sexual_assault"]


def test_nobody_settles_without_a_reason(begin: Begin, intake: Intake, place: Place) -> None:
    held = place(residence_postcode="LS1 9AA")

    with pytest.raises(ServiceError, match="Say why"):
        settle(begin, intake, held.order_ref, accept=True, because=" ")


def test_a_mobile_that_went_to_another_in_the_meantime_stops_the_kit(
    begin: Begin, intake: Intake, place: Place
) -> None:
    held = place(residence_postcode="LS1 9AA")
    place(**SOMEONE_ELSE)

    with pytest.raises(ServiceError, match="Another person's kit"):
        settle(begin, intake, held.order_ref, accept=True)
    assert count(begin, OrderDecision) == 2


def test_whom_a_clinician_let_through_is_not_stopped_for_the_same_thing_again(
    begin: Begin, intake: Intake, place: Place
) -> None:
    place(date_of_birth="2011-11-25")
    adult = {"date_of_birth": "2000-01-01"}
    held = place(**adult)
    settle(begin, intake, held.order_ref, accept=True, because="Passport seen: a typing error the first time")
    with begin() as session:
        for case in open_cases(session):
            case.closed_at, case.closed_by, case.outcome = NOW, "staff:nurse", "told_no_action"

    assert place(now=NOW + timedelta(days=1), **adult).outcome is OrderOutcome.ACCEPTED


# ── Cancelling (FEATURES 14) ─────────────────────────────────────────────────────────────────


def test_cancelling_before_dispatch_stops_kit_and_text(begin: Begin, place: Place) -> None:
    taken = place()

    with begin() as session:
        answer = cancel_order(session, taken.order_ref, now=NOW, actor=BY)

    with begin() as session:
        assert answer.cancelled
        assert session.exec(select(Kit)).one().state is KitState.CANCELLED
        assert session.exec(select(Text)).one().state is TextState.CANCELLED


def test_cancelling_twice_changes_nothing(begin: Begin, place: Place) -> None:
    taken = place()
    answers = []
    for hours in (0, 1):
        with begin() as session:
            answers.append(cancel_order(session, taken.order_ref, now=NOW + timedelta(hours=hours), actor=BY))

    with begin() as session:
        assert answers[0] == answers[1]
        assert session.exec(select(OrderRow)).one().cancelled_at == NOW


def test_cancelling_a_held_order_leaves_its_case_and_can_not_be_settled_after(
    begin: Begin, intake: Intake, place: Place
) -> None:
    held = place(residence_postcode="LS1 9AA")
    with begin() as session:
        cancel_order(session, held.order_ref, now=NOW, actor=BY)

    with begin() as session:
        assert len(open_cases(session)) == 1
    with pytest.raises(ServiceError, match="not held"):
        settle(begin, intake, held.order_ref, accept=True)


def test_a_sample_on_its_way_back_can_not_be_cancelled(begin: Begin) -> None:
    with begin() as session:
        kit = build.dispatched_kit(session)
        move_kit(session, kit, KitState.COMING_BACK, at=NOW, actor=BY)
        ref = session.get_one(OrderRow, kit.order_id).ref

    with begin() as session, pytest.raises(ServiceError) as caught:
        cancel_order(session, ref, now=NOW, actor=BY)
    assert caught.value.code is Code.CONFLICT


def test_a_channel_finds_its_own_orders_and_no_others(begin: Begin, place: Place) -> None:
    taken = place(channel_ref="mine")

    with begin() as session:
        assert find_order(session, service_id="larkfield", channel="web", channel_ref="mine") == taken
        with pytest.raises(ServiceError, match="no order under that reference"):
            find_order(session, service_id="larkfield", channel="clinic", channel_ref="mine")


def test_the_age_is_looked_at_again_when_a_person_settles(begin: Begin, intake: Intake, place: Place) -> None:
    held = place(**YOUNG | {"safeguarding_paid": True})
    strict = build.service(orders=OrderPolicy(minimum_age_years=18))
    in_force = ServiceInForce(strict, intake.services["larkfield"].version_id)
    stricter = replace(intake, services={"larkfield": in_force})

    with pytest.raises(ServiceError, match="minimum age"):
        settle(begin, stricter, held.order_ref, accept=True)
