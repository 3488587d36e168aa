"""Kits to pack become a print batch in the store, proved before it is released (FEATURES 17)."""

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import Final

from prefect import flow

from app.database import Begin
from app.wiring import Clock, connect
from flows.guard import guarded
from integrations.ports import FileStore, KitPack, LabelPrinter, Tube
from models.actions.print_batch import (
    CONTACT_SHEET,
    KitToPrint,
    Paper,
    claim_batch,
    hold_batch,
    kits_to_print,
    release_batch,
    set_aside,
)
from models.rules.errors import Code, ServiceError
from models.rules.secrets import Cipher
from models.rules.service import Service, Services
from models.tables.kit import PrintBatch

ACTOR: Final = "flow:pack_kits"
log: Final = logging.getLogger("kitpost")


@dataclass(slots=True)
class Tally:
    """What one run did."""

    batches: int = 0
    kits: int = 0
    held: int = 0
    """Batches that a person must look at."""


def pack_waiting_kits(
    begin: Begin,
    store: FileStore,
    printer: LabelPrinter,
    services: Services,
    *,
    clock: Clock,
    cipher: Cipher,
    limit: int,
) -> Tally:
    """Prints up to so many waiting kits, batch by batch. Each commit leaves what a killed run can go on from."""
    tally = Tally()
    for in_force in services.values():
        service = in_force.service
        while tally.kits < limit:
            size = min(service.packing.batch_size, limit - tally.kits)
            with begin() as session:
                batch = claim_batch(session, service=service, size=size, now=clock())
            if batch is None:
                break
            tally.batches += 1
            tally.kits += batch.kits
            tally.held += _print(begin, store, printer, batch, service, clock=clock, cipher=cipher)
    return tally


def _print(
    begin: Begin,
    store: FileStore,
    printer: LabelPrinter,
    batch: PrintBatch,
    service: Service,
    *,
    clock: Clock,
    cipher: Cipher,
) -> int:
    """Draws, proves, stores and settles one batch, and says how many batches were held for it."""
    batch_id = batch.id
    assert batch_id is not None  # claimed, so stored
    with begin() as session:
        kits = kits_to_print(session, batch_id, cipher)
    try:
        packs = [_pack(kit, service) for kit in kits]
        pdf = printer.draw(packs, service.packing.paper)
    except ServiceError as error:
        if error.code is not Code.BAD_INPUT or error.ref not in {kit.kit_code for kit in kits}:
            raise
        # One kit that can't be printed must not keep the others waiting.
        with begin() as session:
            set_aside(session, batch_id, error.ref, because=error.message, service=service, now=clock(), actor=ACTOR)
        if len(kits) == 1:
            return 1
        return 1 + _print(begin, store, printer, batch, service, clock=clock, cipher=cipher)
    faults = printer.faults(pdf, packs, service.packing.paper)
    if faults:
        because = f"{len(faults)} faults on paper; the first: {faults[0]}"
        with begin() as session:
            hold_batch(session, batch_id, because=because, service=service, now=clock(), actor=ACTOR)
        log.error("print batch %s is held: %s", batch.ref, because)
        return 1
    folder = f"batches/{batch.ref}"
    digest = hashlib.sha256(pdf).hexdigest()
    store.put(f"{folder}/packs.pdf", pdf, "application/pdf")
    store.put(f"{folder}/{CONTACT_SHEET}", printer.contact_sheet(pdf), "image/png")
    store.put(f"{folder}/manifest.json", manifest(batch, kits, digest), "application/json")
    with begin() as session:
        release_batch(
            session,
            batch_id,
            [kit.kit_code for kit in kits],
            paper=Paper(f"{folder}/packs.pdf", digest, f"{folder}/manifest.json"),
            way=service.post.way,
            now=clock(),
            actor=ACTOR,
        )
    return 0


def manifest(batch: PrintBatch, kits: list[KitToPrint], pdf_sha256: str) -> bytes:
    """What is in a batch, by codes alone: nothing in it says who anybody is."""
    return json.dumps(
        {
            "batch": batch.ref,
            "service": batch.service_id,
            "created_at": batch.created_at.isoformat(),
            "pdf_sha256": pdf_sha256,
            "kits": [
                {
                    "kit": kit.kit_code,
                    "parcel": kit.parcel_code,
                    "tubes": [code for code, *_ in kit.tubes],
                    "expires_on": kit.expires_on.isoformat(),
                    "same_address_as": list(kit.same_address_as),
                }
                for kit in kits
            ],
        },
        indent=1,
    ).encode()


def _pack(kit: KitToPrint, service: Service) -> KitPack:
    contract = service.contract(kit.lab)
    if contract is None or not contract.address:
        message = f"Lab {kit.lab} has no contract with an address to print: add it to the council's file."
        raise ServiceError(Code.BAD_INPUT, message, ref=kit.kit_code)
    point = service.collection.point(kit.collection_point)
    if kit.collection_point and point is None:
        message = f"There is no collection point {kit.collection_point} any more: send this kit elsewhere."
        raise ServiceError(Code.BAD_INPUT, message, ref=kit.kit_code)
    return KitPack(
        kit_code=kit.kit_code,
        parcel_code=kit.parcel_code,
        return_tracking=kit.return_number or None,
        recipient_name=kit.name,
        recipient_lines=(*kit.address.lines, kit.address.postcode),
        date_of_birth=kit.date_of_birth,
        tubes=tuple(Tube(code, specimen, tests) for code, specimen, tests in kit.tubes),
        language=kit.language,
        kit_expires_on=kit.expires_on,
        lab_name=contract.name,
        lab_lines=contract.address,
        sender_lines=service.packing.return_address,
        responsible_person=service.packing.responsible_person,
        responsible_phone=service.packing.responsible_phone,
        counter_name=point.name if point else "",
    )


@flow(name="pack-kits", retries=0)
@guarded("pack-kits")
def pack_kits(limit: int = 500) -> None:
    """Prints waiting kits; fails, by code, when a batch is held for a person."""
    product = connect()
    tally = pack_waiting_kits(
        product.begin,
        product.store,
        product.labels,
        product.services,
        clock=product.clock,
        cipher=product.cipher,
        limit=limit,
    )
    log.info("pack-kits: %d batches, %d kits, %d held", tally.batches, tally.kits, tally.held)
    if tally.held:
        raise ServiceError(Code.BATCH_HELD, f"{tally.held} print batches are held: see the packers' cases.")
