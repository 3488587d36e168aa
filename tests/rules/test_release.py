"""The rule that all-clear texts rest on: proved for every kit we can think of, and pinned by a table."""

import hashlib
from dataclasses import fields, replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules.clinic import CaseKind, kind_for
from models.rules.kit import CLOSED_TO_TEXTS, KitState
from models.rules.release import (
    RULE_VERSION,
    Current,
    KitResults,
    Reason,
    ReleaseKind,
    Target,
    decide_release,
    digest,
)
from models.rules.vocabulary import BLOOD_TESTS, NON_NEGATIVE, REACTIONS, SAMPLE_FAILURES, Outcome, Site, Test

CT: Target = (Test.CHLAMYDIA, Site.VAGINAL)
GC: Target = (Test.GONORRHOEA, Site.VAGINAL)
HIV: Target = (Test.HIV, Site.BLOOD)
SYPHILIS: Target = (Test.SYPHILIS, Site.BLOOD)
FULL = (CT, GC, HIV, SYPHILIS)

targets = st.sampled_from([CT, GC, HIV, SYPHILIS, (Test.CHLAMYDIA, Site.RECTAL), (Test.HEPATITIS_B, Site.BLOOD)])


def kit(*outcomes: Outcome, **changes: object) -> KitResults:
    """A kit that asks for chlamydia, gonorrhoea, HIV and syphilis, with these current outcomes in that order."""
    current = {
        target: Current(outcome, number) for number, (target, outcome) in enumerate(zip(FULL, outcomes, strict=False))
    }
    return replace(KitResults(requested=frozenset(FULL), current=current), **changes)


@st.composite
def kits(draw: st.DrawFn) -> KitResults:
    requested = draw(st.frozensets(targets, min_size=1))
    reported = draw(st.frozensets(targets)) if draw(st.booleans()) else requested
    some = st.sampled_from(Outcome)
    mostly_negative = st.one_of(st.just(Outcome.NEGATIVE), st.just(Outcome.NEGATIVE), some)
    outcomes = draw(st.sampled_from([some, mostly_negative, st.just(Outcome.NEGATIVE)]))
    rarely = st.sampled_from([False, False, False, False, False, True])
    current = {
        target: Current(draw(outcomes), number, corrected=draw(rarely), note_review=draw(rarely))
        for number, target in enumerate(sorted(reported))
    }
    return KitResults(
        requested=requested,
        current=current,
        state=draw(st.sampled_from([*KitState, KitState.AT_LAB, KitState.AT_LAB, KitState.AT_LAB])),
        told=draw(rarely),
        in_touch=draw(rarely),
        frozen=draw(rarely),
        open_quarantine=draw(rarely),
        comments_read=draw(st.frozensets(st.integers(0, 5))),
        text_consent=not draw(rarely),
        number_fresh=not draw(rarely),
        age_years=draw(st.sampled_from([12, 15, 16, 17, 30, 30, 30])),
        hold_expired=draw(rarely),
    )


@given(kits())
def test_only_a_complete_and_wholly_negative_kit_is_an_all_clear(kit: KitResults) -> None:
    decision = decide_release(kit)

    proved = (
        set(kit.current) == kit.requested
        and all(result.outcome is Outcome.NEGATIVE for result in kit.current.values())
        and not any(result.corrected for result in kit.current.values())
        and all(not result.note_review or result.version_id in kit.comments_read for result in kit.current.values())
        and kit.state not in CLOSED_TO_TEXTS
        and not (kit.told or kit.in_touch or kit.frozen or kit.open_quarantine)
        and kit.text_consent
        and kit.number_fresh
        and kit.age_years >= 16
    )
    assert (decision.kind is ReleaseKind.ALL_CLEAR) == proved


@given(kits())
def test_a_result_that_is_not_negative_always_has_a_case(kit: KitResults) -> None:
    decision = decide_release(kit)

    assert decision.case or not (kit.outcomes() & NON_NEGATIVE)


@given(kits())
def test_a_reaction_an_identity_doubt_or_a_correction_never_gets_a_result_text(kit: KitResults) -> None:
    decision = decide_release(kit)

    doubtful = kit.outcomes() & (
        REACTIONS | {Outcome.UNLABELLED, Outcome.ID_MISMATCH, Outcome.WITHDRAWN, Outcome.EQUIVOCAL}
    )
    if doubtful or any(result.corrected for result in kit.current.values()):
        assert decision.kind in {ReleaseKind.CALL, ReleaseKind.PERSON}
        assert decision.found == frozenset()


@given(kits())
def test_only_chlamydia_and_gonorrhoea_are_ever_named_as_found(kit: KitResults) -> None:
    decision = decide_release(kit)

    assert decision.found <= {Test.CHLAMYDIA, Test.GONORRHOEA}
    assert not decision.found & BLOOD_TESTS


@given(kits())
def test_a_decision_gives_at_most_one_text_and_always_a_reason(kit: KitResults) -> None:
    decision = decide_release(kit)

    tells = decision.kind in {ReleaseKind.ALL_CLEAR, ReleaseKind.SWAB_POSITIVE, ReleaseKind.FAILED_SAMPLE}
    assert not (tells and decision.neutral_text)
    assert decision.reasons


@given(kits())
def test_nobody_who_declined_texts_or_whose_kit_is_closed_gets_one(kit: KitResults) -> None:
    decision = decide_release(kit)

    if not kit.text_consent or kit.state in CLOSED_TO_TEXTS:
        assert decision.kind in {ReleaseKind.CALL, ReleaseKind.PERSON, ReleaseKind.WAIT}
        assert not decision.neutral_text


@given(kits())
def test_a_correction_after_telling_sends_nothing_by_itself(kit: KitResults) -> None:
    decision = decide_release(kit)

    corrected = any(result.corrected for result in kit.current.values()) or Outcome.WITHDRAWN in kit.outcomes()
    if kit.told and corrected:
        assert decision.kind is ReleaseKind.PERSON
        assert not decision.neutral_text


@pytest.mark.parametrize("outcome", sorted(set(Outcome) - {Outcome.NEGATIVE}))
@pytest.mark.parametrize("place", range(4))
def test_one_result_that_is_anything_but_negative_is_never_an_all_clear(outcome: Outcome, place: int) -> None:
    outcomes = [Outcome.NEGATIVE] * 4
    outcomes[place] = outcome

    assert decide_release(kit(*outcomes)).kind is not ReleaseKind.ALL_CLEAR


@pytest.mark.parametrize("missing", range(4))
def test_a_kit_with_a_result_still_missing_waits(missing: int) -> None:
    whole = kit(*[Outcome.NEGATIVE] * 4)
    partial = replace(whole, current={t: r for t, r in whole.current.items() if t is not FULL[missing]})

    assert decide_release(partial).kind is ReleaseKind.WAIT


def test_a_wait_that_is_over_goes_to_a_person() -> None:
    decision = decide_release(kit(Outcome.NEGATIVE, Outcome.PENDING, hold_expired=True))

    assert decision.kind is ReleaseKind.PERSON
    assert Reason.HOLD_EXPIRED in decision.reasons


def test_a_chlamydia_positive_acts_now_and_says_so_far_while_others_are_pending() -> None:
    decision = decide_release(kit(Outcome.POSITIVE, Outcome.PENDING))

    assert decision.kind is ReleaseKind.SWAB_POSITIVE
    assert decision.so_far
    assert decision.case


def test_a_positive_beside_a_reaction_is_told_by_a_person_only() -> None:
    decision = decide_release(kit(Outcome.POSITIVE, Outcome.NEGATIVE, Outcome.REACTIVE, Outcome.NEGATIVE))

    assert decision.kind is ReleaseKind.CALL
    assert decision.neutral_text
    assert decision.found == frozenset()


def test_a_failed_sample_beside_negatives_is_told_per_test_and_owned() -> None:
    decision = decide_release(kit(Outcome.NEGATIVE, Outcome.NEGATIVE, Outcome.INSUFFICIENT, Outcome.NEGATIVE))

    assert decision.kind is ReleaseKind.FAILED_SAMPLE
    assert decision.case


def test_a_failed_sample_beside_a_pending_one_waits_and_is_owned_already() -> None:
    decision = decide_release(kit(Outcome.NEGATIVE, Outcome.NEGATIVE, Outcome.INSUFFICIENT, Outcome.PENDING))

    assert decision.kind is ReleaseKind.WAIT
    assert decision.case


def test_a_blood_screen_that_claims_positive_is_not_believed() -> None:
    decision = decide_release(kit(Outcome.NEGATIVE, Outcome.NEGATIVE, Outcome.POSITIVE, Outcome.NEGATIVE))

    assert decision.kind is ReleaseKind.PERSON
    assert decision.reasons == (Reason.IMPOSSIBLE_OUTCOME,)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("state", sorted(CLOSED_TO_TEXTS))
def test_a_correction_to_a_closed_kit_is_called_a_correction(state: KitState, *, told: bool) -> None:
    results = kit(Outcome.POSITIVE, *[Outcome.NEGATIVE] * 3, state=state, told=told)
    results = replace(results, current={**results.current, CT: Current(Outcome.POSITIVE, 9, corrected=True)})

    decision = decide_release(results)

    assert decision.kind is ReleaseKind.PERSON
    assert kind_for(decision, results.outcomes()) is CaseKind.CORRECTION


def test_a_comment_holds_an_all_clear_until_a_person_has_read_it() -> None:
    held = kit(*[Outcome.NEGATIVE] * 4)
    held = replace(held, current={**held.current, GC: Current(Outcome.NEGATIVE, 1, note_review=True)})

    assert decide_release(held).kind is ReleaseKind.PERSON
    assert decide_release(replace(held, comments_read=frozenset({1}))).kind is ReleaseKind.ALL_CLEAR


def test_a_stale_number_gets_the_neutral_text_and_a_case_instead_of_content() -> None:
    decision = decide_release(kit(*[Outcome.NEGATIVE] * 4, number_fresh=False))

    assert decision.kind is ReleaseKind.CALL
    assert decision.neutral_text
    assert decision.case


@pytest.mark.parametrize("failure", sorted(SAMPLE_FAILURES))
def test_every_way_a_sample_fails_is_told_and_none_reads_as_negative(failure: Outcome) -> None:
    assert decide_release(kit(Outcome.NEGATIVE, failure, *[Outcome.NEGATIVE] * 2)).kind is ReleaseKind.FAILED_SAMPLE


@given(st.dictionaries(targets, st.tuples(st.sampled_from(Outcome), st.integers(1, 10**12)), min_size=1))
def test_the_digest_names_the_versions_and_does_not_depend_on_their_order(
    found: dict[Target, tuple[Outcome, int]],
) -> None:
    results = {target: Current(outcome, version) for target, (outcome, version) in found.items()}

    assert digest(results) == digest(dict(reversed(results.items())))
    some = next(iter(results))
    assert digest(results) != digest({**results, some: Current(Outcome.NEGATIVE, 10**12 + 1)})


def test_the_decision_table_is_the_one_this_rule_version_stands_for() -> None:
    """A changed table needs a new RULE_VERSION and a new digest here, in one reviewed commit (ruling 16)."""
    lines = []
    for first, second in product(Outcome, Outcome):
        for state, told, over in product((KitState.AT_LAB, KitState.LAPSED), (False, True), (False, True)):
            decision = decide_release(
                kit(first, Outcome.NEGATIVE, second, Outcome.NEGATIVE, state=state, told=told, hold_expired=over)
            )
            lines.append(
                f"{first}|{second}|{state}|{told}|{over}|{decision.kind}|{decision.reasons}|{decision.neutral_text}|{decision.case}|{decision.so_far}"
            )

    table = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert (RULE_VERSION, table[:16]) == ("release-2", "d9b51e1e5ef85a98")


@given(kits(), kits(), st.sampled_from(fields(KitResults)))
def test_a_kit_that_is_decided_otherwise_has_another_shape(kit, other, changed):
    """So that a decision may be remembered for the kits of one shape."""
    changed_kit = replace(kit, **{changed.name: getattr(other, changed.name)})

    assert decide_release(changed_kit) == decide_release(kit) or changed_kit.shape() != kit.shape()


@given(kits(), st.integers(min_value=1))
def test_which_versions_they_are_is_no_part_of_a_kits_shape(kit, later):
    twin = replace(
        kit,
        current={target: r._replace(version_id=r.version_id + later) for target, r in kit.current.items()},
        comments_read=frozenset(version_id + later for version_id in kit.comments_read),
    )

    assert twin.shape() == kit.shape()
