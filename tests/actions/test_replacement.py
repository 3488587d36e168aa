"""Kits that went wrong after they left (FEATURES 21, 23; rulings 3, 10; H13). Every person here is invented."""

from datetime import timedelta

import pytest
from sqlmodel import col, select

from models.actions.balance import strike_balance
from models.actions.owed import OwedText, owe_texts
from models.actions.parcel import CourierScan, came_back_to_sender, pair_and_dispatch, take_scans
from models.actions.replacement import replace_kit, report_problem
from models.rules.errors import Code, ServiceError
from models.rules.kit import KitState
from models.rules.order import Address, read_address
from models.rules.parcel import KitProblem
from models.rules.person import Postcode
from models.rules.service import ServiceInForce
from models.rules.text import ReturnReminder, TextPurpose
from models.rules.vocabulary import Outcome, ScanKind, Site, Test
from models.tables.clinic import ClinicCase
from models.tables.kit import Kit, KitSample, KitTest
from models.tables.parcel import Direction, Parcel
from models.tables.person import Contact
from models.tables.text import Text, TextState
from tests.support import build, s10

SERVICES = {"larkfield": ServiceInForce(build.service(), 1)}
WHO = "staff:p1"
ELSEWHERE = Address(("2 Other Row", "Larkfield"), Postcode("LS1 4AP"))
LATER = build.NOW + timedelta(days=20)
numbers = s10.numbers("CD")


@pytest.fixture
def kit(begin):
    """A kit that left, with its texts."""
    with begin() as session:
        made = build.printed_kit(session)
        dispatch(session, made)
        return made


def dispatch(session, kit, now=build.NOW):
    pair_and_dispatch(
        session,
        kit,
        return_number=next(numbers),
        service=build.service(),
        now=now,
        actor=WHO,
        cipher=build.cipher(),
    )


def report(begin, kit, problem):
    with begin() as session:
        report_problem(session, kit.code, problem, services=SERVICES, now=LATER, actor=WHO)


def replace(begin, kit, address=None):
    with begin() as session:
        return replace_kit(
            session,
            kit.code,
            because="lost",
            services=SERVICES,
            now=LATER,
            actor=WHO,
            cipher=build.cipher(),
            indexes=build.indexes(),
            address=address,
        )


@pytest.mark.parametrize("problem", KitProblem)
def test_every_problem_has_an_owner_and_a_due_time_and_stops_the_reminders(begin, kit, problem):
    report(begin, kit, problem)
    report(begin, kit, problem)

    with begin() as session:
        [case] = session.exec(select(ClinicCase)).all()
        texts = session.exec(select(Text).where(Text.purpose == TextPurpose.RETURN_REMINDER)).all()
        assert session.get_one(Kit, kit.id).state is KitState.DISPATCHED
    assert case.detail["why"] == problem.value
    assert case.owner_role == ("health_adviser" if problem is KitProblem.ARRIVED_OPENED else "packer")
    assert case.due_at > LATER
    assert {text.state for text in texts} == {TextState.CANCELLED}


def test_what_never_left_cannot_be_lost(begin):
    with begin() as session:
        printed = build.printed_kit(session)

    for act in (lambda: report(begin, printed, KitProblem.LOST), lambda: replace(begin, printed)):
        with pytest.raises(ServiceError) as refused:
            act()
        assert refused.value.code is Code.CONFLICT


def test_another_kit_asks_for_the_same_of_the_same_person_under_codes_of_its_own(begin, kit):
    made = replace(begin, kit)

    with begin() as session:
        first, second = session.get_one(Kit, kit.id), session.get_one(Kit, made.id)
        asked = [
            {
                (row.test, row.site, row.tube_code[-1])
                for row in session.exec(select(KitTest).where(KitTest.kit_id == each.id))
            }
            for each in (first, second)
        ]
        specimens = [
            session.exec(
                select(KitSample.specimen).where(KitSample.kit_id == each.id).order_by(KitSample.tube_code)
            ).all()
            for each in (first, second)
        ]
    assert (first.state, first.closed_reason) == (KitState.REPLACED, "lost")
    assert (second.state, second.replaces_kit_id) == (KitState.TO_PACK, first.id)
    assert (second.order_id, second.person_id, second.lab) == (first.order_id, first.person_id, first.lab)
    assert asked[0] == asked[1] != set()
    assert specimens[0] == specimens[1]
    assert second.code != first.code


def test_a_kit_is_replaced_once(begin, kit):
    replace(begin, kit)

    with pytest.raises(ServiceError) as refused:
        replace(begin, kit)

    assert refused.value.code is Code.CONFLICT


def test_the_first_kits_unsent_texts_stop_and_the_second_is_told_of_anew(begin, kit):
    made = replace(begin, kit)
    with begin() as session:
        second, other = session.get_one(Kit, made.id), build.printed_kit(session)
        second.batch_id, second.expires_on, second.state = other.batch_id, other.expires_on, KitState.PRINTED
    with begin() as session:
        dispatch(session, session.get_one(Kit, made.id), now=LATER)

    with begin() as session:
        texts = session.exec(select(Text).where(col(Text.kit_id).in_([kit.id, made.id]))).all()
    of_first = [text for text in texts if text.kit_id == kit.id]
    of_second = [text for text in texts if text.kit_id == made.id]
    assert {text.state for text in of_first} == {TextState.CANCELLED}
    assert [text.state for text in of_second] == [TextState.OWED] * 4


def test_a_kit_that_the_post_brought_back_goes_to_a_better_address_only(begin, kit):
    with begin() as session:
        row = session.get_one(Kit, kit.id)
        came_back_to_sender(session, row, service=build.service(), at=LATER, now=LATER, actor=WHO)
    with pytest.raises(ServiceError) as refused:
        replace(begin, kit)
    assert refused.value.code is Code.BAD_INPUT

    made = replace(begin, kit, ELSEWHERE)

    with begin() as session:
        first, second = session.get_one(Contact, kit.contact_id), session.get_one(Contact, made.contact_id)
        lock = build.cipher()
        opened = lock.decrypt("contact", "delivery_address", second.ref, second.delivery_address)
        mobiles = [lock.decrypt("contact", "mobile", each.ref, each.mobile) for each in (first, second)]
    assert read_address(opened) == ELSEWHERE
    assert mobiles[0] == mobiles[1]


@pytest.mark.parametrize("outcome", [Outcome.NEGATIVE, Outcome.POSITIVE])
def test_a_late_sample_of_a_replaced_kit_is_its_persons_and_goes_to_a_human_whatever_it_says(begin, kit, outcome):
    replace(begin, kit)
    with begin() as session:
        row = session.get_one(Kit, kit.id)
        asked = {
            (Test.CHLAMYDIA, Site.VAGINAL): outcome,
            (Test.GONORRHOEA, Site.VAGINAL): Outcome.NEGATIVE,
            (Test.HIV, Site.BLOOD): Outcome.NEGATIVE,
            (Test.SYPHILIS, Site.BLOOD): Outcome.NEGATIVE,
        }
        build.results(session, row, asked, at=LATER)

    with begin() as session:
        cases = session.exec(select(ClinicCase).where(ClinicCase.kit_id == kit.id)).all()
        told = session.exec(
            select(Text).where(
                Text.kit_id == kit.id, col(Text.purpose).in_([TextPurpose.ALL_CLEAR, TextPurpose.SWAB_POSITIVE])
            )
        ).all()
        assert session.get_one(Kit, kit.id).state is KitState.REPLACED
    assert len(cases) == 1
    assert told == []


def test_a_late_scan_of_a_replaced_kit_moves_nothing_and_asks_nobody_to_post_it(begin, kit):
    replace(begin, kit)
    with begin() as session:
        parcel = session.exec(select(Parcel).where(Parcel.kit_id == kit.id, Parcel.direction == Direction.BACK)).one()
        scan = CourierScan(parcel.id, ScanKind.IN_NETWORK, "EVBAH", LATER)
        assert take_scans(session, [parcel.id], [scan], services=SERVICES, now=LATER, actor=WHO) == 1

    with begin() as session:
        assert session.get_one(Kit, kit.id).state is KitState.REPLACED


def test_the_balance_joins_a_replaced_kit_to_its_successor(begin, kit, db):
    replace(begin, kit)
    with begin() as session:
        even = strike_balance(session, now=LATER)
    with db.owner_engine.begin() as owner:
        owner.exec_driver_sql("UPDATE kit SET replaces_kit_id = NULL")
    with begin() as session:
        broken = strike_balance(session, now=LATER)

    def about_replacing(balance):
        return [each.check for each in balance.differences if each.check == "replaced_kit_has_a_successor"]

    assert (about_replacing(even), about_replacing(broken)) == ([], ["replaced_kit_has_a_successor"])


def test_a_reminder_owed_after_the_problem_was_told_is_not_brought_back(begin, kit):
    report(begin, kit, KitProblem.LOST)
    with begin() as session:
        due = session.get_one(Kit, kit.id).due_back_on
        again = OwedText(kit.order_id, kit.id, kit.contact_id, ReturnReminder(due, last=False), "1")
        assert owe_texts(session, [again], service=build.service(), now=LATER, cipher=build.cipher()) == 0
