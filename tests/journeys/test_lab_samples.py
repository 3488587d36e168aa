"""The sample files of tests/golden/lab end as their README says: in any order, and replayed (H2, H3, H9, H10)."""

import random
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import text

from app.database import Begin
from flows.ingest_results import ingest_waiting_files
from flows.reconcile import strike
from models.rules.kit import normalise_kit_code
from tests.support import lab_samples
from tests.support.ingesting import READ_AT, drop, ingest
from tests.support.memory_store import MemoryStore

FILES = {
    "01-batch-ordinary.hl7": "NORTHLAB",
    "02a-partial.hl7": "NORTHLAB",
    "02b-final.hl7": "NORTHLAB",
    "03a-negative.hl7": "NORTHLAB",
    "03b-corrected-positive.hl7": "NORTHLAB",
    "04-insufficient-blood.hl7": "NORTHLAB",
    "05-hiv-reactive.hl7": "NORTHLAB",
    "06-fhir-bundle.json": "NORTHLAB",
    "07-csv-dialect-a.csv": "NORTHLAB",
    "08-csv-dialect-b.csv": "SOUTHVALE",
    "09-csv-dialect-c.csv": "QUAYSIDE",
    "10-truncated.hl7": "NORTHLAB",
    "11-unknown-token.hl7": "NORTHLAB",
}


@pytest.fixture
def seeded(begin: Begin) -> Begin:
    with begin() as session:
        lab_samples.seed(session)
    return begin


def take(begin: Begin, *names: str, store: MemoryStore | None = None) -> MemoryStore:
    """Each file arrives and is read before the next one comes."""
    store = store or MemoryStore()
    for number, name in enumerate(names):
        drop(store, name, lab=FILES[name], as_name=f"{len(store.objects):04d}{number:02d}-{name}")
        ingest_waiting_files(ingest(begin, store), limit=10)
    return store


def rows(begin: Begin, query: str, **binds: Any) -> list[tuple[Any, ...]]:
    with begin() as session:
        return [tuple(row) for row in session.connection().execute(text(query), binds)]


def outcomes(begin: Begin, kit: str) -> dict[tuple[str, str], str]:
    found = rows(
        begin,
        "SELECT s.test, s.site, s.outcome FROM result_series s JOIN kit k ON k.id = s.kit_id WHERE k.code = :code",
        code=normalise_kit_code(kit),
    )
    return {(test, site): outcome for test, site, outcome in found}


def texts(begin: Begin, kit: str, *, state: str = "owed") -> list[str]:
    found = rows(
        begin,
        """SELECT t.purpose FROM text t JOIN kit k ON k.id = t.kit_id
           WHERE k.code = :code AND t.state = :state AND t.purpose <> 'delayed' ORDER BY t.id""",
        code=normalise_kit_code(kit),
        state=state,
    )
    return [purpose for (purpose,) in found]


def case(begin: Begin, kit: str) -> tuple[str, str] | None:
    found = rows(
        begin,
        "SELECT c.kind, c.urgency FROM clinic_case c JOIN kit k ON k.id = c.kit_id WHERE k.code = :code",
        code=normalise_kit_code(kit),
    )
    assert len(found) <= 1, "a kit has one results case"
    return (found[0][0], found[0][1]) if found else None


def quarantine(begin: Begin, kit: str) -> Counter[str]:
    found = rows(
        begin,
        "SELECT q.reason FROM quarantined_row q JOIN kit k ON k.id = q.kit_id WHERE k.code = :code",
        code=normalise_kit_code(kit),
    )
    return Counter(reason for (reason,) in found)


def test_01_an_ordinary_batch_gives_an_all_clear_and_a_chlamydia_pathway(seeded: Begin) -> None:
    take(seeded, "01-batch-ordinary.hl7")

    assert set(outcomes(seeded, "T4J-WW7-5K3Y").values()) == {"negative"}
    assert len(outcomes(seeded, "T4J-WW7-5K3Y")) == 4
    assert texts(seeded, "T4J-WW7-5K3Y") == ["all_clear"]
    assert case(seeded, "T4J-WW7-5K3Y") is None
    assert outcomes(seeded, "W8J-PVM-8V7R") == {
        ("chlamydia", "urine"): "positive",
        ("chlamydia", "rectal"): "negative",
        ("gonorrhoea", "urine"): "negative",
        ("gonorrhoea", "rectal"): "negative",
    }
    assert texts(seeded, "W8J-PVM-8V7R") == ["swab_positive"]
    assert case(seeded, "W8J-PVM-8V7R") == ("positive", "soon")


def test_02_a_partial_report_says_nothing_and_the_final_one_waits_for_a_person_to_read_its_comment(
    seeded: Begin,
) -> None:
    take(seeded, "02a-partial.hl7")

    assert outcomes(seeded, "YRK-TMT-F8RN") == {
        ("chlamydia", "vaginal"): "negative",
        ("gonorrhoea", "vaginal"): "pending",
        ("hiv", "blood"): "pending",
        ("syphilis", "blood"): "pending",
    }
    assert texts(seeded, "YRK-TMT-F8RN") == ["received_at_lab"]
    assert case(seeded, "YRK-TMT-F8RN") is None

    take(seeded, "02b-final.hl7")

    assert set(outcomes(seeded, "YRK-TMT-F8RN").values()) == {"negative"}
    assert "all_clear" not in texts(seeded, "YRK-TMT-F8RN")
    assert case(seeded, "YRK-TMT-F8RN") == ("result_review", "soon")


def test_02_in_the_other_order_ends_the_same_and_the_partial_rows_are_history(seeded: Begin) -> None:
    take(seeded, "02b-final.hl7", "02a-partial.hl7")

    assert set(outcomes(seeded, "YRK-TMT-F8RN").values()) == {"negative"}
    assert case(seeded, "YRK-TMT-F8RN") == ("result_review", "soon")
    effects = Counter(effect for (effect,) in rows(seeded, "SELECT effect FROM result_version"))
    assert effects == {"first": 4, "out_of_order": 3}


def test_03_a_correction_keeps_both_versions_stops_the_text_and_is_urgent(seeded: Begin) -> None:
    store = take(seeded, "03a-negative.hl7")
    assert texts(seeded, "XP3-W45-W4PP") == ["all_clear"]

    take(seeded, "03b-corrected-positive.hl7", store=store)

    assert outcomes(seeded, "XP3-W45-W4PP")[("chlamydia", "urine")] == "positive"
    assert texts(seeded, "XP3-W45-W4PP", state="cancelled") == ["all_clear"]
    assert "all_clear" not in texts(seeded, "XP3-W45-W4PP")
    assert "swab_positive" not in texts(seeded, "XP3-W45-W4PP")
    assert case(seeded, "XP3-W45-W4PP") == ("correction", "urgent")
    versions = rows(seeded, "SELECT outcome, effect FROM result_version WHERE test = 'chlamydia' ORDER BY id")
    assert versions == [("negative", "first"), ("positive", "correction")]


def test_03_after_the_all_clear_left_nothing_goes_out_by_itself(seeded: Begin) -> None:
    store = take(seeded, "03a-negative.hl7")
    with seeded() as session:
        session.connection().execute(text("UPDATE text SET state = 'delivered'"))

    take(seeded, "03b-corrected-positive.hl7", store=store)

    assert texts(seeded, "XP3-W45-W4PP") == []
    assert case(seeded, "XP3-W45-W4PP") == ("correction", "urgent")


def test_03_the_other_way_round_chlamydia_stays_positive(seeded: Begin) -> None:
    take(seeded, "03b-corrected-positive.hl7", "03a-negative.hl7")

    assert outcomes(seeded, "XP3-W45-W4PP")[("chlamydia", "urine")] == "positive"
    assert case(seeded, "XP3-W45-W4PP") == ("correction", "urgent")
    assert "all_clear" not in texts(seeded, "XP3-W45-W4PP")


def test_04_failed_bloods_wait_for_a_person_and_are_never_an_all_clear(seeded: Begin) -> None:
    take(seeded, "04-insufficient-blood.hl7")

    found = outcomes(seeded, "XR2-2MH-TR4V")
    assert found[("hiv", "blood")] == found[("hepatitis_b", "blood")] == "insufficient"
    assert found[("syphilis", "blood")] == "negative"
    assert texts(seeded, "XR2-2MH-TR4V") == []
    assert case(seeded, "XR2-2MH-TR4V") is not None


def test_05_a_reactive_screen_is_called_about_and_never_texted(seeded: Begin) -> None:
    take(seeded, "05-hiv-reactive.hl7")

    assert outcomes(seeded, "KWV-5X9-XPV5") == {("hiv", "blood"): "reactive", ("syphilis", "blood"): "negative"}
    assert texts(seeded, "KWV-5X9-XPV5") == ["please_expect_our_call"]
    assert case(seeded, "KWV-5X9-XPV5") == ("reactive", "urgent")


def test_06_a_fhir_bundle_gives_the_gonorrhoea_pathway(seeded: Begin) -> None:
    take(seeded, "06-fhir-bundle.json")

    assert outcomes(seeded, "5DT-PRK-5DWC") == {
        ("chlamydia", "vaginal"): "negative",
        ("gonorrhoea", "vaginal"): "positive",
        ("hiv", "blood"): "negative",
    }
    assert texts(seeded, "5DT-PRK-5DWC") == ["swab_positive"]
    assert case(seeded, "5DT-PRK-5DWC") == ("positive", "soon")


def test_07_dialect_a_gives_an_all_clear_and_an_inhibitory_sample_held_for_its_comment(seeded: Begin) -> None:
    take(seeded, "07-csv-dialect-a.csv")

    assert texts(seeded, "WT7-CF5-NY2C") == ["all_clear"]
    assert set(outcomes(seeded, "N7X-YHF-PK6Y").values()) == {"inhibitory"}
    assert texts(seeded, "N7X-YHF-PK6Y") == []
    assert case(seeded, "N7X-YHF-PK6Y") is not None


def test_08_dialect_b_gives_a_throat_gonorrhoea_and_four_haemolysed_bloods(seeded: Begin) -> None:
    take(seeded, "08-csv-dialect-b.csv")

    sandover = outcomes(seeded, "J49-MKC-C2CM")
    assert sandover.pop(("gonorrhoea", "pharyngeal")) == "positive"
    assert set(sandover.values()) == {"negative"}
    assert len(sandover) == 7
    crosswaite = outcomes(seeded, "D47-CY6-CMNF")
    assert Counter(crosswaite.values()) == {"negative": 2, "haemolysed": 4}
    assert "all_clear" not in texts(seeded, "D47-CY6-CMNF")
    assert case(seeded, "D47-CY6-CMNF") is not None


def test_09_dialect_c_holds_a_low_reactive_and_a_correction_in_one_file(seeded: Begin) -> None:
    take(seeded, "09-csv-dialect-c.csv")

    assert outcomes(seeded, "PN4-45V-697T") == {
        ("chlamydia", "urine"): "negative",
        ("gonorrhoea", "urine"): "equivocal",
    }
    assert outcomes(seeded, "7FY-77M-J3H4") == {("hiv", "blood"): "low_reactive", ("syphilis", "blood"): "reactive"}
    assert case(seeded, "7FY-77M-J3H4") == ("correction", "urgent")
    assert rows(seeded, "SELECT complete FROM lab_file") == [(False,)]


def test_10_a_truncated_file_is_held_whole(seeded: Begin) -> None:
    store = take(seeded, "10-truncated.hl7")

    assert outcomes(seeded, "FX6-DRK-PDN8") == outcomes(seeded, "VXK-HYK-RNM2") == {}
    assert rows(seeded, "SELECT state, held_because FROM lab_file") == [("held", "incomplete_file")]
    assert rows(seeded, "SELECT kind FROM clinic_case") == [("lab_row",)]
    assert all("/quarantine/" in key for key in store.objects)


def test_11_an_unknown_word_is_quarantined_beside_what_was_understood(seeded: Begin) -> None:
    take(seeded, "11-unknown-token.hl7")

    assert outcomes(seeded, "M3P-3CJ-44TC") == {("chlamydia", "vaginal"): "negative"}
    assert quarantine(seeded, "M3P-3CJ-44TC") == {"unknown_token": 1, "unknown_test": 1}
    assert texts(seeded, "M3P-3CJ-44TC") == []
    assert case(seeded, "M3P-3CJ-44TC") is not None


def end_state(begin: Begin) -> tuple[object, ...]:
    """What must be the same whatever the order: outcomes, what is owed, who has a case, what waits in quarantine."""
    return (
        sorted(
            rows(begin, "SELECT k.code, s.test, s.site, s.outcome FROM result_series s JOIN kit k ON k.id = s.kit_id")
        ),
        sorted(
            rows(
                begin,
                """SELECT k.code, t.purpose FROM text t JOIN kit k ON k.id = t.kit_id
                   WHERE t.state = 'owed'
                   AND t.purpose NOT IN ('received_at_lab', 'delayed', 'please_expect_our_call')""",
            )
        ),
        sorted(rows(begin, "SELECT k.code, c.kind FROM clinic_case c JOIN kit k ON k.id = c.kit_id")),
        sorted(rows(begin, "SELECT k.code, q.reason FROM quarantined_row q JOIN kit k ON k.id = q.kit_id")),
    )


@pytest.fixture(scope="module")
def orders() -> list[list[str]]:
    shuffled = []
    for seed in range(4):
        names = list(FILES)
        random.Random(seed).shuffle(names)
        shuffled.append(names)
    return shuffled


@pytest.mark.parametrize("number", range(4))
def test_all_files_in_any_order_end_the_same_and_balance(
    seeded: Begin, orders: list[list[str]], number: int, reference: tuple[object, ...]
) -> None:
    take(seeded, *orders[number])

    assert end_state(seeded) == reference
    assert strike(seeded, lambda: READ_AT).differences == ()


@pytest.fixture
def reference(migrated: str) -> tuple[object, ...]:
    from app.database import begin_on
    from tests.support import postgres

    with postgres.fresh_database(migrated) as database:
        begin = begin_on(database.engine)
        with begin() as session:
            lab_samples.seed(session)
        take(begin, *FILES)
        return end_state(begin)


def test_replaying_every_file_ten_times_changes_nothing(seeded: Begin) -> None:
    store = take(seeded, *FILES)
    before = (
        end_state(seeded),
        rows(seeded, "SELECT count(*) FROM text"),
        rows(seeded, "SELECT count(*) FROM result_version"),
    )

    for _ in range(10):
        for name, lab in FILES.items():
            drop(store, name, lab=lab, as_name=f"{len(store.objects):05d}-{name}")
        ingest_waiting_files(ingest(seeded, store), limit=50)

    after = (
        end_state(seeded),
        rows(seeded, "SELECT count(*) FROM text"),
        rows(seeded, "SELECT count(*) FROM result_version"),
    )
    assert after == before
    assert strike(seeded, lambda: READ_AT).differences == ()
