"""The case machine under random hands: whatever happens in whatever order, nobody who needs a person is lost.

Real PostgreSQL, the real actions; each example is one kit. What is believed here is kept apart from the product:
a model of what the lab last said, and of what staff really did (H3, H4, H14; RULINGS 6).
"""

from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlmodel import Session, col, select

from app.database import Begin
from models.actions import candour, clinic, safeguarding, treatment
from models.actions.balance import strike_balance
from models.rules.candour import Harm
from models.rules.clinic import (
    FLOOR_CALLS,
    FLOOR_REACTIVE_DAYS,
    IDENTITY_FLOOR,
    AttemptResult,
    CaseKind,
    CaseOutcome,
    Confirmation,
    EndingDetails,
    SnoozeReason,
)
from models.rules.errors import ServiceError
from models.rules.staff import Actor, Role
from models.rules.treatment import ALL_NO, Treatment
from models.rules.vocabulary import NON_NEGATIVE, REACTIONS, Outcome, Site, Test
from models.tables.clinic import CaseItem, ClinicCase
from models.tables.kit import Kit
from models.tables.result import ResultSeries, ResultVersion
from tests.support import build

pytestmark = [pytest.mark.proof, pytest.mark.timeout(300)]

TARGETS = {
    (Test.HIV, Site.BLOOD): (Outcome.NEGATIVE, Outcome.REACTIVE, Outcome.LOW_REACTIVE, Outcome.INSUFFICIENT),
    (Test.SYPHILIS, Site.BLOOD): (Outcome.NEGATIVE, Outcome.REACTIVE, Outcome.HAEMOLYSED),
    (Test.CHLAMYDIA, Site.VAGINAL): (Outcome.NEGATIVE, Outcome.POSITIVE, Outcome.EQUIVOCAL, Outcome.WITHDRAWN),
    (Test.GONORRHOEA, Site.VAGINAL): (Outcome.NEGATIVE, Outcome.POSITIVE, Outcome.ID_MISMATCH),
}
SAID = st.fixed_dictionaries(
    {}, optional={target: st.sampled_from(outcomes) for target, outcomes in TARGETS.items()}
).filter(bool)
STAFF = {
    name: Actor(name, frozenset({role}), frozenset({"larkfield"}))
    for name, role in [
        ("anna", Role.HEALTH_ADVISER),
        ("bela", Role.HEALTH_ADVISER),
        ("sian", Role.SENIOR_HEALTH_ADVISER),
        ("dora", Role.CLINICIAN),
    ]
}
who = st.sampled_from(sorted(STAFF))


class Shift(RuleBasedStateMachine):
    """One kit, its results case, and four people who do as they please."""

    begin: Begin

    @initialize(said=SAID)
    def a_kit_comes_back(self, said) -> None:
        self.now = build.NOW
        with self.begin() as session:
            kit = build.dispatched_kit(session)
            assert kit.id is not None
            self.kit_id: int = kit.id
            build.results(session, kit, said, at=self.now)

    @rule(said=SAID)
    def the_lab_says_more(self, said) -> None:
        with self.begin() as session:
            build.results(session, session.get_one(Kit, self.kit_id), said, at=self.now)

    @rule(hours=st.sampled_from([1, 24, 24 * 10, 24 * 30]))
    def time_passes(self, hours: int) -> None:
        self.now += timedelta(hours=hours)
        self._follow_up()

    def _follow_up(self) -> None:
        """What the flow does every five minutes."""
        with self.begin() as session:
            clinic.return_stale_claims(
                session, now=self.now, service=build.service(), limit=10_000, actor="flow:follow_up_positives"
            )
            clinic.escalate_due(
                session,
                now=self.now,
                service_id="larkfield",
                policy=build.service().clinic,
                limit=10_000,
                actor="flow:follow_up_positives",
            )

    @rule()
    def the_provider_takes_what_is_owed(self) -> None:
        build.texts_left(self.begin)

    @rule(name=who, result=st.sampled_from(AttemptResult))
    def somebody_tries(self, name: str, result: AttemptResult) -> None:
        self._act(clinic.record_attempt, name, result=result, note="A note", identity=IDENTITY_FLOOR,
                  service=build.service(), cipher=build.cipher(), indexes=build.indexes())  # fmt: skip

    @rule(name=who, test=st.sampled_from([Test.HIV, Test.SYPHILIS]), said=st.sampled_from(Confirmation))
    def a_confirmation_is_recorded(self, name: str, test: Test, said: Confirmation) -> None:
        self._act(clinic.record_confirmation, name, test=test, confirmation=said)

    @rule(name=who)
    def somebody_takes_it(self, name: str) -> None:
        self._act(clinic.claim, name)

    @rule(name=who)
    def somebody_puts_it_back(self, name: str) -> None:
        self._act(clinic.hand_back, name)

    @rule(name=who, days=st.integers(1, 9))
    def somebody_lets_it_rest(self, name: str, days: int) -> None:
        until, policy = self.now + timedelta(days=days), build.service().clinic
        self._act(clinic.snooze, name, reason=SnoozeReason.PERSON_IS_AWAY, until=until, policy=policy)

    @rule(name=who)
    def treatment_without_a_visit_is_asked_for(self, name: str) -> None:
        self._act(treatment.ask_for_remote, name, way=Treatment.BY_POST, answers=ALL_NO, cipher=build.cipher())

    @rule(name=who)
    def treatment_without_a_visit_is_signed(self, name: str) -> None:
        self._act(treatment.sign, name, cipher=build.cipher())

    @rule(name=who, to=st.sampled_from(Role))
    def somebody_hands_it_over(self, name: str, to: Role) -> None:
        self._act(clinic.hand_over, name, to=to, note="Asks about a medicine", cipher=build.cipher())

    @rule(name=who)
    def somebody_is_worried(self, name: str) -> None:
        service, cipher = build.service(), build.cipher()
        self._act(safeguarding.note_concern, name, note="Afraid of somebody at home", service=service, cipher=cipher)

    @rule(names=st.permutations(sorted(STAFF)))
    def openness_is_written_by_one_and_signed_by_another(self, names) -> None:
        writer, second = names[:2]
        self.somebody_tries(writer, AttemptResult.SPOKE)
        self._act(candour.record_candour, writer, account="The first answer was wrong.", harm=Harm.NONE,
                  apologised=True, offered_in_writing=False, cipher=build.cipher())  # fmt: skip
        self._act(candour.sign_candour, second)

    @rule(name=who)
    def somebody_finds_the_comment_harmless(self, name: str) -> None:
        with self.begin() as session:
            in_force = build.in_force(session)
        self._act(clinic.release_after_review, name, service=in_force, cipher=build.cipher())

    @rule(name=who, outcome=st.sampled_from(CaseOutcome), way=st.sampled_from(Treatment))
    def somebody_ends_it(self, name: str, outcome: CaseOutcome, way: Treatment) -> None:
        details = EndingDetails("Larkfield clinic", self.now.date(), way)
        self._act(clinic.close_case, name, outcome=outcome, details=details, service=build.service(),
                  cipher=build.cipher())  # fmt: skip

    @precondition(lambda self: self._is_open())
    @rule(names=st.permutations(sorted(STAFF)))
    def everything_is_tried_and_two_wish_to_end_it(self, names) -> None:
        """The long way down the ladder, which random hands would hardly ever walk to its end."""
        for result in [AttemptResult.TEXT, AttemptResult.VOICEMAIL, AttemptResult.NO_ANSWER, AttemptResult.LETTER] * 3:
            self.somebody_tries(names[0], result)
            self.now += timedelta(hours=8)
        self.the_provider_takes_what_is_owed()
        for name in names[:2]:
            self.somebody_ends_it(name, CaseOutcome.NO_FURTHER_ACTION, Treatment.IN_CLINIC)

    def _act(self, act, name: str, **more) -> None:
        """One act on the case by somebody, in one transaction; a refusal leaves no trace."""
        with suppress(ServiceError), self.begin() as session:
            case = self._case(session)
            if case is not None:
                act(session, case.ref, by=STAFF[name], version=case.version, now=self.now, **more)

    def _case(self, session: Session) -> ClinicCase | None:
        return session.exec(
            select(ClinicCase).where(
                col(ClinicCase.kit_id) == self.kit_id, col(ClinicCase.kind) != CaseKind.UNDELIVERED_TEXT
            )
        ).one_or_none()

    def _is_open(self) -> bool:
        with self.begin() as session:
            case = self._case(session)
            return case is not None and case.closed_at is None

    @invariant()
    def nothing_that_needs_a_person_is_without_one(self) -> None:
        with self.begin() as session:
            standing = session.exec(select(ResultSeries.outcome).where(col(ResultSeries.kit_id) == self.kit_id)).all()
            case = self._case(session)
            assert case is not None or not NON_NEGATIVE & set(standing)
            if case is None:
                return
            assert case.owner_role
            assert case.due_at is not None
            non_negative = session.exec(
                select(ResultVersion.id).where(
                    col(ResultVersion.kit_id) == self.kit_id, col(ResultVersion.outcome).in_(NON_NEGATIVE)
                )
            ).all()
            items = session.exec(select(CaseItem.version_id).where(col(CaseItem.case_id) == case.id)).all()
            assert sorted(items) == sorted(non_negative)  # one to one, by id (ruling 6)

    @invariant()
    def no_reactive_is_closed_without_its_answer(self) -> None:
        with self.begin() as session:
            case = self._case(session)
            if case is None or case.closed_at is None:
                return
            reacted = {
                Test(test)
                for test, outcome in session.exec(
                    select(ResultSeries.test, ResultSeries.outcome).where(col(ResultSeries.kit_id) == self.kit_id)
                )
                if outcome in REACTIONS
            }
            unanswered = reacted - clinic.confirmations(session, case).keys()
            if unanswered:
                facts = clinic.case_facts(session, case, now=case.closed_at)
                assert case.outcome is CaseOutcome.NO_FURTHER_ACTION
                assert facts.days_since_news >= FLOOR_REACTIVE_DAYS
                assert sum(facts.attempts.values()) >= FLOOR_CALLS

    def teardown(self) -> None:
        """At the end the product's own balance finds nothing missing, doubled or ownerless about cases."""
        self._follow_up()
        with self.begin() as session:
            found = strike_balance(session, now=self.now)
        wrong = [each for each in found.differences if "item" in each.check or "case" in each.check]
        assert wrong == []


def test_no_path_closes_a_reactive_without_an_answer_and_none_loses_a_case(begin):
    class OnThisDatabase(Shift):
        pass

    OnThisDatabase.begin = staticmethod(begin)
    run_state_machine_as_test(
        OnThisDatabase,
        settings=settings(
            max_examples=40,
            stateful_step_count=20,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # each step is a transaction: shrinking would take longer than anybody waits
            suppress_health_check=list(HealthCheck),
        ),
    )
