"""Rows and values that many tests need: each with obvious fakes, each overridable by keyword."""

import itertools
import secrets
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlmodel import Session, col, select

from app.database import Begin
from integrations.cipher import BlindIndex, Cipher
from models.actions.kit import create_kit, move_kit
from models.actions.release import decide_kits
from models.actions.service import keep_service_version
from models.rules.clinic import CaseKind
from models.rules.kit import KitState
from models.rules.order import Address, write_address
from models.rules.panel import Panel, Sample
from models.rules.person import Postcode, fold_name
from models.rules.secrets import MOBILE
from models.rules.service import (
    ClinicPolicy,
    LabContract,
    OrderPolicy,
    PackPolicy,
    ReleasePolicy,
    ReturnPolicy,
    Service,
    ServiceInForce,
    TextPolicy,
)
from models.rules.vocabulary import Outcome, ReportStatus, Site, Specimen, Test
from models.tables.inbox import Inbox, InboxKind
from models.tables.kit import BatchState, Kit, PrintBatch
from models.tables.order import Order
from models.tables.person import Contact, MobileHolder, Person
from models.tables.result import Effect, LabFile, ResultSeries, ResultVersion
from models.tables.text import Text, TextState

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
"""A Tuesday, noon in London."""

ACTOR = "test:builder"

NAATS = (Test.CHLAMYDIA, Test.GONORRHOEA)
SWAB_AND_BLOOD = Panel(
    (
        Sample(Specimen.VULVOVAGINAL_SWAB, NAATS),
        Sample(Specimen.CAPILLARY_BLOOD, (Test.HIV, Test.SYPHILIS)),
    )
)
HOME = Address(("1 Invented Row", "Larkfield"), Postcode("LS1 4AP"))
NORTHLAB = LabContract(
    "northlab",
    carries_tube=True,
    tests=frozenset(Test),
    name="Northlab",
    address=("Specimen Reception", "9 Invented Way", "LS1 9ZZ"),
)

_count = itertools.count(1)


def cipher() -> Cipher:
    """The real cipher under a fixed key."""
    return Cipher({"test": bytes(range(32))}, "test")


def indexes() -> BlindIndex:
    """The real blind indexes under a fixed key."""
    return BlindIndex({1: bytes(reversed(range(32)))}, 1)


def service(**changes: Any) -> Service:
    """The fictional council of Larkfield."""
    return Service(
        **{
            "id": "larkfield",
            "name": "Larkfield Sexual Health",
            "text_name": "Larkfield",
            "phone": "0113 496 0000",
            "phone_hours": "Monday to Friday, 9am to 5pm",
            "web": "https://larkfield.example",
            "orders": OrderPolicy(local_authorities=frozenset({"E08000035"})),
            "packing": PackPolicy(
                return_address=("PO Box 100", "Larkfield", "LS1 1AA"),
                responsible_person="Duty Packer",
                responsible_phone="0113 496 0001",
            ),
            "returns": ReturnPolicy(),
            "release": ReleasePolicy(window_days=dict.fromkeys(Test, 14)),
            "texts": TextPolicy(),
            "clinic": ClinicPolicy(due_working_hours=dict.fromkeys(CaseKind, 16)),
            "labs": (NORTHLAB,),
            **changes,
        }
    )


def person(session: Session, **changes: Any) -> Person:
    """Testina Kit, born on Valentine's day; a new row each time."""
    ref, lock = secrets.token_hex(16), cipher()
    plain: dict[str, str] = {
        "given_name": "Testina",
        "family_name": "Kit",
        "date_of_birth": "1999-02-14",
        "residence": write_address(HOME),
    }
    plain |= {name: changes.pop(name) for name in list(changes) if name in plain}
    sealed: dict[str, Any] = {name: lock.encrypt("person", name, ref, value) for name, value in plain.items()}
    row = Person(**{"service_id": "larkfield", "ref": ref, **sealed, **changes})
    session.add(row)
    session.flush()
    return row


def contact(session: Session, of: Person, **changes: Any) -> Contact:
    """How a person may be reached: an invented mobile, everything consented to."""
    ref, lock = secrets.token_hex(16), cipher()
    mobile = changes.pop("mobile", f"+447700900{next(_count) % 1000:03d}")
    delivery = changes.pop("delivery_address", write_address(HOME))
    row = Contact(
        **{
            "service_id": of.service_id,
            "person_id": of.id,
            "ref": ref,
            "mobile": lock.encrypt("contact", "mobile", ref, mobile),
            "mobile_proved_at": NOW,
            "mobile_proved_how": "one_time_code",
            "delivery_address": lock.encrypt("contact", "delivery_address", ref, delivery),
            "text_consent": True,
            "voicemail_consent": True,
            "letter_consent": True,
            "language": "en",
            "wording": "named",
            **changes,
        }
    )
    session.add(row)
    session.flush()
    return row


def order(session: Session, *, of: Person | None = None, to: Contact | None = None, **changes: Any) -> Order:
    """One order as it came, without a decision. Makes its person and contact where none is given."""
    of = of or person(session)
    to = to or contact(session, of)
    ref = secrets.token_hex(16)
    letter = Inbox(
        ref=ref,
        kind=InboxKind.ORDER,
        service_id=of.service_id,
        key=f"web|web-{ref}",
        content_hmac=secrets.token_bytes(32),
        body=cipher().encrypt("inbox", "body", ref, "{}"),
        received_at=NOW,
    )
    session.add(letter)
    session.flush()
    row = Order(
        **{
            "service_id": of.service_id,
            "ref": ref,
            "channel": "web",
            "channel_ref": f"web-{ref}",
            "inbox_id": letter.id,
            "person_id": of.id,
            "contact_id": to.id,
            "authority": "E08000035",
            "answers": {},
            "received_at": NOW,
            **changes,
        }
    )
    session.add(row)
    session.flush()
    return row


def kit(session: Session, *, of: Person | None = None, to: Contact | None = None, **changes: Any) -> Kit:
    """One kit to pack. Given name and date of birth as in `person`; pass `of` and `to` for another person."""
    of = of or person(session)
    to = to or contact(session, of)
    placed = order(session, of=of, to=to)
    lock = cipher()
    born = date.fromisoformat(lock.decrypt("person", "date_of_birth", of.ref, of.date_of_birth))
    return create_kit(
        session,
        **{
            "order_id": placed.id,
            "service_id": of.service_id,
            "person_id": of.id,
            "contact_id": to.id,
            "date_of_birth": born,
            "family_name_folded": fold_name(lock.decrypt("person", "family_name", of.ref, of.family_name)),
            "panel": SWAB_AND_BLOOD,
            "lab": "northlab",
            "now": NOW - timedelta(hours=1),
            "actor": ACTOR,
            "indexes": indexes(),
            **changes,
        },
    )


def printed_kit(session: Session, *, at: datetime = NOW, **changes: Any) -> Kit:
    """A kit whose paper was released and waits at the packing bench."""
    made = kit(session, **changes)
    batch = PrintBatch(
        ref=secrets.token_hex(16),
        service_id=made.service_id,
        state=BatchState.RELEASED,
        kits=1,
        claimed_until=at,
        created_at=at,
        released_at=at,
    )
    session.add(batch)
    session.flush()
    made.batch_id, made.expires_on = batch.id, at.date() + timedelta(days=365)
    move_kit(session, made, KitState.PRINTED, at=at, actor=ACTOR)
    return made


def dispatched_kit(session: Session, *, at: datetime = NOW, **changes: Any) -> Kit:
    """A kit that was printed and dispatched, by the moves alone: no texts are owed for it."""
    made = printed_kit(session, at=at, **changes)
    made.due_back_on = at.date() + timedelta(days=60)
    move_kit(session, made, KitState.DISPATCHED, at=at, actor=ACTOR)
    return made


def hold_mobile(session: Session, of: Contact) -> MobileHolder:
    """Says whose this contact's mobile is, as an accepted order does."""
    mobile = cipher().decrypt("contact", "mobile", of.ref, of.mobile)
    index = indexes()
    row = MobileHolder(
        service_id=of.service_id,
        key_version=index.current_version,
        digest=index.index(MOBILE, of.service_id, mobile),
        person_id=of.person_id,
    )
    session.add(row)
    session.flush()
    return row


def texts_left(begin: Begin) -> None:
    """Every text that is owed was taken by the provider."""
    with begin() as session:
        for text in session.exec(select(Text).where(col(Text.state) == TextState.OWED)):
            text.state, text.sent_at = TextState.ACCEPTED, text.not_before


def in_force(session: Session, of: Service | None = None) -> ServiceInForce:
    """A council's choices, kept as the version that decisions cite."""
    of = of or service()
    return ServiceInForce(of, keep_service_version(session, of.id, {"id": of.id, "built_by": "tests"}))


def results(
    session: Session,
    of: Kit,
    outcomes: Mapping[tuple[Test, Site], Outcome],
    *,
    at: datetime = NOW,
    comments: Mapping[tuple[Test, Site], str] | None = None,
    trigger: str = "file",
) -> None:
    """Results of a kit as a lab file would leave them, with the decision that follows. Said twice: a correction."""
    file = LabFile(
        ref=secrets.token_hex(16),
        lab=of.lab,
        object_key=f"{of.lab}/incoming/{next(_count)}.hl7",
        content_sha256=secrets.token_hex(32),
        size_bytes=1,
        arrived_at=at,
    )
    session.add(file)
    session.flush()
    for position, ((test, site), outcome) in enumerate(outcomes.items(), start=1):
        comment = (comments or {}).get((test, site), "")
        series = session.exec(
            select(ResultSeries).where(
                col(ResultSeries.kit_id) == of.id, col(ResultSeries.test) == test, col(ResultSeries.site) == site
            )
        ).one_or_none()
        corrects = series is not None
        series = series or ResultSeries(
            service_id=of.service_id,
            lab=of.lab,
            accession=f"A{of.id}{site}",
            test=test,
            site=site,
            sub_id="",
            kit_id=of.id,
            current_version_id=0,
            outcome=outcome,
            status=ReportStatus.FINAL,
        )
        session.add(series)
        session.flush()
        place = f"{file.ref}:{position}:"
        version = ResultVersion(
            series_id=series.id,
            kit_id=of.id,
            service_id=of.service_id,
            test=test,
            site=site,
            file_id=file.id,
            position=position,
            outcome=outcome,
            status=ReportStatus.CORRECTED if corrects else ReportStatus.FINAL,
            effect=Effect.CORRECTION if corrects else Effect.FIRST,
            previous_id=series.current_version_id or None,
            note_review=bool(comment),
            comment=cipher().encrypt("result_version", "comment", place, comment) if comment else None,
            lab_time=at,
        )
        session.add(version)
        session.flush()
        series.current_version_id, series.outcome, series.corrected = version.id, outcome, corrects
        series.note_review = bool(comment)
    session.flush()
    force = in_force(session)
    decide_kits(
        session, {of.id: f"{trigger}:{file.id}"}, now=at, actor=ACTOR, services={of.service_id: force}, cipher=cipher()
    )
    session.refresh(of)
