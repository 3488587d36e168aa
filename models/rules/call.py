"""What a caller says for these very results: which passages of the script, in their order.

The words stand in templates/pages/calls.toml, in both languages. A blood screen has passages of its own, so that
"found" is never said of one (law 5; H7). Sources: clinical.md 0.2, 3.5; RULINGS 14.
"""

from enum import StrEnum

from models.rules.clinic import CaseFacts, CaseKind
from models.rules.vocabulary import IDENTITY_FAILURES, SAMPLE_FAILURES, Outcome, Test


class Say(StrEnum):
    """One passage of a call."""

    OPENING = "opening"
    REACTIVE = "reactive"
    LOW_REACTIVE = "low_reactive"
    CHLAMYDIA = "chlamydia"
    GONORRHOEA = "gonorrhoea"
    OTHER_POSITIVE = "other_positive"
    EQUIVOCAL = "equivocal"
    FAILED_SAMPLE = "failed_sample"
    CORRECTED = "corrected"
    WHOSE_SAMPLE = "whose_sample"
    NOT_TOLD = "not_told"
    PARTNERS = "partners"
    CLOSING = "closing"
    VOICEMAIL = "voicemail"
    INTERPRETER = "interpreter"


_CALLED_ABOUT = frozenset(
    {
        CaseKind.REACTIVE,
        CaseKind.POSITIVE,
        CaseKind.CORRECTION,
        CaseKind.UNDELIVERED_TEXT,
        CaseKind.FAILED_SAMPLE,
        CaseKind.IDENTITY,
        CaseKind.RESULT_REVIEW,
    }
)


def what_to_say(case: CaseFacts) -> tuple[Say, ...]:
    """The passages of the call about one case, in order; none for a case that no resident is rung about."""
    if case.kind not in _CALLED_ABOUT:
        return ()
    outcomes = {outcome for _, outcome in case.items}
    found = {test for test, outcome in case.items if outcome is Outcome.POSITIVE}
    in_doubt = case.kind is CaseKind.IDENTITY or bool(outcomes & IDENTITY_FAILURES)
    told = (
        ()
        if in_doubt
        else (
            (Say.CORRECTED, case.kind is CaseKind.CORRECTION),
            (Say.REACTIVE, Outcome.REACTIVE in outcomes),
            (Say.LOW_REACTIVE, Outcome.LOW_REACTIVE in outcomes),
            (Say.CHLAMYDIA, Test.CHLAMYDIA in found),
            (Say.GONORRHOEA, Test.GONORRHOEA in found),
            (Say.OTHER_POSITIVE, bool(found - {Test.CHLAMYDIA, Test.GONORRHOEA})),
            (Say.EQUIVOCAL, Outcome.EQUIVOCAL in outcomes),
            (Say.FAILED_SAMPLE, bool(outcomes & SAMPLE_FAILURES)),
            (Say.NOT_TOLD, case.kind is CaseKind.UNDELIVERED_TEXT),
            (Say.PARTNERS, bool(found)),
        )
    )
    passages = (
        (Say.OPENING, True),
        (Say.WHOSE_SAMPLE, in_doubt),
        *told,
        (Say.CLOSING, True),
        (Say.VOICEMAIL, case.may_leave_voicemail),
        (Say.INTERPRETER, True),
    )
    return tuple(say for say, applies in passages if applies)
