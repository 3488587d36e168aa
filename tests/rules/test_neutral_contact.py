"""H22: whoever is asked to expect a call gets the same words at the same hour, whatever the reason (ruling 14)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from models.actions.release import _says
from models.rules.kit import KitState
from models.rules.release import Current, Reason, ReleaseKind, decide_release
from models.rules.text import CLASS_OF, TextClass, window_of
from models.rules.vocabulary import Language, Outcome, Wording
from models.rules.working_days import next_opening
from tests.rules.test_release import kit, kits
from tests.support import build
from tests.support.texts import catalogue

TEXTS = catalogue()
SERVICE = build.service()
MOMENTS = st.integers(0, 3 * 365 * 24 * 60).map(
    lambda minutes: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
)


def heard(decision, language, now):
    """The words and the hour of the first contact that a decision owes to somebody who chose discreet wording."""
    says = _says(None, decision, SERVICE)
    body = TEXTS.render(says, language=language, wording=Wording.DISCREET, service=SERVICE, ref="7K3F9X").body
    return body, next_opening(now, window_of(says.purpose, SERVICE.texts))


CALLED_ABOUT = [Outcome.REACTIVE, Outcome.LOW_REACTIVE, Outcome.EQUIVOCAL, Outcome.WITHDRAWN, Outcome.ID_MISMATCH]


@st.composite
def kits_to_call_about(draw):
    """Any kit of somebody who may be texted, with at least one outcome that takes a call."""
    plain = replace(
        draw(kits()), told=False, in_touch=False, frozen=False, open_quarantine=False, text_consent=True, age_years=30,
        state=KitState.AT_LAB,
    )  # fmt: skip
    bad = draw(st.sampled_from(sorted(plain.requested)))
    current = {target: Current(each.outcome, each.version_id) for target, each in plain.current.items()}
    return replace(
        plain,
        requested=plain.requested | current.keys(),
        current=current | {bad: Current(draw(st.sampled_from(CALLED_ABOUT)), 99)},
    )


@given(kits_to_call_about(), MOMENTS, st.sampled_from(Language))
def test_whoever_must_be_called_hears_the_same_as_a_discreet_positive_at_the_same_hour(kit_of, now, language):
    """So any two of them hear the same, too."""
    decision = decide_release(kit_of)
    assume(decision.kind is ReleaseKind.CALL)

    assert heard(decision, language, now) == heard(decide_release(REASONS[Reason.SWAB_POSITIVE]), language, now)


N = Outcome.NEGATIVE
REASONS = {
    Reason.REACTIVE: kit(N, N, Outcome.REACTIVE, N),
    Reason.SWAB_POSITIVE: kit(Outcome.POSITIVE, N, N, N),
    Reason.EQUIVOCAL: kit(N, Outcome.EQUIVOCAL, N, N),
    Reason.NUMBER_NOT_FRESH: kit(N, N, N, N, number_fresh=False),
    Reason.WITHDRAWN: kit(N, N, N, Outcome.WITHDRAWN),
}


@pytest.mark.parametrize("language", list(Language))
def test_each_reason_to_call_is_among_them(language):
    now = datetime(2026, 11, 24, 20, 0, tzinfo=UTC)
    decided = {reason: decide_release(of) for reason, of in REASONS.items()}

    assert all(reason in decision.reasons for reason, decision in decided.items())
    assert len({heard(decision, language, now) for decision in decided.values()}) == 1


def test_both_purposes_are_of_the_class_of_results():
    purposes = {_says(None, decide_release(of), SERVICE).purpose for of in REASONS.values()}

    assert {CLASS_OF[purpose] for purpose in purposes} == {TextClass.RESULT}
