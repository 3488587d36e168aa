import json
from dataclasses import fields
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules.errors import Code, ServiceError
from models.rules.service import TextPolicy
from models.rules.text import (
    CLASS_OF,
    GSM_BASIC,
    GSM_EXTENDED,
    AllClear,
    BadWording,
    CollectionCode,
    ExpectCall,
    FailedSample,
    FailedTest,
    KitLapsed,
    KitPosted,
    KitReady,
    OrderReceived,
    PlaceName,
    ReceivedAtLab,
    ReturnReminder,
    SwabInfection,
    SwabPositive,
    TellableFailure,
    TextClass,
    TextPurpose,
    TextValues,
    WordingFault,
    check_body,
    read_values,
    retest_from,
    segments,
    window_of,
    write_values,
)
from models.rules.vocabulary import BLOOD_TESTS, SAMPLE_FAILURES, Language, Outcome, Site, Test, Wording

DAY = date(2027, 2, 24)
HIV = (Test.HIV, Site.BLOOD)
CHLAMYDIA = (Test.CHLAMYDIA, Site.URINE)
WINDOWS = {test: 90 if test in BLOOD_TESTS else 14 for test in Test}


# ── What a text can tell ─────────────────────────────────────────────────────────────────────


def test_the_findings_a_text_can_tell_are_two():
    assert {str(infection) for infection in SwabInfection} == {"chlamydia", "gonorrhoea"}


@pytest.mark.parametrize("test", sorted(Test))
def test_no_other_word_passes_for_a_finding(test):
    """Test.CHLAMYDIA equals SwabInfection.CHLAMYDIA as a string: only the kind may count."""
    with pytest.raises(ServiceError):
        SwabPositive(frozenset({test}), so_far=False)


@pytest.mark.parametrize("test", sorted(BLOOD_TESTS))
@pytest.mark.parametrize("purpose", sorted(TextPurpose))
def test_no_purpose_reads_a_blood_infection_as_found(purpose, test):
    with pytest.raises(ServiceError) as refused:
        read_values(purpose, json.dumps({"found": [test], "so_far": False}))
    assert refused.value.code is Code.BAD_INPUT
    assert test not in str(refused.value)


@pytest.mark.parametrize("outcome", sorted(set(Outcome) - SAMPLE_FAILURES))
def test_only_a_failed_sample_can_be_told_as_failed(outcome):
    with pytest.raises(ServiceError):
        TellableFailure.of(outcome)


@pytest.mark.parametrize("outcome", sorted(SAMPLE_FAILURES))
def test_every_failed_sample_can_be_told(outcome):
    assert TellableFailure.of(outcome) == outcome


@pytest.mark.parametrize("outcome", [Outcome.REACTIVE, Outcome.ID_MISMATCH, Outcome.INSUFFICIENT])
def test_an_outcome_cannot_stand_where_a_tellable_failure_must(outcome):
    with pytest.raises(ServiceError):
        FailedTest(Test.HIV, Site.BLOOD, outcome)


def test_expect_our_call_takes_nothing():
    assert fields(ExpectCall) == ()
    with pytest.raises(TypeError):
        ExpectCall("anything")


def test_no_value_of_any_text_can_carry_free_words():
    """So that no name, address or finding can slip into a body."""
    for kind in TextValues.__args__:
        for each in fields(kind):
            assert each.type not in (str, "str", object, "object")


@pytest.mark.parametrize("words", ["", " x", "Larkfield HIV Clinic", "see evil.example", "Tŷ Gwyn", "x" * 41, "{name}"])
def test_a_place_that_texts_name_says_nothing_of_health(words):
    with pytest.raises(ServiceError):
        PlaceName(words)


@pytest.mark.parametrize("code", ["", "7K3F9", "7K3F99", "Testina", "HIV pos"])
def test_a_code_in_a_text_is_a_code(code):
    with pytest.raises(ServiceError):
        CollectionCode(code)
    with pytest.raises(ServiceError, match="Only a PlaceName may stand here"):
        KitReady(code, code, date(2027, 1, 1))


def test_a_result_text_lists_something_and_nothing_twice():
    for tested in ((), (HIV, HIV)):
        with pytest.raises(ServiceError):
            AllClear(tested, None)
    with pytest.raises(ServiceError):
        FailedSample((), (HIV,), None)
    with pytest.raises(ServiceError):
        FailedSample((FailedTest(*HIV, TellableFailure.LEAKED),), (HIV,), None)
    with pytest.raises(ServiceError):
        SwabPositive(frozenset(), so_far=False)


targets = st.lists(st.tuples(st.sampled_from(Test), st.sampled_from(Site)), min_size=1, max_size=12, unique=True)
maybe_day = st.none() | st.dates(date(2026, 1, 1), date(2030, 1, 1))
some_day = st.dates(date(2026, 1, 1), date(2030, 1, 1))


@st.composite
def failed_samples(draw):
    listed = sorted(draw(targets))
    cut = draw(st.integers(1, len(listed)))
    whys = st.sampled_from(TellableFailure)
    failed = tuple(sorted((FailedTest(*t, draw(whys)) for t in listed[:cut]), key=lambda f: (f.test, f.site, f.why)))
    return FailedSample(failed, tuple(listed[cut:]), draw(maybe_day))


any_values = st.one_of(
    st.sampled_from([OrderReceived(), ReceivedAtLab(), KitLapsed(), ExpectCall()]),
    st.builds(KitPosted, some_day),
    st.builds(ReturnReminder, some_day, st.booleans()),
    st.builds(AllClear, targets.map(sorted).map(tuple), maybe_day),
    failed_samples(),
    st.builds(SwabPositive, st.frozensets(st.sampled_from(SwabInfection), min_size=1), st.booleans()),
)


@given(any_values)
def test_values_are_read_as_they_were_written(values):
    assert read_values(values.purpose, write_values(values)) == values


@given(st.permutations([HIV, CHLAMYDIA, (Test.GONORRHOEA, Site.URINE)]))
def test_the_same_set_is_written_the_same_way_in_any_order(tested):
    assert write_values(AllClear(tuple(tested), DAY)) == write_values(AllClear(tuple(sorted(tested)), DAY))


def test_values_are_not_read_for_another_purpose():
    told = write_values(AllClear((HIV,), None))
    for purpose in set(TextPurpose) - {TextPurpose.ALL_CLEAR}:
        with pytest.raises(ServiceError):
            read_values(purpose, told)


def test_every_first_contact_about_an_outcome_leaves_in_one_window():
    about_outcomes = {
        TextPurpose.ALL_CLEAR,
        TextPurpose.FAILED_SAMPLE,
        TextPurpose.SWAB_POSITIVE,
        TextPurpose.PLEASE_EXPECT_OUR_CALL,
    }
    assert {purpose for purpose, group in CLASS_OF.items() if group is TextClass.RESULT} == about_outcomes
    assert len({window_of(purpose, TextPolicy()) for purpose in about_outcomes}) == 1


def test_every_purpose_has_a_class_and_a_window():
    assert CLASS_OF.keys() == set(TextPurpose)
    assert window_of(TextPurpose.RETURN_REMINDER, TextPolicy()) == TextPolicy().reminder_window
    assert window_of(TextPurpose.KIT_POSTED, TextPolicy()) == TextPolicy().routine_window


# ── From when a risk would show ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("last_risk_on", "sampled_on", "retest_on"),
    [
        (date(2026, 9, 1), date(2026, 9, 14), date(2026, 11, 30)),
        (date(2026, 9, 1), date(2026, 11, 29), date(2026, 11, 30)),
        (date(2026, 9, 1), date(2026, 11, 30), None),
        (None, date(2026, 9, 14), date(2026, 12, 13)),
    ],
)
def test_a_negative_counts_from_the_day_its_window_closes(last_risk_on, sampled_on, retest_on):
    tested = [HIV, CHLAMYDIA]
    assert retest_from(tested, sampled_on=sampled_on, last_risk_on=last_risk_on, window_days=WINDOWS) == retest_on


def test_only_the_tests_that_were_done_set_the_date():
    risk, sampled = date(2026, 9, 1), date(2026, 9, 10)
    days = {t: retest_from([t], sampled_on=sampled, last_risk_on=risk, window_days=WINDOWS) for t in (HIV, CHLAMYDIA)}
    assert days == {HIV: date(2026, 11, 30), CHLAMYDIA: date(2026, 9, 15)}


@given(some_day, st.integers(0, 400), targets)
def test_nobody_is_sent_back_for_a_day_already_past_when_sampled(risk, days, tested):
    sampled = risk + timedelta(days=days)
    retest_on = retest_from(tested, sampled_on=sampled, last_risk_on=risk, window_days=WINDOWS)
    assert retest_on is None or retest_on > sampled


@pytest.mark.parametrize("window_days", [None, {}, {Test.HIV: 45}])
def test_a_test_without_a_window_stops_the_service_instead_of_the_caveat(window_days):
    with pytest.raises(ServiceError) as refused:
        retest_from([HIV, CHLAMYDIA], sampled_on=DAY, last_risk_on=None, window_days=window_days)
    assert refused.value.code is Code.SETTINGS


# ── Segments ─────────────────────────────────────────────────────────────────────────────────


SEGMENTS = [
    ("", 0),
    ("a", 1),
    ("a" * 160, 1),
    ("a" * 161, 2),
    ("a" * 306, 2),
    ("a" * 307, 3),
    ("é" * 160, 1),
    ("\u20ac" * 80, 1),
    ("\u20ac" * 81, 2),
    ("a" + "\u20ac" * 79, 1),
    # an escape pair is not split: it opens the next part, and one place stays empty
    ("a" * 152 + "\u20ac" + "a" * 151, 2),
    ("a" * 152 + "\u20ac" + "a" * 152, 3),
    ("\u20ac" * 152, 2),
    ("\u20ac" * 153, 3),
    ("ŵ" * 70, 1),
    ("ŵ" * 71, 2),
    ("ŵ" * 134, 2),
    ("ŵ" * 135, 3),
    ("ŵ" + "a" * 69, 1),
    ("ŵ" + "a" * 70, 2),
    ("\U0001f600" * 35, 1),
    ("\U0001f600" * 36, 2),
    # nor is a surrogate pair: 33 fit in 67 units
    ("\U0001f600" * 66, 2),
    ("\U0001f600" * 67, 3),
    ("ŵ" * 66 + "\U0001f600" + "ŵ" * 65, 2),
    ("ŵ" * 66 + "\U0001f600" + "ŵ" * 66, 3),
]


@pytest.mark.parametrize(("body", "count"), SEGMENTS, ids=range(len(SEGMENTS)))
def test_segments_are_counted_exactly(body, count):
    assert segments(body) == count


def test_the_alphabet_has_its_127_and_10_characters():
    assert len(GSM_BASIC) == 127
    assert len(GSM_EXTENDED) == 10
    assert not GSM_BASIC & GSM_EXTENDED


@given(st.text(alphabet="aé€[ŵ\U0001f600", max_size=400))
def test_a_longer_body_never_has_fewer_segments(body):
    assert segments(body + "a") >= segments(body)


# ── Whether a body may leave ─────────────────────────────────────────────────────────────────

OPENING = "Harbour Post: this is the update you asked for."


def fault_of(body, *, language=Language.ENGLISH, wording=Wording.NAMED):
    with pytest.raises(BadWording) as refused:
        check_body(body, language=language, wording=wording, max_segments=2, web="https://kits.example.gov.uk")
    assert refused.value.code is Code.TEMPLATE
    assert body[:20] == "" or body[:20] not in refused.value.message
    return refused.value.fault


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("", WordingFault.EMPTY),
        ("  ", WordingFault.EMPTY),
        (f"{OPENING} Call {{{{ phone }}}}.", WordingFault.UNRENDERED),
        (f"{OPENING} Not found: . Call us.", WordingFault.UNRENDERED),
        (f"{OPENING} Please post it by None.", WordingFault.UNRENDERED),
        (f"{OPENING}  Call us.", WordingFault.UNRENDERED),
        (f"{OPENING}\nCall us.", WordingFault.CONTROL_CHARACTER),
        (f"{OPENING} Call\u202e us.", WordingFault.CONTROL_CHARACTER),
        (f"{OPENING} It\u2019s here.", WordingFault.CHARACTER_NOT_ALLOWED),
        (f"{OPENING} ŵ", WordingFault.CHARACTER_NOT_ALLOWED),
        (f"{OPENING} {'a' * 306}", WordingFault.TOO_LONG),
        (f"{OPENING} See https://bit.ly/x", WordingFault.FOREIGN_LINK),
        (f"{OPENING} See example.gov.uk", WordingFault.FOREIGN_LINK),
        (f"{OPENING} See kits.example.gov.uk.evil.com/x", WordingFault.FOREIGN_LINK),
        (f"{OPENING} See evilkits.example.gov.uk", WordingFault.FOREIGN_LINK),
        (f"{OPENING} HIV: reactive.", WordingFault.REACTIVE),
        (f"{OPENING} HIV: adweithiol.", WordingFault.REACTIVE),
        ("Your sexual health results are ready.", WordingFault.REVEALING_START),
        ("Harbour Post: your test came back today.", WordingFault.REVEALING_START),
        ("Harbour Post: canlyniad eich prawf yma nawr.", WordingFault.REVEALING_START),
        ("Harbour Post: here is what we know: chlamydia.", WordingFault.REVEALING_START),
    ],
)
def test_a_body_that_may_not_leave_says_why(body, fault):
    assert fault_of(body) is fault


@pytest.mark.parametrize("word", ["chlamydia", "HIV", "tested", "results", "kit", "lab", "blood", "clinic", "Negative"])
def test_a_discreet_body_speaks_of_no_test_anywhere(word):
    body = f"{OPENING} It is about your {word}."
    assert fault_of(body, wording=Wording.DISCREET) is WordingFault.REVEALING_DISCREET
    check_body(
        body, language=Language.ENGLISH, wording=Wording.NAMED, max_segments=2, web="https://kits.example.gov.uk"
    )


@pytest.mark.parametrize(
    "word", ["chlamydia", "glamydia", "gonorea", "brawf", "phrofi", "ganlyniad", "labordy", "waed", "haint"]
)
def test_a_discreet_welsh_body_hides_mutated_words_too(word):
    body = f"Harbour Post: diweddariad am eich archeb gyda {word} heddiw."
    assert fault_of(body, language=Language.WELSH, wording=Wording.DISCREET) is WordingFault.REVEALING_DISCREET


def test_harmless_words_that_only_look_revealing_pass():
    body = f"{OPENING} The latest label is correctly rectified at our ability; the text was sent in April."
    check_body(
        body, language=Language.ENGLISH, wording=Wording.DISCREET, max_segments=2, web="https://kits.example.gov.uk"
    )


def test_welsh_letters_may_stand_in_welsh_only_and_cost_ucs2():
    body = "Harbour Post: mae eich archeb ar ei ffordd i'ch tŷ."
    check_body(
        body, language=Language.WELSH, wording=Wording.DISCREET, max_segments=1, web="https://kits.example.gov.uk"
    )
    assert fault_of(body) is WordingFault.CHARACTER_NOT_ALLOWED


@pytest.mark.parametrize(
    "link", ["kits.example.gov.uk", "https://kits.example.gov.uk/new", "HTTPS://my.kits.example.gov.uk"]
)
def test_links_to_the_services_own_domain_pass(link):
    check_body(
        f"{OPENING} See {link}",
        language=Language.ENGLISH,
        wording=Wording.NAMED,
        max_segments=2,
        web="https://kits.example.gov.uk/",
    )
