"""Parcels whose paper is released get their postage; what was bought for void paper is taken back.

One purchase is one call. Each is committed as begun, then made with no transaction open, then written down: killed
at any line, it is looked up by our own reference, and nothing is bought twice.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from prefect import flow

from app.database import Begin
from app.wiring import Clock, Wiring, connect
from flows.guard import guarded
from integrations.ports import Bought, FileStore, NotSent, PostageSeller, Posting, Refused, Unsure
from models.actions import postage
from models.rules.errors import Code, ServiceError
from models.rules.postage import PostWay
from models.rules.secrets import Cipher
from models.rules.service import Service, Services

ACTOR: Final = "flow:buy_postage"

SECONDS_A_CALL: Final = 0.5
"""Royal Mail takes one call a second of some accounts and five of others: what is too many is put off (429)."""

log: Final = logging.getLogger("kitpost")


@dataclass(slots=True)
class Tally:
    """What one run did."""

    bought: int = 0
    found: int = 0
    """Bought by a call that we had no answer from."""
    never: int = 0
    """Proved not to have been bought, and owed again."""
    refused: int = 0
    unsure: int = 0
    labels: int = 0
    cancelled: int = 0
    kept: int = 0
    """Postage that a packer must cancel at the courier's."""
    down: bool = False
    """The courier can't be asked now: the next run goes on."""
    alarm: bool = False
    """It refuses us altogether, or can't be understood."""


@dataclass(frozen=True, slots=True)
class Desk:
    """All that buying needs, put together by wiring."""

    begin: Begin
    store: FileStore
    sellers: Mapping[str, PostageSeller]
    """By service."""
    services: Services
    cipher: Cipher
    clock: Clock
    pause: Callable[[float], None] = time.sleep


def buy_owed(desk: Desk, *, limit: int) -> Tally:
    """Settles what is unsure, takes back what is void, buys up to `limit` postages a service, fetches labels."""
    tally = Tally()
    for service_id, in_force in desk.services.items():
        service = in_force.service
        if service.post.way is PostWay.NONE:
            continue
        with desk.begin() as session:
            tally.unsure += postage.tidy(session, service_id=service_id)
        if service.post.way is PostWay.FILE:
            _hand_back(desk, service, tally, limit=limit)
            continue
        counter = _Counter(desk, service, desk.sellers[service_id], tally)
        for step in (counter.look_up, counter.buy, counter.fetch_labels, counter.take_back):
            # Each for itself: one parcel about which the courier can't answer keeps no other from its postage.
            try:
                step(limit)
            except NotSent as error:
                tally.down, tally.alarm = True, tally.alarm or error.alarm
                log.warning("postage of %s: the courier can't be asked now (%s)", service_id, error.code)
    return tally


@dataclass(frozen=True, slots=True)
class _Counter:
    """One service at its courier's counter. NotSent ends a queue; whom it was about comes last in the next."""

    desk: Desk
    service: Service
    seller: PostageSeller
    tally: Tally

    def look_up(self, limit: int) -> None:
        """What may have been bought is found by our reference, or proved not to be there."""
        with self.desk.begin() as session:
            unsure = postage.unsure_purchases(session, service_id=self.service.id, limit=limit)
        for each in unsure:
            self._call_about(each)
            try:
                found = self.seller.find(each.reference)
            except Refused as error:
                self._refuse(each.reference, error)
                continue
            if found is not None:
                self._settle(each.reference, each.label_key, found)
                self.tally.found += 1
                continue
            with self.desk.begin() as session:
                self.tally.never += postage.not_found(session, each.reference)

    def take_back(self, limit: int) -> None:
        """Postage for paper that is void is cancelled; what the courier keeps is a packer's to cancel."""
        with self.desk.begin() as session:
            void = postage.void_purchases(session, service_id=self.service.id, limit=limit)
        for each in void:
            self._call_about(each)
            try:
                self.seller.cancel(each.courier_id)
                kept = False
            except Refused:
                kept = True
            _settle_void(self.desk, self.service, each.reference, self.tally, kept=kept)

    def buy(self, limit: int) -> None:
        """One parcel after the other: whatever breaks, one purchase at most is in doubt."""
        for _ in range(limit):
            with self.desk.begin() as session:
                purchase = postage.claim_purchase(
                    session, service=self.service, now=self.desk.clock(), actor=ACTOR, cipher=self.desk.cipher
                )
            if purchase is None:
                return
            self.desk.pause(SECONDS_A_CALL)
            posting = Posting(purchase.reference, purchase.to, self.service.post, purchase.owed_at)
            try:
                bought = self.seller.buy(posting)
            except NotSent as error:
                with self.desk.begin() as session:
                    postage.give_back(session, purchase.reference, error.code, after_seconds=error.retry_after_seconds)
                raise
            except Refused as error:
                self._refuse(purchase.reference, error)
            except Unsure as error:
                with self.desk.begin() as session:
                    postage.become_unsure(session, purchase.reference, error.code)
                self.tally.unsure += 1
            else:
                self._settle(purchase.reference, purchase.label_key, bought)
                self.tally.bought += 1

    def fetch_labels(self, limit: int) -> None:
        """Labels that did not come with their purchase, and the numbers that they brought."""
        with self.desk.begin() as session:
            missing = postage.missing_labels(session, service_id=self.service.id, limit=limit)
        for each in missing:
            self._call_about(each)
            try:
                label = self.seller.label(each.courier_id, with_return=self.service.post.return_labels)
                known = self.seller.find(each.reference)
            except Refused as error:
                with self.desk.begin() as session:
                    postage.without_label(session, each.reference, error.code)
                continue
            number = known.tracking_number if known else ""
            self._settle(each.reference, each.label_key, Bought(each.courier_id, number, label))
            self.tally.labels += 1

    def _call_about(self, held: postage.Held) -> None:
        with self.desk.begin() as session:
            postage.put_off(session, held.reference)
        self.desk.pause(SECONDS_A_CALL)

    def _refuse(self, reference: str, error: Refused) -> None:
        with self.desk.begin() as session:
            postage.refuse(session, reference, error.code, service=self.service, now=self.desk.clock(), actor=ACTOR)
        self.tally.refused += 1

    def _settle(self, reference: str, label_key: str, bought: Bought) -> None:
        """The label is in the store before its row says so: cut short between, it is fetched again."""
        if bought.label:
            self.desk.store.put(label_key, bought.label, "application/pdf")
        with self.desk.begin() as session:
            postage.settle_bought(
                session,
                reference,
                courier_id=bought.courier_id,
                tracking_number=bought.tracking_number,
                label_key=label_key if bought.label else "",
                wants_label=self.service.post.labels,
                now=self.desk.clock(),
                actor=ACTOR,
            )


def _hand_back(desk: Desk, service: Service, tally: Tally, *, limit: int) -> None:
    """Where a file was handed over, only a person can take a parcel back: each is a case."""
    with desk.begin() as session:
        void = postage.void_purchases(session, service_id=service.id, limit=limit)
    for each in void:
        _settle_void(desk, service, each.reference, tally, kept=True)


def _settle_void(desk: Desk, service: Service, reference: str, tally: Tally, *, kept: bool) -> None:
    with desk.begin() as session:
        postage.settle_void(session, reference, kept=kept, service=service, now=desk.clock(), actor=ACTOR)
    tally.kept += kept
    tally.cancelled += not kept


def desk_of(product: Wiring) -> Desk:
    """What buying postage needs, from an installation."""
    return Desk(product.begin, product.store, product.postage_sellers, product.services, product.cipher, product.clock)


@flow(name="buy-postage", retries=0)
@guarded("buy-postage")
def buy_postage(limit: int = 500) -> None:
    """Buys what is owed; fails, by code, when the courier refuses us or can't be asked."""
    tally = buy_owed(desk_of(connect()), limit=limit)
    log.info("buy-postage: %s", tally)
    if tally.down:
        raise ServiceError(Code.NOT_NOW, "The courier sold no postage: the next run tries again.")
