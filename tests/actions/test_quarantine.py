"""A row in quarantine is worked, never lost: read again the whole way, with its history, by a named person."""

from dataclasses import replace

import pytest
from sqlalchemy.exc import IntegrityError

from app.lab_reading import attach_row, let_in_again, read_rows_again, settle_row
from flows.ingest_results import ingest_waiting_files
from flows.reconcile import strike
from models.actions.quarantine import open_sealed_kit
from models.actions.seal import set_seal
from models.rules.errors import Code, ServiceError
from models.rules.kit import ALPHABET
from models.rules.lab import PLAIN, SingleCode, fold_token
from models.rules.staff import Actor, Role
from models.rules.vocabulary import Outcome, Quarantine, Site, Test
from tests.support.ingesting import (
    READ_AT,
    ask,
    case_of,
    drop_bytes,
    effects_of,
    ingest,
    quarantined,
    take,
    texts_of,
    with_column,
)
from tests.support.lab_files import LONG, WIDE, hl7, long_table, wide_table
from tests.support.many_kits import send_kits
from tests.support.memory_store import MemoryStore

EARLIER, LATER = "2026-11-02T09:00", "2026-11-03T09:00"
LIAISON = "staff:lab-1"


@pytest.fixture
def kit(begin):
    with begin() as session:
        return send_kits(session, 1)[0]


class WatchedStore(MemoryStore):
    """Refuses to be read while anybody's transaction stands open: it may be slow, and they hold locks."""

    def __init__(self, db):
        super().__init__()
        self.db = db

    def read(self, key, version_id=""):
        with self.db.owner_engine.connect() as connection:
            open_now = connection.exec_driver_sql(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND state LIKE 'idle in transaction%%'"
            ).scalar_one()
        assert open_now == 0, "a transaction is open"
        return super().read(key, version_id)


@pytest.fixture
def store(db):
    return WatchedStore(db)


def is_even(begin):
    return strike(begin, lambda: READ_AT).differences == ()


def reading(begin, store, **words):
    """What reading files needs, with NORTHLAB's map extended by words of chlamydia."""
    reads = ingest(begin, store)
    northlab = reads.maps["NORTHLAB"]
    known = northlab.outcomes[Test.CHLAMYDIA] | {(PLAIN, fold_token(word)): said for word, said in words.items()}
    extended = replace(northlab, version="extended", outcomes={**northlab.outcomes, Test.CHLAMYDIA: known})
    return replace(reads, maps={**reads.maps, "NORTHLAB": extended})


def again(begin, store, words=None, **which):
    return read_rows_again(reading(begin, store, **(words or {})), actor=LIAISON, **which)


def odd(kit, value="Negatif", **changes):
    """Four results, the one of chlamydia in a word that is not agreed."""
    chlamydia, *others = kit.rows(**changes)
    return hl7([chlamydia._replace(value=value), *others])


NEGATIF = {"Negatif": Outcome.NEGATIVE}


def test_an_agreed_word_is_read_again_the_whole_way_to_the_text(begin, kit, store):
    take(begin, odd(kit), store=store)
    assert case_of(begin, kit.id) == ("result_review", "clinician")

    said = again(begin, store, NEGATIF)

    assert (said.looked_at, said.used, said.decided, said.outcomes) == (1, 1, 1, {"negative": 1})
    assert effects_of(begin, kit.id, "chlamydia") == [("negative", "first")]
    assert texts_of(begin, kit.id) == [("all_clear", "owed")]
    assert ask(begin, "SELECT outcome, closed_by FROM clinic_case") == [("resolved_with_lab", LIAISON)]
    assert is_even(begin)


def test_what_reading_again_would_hold_for_a_person_is_counted_apart(begin, kit, store):
    take(begin, odd(kit, comment="Rang the ward."), store=store)

    said = again(begin, store, NEGATIF, dry_run=True)

    assert (said.used, said.outcomes) == (1, {"negative (note_review)": 1})


def test_the_row_keeps_its_history_and_the_audit_says_who_read_it_again_under_which_map(begin, kit, store):
    take(begin, odd(kit), store=store)
    again(begin, store, NEGATIF)

    assert ask(begin, "SELECT reason, resolution FROM quarantined_row") == [("unknown_token", "read_again")]
    (version,) = ask(begin, "SELECT lab_map_version_id FROM result_version WHERE test = 'chlamydia'")
    assert ask(begin, "SELECT actor, (detail ->> 'lab_map_version')::bigint FROM audit "
                      "WHERE action = 'lab_row.read_again'") == [(LIAISON, *version)]  # fmt: skip
    assert ask(begin, "SELECT count(DISTINCT lab_map_version_id) FROM result_version") == [(2,)]


def test_doing_it_again_changes_nothing(begin, kit, store):
    take(begin, odd(kit), store=store)
    again(begin, store, NEGATIF)
    before = ask(begin, "SELECT (SELECT count(*) FROM result_version), (SELECT count(*) FROM release_decision), "
                        "(SELECT count(*) FROM audit), (SELECT count(*) FROM text)")  # fmt: skip
    said = again(begin, store, NEGATIF)

    assert (said.looked_at, said.used) == (0, 0)
    assert before == ask(begin, "SELECT (SELECT count(*) FROM result_version), (SELECT count(*) FROM release_decision),"
                                " (SELECT count(*) FROM audit), (SELECT count(*) FROM text)")  # fmt: skip


def test_a_dry_run_says_the_same_and_keeps_nothing(begin, kit, store):
    take(begin, odd(kit), store=store)

    said = again(begin, store, NEGATIF, dry_run=True)

    assert (said.used, said.outcomes) == (1, {"negative": 1})
    assert quarantined(begin, kit.id) == ["unknown_token"]
    assert texts_of(begin, kit.id) == []
    assert ask(begin, "SELECT count(*) FROM quarantined_row WHERE resolved_at IS NULL") == [(1,)]


@pytest.mark.parametrize("words", [{}, {"Something else": Outcome.NEGATIVE}])
def test_a_row_that_reads_as_before_is_left_as_it_is(begin, kit, store, words):
    take(begin, odd(kit), store=store)
    before = ask(begin, "SELECT id, ref, due_at FROM quarantined_row")

    said = again(begin, store, words)

    assert (said.looked_at, said.used, said.as_before) == (1, 0, 1)
    assert ask(begin, "SELECT id, ref, due_at FROM quarantined_row") == before


def test_a_row_that_would_only_wait_for_the_same_reason_keeps_its_place(begin, kit, store):
    """Matching refuses it as before: the birth date is still another's."""
    take(begin, hl7(kit.rows(born="1950-01-01", family="")), store=store)
    before = ask(begin, "SELECT id, ref FROM quarantined_row ORDER BY id")

    said = again(begin, store)

    assert (said.looked_at, said.as_before) == (4, 4)
    assert ask(begin, "SELECT id, ref FROM quarantined_row ORDER BY id") == before
    assert is_even(begin)


def test_a_row_that_meets_another_doubt_waits_anew_for_it(begin, kit, store):
    take(begin, odd(kit, born="1950-01-01", family=""), store=store)

    said = again(begin, store, NEGATIF)

    assert (said.other_reason, said.used) == (1, 0)
    assert ask(begin, "SELECT reason, resolution FROM quarantined_row WHERE test = 'chlamydia' ORDER BY id") == [
        ("unknown_token", "read_again"),
        ("identity_mismatch", ""),
    ]
    assert texts_of(begin, kit.id) == []
    assert is_even(begin)


def test_a_positive_that_was_not_understood_is_acted_on(begin, kit, store):
    take(begin, odd(kit, "Trouve"), store=store)
    again(begin, store, {"Trouve": Outcome.POSITIVE})

    assert texts_of(begin, kit.id) == [("swab_positive", "owed")]
    assert case_of(begin, kit.id)[0] in {"positive", "result_review"}
    assert is_even(begin)


def test_where_somebody_has_taken_up_the_case_nothing_leaves_by_itself(begin, db, kit, store):
    take(begin, odd(kit), store=store)
    with begin() as session:
        session.connection().exec_driver_sql("UPDATE clinic_case SET assignee = 'staff:nurse-1'")

    again(begin, store, NEGATIF)

    assert texts_of(begin, kit.id) == []
    assert ask(begin, "SELECT closed_at FROM clinic_case") == [(None,)]
    assert is_even(begin)


def test_a_later_word_that_came_meanwhile_is_not_undone(begin, kit, store):
    take(begin, odd(kit, at=EARLIER), store=store)
    take(begin, hl7(kit.rows(at=LATER, message_id="later", value="DETECTED")[:1]), store=store)

    again(begin, store, NEGATIF)

    assert effects_of(begin, kit.id, "chlamydia") == [("positive", "first"), ("negative", "out_of_order")]
    assert is_even(begin)


def test_only_rows_of_the_lab_and_reason_named_are_read(begin, kit, store):
    take(begin, odd(kit), store=store)

    assert again(begin, store, NEGATIF, lab="SOUTHVALE").looked_at == 0
    assert again(begin, store, NEGATIF, reason=Quarantine.UNKNOWN_TEST).looked_at == 0
    assert again(begin, store, NEGATIF, lab="NORTHLAB", reason=Quarantine.UNKNOWN_TOKEN).used == 1


def test_a_lab_that_is_not_configured_is_named(begin, store):
    with pytest.raises(ServiceError) as refused:
        again(begin, store, lab="NOWHERE")

    assert refused.value.code is Code.NOT_FOUND


def test_a_stored_neighbour_that_reads_differently_now_goes_to_a_person(begin, kit, store):
    """The extended map would also turn a stored negative into something else: both are kept and compared."""
    chlamydia, gonorrhoea, *bloods = kit.rows()
    take(begin, hl7([chlamydia._replace(test="NEW"), gonorrhoea, *bloods]), store=store)
    reads = ingest(begin, store)
    northlab = reads.maps["NORTHLAB"]
    tests = {**northlab.tests, ("local", "new"): SingleCode(Test.CHLAMYDIA, frozenset({Site.URINE}))}
    other = northlab.outcomes[Test.GONORRHOEA] | {(PLAIN, "not detected"): Outcome.EQUIVOCAL}
    extended = replace(northlab, tests=tests, outcomes={**northlab.outcomes, Test.GONORRHOEA: other})
    read_rows_again(replace(reads, maps={**reads.maps, "NORTHLAB": extended}), actor=LIAISON)

    assert effects_of(begin, kit.id, "chlamydia") == [("negative", "first")]
    assert effects_of(begin, kit.id, "gonorrhoea") == [("negative", "first")]
    assert ask(begin, "SELECT test, reason FROM quarantined_row WHERE resolved_at IS NULL") == [
        ("gonorrhoea", "conflicting_values")
    ]
    assert texts_of(begin, kit.id) == []
    assert is_even(begin)


def test_the_labs_case_ends_when_the_last_row_behind_it_was_read(begin, kit, store):
    stranger = "T4J-WW7-5K3Y"
    chlamydia, *others = kit.rows(kit=stranger, tube=f"{stranger}-1")
    take(begin, hl7([chlamydia._replace(value="Negatif"), *others]), store=store)

    assert again(begin, store, NEGATIF).other_reason == 1

    still_open = ask(begin, "SELECT detail ->> 'quarantine' FROM clinic_case WHERE closed_at IS NULL")
    assert still_open == [("unknown_kit",)]
    assert is_even(begin)


def test_a_cell_of_a_wide_table_is_read_again_by_itself(begin, store):
    with begin() as session:
        (kit,) = send_kits(session, 1, lab="SOUTHVALE")
    chlamydia, *others = kit.rows(WIDE)
    content = wide_table([chlamydia._replace(value="Negatif"), *others])
    take(begin, content, lab="SOUTHVALE", ending="csv", store=store)
    reads = ingest(begin, store)
    southvale = reads.maps["SOUTHVALE"]
    known = southvale.outcomes[Test.CHLAMYDIA] | {(PLAIN, "negatif"): Outcome.NEGATIVE}
    extended = replace(southvale, outcomes={**southvale.outcomes, Test.CHLAMYDIA: known})
    read_rows_again(replace(reads, maps={"SOUTHVALE": extended}), actor=LIAISON)

    assert effects_of(begin, kit.id, "chlamydia") == [("negative", "first")]
    assert texts_of(begin, kit.id) == [("all_clear", "owed")]
    assert is_even(begin)


def test_a_table_of_an_earlier_maps_columns_stops_no_other_file(begin, store):
    with begin() as session:
        older, newer = send_kits(session, 2)
    chlamydia, *others = older.rows(LONG)
    take(begin, long_table([chlamydia._replace(value="Negatif"), *others]), ending="csv", store=store)
    take(begin, odd(newer), store=store)
    reads = reading(begin, store, **NEGATIF)
    changed = replace(reads, maps={**reads.maps, "NORTHLAB": with_column(reads.maps["NORTHLAB"], "Batch")})

    said = read_rows_again(changed, actor=LIAISON)

    ((ref,),) = ask(begin, "SELECT ref FROM lab_file WHERE object_key LIKE '%.csv'")
    assert (said.looked_at, said.used) == (1, 1)
    assert list(said.unread) == [ref]
    assert said.unread[ref].startswith("The file's columns are those of an earlier map.")
    assert texts_of(begin, newer.id) == [("all_clear", "owed")]
    assert quarantined(begin, older.id) == ["unknown_token"]
    assert is_even(begin)

    assert read_rows_again(reading(begin, store, **NEGATIF), actor=LIAISON).used == 1  # nothing of it was lost


@pytest.mark.parametrize(
    ("fault", "said"), [(Code.NOT_FOUND, "It is gone."), (Code.NOT_NOW, "It is archived.")], ids=["gone", "archived"]
)
def test_a_file_that_the_store_does_not_give_stops_no_other(begin, store, monkeypatch, fault, said):
    with begin() as session:
        lost, kept = send_kits(session, 2)
    take(begin, odd(lost), store=store)
    take(begin, odd(kept), store=store)
    (first, _) = ask(begin, "SELECT ref FROM lab_file ORDER BY id")
    read = store.read

    def one_is_lost(key, version_id=""):
        if first[0][:12] in key:
            raise ServiceError(fault, said)
        return read(key, version_id)

    monkeypatch.setattr(store, "read", one_is_lost)
    found = again(begin, store, NEGATIF)

    assert found.unread == {first[0]: said}
    assert texts_of(begin, kept.id) == [("all_clear", "owed")]
    assert quarantined(begin, lost.id) == ["unknown_token"]


def test_a_store_that_is_down_ends_reading_again(begin, kit, store, monkeypatch):
    take(begin, odd(kit), store=store)

    def down(*_):
        raise ServiceError(Code.STORE_DOWN, "The store does not answer.")

    monkeypatch.setattr(store, "read", down)
    with pytest.raises(ServiceError) as refused:
        again(begin, store, NEGATIF)

    assert refused.value.code is Code.STORE_DOWN


# ── Attached by two ──────────────────────────────────────────────────────────────────────────

DOCTOR = Actor("doctor-1", frozenset({Role.CLINICIAN}), frozenset({"larkfield"}))
SENIOR = Actor("senior-1", frozenset({Role.SENIOR_HEALTH_ADVISER}), frozenset({"larkfield"}))
LARA = Actor("lab-1", frozenset({Role.LAB_LIAISON}), frozenset({"larkfield"}))


def waiting_ref(begin):
    ((ref,),) = ask(begin, "SELECT ref FROM quarantined_row WHERE resolved_at IS NULL")
    return ref


def propose(begin, store, code, by=LARA):
    attach_row(ingest(begin, store), waiting_ref(begin), code, by=by)


def settle(begin, store, by, *, approve=True):
    settle_row(ingest(begin, store), waiting_ref(begin), approve=approve, by=by)


@pytest.fixture
def misspelt(begin, kit, store):
    """Four results, of which the first was typed with a wrong last character."""
    chlamydia, *others = kit.rows()
    wrong = kit.code[:-1] + next(c for c in ALPHABET if c != kit.code[-1])
    take(begin, hl7([chlamydia._replace(kit=wrong, tube=""), *others]), store=store)
    assert ask(begin, "SELECT reason, kit_id FROM quarantined_row") == [("bad_kit_id", None)]
    return kit


def test_two_people_take_a_misspelt_row_as_a_kits_and_nothing_leaves_before_a_clinician_read_it(begin, misspelt, store):
    propose(begin, store, misspelt.code + "1")
    assert effects_of(begin, misspelt.id, "chlamydia") == []

    settle(begin, store, DOCTOR)

    assert effects_of(begin, misspelt.id, "chlamydia") == [("negative", "first")]
    assert texts_of(begin, misspelt.id) == [("received_at_lab", "owed")]
    assert case_of(begin, misspelt.id) == ("result_review", "clinician")
    assert ask(begin, "SELECT note_review FROM result_version WHERE test = 'chlamydia'") == [(True,)]
    assert ask(begin, "SELECT resolution FROM quarantined_row") == [("attached",)]
    acts = ask(begin, "SELECT actor FROM audit WHERE action LIKE 'lab_row.attach%' ORDER BY id")
    assert acts == [("staff:lab-1",), ("staff:doctor-1",), ("staff:doctor-1",)]
    assert ask(begin, "SELECT count(*) FROM clinic_case WHERE kind = 'lab_row' AND closed_at IS NULL") == [(0,)]
    assert is_even(begin)


def test_one_person_is_not_two(begin, misspelt, store):
    propose(begin, store, misspelt.code + "1", by=DOCTOR)

    with pytest.raises(ServiceError, match="second person"):
        settle(begin, store, DOCTOR)
    settle(begin, store, SENIOR)
    assert effects_of(begin, misspelt.id, "chlamydia") == [("negative", "first")]


def test_the_second_person_must_be_one_who_may(begin, misspelt, store):
    propose(begin, store, misspelt.code + "1", by=DOCTOR)

    with pytest.raises(ServiceError) as refused:
        settle(begin, store, LARA)
    assert refused.value.code is Code.NOT_ALLOWED


def test_the_database_itself_refuses_one_person_as_two(begin, misspelt, store):
    propose(begin, store, misspelt.code + "1", by=DOCTOR)

    with pytest.raises(IntegrityError, match="approved_by_another"), begin() as session:
        session.connection().exec_driver_sql(
            "UPDATE row_attachment SET approved = true, settled_by = proposed_by, settled_at = now()"
        )


def seal_record_of(begin, kit):
    """Hides the record of a kit's person from everybody."""
    ((person_id,),) = ask(begin, "SELECT person_id FROM kit WHERE id = :id", id=kit.id)
    with begin() as session:
        set_seal(session, person_id=person_id, service_id="larkfield", sealed=True, by=SENIOR, now=READ_AT)


def open_record(begin, code, *, by, because="the laboratory rang about it"):
    with begin() as session:
        open_sealed_kit(session, waiting_ref(begin), code, because=because, by=by, now=READ_AT)


@pytest.mark.parametrize("typed", ["misspelt", "other"])
def test_of_a_sealed_record_nobody_hears_whether_the_rest_agrees(begin, misspelt, store, typed):
    """A kit that agrees and one that does not: the answer is the same, and says nothing of a date of birth."""
    with begin() as session:
        (other,) = send_kits(session, 1, seed=5)
    of = {"misspelt": misspelt, "other": other}[typed]
    seal_record_of(begin, of)

    with pytest.raises(ServiceError) as refused:
        propose(begin, store, of.code + "1")

    assert refused.value.code is Code.SEALED
    assert ask(begin, "SELECT count(*) FROM row_attachment") == [(0,)]


def test_each_of_two_people_gives_a_reason_before_a_row_becomes_a_sealed_records(begin, misspelt, store):
    seal_record_of(begin, misspelt)
    open_record(begin, misspelt.code + "1", by=LARA)
    propose(begin, store, misspelt.code + "1")

    with pytest.raises(ServiceError) as refused:
        settle(begin, store, DOCTOR)
    assert refused.value.code is Code.SEALED
    assert effects_of(begin, misspelt.id, "chlamydia") == []

    for _ in range(2):
        open_record(begin, "", by=DOCTOR)
    settle(begin, store, DOCTOR)

    assert effects_of(begin, misspelt.id, "chlamydia") == [("negative", "first")]
    broken = ask(begin, "SELECT actor, because FROM audit WHERE action = 'record.seal_broken' ORDER BY id")
    assert broken == [(f"staff:{who}", "the laboratory rang about it") for who in ("lab-1", "doctor-1")]


def test_a_wish_about_a_sealed_record_is_taken_back_without_opening_it(begin, misspelt, store):
    propose(begin, store, misspelt.code + "1")
    seal_record_of(begin, misspelt)

    settle(begin, store, DOCTOR, approve=False)

    assert ask(begin, "SELECT approved FROM row_attachment") == [(False,)]


def test_a_seal_is_broken_with_a_reason_and_for_a_kit_that_is_meant(begin, misspelt):
    seal_record_of(begin, misspelt)

    for code, because, why in ((misspelt.code, "short", Code.BAD_INPUT), ("", "it was proposed", Code.NOT_NOW)):
        with pytest.raises(ServiceError) as refused:
            open_record(begin, code, by=LARA, because=because)
        assert refused.value.code is why


def test_a_declined_wish_changes_nothing_and_another_may_be_made(begin, misspelt, store):
    propose(begin, store, misspelt.code + "1")
    settle(begin, store, DOCTOR, approve=False)

    assert effects_of(begin, misspelt.id, "chlamydia") == []
    propose(begin, store, misspelt.code + "1")
    with pytest.raises(ServiceError) as refused:
        propose(begin, store, misspelt.code + "1", by=DOCTOR)
    assert refused.value.code is Code.CONFLICT


@pytest.mark.parametrize(
    ("typed", "code"),
    [("other", Code.NOT_NOW), ("7K3-F9X-N2PP", Code.NOT_FOUND), ("nonsense", Code.BAD_INPUT), ("kit", Code.NOT_NOW)],
)
def test_a_kit_that_is_not_certainly_the_rows_is_refused_at_once(begin, misspelt, store, typed, code):
    """Another person's kit, nobody's, no kit id at all, and this kit without the tube that the contract asks for."""
    with begin() as session:
        (other,) = send_kits(session, 1, seed=5)
    named = {"other": other.code + "1", "kit": misspelt.code}.get(typed, typed)

    with pytest.raises(ServiceError) as refused:
        propose(begin, store, named)

    assert refused.value.code is code
    assert ask(begin, "SELECT count(*) FROM row_attachment") == [(0,)]
    assert ask(begin, "SELECT count(*) FROM quarantined_row WHERE resolved_at IS NULL") == [(1,)]


@pytest.mark.parametrize(
    "change", [{"born": "1950-01-01", "family": ""}, {"family": "Somebodyelse"}, {"value": "Quatsch"}]
)
def test_a_row_whose_person_or_word_is_in_doubt_is_nobodys_to_attach(begin, kit, store, change):
    take(begin, hl7([kit.rows()[0]._replace(**change)]), store=store)

    with pytest.raises(ServiceError) as refused:
        propose(begin, store, kit.code + "1")
    assert refused.value.code is Code.NOT_NOW


def test_a_held_file_that_somebody_lets_in_again_is_read_row_by_row(begin, store):
    with begin() as session:
        kits = send_kits(session, 30, seed=9)
    rows = [row._replace(value="Negatif") if n < 8 else row for n, kit in enumerate(kits) for row in kit.rows()]
    reads = ingest(begin, store)
    drop_bytes(store, hl7(rows))
    ingest_waiting_files(reads, limit=10)
    ((ref,),) = ask(begin, "SELECT ref FROM lab_file")

    let_in_again(reads, ref, actor=LIAISON)
    let_in_again(reads, ref, actor=LIAISON)
    ingest_waiting_files(reads, limit=10)

    assert ask(begin, "SELECT state FROM lab_file ORDER BY id") == [("held",), ("done",)]
    assert ask(begin, "SELECT count(*) FROM text WHERE purpose = 'all_clear' AND state = 'owed'") == [(22,)]
    assert ask(begin, "SELECT DISTINCT actor FROM audit WHERE action = 'lab_file.let_in_again'") == [(LIAISON,)]
    assert is_even(begin)


@pytest.fixture
def held(begin, kit, store):
    """The reference of a file that was held, and put away."""
    take(begin, hl7(kit.rows(), trailer=False), store=store)
    ((ref,),) = ask(begin, "SELECT ref FROM lab_file")
    return ref


def let_in(begin, store, ref):
    let_in_again(ingest(begin, store), ref, actor=LIAISON)


def read(begin, store):
    ingest_waiting_files(ingest(begin, store), limit=10)


def open_cases(begin):
    return ask(begin, "SELECT key FROM clinic_case WHERE closed_at IS NULL ORDER BY id")


def refused_to_let_in(begin, store, ref):
    objects, acts = dict(store.objects), ask(begin, "SELECT count(*) FROM audit")
    with pytest.raises(ServiceError) as refused:
        let_in(begin, store, ref)
    assert (store.objects, ask(begin, "SELECT count(*) FROM audit")) == (objects, acts)
    assert refused.value.code is Code.NOT_NOW
    return refused.value.message


def test_a_file_that_is_held_again_has_one_open_case_and_only_the_newer_hold_can_be_let_in(begin, store, held):
    let_in(begin, store, held)
    read(begin, store)

    assert open_cases(begin) == [("file:2",)]
    assert ask(begin, "SELECT outcome, closed_by FROM clinic_case WHERE closed_at IS NOT NULL") == [
        ("resolved_with_lab", "flow:ingest_results")
    ]
    assert ask(begin, "SELECT actor, because FROM audit WHERE action = 'case.closed'") == [
        ("flow:ingest_results", "read_again")
    ]
    assert "read again since" in refused_to_let_in(begin, store, held)
    assert is_even(begin)


def test_the_case_of_a_held_file_ends_with_the_reading_of_the_same_file_and_of_no_other(begin, kit, store, held):
    drop_bytes(store, hl7(kit.rows(), trailer=False))  # the same bytes under another name: a file of its own
    read(begin, store)
    assert open_cases(begin) == [("file:1",), ("file:2",)]

    let_in(begin, store, held)
    read(begin, store)
    assert open_cases(begin) == [("file:2",), ("file:3",)]


def test_a_held_file_that_is_lost_is_not_said_to_be_read_again(begin, store, held):
    for key in [key for key in store.objects if key.endswith(".hl7")]:
        del store.objects[key]

    assert "lost" in refused_to_let_in(begin, store, held)
    assert open_cases(begin) == [("file:1",)]


def test_a_held_file_that_is_lost_at_the_last_moment_is_not_said_to_be_read_again(begin, store, held):
    def pin(key):
        found = MemoryStore.pin(store, key)
        del store.objects[key]
        return found

    store.pin = pin
    with pytest.raises(ServiceError) as refused:
        let_in(begin, store, held)
    assert refused.value.code is Code.NOT_FOUND


def test_a_held_file_is_let_in_only_once_it_was_put_away(begin, kit, store, monkeypatch):
    monkeypatch.setattr("flows.ingest_results.put_away", lambda *_: None)
    take(begin, hl7(kit.rows(), trailer=False), store=store)
    ((ref,),) = ask(begin, "SELECT ref FROM lab_file")

    assert "just being put away" in refused_to_let_in(begin, store, ref)


def test_a_held_file_never_takes_the_place_of_one_that_waits_under_its_name(begin, kit, store, held):
    ((name,),) = ask(begin, "SELECT object_key FROM lab_file")
    store.put(name, hl7(kit.rows()))

    assert "Another file of this name waits" in refused_to_let_in(begin, store, held)
    read(begin, store)
    let_in(begin, store, held)
    assert name in store.objects


def test_a_case_that_a_person_closed_is_not_opened_by_the_back_door(begin, store, held):
    with begin() as session:
        session.connection().exec_driver_sql(
            "UPDATE clinic_case SET closed_at = now(), closed_by = 'staff:lab-1', outcome = 'resolved_with_lab'"
        )

    assert "case is over" in refused_to_let_in(begin, store, held)


def test_a_file_that_was_read_is_not_let_in_again(begin, kit, store):
    take(begin, hl7(kit.rows()), store=store)
    ((ref,),) = ask(begin, "SELECT ref FROM lab_file")

    with pytest.raises(ServiceError) as refused:
        let_in_again(ingest(begin, store), ref, actor=LIAISON)

    assert refused.value.code is Code.NOT_NOW
