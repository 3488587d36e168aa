"""Texts of a kit's journey, owed to people who agreed to texts."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlmodel import Session, col, select

from models.actions import owed
from models.actions.text_choice import OPTED_OUT
from models.rules.parcel import lapse_of, reminder_policy, reminders
from models.rules.secrets import Cipher
from models.rules.service import Service
from models.rules.text import ReturnReminder
from models.tables.kit import Kit
from models.tables.person import Contact

FIRST: Final = "1"
"""What a journey text that is sent once tells: its first occurrence (ruling 3)."""


def tells(kit: Kit, occurrence: str) -> str:
    """What makes a journey text unique within its order: a kit in another's stead is told of anew (ruling 3)."""
    return f"kit:{kit.id}:{occurrence}" if kit.replaces_kit_id else occurrence


def agreed_to_texts(session: Session, contact_ids: Sequence[int]) -> frozenset[int]:
    """Which of these contacts agreed to texts, and whose person has not said STOP since."""
    return frozenset(
        each
        for each in session.exec(
            select(Contact.id).where(
                col(Contact.id).in_(set(contact_ids)),
                col(Contact.text_consent).is_(True),
                sa.text(f"NOT {OPTED_OUT.format('contact.person_id')}"),
            )
        )
        if each is not None
    )


def owe_agreed(
    session: Session, texts: Sequence[owed.OwedText], *, service: Service, now: datetime, cipher: Cipher
) -> None:
    """Owes texts to people who agreed to texts; nothing to the others."""
    agreed = agreed_to_texts(session, [each.contact_id for each in texts])
    owed.owe_texts(
        session, [each for each in texts if each.contact_id in agreed], service=service, now=now, cipher=cipher
    )


def reminders_of(kit: Kit, *, in_hands_at: datetime, service: Service) -> list[owed.OwedText]:
    """What reminds somebody to post a kit back, from when they have it in their hands."""
    assert kit.due_back_on is not None  # dispatched
    return [
        owed.OwedText(
            kit.order_id,
            kit.id,
            kit.contact_id,
            ReturnReminder(kit.due_back_on, last=each.last, first=each.occurrence == 1),
            tells(kit, str(each.occurrence)),
            not_before=each.due_at,
        )
        for each in reminders(
            in_hands_at,
            lapses_at=lapse_of(kit.due_back_on),
            policy=reminder_policy(kit.reminder_arm, service.returns),
            window=service.texts.reminder_window,
        )
    ]
