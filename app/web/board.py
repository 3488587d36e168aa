"""The service manager's board: queues by age, and how soon people were reached, with an export of both."""

import csv
from dataclasses import dataclass
from io import StringIO

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from app.database import Begin
from app.web.pages import Pages
from app.web.signin import SignedIn, Staff, check_form
from app.wiring import Clock
from models.actions.board import board, export_board
from models.rules.errors import Code, ServiceError
from models.rules.service import Services
from models.rules.staff import Action, services_where


@dataclass(frozen=True, slots=True)
class BoardRoom:
    """All that the page needs."""

    begin: Begin
    clock: Clock
    services: Services
    pages: Pages


def board_router(room: BoardRoom) -> APIRouter:
    """The page and its export, behind sign-in."""
    router = APIRouter(prefix="/board", include_in_schema=False, dependencies=[Depends(check_form)])

    def theirs(who: SignedIn) -> list[str]:
        allowed = services_where(who.actor, Action.SEE_BOARD) & room.services.keys()
        if not allowed:
            raise ServiceError(Code.NOT_ALLOWED, "Your role does not allow this: ask your service manager.")
        return sorted(allowed)

    @router.get("")
    def overview(request: Request, who: Staff) -> Response:
        services, now = theirs(who), room.clock()
        with room.begin() as session:
            shown = board(session, service_ids=services, now=now)
        return room.pages.show("board.html", request, title="Board", who=who, now=now, shown=shown, services=services)

    @router.post("/export")
    def export(who: Staff) -> Response:
        services, now = theirs(who), room.clock()
        with room.begin() as session:
            rows = export_board(session, service_ids=services, actor=who.actor.audit_name, now=now)
        written = StringIO()
        csv.writer(written).writerows(rows)
        told = {"Content-Disposition": f'attachment; filename="board-{now:%Y-%m-%d}.csv"'}
        return Response(written.getvalue(), media_type="text/csv; charset=utf-8", headers=told)

    return router
