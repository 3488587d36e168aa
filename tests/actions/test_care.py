"""What follows a positive: treatment that is signed for, partners who are counted, records that are sealed."""

from datetime import date, timedelta

import pytest
from sqlmodel import col, select

from app.database import Begin
from models.actions import casebook, clinic, partners, safeguarding, seal, text_ledger, treatment
from models.actions.case import find_case
from models.actions.lab_desk import row_view
from models.actions.seal import check_unsealed
from models.rules.clinic import AttemptResult, CaseKind, CaseOutcome, EndingDetails
from models.rules.errors import Code, ServiceError
from models.rules.partners import PartnerCounts, PartnerType
from models.rules.service import ServiceInForce
from models.rules.staff import Role
from models.rules.treatment import ALL_NO, Treatment, TreatmentQuestion
from models.rules.vocabulary import Outcome
from models.tables.clinic import ClinicCase
from models.tables.kit import Kit
from tests.actions.test_clinic import (
    ANNA,
    BELA,
    CHLAMYDIA,
    DOCTOR,
    GONORRHOEA,
    NOW,
    POSITIVE,
    SENIOR,
    attempt,
    audited,
    close,
    found,
    opened,
    put_row,
    staff,
)
from tests.support import build

BY_POST = EndingDetails("", NOW.date(), Treatment.BY_POST)

# ── Treatment without a visit ────────────────────────────────────────────────────────────────


def ask(begin: Begin, ref: str, answers=ALL_NO, *, by=ANNA) -> None:
    with begin() as session:
        treatment.ask_for_remote(
            session,
            ref,
            by=by,
            version=found(session, ref).version,
            way=Treatment.BY_POST,
            answers=answers,
            now=NOW,
            cipher=build.cipher(),
        )


def sign(begin: Begin, ref: str, *, by=DOCTOR) -> None:
    with begin() as session:
        treatment.sign(session, ref, by=by, version=found(session, ref).version, now=NOW, cipher=build.cipher())


def test_chlamydia_is_treated_by_post_only_after_a_prescriber_signed(begin):
    ref = opened(begin, POSITIVE)
    with pytest.raises(ServiceError, match="prescriber's signature"):
        close(begin, ref, CaseOutcome.TREATED, details=BY_POST)
    ask(begin, ref)
    with pytest.raises(ServiceError, match="prescriber's signature"):
        close(begin, ref, CaseOutcome.TREATED, details=BY_POST)
    for not_a_prescriber in (ANNA, SENIOR):
        with pytest.raises(ServiceError, match="role does not allow"):
            sign(begin, ref, by=not_a_prescriber)

    sign(begin, ref)
    close(begin, ref, CaseOutcome.TREATED, details=BY_POST)

    acts = [act for act, _ in audited(begin)]
    assert acts.index("treatment.asked_for") < acts.index("treatment.signed") < acts.index("case.closed")


def test_gonorrhoea_beside_chlamydia_is_never_treated_by_post(begin):
    ref = opened(begin, POSITIVE | {GONORRHOEA: Outcome.POSITIVE})

    with pytest.raises(ServiceError, match="takes a visit: another finding"):
        ask(begin, ref)


def test_an_answer_that_speaks_against_it_is_named(begin):
    ref = opened(begin, POSITIVE)

    with pytest.raises(ServiceError, match="answer speaks against"):
        ask(begin, ref, {**ALL_NO, TreatmentQuestion.ALLERGY: True})


def test_news_makes_a_signature_void(begin):
    ref = opened(begin, POSITIVE)
    ask(begin, ref)
    sign(begin, ref)
    with begin() as session:
        kit = session.exec(select(Kit)).one()
        build.results(session, kit, {CHLAMYDIA: Outcome.POSITIVE}, at=NOW + timedelta(hours=1))

    with pytest.raises(ServiceError, match="prescriber's signature"):
        close(begin, ref, CaseOutcome.TREATED, details=BY_POST)
    with pytest.raises(ServiceError, match="nothing to sign"):
        sign(begin, ref)


# ── Partners ─────────────────────────────────────────────────────────────────────────────────


def count(begin: Begin, ref: str, *numbers: int, now=NOW, partner=PartnerType.ESTABLISHED) -> None:
    with begin() as session:
        partners.record_partners(
            session,
            ref,
            by=ANNA,
            version=found(session, ref).version,
            partner=partner,
            counts=PartnerCounts(*numbers),
            service=build.service(),
            now=now,
        )


def test_the_first_talk_about_partners_owes_one_count_again_after_four_weeks(begin):
    ref = opened(begin, POSITIVE)
    count(begin, ref, 2, 1, 0, 0, 0, 0)
    count(begin, ref, 1, 1, 1, 0, 0, 0, partner=PartnerType.ONE_OFF, now=NOW + timedelta(days=2))

    with begin() as session:
        [again] = session.exec(select(ClinicCase).where(col(ClinicCase.kind) == CaseKind.PARTNER_FOLLOW_UP)).all()

    assert (again.due_at, again.owner_role) == (NOW + timedelta(weeks=4), "health_adviser")


def test_the_follow_up_ends_only_with_numbers_of_its_own_and_shows_the_newest(begin):
    ref = opened(begin, POSITIVE)
    count(begin, ref, 2, 1, 0, 0, 0, 0)
    with begin() as session:
        kind = col(ClinicCase.kind) == CaseKind.PARTNER_FOLLOW_UP
        again = session.exec(select(ClinicCase.ref).where(kind)).one()
    with pytest.raises(ServiceError, match="record the numbers first"):
        close(begin, again, CaseOutcome.PARTNERS_FOLLOWED_UP)

    count(begin, again, 2, 1, 1, 1, 1, 1, now=NOW + timedelta(weeks=4))
    close(begin, again, CaseOutcome.PARTNERS_FOLLOWED_UP, now=NOW + timedelta(weeks=4))

    with begin() as session:
        view = casebook.case_view(session, ref, by=ANNA, now=NOW, cipher=build.cipher())
    [line] = view.partners
    assert line.counts == PartnerCounts(2, 1, 1, 1, 1, 1)
    assert [line.since["contactable"], line.since["tested"]] == [date(2026, 11, 24), date(2026, 12, 22)]


def test_there_are_no_partners_to_tell_where_nothing_was_found(begin):
    ref = opened(begin, POSITIVE | {CHLAMYDIA: Outcome.INSUFFICIENT})

    with begin() as session:
        assert casebook.case_view(session, ref, by=ANNA, now=NOW, cipher=build.cipher()).partners is None


# ── Sealed records ───────────────────────────────────────────────────────────────────────────


def sealed(begin: Begin) -> tuple[str, int]:
    ref = opened(begin, POSITIVE)
    with begin() as session:
        person_id = session.exec(select(Kit.person_id)).one()
        seal.set_seal(session, person_id=person_id, service_id="larkfield", sealed=True, by=SENIOR, now=NOW)
    return ref, person_id


def look(begin: Begin, ref: str, *, by=ANNA, now=NOW):
    with begin() as session:
        return casebook.case_view(session, ref, by=by, now=now, cipher=build.cipher())


def test_a_sealed_record_opens_only_with_a_reason_to_one_person_for_a_shift(begin):
    ref, person_id = sealed(begin)
    with begin() as session, pytest.raises(ServiceError, match="Say why"):
        seal.break_seal(session, person_id=person_id, service_id="larkfield", because="", by=ANNA, now=NOW)
    with begin() as session:
        seal.break_seal(
            session, person_id=person_id, service_id="larkfield", because="Called back today", by=ANNA, now=NOW
        )

    assert look(begin, ref).sealed
    for by, now in ((BELA, NOW), (SENIOR, NOW), (ANNA, NOW + timedelta(hours=9))):
        with pytest.raises(ServiceError) as refused:
            look(begin, ref, by=by, now=now)
        assert refused.value.code is Code.SEALED
    assert ("record.seal_broken", "staff:anna") in audited(begin)


def test_an_auditor_sees_who_looked_at_a_sealed_record_and_why_and_nothing_else_of_it(begin):
    ref, person_id = sealed(begin)
    with begin() as session:
        seal.break_seal(
            session, person_id=person_id, service_id="larkfield", because="Called back today", by=ANNA, now=NOW
        )
    look(begin, ref)

    with begin() as session:
        code = session.exec(select(Kit.code)).one()
        shown = casebook.kit_timeline(session, code, by=staff("otto", Role.AUDITOR), now=NOW)

    assert (shown.sealed, shown.events, shown.decisions, shown.texts) == (True, [], (), ())
    seen = [(each.actor, each.action, each.because) for each in shown.looks]
    assert ("staff:anna", "record.seal_broken", "Called back today") in seen
    assert ("staff:anna", "case.viewed", "") in seen


def test_nothing_of_a_sealed_record_shows_by_another_way_in(begin):
    ref, _ = sealed(begin)
    held = {"larkfield": ServiceInForce(build.service(), 1)}
    with begin() as session:
        kit = session.exec(select(Kit)).one()
        code, row_ref = kit.code, put_row(session, "clinician", of=kit).ref

    with begin() as session:
        [row] = casebook.worklist(session, by=ANNA, now=NOW).rows
        assert (row.sealed, row.kit_code) == (True, "")
    for way in (
        lambda session: casebook.kit_timeline(session, code, by=ANNA, now=NOW),
        lambda session: casebook.reveal(session, ref, by=ANNA, now=NOW, cipher=build.cipher()),
        lambda session: casebook.safeguarding_notes(session, ref, by=SENIOR, now=NOW, cipher=build.cipher()),
        lambda session: text_ledger.messages(session, by=ANNA, now=NOW, kit_code=code),
        lambda session: clinic.claim(session, ref, by=ANNA, version=1, now=NOW),
        lambda session: check_unsealed(session, kit.person_id, DOCTOR, NOW),
    ):
        with pytest.raises(ServiceError, match="sealed"), begin() as session:
            way(session)
    with begin() as session:
        row = row_view(session, row_ref, by=DOCTOR, now=NOW, services=held)
    assert (row.sealed, row.kit_code, row.may_read) == (True, "", False), "it is still sent back, and names nobody"


# ── Safeguarding ─────────────────────────────────────────────────────────────────────────────


LEAD = staff("lea", Role.SAFEGUARDING_LEAD)


def concern(begin, ref, note, *, by=ANNA):
    with begin() as session:
        version = find_case(session, ref, by).version
        of_ours, cipher = build.service(), build.cipher()
        safeguarding.note_concern(
            session, ref, by=by, version=version, note=note, now=NOW, service=of_ours, cipher=cipher
        )


def test_what_an_adviser_learns_about_somebodys_safety_is_the_leads_to_read_and_has_a_due_time(begin):
    ref = opened(begin, POSITIVE)
    concern(begin, ref, "Afraid of somebody at home")
    concern(begin, ref, "And has nowhere to go")

    with begin() as session:
        [case] = session.exec(select(ClinicCase).where(col(ClinicCase.kind) == CaseKind.SAFEGUARDING)).all()
        notes = casebook.safeguarding_notes(session, case.ref, by=LEAD, now=NOW, cipher=build.cipher())
        with pytest.raises(ServiceError, match="does not allow"):
            casebook.safeguarding_notes(session, ref, by=ANNA, now=NOW, cipher=build.cipher())
        shown = casebook.case_view(session, ref, by=ANNA, now=NOW, cipher=build.cipher())
    assert (case.owner_role, case.due_at > NOW, case.closed_at) == ("safeguarding_lead", True, None)
    assert [note for _, note in notes] == ["And has nowhere to go", "Afraid of somebody at home"]
    assert shown.has_safeguarding_note
    assert "Afraid" not in repr(shown)
    assert ("case.safeguarding_noted", "staff:anna") in audited(begin)


@pytest.mark.parametrize("note", ["", "  ", "x" * 2001])
def test_a_concern_needs_words(begin, note):
    ref = opened(begin, POSITIVE)

    with pytest.raises(ServiceError, match="Say what you learnt"):
        concern(begin, ref, note)


# ── Letters ──────────────────────────────────────────────────────────────────────────────────


def test_a_letter_is_printed_for_who_agreed_and_once_it_is_recorded_and_that_is_a_reveal(begin):
    ref = opened(begin, POSITIVE)

    def address():
        with begin() as session:
            return casebook.letter_to(session, ref, by=ANNA, now=NOW, cipher=build.cipher())

    with pytest.raises(ServiceError, match="Record the letter first"):
        address()
    attempt(begin, ref, AttemptResult.LETTER)

    assert address().given_name == "Testina"
    assert audited(begin)[-1] == ("contact.revealed", "staff:anna")


def test_a_lab_liaison_prints_no_letter(begin):
    ref = opened(begin, POSITIVE)
    attempt(begin, ref, AttemptResult.LETTER)

    with pytest.raises(ServiceError), begin() as session:
        casebook.letter_to(session, ref, by=staff("lara", Role.LAB_LIAISON), now=NOW, cipher=build.cipher())


def test_a_prescriber_who_asked_may_sign_too_and_nobody_signs_twice(begin):
    ref = opened(begin, POSITIVE)
    ask(begin, ref, by=DOCTOR)
    sign(begin, ref)

    with pytest.raises(ServiceError, match="nothing to sign"):
        sign(begin, ref)


def test_a_claim_of_a_case_that_waits_for_a_prescriber_is_open_to_anyone(begin):
    ref = opened(begin, POSITIVE)
    attempt(begin, ref, AttemptResult.SPOKE)
    ask(begin, ref)

    with begin() as session:
        clinic.claim(session, ref, by=DOCTOR, version=found(session, ref).version, now=NOW)
        assert found(session, ref).assignee == DOCTOR.audit_name
