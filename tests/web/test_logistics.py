"""The page of kits, stock and post, and the comparison of reminders behind it. Invented kits only."""

from collections import Counter
from datetime import timedelta

import pytest
from sqlmodel import select

from app.web.presenters import next_step, say
from models.actions.kit import move_kit
from models.actions.logistics import logistics
from models.actions.parcel import pair_and_dispatch
from models.actions.postage import owe_postage
from models.actions.replacement import report_problem
from models.rules.clinic import CaseKind
from models.rules.kit import KitState, show_kit_code
from models.rules.order import Address, read_address
from models.rules.parcel import KitProblem
from models.rules.person import Postcode
from models.rules.postage import PostWay
from models.rules.service import ReminderSplit, ReturnPolicy, ServiceInForce
from models.rules.stock import Recipe, StockPolicy
from models.tables.audit import Audit
from models.tables.clinic import ClinicCase
from models.tables.kit import Kit, PrintBatch
from models.tables.person import Contact
from tests.support import build, s10
from tests.support.memory_store import MemoryStore
from tests.support.web import words

SPLIT = ReminderSplit("early", (3, 7, 14))
numbers = s10.numbers("LG")
DAY = timedelta(days=1)


@pytest.fixture
def stocked(site):
    """A site whose council keeps stock."""
    kept = build.service(
        recipes=(Recipe("northlab", {"lancet": 3}),), stock=StockPolicy(controlled=True, low_below={"lancet": 10})
    )
    site.home.services["larkfield"] = ServiceInForce(kept, site.home.services["larkfield"].version_id)
    return site


def test_a_delivery_is_booked_in_and_a_recall_names_how_many_kits_hold_it(stocked):
    packer = stocked.signed_in("demo-packer")
    assert "0 of Lancet may be packed, fewer than 10" in words(packer.get("/logistics"))

    there = packer.send(
        "/logistics",
        "/logistics/larkfield/receive",
        component="lancet",
        lot="L1",
        pieces="50",
        expires_on="2027-09-01",
    )
    assert "Lot L1 of lancet holds 50." in words(there)
    assert "fewer than 10" not in words(there)
    gone = packer.send(
        "/logistics", "/logistics/larkfield/recall", component="lancet", lot="L1", because="the maker says so"
    )

    assert "0 kits here, 0 outside" in words(gone)
    assert "Recalled" in words(gone)


def test_a_parcel_that_went_wrong_stands_on_the_page_with_whose_it_is_and_when_it_is_due(site):
    with site.home.begin() as session:
        kit = build.dispatched_kit(session)
        report_problem(
            session, kit.code, KitProblem.NOT_RECEIVED, services=site.home.services, now=build.NOW, actor="test:p"
        )

    assert "Not received Packer Due" in words(site.signed_in("demo-manager").get("/logistics"))


def test_the_page_counts_steps_with_their_median_days_and_withholds_small_districts(begin):
    with begin() as session:
        for days in (2, 4, 6):
            kit = build.dispatched_kit(session, at=build.NOW)
            move_kit(session, kit, KitState.COMING_BACK, at=build.NOW + days * DAY, actor="test:c")
        build.kit(session)
        shown = logistics(session, service_ids=["larkfield"], now=build.NOW + 10 * DAY)
        elsewhere = logistics(session, service_ids=["moorside"], now=build.NOW)

    assert [(step.name, step.kits) for step in shown.funnel][:4] == [
        ("Accepted", 4), ("Printed", 3), ("Dispatched", 3), ("Posted back", 3),
    ]  # fmt: skip
    assert shown.funnel[3].median_days == 4.0
    assert [(each.sent, each.returned) for each in shown.districts] == [(None, None)]
    assert (elsewhere.districts, elsewhere.states, elsewhere.funnel[0].kits) == ((), (), 0)


def test_a_cohorts_return_rate_is_read_when_it_is_old_enough_and_by_arm(begin):
    service = build.service(returns=ReturnPolicy(split=SPLIT))
    with begin() as session:
        arms = Counter()
        for number in range(40):
            kit = build.printed_kit(session)
            pair_and_dispatch(
                session,
                kit,
                return_number=next(numbers),
                service=service,
                now=build.NOW,
                actor="test:p",
                cipher=build.cipher(),
            )
            arms[kit.reminder_arm] += 1
            if kit.reminder_arm == "early:b" and number % 2:
                move_kit(session, kit, KitState.COMING_BACK, at=build.NOW + 20 * DAY, actor="test:c")
        back = len(session.exec(select(Kit.id).where(Kit.state == KitState.COMING_BACK)).all())
        young = logistics(session, service_ids=["larkfield"], now=build.NOW + 29 * DAY).cohorts
        old = logistics(session, service_ids=["larkfield"], now=build.NOW + 70 * DAY).cohorts

    assert {cohort.returned for cohort in young} == {(None, None, None)}
    rates = {cohort.arm: cohort.returned for cohort in old}
    assert rates["early:a"] == (0.0, 0.0, None)
    assert rates["early:b"] == (back / arms["early:b"], back / arms["early:b"], None)


def test_a_packer_takes_down_a_problem_and_sends_another_kit_elsewhere(site):
    with site.home.begin() as session:
        kit = build.dispatched_kit(session)
    packer = site.signed_in("demo-packer")

    told = packer.send("/logistics", "/logistics/larkfield/problem", code=kit.code, what="not_received")
    assert "it is a case now" in words(told)
    sent = packer.send(
        "/logistics",
        "/logistics/larkfield/replace",
        code=show_kit_code(kit.code),
        because="not_received",
        address="Flat 9\n2 Elsewhere Road\nLarkfield\nls1 1aa\n",
    )

    assert f"in the stead of {show_kit_code(kit.code)}, which is void" in words(sent)
    with site.home.begin() as session:
        made = session.exec(select(Kit).where(Kit.replaces_kit_id == kit.id)).one()
        contact = session.get_one(Contact, made.contact_id)
        written = build.cipher().decrypt("contact", "delivery_address", contact.ref, contact.delivery_address)
        assert read_address(written) == Address(("Flat 9", "2 Elsewhere Road", "Larkfield"), Postcode("LS1 1AA"))
        first = session.exec(select(Kit.state).where(Kit.id == kit.id)).one()
        assert first is KitState.REPLACED


def test_another_address_without_a_postcode_is_refused_with_what_it_needs(site):
    with site.home.begin() as session:
        kit = build.dispatched_kit(session)

    told = site.signed_in("demo-packer").send(
        "/logistics", "/logistics/larkfield/replace", code=kit.code, because="lost", address="2 Elsewhere Road"
    )

    assert "its postcode on the last" in words(told)


def test_a_batch_shows_its_postage_and_its_picture_to_packers_alone_and_who_looked_is_audited(site, monkeypatch):
    with site.home.begin() as session:
        kit = build.printed_kit(session)
        batch = session.get_one(PrintBatch, kit.batch_id)
        batch.pdf_key = f"batches/{batch.ref}/packs.pdf"
        session.flush()
        owe_postage(session, kit.batch_id, batch.ref, way=PostWay.FILE, now=build.NOW)
        ref = batch.ref
    store = MemoryStore()
    store.put(f"batches/{ref}/contact-sheet.png", b"\x89PNG", "image/png")
    monkeypatch.setattr(site.home.store, "read", store.read)
    packer, manager = site.signed_in("demo-packer"), site.signed_in("demo-manager")

    page = packer.get("/logistics")
    assert "1 of 1 still wait" in words(page)
    link = f"/logistics/batches/{ref}/picture"
    assert link in page.text
    assert link not in manager.get("/logistics").text
    shown = packer.get(link)
    assert (shown.content, shown.headers["content-type"]) == (b"\x89PNG", "image/png")
    assert shown.headers["cache-control"] == "no-store"
    assert manager.get(link).status_code == 403
    with site.home.begin() as session:
        [line] = session.exec(select(Audit).where(Audit.action == "batch.looked_at"))
        assert line.actor == "staff:demo-packer"


def test_a_parcels_case_says_what_happened_and_what_to_do_about_that(site):
    with site.home.begin() as session:
        for problem in KitProblem:
            kit = build.dispatched_kit(session)
            report_problem(session, kit.code, problem, services=site.home.services, now=build.NOW, actor="test:p")
        refs = session.exec(select(ClinicCase.ref).order_by(ClinicCase.id)).all()
    packer = site.signed_in("demo-packer")

    pages = [words(packer.get(f"/cases/{ref}")) for ref in refs]

    assert [say(problem.value) in page for problem, page in zip(KitProblem, pages, strict=True)] == [True] * 4
    assert "It must not be used" in pages[list(KitProblem).index(KitProblem.ARRIVED_OPENED)]
    assert not any("better address" in page for page in pages)


@pytest.mark.parametrize(
    "why",
    ["batch_held", "code_not_texted", "lot_recalled", "not_at_counter", "not_back_from_counter", "postage_refused",
     "postage_to_cancel", "refused_by_lab", "returned_to_sender", "set_aside_damaged", "silent_outbound", "stuck",
     "unknown_scan"],
)  # fmt: skip
def test_each_other_reason_for_a_parcels_case_has_a_next_step_of_its_own(why):
    assert next_step(CaseKind.PARCEL, why) != next_step(CaseKind.PARCEL)
