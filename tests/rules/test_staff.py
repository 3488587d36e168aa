"""Who may do what: the table is closed, and ends at the services a sign-in names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules.clinic import OWNER, CaseKind
from models.rules.errors import Code, ServiceError
from models.rules.service import ClinicPolicy
from models.rules.staff import GRANTS, OPENS, Action, Actor, Role, check_may, may, services_where

actors = st.builds(
    Actor,
    staff_id=st.just("s1"),
    roles=st.frozensets(st.sampled_from(Role)),
    service_ids=st.frozensets(st.sampled_from(["larkfield", "moorside"])),
)


def somebody(*roles: Role) -> Actor:
    return Actor("s1", frozenset(roles), frozenset({"larkfield"}))


@given(actors, st.sampled_from(Action), st.sampled_from(["larkfield", "moorside", "elsewhere"]))
def test_nobody_may_do_anything_in_a_service_their_sign_in_does_not_name(actor, action, service_id):
    assert not may(actor, action, service_id) or service_id in actor.service_ids


@given(actors, st.sampled_from(Action))
def test_somebody_without_a_role_may_do_nothing_and_more_roles_never_take_a_right_away(actor, action):
    without = Actor(actor.staff_id, frozenset(), actor.service_ids)
    with_all = Actor(actor.staff_id, frozenset(Role), actor.service_ids)

    assert services_where(without, action) == frozenset()
    assert services_where(actor, action) <= services_where(with_all, action)


def test_every_role_has_a_row_and_every_action_is_granted_to_somebody():
    assert set(GRANTS) == set(Role)
    assert frozenset().union(*GRANTS.values()) == set(Action)


@pytest.mark.parametrize("kind", CaseKind)
def test_the_owner_of_each_kind_of_case_may_open_and_work_it(kind):
    owner = somebody(Role(OWNER[kind]))

    assert may(owner, OPENS[kind], "larkfield")
    assert may(owner, Action.WORK_CASES, "larkfield")


def test_every_step_of_the_escalation_ladder_is_a_role_that_sees_the_worklist():
    for step in ClinicPolicy().escalation:
        told = somebody(Role(step.role))
        assert any(may(told, action, "larkfield") for action in (Action.CLINICAL_CASES, Action.OVERSEE_CASES))


@pytest.mark.parametrize("role", [Role.PACKER, Role.LAB_LIAISON, Role.SERVICE_MANAGER, Role.AUDITOR])
def test_who_does_not_care_for_residents_neither_reads_results_nor_learns_who_they_are(role):
    for action in (Action.READ_RESULTS, Action.REVEAL_CONTACT, Action.READ_SAFEGUARDING_NOTES):
        assert not may(somebody(role), action, "larkfield")


@pytest.mark.parametrize("role", sorted(set(Role) - {Role.SENIOR_HEALTH_ADVISER, Role.CLINICIAN}))
def test_only_senior_people_second_an_end_without_further_action_or_release_after_review(role):
    assert not may(somebody(role), Action.SECOND_NO_FURTHER_ACTION, "larkfield")
    assert not may(somebody(role), Action.RELEASE_AFTER_REVIEW, "larkfield")


def test_a_refusal_is_one_sentence_with_a_code():
    with pytest.raises(ServiceError, match="Your role does not allow this") as refused:
        check_may(somebody(Role.PACKER), Action.READ_RESULTS, "larkfield")

    assert refused.value.code is Code.NOT_ALLOWED
