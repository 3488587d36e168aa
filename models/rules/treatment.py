"""How an infection was treated, and when chlamydia may be treated without a visit.

Sources: clinical.md 3.5 (R63, R64: chlamydia, genital, by post or pharmacy; symptoms, several infections and a
prescriber's concern go to a clinic), 9 (H15); FEATURES 70. Exclusions marked [U] there are kept as exclusions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from models.rules.vocabulary import Outcome, Site, Test


class Treatment(StrEnum):
    """How somebody was treated."""

    IN_CLINIC = "in_clinic"
    BY_POST = "by_post"
    AT_PHARMACY = "at_pharmacy"
    ELSEWHERE = "elsewhere"


REMOTE: Final = frozenset({Treatment.BY_POST, Treatment.AT_PHARMACY})
"""Without a visit: for chlamydia alone, where nothing speaks against it, signed by a prescriber."""


class TreatmentQuestion(StrEnum):
    """What is asked before treatment without a visit. Every answer must be a plain no."""

    SYMPTOMS = "symptoms"
    PREGNANT_OR_BREASTFEEDING = "pregnant_or_breastfeeding"
    ALLERGY = "allergy"
    OTHER_MEDICINES = "other_medicines"
    LONG_TERM_ILLNESS = "long_term_illness"


ALL_NO: Final[Mapping[TreatmentQuestion, bool]] = dict.fromkeys(TreatmentQuestion, False)
"""The answers that leave only the results to speak."""


class TreatmentBar(StrEnum):
    """Why somebody can't be treated without a visit."""

    RESULTS_NOT_COMPLETE = "results_not_complete"
    RESULT_CHANGED = "result_changed"
    NO_CHLAMYDIA = "no_chlamydia"
    NOT_GENITAL_ALONE = "not_genital_alone"
    ANOTHER_FINDING = "another_finding"
    UNDER_16 = "under_16"
    ANSWER_SPEAKS_AGAINST = "answer_speaks_against"


@dataclass(frozen=True, slots=True)
class TreatmentFacts:
    """All that the rule may look at."""

    requested: frozenset[tuple[Test, Site]]
    current: Mapping[tuple[Test, Site], Outcome]
    changed: bool
    """A result was corrected, or the kit is frozen."""
    age_years: int
    answers: Mapping[TreatmentQuestion, bool]
    """True: yes. A question without an answer counts as a yes."""


YOUNGEST: Final = 16
GENITAL: Final = frozenset({Site.GENITAL, Site.URINE, Site.VAGINAL})
"""Rectal chlamydia may be LGV, which takes three weeks of treatment and a visit (clinical.md 3.5)."""


def bars_to_remote(facts: TreatmentFacts) -> tuple[TreatmentBar, ...]:
    """Everything that speaks against treatment without a visit (H15).

    None only for complete, unchanged results whose one finding is genital chlamydia, and a no to every question.
    """
    found = {target: outcome for target, outcome in facts.current.items() if outcome is not Outcome.NEGATIVE}
    chlamydia = {
        target for target, outcome in found.items() if target[0] is Test.CHLAMYDIA and outcome is Outcome.POSITIVE
    }
    bars = (
        (TreatmentBar.RESULTS_NOT_COMPLETE, facts.current.keys() != facts.requested),
        (TreatmentBar.RESULT_CHANGED, facts.changed),
        (TreatmentBar.NO_CHLAMYDIA, not chlamydia),
        (TreatmentBar.NOT_GENITAL_ALONE, any(site not in GENITAL for _, site in chlamydia)),
        (TreatmentBar.ANOTHER_FINDING, bool(found.keys() - chlamydia)),
        (TreatmentBar.UNDER_16, facts.age_years < YOUNGEST),
        (TreatmentBar.ANSWER_SPEAKS_AGAINST, any(facts.answers.get(each, True) for each in TreatmentQuestion)),
    )
    return tuple(bar for bar, stands in bars if stands)
