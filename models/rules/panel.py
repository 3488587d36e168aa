"""What goes in a kit: which samples, and which tests on each, by anatomy, exposure and history.

The panel is the requested set of (test, site) that decides when a result may be released (ruling 5),
so it is fixed at the order's decision and never recomputed. Source of the whole table: clinical.md
section 3.1 (R12, R46, R54, R55) unless a line says otherwise.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from models.rules.service import OrderPolicy
from models.rules.vocabulary import SITE_OF, Site, Specimen, Test


class BodyPart(StrEnum):
    """What the person has, in their own words: kits are chosen by organs, not by gender (R24)."""

    VAGINA = "vagina"
    PENIS = "penis"


class Exposure(StrEnum):
    """What may have exposed the person, as far as it changes the kit."""

    RECEPTIVE_ANAL = "receptive_anal"
    RECEPTIVE_ORAL = "receptive_oral"
    SEX_BETWEEN_MEN = "sex_between_men"
    INJECTED_DRUGS = "injected_drugs"
    CHEMSEX = "chemsex"
    PARTNER_WITH_HEPATITIS_C = "partner_with_hepatitis_c"


class WhyLeftOut(StrEnum):
    """Why a test that this person would otherwise get is not in the kit."""

    KNOWN_HIV = "known_hiv"
    """A screen would only react again and alarm (H21)."""
    PAST_SYPHILIS = "past_syphilis"
    """A treponemal screen stays reactive for life: only a clinic's blood test can tell (R55)."""
    NOT_AT_LAB = "not_at_lab"
    """The laboratory of new kits has no contract for it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One specimen in one tube, and what is tested on it."""

    specimen: Specimen
    tests: tuple[Test, ...]

    @property
    def site(self) -> Site:
        """Where on the body it is from."""
        return SITE_OF[self.specimen]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A test that the kit does not hold, and why: shown to the person and the clinic, never silent."""

    test: Test
    why: WhyLeftOut


@dataclass(frozen=True, slots=True)
class Panel:
    """The samples of one kit. A sample's place in the tuple, from 1, is its tube digit."""

    samples: tuple[Sample, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def requested(self) -> frozenset[tuple[Test, Site]]:
        """Every (test, site) that must come back before the kit can be an all-clear."""
        return frozenset((test, sample.site) for sample in self.samples for test in sample.tests)


HIGHER_RISK_OF_HEPATITIS_C: Final = frozenset(
    {Exposure.INJECTED_DRUGS, Exposure.CHEMSEX, Exposure.PARTNER_WITH_HEPATITIS_C}
)
"""Who counts as 'higher risk' for hepatitis C. Source: clinical.md 3.1 (R55); the list is our reading [D]."""

_NAATS: Final = (Test.CHLAMYDIA, Test.GONORRHOEA)
"""On every swab and on urine; TV and MG are not part of asymptomatic kits."""


def choose_panel(
    *,
    body: frozenset[BodyPart],
    exposures: frozenset[Exposure],
    known_hiv: bool,
    past_syphilis: bool,
    policy: OrderPolicy,
    lab_tests: frozenset[Test],
) -> Panel:
    """The kit for one person. Samples stand in the order of `Specimen`, tests in the order of blood priority.

    A sample with no test left is not taken; a panel without samples means that there is nothing to post.
    """
    wanted: dict[Specimen, tuple[Test, ...]] = {}
    if BodyPart.VAGINA in body:
        wanted[Specimen.VULVOVAGINAL_SWAB] = _NAATS
    if BodyPart.PENIS in body:
        wanted[Specimen.FIRST_CATCH_URINE] = _NAATS
    if Exposure.RECEPTIVE_ANAL in exposures:
        wanted[Specimen.RECTAL_SWAB] = _NAATS
    if Exposure.RECEPTIVE_ORAL in exposures and (policy.pharyngeal_for_all or Exposure.SEX_BETWEEN_MEN in exposures):
        wanted[Specimen.PHARYNGEAL_SWAB] = _NAATS
    wanted[Specimen.CAPILLARY_BLOOD] = _blood_tests(exposures, policy)

    why: dict[Test, WhyLeftOut] = {test: WhyLeftOut.NOT_AT_LAB for test in Test if test not in lab_tests}
    if known_hiv:
        why[Test.HIV] = WhyLeftOut.KNOWN_HIV
    if past_syphilis:
        why[Test.SYPHILIS] = WhyLeftOut.PAST_SYPHILIS

    samples = (Sample(specimen, tuple(t for t in tests if t not in why)) for specimen, tests in wanted.items())
    missing = dict.fromkeys(test for tests in wanted.values() for test in tests if test in why)
    return Panel(
        samples=tuple(sample for sample in samples if sample.tests),
        left_out=tuple(LeftOut(test, why[test]) for test in missing),
    )


def _blood_tests(exposures: frozenset[Exposure], policy: OrderPolicy) -> tuple[Test, ...]:
    """In the order in which a short volume is used: HIV, syphilis, then hepatitis (R55)."""
    tests = [Test.HIV, Test.SYPHILIS]
    if policy.hepatitis_b:
        tests.append(Test.HEPATITIS_B)
    if policy.hepatitis_c_for_higher_risk and exposures & HIGHER_RISK_OF_HEPATITIS_C:
        tests.append(Test.HEPATITIS_C)
    return tuple(tests)
