"""Scans at a bench: each kept once, replayed harmlessly, told apart by place (FEATURES 16; H1). Invented kits only."""

import itertools
import uuid
from datetime import timedelta

import pytest
from sqlmodel import col, select

from models.actions.bench import BenchRead, bench_view, pack_on, set_kit_aside, take_scan, waiting_kits
from models.actions.kit import cancel_kit
from models.actions.print_batch import reprint_kit
from models.rules.errors import Code, ServiceError
from models.rules.kit import KitState
from models.rules.parcel import WhySetAside
from models.rules.secrets import KIT_BORN, kit_born
from models.rules.service import ServiceInForce
from models.tables.bench import BenchScan, VoidCode
from models.tables.clinic import ClinicCase
from models.tables.kit import Kit, KitEvent, KitIdentity, KitSample, KitTest
from models.tables.parcel import Direction, Parcel
from tests.support import build, s10

SERVICES = {"larkfield": ServiceInForce(build.service(), 1)}
WHO = "staff:p1"
KEYS = {"cipher": build.cipher(), "indexes": build.indexes()}
numbers = s10.numbers()


@pytest.fixture
def kit(begin):
    with begin() as session:
        return build.printed_kit(session)


def pieces(begin, kit):
    """Everything of a kit in the order of the hands: form, tubes, a fresh return label, outer label."""
    with begin() as session:
        tubes = session.exec(select(KitSample.tube_code).where(KitSample.kit_id == kit.id)).all()
        outer = session.exec(
            select(Parcel.code).where(Parcel.kit_id == kit.id, Parcel.direction == Direction.OUT)
        ).one()
        code = session.get_one(Kit, kit.id).code
    return [code, *sorted(tubes), next(numbers), outer]


def reads(codes, at=build.NOW):
    return [BenchRead(str(uuid.uuid4()), code, at) for code in codes]


def hand_over(begin, wanted, *, bench="1", actor=WHO, services=SERVICES):
    told = []
    for read in wanted:
        with begin() as session:
            told.append(take_scan(session, read, bench=bench, services=services, actor=actor, cipher=build.cipher()))
    return told


def stored(begin, kit):
    with begin() as session:
        return session.get_one(Kit, kit.id)


def test_every_scan_is_kept_with_who_where_and_when(begin, kit):
    codes = pieces(begin, kit)
    hand_over(begin, reads([*codes, "rubbish 123"]), bench="Bench 2")

    with begin() as session:
        kept = session.exec(select(BenchScan).order_by(col(BenchScan.id))).all()

    assert [each.code for each in kept] == [*codes, ""]
    assert {(each.actor, each.bench, each.scanned_at) for each in kept} == {(WHO, "Bench 2", build.NOW)}
    assert [each.dispatched for each in kept] == [*[False] * (len(codes) - 1), True, False]


def test_a_batch_sent_again_from_any_point_is_answered_as_before_and_changes_nothing(begin, kit):
    wanted = reads(pieces(begin, kit))
    first = hand_over(begin, wanted)

    for start in range(len(wanted)):
        assert hand_over(begin, wanted[start:]) == first[start:]
    with begin() as session:
        assert len(session.exec(select(BenchScan)).all()) == len(wanted)
        assert len(session.exec(select(KitEvent).where(KitEvent.kind == "kit.dispatched")).all()) == 1


def test_scans_of_an_hour_ago_dispatch_the_kit_an_hour_ago(begin, kit):
    then = build.NOW - timedelta(minutes=50)
    hand_over(begin, reads(pieces(begin, kit), at=then))

    assert stored(begin, kit).dispatched_at == then


def test_a_kit_cancelled_while_the_bench_was_offline_is_not_dispatched_by_its_replay(begin, kit):
    wanted = reads(pieces(begin, kit))
    with begin() as session:
        cancel_kit(session, session.get_one(Kit, kit.id), now=build.NOW, actor=WHO, reason="asked_by_resident")

    told = hand_over(begin, wanted)

    assert not any(each.fine for each in told)
    assert stored(begin, kit).state is KitState.CANCELLED


def test_one_person_at_two_benches_never_mixes_their_pieces(begin, kit):
    with begin() as session:
        second = build.printed_kit(session)
    mine, other = pieces(begin, kit), pieces(begin, second)
    turns = [*itertools.chain.from_iterable(zip(reads(mine), reads(other), strict=True))]

    told = [
        answer
        for place, read in zip(itertools.cycle("12"), turns, strict=False)
        for answer in hand_over(begin, [read], bench=place)
    ]

    assert all(each.fine for each in told)
    assert sum(each.dispatched for each in told) == 2


def test_a_kit_opened_at_two_benches_leaves_once(begin, kit):
    codes = pieces(begin, kit)
    told = [
        answer
        for code in codes
        for bench in "12"
        for answer in hand_over(begin, reads([code]), bench=bench, actor=f"staff:{bench}")
    ]

    assert sum(each.dispatched for each in told) == 1


def test_a_kit_of_a_service_that_one_does_not_pack_for_is_no_kit(begin, kit):
    [told] = hand_over(begin, reads([kit.code]), services={})

    assert (told.fine, "There is no kit" in told.sentence) == (False, True)


def test_a_kit_that_was_set_aside_cannot_be_packed_and_belongs_to_somebody(begin, kit):
    codes = pieces(begin, kit)
    with begin() as session:
        set_kit_aside(session, kit.code, WhySetAside.OPENED, services=SERVICES, now=build.NOW, actor=WHO)

    told = hand_over(begin, reads(codes))

    assert not any(each.fine for each in told)
    with begin() as session:
        [case] = session.exec(select(ClinicCase)).all()
        view = bench_view(session, bench="1", services=SERVICES, actor=WHO, since=build.NOW)
    assert (case.owner_role, case.detail["why"]) == ("packer", "set_aside_opened")
    assert case.due_at > build.NOW
    assert [(each.code, each.why) for each in view.aside] == [(kit.code, "opened")]


def test_a_kit_that_was_set_aside_and_found_right_is_packed_on(begin, kit):
    with begin() as session:
        set_kit_aside(session, kit.code, WhySetAside.OTHER, services=SERVICES, now=build.NOW, actor=WHO)
    with begin() as session:
        pack_on(session, kit.code, services=SERVICES, now=build.NOW, actor=WHO)

    assert hand_over(begin, reads(pieces(begin, kit)))[-1].dispatched


def test_only_a_kit_that_waits_can_be_set_aside(begin):
    with begin() as session:
        gone = build.dispatched_kit(session)

    with begin() as session, pytest.raises(ServiceError) as refused:
        set_kit_aside(session, gone.code, WhySetAside.OTHER, services=SERVICES, now=build.NOW, actor=WHO)

    assert refused.value.code is Code.CONFLICT


@pytest.mark.parametrize("aside", [False, True])
def test_a_reprint_voids_every_code_of_the_old_paper_for_ever(begin, kit, aside):
    old = pieces(begin, kit)
    with begin() as session:
        if aside:
            set_kit_aside(session, kit.code, WhySetAside.DAMAGED, services=SERVICES, now=build.NOW, actor=WHO)
    with begin() as session:
        reprint_kit(session, kit.code, because="smudged", now=build.NOW, actor=WHO, **KEYS)
    new = pieces(begin, kit)

    assert not set(old) & set(new)
    with begin() as session:
        void = set(session.exec(select(VoidCode.code)).all())
    assert {old[0], *old[1:3], old[-1]} <= void
    told = hand_over(begin, reads([old[0]]))
    assert "void for ever" in told[0].sentence


def test_old_labels_among_new_ones_block_the_parcel(begin, kit):
    old = pieces(begin, kit)
    with begin() as session:
        reprint_kit(session, kit.code, because="smudged", now=build.NOW, actor=WHO, **KEYS)
        fresh = session.get_one(Kit, kit.id)
        other = build.printed_kit(session)
        fresh.batch_id, fresh.expires_on, fresh.state = other.batch_id, other.expires_on, KitState.PRINTED
    new = pieces(begin, kit)

    for label in (old[1], old[-1]):
        hand_over(begin, reads([new[0]]))
        assert not hand_over(begin, reads([label]))[0].fine


def test_a_lab_row_finds_a_reprinted_kit_by_its_new_code_alone(begin, kit):
    old = kit.code
    with begin() as session:
        reprint_kit(session, kit.code, because="smudged", now=build.NOW, actor=WHO, **KEYS)

    with begin() as session:
        code = session.get_one(Kit, kit.id).code
        known = session.exec(select(KitIdentity).where(KitIdentity.kit_id == kit.id)).one()
        tubes = {each.tube_code for each in session.exec(select(KitTest).where(KitTest.kit_id == kit.id))}

    index = build.indexes()
    assert known.date_of_birth == index.index(KIT_BORN, "larkfield", kit_born(code, "1999-02-14"))
    assert known.date_of_birth != index.index(KIT_BORN, "larkfield", kit_born(old, "1999-02-14"))
    assert tubes == {f"{code}1", f"{code}2"}


def test_what_a_bench_knows_offline_is_codes_alone_of_printed_kits(begin, kit):
    with begin() as session:
        build.dispatched_kit(session)
        [waiting] = waiting_kits(session, services=SERVICES, limit=10)

    codes = pieces(begin, kit)
    assert (waiting.code, [code for code, _ in waiting.tubes], waiting.outer) == (codes[0], codes[1:3], codes[-1])
