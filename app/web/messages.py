"""The pages of messages: the list with its chart and what is stuck, and the ledger of one, its words on a reveal."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, Query, Request
from starlette.responses import Response

from app.database import Begin
from app.web.pages import Pages
from app.web.signin import SignedIn, Staff, check_form
from app.wiring import Clock
from models.actions.text_ledger import ledger, messages, reveal_words
from models.actions.text_moves import Toolbox
from models.rules.errors import Code, ServiceError
from models.tables.text import TextState

AGES: Final = ((0, "Any"), (1, "Older than a day"), *((days, f"Older than {days} days") for days in (3, 7, 30)))
"""Days by which the list may be asked for older texts, and how that reads."""

WENT: Final[Mapping[str, frozenset[TextState]]] = {
    "delivered": frozenset({TextState.DELIVERED}),
    "on its way": frozenset({TextState.OWED, TextState.SENDING, TextState.UNSURE, TextState.ACCEPTED}),
    "did not arrive": frozenset({TextState.HANDED_OVER, TextState.FAILED}),
    "not needed": frozenset({TextState.CANCELLED}),
}
"""What the chart and its table tell apart."""

_WIDTH: Final = 34
_HEIGHT: Final = 120


@dataclass(frozen=True, slots=True)
class MessagesDesk:
    """All that the pages need."""

    begin: Begin
    clock: Clock
    tools: Toolbox
    pages: Pages


@dataclass(frozen=True, slots=True)
class Bar:
    """One part of one day's bar, in units of the drawing."""

    x: int
    y: float
    height: float
    series: int


def messages_router(desk: MessagesDesk) -> APIRouter:
    """The pages, behind sign-in. The one form is checked to be ours."""
    router = APIRouter(prefix="/messages", include_in_schema=False, dependencies=[Depends(check_form)])

    @router.get("")
    def overview(
        request: Request,
        who: Staff,
        kit: Annotated[str, Query(max_length=20)] = "",
        state: Annotated[str, Query(max_length=20)] = "",
        older: Annotated[int, Query(ge=0, le=3650)] = 0,
    ) -> Response:
        if state and state not in set(TextState):
            raise ServiceError(Code.BAD_INPUT, "There is no such state of a text: choose one of those listed.")
        chosen = TextState(state) if state else None
        problem = ""
        with desk.begin() as session:
            ask = partial(messages, session, by=who.actor, now=desk.clock(), state=chosen, older_than_days=older)
            try:
                shown = ask(kit_code=kit.strip())
            except ServiceError as error:
                if error.code is not Code.BAD_INPUT:
                    raise
                problem, shown = error.message, ask()
        table = {day: _by_series(counts) for day, counts in shown.days.items()}
        return desk.pages.show(
            "messages.html",
            request,
            title="Messages",
            status=422 if problem else 200,
            who=who,
            problem=problem,
            shown=shown,
            asked={"kit": kit, "state": state, "older": older},
            states=list(TextState),
            ages=AGES,
            series=list(WENT),
            table=table,
            bars=bars(table),
            width=_WIDTH * len(table),
            step=_WIDTH,
            height=_HEIGHT,
        )

    @router.get("/{ref}")
    def one(request: Request, who: Staff, ref: str) -> Response:
        return draw(request, who, ref)

    @router.post("/{ref}/words")
    def words(request: Request, who: Staff, ref: str, because: Annotated[str, Form(max_length=200)] = "") -> Response:
        return draw(request, who, ref, because=because)

    def draw(request: Request, who: SignedIn, ref: str, *, because: str | None = None) -> Response:
        revealed, problem = None, ""
        with desk.begin() as session:
            if because is not None:
                try:
                    revealed = reveal_words(
                        session, ref, by=who.actor, because=because, now=desk.clock(), tools=desk.tools
                    )
                except ServiceError as error:
                    if error.code not in {Code.BAD_INPUT, Code.NOT_NOW}:
                        raise
                    problem = error.message
            shown = ledger(session, ref, by=who.actor, now=desk.clock())
            return desk.pages.show(
                "message.html",
                request,
                title="Message",
                status=422 if problem else 200,
                who=who,
                shown=shown,
                revealed=revealed,
                problem=problem,
            )

    return router


def _by_series(counts: Counter[TextState]) -> list[int]:
    return [sum(counts[state] for state in states) for states in WENT.values()]


def bars(table: Mapping[date, list[int]]) -> list[Bar]:
    """The stacked bars of the chart: as high as the busiest day allows, delivered texts at the bottom."""
    most = max((sum(counts) for counts in table.values()), default=0) or 1
    drawn = []
    for place, counts in enumerate(table.values()):
        top = float(_HEIGHT)
        for series, count in enumerate(counts):
            if count:
                height = count / most * (_HEIGHT - 12)
                top -= height
                drawn.append(Bar(place * _WIDTH, round(top, 1), round(height, 1), series))
    return drawn
