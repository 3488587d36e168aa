"""Following up: nobody's case is forgotten, however late, often or interrupted the flow runs."""

from collections import deque
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlmodel import col, select

from app.database import Begin
from app.service import SHIPPED, load_services
from flows import follow_up_positives as flow
from flows.follow_up_positives import Tally, follow_up
from integrations.ports import NotSent, OutgoingMail, RefusalKind, Refused, Unsure
from models.actions.referral import refer
from models.actions.text_switch import set_sending
from models.rules.clinic import CaseKind, CaseOutcome
from models.rules.errors import ServiceError
from models.rules.kit import KitState
from models.rules.referral import ReferralFor
from models.rules.service import ReferralClinic
from models.rules.staff import Actor, Role
from models.rules.text import TextPurpose
from models.rules.vocabulary import Outcome, Site, Test
from models.tables.audit import Audit
from models.tables.clinic import ClinicCase, DutyNotice, Escalation, NoticeState, Referral
from models.tables.kit import Kit
from models.tables.text import Text, TextState
from tests.support import build
from tests.support.fake_sender import TAKEN_UNSURE, FakeSender, WatchedBegin

NOW = build.NOW
LATE = NOW + timedelta(days=30)
WEEKDAY = NOW + timedelta(days=28)
"""A Tuesday noon, long after anything was due."""
TARGETS = [
    (Test.HIV, Site.BLOOD),
    (Test.SYPHILIS, Site.BLOOD),
    (Test.CHLAMYDIA, Site.VAGINAL),
    (Test.GONORRHOEA, Site.VAGINAL),
]
ALL_NEGATIVE = dict.fromkeys(TARGETS, Outcome.NEGATIVE)
REACTIVE = ALL_NEGATIVE | {TARGETS[0]: Outcome.REACTIVE}


def reported(begin: Begin, outcomes, count: int = 1) -> None:
    with begin() as session:
        for _ in range(count):
            build.results(session, build.dispatched_kit(session), outcomes)


def run(begin: Begin, now=LATE, limit: int = 500) -> Tally:
    with begin() as session:
        services = {"larkfield": build.in_force(session)}
    return follow_up(begin, services, clock=lambda: now, limit=limit)


def test_an_overdue_case_goes_up_the_ladder_once_and_is_counted(begin):
    reported(begin, REACTIVE)

    first, again = run(begin), run(begin)

    assert (first.steps_told, first.open, first.overdue) == (3, 1, 1)
    assert (again.steps_told, again.open, again.overdue) == (0, 1, 1)
    with begin() as session:
        told = session.exec(select(Audit.actor).where(col(Audit.action) == "case.escalated")).all()
    assert told == ["flow:follow_up_positives"] * 3


def test_a_case_within_its_time_is_left_alone(begin):
    reported(begin, REACTIVE)

    assert run(begin, now=NOW).steps_told == 0


def test_cases_that_wait_for_a_later_step_never_keep_a_new_one_from_its_first(begin, monkeypatch):
    monkeypatch.setattr(flow, "AT_ONCE", 2)
    reported(begin, REACTIVE, count=5)
    with begin() as session:
        due = session.exec(select(ClinicCase.due_at)).first()
        newest = session.exec(select(ClinicCase).order_by(col(ClinicCase.id).desc())).first()
        newest.due_at = due + timedelta(minutes=30)
    run(begin, now=due)

    later = run(begin, now=due + timedelta(hours=1), limit=1)

    assert (later.looked_at, later.steps_told) == (5, 1)


def test_a_run_that_was_cut_short_is_finished_by_the_next(begin, monkeypatch):
    monkeypatch.setattr(flow, "AT_ONCE", 2)
    reported(begin, REACTIVE, count=5)

    first = run(begin, limit=1)
    second = run(begin)

    assert 0 < first.steps_told < 15
    assert first.steps_told + second.steps_told == 15
    with begin() as session:
        assert len(session.exec(select(Escalation)).all()) == 15


@pytest.mark.parametrize("state", [TextState.FAILED, TextState.HANDED_OVER])
def test_a_result_text_that_was_given_up_without_a_case_gets_one(begin, state):
    reported(begin, ALL_NEGATIVE)
    with begin() as session:
        text = session.exec(select(Text).where(col(Text.purpose) == TextPurpose.ALL_CLEAR)).one()
        text.state, text.settled_at = state, NOW

    first, again = run(begin, now=NOW), run(begin, now=NOW)

    assert (first.cases_opened, again.cases_opened) == (1, 0)
    with begin() as session:
        case = session.exec(select(ClinicCase)).one()
        assert (case.kind, case.key) == (CaseKind.UNDELIVERED_TEXT, f"text:{text.id}:undelivered")


def test_a_reminder_that_failed_opens_no_case(begin):
    with begin() as session:
        build.dispatched_kit(session)
    reported(begin, ALL_NEGATIVE)
    with begin() as session:
        text = session.exec(select(Text)).one()
        text.purpose, text.state, text.settled_at = TextPurpose.RETURN_REMINDER, TextState.FAILED, NOW

    assert run(begin, now=NOW).cases_opened == 0


def test_a_case_that_was_closed_for_an_untold_text_is_not_opened_again(begin):
    reported(begin, ALL_NEGATIVE)
    with begin() as session:
        text = session.exec(select(Text)).one()
        text.state, text.settled_at = TextState.HANDED_OVER, NOW
    run(begin, now=NOW)
    with begin() as session:
        case = session.exec(select(ClinicCase)).one()
        case.outcome, case.closed_at, case.closed_by = CaseOutcome.REACHED_ANOTHER_WAY, NOW, "staff:anna"

    assert run(begin).cases_opened == 0


def test_a_kit_about_which_nothing_is_left_is_closed(begin):
    reported(begin, ALL_NEGATIVE)
    with begin() as session:
        text = session.exec(select(Text)).one()
        text.state, text.settled_at = TextState.DELIVERED, NOW

    assert (run(begin).kits_closed, run(begin).kits_closed) == (1, 0)
    with begin() as session:
        assert session.exec(select(Kit.state)).one() is KitState.CLOSED


def test_a_kit_with_an_open_case_stays_open(begin):
    reported(begin, REACTIVE)

    assert run(begin).kits_closed == 0


def test_a_case_that_its_holder_left_lying_goes_back_to_the_queue_and_is_counted(begin):
    reported(begin, REACTIVE)
    with begin() as session:
        case = session.exec(select(ClinicCase)).one()
        case.assignee, case.touched_at = "staff:anna", NOW

    first, again = run(begin), run(begin)

    assert (first.claims_ended, again.claims_ended) == (1, 0)
    with begin() as session:
        assert session.exec(select(ClinicCase.assignee)).one() == ""


# ── Duty phones ──────────────────────────────────────────────────────────────────────────────

PHONES = {"senior_health_adviser": "+447700900111"}


def run_with_duty_phone(begin: Begin, sender: FakeSender, *, now) -> Tally:
    clinic = replace(build.service().clinic, duty_phones=PHONES)
    with begin() as session:
        services = {"larkfield": build.in_force(session, build.service(clinic=clinic))}
    sender.watched = WatchedBegin(begin)
    texts = flow.DutyTexts({"fake": sender}, "fake", flow.load_duty_words())
    return follow_up(sender.watched, services, clock=lambda: now, limit=500, duty_texts=texts)


def test_a_duty_phone_is_texted_how_many_cases_wait_and_nothing_about_them(begin):
    reported(begin, REACTIVE, count=2)
    sender = FakeSender()

    tallies = [run_with_duty_phone(begin, sender, now=WEEKDAY) for _ in range(2)]

    assert [tally.duty_texts for tally in tallies] == [1, 0]
    [text] = sender.ledger
    assert text.to_e164 == "+447700900111"
    assert text.body == (
        "Larkfield: 2 cases on the worklist past their due time, told to: senior health adviser. "
        "Please look at the worklist now."
    )


def test_a_duty_text_waits_for_working_hours_and_for_a_stop_to_end(begin):
    reported(begin, REACTIVE)
    sender = FakeSender()

    assert run_with_duty_phone(begin, sender, now=WEEKDAY.replace(hour=22)).duty_texts == 0
    assert run_with_duty_phone(begin, sender, now=WEEKDAY + timedelta(days=1)).duty_texts == 1


def test_a_duty_text_that_may_have_gone_is_never_sent_again(begin):
    reported(begin, REACTIVE)
    sender = FakeSender(troubles=deque([TAKEN_UNSURE]))

    for _ in range(3):
        run_with_duty_phone(begin, sender, now=WEEKDAY)

    assert len(sender.ledger) == 1
    with begin() as session:
        assert session.exec(select(DutyNotice.state)).one() is NoticeState.UNSURE


def test_a_duty_text_that_certainly_did_not_go_is_tried_again(begin):
    reported(begin, REACTIVE)
    sender = FakeSender(troubles=deque([NotSent("busy")]))

    assert [run_with_duty_phone(begin, sender, now=WEEKDAY).duty_texts for _ in range(2)] == [0, 1]


# ── Duty mailboxes ───────────────────────────────────────────────────────────────────────────


class Mailbox:
    """A mail server that takes what it is told to take."""

    def __init__(self, *troubles: Exception) -> None:
        self.troubles, self.taken = deque(troubles), []

    def send(self, mail: OutgoingMail) -> None:
        """Takes one e-mail, or the trouble that comes first."""
        if self.troubles:
            raise self.troubles.popleft()
        self.taken.append(mail)


def run_with_mailbox(begin: Begin, post: Mailbox, *, now=WEEKDAY) -> Tally:
    clinic = replace(build.service().clinic, duty_mails={"senior_health_adviser": "duty@clinic.example"})
    with begin() as session:
        services = {"larkfield": build.in_force(session, build.service(clinic=clinic))}
    mails = flow.DutyMails(post, "https://kits.example.test/worklist", flow.load_duty_words())
    return follow_up(begin, services, clock=lambda: now, limit=500, duty_mails=mails)


def test_a_duty_mailbox_is_written_to_once_an_hour_how_many_cases_wait_and_nothing_about_them(begin):
    reported(begin, REACTIVE, count=2)
    post = Mailbox()

    assert [run_with_mailbox(begin, post).duty_mails for _ in range(2)] == [1, 0]
    [mail] = post.taken
    assert (mail.to, mail.subject) == ("duty@clinic.example", "2 cases past due on the worklist")
    assert mail.body == (
        "2 cases on the worklist of Larkfield are past their due time. This is told to: senior health adviser.\n\n"
        "Please look at the worklist now: https://kits.example.test/worklist\n\n"
        "Nothing about a person stands in this message, and nobody reads answers to it.\n"
    )


def test_an_e_mail_that_may_have_gone_is_never_sent_again_and_one_that_did_not_is(begin):
    reported(begin, REACTIVE)
    post = Mailbox(NotSent("451"), Unsure("TimeoutError"))

    assert [run_with_mailbox(begin, post).duty_mails for _ in range(3)] == [0, 0, 0]
    assert post.taken == []
    with begin() as session:
        assert session.exec(select(DutyNotice.state)).one() is NoticeState.UNSURE


def test_stopped_texts_stop_no_e_mail_to_the_staff(begin):
    reported(begin, REACTIVE)
    with begin() as session:
        set_sending(session, stopped=True, actor="test:manager", because="wrong wording", now=WEEKDAY)

    assert run_with_mailbox(begin, Mailbox()).duty_mails == 1


def test_a_role_with_a_phone_and_a_mailbox_is_told_over_both(begin):
    reported(begin, REACTIVE)
    mailboxes = {"senior_health_adviser": "d@clinic.example"}
    clinic = replace(build.service().clinic, duty_phones=PHONES, duty_mails=mailboxes)
    with begin() as session:
        services = {"larkfield": build.in_force(session, build.service(clinic=clinic))}
    words, post, sender = flow.load_duty_words(), Mailbox(), FakeSender()
    sender.watched = WatchedBegin(begin)

    tally = follow_up(
        sender.watched,
        services,
        clock=lambda: WEEKDAY,
        limit=500,
        duty_texts=flow.DutyTexts({"fake": sender}, "fake", words),
        duty_mails=flow.DutyMails(post, "https://kits.example.test/worklist", words),
    )

    assert (tally.duty_texts, tally.duty_mails, len(sender.ledger), len(post.taken)) == (1, 1, 1, 1)


def test_a_mailbox_that_is_no_address_stops_the_start_by_its_name(tmp_path):
    written = (SHIPPED / "larkfield.toml").read_text(encoding="utf-8")
    written = written.replace("# duty_mails = {", "duty_mails = {").replace("duty@example.gov.uk", "the duty desk")
    (tmp_path / "larkfield.toml").write_text(written, encoding="utf-8")

    with pytest.raises(ServiceError, match=r"clinic\.duty_mails\.senior_health_adviser is no e-mail address"):
        load_services(tmp_path)


# ── Clinics are told that referrals wait ─────────────────────────────────────────────────────


class Bell:
    """A clinic's system that answers as it is told to."""

    def __init__(self, *answers):
        self.answers, self.heard = deque(answers), []

    def ring(self, ref, made_at, *, now):  # noqa: ARG002 - the port has it
        self.heard.append(ref)
        assert now.tzinfo is not None
        answer = self.answers.popleft() if self.answers else None
        if answer:
            raise answer


def referral(begin):
    reported(begin, REACTIVE)
    council = build.service(clinics=(ReferralClinic("harbour", "Harbour Clinic"),))
    with begin() as session:
        case = session.exec(select(ClinicCase)).one()
        return refer(
            session, case.ref, by=Actor("a", frozenset({Role.CLINICIAN}), frozenset({"larkfield"})),
            version=case.version, clinic="harbour", asked=ReferralFor.CONFIRMATION, message="", agreed=True,
            has_bell=True, now=NOW, service=council, cipher=build.cipher(),
        )  # fmt: skip


def rings(begin, bell, now=NOW):
    with begin() as session:
        services = {"larkfield": build.in_force(session)}
    bells = {("larkfield", "harbour"): bell} if bell else {}
    tally = follow_up(begin, services, clock=lambda: now, limit=9, bells=bells)
    return tally.clinics_told, tally.clinics_not_told


def test_a_clinic_hears_once_that_a_referral_waits(begin):
    ref, bell = referral(begin), Bell()
    assert rings(begin, bell) == (1, 0)
    assert rings(begin, bell) == (0, 0)
    assert bell.heard == [ref]


def test_a_clinic_that_is_down_is_told_later_and_one_that_refuses_is_a_persons(begin):
    referral(begin)
    bell = Bell(NotSent("503"), Refused("410", RefusalKind.CONFIGURATION))
    assert rings(begin, bell) == (0, 0)
    assert rings(begin, bell) == (0, 0), "its patience has not ended"
    with begin() as session:
        row = session.exec(select(Referral)).one()
        row.ring_at = row.recorded_at
    assert rings(begin, bell) == (0, 1)
    with begin() as session:
        assert session.exec(select(ClinicCase.due_at)).one() == NOW


def test_a_clinic_whose_bell_is_not_set_any_more_is_a_persons(begin):
    referral(begin)
    assert rings(begin, None) == (0, 1)
