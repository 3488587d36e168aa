"""What goes in a kit (clinical.md 3.1; FEATURES 12)."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules.panel import BodyPart, Exposure, LeftOut, Panel, WhyLeftOut, choose_panel
from models.rules.service import OrderPolicy
from models.rules.vocabulary import BLOOD_TESTS, Site, Specimen, Test

CT_GC = (Test.CHLAMYDIA, Test.GONORRHOEA)
HIV_SYPHILIS = (Test.HIV, Test.SYPHILIS)
EVERY_TEST = frozenset(Test)
POLICY = OrderPolicy()


def panel(
    body: set[BodyPart],
    *exposures: Exposure,
    known_hiv: bool = False,
    past_syphilis: bool = False,
    policy: OrderPolicy = POLICY,
    lab_tests: frozenset[Test] = EVERY_TEST,
) -> Panel:
    return choose_panel(
        body=frozenset(body),
        exposures=frozenset(exposures),
        known_hiv=known_hiv,
        past_syphilis=past_syphilis,
        policy=policy,
        lab_tests=lab_tests,
    )


def contents(chosen: Panel) -> list[tuple[Specimen, tuple[Test, ...]]]:
    return [(sample.specimen, sample.tests) for sample in chosen.samples]


panels = st.builds(
    choose_panel,
    body=st.frozensets(st.sampled_from(BodyPart)),
    exposures=st.frozensets(st.sampled_from(Exposure)),
    known_hiv=st.booleans(),
    past_syphilis=st.booleans(),
    policy=st.builds(
        OrderPolicy,
        pharyngeal_for_all=st.booleans(),
        hepatitis_b=st.booleans(),
        hepatitis_c_for_higher_risk=st.booleans(),
    ),
    lab_tests=st.frozensets(st.sampled_from(Test)),
)


def test_a_vagina_is_sampled_by_a_vulvovaginal_swab_and_never_by_urine() -> None:
    assert contents(panel({BodyPart.VAGINA})) == [
        (Specimen.VULVOVAGINAL_SWAB, CT_GC),
        (Specimen.CAPILLARY_BLOOD, HIV_SYPHILIS),
    ]


def test_a_penis_is_sampled_by_first_catch_urine() -> None:
    assert contents(panel({BodyPart.PENIS})) == [
        (Specimen.FIRST_CATCH_URINE, CT_GC),
        (Specimen.CAPILLARY_BLOOD, HIV_SYPHILIS),
    ]


def test_receptive_anal_sex_adds_a_rectal_swab_for_everyone() -> None:
    assert (Specimen.RECTAL_SWAB, CT_GC) in contents(panel({BodyPart.VAGINA}, Exposure.RECEPTIVE_ANAL))


def test_receptive_oral_sex_adds_a_throat_swab_for_men_who_have_sex_with_men_only() -> None:
    msm = panel({BodyPart.PENIS}, Exposure.RECEPTIVE_ORAL, Exposure.SEX_BETWEEN_MEN)
    other = panel({BodyPart.PENIS}, Exposure.RECEPTIVE_ORAL)

    assert (Specimen.PHARYNGEAL_SWAB, CT_GC) in contents(msm)
    assert Specimen.PHARYNGEAL_SWAB not in dict(contents(other))


def test_a_council_may_give_everyone_with_receptive_oral_sex_a_throat_swab() -> None:
    for_all = replace(POLICY, pharyngeal_for_all=True)

    assert Specimen.PHARYNGEAL_SWAB in dict(contents(panel({BodyPart.VAGINA}, Exposure.RECEPTIVE_ORAL, policy=for_all)))
    assert Specimen.PHARYNGEAL_SWAB not in dict(contents(panel({BodyPart.VAGINA}, policy=for_all)))


def test_tube_digits_follow_one_fixed_order() -> None:
    everything = panel(
        {BodyPart.PENIS, BodyPart.VAGINA},
        Exposure.RECEPTIVE_ORAL,
        Exposure.RECEPTIVE_ANAL,
        Exposure.SEX_BETWEEN_MEN,
    )

    assert [sample.specimen for sample in everything.samples] == list(Specimen)


def test_known_hiv_takes_the_hiv_test_out_and_says_why() -> None:
    chosen = panel({BodyPart.PENIS}, known_hiv=True)

    assert (Test.HIV, Site.BLOOD) not in chosen.requested
    assert chosen.left_out == (LeftOut(Test.HIV, WhyLeftOut.KNOWN_HIV),)


def test_past_syphilis_takes_the_syphilis_screen_out_and_says_why() -> None:
    chosen = panel({BodyPart.PENIS}, past_syphilis=True)

    assert (Test.SYPHILIS, Site.BLOOD) not in chosen.requested
    assert chosen.left_out == (LeftOut(Test.SYPHILIS, WhyLeftOut.PAST_SYPHILIS),)


def test_nobody_pricks_a_finger_for_no_test() -> None:
    chosen = panel({BodyPart.PENIS}, known_hiv=True, past_syphilis=True)

    assert [sample.specimen for sample in chosen.samples] == [Specimen.FIRST_CATCH_URINE]


def test_hepatitis_b_is_the_councils_choice() -> None:
    chosen = panel({BodyPart.VAGINA}, policy=replace(POLICY, hepatitis_b=True))

    assert chosen.samples[-1].tests == (Test.HIV, Test.SYPHILIS, Test.HEPATITIS_B)


@pytest.mark.parametrize(
    ("exposure", "tested"),
    [
        (Exposure.INJECTED_DRUGS, True),
        (Exposure.CHEMSEX, True),
        (Exposure.PARTNER_WITH_HEPATITIS_C, True),
        (Exposure.SEX_BETWEEN_MEN, False),
        (Exposure.RECEPTIVE_ANAL, False),
    ],
)
def test_hepatitis_c_is_tested_at_higher_risk_only(exposure: Exposure, *, tested: bool) -> None:
    assert ((Test.HEPATITIS_C, Site.BLOOD) in panel({BodyPart.PENIS}, exposure).requested) == tested


def test_a_test_that_the_laboratory_has_no_contract_for_is_left_out_aloud() -> None:
    chosen = panel({BodyPart.VAGINA}, lab_tests=EVERY_TEST - {Test.SYPHILIS})

    assert (Test.SYPHILIS, Site.BLOOD) not in chosen.requested
    assert chosen.left_out == (LeftOut(Test.SYPHILIS, WhyLeftOut.NOT_AT_LAB),)


@given(panels)
def test_blood_is_tested_for_blood_tests_and_swabs_never_are(chosen: Panel) -> None:
    assert all((test in BLOOD_TESTS) == (site is Site.BLOOD) for test, site in chosen.requested)


@given(panels)
def test_no_tube_is_empty_and_no_specimen_comes_twice(chosen: Panel) -> None:
    specimens = [sample.specimen for sample in chosen.samples]

    assert all(sample.tests for sample in chosen.samples)
    assert len(specimens) == len(set(specimens)) <= 9


@given(panels)
def test_a_test_is_either_in_the_kit_or_left_out_and_never_both(chosen: Panel) -> None:
    assert {test for test, _ in chosen.requested}.isdisjoint(left.test for left in chosen.left_out)
