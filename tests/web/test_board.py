"""The manager's board: queues by age, how soon people were reached, and an export that points at nobody."""

import csv
from datetime import timedelta

from sqlmodel import select

from models.actions.board import board
from models.actions.owed import OwedCase, owe_cases, result_case_key
from models.rules.clinic import AttemptResult, CaseKind, CaseOutcome
from models.rules.vocabulary import Outcome
from models.tables.audit import Audit
from models.tables.clinic import ClinicCase
from tests.actions.test_clinic import CHLAMYDIA, DOCTOR, HIV, NOW, attempt, close, opened
from tests.support import build
from tests.support.web import words

HOUR = timedelta(hours=1)


def busy(begin):
    """Six positives, five of them spoken to and treated; two reactive screens that wait."""
    refs = [opened(begin, {CHLAMYDIA: Outcome.POSITIVE}) for _ in range(6)]
    for ref in refs[:5]:
        attempt(begin, ref, AttemptResult.SPOKE, now=NOW + HOUR)
        close(begin, ref, CaseOutcome.TREATED, now=NOW + 2 * HOUR)
    return refs + [opened(begin, {HIV: Outcome.REACTIVE}) for _ in range(2)]


def test_the_board_counts_what_is_open_and_how_soon_people_were_reached(begin):
    busy(begin)

    with begin() as session:
        shown = board(session, service_ids=["larkfield"], now=NOW + timedelta(days=60))
        elsewhere = board(session, service_ids=["moorside"], now=NOW)

    queues = {queue.kind: (queue.open, queue.overdue, queue.older) for queue in shown.queues}
    assert queues[CaseKind.REACTIVE] == (2, 2, 2)
    assert queues[CaseKind.POSITIVE] == (1, 1, 1)
    tried, spoken, treated, six_weeks = shown.standards[CaseKind.POSITIVE]
    assert (tried.cases, tried.within, tried.median_days) == (6, 5, 0)
    assert {round(each.share, 2) for each in (spoken, treated, six_weeks)} == {0.83}
    assert not any(each.is_kept for each in (spoken, treated, six_weeks))
    assert [each.share for each in shown.standards[CaseKind.REACTIVE]] == [None] * 2
    assert elsewhere.queues == ()


def test_times_run_from_the_result_and_not_from_an_older_case_of_its_kit(begin):
    later = NOW + timedelta(days=30)
    with begin() as session:
        kits = [build.dispatched_kit(session) for _ in range(5)]
        for kit in kits:
            late = OwedCase(result_case_key(kit.id), CaseKind.RESULTS_OVERDUE, order_id=kit.order_id, kit_id=kit.id)
            owe_cases(session, [late], service=build.service(), now=NOW, actor="flow:t")
        refs = session.exec(select(ClinicCase.ref)).all()
    for ref in refs:
        attempt(begin, ref, AttemptResult.NO_ANSWER, by=DOCTOR, now=NOW + HOUR)
    with begin() as session:
        for kit in kits:
            build.results(session, session.merge(kit), {CHLAMYDIA: Outcome.POSITIVE}, at=later)

    with begin() as session:
        tried, spoken, *_ = board(session, service_ids=["larkfield"], now=later + timedelta(days=40)).standards[
            CaseKind.POSITIVE
        ]

    assert (tried.cases, tried.within, spoken.within) == (5, 0, 0)


def test_the_page_says_in_words_what_its_charts_show(site):
    busy(site.home.begin)
    site.home.hands["now"] = NOW + timedelta(days=60)

    said = words(site.signed_in("demo-manager").get("/board"))

    assert "2 overdue" in said
    assert "Treated within 10 working days 6 83 % below 95 % 0" in said
    assert "too few to say" in said
    assert "From a reactive screen to the person" in said


def test_an_export_withholds_small_numbers_and_is_recorded(site):
    busy(site.home.begin)
    site.home.hands["now"] = NOW + timedelta(days=60)

    answer = site.signed_in("demo-manager").send("/board", "/board/export")

    assert answer.headers["content-type"].startswith("text/csv")
    assert "board-" in answer.headers["content-disposition"]
    rows = {(what, measure): value for what, measure, value in csv.reader(answer.text.splitlines())}
    assert rows["reactive", "open"] == rows["reactive", "overdue"] == rows["positive", "open"] == "withheld"
    assert rows["positive:treated_6_weeks", "cases"] == "6"
    assert rows["positive:treated_6_weeks", "within"] == "withheld", "five of six in time: the sixth was late"
    assert rows["reactive:spoken_10_working_days", "cases"] == "withheld"
    with site.home.begin() as session:
        [entry] = session.exec(select(Audit).where(Audit.action == "board.exported"))
    assert entry.service_id == "larkfield"


def test_an_empty_board_says_so(site):
    assert "No case is open." in words(site.signed_in("demo-manager").get("/board"))
