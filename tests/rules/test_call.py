"""What a caller says: the passages fit the results, and no blood screen is ever said to be found (H7)."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules.call import Say, what_to_say
from models.rules.clinic import CaseKind
from models.rules.vocabulary import BLOOD_TESTS, IDENTITY_FAILURES, REACTIONS, Outcome, Test
from tests.rules.test_clinic import case, cases

WORDS = tomllib.loads((Path(__file__).parents[2] / "templates/pages/calls.toml").read_text("utf-8"))
ABOUT_FINDINGS = {Say.CHLAMYDIA, Say.GONORRHOEA, Say.OTHER_POSITIVE}


@given(st.sampled_from(sorted(BLOOD_TESTS)), st.sampled_from(sorted(REACTIONS)), st.sampled_from(CaseKind))
def test_a_blood_screen_that_reacted_is_never_called_a_finding(test, outcome, kind):
    assert not set(what_to_say(case(kind, items=frozenset({(test, outcome)})))) & ABOUT_FINDINGS


@given(cases)
def test_nobody_is_told_a_result_while_it_may_not_be_theirs(facts):
    said = set(what_to_say(facts))

    if facts.kind is CaseKind.IDENTITY or {outcome for _, outcome in facts.items} & IDENTITY_FAILURES:
        assert said <= {Say.OPENING, Say.WHOSE_SAMPLE, Say.CLOSING, Say.VOICEMAIL, Say.INTERPRETER}


@given(cases)
def test_every_call_begins_with_who_it_is_and_a_voicemail_is_offered_only_where_it_was_agreed(facts):
    said = what_to_say(facts)

    assert not said or said[0] is Say.OPENING
    assert facts.may_leave_voicemail or Say.VOICEMAIL not in said


@pytest.mark.parametrize("language", ["en", "cy"])
@pytest.mark.parametrize("passage", [Say.REACTIVE, Say.LOW_REACTIVE])
def test_the_words_for_a_reaction_say_blood_from_the_arm_and_no_diagnosis(language, passage):
    said = WORDS[language][passage].lower()
    arm, none = {"en": ("from your arm", "not a diagnosis"), "cy": ("o'ch braich", "nid diagnosis")}[language]

    assert arm in said
    assert none in said
    assert not [word for word in ("positive", "found", "infected", "canfod", "positif") if word in said]


@pytest.mark.parametrize("language", ["en", "cy"])
def test_the_voicemail_names_no_service_no_test_and_nobody(language):
    said = WORDS[language][Say.VOICEMAIL]

    assert "{service}" not in said
    assert "{tests}" not in said
    assert not [test for test in Test if test.value in said.lower()]


def test_a_chlamydia_positive_speaks_of_partners():
    said = what_to_say(case(items=frozenset({(Test.CHLAMYDIA, Outcome.POSITIVE)})))

    assert (Say.CHLAMYDIA in said, Say.PARTNERS in said) == (True, True)
