"""Making kits, moving them, ending them (FEATURES 15, 81; rulings 9, 10, 15). Every person here is invented."""

import secrets
from datetime import date, timedelta

import pytest
from sqlmodel import col, select

from app.database import Begin
from models.actions.kit import cancel_kit, move_kit
from models.actions.owed import OwedText, owe_texts
from models.rules.errors import Code, ServiceError
from models.rules.kit import ALPHABET, KitState, is_kit_code, is_tube_code
from models.rules.panel import Panel
from models.rules.secrets import KIT_BORN, KIT_FAMILY, kit_born, kit_family
from models.rules.text import KitPosted
from models.tables.kit import Kit, KitEvent, KitIdentity, KitSample, KitTest
from models.tables.parcel import Direction, Parcel
from models.tables.text import Text, TextState
from tests.support import build

LATER = build.NOW + timedelta(days=3)
BY = "test:packer"


def test_a_new_kit_has_a_right_code_and_a_tube_code_for_each_sample(begin: Begin) -> None:
    with begin() as session:
        kit = build.kit(session)

    with begin() as session:
        tubes = session.exec(select(KitSample.tube_code).where(KitSample.kit_id == kit.id)).all()

    assert is_kit_code(kit.code)
    assert sorted(tubes) == [f"{kit.code}1", f"{kit.code}2"]
    assert all(map(is_tube_code, tubes))


def test_a_new_kits_tests_are_exactly_what_its_panel_requests(begin: Begin) -> None:
    with begin() as session:
        kit = build.kit(session)

    with begin() as session:
        tests = session.exec(select(KitTest).where(KitTest.kit_id == kit.id)).all()

    assert {(row.test, row.site) for row in tests} == build.SWAB_AND_BLOOD.requested


def test_a_lab_row_finds_a_new_kit_by_date_of_birth_and_by_folded_family_name(begin: Begin) -> None:
    with begin() as session:
        kit = build.kit(session)

    with begin() as session:
        known = session.exec(select(KitIdentity).where(KitIdentity.kit_id == kit.id)).one()

    index = build.indexes()
    assert known.date_of_birth in index.live(KIT_BORN, "larkfield", kit_born(kit.code, "1999-02-14"))
    assert known.family_name in index.live(KIT_FAMILY, "larkfield", kit_family(kit.code, "kit"))
    assert known.date_of_birth not in index.live(KIT_BORN, "larkfield", kit_born(kit.code, "1999-02-15"))


def test_a_new_kit_has_a_parcel_each_way_under_codes_that_do_not_hold_its_own(begin: Begin) -> None:
    with begin() as session:
        kit = build.kit(session)

    with begin() as session:
        parcels = session.exec(select(Parcel).where(Parcel.kit_id == kit.id)).all()

    assert {parcel.direction for parcel in parcels} == set(Direction)
    assert all(kit.code not in parcel.code for parcel in parcels)
    assert len({parcel.code for parcel in parcels}) == 2


def test_a_kit_code_that_is_taken_is_passed_over(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    with begin() as session:
        first = build.kit(session)
    # A source of randomness that says the first kit's nine characters once more, and then is random again.
    said = list(first.code[:-1])
    real = secrets.choice
    monkeypatch.setattr(secrets, "choice", lambda pool: said.pop(0) if said and pool == ALPHABET else real(pool))

    with begin() as session:
        second = build.kit(session)

    assert not said
    assert second.code != first.code


def test_a_panel_without_samples_makes_no_kit(begin: Begin) -> None:
    with begin() as session, pytest.raises(ServiceError) as refused:
        build.kit(session, panel=Panel(()))

    assert refused.value.code is Code.BAD_INPUT


def test_a_move_leaves_its_moment_and_its_event(begin: Begin) -> None:
    with begin() as session:
        kit = build.dispatched_kit(session)
        move_kit(session, kit, KitState.COMING_BACK, at=LATER, actor=BY)

    with begin() as session:
        stored = session.get_one(Kit, kit.id)
        kinds = session.exec(select(KitEvent.kind).where(KitEvent.kit_id == kit.id).order_by(col(KitEvent.id))).all()
    assert (stored.state, stored.posted_back_at) == (KitState.COMING_BACK, LATER)
    assert kinds == ["kit.created", "kit.printed", "kit.dispatched", "kit.coming_back"]


def test_a_move_that_the_rules_forbid_changes_nothing(begin: Begin) -> None:
    with begin() as session:
        kit = build.kit(session)

    with begin() as session, pytest.raises(ServiceError) as refused:
        move_kit(session, session.get_one(Kit, kit.id), KitState.REPORTED, at=LATER, actor=BY)

    with begin() as session:
        assert session.get_one(Kit, kit.id).state is KitState.TO_PACK
    assert refused.value.code is Code.CONFLICT


def test_a_kit_that_someone_else_moved_first_is_not_moved_again(begin: Begin) -> None:
    with begin() as session:
        kit = build.kit(session)
    with begin() as session:
        seen = session.get_one(Kit, kit.id)
        with begin() as other:
            cancel_kit(other, other.get_one(Kit, kit.id), now=LATER, actor=BY, reason="asked_by_resident")

        with pytest.raises(ServiceError) as refused:
            cancel_kit(session, seen, now=LATER, actor=BY, reason="asked_by_resident")

    assert refused.value.code is Code.CONFLICT


def test_no_kit_ends_without_a_reason(begin: Begin) -> None:
    with begin() as session:
        kit = build.kit(session)

        with pytest.raises(ServiceError) as refused:
            move_kit(session, kit, KitState.CANCELLED, at=LATER, actor=BY)

    assert refused.value.code is Code.BAD_INPUT


def test_a_lapsed_kit_that_comes_back_after_all_is_open_again(begin: Begin) -> None:
    with begin() as session:
        kit = build.dispatched_kit(session)
        move_kit(session, kit, KitState.LAPSED, at=LATER, actor=BY, reason="not_returned")

        move_kit(session, kit, KitState.COMING_BACK, at=LATER, actor=BY)

    assert (kit.closed_at, kit.closed_reason) == (None, "")


def test_a_kit_cancelled_after_dispatch_keeps_all_that_a_result_is_matched_by(begin: Begin) -> None:
    with begin() as session:
        kit = build.dispatched_kit(session)
        cancel_kit(session, kit, now=LATER, actor=BY, reason="asked_by_resident")

    with begin() as session:
        stored = session.get_one(Kit, kit.id)
        assert (stored.state, stored.dispatched_at) == (KitState.CANCELLED, build.NOW)
        assert session.exec(select(KitIdentity).where(KitIdentity.kit_id == kit.id)).one()


def test_a_cancelled_kits_unsent_texts_are_stopped(begin: Begin) -> None:
    with begin() as session:
        kit = build.dispatched_kit(session)
        assert kit.id is not None
        posted = OwedText(kit.order_id, kit.id, kit.contact_id, KitPosted(date(2027, 1, 23)), tells="1")
        owe_texts(session, [posted], service=build.service(), now=build.NOW, cipher=build.cipher())

        cancel_kit(session, kit, now=LATER, actor=BY, reason="asked_by_resident")

    with begin() as session:
        assert session.exec(select(Text.state).where(Text.kit_id == kit.id)).all() == [TextState.CANCELLED]


def test_a_kit_whose_sample_is_on_the_way_back_is_not_cancelled(begin: Begin) -> None:
    with begin() as session:
        kit = build.dispatched_kit(session)
        move_kit(session, kit, KitState.COMING_BACK, at=LATER, actor=BY)

        with pytest.raises(ServiceError) as refused:
            cancel_kit(session, kit, now=LATER, actor=BY, reason="asked_by_resident")

    assert refused.value.code is Code.CONFLICT
