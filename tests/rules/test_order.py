"""Who may have a kit (clinical.md 2; H1 H12 H13 H18; FEATURES 2-12). Every person here is invented."""

import hashlib
import itertools
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules import order as rules
from models.rules.order import (
    CONSEQUENCE,
    RULE_VERSION,
    Address,
    EarlierStop,
    History,
    MobileProof,
    Need,
    Order,
    OrderCase,
    OrderDecision,
    OrderOutcome,
    Reason,
    Safeguarding,
    Told,
    decide_order,
    is_about_safeguarding,
    latest_risk_at,
)
from models.rules.panel import BodyPart, Exposure
from models.rules.person import Postcode, age_on
from models.rules.phone import Mobile
from models.rules.service import (
    ClinicPolicy,
    LabContract,
    OrderPolicy,
    PackPolicy,
    ReleasePolicy,
    ReturnPolicy,
    Service,
    TextPolicy,
)
from models.rules.vocabulary import Test
from models.rules.working_days import london_day

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
TODAY = date(2026, 11, 24)
LEEDS = "E08000035"
ELSEWHERE = "E09000033"
HOME = Address(("1 Invented Row",), Postcode("LS1 4AP"))
ALL_NO = Safeguarding(pressured=False, paid=False, drink_or_drugs=False, low_mood=False, partner_age_gap=False)

SERVICE = Service(
    id="larkfield",
    name="Larkfield Sexual Health",
    text_name="Larkfield",
    phone="0113 496 0000",
    phone_hours="Monday to Friday, 9am to 5pm",
    web="https://larkfield.example",
    orders=OrderPolicy(local_authorities=frozenset({LEEDS})),
    packing=PackPolicy(),
    returns=ReturnPolicy(),
    release=ReleasePolicy(),
    texts=TextPolicy(),
    clinic=ClinicPolicy(),
    labs=(LabContract("northlab", carries_tube=True, tests=frozenset(Test)),),
)

GOOD = Order(
    given_name="Testina",
    family_name="Kit",
    date_of_birth=date(1995, 5, 5),
    mobile=Mobile("+447700900123"),
    mobile_proved_at=NOW - timedelta(minutes=5),
    mobile_proved_how=MobileProof.ONE_TIME_CODE,
    residence=HOME,
    delivery=HOME,
    body=frozenset({BodyPart.VAGINA}),
    last_risk_on=date(2026, 11, 1),
    text_consent=True,
    safeguarding=ALL_NO,
)


def decide(
    order: Order = GOOD,
    history: History = History(),  # noqa: B008 - frozen
    *,
    now: datetime = NOW,
    authority: str | None = LEEDS,
    **policy: object,
) -> OrderDecision:
    service = replace(SERVICE, orders=replace(SERVICE.orders, **policy))
    return decide_order(order, history, now=now, service=service, authority=authority)


def birthday(age: int) -> date:
    """The date of birth of someone who turned this age today."""
    return TODAY.replace(year=TODAY.year - age)


# ── The table ────────────────────────────────────────────────────────────────────────────────


def test_a_plain_order_is_accepted_without_a_word() -> None:
    decision = decide()

    assert decision.outcome is OrderOutcome.ACCEPTED
    assert (decision.reasons, decision.needs, decision.told) == ((), (), (Told.ACCEPTED,))


def test_every_reason_has_a_consequence() -> None:
    assert CONSEQUENCE.keys() == set(Reason)


@pytest.mark.parametrize("reason", [r for r in Reason if CONSEQUENCE[r].outcome is OrderOutcome.HELD])
def test_whatever_holds_an_order_opens_a_case(reason: Reason) -> None:
    assert CONSEQUENCE[reason].need is not None


def test_every_key_of_what_a_person_is_told_is_used() -> None:
    assert {consequence.told for consequence in CONSEQUENCE.values()} == set(Told)


GOLDEN = {"order-2": "e835b449334740d1822d44ea327b1ecb1e9861f2bf4f0e49f4ff224769cca576"}
"""The digest of the decisions below, by rule version: another digest needs another version (ruling 16)."""


def test_the_rule_version_changes_when_any_decision_changes() -> None:
    ages = [birthday(age) + timedelta(days=day) for age in (13, 16, 18) for day in (0, 1)]
    orders = [
        replace(GOOD, date_of_birth=born, **changes)
        for born, changes in itertools.product(
            ages,
            [
                {},
                {"symptoms": True},
                {"sexual_assault": True},
                {"last_risk_on": TODAY},
                {"last_risk_on": TODAY, "pregnancy_risk": True},
                {"last_risk_on": TODAY, "known_hiv": True},
                {"last_risk_on": None, "call_wanted": True},
                {"call_wanted": True},
                {"body": frozenset()},
                {"safeguarding": Safeguarding()},
                {"safeguarding": replace(ALL_NO, paid=True)},
                {"mobile_proved_at": NOW + timedelta(seconds=1)},
                {"exposures": frozenset(Exposure), "past_syphilis": True, "text_consent": False},
            ],
        )
    ]
    stop = EarlierStop(NOW - timedelta(days=1), frozenset(Reason), same_date_of_birth=True, last_risk_at=NOW)
    histories = [
        History(),
        History(mobile_of_another=True),
        History(safeguarding_case_open=True),
        History(kits_ordered_at=(NOW, NOW)),
        History(earlier_stops=(stop,)),
        History(earlier_stops=(replace(stop, same_date_of_birth=False),)),
    ]
    decisions = [
        decide(order, history, authority=authority)
        for order, history, authority in itertools.product(orders, histories, (LEEDS, ELSEWHERE, None))
    ]

    table = "\n".join([*map(str, CONSEQUENCE.items()), *map(str, decisions)])

    assert hashlib.sha256(table.encode()).hexdigest() == GOLDEN[RULE_VERSION]


# ── Age (FEATURES 2, 3; H12) ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("born", "reason"),
    [
        (birthday(13) + timedelta(days=1), Reason.UNDER_13),
        (birthday(13), Reason.UNDER_16),
        (birthday(16) + timedelta(days=1), Reason.UNDER_16),
    ],
)
def test_the_paths_of_children_change_on_the_birthday_itself(born: date, reason: Reason) -> None:
    decision = decide(replace(GOOD, date_of_birth=born))

    assert (decision.outcome, decision.reasons) == (OrderOutcome.REFUSED, (reason,))


def test_a_sixteenth_birthday_is_enough() -> None:
    assert decide(replace(GOOD, date_of_birth=birthday(16))).outcome is OrderOutcome.ACCEPTED


def test_age_is_counted_in_london_and_not_in_utc() -> None:
    half_past_midnight_in_london = datetime(2026, 6, 30, 23, 30, tzinfo=UTC)
    sixteen_on_the_first_of_july = replace(
        GOOD,
        date_of_birth=date(2010, 7, 1),
        mobile_proved_at=half_past_midnight_in_london,
        last_risk_on=date(2026, 6, 1),
    )

    assert decide(sixteen_on_the_first_of_july, now=half_past_midnight_in_london).outcome is OrderOutcome.ACCEPTED


def test_under_13_is_a_hard_stop_with_safeguarding_now_and_no_text() -> None:
    order = replace(GOOD, date_of_birth=birthday(12), symptoms=True, sexual_assault=True, call_wanted=True)
    decision = decide(order, authority=None)

    assert decision.outcome is OrderOutcome.REFUSED
    assert decision.reasons == (Reason.UNDER_13,)
    assert decision.told == (Told.TALK_TO_SOMEONE,)
    assert decision.needs == (Need(OrderCase.SAFEGUARDING, urgent=True),)
    assert not decision.may_text


def test_13_to_15_is_sent_to_a_young_peoples_clinic_and_rung_if_asked() -> None:
    order = replace(GOOD, date_of_birth=birthday(15))

    assert decide(order).told == (Told.YOUNG_PEOPLE,)
    assert decide(order).needs == ()
    assert decide(replace(order, call_wanted=True)).needs == (Need(OrderCase.ORDER_REVIEW),)


def test_a_council_may_ask_for_more_years_but_never_for_fewer_than_sixteen() -> None:
    seventeen, fifteen = replace(GOOD, date_of_birth=birthday(17)), replace(GOOD, date_of_birth=birthday(15))

    assert decide(seventeen, minimum_age_years=18).reasons == (Reason.UNDER_MINIMUM_AGE,)
    assert decide(fifteen, minimum_age_years=13).reasons == (Reason.UNDER_16,)


@pytest.mark.parametrize("born", [TODAY + timedelta(days=1), birthday(121)])
def test_an_impossible_date_of_birth_is_held_and_is_no_childs(born: date) -> None:
    decision = decide(replace(GOOD, date_of_birth=born))

    assert decision.outcome is OrderOutcome.HELD
    assert Reason.BIRTH_DATE_IMPOSSIBLE in decision.reasons
    assert Reason.UNDER_13 not in decision.reasons


# ── Safeguarding (FEATURES 10, 11; H12) ──────────────────────────────────────────────────────

QUESTIONS = ["pressured", "paid", "drink_or_drugs", "low_mood", "partner_age_gap"]


@pytest.mark.parametrize("question", QUESTIONS)
def test_any_flag_of_a_17_year_old_holds_the_order_and_opens_a_call(question: str) -> None:
    decision = decide(
        replace(GOOD, date_of_birth=birthday(17), safeguarding=replace(ALL_NO, **{question: True})),
    )

    assert (decision.outcome, decision.reasons) == (OrderOutcome.HELD, (Reason.SAFEGUARDING_FLAG,))
    assert decision.needs == (Need(OrderCase.SAFEGUARDING, urgent=True),)


def test_a_council_may_dispatch_and_call() -> None:
    flagged = replace(GOOD, date_of_birth=birthday(17), safeguarding=replace(ALL_NO, low_mood=True))
    decision = decide(flagged, safeguarding_flag_holds_dispatch=False)

    assert decision.outcome is OrderOutcome.ACCEPTED
    assert decision.needs == (Need(OrderCase.SAFEGUARDING, urgent=True),)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_that_a_16_year_old_left_out_holds_the_order(question: str) -> None:
    decision = decide(
        replace(GOOD, date_of_birth=birthday(16), safeguarding=replace(ALL_NO, **{question: None})),
    )

    assert (decision.outcome, decision.reasons) == (OrderOutcome.HELD, (Reason.SAFEGUARDING_UNANSWERED,))


def test_adults_are_not_asked_the_questions_of_under_18s() -> None:
    assert decide(replace(GOOD, date_of_birth=birthday(18), safeguarding=Safeguarding())).outcome is (
        OrderOutcome.ACCEPTED
    )


def test_a_refused_15_year_old_with_a_flag_still_gets_the_call() -> None:
    decision = decide(
        replace(GOOD, date_of_birth=birthday(15), safeguarding=replace(ALL_NO, pressured=True)),
    )

    assert decision.outcome is OrderOutcome.REFUSED
    assert decision.needs == (Need(OrderCase.SAFEGUARDING, urgent=True),)


def test_an_open_flag_holds_a_new_order_whatever_it_says() -> None:
    decision = decide(history=History(safeguarding_case_open=True))

    assert (decision.outcome, decision.reasons) == (OrderOutcome.HELD, (Reason.EARLIER_FLAG,))


@pytest.mark.parametrize("stopped_for", sorted(rules.SAFEGUARDING_STOPS))
def test_coming_back_older_after_a_stop_makes_no_kit_and_one_urgent_case(stopped_for: Reason) -> None:
    stop = EarlierStop(NOW - timedelta(minutes=2), frozenset({stopped_for}), same_date_of_birth=False)
    decision = decide(replace(GOOD, date_of_birth=birthday(18)), History(earlier_stops=(stop,)))

    assert (decision.outcome, decision.reasons) == (OrderOutcome.HELD, (Reason.RE_ENTRY,))
    assert decision.needs == (Need(OrderCase.SAFEGUARDING, urgent=True),)


def test_a_flag_survives_twenty_edits() -> None:
    first = EarlierStop(NOW, frozenset({Reason.UNDER_16}), same_date_of_birth=False)
    edits = tuple(
        EarlierStop(NOW + timedelta(minutes=n), frozenset({Reason.RE_ENTRY}), same_date_of_birth=False)
        for n in range(20)
    )
    later = NOW + timedelta(days=400)
    order = replace(GOOD, mobile_proved_at=later, last_risk_on=TODAY + timedelta(days=380))

    assert decide(order, History(earlier_stops=(first, *edits)), now=later).reasons == (Reason.RE_ENTRY,)


def test_a_child_who_really_grew_up_is_served() -> None:
    stop = EarlierStop(NOW - timedelta(days=366), frozenset({Reason.UNDER_16}), same_date_of_birth=True)

    assert decide(history=History(earlier_stops=(stop,))).outcome is OrderOutcome.ACCEPTED


# ── Diversions (FEATURES 9; H18) ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("ago", "diverted"),
    [
        (timedelta(0), True),
        (timedelta(hours=72), True),
        (timedelta(hours=72, seconds=1), False),
    ],
)
def test_pep_is_open_for_72_hours_to_the_second(ago: timedelta, *, diverted: bool) -> None:
    decision = decide(replace(GOOD, last_risk_on=None, last_risk_at=NOW - ago))

    assert (Reason.PEP_WINDOW in decision.reasons) == diverted
    assert (decision.outcome is OrderOutcome.REFUSED) == diverted


@pytest.mark.parametrize(
    ("ago", "diverted"),
    [(timedelta(hours=73), True), (timedelta(days=5), True), (timedelta(days=5, seconds=1), False)],
)
def test_emergency_contraception_is_open_for_five_days_to_the_second(ago: timedelta, *, diverted: bool) -> None:
    order = replace(GOOD, last_risk_on=None, last_risk_at=NOW - ago)

    assert Reason.EMERGENCY_CONTRACEPTION not in decide(order).reasons
    assert (Reason.EMERGENCY_CONTRACEPTION in decide(replace(order, pregnancy_risk=True)).reasons) == diverted


@pytest.mark.parametrize(("day", "diverted"), [(date(2026, 11, 20), False), (date(2026, 11, 21), True)])
def test_a_risk_date_without_an_hour_counts_as_its_last_moment(day: date, *, diverted: bool) -> None:
    assert (Reason.PEP_WINDOW in decide(replace(GOOD, last_risk_on=day)).reasons) == diverted


def test_72_hours_are_72_hours_across_a_clock_change() -> None:
    clocks_went_back = datetime(2026, 10, 25, 1, 0, tzinfo=UTC)
    order = replace(
        GOOD,
        last_risk_on=None,
        last_risk_at=clocks_went_back - timedelta(hours=10),
        mobile_proved_at=clocks_went_back,
    )

    in_time = decide(order, now=clocks_went_back + timedelta(hours=62))
    late = decide(order, now=clocks_went_back + timedelta(hours=62, seconds=1))

    assert in_time.reasons == (Reason.PEP_WINDOW,)
    assert late.outcome is OrderOutcome.ACCEPTED


def test_pep_is_not_for_someone_who_lives_with_hiv() -> None:
    order = replace(GOOD, last_risk_on=TODAY, known_hiv=True)

    assert decide(order).outcome is OrderOutcome.ACCEPTED


@pytest.mark.parametrize(
    "risk",
    [
        {"last_risk_on": None},
        {"last_risk_on": TODAY + timedelta(days=1)},
        {"last_risk_at": NOW + timedelta(seconds=1)},
    ],
)
def test_a_risk_that_is_untold_or_still_to_come_is_held_for_a_call(risk: dict[str, object]) -> None:
    decision = decide(replace(GOOD, **risk))

    assert (decision.outcome, decision.reasons) == (OrderOutcome.HELD, (Reason.RISK_UNKNOWN,))
    assert decision.needs == (Need(OrderCase.ORDER_REVIEW, urgent=True),)


def test_an_assault_is_met_with_care_and_a_call_and_not_with_a_kit() -> None:
    decision = decide(replace(GOOD, sexual_assault=True))

    assert (decision.outcome, decision.told) == (OrderOutcome.REFUSED, (Told.ASSAULT,))
    assert decision.needs == (Need(OrderCase.SAFEGUARDING, urgent=True),)


def test_symptoms_divert_where_the_council_says_so() -> None:
    order = replace(GOOD, symptoms=True)

    assert decide(order).told == (Told.SYMPTOMS,)
    assert decide(order, symptoms_divert=False).outcome is OrderOutcome.ACCEPTED


def test_every_diversion_is_told_even_to_someone_from_elsewhere() -> None:
    decision = decide(replace(GOOD, last_risk_on=TODAY, pregnancy_risk=True), authority=ELSEWHERE)

    assert decision.told == (Told.PEP, Told.CONTRACEPTION)
    assert decision.reasons == (Reason.PEP_WINDOW, Reason.EMERGENCY_CONTRACEPTION, Reason.OUT_OF_AREA)


PEP_STOP = EarlierStop(
    NOW - timedelta(minutes=3),
    frozenset({Reason.PEP_WINDOW}),
    same_date_of_birth=True,
    last_risk_at=NOW - timedelta(hours=70),
)


def test_an_earlier_risk_date_after_a_pep_stop_is_an_edit() -> None:
    decision = decide(history=History(earlier_stops=(PEP_STOP,)))

    assert (decision.outcome, decision.reasons) == (OrderOutcome.HELD, (Reason.ANSWERS_CHANGED,))


def test_the_same_answers_again_are_no_edit() -> None:
    again = replace(GOOD, last_risk_on=None, last_risk_at=PEP_STOP.last_risk_at)

    assert decide(again, History(earlier_stops=(PEP_STOP,))).reasons == (Reason.PEP_WINDOW,)


def test_once_72_hours_have_passed_the_same_person_may_order() -> None:
    later = NOW + timedelta(hours=3)

    assert decide(history=History(earlier_stops=(PEP_STOP,)), now=later).outcome is OrderOutcome.ACCEPTED


@pytest.mark.parametrize(("ago", "held"), [(timedelta(days=14), True), (timedelta(days=14, seconds=1), False)])
def test_symptoms_gone_within_a_fortnight_of_a_stop_are_an_edit(ago: timedelta, *, held: bool) -> None:
    stop = EarlierStop(NOW - ago, frozenset({Reason.SYMPTOMS}), same_date_of_birth=True)

    assert (decide(history=History(earlier_stops=(stop,))).outcome is OrderOutcome.HELD) == held


# ── Mobile, area, frequency, contents (FEATURES 4-8) ─────────────────────────────────────────


def test_a_second_person_on_a_live_mobile_is_refused_with_a_next_step_and_not_by_text() -> None:
    decision = decide(history=History(mobile_of_another=True))

    assert (decision.outcome, decision.told) == (OrderOutcome.REFUSED, (Told.SHARED_MOBILE,))
    assert not decision.may_text


@pytest.mark.parametrize(
    ("proved_at", "good"),
    [
        (NOW, True),
        (NOW - timedelta(days=180), True),
        (NOW - timedelta(days=180, seconds=1), False),
        (NOW + timedelta(seconds=1), False),
    ],
)
def test_a_mobile_counts_only_while_its_proof_is_fresh(proved_at: datetime, *, good: bool) -> None:
    decision = decide(replace(GOOD, mobile_proved_at=proved_at))

    assert (decision.outcome is OrderOutcome.ACCEPTED) == good
    assert decision.may_text == good


@pytest.mark.parametrize(("frozen_ago", "good"), [(timedelta(minutes=6), True), (timedelta(minutes=5), False)])
def test_only_a_proof_after_the_freeze_makes_a_frozen_mobile_good_again(frozen_ago: timedelta, *, good: bool) -> None:
    decision = decide(history=History(mobile_frozen_at=NOW - frozen_ago))

    assert (decision.outcome is OrderOutcome.ACCEPTED) == good
    assert decision.may_text == good


def test_someone_from_another_area_is_told_where_to_go() -> None:
    decision = decide(authority=ELSEWHERE)

    assert (decision.outcome, decision.told) == (OrderOutcome.REFUSED, (Told.ELSEWHERE,))


def test_an_unknown_postcode_is_held_for_staff_and_never_refused() -> None:
    decision = decide(authority=None)

    assert (decision.outcome, decision.told) == (OrderOutcome.HELD, (Told.CHECKING_ADDRESS,))
    assert decision.needs == (Need(OrderCase.ORDER_REVIEW),)


def test_where_the_parcel_goes_changes_nothing() -> None:
    elsewhere = Address(("9 Collect Lane",), Postcode("SW1A 1AA"))

    assert decide(replace(GOOD, delivery=elsewhere)) == decide()


@pytest.mark.parametrize(
    ("earlier", "held"),
    [
        ((timedelta(days=1),), False),
        ((timedelta(days=1), timedelta(days=183)), True),
        ((timedelta(days=1), timedelta(days=183, seconds=1)), False),
    ],
)
def test_the_third_kit_in_six_months_is_held_for_a_call(earlier: tuple[timedelta, ...], *, held: bool) -> None:
    decision = decide(history=History(kits_ordered_at=tuple(NOW - ago for ago in earlier)))

    assert (decision.outcome is OrderOutcome.HELD) == held
    assert (Reason.TOO_OFTEN in decision.reasons) == held


def test_an_order_that_names_no_organ_is_held() -> None:
    assert decide(replace(GOOD, body=frozenset())).reasons == (Reason.BODY_NOT_STATED,)


def test_an_order_that_the_laboratory_can_test_nothing_of_is_held() -> None:
    service = replace(SERVICE, labs=(LabContract("northlab", carries_tube=True, tests=frozenset()),))
    decision = decide_order(GOOD, History(), now=NOW, service=service, authority=LEEDS)

    assert (decision.outcome, decision.reasons) == (OrderOutcome.HELD, (Reason.NOTHING_TO_TEST,))


def test_a_call_that_was_asked_for_is_owed_beside_a_kit_too() -> None:
    assert decide(replace(GOOD, call_wanted=True)).needs == (Need(OrderCase.REPLY),)


def test_without_consent_there_is_no_text() -> None:
    assert not decide(replace(GOOD, text_consent=False)).may_text


def test_an_orders_repr_says_nothing_of_the_person() -> None:
    shown = repr(GOOD)

    assert not any(secret in shown for secret in ("Testina", "Kit'", "1995", "7700", "Invented", "LS1"))


# ── Properties ───────────────────────────────────────────────────────────────────────────────

moments = st.datetimes(datetime(2026, 10, 1), datetime(2026, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
orders = st.builds(
    Order,
    given_name=st.just("Testina"),
    family_name=st.just("Kit"),
    date_of_birth=st.dates(date(1900, 1, 1), date(2027, 12, 31)),
    mobile=st.just(Mobile("+447700900123")),
    mobile_proved_at=moments,
    mobile_proved_how=st.sampled_from(MobileProof),
    residence=st.just(HOME),
    delivery=st.just(HOME),
    body=st.frozensets(st.sampled_from(BodyPart)),
    exposures=st.frozensets(st.sampled_from(Exposure)),
    last_risk_on=st.none() | st.dates(date(2026, 9, 1), date(2026, 12, 31)),
    last_risk_at=st.none() | moments,
    symptoms=st.booleans(),
    pregnancy_risk=st.booleans(),
    sexual_assault=st.booleans(),
    known_hiv=st.booleans(),
    past_syphilis=st.booleans(),
    text_consent=st.booleans(),
    call_wanted=st.booleans(),
    safeguarding=st.builds(Safeguarding, *[st.none() | st.booleans()] * 5),
)
stops = st.builds(
    EarlierStop,
    decided_at=moments,
    reasons=st.frozensets(st.sampled_from(Reason)),
    same_date_of_birth=st.booleans(),
    last_risk_at=st.none() | moments,
)
histories = st.builds(
    History,
    mobile_of_another=st.booleans(),
    kits_ordered_at=st.lists(moments, max_size=4).map(tuple),
    safeguarding_case_open=st.booleans(),
    earlier_stops=st.lists(stops, max_size=3).map(tuple),
)
decided = st.tuples(orders, histories, moments, st.sampled_from([LEEDS, ELSEWHERE, None]))


@given(decided)
def test_a_kit_goes_only_where_every_point_is_proved(case: tuple[Order, History, datetime, str | None]) -> None:
    order, history, now, authority = case
    decision = decide(order, history, now=now, authority=authority)

    if decision.outcome is OrderOutcome.ACCEPTED:
        risk_at = latest_risk_at(order, now)
        assert authority == LEEDS
        assert 16 <= age_on(order.date_of_birth, london_day(now)) <= 120
        assert age_on(order.date_of_birth, london_day(now)) >= 18 or order.safeguarding == ALL_NO
        assert risk_at is not None
        assert order.known_hiv or now - risk_at > timedelta(hours=72)
        assert now - risk_at > timedelta(days=5) or not order.pregnancy_risk
        assert not any((order.symptoms, order.sexual_assault))
        assert timedelta(0) <= now - order.mobile_proved_at <= timedelta(days=180)
        assert not any((history.mobile_of_another, history.safeguarding_case_open))
        assert order.body
        assert decision.panel.samples
        assert not any(
            stop.reasons & rules.SAFEGUARDING_STOPS for stop in history.earlier_stops if not stop.same_date_of_birth
        )


@given(decided)
def test_every_order_ends_in_one_outcome_with_something_told(
    case: tuple[Order, History, datetime, str | None],
) -> None:
    order, history, now, authority = case
    decision = decide(order, history, now=now, authority=authority)

    assert decision.told
    assert (decision.outcome is OrderOutcome.ACCEPTED) == (decision.told == (Told.ACCEPTED,))
    assert decision.outcome is not OrderOutcome.HELD or decision.needs
    assert len({need.case for need in decision.needs}) == len(decision.needs)


@given(decided)
def test_a_child_under_13_never_gets_a_text_or_anything_but_safeguarding(
    case: tuple[Order, History, datetime, str | None],
) -> None:
    order, history, now, authority = case
    child = replace(order, date_of_birth=london_day(now) - timedelta(days=12 * 365))
    decision = decide(child, history, now=now, authority=authority)

    assert decision.reasons == (Reason.UNDER_13,)
    assert not decision.may_text
    assert decision.needs == (Need(OrderCase.SAFEGUARDING, urgent=True),)


def test_every_reason_that_opens_a_safeguarding_case_is_about_safeguarding_and_no_other() -> None:
    about = {reason for reason in Reason if is_about_safeguarding(reason.value)}

    assert {Reason.SEXUAL_ASSAULT, Reason.SAFEGUARDING_FLAG, Reason.UNDER_13} <= about
    assert not {Reason.OUT_OF_AREA, Reason.SYMPTOMS, Reason.TOO_OFTEN} & about
    assert not is_about_safeguarding("a word of an older rule")
