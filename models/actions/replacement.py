"""Kits that went wrong after they left: a case with a due time for each, and another kit in their stead."""

import secrets
from collections.abc import Collection
from datetime import date, datetime
from typing import Final

from sqlmodel import Session, col, select

from models.actions import audit, event, owed
from models.actions.kit import JOURNEY_TEXTS, create_kit, move_kit
from models.rules.clinic import CaseKind
from models.rules.errors import Code, ServiceError
from models.rules.kit import KitState, may_move, show_kit_code
from models.rules.order import Address, write_address
from models.rules.panel import Panel, Sample
from models.rules.parcel import KitProblem
from models.rules.person import fold_name
from models.rules.secrets import BlindIndex, Cipher
from models.rules.service import Services
from models.rules.text import TextPurpose
from models.rules.vocabulary import Test
from models.tables.kit import Kit, KitSample, KitTest
from models.tables.person import Contact, Person

_TESTS: Final = list(Test)

_STOPPED: Final = (*JOURNEY_TEXTS, TextPurpose.KIT_LAPSED)
"""What nobody need be told any more of a kit that another one replaces."""

OWNER: Final = {KitProblem.ARRIVED_OPENED: "health_adviser"}
"""Whose a problem is, where it is not a packer's: somebody at home may have looked into the box (H13)."""


def report_problem(
    session: Session, code: str, problem: KitProblem, *, services: Services, now: datetime, actor: str
) -> None:
    """Takes down what became of a kit that left: a case with its next step and due time; its reminders stop.

    The kit keeps its state: it may still turn up, and its sample would be taken. Safe to repeat.
    Raises ServiceError(NOT_FOUND), or ServiceError(CONFLICT) for a kit that did not leave, or whose sample came.
    """
    kit = _locked(session, code, services)
    if kit.dispatched_at is None or kit.received_at is not None:
        raise ServiceError(
            Code.CONFLICT, f"Kit {show_kit_code(code)} has not left, or its sample came: this can't be.", ref=code
        )
    assert kit.id is not None  # a stored row
    case = owed.OwedCase(
        key=f"kit:{kit.id}:{problem.value}",
        kind=CaseKind.PARCEL,
        order_id=kit.order_id,
        kit_id=kit.id,
        detail={"why": problem.value},
        owner_role=OWNER.get(problem, ""),
        urgent=problem is KitProblem.ARRIVED_OPENED,
    )
    owed.owe_cases(session, [case], service=services[kit.service_id].service, now=now, actor=actor)
    owed.cancel_texts(session, [kit.id], because=problem.value, now=now, purposes=[TextPurpose.RETURN_REMINDER])
    event.record(
        session, kit_id=kit.id, service_id=kit.service_id, kind=f"problem.{problem.value}", actor=actor, at=now
    )


def replace_kit(  # noqa: PLR0913 - who, why and the keys, by name
    session: Session,
    code: str,
    *,
    because: str,
    services: Services,
    now: datetime,
    actor: str,
    cipher: Cipher,
    indexes: BlindIndex,
    address: Address | None = None,
) -> Kit:
    """Sends another kit in the stead of one that left: same order, person, lab and samples, new codes.

    The first kit is void: it ends as replaced, and its unsent journey texts stop. If its sample comes all the
    same, the result is still that person's and goes to a human (ruling 10). `because` is a short code.
    Raises ServiceError(NOT_FOUND); ServiceError(CONFLICT) for a kit that did not leave or was replaced already;
    ServiceError(BAD_INPUT) for one that the post brought back, without a better address.
    """
    kit = _locked(session, code, services)
    if kit.dispatched_at is None or not may_move(kit.state, KitState.REPLACED):
        raise ServiceError(
            Code.CONFLICT, f"Kit {show_kit_code(code)} has not left, or has ended: none can replace it.", ref=code
        )
    if kit.state is KitState.RETURNED_TO_SENDER and address is None:
        raise ServiceError(
            Code.BAD_INPUT, f"The post brought kit {show_kit_code(code)} back: it needs a better address."
        )
    assert kit.id is not None  # a stored row
    move_kit(session, kit, KitState.REPLACED, at=now, actor=actor, reason=because)
    owed.cancel_texts(session, [kit.id], because="kit_replaced", now=now, purposes=_STOPPED)
    person = session.get_one(Person, kit.person_id)
    born, family = (
        cipher.decrypt("person", column, person.ref, getattr(person, column))
        for column in ("date_of_birth", "family_name")
    )
    made = create_kit(
        session,
        order_id=kit.order_id,
        service_id=kit.service_id,
        person_id=kit.person_id,
        contact_id=kit.contact_id if address is None else _at_new_address(session, kit, address, cipher),
        date_of_birth=date.fromisoformat(born),
        family_name_folded=fold_name(family),
        panel=_panel_of(session, kit.id),
        lab=kit.lab,
        now=now,
        actor=actor,
        indexes=indexes,
        replaces_kit_id=kit.id,
    )
    audit.record(
        session,
        action="kit.replaced",
        subject="kit",
        subject_id=kit.id,
        actor=actor,
        now=now,
        service_id=kit.service_id,
        because=because,
        by=show_kit_code(made.code),
        other_address=address is not None,
    )
    return made


def _panel_of(session: Session, kit_id: int) -> Panel:
    """What a kit asks for, as it was decided: never decided anew."""
    tests: dict[str, list[KitTest]] = {}
    for row in session.exec(select(KitTest).where(KitTest.kit_id == kit_id)):
        tests.setdefault(row.tube_code, []).append(row)
    samples = session.exec(select(KitSample).where(KitSample.kit_id == kit_id).order_by(col(KitSample.tube_code)))
    return Panel(
        tuple(
            Sample(each.specimen, tuple(sorted((row.test for row in tests[each.tube_code]), key=_TESTS.index)))
            for each in samples
        )
    )


def _at_new_address(session: Session, kit: Kit, address: Address, cipher: Cipher) -> int:
    """The kit's contact once more, with another place to deliver to."""
    old, ref = session.get_one(Contact, kit.contact_id), secrets.token_hex(16)
    kept = (
        "service_id", "person_id", "mobile_proved_at", "mobile_proved_how", "text_consent", "voicemail_consent",
        "letter_consent", "safe_times", "language", "wording", "large_print",
    )  # fmt: skip
    new = Contact(
        **{column: getattr(old, column) for column in kept},
        ref=ref,
        mobile=cipher.encrypt("contact", "mobile", ref, cipher.decrypt("contact", "mobile", old.ref, old.mobile)),
        delivery_address=cipher.encrypt("contact", "delivery_address", ref, write_address(address)),
    )
    session.add(new)
    session.flush()
    assert new.id is not None  # flushed
    return new.id


def _locked(session: Session, code: str, services: Collection[str]) -> Kit:
    kit = session.exec(
        select(Kit).where(Kit.code == code, col(Kit.service_id).in_(services)).with_for_update()
    ).one_or_none()
    if kit is None:
        raise ServiceError(Code.NOT_FOUND, f"There is no kit {show_kit_code(code)}.", ref=code)
    return kit
