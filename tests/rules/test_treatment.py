"""Treatment without a visit: for genital chlamydia alone, on complete results, with a no to every question (H15)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules.treatment import (
    GENITAL,
    TreatmentBar,
    TreatmentFacts,
    TreatmentQuestion,
    bars_to_remote,
)
from models.rules.vocabulary import Outcome, Site, Test

CHLAMYDIA, GONORRHOEA, HIV = (
    (Test.CHLAMYDIA, Site.VAGINAL),
    (Test.GONORRHOEA, Site.VAGINAL),
    (Test.HIV, Site.BLOOD),
)
ALL_NO = dict.fromkeys(TreatmentQuestion, False)


def facts(**changes) -> TreatmentFacts:
    return TreatmentFacts(
        **{
            "requested": frozenset({CHLAMYDIA, GONORRHOEA, HIV}),
            "current": {CHLAMYDIA: Outcome.POSITIVE, GONORRHOEA: Outcome.NEGATIVE, HIV: Outcome.NEGATIVE},
            "changed": False,
            "age_years": 27,
            "answers": ALL_NO,
            **changes,
        }
    )


targets = st.tuples(st.sampled_from(Test), st.sampled_from(Site))


@given(
    st.builds(
        TreatmentFacts,
        requested=st.frozensets(targets, max_size=4),
        current=st.dictionaries(targets, st.sampled_from(Outcome), max_size=4),
        changed=st.booleans(),
        age_years=st.integers(12, 60),
        answers=st.dictionaries(st.sampled_from(TreatmentQuestion), st.booleans()),
    )
)
def test_only_genital_chlamydia_alone_on_complete_results_is_ever_treated_without_a_visit(anybody):
    if not bars_to_remote(anybody):
        found = {target for target, outcome in anybody.current.items() if outcome is not Outcome.NEGATIVE}
        assert found
        assert all(test is Test.CHLAMYDIA and site in GENITAL for test, site in found)
        assert anybody.current.keys() == anybody.requested
        assert anybody.answers == ALL_NO


def test_nothing_speaks_against_the_plain_case():
    assert bars_to_remote(facts()) == ()


@pytest.mark.parametrize("question", TreatmentQuestion)
@pytest.mark.parametrize("answer", [True, None])
def test_a_yes_or_no_answer_at_all_takes_a_visit(question, answer):
    answers = {each: said for each, said in ALL_NO.items() if each is not question}
    if answer is not None:
        answers[question] = answer

    assert bars_to_remote(facts(answers=answers)) == (TreatmentBar.ANSWER_SPEAKS_AGAINST,)


@pytest.mark.parametrize(
    ("changes", "bar"),
    [
        ({"current": {CHLAMYDIA: Outcome.POSITIVE}}, TreatmentBar.RESULTS_NOT_COMPLETE),
        ({"changed": True}, TreatmentBar.RESULT_CHANGED),
        ({"age_years": 15}, TreatmentBar.UNDER_16),
        (
            {"current": {CHLAMYDIA: Outcome.POSITIVE, GONORRHOEA: Outcome.POSITIVE, HIV: Outcome.NEGATIVE}},
            TreatmentBar.ANOTHER_FINDING,
        ),
        (
            {"current": {CHLAMYDIA: Outcome.POSITIVE, GONORRHOEA: Outcome.NEGATIVE, HIV: Outcome.PENDING}},
            TreatmentBar.ANOTHER_FINDING,
        ),
    ],
)
def test_each_thing_that_speaks_against_it_is_named(changes, bar):
    assert bars_to_remote(facts(**changes)) == (bar,)


def test_rectal_chlamydia_takes_a_visit():
    rectal = (Test.CHLAMYDIA, Site.RECTAL)

    assert bars_to_remote(
        facts(requested=frozenset({CHLAMYDIA, rectal}), current=dict.fromkeys([CHLAMYDIA, rectal], Outcome.POSITIVE))
    ) == (TreatmentBar.NOT_GENITAL_ALONE,)
