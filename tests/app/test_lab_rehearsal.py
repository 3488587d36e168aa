"""A changed map is tried on past traffic before it goes live, and every difference is named (FEATURES 42)."""

from dataclasses import replace

import pytest

from app.lab_rehearsal import rehearse
from models.rules.errors import Code, ServiceError
from models.rules.lab import PLAIN, LabMap
from models.rules.vocabulary import Outcome, Test
from tests.support.ingesting import ask, ingest, lab_maps, take, with_column
from tests.support.lab_files import LONG, hl7, long_table
from tests.support.many_kits import send_kits
from tests.support.memory_store import MemoryStore

TABLES = [
    "result_version",
    "result_repeat",
    "quarantined_row",
    "release_decision",
    "text",
    "clinic_case",
    "audit",
    "kit_event",
]


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def kits(begin):
    with begin() as session:
        return send_kits(session, 3)


def with_word(word: str, outcome: Outcome) -> LabMap:
    northlab = lab_maps()["NORTHLAB"]
    known = northlab.outcomes[Test.CHLAMYDIA] | {(PLAIN, word): outcome}
    return replace(northlab, version="new", outcomes={**northlab.outcomes, Test.CHLAMYDIA: known})


def counts(begin):
    return [ask(begin, f"SELECT count(*) FROM {table}") for table in TABLES]


def test_one_changed_word_shows_exactly_the_rows_it_changes_and_stores_nothing(begin, kits, store):
    odd = kits[1].rows()[0]._replace(value="Negatif")
    take(begin, hl7([*kits[0].rows(), odd]), store=store)
    take(begin, hl7(kits[2].rows()), store=store)
    before = counts(begin)

    told = rehearse(ingest(begin, store), with_word("negatif", Outcome.NEGATIVE))

    assert (told.files, told.rows) == (2, 9)
    assert told.changes == {("set aside: unknown_token", "chlamydia urine final negative"): 1}
    assert [each.accession for each in told.examples] == [odd.accession]
    assert counts(begin) == before


def test_a_word_that_would_mean_something_else_is_named_for_every_row(begin, kits, store):
    take(begin, hl7([row for kit in kits for row in kit.rows()]), store=store)

    told = rehearse(ingest(begin, store), with_word("not detected", Outcome.EQUIVOCAL))

    assert told.changes == {("chlamydia urine final negative", "chlamydia urine final equivocal"): 3}


def test_the_map_in_force_changes_nothing(begin, kits, store):
    take(begin, hl7(kits[0].rows()), store=store)

    assert not rehearse(ingest(begin, store), lab_maps()["NORTHLAB"]).changes


def test_a_comment_that_is_on_the_list_no_longer_would_hold_its_negative(begin, kits, store):
    northlab = lab_maps()["NORTHLAB"]
    known = "Dual target NAAT & internal control valid."
    take(begin, hl7([kits[0].rows()[0]._replace(comment=known)]), store=store)

    told = rehearse(ingest(begin, store), replace(northlab, boiler_plate=frozenset()))

    assert told.changes == {("chlamydia urine final negative", "chlamydia urine final negative (note_review)"): 1}
    assert known not in repr(told)


def test_a_file_that_cant_be_read_under_both_maps_is_named_and_stops_no_other(begin, kits, store):
    take(begin, long_table(kits[0].rows(LONG)), ending="csv", store=store)
    take(begin, hl7([kits[1].rows()[0]._replace(value="Negatif")]), store=store)
    ((ref,),) = ask(begin, "SELECT ref FROM lab_file WHERE object_key LIKE '%.csv'")

    told = rehearse(ingest(begin, store), with_column(with_word("negatif", Outcome.NEGATIVE), "Batch"))

    assert (told.files, told.rows) == (1, 1)
    assert told.changes == {("set aside: unknown_token", "chlamydia urine final negative"): 1}
    assert list(told.unread) == [ref]
    assert told.unread[ref].startswith("The file's columns are those of an earlier map. Agreed columns are missing: 'B")


def test_only_the_days_asked_for_are_read(begin, kits, store):
    take(begin, hl7(kits[0].rows()), store=store)
    reads = ingest(begin, store)
    later = replace(reads, clock=lambda: reads.clock().replace(year=2027))

    assert rehearse(later, lab_maps()["NORTHLAB"], days=30).files == 0


def test_a_lab_without_a_map_in_force_has_nothing_to_compare_with(begin, store):
    with pytest.raises(ServiceError) as refused:
        rehearse(ingest(begin, store), replace(lab_maps()["NORTHLAB"], lab="NEWLAB"))

    assert refused.value.code is Code.NOT_FOUND


def test_nothing_of_a_person_is_in_what_is_told(begin, kits, store):
    take(begin, hl7([kit.rows()[0]._replace(value="Negatif") for kit in kits]), store=store)
    told = repr(rehearse(ingest(begin, store), with_word("negatif", Outcome.NEGATIVE)))

    assert not [kit for kit in kits if kit.family in told or kit.born in told]
