"""Dispatched kits become requests at their laboratories, so that nobody there keys anything (FEATURES 82)."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from prefect import flow

from app.database import Begin
from app.wiring import Clock, Wiring, connect, hl7_words, lab_requests
from flows.guard import guarded
from integrations.ports import FileStore, LabLine, NotSent, Unsure
from models.actions.lab_request import (
    Sending,
    acknowledge_by_results,
    claim_sending,
    drop_needless,
    settle_sending,
    take_answer,
)
from models.rules.errors import Code, ServiceError
from models.rules.lab_request import RequestForm, RequestState, RequestWay
from models.rules.secrets import Cipher
from models.rules.service import LabContract, Services

AT_ONCE: Final = 200
"""Requests in one file."""

MOST_IN_DOUBT: Final = 3
"""Requests in a row that a laboratory may leave in doubt in one run: one may be an accident, all are not to be."""

SECOND_THOUGHTS_SECONDS: Final = 2.0
"""How long a line stays open when a lab has said of a request that it has it (CA), and not yet whether it takes it."""

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
    not_needed: int = 0
    """Requests that don't leave: their kit was cancelled."""
    refused_late: int = 0
    """Refusals that came on the line after a first answer, which they overrule or repeat."""
    labs_down: int = 0
    """Laboratories whose own listener could not be reached: the next run tries again."""
    fault: ServiceError | None = field(default=None, repr=False)
    """The first thing of ours that kept a laboratory from being told; the others were told all the same."""


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
    """Sends up to `limit` owed requests of each contract, and takes results for answers. Safe to repeat and be killed.

    Neither much that is owed to one laboratory nor what goes wrong with it keeps another waiting.
    """
    tally = Tally()
    with desk.begin() as session:
        tally.by_results = acknowledge_by_results(session)
        tally.not_needed = drop_needless(session)
    for service_id, in_force in desk.services.items():
        for contract in in_force.service.labs:
            if contract.requests is RequestForm.NONE:
                continue
            send = _send_files if contract.requests_by is RequestWay.STORE else _send_messages
            try:
                send(desk, service_id, contract, tally, limit=limit)
            except ServiceError as error:
                log.warning("request-tests: %s was not told: %s", contract.lab, error.code)
                tally.fault = tally.fault or error
    return tally


def _send_files(desk: Desk, service_id: str, contract: LabContract, tally: Tally, *, limit: int) -> None:
    left = limit
    while left > 0:
        sending = _claim(desk, service_id, contract, size=min(AT_ONCE, left), again=True)
        if sending is None:
            return
        left -= len(sending.requests)
        form = contract.requests
        content = lab_requests.write_requests(
            form, sending.requests, service_id=service_id, lab=contract.lab, batch=sending.batch
        )
        key = f"{contract.lab}/outgoing/{service_id}-{sending.batch}.{lab_requests.ENDING[form]}"
        desk.store.put(key, content, lab_requests.CONTENT_TYPE[form])
        tally.sent += _settle(desk, sending, RequestState.SENT)


def _send_messages(desk: Desk, service_id: str, contract: LabContract, tally: Tally, *, limit: int) -> None:
    """Tells one laboratory over its line, until it has left MOST_IN_DOUBT in a row in doubt.

    Each of those costs a person a call, so that the rest stays owed, and the next run tries.
    """
    line = desk.line_to(contract.lab)
    codes: list[str] = []
    try:
        while len(codes) < limit and codes[-MOST_IN_DOUBT:] != [""] * MOST_IN_DOUBT:
            # One at a time: whatever breaks, one request at most is in doubt.
            sending = _claim(desk, service_id, contract, size=1, again=False)
            if sending is None:
                break
            codes.append(_send_message(desk, line, sending, tally, service_id=service_id, lab=contract.lab))
            _take_late(desk, line, contract.lab, tally)
        if "CA" in codes:
            _take_late(desk, line, contract.lab, tally, wait_seconds=SECOND_THOUGHTS_SECONDS)
    except NotSent:
        tally.labs_down += 1
    finally:
        try:
            _take_late(desk, line, contract.lab, tally)  # what was said before the line broke
        finally:
            line.close()


def _send_message(desk: Desk, line: LabLine, sending: Sending, tally: Tally, *, service_id: str, lab: str) -> str:
    """Sends one request, settles it by its answer, and returns the answer's code, '' where it is in doubt.

    Raises NotSent or ServiceError where nothing left: the request is owed again.
    """
    [request] = sending.requests
    try:
        answer = hl7_words.answer_in(line.send(lab_requests.oml(request, service_id=service_id, lab=lab)))
    except (NotSent, ServiceError) as error:
        _settle(desk, sending, RequestState.OWED, error.code)
        raise
    except Unsure as error:
        tally.unsure += _settle(desk, sending, RequestState.UNSURE, error.code)
        return ""
    tally.sent += 1
    if answer.is_yes:
        tally.acknowledged += _settle(desk, sending, RequestState.ACKNOWLEDGED)
    elif answer.is_no:
        tally.refused += _settle(desk, sending, RequestState.REFUSED, answer.code)
    else:
        tally.unsure += _settle(desk, sending, RequestState.UNSURE, "no_such_answer")
        return ""
    return answer.code


def _take_late(desk: Desk, line: LabLine, lab: str, tally: Tally, *, wait_seconds: float = 0.0) -> None:
    """Takes what a lab has said since of requests that it had answered: a no after a yes is a no (H34)."""
    for answer in map(hl7_words.answer_in, line.late(wait_seconds)):
        with desk.begin() as session:
            is_news = take_answer(session, answer, lab=lab, now=desk.clock(), takes_back=True)
        tally.refused_late += is_news and not answer.is_yes


def _claim(desk: Desk, service_id: str, contract: LabContract, *, size: int, again: bool) -> Sending | None:
    with desk.begin() as session:
        return claim_sending(
            session, service_id=service_id, lab=contract.lab, size=size, again=again, cipher=desk.cipher
        )


def _settle(desk: Desk, sending: Sending, state: RequestState, error_code: str = "") -> int:
    with desk.begin() as session:
        return settle_sending(session, sending.batch, state, now=desk.clock(), error_code=error_code)


def check_all_were_told(tally: Tally) -> None:
    """Raises what kept a laboratory from being told, at the end of a run that told the others."""
    if tally.fault:
        raise tally.fault
    if tally.labs_down:
        raise ServiceError(Code.NOT_NOW, f"{tally.labs_down} laboratories could not be reached: the next run tries.")


def desk_of(product: Wiring) -> Desk:
    """What sending requests needs, from an installation."""
    return Desk(product.begin, product.store, product.line_to, product.services, product.cipher, product.clock)


@flow(name="request-tests", retries=0)
@guarded("request-tests")
def request_tests(limit: int = 500) -> None:
    """Tells laboratories of dispatched kits; fails, by code, when one could not be told."""
    tally = send_requests(desk_of(connect()), limit=limit)
    log.info("request-tests: %s", tally)
    check_all_were_told(tally)
