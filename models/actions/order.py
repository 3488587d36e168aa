"""Takes orders: stores what came, decides it once, and writes in one transaction all that follows.

`submit_order` stores and nothing else; `take_order` reads, decides and writes person, contact, order,
decision, cases and, where accepted, the kit and its text. The API calls both at once; the flow takes
imports and whatever a crash left between the two (ruling 17).
"""

import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col, select

from models.actions import audit
from models.actions.kit import ENDS, cancel_kit, create_kit
from models.actions.owed import OwedCase, OwedText, owe_cases, owe_texts, stop_retest_texts
from models.actions.text_choice import opted_out
from models.actions.verification import proved_at
from models.rules.clinic import CaseKind
from models.rules.errors import Code, ServiceError
from models.rules.kit import KitState, may_move
from models.rules.order import (
    RULE_VERSION,
    EarlierStop,
    History,
    MobileProof,
    Need,
    Order,
    OrderCase,
    OrderDecision,
    OrderOutcome,
    Reason,
    Told,
    decide_order,
    latest_risk_at,
    write_address,
)
from models.rules.panel import BodyPart, Exposure, Panel, choose_panel
from models.rules.person import FOLDING_VERSION, age_on, fold_address, fold_email, fold_name
from models.rules.secrets import ADDRESS, EMAIL, MOBILE, NAME_BORN, BlindIndex, Cipher
from models.rules.service import Service, ServiceInForce, Services
from models.rules.text import OrderReceived
from models.rules.vocabulary import Language
from models.rules.working_days import london_day
from models.tables.clinic import ClinicCase
from models.tables.inbox import Inbox, InboxKind, InboxState
from models.tables.kit import Kit
from models.tables.order import Order as OrderRow
from models.tables.order import OrderDecision as DecisionRow
from models.tables.person import Contact, MobileHolder, Person, PersonIndex, SafeguardingNote

REASON_LENGTH: Final = 200


@dataclass(frozen=True, slots=True)
class Intake:
    """All that taking orders needs beside its transaction; wiring puts it together."""

    services: Services
    cipher: Cipher
    indexes: BlindIndex
    read: Callable[[str, Service, datetime], Order]
    """Reads a stored order. Raises ServiceError(BAD_INPUT) with the fields at fault, never their content."""
    authority_of: Callable[[str], str | None]
    """GSS code of a postcode's local authority, None where it is not known."""

    def service(self, service_id: str) -> ServiceInForce:
        """A service of this installation. Raises ServiceError(NOT_FOUND)."""
        if service_id not in self.services:
            raise ServiceError(Code.NOT_FOUND, "There is no such service here: check its id.")
        return self.services[service_id]


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one order: what its channel is answered, today and every time it asks again."""

    order_ref: str
    channel_ref: str
    outcome: OrderOutcome
    reasons: tuple[str, ...]
    told: tuple[Told, ...]
    language: Language
    decided_at: datetime
    cancelled: bool


@dataclass(frozen=True, slots=True)
class KeptAside:
    """An order that could not be read after all: it waits in the inbox for a person, with the reason."""

    why: str


# ── Storing ──────────────────────────────────────────────────────────────────────────────────


def submit_order(
    session: Session,
    *,
    service_id: str,
    channel: str,
    channel_ref: str,
    content: bytes,
    now: datetime,
    intake: Intake,
) -> int:
    """Stores one order and returns its inbox id; the same order again returns the same id (FEATURES 1).

    `content` is the order in canonical form. Raises ServiceError(CONFLICT) when the channel used this
    reference for another order (ruling 15).
    """
    intake.service(service_id)
    key, content_hmac = f"{channel}|{channel_ref}", intake.indexes.content_hmac(content)
    stored = _store(
        session,
        intake.cipher,
        service_id=service_id,
        key=key,
        body=content.decode(),
        content_hmac=content_hmac,
        state=InboxState.WAITING,
        reason="",
        received_at=now,
    )
    if stored is not None:
        return stored
    known = session.exec(
        select(Inbox).where(Inbox.kind == InboxKind.ORDER, Inbox.service_id == service_id, Inbox.key == key)
    ).one()
    if not secrets.compare_digest(known.content_hmac, content_hmac):
        raise ServiceError(
            Code.CONFLICT,
            "This channel_ref was already used for an order with other content: send a correction under a new one.",
        )
    return _id(known)


def keep_unreadable(
    session: Session, *, service_id: str, channel: str, raw: bytes, why: str, now: datetime, intake: Intake
) -> bool:
    """Keeps a row that could not be read, for a person; False if the same row is kept already."""
    content_hmac = intake.indexes.content_hmac(raw)
    key = f"{channel}|unreadable|{content_hmac.hex()[:32]}"
    stored = _store(
        session,
        intake.cipher,
        service_id=service_id,
        key=key,
        body=raw.decode("utf-8", errors="backslashreplace"),
        content_hmac=content_hmac,
        state=InboxState.FAILED,
        reason=why[:REASON_LENGTH],
        received_at=now,
    )
    return stored is not None


def _store(session: Session, cipher: Cipher, *, service_id: str, key: str, body: str, **columns: object) -> int | None:
    """The new row's id, or None where the key is taken."""
    ref = secrets.token_hex(16)
    return session.execute(
        insert(Inbox)
        .values(
            ref=ref,
            kind=InboxKind.ORDER,
            service_id=service_id,
            key=key,
            body=cipher.encrypt("inbox", "body", ref, body),
            **columns,
        )
        .on_conflict_do_nothing(index_elements=["kind", "service_id", "key"])
        .returning(col(Inbox.id))
    ).scalar_one_or_none()


def waiting_orders(session: Session, *, limit: int) -> Sequence[int]:
    """Inbox ids of orders that nobody has taken yet, oldest first."""
    found = session.scalars(
        sa.select(col(Inbox.id))
        .where(col(Inbox.kind) == InboxKind.ORDER, col(Inbox.state) == InboxState.WAITING)
        .order_by(col(Inbox.id))
        .limit(limit)
    )
    return [number for number in found if number is not None]


# ── Deciding ─────────────────────────────────────────────────────────────────────────────────


def take_order(
    session: Session, inbox_id: int, *, now: datetime, actor: str, intake: Intake, wait: bool = True
) -> Taken | KeptAside | None:
    """Decides one stored order and writes everything that follows from it.

    An order that was taken before is answered as it stands. With `wait` false, None means that
    another process has it in hand.
    """
    letter = session.exec(
        select(Inbox)
        .where(Inbox.id == inbox_id, Inbox.kind == InboxKind.ORDER)
        .with_for_update(skip_locked=not wait)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if letter is None:
        return None
    if letter.state is InboxState.DONE:
        return _answer(session, session.exec(select(OrderRow).where(OrderRow.inbox_id == inbox_id)).one())
    if letter.state is InboxState.FAILED:
        return KeptAside(letter.reason)

    in_force = intake.service(letter.service_id)
    body = intake.cipher.decrypt("inbox", "body", letter.ref, letter.body)
    try:
        order = intake.read(body, in_force.service, now)
    except ServiceError as error:
        if error.code is not Code.BAD_INPUT:
            raise
        letter.state, letter.reason = InboxState.FAILED, error.message[:REASON_LENGTH]
        session.add(letter)
        return KeptAside(letter.reason)

    order = _with_our_proof(session, letter, order, intake)
    taken = _Taking(session, letter, order, in_force, now, actor, intake).take()
    letter.state = InboxState.DONE
    session.add(letter)
    session.flush()
    return taken


NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""When a mobile was proved whose proof we can't find."""


def _with_our_proof(session: Session, letter: Inbox, order: Order, intake: Intake) -> Order:
    """The order with our own proof of its mobile, where it names one: of this number, through this channel."""
    if not order.mobile_verification_ref:
        return order
    found = proved_at(
        session,
        order.mobile_verification_ref,
        service_id=letter.service_id,
        channel=letter.key.partition("|")[0],
        mobile=order.mobile.e164,
        indexes=intake.indexes,
    )
    return replace(order, mobile_proved_at=found or NEVER, mobile_proved_how=MobileProof.ONE_TIME_CODE)


@dataclass(frozen=True, slots=True)
class _Known:
    """Someone already in the database who shares a blind index with the person who orders."""

    person: Person
    shares: frozenset[str]
    same_date_of_birth: bool

    @property
    def is_the_same(self) -> bool:
        """One person: the same name and date of birth, and one more thing in common. Never by name alone."""
        return NAME_BORN in self.shares and bool(self.shares & {MOBILE, EMAIL, ADDRESS})


@dataclass(frozen=True, slots=True)
class _Taking:
    """One order on its way through one transaction."""

    session: Session
    letter: Inbox
    order: Order
    in_force: ServiceInForce
    now: datetime
    actor: str
    intake: Intake

    @property
    def service_id(self) -> str:
        return self.letter.service_id

    def take(self) -> Taken:
        keys = self._keys()
        self._lock(keys)
        known = self._known(keys)
        same = next((each.person for each in known if each.is_the_same), None)
        authority = self.intake.authority_of(self.order.residence.postcode)
        decision = decide_order(
            self.order,
            self._history(known, same),
            now=self.now,
            service=self.in_force.service,
            authority=authority,
        )

        person = same or self._add_person()
        self._add_indexes(person, keys)
        contact = self._add_contact(person)
        row = self._add_order(person, contact, authority)
        written = _write_decision(
            self.session,
            row,
            outcome=decision.outcome,
            reasons=decision.reasons,
            told=decision.told,
            service_version_id=self.in_force.version_id,
            actor=self.actor,
            now=self.now,
        )
        self._add_note(person, row)
        self._open_cases(row, decision)
        if decision.outcome is OrderOutcome.ACCEPTED:
            _send_kit(
                self.session,
                row,
                date_of_birth=self.order.date_of_birth,
                family_name=self.order.family_name,
                mobile=self.order.mobile.e164,
                mobile_proved_at=self.order.mobile_proved_at,
                panel=decision.panel,
                may_text=decision.may_text,
                service=self.in_force.service,
                now=self.now,
                actor=self.actor,
                intake=self.intake,
            )
        return _taken(self.session, row, written)

    # who it is

    def _keys(self) -> dict[str, str]:
        """What the person can be found again by, folded, by domain."""
        order = self.order
        names = f"{fold_name(order.given_name)}|{fold_name(order.family_name)}"
        keys = {
            MOBILE: order.mobile.e164,
            ADDRESS: _versioned(fold_address(order.residence.lines, order.residence.postcode)),
            NAME_BORN: _versioned(f"{names}|{order.date_of_birth.isoformat()}"),
        }
        return keys | ({EMAIL: _versioned(fold_email(order.email))} if order.email else {})

    def _lock(self, keys: Mapping[str, str]) -> None:
        """Two orders that share anything are decided one after the other; locks are taken in one order."""
        digests = [self.intake.indexes.index(domain, self.service_id, text) for domain, text in keys.items()]
        for number in sorted(int.from_bytes(digest[:8], "big", signed=True) for digest in digests):
            self.session.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))

    def _known(self, keys: Mapping[str, str]) -> list[_Known]:
        wanted = [
            (domain, digest)
            for domain, text in keys.items()
            for digest in self.intake.indexes.live(domain, self.service_id, text)
        ]
        found = self.session.execute(
            sa.select(col(PersonIndex.person_id), col(PersonIndex.domain)).where(
                col(PersonIndex.service_id) == self.service_id,
                sa.tuple_(col(PersonIndex.domain), col(PersonIndex.digest)).in_(wanted),
            )
        )
        shares: dict[int, set[str]] = {}
        for person_id, domain in found:
            shares.setdefault(person_id, set()).add(domain)
        people = self.session.exec(select(Person).where(col(Person.id).in_(shares)).order_by(col(Person.id)))
        return [_Known(each, frozenset(shares[_id(each)]), self._born_alike(each)) for each in people]

    def _born_alike(self, person: Person) -> bool:
        return _born(person, self.intake.cipher) == self.order.date_of_birth

    def _history(self, known: Sequence[_Known], same: Person | None) -> History:
        own = [_id(each.person) for each in known if NAME_BORN in each.shares]
        own += [_id(each.person) for each in known if MOBILE in each.shares and each.same_date_of_birth]
        return History(
            mobile_of_another=_held_by_another(
                self.session, self.service_id, self.order.mobile.e164, _id(same) if same else None, self.intake.indexes
            ),
            mobile_frozen_at=self._mobile_frozen_at(),
            kits_ordered_at=tuple(self._kits_ordered_at(own)),
            safeguarding_case_open=self._safeguarding_case_open([_id(each.person) for each in known]),
            earlier_stops=tuple(self._earlier_stops(known, same)),
        )

    def _mobile_frozen_at(self) -> datetime | None:
        digests = self.intake.indexes.live(MOBILE, self.service_id, self.order.mobile.e164)
        return self.session.scalars(
            sa.select(sa.func.max(col(MobileHolder.frozen_at))).where(
                col(MobileHolder.service_id) == self.service_id, col(MobileHolder.digest).in_(digests)
            )
        ).one()

    def _kits_ordered_at(self, people: Collection[int]) -> Iterable[datetime]:
        """Kits that never left count for nothing."""
        return self.session.scalars(
            sa.select(col(OrderRow.received_at))
            .join(Kit, col(Kit.order_id) == col(OrderRow.id))
            .where(
                col(Kit.person_id).in_(people),
                col(Kit.state) != KitState.REPLACED,
                sa.or_(col(Kit.state) != KitState.CANCELLED, col(Kit.dispatched_at).is_not(None)),
            )
        )

    def _safeguarding_case_open(self, people: Collection[int]) -> bool:
        about = sa.or_(
            col(ClinicCase.order_id).in_(sa.select(col(OrderRow.id)).where(col(OrderRow.person_id).in_(people))),
            col(ClinicCase.kit_id).in_(sa.select(col(Kit.id)).where(col(Kit.person_id).in_(people))),
        )
        found = self.session.scalars(
            sa.select(col(ClinicCase.id)).where(
                col(ClinicCase.kind) == CaseKind.SAFEGUARDING, col(ClinicCase.closed_at).is_(None), about
            )
        )
        return found.first() is not None

    def _earlier_stops(self, known: Sequence[_Known], same: Person | None) -> Iterable[EarlierStop]:
        """Orders that were stopped, unless a person has since let this person have a kit."""
        by_person = {_id(each.person): each for each in known}
        rows = self.session.execute(
            sa.select(DecisionRow, OrderRow)
            .join(OrderRow, col(OrderRow.id) == col(DecisionRow.order_id))
            .where(col(OrderRow.person_id).in_(by_person))
        ).all()
        let_through = [
            decision.decided_at
            for decision, row in rows
            if same is not None and row.person_id == same.id and decision.because and _accepted(decision)
        ]
        for decision, row in rows:
            who = by_person[row.person_id]
            if _accepted(decision) or any(decision.decided_at <= moment for moment in let_through):
                continue
            if who.same_date_of_birth and not who.shares & {MOBILE, EMAIL, NAME_BORN}:
                continue  # a twin, or someone else at this address: their answers are their own
            told_risk = row.answers.get("latest_risk_at")
            yield EarlierStop(
                decided_at=decision.decided_at,
                reasons=frozenset(Reason(word) for word in decision.reasons if word in set(Reason)),
                same_date_of_birth=who.same_date_of_birth,
                last_risk_at=datetime.fromisoformat(told_risk) if isinstance(told_risk, str) else None,
            )

    # what is written

    def _add_person(self) -> Person:
        ref, order = secrets.token_hex(16), self.order

        def sealed(column: str, plain: str) -> bytes:
            return self.intake.cipher.encrypt("person", column, ref, plain)

        person = Person(
            service_id=self.service_id,
            ref=ref,
            given_name=sealed("given_name", order.given_name),
            family_name=sealed("family_name", order.family_name),
            date_of_birth=sealed("date_of_birth", order.date_of_birth.isoformat()),
            residence=sealed("residence", write_address(order.residence)),
        )
        self.session.add(person)
        self.session.flush()
        return person

    def _add_indexes(self, person: Person, keys: Mapping[str, str]) -> None:
        indexes = self.intake.indexes
        rows = [
            {
                "person_id": _id(person),
                "service_id": self.service_id,
                "domain": domain,
                "key_version": indexes.current_version,
                "digest": indexes.index(domain, self.service_id, text),
            }
            for domain, text in keys.items()
        ]
        self.session.execute(insert(PersonIndex).on_conflict_do_nothing(), rows)

    def _add_contact(self, person: Person) -> Contact:
        ref, order = secrets.token_hex(16), self.order

        def sealed(column: str, plain: str) -> bytes:
            return self.intake.cipher.encrypt("contact", column, ref, plain)

        contact = Contact(
            service_id=self.service_id,
            person_id=_id(person),
            ref=ref,
            mobile=sealed("mobile", order.mobile.e164),
            mobile_proved_at=order.mobile_proved_at,
            mobile_proved_how=order.mobile_proved_how.value,
            delivery_address=sealed("delivery_address", write_address(order.delivery)),
            collection_point=order.collect_from,
            text_consent=order.text_consent,
            voicemail_consent=order.voicemail_consent,
            letter_consent=order.letter_consent,
            safe_times=",".join(sorted(order.safe_times)),
            language=order.language.value,
            wording=order.wording.value,
            large_print=order.large_print,
        )
        self.session.add(contact)
        self.session.flush()
        return contact

    def _add_order(self, person: Person, contact: Contact, authority: str | None) -> OrderRow:
        order = self.order
        channel, _, channel_ref = self.letter.key.partition("|")
        risk_at = latest_risk_at(order, self.now)
        row = OrderRow(
            service_id=self.service_id,
            ref=secrets.token_hex(16),
            channel=channel,
            channel_ref=channel_ref,
            inbox_id=_id(self.letter),
            person_id=_id(person),
            contact_id=_id(contact),
            authority=authority,
            last_risk_on=order.last_risk_on or (order.last_risk_at and london_day(order.last_risk_at)),
            answers={
                "body": sorted(order.body),
                "exposures": sorted(order.exposures),
                "latest_risk_at": risk_at.isoformat() if risk_at else None,
                "symptoms": order.symptoms,
                "pregnancy_risk": order.pregnancy_risk,
                "known_hiv": order.known_hiv,
                "past_syphilis": order.past_syphilis,
                "call_wanted": order.call_wanted,
            },
            received_at=self.letter.received_at,
        )
        self.session.add(row)
        self.session.flush()
        return row

    def _add_note(self, person: Person, row: OrderRow) -> None:
        """Safeguarding answers stand apart, encrypted, for those roles alone; nobody's plain no is kept."""
        asked = self.order.safeguarding
        answers = {
            "Sexually assaulted": self.order.sexual_assault,
            "Pressured into sex": asked.pressured,
            "Paid for sex": asked.paid,
            "Drink or drugs": asked.drink_or_drugs,
            "Depression or low mood": asked.low_mood,
            "Older or younger partner": asked.partner_age_gap,
        }
        flags = sum(answer is True for answer in answers.values())
        if not flags:
            return
        ref, words = secrets.token_hex(16), {True: "yes", False: "no", None: "not answered"}
        note = "\n".join(f"{question}: {words[answer]}" for question, answer in answers.items())
        self.session.add(
            SafeguardingNote(
                service_id=self.service_id,
                person_id=_id(person),
                order_id=_id(row),
                ref=ref,
                flags=flags,
                note=self.intake.cipher.encrypt("safeguarding_note", "note", ref, note),
            )
        )

    def _open_cases(self, row: OrderRow, decision: OrderDecision) -> None:
        owe_cases(
            self.session,
            [_case(row, need, decision.reasons) for need in decision.needs],
            service=self.in_force.service,
            now=self.now,
            actor=self.actor,
        )


def _case(row: OrderRow, need: Need, reasons: Iterable[Reason]) -> OwedCase:
    return OwedCase(
        key=f"order:{row.id}:{need.case.value}",
        kind=CaseKind(need.case.value),
        order_id=_id(row),
        detail={"reasons": [reason.value for reason in reasons]}
        | ({"reply": "call_wanted"} if need.case is OrderCase.REPLY else {}),
        urgent=need.urgent,
    )


# ── After a person looked ────────────────────────────────────────────────────────────────────


def settle_order(
    session: Session, order_ref: str, *, accept: bool, because: str, now: datetime, actor: str, intake: Intake
) -> Taken:
    """A named person's word on a held order: a kit goes, or none does. The earlier decision stays in the record.

    An order that was refused for its area alone may be accepted too: postcode data can be wrong (clinical.md 2.1).
    Raises ServiceError(BAD_INPUT) without a reason, CONFLICT for an order that is neither, NOT_NOW
    where no kit may go all the same: too young, the mobile another's by now, or nothing to test.
    """
    if not because.strip():
        raise ServiceError(Code.BAD_INPUT, "Say why: the reason is kept with the decision.")
    row = _locked(session, order_ref)
    held = _current(session, row)
    override = accept and held.outcome is OrderOutcome.REFUSED and list(held.reasons) == [Reason.OUT_OF_AREA]
    if not (held.outcome is OrderOutcome.HELD or override) or row.cancelled_at is not None:
        raise ServiceError(Code.CONFLICT, "This order is not held: there is nothing to settle.", ref=order_ref)
    in_force = intake.service(row.service_id)
    decision = _write_decision(
        session,
        row,
        outcome=OrderOutcome.ACCEPTED if accept else OrderOutcome.REFUSED,
        reasons=held.reasons,
        told=[Told.ACCEPTED] if accept else held.told.split(),
        service_version_id=in_force.version_id,
        actor=actor,
        now=now,
        because=because,
    )
    if accept:
        _send_settled(session, row, in_force.service, now=now, actor=actor, intake=intake)
    return _taken(session, row, decision)


def _send_settled(
    session: Session, row: OrderRow, service: Service, *, now: datetime, actor: str, intake: Intake
) -> None:
    person, contact = session.get_one(Person, row.person_id), session.get_one(Contact, row.contact_id)
    born = _born(person, intake.cipher)
    mobile = intake.cipher.decrypt("contact", "mobile", contact.ref, contact.mobile)
    if age_on(born, london_day(now)) < service.orders.minimum_age_years:
        raise ServiceError(Code.NOT_NOW, "This person is below the service's minimum age: no kit may go.", ref=row.ref)
    if _held_by_another(session, row.service_id, mobile, row.person_id, intake.indexes):
        raise ServiceError(
            Code.NOT_NOW, "Another person's kit is told on this mobile by now: ask for another number.", ref=row.ref
        )
    panel = _panel_of(row, service)
    if not panel.samples:
        raise ServiceError(Code.NOT_NOW, "There is nothing to test: complete the answers in a new order.", ref=row.ref)
    _send_kit(
        session,
        row,
        date_of_birth=born,
        family_name=intake.cipher.decrypt("person", "family_name", person.ref, person.family_name),
        mobile=mobile,
        mobile_proved_at=contact.mobile_proved_at,
        panel=panel,
        may_text=contact.text_consent,
        service=service,
        now=now,
        actor=actor,
        intake=intake,
    )


def _panel_of(row: OrderRow, service: Service) -> Panel:
    answers: Mapping[str, Any] = row.answers
    return choose_panel(
        body=frozenset(BodyPart(word) for word in answers["body"]),
        exposures=frozenset(Exposure(word) for word in answers["exposures"]),
        known_hiv=bool(answers["known_hiv"]),
        past_syphilis=bool(answers["past_syphilis"]),
        policy=service.orders,
        lab_tests=service.labs[0].tests,
    )


def cancel_order(session: Session, order_ref: str, *, now: datetime, actor: str) -> Taken:
    """Stops an order at the person's wish; repeating it changes nothing (FEATURES 14).

    Before dispatch no kit goes. After it the kit is only marked: whatever the lab reports is still
    taken and seen. A case that the order opened stays open. Raises ServiceError(CONFLICT) once the
    sample is on its way back.
    """
    row = _locked(session, order_ref)
    if row.cancelled_at is None:
        kit = session.exec(
            select(Kit).where(Kit.order_id == row.id, Kit.state != KitState.REPLACED).with_for_update()
        ).one_or_none()
        if kit is not None:
            if not may_move(kit.state, KitState.CANCELLED):
                raise ServiceError(
                    Code.CONFLICT, "This kit can't be cancelled any more: its sample is on the way or reported."
                )
            cancel_kit(session, kit, now=now, actor=actor, reason="order_cancelled")
        row.cancelled_at = now
        session.add(row)
        audit.record(
            session,
            action="order.cancelled",
            subject="kit_order",
            subject_id=_id(row),
            actor=actor,
            now=now,
            service_id=row.service_id,
        )
    return _answer(session, row)


def find_order(session: Session, *, service_id: str, channel: str, channel_ref: str) -> Taken:
    """What stands of a channel's own order. Raises ServiceError(NOT_FOUND), also for another channel's."""
    row = session.exec(
        select(OrderRow).where(
            OrderRow.service_id == service_id, OrderRow.channel == channel, OrderRow.channel_ref == channel_ref
        )
    ).one_or_none()
    if row is None:
        raise ServiceError(Code.NOT_FOUND, "This channel has no order under that reference: check it.")
    return _answer(session, row)


@dataclass(frozen=True, slots=True)
class DecisionLine:
    """One decision about an order, without a word about the person."""

    outcome: OrderOutcome
    reasons: tuple[str, ...]
    told: tuple[str, ...]
    rule_version: str
    actor: str
    because: str
    decided_at: datetime
    stands: bool


def decisions_of(session: Session, order_ref: str) -> list[DecisionLine]:
    """Every decision about an order, oldest first. Raises ServiceError(NOT_FOUND)."""
    row = session.exec(select(OrderRow).where(OrderRow.ref == order_ref)).one_or_none()
    if row is None:
        raise _no_such_order()
    found = session.exec(select(DecisionRow).where(DecisionRow.order_id == row.id).order_by(col(DecisionRow.id)))
    return [
        DecisionLine(
            outcome=each.outcome,
            reasons=tuple(each.reasons),
            told=tuple(each.told.split()),
            rule_version=each.rule_version,
            actor=each.actor,
            because=each.because,
            decided_at=each.decided_at,
            stands=each.id == row.current_decision_id,
        )
        for each in found
    ]


@dataclass(frozen=True, slots=True)
class KeptLine:
    """One row that waits for a person because it could not be read."""

    ref: str
    service_id: str
    why: str
    received_at: datetime


def kept_aside(session: Session, *, limit: int) -> list[KeptLine]:
    """The newest orders that could not be read, and the fields at fault."""
    found = session.exec(
        select(Inbox)
        .where(Inbox.kind == InboxKind.ORDER, Inbox.state == InboxState.FAILED)
        .order_by(col(Inbox.id).desc())
        .limit(limit)
    )
    return [KeptLine(each.ref, each.service_id, each.reason, each.received_at) for each in found]


# ── Rows ─────────────────────────────────────────────────────────────────────────────────────


def _write_decision(  # noqa: PLR0913 - one row, by name
    session: Session,
    row: OrderRow,
    *,
    outcome: OrderOutcome,
    reasons: Iterable[str],
    told: Iterable[str],
    service_version_id: int,
    actor: str,
    now: datetime,
    because: str = "",
) -> DecisionRow:
    """Adds a decision and makes it the one that stands."""
    decision = DecisionRow(
        order_id=_id(row),
        service_id=row.service_id,
        outcome=outcome,
        reasons=[str(reason) for reason in reasons],
        told=" ".join(told),
        rule_version=RULE_VERSION,
        service_version_id=service_version_id,
        actor=actor,
        because=because,
        decided_at=now,
    )
    session.add(decision)
    session.flush()
    row.current_decision_id = decision.id
    session.add(row)
    audit.record(
        session,
        action=f"order.{outcome.value}",
        subject="kit_order",
        subject_id=_id(row),
        actor=actor,
        now=now,
        service_id=row.service_id,
        because=because,
        reasons=decision.reasons,
        rule_version=RULE_VERSION,
    )
    return decision


def _send_kit(  # noqa: PLR0913 - what a kit is made of, by name
    session: Session,
    row: OrderRow,
    *,
    date_of_birth: date,
    family_name: str,
    mobile: str,
    mobile_proved_at: datetime,
    panel: Panel,
    may_text: bool,
    service: Service,
    now: datetime,
    actor: str,
    intake: Intake,
) -> None:
    """Makes the kit that is now owed, gives the mobile to its person, and owes the text that says so."""
    _hold_mobile(session, row, mobile, mobile_proved_at, intake.indexes)
    kit = create_kit(
        session,
        order_id=_id(row),
        service_id=row.service_id,
        person_id=row.person_id,
        contact_id=row.contact_id,
        date_of_birth=date_of_birth,
        family_name_folded=fold_name(family_name),
        panel=panel,
        lab=service.labs[0].lab,
        now=now,
        actor=actor,
        indexes=intake.indexes,
    )
    stop_retest_texts(session, kit.person_id, now=now)
    if may_text and not opted_out(session, [kit.person_id]):
        received = OwedText(_id(row), _id(kit), row.contact_id, says=OrderReceived(), tells="once")
        owe_texts(session, [received], service=service, now=now, cipher=intake.cipher)


def _held_by_another(
    session: Session, service_id: str, mobile: str, person_id: int | None, indexes: BlindIndex
) -> bool:
    """Whether somebody else's kit is still told on this mobile: it is under way, or a case about it is open."""
    case_open = sa.exists().where(col(ClinicCase.kit_id) == col(Kit.id), col(ClinicCase.closed_at).is_(None))
    live = sa.or_(col(Kit.state).not_in(ENDS), case_open)
    found = session.scalars(
        sa.select(col(Kit.person_id))
        .join(MobileHolder, col(MobileHolder.person_id) == col(Kit.person_id))
        .where(
            col(MobileHolder.service_id) == service_id,
            col(MobileHolder.digest).in_(indexes.live(MOBILE, service_id, mobile)),
            live,
        )
    )
    return any(holder != person_id for holder in found)


def _hold_mobile(session: Session, row: OrderRow, mobile: str, proved_at: datetime, indexes: BlindIndex) -> None:
    """Makes the mobile this person's. Whoever had it before has no live kit: that was asked under the lock.

    A freeze ends with a proof that is newer than it (H5).
    """
    holders = session.execute(
        sa.update(MobileHolder)
        .where(
            col(MobileHolder.service_id) == row.service_id,
            col(MobileHolder.digest).in_(indexes.live(MOBILE, row.service_id, mobile)),
        )
        .values(
            person_id=row.person_id,
            frozen_at=sa.case((col(MobileHolder.frozen_at) > proved_at, col(MobileHolder.frozen_at)), else_=None),
        )
        .returning(col(MobileHolder.id))
    ).all()
    if not holders:
        session.add(
            MobileHolder(
                service_id=row.service_id,
                key_version=indexes.current_version,
                digest=indexes.index(MOBILE, row.service_id, mobile),
                person_id=row.person_id,
            )
        )


def _locked(session: Session, order_ref: str) -> OrderRow:
    row = session.exec(
        select(OrderRow).where(OrderRow.ref == order_ref).with_for_update().execution_options(populate_existing=True)
    ).one_or_none()
    if row is None:
        raise _no_such_order()
    return row


def _no_such_order() -> ServiceError:
    return ServiceError(Code.NOT_FOUND, "There is no such order: check its reference.")


def _current(session: Session, row: OrderRow) -> DecisionRow:
    return session.get_one(DecisionRow, row.current_decision_id)


def _answer(session: Session, row: OrderRow) -> Taken:
    return _taken(session, row, _current(session, row))


def _taken(session: Session, row: OrderRow, decision: DecisionRow) -> Taken:
    return Taken(
        order_ref=row.ref,
        channel_ref=row.channel_ref,
        outcome=decision.outcome,
        reasons=tuple(decision.reasons),
        told=tuple(map(Told, decision.told.split())),
        language=Language(session.get_one(Contact, row.contact_id).language),
        decided_at=decision.decided_at,
        cancelled=row.cancelled_at is not None,
    )


def _accepted(decision: DecisionRow) -> bool:
    return decision.outcome is OrderOutcome.ACCEPTED


def _born(person: Person, cipher: Cipher) -> date:
    return date.fromisoformat(cipher.decrypt("person", "date_of_birth", person.ref, person.date_of_birth))


def _versioned(folded: str) -> str:
    """Folded text under the version of its folding, so that a later folding never seems to disagree (ruling 15)."""
    return f"{FOLDING_VERSION}|{folded}"


def _id(row: Inbox | OrderRow | Person | Contact | Kit) -> int:
    assert row.id is not None  # a stored row
    return row.id
