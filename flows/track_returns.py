"""Courier events become parcel and kit states; reminders stop, kits lapse, silent parcels reach a person."""

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from prefect import flow

from app.database import Begin
from app.wiring import Clock, connect
from flows.guard import guarded
from integrations.ports import NotSent, ParcelNews, ParcelTracker
from models.actions.collection import end_uncollected, report_missing
from models.actions.courier_news import ToldScan, next_news, settle_news
from models.actions.parcel import CourierScan, lapse_unreturned, parcels_to_ask, report_stuck, take_scans
from models.rules.errors import Code, ServiceError
from models.rules.secrets import Cipher
from models.rules.service import Services

ACTOR: Final = "flow:track_returns"

AT_ONCE: Final = 30
"""Parcels in one question to the courier, and kits in one transaction."""

ASK_AGAIN_AFTER: Final = timedelta(hours=1)
"""Service time between two questions about one parcel."""

log: Final = logging.getLogger("kitpost")


@dataclass(slots=True)
class Tally:
    """What one run did."""

    asked: int = 0
    events: int = 0
    lapsed: int = 0
    not_collected: int = 0
    stuck: int = 0
    courier_down: str = ""
    """The courier's own error code, when it could not be asked."""


def follow_parcels(
    begin: Begin, tracker: ParcelTracker, services: Services, *, clock: Clock, cipher: Cipher, limit: int
) -> Tally:
    """Asks about up to `limit` parcels, then ends and reports what has waited too long. Safe to repeat."""
    tally = Tally()
    started = clock()
    while tally.asked < limit and not tally.courier_down:
        size = min(AT_ONCE, limit - tally.asked)
        with begin() as session:
            asked = parcels_to_ask(session, asked_before=started - ASK_AGAIN_AFTER, limit=size)
        if not asked:
            break
        parcel_of = {number: parcel_id for parcel_id, number in asked}
        try:
            scans = tracker.scans(list(parcel_of))
        except NotSent as error:
            # Kits whose parcel was not asked about don't lapse: see lapse_unreturned.
            tally.courier_down = error.code
            break
        found = [CourierScan(parcel_of[each.tracking_number], each.kind, each.raw_code, each.occurred_at)
                 for each in scans]  # fmt: skip
        with begin() as session:
            ids = list(parcel_of.values())
            tally.events += take_scans(session, ids, found, services=services, now=started, actor=ACTOR)
        tally.asked += len(asked)
    while tally.lapsed < limit:
        with begin() as session:
            ended = lapse_unreturned(session, services=services, now=started, limit=AT_ONCE, actor=ACTOR, cipher=cipher)
        tally.lapsed += ended
        if not ended:
            break
    while tally.not_collected < limit:
        with begin() as session:
            ended = end_uncollected(session, services=services, now=started, limit=AT_ONCE, actor=ACTOR)
        tally.not_collected += ended
        if not ended:
            break
    for in_force in services.values():
        with begin() as session:
            tally.stuck += report_missing(session, service=in_force.service, now=started, limit=limit, actor=ACTOR)
        with begin() as session:
            tally.stuck += report_stuck(session, service=in_force.service, now=started, limit=limit, actor=ACTOR)
    return tally


def read_news(begin: Begin, news: ParcelNews, services: Services, *, clock: Clock, cipher: Cipher, limit: int) -> int:
    """Takes in up to `limit` events that couriers sent us, one a transaction, and says how much was new."""
    taken = 0
    for _ in range(limit):
        with begin() as session:
            waiting = next_news(session, cipher=cipher)
            if waiting is None:
                break
            inbox_id, body = waiting
            try:
                scans = [
                    ToldScan(each.tracking_number, each.kind, each.raw_code, each.occurred_at)
                    for each in news.scans(body)
                ]
            except ServiceError:
                scans = None
                log.warning("courier event %d can't be read: it is kept for a person", inbox_id)
            taken += settle_news(session, inbox_id, scans, services=services, now=clock(), actor=ACTOR)
    return taken


@flow(name="track-returns", retries=0)
@guarded("track-returns")
def track_returns(limit: int = 500) -> None:
    """Follows parcels; fails, by code, when the courier could not be asked."""
    product = connect()
    if product.courier_news:
        told = read_news(
            product.begin,
            product.courier_news,
            product.services,
            clock=product.clock,
            cipher=product.cipher,
            limit=limit,
        )
        log.info("track-returns: %d events were told to us", told)
    tally = follow_parcels(
        product.begin, product.courier, product.services, clock=product.clock, cipher=product.cipher, limit=limit
    )
    log.info(
        "track-returns: %d asked, %d events, %d lapsed, %d not collected, %d stuck",
        tally.asked,
        tally.events,
        tally.lapsed,
        tally.not_collected,
        tally.stuck,
    )
    if tally.courier_down:
        raise ServiceError(Code.NOT_NOW, f"The courier could not be asked ({tally.courier_down}): the next run will.")
