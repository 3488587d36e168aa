"""Owed texts, callbacks and passing machine time, for tests of sending."""

import json
import secrets
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.database import Begin
from flows.notify_residents import Notify
from integrations.ports import FileStore, TextSender
from integrations.texts.catalogue import Catalogue, load_catalogue
from models.actions.owed import OwedText, owe_texts
from models.actions.text_moves import Toolbox
from models.rules.release import ReleaseKind
from models.rules.secrets import MOBILE
from models.rules.service import Service, Services
from models.rules.text import AllClear, OrderReceived, TextPurpose, TextValues
from models.rules.vocabulary import DeliveryStatus, Site, Test
from models.tables.bulk import cursor
from models.tables.clinic import ClinicCase
from models.tables.inbox import Inbox, InboxKind
from models.tables.kit import Kit
from models.tables.person import Contact, MobileHolder
from models.tables.release import ReleaseDecision
from models.tables.text import Text, TextAttempt
from tests.support import build
from tests.support.many_kits import send_kits
from tests.support.memory_store import MemoryStore

ACTOR = "flow:test"
NOW = build.NOW
ALL_CLEAR = AllClear(((Test.CHLAMYDIA, Site.VAGINAL), (Test.GONORRHOEA, Site.VAGINAL)), None)


def catalogue() -> Catalogue:
    """The real texts."""
    return load_catalogue(Path(__file__).parents[2] / "templates" / "texts" / "catalogue.toml")


_CATALOGUE = catalogue()


def services(begin: Begin, *choices: Service) -> Services:
    """Services in force: Larkfield unless others are given."""
    with begin() as session:
        return {each.id: build.in_force(session, each) for each in choices or (build.service(),)}


def tools(begin: Begin, *choices: Service, provider: str = "fake") -> Toolbox:
    """What wiring lends, with the real catalogue."""
    return Toolbox(services(begin, *choices), build.cipher(), build.indexes(), _CATALOGUE.render, provider)


def notify(
    begin: Begin, sender: TextSender, *choices: Service, now: datetime = NOW, outside: FileStore | None = None
) -> Notify:
    """All that a run needs, at one moment of service time. Without an outside, each run's count is the first."""
    box = tools(begin, *choices, provider=sender.name)
    return Notify(begin, {sender.name: sender}, box, lambda: now, outside or Uncounted())


class Uncounted(MemoryStore):
    """An outside that always says what the database says: for tests of something else than restored backups."""

    def read(self, key: str, version_id: str = "") -> bytes:  # noqa: ARG002 - the port has them
        """No run was counted."""
        return b'{"runs": 0}'


def hold_mobile(session: Session, contact: Contact, **changes: Any) -> MobileHolder:
    """Makes a contact's number its person's own."""
    mobile = build.cipher().decrypt("contact", "mobile", contact.ref, contact.mobile)
    row = MobileHolder(
        **{
            "service_id": contact.service_id,
            "key_version": build.indexes().current_version,
            "digest": build.indexes().index(MOBILE, contact.service_id, mobile),
            "person_id": contact.person_id,
            **changes,
        }
    )
    session.add(row)
    session.flush()
    return row


def decide(session: Session, kit: Kit, kind: ReleaseKind, *, on: str = "one") -> ReleaseDecision:
    """A decision that stands from now on. `on` names the results it stands on."""
    assert kit.id is not None  # stored by its builder
    made = _decision(kit.id, kit.service_id, kind, session, on=on)
    session.add(made)
    session.flush()
    kit.current_decision_id = made.id
    session.add(kit)
    session.flush()
    return made


def _decision(kit_id: int, service_id: str, kind: ReleaseKind, session: Session, *, on: str = "one") -> ReleaseDecision:
    return ReleaseDecision(
        kit_id=kit_id,
        service_id=service_id,
        kind=kind,
        reasons=["test"],
        digest=on,
        inputs=[],
        owes_case=kind is not ReleaseKind.ALL_CLEAR,
        trigger=f"test:{secrets.token_hex(4)}",
        rule_version="test",
        service_version_id=build.in_force(session).version_id,
        actor=ACTOR,
        decided_at=NOW,
    )


def owe(
    session: Session,
    kit: Kit,
    says: TextValues = ALL_CLEAR,
    *,
    kind: ReleaseKind | None = ReleaseKind.ALL_CLEAR,
    at: datetime = NOW,
    service: Service | None = None,
    on: str = "one",
) -> Text:
    """One owed text about a kit, with the decision it rests on (`kind` None: a journey text)."""
    decision = decide(session, kit, kind, on=on) if kind else None
    owed = OwedText(kit.order_id, kit.id, kit.contact_id, says, on, decision.id if decision else None)
    owe_texts(session, [owed], service=service or build.service(), now=at, cipher=build.cipher())
    return session.exec(select(Text).where(col(Text.order_id) == kit.order_id, col(Text.purpose) == says.purpose)).one()


def owed_result(session: Session, says: TextValues = ALL_CLEAR, **changes: Any) -> Text:
    """An owed result text to a new person, on their own freshly proved number."""
    owing = {key: changes.pop(key) for key in ("kind", "at", "service", "on") if key in changes}
    of = build.person(session)
    to = build.contact(session, of, **changes)
    hold_mobile(session, to)
    return owe(session, build.dispatched_kit(session, of=of, to=to), says, **owing)


def owed_journey_text(session: Session, **changes: Any) -> Text:
    """An owed text that tells no result."""
    return owed_result(session, OrderReceived(), kind=None, **changes)


def owe_many(session: Session, count: int, *, seed: int = 1) -> None:
    """This many all-clears, each to a new person on their own number. In bulk, for measuring and for crowds."""
    kits = [kit.id for kit in send_kits(session, count, seed=seed)]
    session.add_all([_decision(kit_id, "larkfield", ReleaseKind.ALL_CLEAR, session) for kit_id in kits])
    session.flush()
    on = cursor(session)
    on.execute(
        """
        UPDATE kit SET current_decision_id = d.id FROM release_decision d WHERE d.kit_id = kit.id AND kit.id = ANY(%s)
        RETURNING kit.id, kit.order_id, kit.contact_id, d.id
        """,
        (kits,),
    )
    owed = [
        OwedText(order_id, kit_id, contact_id, ALL_CLEAR, "one", decision_id)
        for kit_id, order_id, contact_id, decision_id in sorted(on.fetchall())
    ]
    owe_texts(session, owed, service=build.service(), now=NOW, cipher=build.cipher())


def callback(session: Session, attempt: TextAttempt, status: DeliveryStatus, **changes: Any) -> Inbox:
    """A status callback as the web application stores it."""
    ref = secrets.token_hex(16)
    plain = {
        "attempt_ref": attempt.ref,
        "provider_id": attempt.provider_id or "SM" + "1" * 32,
        "status": status.value,
        "status_raw": status.value,
        "error_code": None,
        **changes,
    }
    row = Inbox(
        ref=ref,
        kind=InboxKind.TEXT_STATUS,
        key="|".join(str(plain[name] or "") for name in ("attempt_ref", "provider_id", "status_raw", "error_code")),
        content_hmac=secrets.token_bytes(32),
        body=build.cipher().encrypt("inbox", "body", ref, json.dumps(plain)),
        received_at=NOW,
    )
    session.add(row)
    session.flush()
    return row


def pass_machine_time(begin: Begin, **time: float) -> None:
    """Lets the database's clock, as attempts see it, run on: every machine time on the rows moves back."""
    by = timedelta(**time)
    with begin() as session:
        for column in ("started_at", "lease_until", "ask_at", "finished_at"):
            session.execute(sa.update(TextAttempt).values({column: getattr(TextAttempt, column) - by}))
        session.execute(sa.update(Text).values(retry_at=col(Text.retry_at) - by))


def fresh(begin: Begin, text: Text) -> Text:
    """The row as it stands now."""
    with begin() as session:
        return session.exec(select(Text).where(col(Text.id) == text.id)).one()


def attempts(begin: Begin, text: Text) -> list[TextAttempt]:
    """Its attempts in order."""
    with begin() as session:
        found = select(TextAttempt).where(col(TextAttempt.text_id) == text.id).order_by(col(TextAttempt.number))
        return list(session.exec(found))


def cases(begin: Begin, text: Text) -> list[ClinicCase]:
    """The clinic's cases about its kit."""
    with begin() as session:
        return list(session.exec(select(ClinicCase).where(col(ClinicCase.kit_id) == text.kit_id)))


def of_purpose(begin: Begin, text: Text, purpose: TextPurpose) -> list[Text]:
    """Texts of one purpose about the same kit."""
    with begin() as session:
        return list(session.exec(select(Text).where(col(Text.kit_id) == text.kit_id, col(Text.purpose) == purpose)))
