"""Dispatched kits become requests at their laboratories, so that nobody there keys anything (FEATURES 82)."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prefect import flow

from app.database import Begin
from app.wiring import Clock, Wiring, connect, hl7_words, lab_requests
from flows.guard import guarded
from integrations.ports import FileStore, LabLine, NotSent, Unsure
from models.actions.lab_request import Sending, acknowledge_by_results, claim_sending, settle_sending
from models.rules.errors import Code, ServiceError
from models.rules.lab_request import RequestForm, RequestState, RequestWay
from models.rules.secrets import Cipher
from models.rules.service import LabContract, Services

AT_ONCE: Final = 200
"""Requests in one file."""

log: Final = logging.getLogger("kitpost")


@dataclass(slots=True)
class Tally:
    """What one run did."""

    sent: int = 0
    acknowledged: int = 0
    refused: int = 0
    unsure: int = 0
    by_results: int = 0
    """Requests that a result made needless to answer."""
    labs_down: int = 0
    """Laboratories whose own listener could not be reached: the next run tries again."""


@dataclass(frozen=True, slots=True)
class Desk:
    """All that sending requests needs, put together by wiring."""

    begin: Begin
    store: FileStore
    line_to: Callable[[str], LabLine]
    services: Services
    cipher: Cipher
    clock: Clock


def send_requests(desk: Desk, *, limit: int) -> Tally:
    """Sends up to `limit` owed requests, and takes results for answers. Safe to repeat and to be killed."""
    tally = Tally()
    with desk.begin() as session:
        tally.by_results = acknowledge_by_results(session)
    for service_id, in_force in desk.services.items():
        for contract in in_force.service.labs:
            if contract.requests is RequestForm.NONE:
                continue
            if contract.requests_by is RequestWay.STORE:
                _send_files(desk, service_id, contract, tally, limit=limit)
            else:
                _send_messages(desk, service_id, contract, tally, limit=limit)
    return tally


def _send_files(desk: Desk, service_id: str, contract: LabContract, tally: Tally, *, limit: int) -> None:
    while tally.sent < limit:
        sending = _claim(desk, service_id, contract, size=min(AT_ONCE, limit - tally.sent), again=True)
        if sending is None:
            return
        form = contract.requests
        content = lab_requests.write_requests(
            form, sending.requests, service_id=service_id, lab=contract.lab, batch=sending.batch
        )
        key = f"{contract.lab}/outgoing/{service_id}-{sending.batch}.{lab_requests.ENDING[form]}"
        desk.store.put(key, content, lab_requests.CONTENT_TYPE[form])
        tally.sent += _settle(desk, sending, RequestState.SENT)


def _send_messages(desk: Desk, service_id: str, contract: LabContract, tally: Tally, *, limit: int) -> None:
    line = desk.line_to(contract.lab)
    try:
        while tally.sent < limit:
            # One at a time: whatever breaks, one request at most is in doubt.
            sending = _claim(desk, service_id, contract, size=1, again=False)
            if sending is None:
                return
            [request] = sending.requests
            message = lab_requests.oml(request, service_id=service_id, lab=contract.lab)
            try:
                answer = hl7_words.answer_in(line.send(message))
            except NotSent as error:
                _settle(desk, sending, RequestState.OWED, error.code)
                tally.labs_down += 1
                return
            except Unsure as error:
                tally.unsure += _settle(desk, sending, RequestState.UNSURE, error.code)
                continue
            tally.sent += 1
            if answer.about != request.control_id:
                tally.unsure += _settle(desk, sending, RequestState.UNSURE, "answer_to_another")
            elif answer.is_yes:
                tally.acknowledged += _settle(desk, sending, RequestState.ACKNOWLEDGED)
            elif answer.is_no:
                tally.refused += _settle(desk, sending, RequestState.REFUSED, answer.code)
            else:
                tally.unsure += _settle(desk, sending, RequestState.UNSURE, "no_such_answer")
    finally:
        line.close()


def _claim(desk: Desk, service_id: str, contract: LabContract, *, size: int, again: bool) -> Sending | None:
    with desk.begin() as session:
        return claim_sending(
            session, service_id=service_id, lab=contract.lab, size=size, again=again, cipher=desk.cipher
        )


def _settle(desk: Desk, sending: Sending, state: RequestState, error_code: str = "") -> int:
    with desk.begin() as session:
        return settle_sending(session, sending.batch, state, now=desk.clock(), error_code=error_code)


def desk_of(product: Wiring) -> Desk:
    """What sending requests needs, from an installation."""
    return Desk(product.begin, product.store, product.line_to, product.services, product.cipher, product.clock)


@flow(name="request-tests", retries=0)
@guarded("request-tests")
def request_tests(limit: int = 500) -> None:
    """Tells laboratories of dispatched kits; fails, by code, when one could not be reached."""
    tally = send_requests(desk_of(connect()), limit=limit)
    log.info("request-tests: %s", tally)
    if tally.labs_down:
        raise ServiceError(Code.NOT_NOW, f"{tally.labs_down} laboratories could not be reached: the next run tries.")
