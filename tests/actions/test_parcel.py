"""The packing bench over the database, and what courier events do (FEATURES 16, 21, 25-29, 81)."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice, permutations

import pytest
from sqlmodel import Session, col, select

from app.database import Begin
from models.actions.balance import strike_balance
from models.actions.kit import cancel_kit, move_kit
from models.actions.parcel import (
    CourierScan,
    ScanAnswer,
    came_back_to_sender,
    lapse_unreturned,
    parcels_to_ask,
    report_stuck,
    scan,
    take_scans,
)
from models.rules.kit import KitState
from models.rules.service import ServiceInForce
from models.rules.text import KitPosted, ReturnReminder, TextPurpose, read_values
from models.rules.vocabulary import ScanKind
from models.rules.working_days import london_day
from models.tables.clinic import ClinicCase
from models.tables.kit import Kit, KitEvent, KitSample
from models.tables.parcel import CourierEvent, Direction, Parcel
from models.tables.text import Text, TextState
from tests.support import build, s10

PACKER, OTHER = "packer:p1", "packer:p2"
SERVICES = {"larkfield": ServiceInForce(build.service(), 1)}
NUMBER = next(s10.numbers())
FLOW = "flow:track_returns"


def _scan(begin: Begin, *codes: str, by: str = PACKER, now: datetime = build.NOW) -> ScanAnswer:
    """Scans each code in a transaction of its own and returns the last answer."""
    assert codes
    for code in codes:
        with begin() as session:
            answer = scan(session, code, services=SERVICES, now=now, actor=by, cipher=build.cipher())
    return answer


def _pieces(begin: Begin, kit: Kit) -> tuple[list[str], str]:
    """The codes of a kit's tubes, and its outer label's."""
    with begin() as session:
        tubes = session.exec(select(KitSample.tube_code).where(KitSample.kit_id == kit.id)).all()
        outer = session.exec(
            select(Parcel.code).where(Parcel.kit_id == kit.id, Parcel.direction == Direction.OUT)
        ).one()
    return sorted(tubes), outer


def _state(begin: Begin, kit: Kit) -> KitState:
    with begin() as session:
        return session.get_one(Kit, kit.id).state


@pytest.fixture
def kit(begin: Begin) -> Kit:
    """One printed kit."""
    with begin() as session:
        return build.printed_kit(session)


# ── At the packing bench ─────────────────────────────────────────────────────────────────────


def test_a_whole_kit_is_dispatched_by_its_outer_label(begin: Begin, kit: Kit) -> None:
    tubes, outer = _pieces(begin, kit)

    answer = _scan(begin, kit.code, *tubes, NUMBER, outer)

    assert answer.dispatched
    assert _state(begin, kit) is KitState.DISPATCHED


def test_dispatch_pairs_the_return_label_with_the_kit(begin: Begin, kit: Kit) -> None:
    tubes, outer = _pieces(begin, kit)
    _scan(begin, kit.code, *tubes, NUMBER, outer)

    with begin() as session:
        back = session.exec(select(Parcel).where(Parcel.tracking_number == NUMBER)).one()
    assert (back.kit_id, back.direction) == (kit.id, Direction.BACK)


def test_dispatch_owes_one_posted_text_and_every_reminder_with_the_same_last_day(begin: Begin, kit: Kit) -> None:
    tubes, outer = _pieces(begin, kit)
    _scan(begin, kit.code, *tubes, NUMBER, outer)

    with begin() as session:
        due = session.get_one(Kit, kit.id).due_back_on
        texts = session.exec(select(Text).where(Text.kit_id == kit.id).order_by(col(Text.not_before))).all()
        said = [
            read_values(each.purpose, build.cipher().decrypt("text", "values", each.ref, each.values)) for each in texts
        ]
    assert due == london_day(build.NOW) + timedelta(days=60)
    assert said == [KitPosted(due), *(ReturnReminder(due, last=number == 3, first=number == 1) for number in (1, 2, 3))]


def test_someone_who_did_not_agree_to_texts_is_owed_none(begin: Begin) -> None:
    with begin() as session:
        person = build.person(session)
        kit = build.printed_kit(session, of=person, to=build.contact(session, person, text_consent=False))
    tubes, outer = _pieces(begin, kit)

    _scan(begin, kit.code, *tubes, NUMBER, outer)

    with begin() as session:
        assert session.get_one(Kit, kit.id).state is KitState.DISPATCHED
        assert session.exec(select(Text).where(Text.kit_id == kit.id)).all() == []


@pytest.mark.parametrize("left_out", ["a tube", "the return label"])
def test_a_kit_that_lacks_a_piece_is_not_dispatched(begin: Begin, kit: Kit, left_out: str) -> None:
    tubes, outer = _pieces(begin, kit)
    pieces = [*tubes[1:], NUMBER] if left_out == "a tube" else tubes

    answer = _scan(begin, kit.code, *pieces, outer)

    assert not answer.fine
    assert _state(begin, kit) is KitState.PRINTED


def test_a_wrong_tube_blocks_the_parcel_until_its_form_is_scanned_again(begin: Begin, kit: Kit) -> None:
    with begin() as session:
        neighbour = build.printed_kit(session)
    tubes, outer = _pieces(begin, kit)
    wrong = _pieces(begin, neighbour)[0][0]

    assert not _scan(begin, kit.code, wrong).fine
    assert not _scan(begin, *tubes, NUMBER, outer).fine
    assert _state(begin, kit) is KitState.PRINTED
    assert _scan(begin, kit.code, *tubes, NUMBER, outer).dispatched


def test_what_was_scanned_before_a_wrong_piece_does_not_count_after_it(begin: Begin, kit: Kit) -> None:
    with begin() as session:
        neighbour = build.printed_kit(session)
    tubes, outer = _pieces(begin, kit)

    answer = _scan(begin, kit.code, *tubes, NUMBER, _pieces(begin, neighbour)[1], kit.code, outer)

    assert not answer.fine
    assert _state(begin, kit) is KitState.PRINTED


def test_every_scan_twice_ends_as_every_scan_once(begin: Begin, kit: Kit) -> None:
    tubes, outer = _pieces(begin, kit)
    codes = [kit.code, *tubes, NUMBER, outer]

    answers = [_scan(begin, code) for code in codes for _ in range(2)]

    assert all(answer.fine for answer in answers)
    assert [answer.dispatched for answer in answers].count(True) == 1
    with begin() as session:
        assert len(session.exec(select(Text).where(Text.kit_id == kit.id)).all()) == 4


def test_a_packers_kit_stays_open_without_the_program_that_opened_it(begin: Begin, kit: Kit) -> None:
    tubes, outer = _pieces(begin, kit)
    _scan(begin, kit.code, tubes[0])

    # each scan reads the bench from the database alone, so a new program goes on here
    assert _scan(begin, tubes[1], NUMBER, outer).dispatched


def test_two_packers_do_not_mix_their_benches(begin: Begin, kit: Kit) -> None:
    with begin() as session:
        second = build.printed_kit(session)
    mine, others = _pieces(begin, kit), _pieces(begin, second)
    _scan(begin, kit.code)
    _scan(begin, second.code, by=OTHER)

    assert _scan(begin, mine[0][0]).fine
    assert _scan(begin, others[0][0], by=OTHER).fine


def test_after_a_dispatch_no_older_kit_is_open_again(begin: Begin, kit: Kit) -> None:
    with begin() as session:
        second = build.printed_kit(session)
    tubes, outer = _pieces(begin, second)
    _scan(begin, kit.code, second.code, *tubes, NUMBER, outer)

    answer = _scan(begin, _pieces(begin, kit)[0][0])

    assert "No kit is open" in answer.sentence


def test_a_return_label_that_is_on_another_parcel_is_wrong(begin: Begin, kit: Kit) -> None:
    with begin() as session:
        second = build.printed_kit(session)
    tubes, outer = _pieces(begin, second)
    _scan(begin, second.code, *tubes, NUMBER, outer)

    assert not _scan(begin, kit.code, NUMBER).fine


def test_two_packers_with_one_return_label_dispatch_one_parcel(begin: Begin, kit: Kit) -> None:
    with begin() as session:
        second = build.printed_kit(session)
    mine, others = _pieces(begin, kit), _pieces(begin, second)
    _scan(begin, kit.code, *mine[0], NUMBER)
    _scan(begin, second.code, *others[0], NUMBER, by=OTHER)

    first = _scan(begin, mine[1])
    late = _scan(begin, others[1], by=OTHER)

    assert first.dispatched
    assert not late.fine
    assert _state(begin, second) is KitState.PRINTED


def test_a_code_that_is_not_ours_gets_one_sentence_and_changes_nothing(begin: Begin, kit: Kit) -> None:
    _scan(begin, kit.code)

    answer = _scan(begin, "5012345678900")

    assert not answer.fine
    assert answer.sentence == "This is no code of ours, or it was misread: scan it again."


def test_the_form_of_a_cancelled_kit_is_refused(begin: Begin, kit: Kit) -> None:
    with begin() as session:
        cancel_kit(session, session.get_one(Kit, kit.id), now=build.NOW, actor=PACKER, reason="asked_by_resident")

    answer = _scan(begin, kit.code)

    assert not answer.fine
    assert "cancelled" in answer.sentence


def test_the_form_of_a_voided_print_is_refused(begin: Begin, kit: Kit) -> None:
    with begin() as session:
        move_kit(session, session.get_one(Kit, kit.id), KitState.TO_PACK, at=build.NOW, actor=PACKER)

    assert not _scan(begin, kit.code).fine


def test_a_parcel_cancelled_while_it_is_packed_is_not_dispatched(begin: Begin, kit: Kit) -> None:
    tubes, outer = _pieces(begin, kit)
    _scan(begin, kit.code, *tubes, NUMBER)
    with begin() as session:
        cancel_kit(session, session.get_one(Kit, kit.id), now=build.NOW, actor=OTHER, reason="asked_by_resident")

    answer = _scan(begin, outer)

    assert not answer.fine
    assert _state(begin, kit) is KitState.CANCELLED


# ── On the way ───────────────────────────────────────────────────────────────────────────────

DAY = timedelta(days=1)
JOURNEY = (
    (ScanKind.LABELLED, "EVAIE", build.NOW + DAY),
    (ScanKind.IN_NETWORK, "EVDAV", build.NOW + 10 * DAY),
    (ScanKind.OUT_FOR_DELIVERY, "EVGPD", build.NOW + 11 * DAY),
    (ScanKind.DELIVERED, "EVKSP", build.NOW + 11 * DAY + timedelta(hours=3)),
)


OUTWARD = (
    (ScanKind.IN_NETWORK, "EVIMC", build.NOW + DAY),
    (ScanKind.DELIVERED, "EVKSP", build.NOW + 2 * DAY),
)


def _dispatched(begin: Begin, number: str = NUMBER) -> Kit:
    """A kit dispatched at the bench, with all that is owed for it."""
    with begin() as session:
        kit = build.printed_kit(session)
    tubes, outer = _pieces(begin, kit)
    assert _scan(begin, kit.code, *tubes, number, outer).dispatched
    with begin() as session:
        return session.get_one(Kit, kit.id)


def _take(
    begin: Begin, kit: Kit, events: Sequence[tuple[ScanKind, str, datetime]], *, direction: Direction = Direction.BACK
) -> int:
    with begin() as session:
        parcel_id = _parcel(session, kit, direction).id
        assert parcel_id is not None
        return take_scans(
            session,
            [parcel_id],
            [CourierScan(parcel_id, *event) for event in events],
            services=SERVICES,
            now=build.NOW + 12 * DAY,
            actor=FLOW,
        )


def _parcel(session: Session, kit: Kit, direction: Direction = Direction.BACK) -> Parcel:
    return session.exec(select(Parcel).where(Parcel.kit_id == kit.id, Parcel.direction == direction)).one()


def _texts(begin: Begin, kit: Kit, purpose: TextPurpose) -> list[TextState]:
    with begin() as session:
        rows = select(Text.state).where(Text.kit_id == kit.id, Text.purpose == purpose)
        return list(session.exec(rows))


def test_the_courier_events_of_a_parcel_end_the_same_in_every_order_and_in_any_pieces(begin: Begin) -> None:
    ends = set()
    for serial, order in zip(s10.numbers("CD"), permutations(JOURNEY), strict=False):
        kit = _dispatched(begin, serial)
        for event in order:
            _take(begin, kit, [event, event])
        with begin() as session:
            stored, parcel = session.get_one(Kit, kit.id), _parcel(session, kit)
            ends.add((stored.state, stored.posted_back_at, parcel.status, parcel.first_scan_at, parcel.last_scan_at))

    moved = [at for kind, _, at in JOURNEY if kind is not ScanKind.LABELLED]
    assert ends == {(KitState.COMING_BACK, moved[0], ScanKind.DELIVERED, moved[0], moved[-1])}


WHOLE_WAY_OUT = (
    (ScanKind.LABELLED, "EVAIE", build.NOW + DAY),
    (ScanKind.IN_NETWORK, "EVIMC", build.NOW + DAY * 1.5),
    (ScanKind.OUT_FOR_DELIVERY, "EVGPD", build.NOW + 2 * DAY),
    (ScanKind.ATTEMPTED, "EVKNA", build.NOW + DAY * 2.1),
    (ScanKind.DELIVERED, "EVKSP", build.NOW + 3 * DAY),
    (ScanKind.RETURNED_TO_SENDER, "EVRTS", build.NOW + 9 * DAY),
)


@pytest.mark.parametrize("seed", [0, 8, 9, 11])
def test_any_events_of_both_parcels_end_the_same_however_they_come_and_no_kit_leaves_the_books(
    begin: Begin, seed: int
) -> None:
    dice = random.Random(seed)
    both = [(Direction.OUT, each) for each in WHOLE_WAY_OUT] + [(Direction.BACK, each) for each in JOURNEY]
    told = [each for each in both if dice.random() < 0.7]  # some are never told
    muddled = told + dice.choices(told, k=len(told)) if told else []
    dice.shuffle(muddled)
    ends = []
    for serial, order in zip(s10.numbers(f"M{chr(65 + seed)}"), (told, muddled), strict=False):
        kit = _dispatched(begin, serial)
        for direction, event in order:
            _take(begin, kit, [event], direction=direction)
        with begin() as session:
            stored = session.get_one(Kit, kit.id)
            parcels = [_parcel(session, kit, direction) for direction in (Direction.OUT, Direction.BACK)]
            cases = session.exec(select(ClinicCase.detail).where(ClinicCase.kit_id == kit.id)).all()
            places = [(each.status, each.first_scan_at, each.last_scan_at) for each in parcels]
            ends.append((stored.state, stored.posted_back_at, places, sorted(str(case) for case in cases)))
            session.rollback()

    assert ends[0] == ends[1]
    with begin() as session:
        balance = strike_balance(session, now=build.NOW + DAY)
    builders_own = {"order_decided"}  # they decide no order
    assert [each for each in balance.differences if each.check not in builders_own] == []
    assert balance.figures["kits"] == 2


@pytest.mark.parametrize("seed", range(6))
def test_muddled_scans_at_two_benches_and_courier_events_among_them_end_as_orderly_ones(
    begin: Begin, seed: int
) -> None:
    """Shuffled, doubled, missing and foreign scans; the courier's first words may come before a bench is online."""
    dice = random.Random(seed)
    outward = [each for each in WHOLE_WAY_OUT if dice.random() < 0.7]
    back = [each for each in JOURNEY if dice.random() < 0.7]
    ends = []
    for serial, muddled in zip(s10.numbers(f"X{chr(65 + seed)}"), (False, True), strict=False):
        with begin() as session:
            kit, neighbour = build.printed_kit(session), build.printed_kit(session)
        tubes, outer = _pieces(begin, kit)
        pieces = [kit.code, *tubes, serial, outer]
        told = [(Direction.OUT, each) for each in outward] + [(Direction.BACK, each) for each in back]
        if muddled:
            foreign = [neighbour.code, *_pieces(begin, neighbour)[0], _pieces(begin, neighbour)[1]]
            hands: list[str | tuple[ScanKind, str, datetime]] = dice.choices(pieces + foreign, k=12)
            hands += dice.sample(outward, k=len(outward) // 2)
            dice.shuffle(hands)
            for each in hands:
                if isinstance(each, str):
                    _scan(begin, each, by=dice.choice((PACKER, OTHER)))
                else:
                    _take(begin, kit, [each], direction=Direction.OUT)
            told = told + dice.choices(told, k=len(told)) if told else []
            dice.shuffle(told)
        _scan(begin, *pieces)
        for direction, event in told:
            _take(begin, kit, [event], direction=direction)
        with begin() as session:
            stored = session.get_one(Kit, kit.id)
            parcels = [_parcel(session, kit, direction) for direction in (Direction.OUT, Direction.BACK)]
            places = [(each.status, each.first_scan_at, each.last_scan_at) for each in parcels]
            texts = session.exec(select(Text.purpose, Text.state, Text.tells).where(Text.kit_id == kit.id)).all()
            cases = session.exec(select(ClinicCase.detail).where(ClinicCase.kit_id == kit.id)).all()
            numbers = [each.tracking_number == serial for each in parcels]
            ends.append((stored.state, stored.posted_back_at, places, sorted(texts), sorted(map(str, cases)), numbers))

    assert ends[0] == ends[1]
    with begin() as session:
        balance = strike_balance(session, now=build.NOW + DAY)
    assert [each for each in balance.differences if each.check != "order_decided"] == []
    assert balance.figures["kits"] == 4


def test_the_same_event_twice_is_stored_once(begin: Begin) -> None:
    kit = _dispatched(begin)

    assert (_take(begin, kit, JOURNEY * 2), _take(begin, kit, JOURNEY)) == (len(JOURNEY), 0)
    with begin() as session:
        assert len(session.exec(select(CourierEvent)).all()) == len(JOURNEY)


def test_the_first_return_scan_stops_every_unsent_reminder(begin: Begin) -> None:
    kit = _dispatched(begin)
    assert _texts(begin, kit, TextPurpose.RETURN_REMINDER) == [TextState.OWED] * 3

    _take(begin, kit, JOURNEY[1:2])

    assert _texts(begin, kit, TextPurpose.RETURN_REMINDER) == [TextState.CANCELLED] * 3


def test_a_label_that_was_only_made_stops_no_reminder(begin: Begin) -> None:
    kit = _dispatched(begin)

    _take(begin, kit, JOURNEY[:1])

    assert _texts(begin, kit, TextPurpose.RETURN_REMINDER) == [TextState.OWED] * 3
    assert _state(begin, kit) is KitState.DISPATCHED


def test_delivered_to_the_labs_post_room_is_not_received(begin: Begin) -> None:
    kit = _dispatched(begin)

    _take(begin, kit, JOURNEY)

    with begin() as session:
        stored = session.get_one(Kit, kit.id)
    assert (stored.state, stored.received_at) == (KitState.COMING_BACK, None)


def test_a_late_scan_does_not_bring_a_received_kit_back(begin: Begin) -> None:
    kit = _dispatched(begin)
    with begin() as session:
        move_kit(session, session.get_one(Kit, kit.id), KitState.AT_LAB, at=build.NOW + 11 * DAY, actor=FLOW)

    _take(begin, kit, JOURNEY)

    assert _state(begin, kit) is KitState.AT_LAB


def test_an_unknown_code_is_kept_raw_moves_nothing_and_is_shown_to_a_person(begin: Begin) -> None:
    kit = _dispatched(begin)

    _take(begin, kit, [(ScanKind.UNKNOWN, "EVXYZ", build.NOW + DAY)])

    with begin() as session:
        assert session.exec(select(CourierEvent.raw_code)).all() == ["EVXYZ"]
        assert _parcel(session, kit).status is ScanKind.LABELLED
        assert session.exec(select(ClinicCase.detail)).all() == [{"why": "unknown_scan"}]
    assert _state(begin, kit) is KitState.DISPATCHED


def test_a_parcel_that_came_back_to_us_ends_the_kit_stops_its_texts_and_asks_a_packer(begin: Begin) -> None:
    kit = _dispatched(begin)

    _take(begin, kit, [(ScanKind.RETURNED_TO_SENDER, "EVRTS", build.NOW + 5 * DAY)], direction=Direction.OUT)

    with begin() as session:
        stored = session.get_one(Kit, kit.id)
        case = session.exec(select(ClinicCase)).one()
    assert (stored.state, stored.closed_reason) == (KitState.RETURNED_TO_SENDER, "not_delivered")
    assert (case.kit_id, case.owner_role) == (kit.id, "packer")
    assert _texts(begin, kit, TextPurpose.RETURN_REMINDER) == [TextState.CANCELLED] * 3


def test_a_box_that_a_packer_finds_returned_is_the_same_as_the_couriers_word(begin: Begin) -> None:
    kit = _dispatched(begin)

    for _ in range(2):
        with begin() as session:
            came_back_to_sender(
                session,
                session.get_one(Kit, kit.id),
                service=build.service(),
                at=build.NOW + DAY,
                now=build.NOW + DAY,
                actor=PACKER,
            )

    with begin() as session:
        assert len(session.exec(select(ClinicCase)).all()) == 1
    assert _state(begin, kit) is KitState.RETURNED_TO_SENDER


# ── Lapses and silence ───────────────────────────────────────────────────────────────────────


def _lapse(begin: Begin, now: datetime) -> int:
    with begin() as session:
        return lapse_unreturned(session, services=SERVICES, now=now, limit=10, actor=FLOW, cipher=build.cipher())


def _asked(begin: Begin, kit: Kit, at: datetime) -> None:
    with begin() as session:
        parcel = _parcel(session, kit)
        parcel.polled_at = at
        session.add(parcel)


LAST_DAY = datetime(2027, 1, 23, 23, 59, tzinfo=UTC)
"""Sixty London days after build.NOW."""
TOO_LATE = LAST_DAY + timedelta(minutes=2)


def test_a_kit_lapses_after_its_last_day_with_a_reason_and_one_text(begin: Begin) -> None:
    kit = _dispatched(begin)
    _asked(begin, kit, TOO_LATE)

    assert (_lapse(begin, LAST_DAY), _lapse(begin, TOO_LATE), _lapse(begin, TOO_LATE)) == (0, 1, 0)

    with begin() as session:
        stored = session.get_one(Kit, kit.id)
    assert (stored.state, stored.closed_reason) == (KitState.LAPSED, "not_returned")
    assert _texts(begin, kit, TextPurpose.KIT_LAPSED) == [TextState.OWED]
    assert _texts(begin, kit, TextPurpose.RETURN_REMINDER) == [TextState.CANCELLED] * 3


def test_a_kit_does_not_lapse_while_the_courier_has_not_been_asked_since_its_last_day(begin: Begin) -> None:
    kit = _dispatched(begin)
    _asked(begin, kit, LAST_DAY)

    assert _lapse(begin, TOO_LATE + 5 * DAY) == 0


def test_a_lapsed_kit_that_is_scanned_after_all_comes_back_and_its_lapse_text_stays_unsent(begin: Begin) -> None:
    kit = _dispatched(begin)
    _asked(begin, kit, TOO_LATE)
    _lapse(begin, TOO_LATE)

    _take(begin, kit, JOURNEY[1:2])

    assert _state(begin, kit) is KitState.COMING_BACK
    assert _texts(begin, kit, TextPurpose.KIT_LAPSED) == [TextState.CANCELLED]


def test_a_parcel_silent_for_thirty_days_reaches_a_packer_once(begin: Begin) -> None:
    kit = _dispatched(begin)
    _take(begin, kit, JOURNEY[1:2])
    silent_since = JOURNEY[1][2]

    def stuck(now: datetime) -> int:
        with begin() as session:
            return report_stuck(session, service=build.service(), now=now, limit=10, actor=FLOW)

    assert stuck(silent_since + 30 * DAY) == 0
    assert (stuck(silent_since + 31 * DAY), stuck(silent_since + 32 * DAY)) == (1, 0)
    with begin() as session:
        assert session.exec(select(ClinicCase.kit_id)).all() == [kit.id]


def test_a_parcel_on_its_way_out_that_was_scanned_and_then_no_more_reaches_a_packer_once(begin: Begin) -> None:
    lost, arrived, unscanned = (_dispatched(begin, number) for number in islice(s10.numbers("EF"), 3))
    _take(begin, lost, OUTWARD[:1], direction=Direction.OUT)
    _take(begin, arrived, OUTWARD, direction=Direction.OUT)
    silent_since = OUTWARD[0][2]

    def stuck(now: datetime) -> int:
        with begin() as session:
            return report_stuck(session, service=build.service(), now=now, limit=10, actor=FLOW)

    assert stuck(silent_since + 10 * DAY) == 0
    assert (stuck(silent_since + 11 * DAY), stuck(silent_since + 12 * DAY)) == (1, 0)
    with begin() as session:
        [case] = session.exec(select(ClinicCase)).all()
    assert (case.kit_id, case.detail) == (lost.id, {"why": "silent_outbound"})
    assert unscanned.id != lost.id


def test_the_courier_is_not_asked_about_what_arrived_or_ended(begin: Begin) -> None:
    arrived, waiting, cancelled = (_dispatched(begin, number) for number in islice(s10.numbers("EF"), 3))
    _take(begin, arrived, JOURNEY)
    with begin() as session:
        cancel_kit(session, session.get_one(Kit, cancelled.id), now=build.NOW, actor=PACKER, reason="asked_by_resident")

    with begin() as session:
        asked = parcels_to_ask(session, asked_before=build.NOW + 20 * DAY, limit=10)
        back = _parcel(session, waiting)

    assert asked == [(back.id, back.tracking_number)]


def test_the_timeline_of_a_kit_tells_its_way_in_order(begin: Begin) -> None:
    kit = _dispatched(begin)
    _take(begin, kit, JOURNEY)

    with begin() as session:
        kinds = session.exec(select(KitEvent.kind).where(KitEvent.kit_id == kit.id).order_by(col(KitEvent.id))).all()
    steps = [kind for kind in kinds if not kind.startswith("pack.")]
    assert steps == ["kit.created", "kit.printed", "kit.dispatched", "parcel.delivered", "kit.coming_back"]
