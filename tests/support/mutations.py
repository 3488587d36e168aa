"""Reads mutants through the whole path into a database, beside unspoilt controls, and judges what became of them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from random import Random
from string import ascii_uppercase

from app.database import Begin
from flows.ingest_results import ingest_waiting_files
from flows.reconcile import strike
from tests.support import lab_files
from tests.support.ingesting import READ_AT, ask, drop_bytes, ingest
from tests.support.lab_files import Row
from tests.support.many_kits import Sent, send_kits
from tests.support.memory_store import MemoryStore
from tests.support.mutants import EVERY_ROW, Form, Mutation, edited, mutations

RESULT_TEXTS = {"all_clear", "swab_positive", "failed_sample"}
TARGETS = (("chlamydia", "urine"), ("gonorrhoea", "urine"), ("hiv", "blood"), ("syphilis", "blood"))
A_CONTROL_IN = 8
"""One kit in eight is left as it is: it must be told, in the same file."""


def check_mutants(begin: Begin, form: Form, *, seed: int, every: int = 1) -> int:
    """Judges every mutant of a format (or every so many), and says how many there were."""
    lab = form.spelling.lab
    with begin() as session:
        bystanders = send_kits(session, 4, lab=lab, seed=seed + 1000)
    made = list(mutations(form, bystanders, seed))[seed % every :: every]
    with begin() as session:
        kits = send_kits(session, len(made), lab=lab, seed=seed)
        controls = send_kits(session, len(made) // A_CONTROL_IN + 1, lab=lab, seed=seed + 2000)
    mutants = dict(zip(kits, made, strict=True))
    _read(begin, form, [mutation.rows(kit, form.spelling) for kit, mutation in mutants.items()], controls)
    _judge(begin, mutants, controls, bystanders)
    return len(mutants)


def check_senders(begin: Begin) -> int:
    """Judges files of senders that are nobody's: each is a file of its own, and none is used."""
    chance = Random(5)
    changes = [{"application": edited("WINLIMS", chance, ascii_uppercase)} for _ in range(10)]
    changes += [{"facility": edited("NORTHLAB", chance, ascii_uppercase)} for _ in range(10)]
    changes += [{"application": ""}, {"facility": ""}, {"application": "NORTHLAB", "facility": "WINLIMS"}]
    with begin() as session:
        kits = send_kits(session, len(changes), seed=3)
        controls = send_kits(session, 1, seed=4)
    store = MemoryStore()
    for kit, change in zip(kits, changes, strict=True):
        drop_bytes(store, lab_files.hl7(kit.rows(**change)))
    drop_bytes(store, lab_files.hl7(controls[0].rows()))
    ingest_waiting_files(ingest(begin, store), limit=100)
    nobodys = {
        kit: Mutation("sender", str(change), lambda row: row, EVERY_ROW)
        for kit, change in zip(kits, changes, strict=True)
    }
    _judge(begin, nobodys, controls, [])
    return len(kits)


def _read(begin: Begin, form: Form, mutants: list[list[Row]], controls: list[Sent]) -> None:
    store = MemoryStore()
    for rows in _files(form, mutants, controls):
        drop_bytes(store, form.write(rows), lab=form.spelling.lab, ending=form.ending)
    # Files of little else but mutants would each be held as a whole: here every row is judged.
    reading = ingest(begin, store)
    every_row = {name: replace(lab, max_quarantined_percent=100) for name, lab in reading.maps.items()}
    ingest_waiting_files(replace(reading, maps=every_row), limit=100_000)


def _files(form: Form, mutants: list[list[Row]], controls: list[Sent]) -> Iterator[list[Row]]:
    """Mutants with a control after every few, so many kits a file."""
    waiting = iter(controls)
    people: list[list[Row]] = []
    for number, rows in enumerate(mutants):
        people.append(rows)
        if number % A_CONTROL_IN == 0:
            people.append(next(waiting).rows(form.spelling))
    people += [control.rows(form.spelling) for control in waiting]
    parts = iter(people)
    while part := list(islice(parts, form.kits_a_file)):
        yield [row for person in part for row in person]


def _judge(begin: Begin, mutants: dict[Sent, Mutation], controls: Iterable[Sent], bystanders: Iterable[Sent]) -> None:
    told: dict[int, list[str]] = defaultdict(list)
    for kit_id, purpose in ask(begin, "SELECT kit_id, purpose FROM text"):
        told[kit_id].append(purpose)
    outcomes = {
        (kit_id, test, site): outcome
        for kit_id, test, site, outcome in ask(begin, "SELECT kit_id, test, site, outcome FROM result_series")
    }
    wrong = []
    for kit, mutation in mutants.items():
        tells = RESULT_TEXTS & set(told[kit.id])
        said = {outcomes.get((kit.id, *TARGETS[place])) for place in mutation.places}
        if tells - {mutation.may_tell} or (mutation.spoils and "negative" in said):
            wrong.append((mutation.field, mutation.what, mutation.places, tells, said))
    assert not wrong, f"{len(wrong)} of {len(mutants)} mutants: {wrong[:9]}"
    for kit in bystanders:
        assert not RESULT_TEXTS & set(told[kit.id]), "somebody was told another's result"
    for kit in controls:
        assert told[kit.id] == ["all_clear"], "an unspoilt kit was not told"
    assert strike(begin, lambda: READ_AT).differences == ()
