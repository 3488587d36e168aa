"""Kits to pack become proved paper, once, whatever happens on the way (FEATURES 17, 20, 22)."""

import hashlib
import json
from collections.abc import Sequence
from datetime import timedelta

import pypdfium2 as pdfium
import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from app.database import Begin
from flows.pack_kits import Tally, pack_waiting_kits
from integrations.labels.press import LabelPress
from integrations.ports import KitPack, LabelPrinter
from models.actions.kit import cancel_kit
from models.actions.print_batch import reprint_kit, void_batch
from models.rules.errors import Code, ServiceError
from models.rules.kit import KitState
from models.rules.order import Address, write_address
from models.rules.person import Postcode, fold_address
from models.rules.secrets import ADDRESS
from models.rules.service import CollectionPoint, CollectionPolicy, PackPolicy, Paper, Service, ServiceInForce
from models.tables.clinic import ClinicCase
from models.tables.kit import BatchState, Kit, PrintBatch
from models.tables.person import Person, PersonIndex
from tests.support import build
from tests.support.memory_store import MemoryStore

BECAUSE = "the printer ate it"
KEYS = {"cipher": build.cipher(), "indexes": build.indexes()}


class Killed(BaseException):
    """The process ends here."""


class KilledStore(MemoryStore):
    """A store in front of which the process is killed at the nth put."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def put(self, key: str, body: bytes, content_type: str = "") -> str:
        """Stores, until it is time."""
        if self.left == 0:
            raise Killed
        self.left -= 1
        return super().put(key, body, content_type)


class BlotchedPress(LabelPress):
    """Draws the packs of a batch in the wrong order: every barcode is readable, and another kit's."""

    def draw(self, packs: Sequence[KitPack], paper: Paper) -> bytes:
        """Right paper for the wrong truth."""
        return super().draw(list(reversed(packs)), paper)


def _pack(
    begin: Begin,
    store: MemoryStore,
    *,
    printer: LabelPrinter | None = None,
    service: Service | None = None,
    limit: int = 100,
) -> Tally:
    return pack_waiting_kits(
        begin,
        store,
        printer or LabelPress(),
        {"larkfield": ServiceInForce(service or build.service(), 1)},
        clock=lambda: build.NOW,
        cipher=build.cipher(),
        limit=limit,
    )


def _kits(begin: Begin, count: int) -> list[Kit]:
    with begin() as session:
        return [build.kit(session) for _ in range(count)]


def _batches(begin: Begin) -> list[PrintBatch]:
    with begin() as session:
        return list(session.exec(select(PrintBatch).order_by(col(PrintBatch.id))))


def _states(begin: Begin) -> list[KitState]:
    with begin() as session:
        return list(session.exec(select(Kit.state).order_by(col(Kit.id))))


def test_waiting_kits_become_one_released_batch_with_its_paper_in_the_store(begin: Begin) -> None:
    _kits(begin, 2)
    store = MemoryStore()

    tally = _pack(begin, store)

    [batch] = _batches(begin)
    assert tally == Tally(batches=1, kits=2, held=0)
    assert (batch.state, batch.released_at) == (BatchState.RELEASED, build.NOW)
    assert hashlib.sha256(store.read(batch.pdf_key)).hexdigest() == batch.pdf_sha256
    assert store.read(f"batches/{batch.ref}/contact-sheet.png").startswith(b"\x89PNG")
    assert _states(begin) == [KitState.PRINTED] * 2


def test_the_manifest_says_which_codes_belong_together_and_nothing_of_anybody(begin: Begin) -> None:
    [kit] = _kits(begin, 1)
    store = MemoryStore()
    _pack(begin, store)

    [batch] = _batches(begin)
    raw = store.read(batch.manifest_key).decode()

    [entry] = json.loads(raw)["kits"]
    assert (entry["kit"], entry["tubes"]) == (kit.code, [f"{kit.code}1", f"{kit.code}2"])
    assert not any(word in raw for word in ("Testina", "Invented", "LS1", "1999", "0770"))


def test_a_run_prints_no_more_than_its_limit_in_batches_of_the_councils_size(begin: Begin) -> None:
    _kits(begin, 4)
    packing = PackPolicy(
        batch_size=2, return_address=("PO Box 100", "LS1 1AA"), responsible_person="P", responsible_phone="1"
    )

    tally = _pack(begin, MemoryStore(), service=build.service(packing=packing), limit=3)

    assert tally == Tally(batches=2, kits=3, held=0)
    assert _states(begin) == [KitState.PRINTED] * 3 + [KitState.TO_PACK]


def test_a_second_run_prints_nothing_again(begin: Begin) -> None:
    _kits(begin, 1)
    _pack(begin, MemoryStore())

    assert _pack(begin, MemoryStore()) == Tally()


def test_paper_that_does_not_agree_with_the_database_is_held_and_printed_for_nobody(begin: Begin) -> None:
    _kits(begin, 2)
    store = MemoryStore()

    tally = _pack(begin, store, printer=BlotchedPress())

    [batch] = _batches(begin)
    assert tally.held == 1
    assert (batch.state, batch.pdf_key) == (BatchState.HELD, "")
    assert "barcode" in batch.held_because
    assert store.objects == {}
    assert _states(begin) == [KitState.TO_PACK] * 2


def test_a_held_batch_stands_on_the_packers_worklist_and_is_not_drawn_again(begin: Begin) -> None:
    _kits(begin, 2)
    _pack(begin, MemoryStore(), printer=BlotchedPress())

    again = _pack(begin, MemoryStore())

    assert again == Tally()
    with begin() as session:
        [case] = session.exec(select(ClinicCase)).all()
    assert (case.owner_role, case.detail["why"]) == ("packer", "batch_held")


def test_a_held_batch_that_a_person_voids_is_printed_anew(begin: Begin) -> None:
    _kits(begin, 2)
    _pack(begin, MemoryStore(), printer=BlotchedPress())
    [held] = _batches(begin)

    with begin() as session:
        sent_back = void_batch(session, held.ref, because=BECAUSE, now=build.NOW, actor=build.ACTOR, **KEYS)
    tally = _pack(begin, MemoryStore())

    assert (sent_back, tally) == (2, Tally(batches=1, kits=2, held=0))
    assert [batch.state for batch in _batches(begin)] == [BatchState.VOIDED, BatchState.RELEASED]


def test_one_kit_that_cannot_be_printed_does_not_keep_the_others(begin: Begin) -> None:
    _kits(begin, 1)
    with begin() as session:
        person = build.person(session, family_name="\u4e2d")  # no Welsh or English label font has it
        poisoned = build.kit(session, of=person)
    _kits(begin, 1)

    tally = _pack(begin, MemoryStore())

    assert tally.held == 1
    assert _states(begin) == [KitState.PRINTED, KitState.TO_PACK, KitState.PRINTED]
    with begin() as session:
        [case] = session.exec(select(ClinicCase)).all()
        held = session.get_one(PrintBatch, session.get_one(Kit, poisoned.id).batch_id)
    assert case.kit_id == poisoned.id
    assert (held.state, held.kits) == (BatchState.HELD, 1)
    assert "\u4e2d" not in held.held_because


@pytest.mark.parametrize("puts", [0, 1, 2, 3])
def test_a_run_killed_while_it_prints_loses_nothing_and_another_draws_the_same_bytes(begin: Begin, db, puts) -> None:
    _kits(begin, 2)
    killed = KilledStore(at=puts)
    if puts < 3:
        with pytest.raises(Killed):
            _pack(begin, killed)
        before = dict(killed.objects)
        assert _pack(begin, MemoryStore()) == Tally()  # its lease still holds: nobody prints it beside it
        _let_leases_end(db)
    else:
        before = {}
    store = MemoryStore()

    tally = _pack(begin, store)

    [batch] = _batches(begin)
    assert tally == Tally(batches=1, kits=2, held=0)
    assert batch.state is BatchState.RELEASED
    assert all(store.objects[key] == body for key, body in before.items())
    assert _states(begin) == [KitState.PRINTED] * 2


def test_a_slow_run_that_another_overtook_changes_nothing(begin: Begin, db) -> None:
    _kits(begin, 1)
    overtaking = MemoryStore()

    class Slow(MemoryStore):
        def put(self, key: str, body: bytes, content_type: str = "") -> str:
            if key.endswith("manifest.json"):
                _let_leases_end(db)
                _pack(begin, overtaking)
            return super().put(key, body, content_type)

    slow = Slow()
    _pack(begin, slow)

    [batch] = _batches(begin)
    assert batch.state is BatchState.RELEASED
    assert slow.objects == overtaking.objects


def test_a_kit_cancelled_while_its_paper_is_drawn_stays_cancelled(begin: Begin) -> None:
    [kit, _] = _kits(begin, 2)

    class Cancelling(MemoryStore):
        def put(self, key: str, body: bytes, content_type: str = "") -> str:
            if key.endswith("manifest.json"):
                with begin() as session:
                    found = session.get_one(Kit, kit.id)
                    cancel_kit(session, found, now=build.NOW, actor=build.ACTOR, reason="asked_by_resident")
            return super().put(key, body, content_type)

    _pack(begin, Cancelling())

    assert _states(begin) == [KitState.CANCELLED, KitState.PRINTED]


def test_two_runs_at_once_print_each_kit_once(begin: Begin) -> None:
    _kits(begin, 2)

    class Beside(MemoryStore):
        """Another run takes place while this one draws."""

        other: Tally | None = None

        def put(self, key: str, body: bytes, content_type: str = "") -> str:
            if self.other is None:
                self.other = Tally()
                self.other = _pack(begin, MemoryStore())
            return super().put(key, body, content_type)

    store = Beside()

    assert _pack(begin, store) == Tally(batches=1, kits=2, held=0)
    assert store.other == Tally()


def test_a_kit_whose_paper_was_destroyed_is_printed_in_the_next_batch(begin: Begin) -> None:
    [kit, _] = _kits(begin, 2)
    _pack(begin, MemoryStore())

    with begin() as session:
        reprint_kit(session, kit.code, because=BECAUSE, now=build.NOW, actor=build.ACTOR, **KEYS)
    tally = _pack(begin, MemoryStore())

    assert tally == Tally(batches=1, kits=1, held=0)
    assert _states(begin) == [KitState.PRINTED] * 2


def test_a_dispatched_kit_is_not_printed_again(begin: Begin) -> None:
    with begin() as session:
        kit = build.dispatched_kit(session)

    with begin() as session, pytest.raises(ServiceError) as refused:
        reprint_kit(session, kit.code, because=BECAUSE, now=build.NOW, actor=build.ACTOR, **KEYS)

    assert refused.value.code is Code.CONFLICT


def test_a_lab_without_an_address_holds_the_kit_instead_of_printing_half_a_label(begin: Begin) -> None:
    with begin() as session:
        build.kit(session, lab="unheardof")

    assert _pack(begin, MemoryStore()).held == 1
    assert _states(begin) == [KitState.TO_PACK]


def test_two_kits_to_one_address_in_one_week_are_flagged_to_the_packer(begin: Begin) -> None:
    with begin() as session:
        near, other, far = (
            _kit_at(session, address, days)
            for address, days in (("1 Invented Row", 0), ("1, Invented Row", 6), ("1 Invented Row", -9))
        )
        elsewhere = _kit_at(session, "2 Invented Row", 0)
    store = MemoryStore()
    _pack(begin, store)

    [batch] = _batches(begin)
    flagged = {entry["kit"]: entry["same_address_as"] for entry in json.loads(store.read(batch.manifest_key))["kits"]}
    assert flagged == {near.code: [other.code], other.code: [near.code], far.code: [], elsewhere.code: []}


def _kit_at(session, line: str, days: int) -> Kit:
    """A kit for a person of this address, made so many days from now."""
    address = Address((line,), Postcode("LS1 4AP"))
    person: Person = build.person(session, residence=write_address(address))
    index = build.indexes()
    digest = index.index(ADDRESS, "larkfield", fold_address(address.lines, address.postcode))
    session.add(PersonIndex(person_id=person.id, service_id="larkfield", domain=ADDRESS, key_version=1, digest=digest))
    return build.kit(session, of=person, now=build.NOW + timedelta(days=days))


def _let_leases_end(db) -> None:
    """Machine time passes."""
    with db.owner_engine.begin() as connection:
        connection.execute(sa.text("UPDATE print_batch SET claimed_until = clock_timestamp() - interval '1 second'"))


def test_a_kit_for_a_counter_is_addressed_to_the_counter_and_one_for_no_counter_of_ours_is_held(begin: Begin) -> None:
    market = CollectionPoint("market", "Larkfield Pharmacy", ("22 Market Street",), "LS1 4AP", "22 Market Street")
    with begin() as session:
        for point in ("market", "closed"):
            person = build.person(session)
            where = write_address(Address(("22 Market Street",), Postcode("LS1 4AP")))
            to = build.contact(session, person, collection_point=point, delivery_address=where)
            build.kit(session, of=person, to=to)
    store = MemoryStore()

    tally = _pack(begin, store, service=build.service(collection=CollectionPolicy(points=(market,))))

    assert (tally.kits, tally.held) == (2, 1)
    assert _states(begin) == [KitState.PRINTED, KitState.TO_PACK]
    [key] = [key for key in store.objects if key.endswith("packs.pdf")]
    with pdfium.PdfDocument(store.read(key)) as document:
        outer = document[0].get_textpage().get_text_range()
    assert "Larkfield Pharmacy" in outer
    assert "Testina" not in outer
