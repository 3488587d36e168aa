"""The lab desk's pages: what laboratories send and owe, rows that wait, one row beside our reading of it.

The bytes are read from the store outside any page's transaction where nothing is decided. Forms answer
with a redirect; what the rules refuse comes back on the row's page as one sentence, and nothing has changed.
"""

import csv
import io
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields
from textwrap import shorten
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from app.lab_reading import Ingest, attach_row, let_in_again, messages_at, read_rows_again, settle_row
from app.web.faults import STATUS
from app.web.pages import Pages
from app.web.presenters import moment, say
from app.web.signin import SignedIn, Staff, check_form
from models.actions import lab_desk, lab_file
from models.actions.lab_desk import RowView, SentBack
from models.actions.quarantine import ATTACHABLE, Again, open_sealed_kit
from models.rules.beside import why_held
from models.rules.errors import Code, ServiceError
from models.rules.kit import show_kit_code, show_tube_code
from models.rules.lab import LabRow
from models.rules.reading import Detail, Finding, Reading
from models.rules.staff import Action, services_where
from models.rules.vocabulary import Quarantine

_SAID: Final = "said"
_LONGEST_EXAMPLE: Final = 400
"""What is said after a redirect rides in the session's cookie, which browsers drop beyond 4 KiB."""
_SHOWN_ON_ROW: Final = frozenset({Code.NOT_NOW, Code.CONFLICT, Code.BAD_INPUT, Code.NOT_FOUND})


@dataclass(frozen=True, slots=True)
class Labs:
    """All that the lab desk's pages need."""

    reading: Callable[[], Ingest]
    """Asked for when a page needs it: opening the store is not every page's business."""
    pages: Pages


def labs_router(desk: Labs) -> APIRouter:
    """Every page of the lab desk, behind sign-in. Every form is checked to be ours."""
    router = APIRouter(prefix="/labs", include_in_schema=False, dependencies=[Depends(check_form)])
    _add_desk(router, desk)
    _add_row(router, desk)
    _add_acts(router, desk)
    return router


def _add_desk(router: APIRouter, desk: Labs) -> None:
    @router.get("")
    def overview(
        request: Request,
        who: Staff,
        lab: Annotated[str, Query(max_length=40)] = "",
        reason: Quarantine | None = None,
        page: Annotated[int, Query(ge=1, le=10_000)] = 1,
    ) -> Response:
        home = desk.reading()
        now = home.clock()
        with home.begin() as session:
            shown = lab_desk.lab_desk(
                session, by=who.actor, services=home.services, now=now, lab=lab, reason=reason, page=page
            )
        known = lab if lab in shown.labs else ""
        return desk.pages.show(
            "labs.html",
            request,
            title="Laboratories",
            who=who,
            said=request.session.pop(_SAID, ""),
            now=now,
            desk=shown,
            lab=known,
            reason=reason,
            chosen=f"{f'&lab={known}' if known else ''}{f'&reason={reason.value}' if reason else ''}",
        )

    @router.get("/lists/{lab}")
    def sent_back(who: Staff, lab: str) -> Response:
        home = desk.reading()
        with home.begin() as session:
            rows = lab_desk.list_for_lab(session, lab, by=who.actor, services=home.services, now=home.clock())
        written = io.StringIO()
        out = csv.writer(written, lineterminator="\r\n")
        out.writerow(each.name for each in fields(SentBack))
        out.writerows([_plain(cell) for cell in astuple(row)] for row in rows)
        headers = {"Content-Disposition": f'attachment; filename="{lab.lower()}-sent-back.csv"'}
        return Response(written.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)

    @router.post("/replay")
    def replay(
        request: Request, who: Staff, lab: Annotated[str, Form(max_length=40)], reason: Annotated[Quarantine, Form()]
    ) -> Response:
        home = desk.reading()
        if lab not in lab_desk.labs_of(who.actor, home.services):
            raise ServiceError(Code.NOT_FOUND, "There is no such laboratory.")
        mine = services_where(who.actor, Action.LIAISE_WITH_LABS)
        again = read_rows_again(home, actor=who.actor.audit_name, lab=lab, reason=reason, service_ids=mine)
        request.session[_SAID] = _told(again)
        return RedirectResponse(f"/labs?lab={lab}", 303)

    @router.post("/files/{ref}/again")
    def again(request: Request, who: Staff, ref: str) -> Response:
        home = desk.reading()
        labs = lab_desk.labs_of(who.actor, home.services)
        with home.begin() as session:
            file = next(iter(lab_file.kept_files(session, ref=ref)), None)
        if file is None or file.lab not in labs:
            raise ServiceError(Code.NOT_FOUND, "There is no such file: go back to the laboratories.")
        let_in_again(home, ref, actor=who.actor.audit_name)
        request.session[_SAID] = "The file is put back among those that wait: the next run reads it."
        return RedirectResponse("/labs", 303)


def _plain(cell: str) -> str:
    """A cell that a spreadsheet takes as text, whatever a laboratory called its file."""
    return f"'{cell}" if cell[:1] in "=+-@\t\r" and cell else cell


def _told(again: Again) -> str:
    used = f"{again.used} of {again.looked_at} rows are used now"
    said = f"{used}, {again.other_reason} wait for another reason, {again.as_before} read as before."
    if not again.unread:
        return said
    ref, why = next(iter(again.unread.items()))
    example = shorten(f"File {ref[:12]}: {why}", _LONGEST_EXAMPLE, placeholder=" …")
    return f"{said} Files that could not be read: {len(again.unread)}. {example}"


def _add_row(router: APIRouter, desk: Labs) -> None:
    @router.get("/rows/{ref}")
    def row(request: Request, who: Staff, ref: str) -> Response:
        return _draw(desk, request, who, ref)

    @router.post("/rows/{ref}/show")
    def show(request: Request, who: Staff, ref: str) -> Response:
        return _draw(desk, request, who, ref, with_raw=True)


def _draw(
    desk: Labs,
    request: Request,
    who: SignedIn,
    ref: str,
    status: int = 200,
    problem: str = "",
    *,
    with_raw: bool = False,
) -> Response:
    """The row's page. What it shows and that it was shown is one transaction."""
    home = desk.reading()
    now = home.clock()
    raw = None
    with home.begin() as session:
        view = lab_desk.row_view(session, ref, by=who.actor, now=home.clock(), services=home.services)
        if with_raw:
            raw = lab_desk.read_row(session, view, by=who.actor, now=now, cipher=home.cipher)
    reading, unread = _reading_of(home, view) if raw else ([], "")
    return desk.pages.show(
        "lab_row.html",
        request,
        title="Row in quarantine",
        status=status,
        who=who,
        said=request.session.pop(_SAID, ""),
        now=now,
        row=view,
        raw=raw,
        reading=reading,
        unread=unread,
        attachable=view.line.reason in ATTACHABLE,
        problem=problem,
    )


def _reading_of(home: Ingest, view: RowView) -> tuple[list[list[tuple[str, str]]], str]:
    """What today's map makes of the row, beside its whole message; or why its file can't be read."""
    with home.begin() as session:
        file = next(iter(lab_file.kept_files(session, file_ids=[view.file_id])), None)
    if file is None or file.lab not in home.maps:
        return [], "The file is still being read, or its laboratory has no map."
    try:
        messages = messages_at(home, file, {view.line.position})
    except ServiceError as error:
        return [], error.message
    place = view.line.position, view.row_key
    return [
        _lines(reading, raw)
        for each in messages
        for raw in each.message.rows
        if (raw.position, raw.row_key) == place
        for reading in each.readings
        if (reading.position, reading.row_key) == place
    ], ""


def _lines(reading: Reading, raw: LabRow) -> list[tuple[str, str]]:
    if isinstance(reading, Detail):
        return [("Reads as", "A row that only supports another")]
    said: list[tuple[str, str | None]] = [
        ("Reads as", say(reading.outcome if isinstance(reading, Finding) else "set aside"))
    ]
    if not isinstance(reading, Finding):
        said += [("Because", say(reading.reason)), ("Detail", reading.detail)]
    elif reading.note_review:
        said.append(("Held", why_held(raw, reading)))
    said += [
        ("Test", say(reading.test) if reading.test else None),
        ("Site", say(reading.site) if reading.site else None),
        ("Status", say(reading.status) if reading.status else None),
        ("Kit", show_kit_code(reading.kit_code) if reading.kit_code else None),
        ("Tube", show_tube_code(reading.tube_code) if reading.tube_code else None),
        ("Collected", moment(reading.collected_at) if reading.collected_at else None),
        ("Authorised", moment(reading.authorised_at) if reading.authorised_at else None),
    ]
    return [(name, value) for name, value in said if value]


def _draw_sealed(desk: Labs, request: Request, who: SignedIn, ref: str, code: str, refused: ServiceError) -> Response:
    """Where a seal is broken, with a reason: of the kit that was typed, or without one of the kit that is proposed."""
    return desk.pages.show(
        "sealed.html",
        request,
        title="Row in quarantine",
        status=STATUS[refused.code],
        who=who,
        back=(f"/labs/rows/{ref}", "Row in quarantine"),
        breaks=f"/labs/rows/{ref}/break-seal",
        code=code,
        problem=refused.message,
        written=(),
    )


def _act(
    desk: Labs, request: Request, who: SignedIn, ref: str, work: Callable[[Ingest], str], *, code: str = ""
) -> Response:
    """Does one thing to a row, with the kit of a code, and leads back; what the rules refuse is said on its page."""
    home = desk.reading()
    with home.begin() as session:  # somebody who may not see the row may do nothing to it
        lab_desk.row_view(session, ref, by=who.actor, now=home.clock(), services=home.services)
    try:
        said = work(home)
    except ServiceError as refused:
        if refused.code is Code.SEALED:
            return _draw_sealed(desk, request, who, ref, code, refused)
        if refused.code not in _SHOWN_ON_ROW:
            raise
        return _draw(desk, request, who, ref, STATUS[refused.code], refused.message)
    request.session[_SAID] = said
    return RedirectResponse(f"/labs/rows/{ref}", 303)


def _add_acts(router: APIRouter, desk: Labs) -> None:
    @router.post("/rows/{ref}/replay")
    def replay(request: Request, who: Staff, ref: str) -> Response:
        def work(home: Ingest) -> str:
            again = read_rows_again(home, actor=who.actor.audit_name, row_ref=ref)
            if again.unread:
                raise ServiceError(Code.NOT_NOW, *again.unread.values())
            return _told(again)

        return _act(desk, request, who, ref, work)

    @router.post("/rows/{ref}/send-back")
    def send_back(request: Request, who: Staff, ref: str) -> Response:
        def work(home: Ingest) -> str:
            with home.begin() as session:
                view = lab_desk.row_view(session, ref, by=who.actor, now=home.clock(), services=home.services)
                lab_desk.send_back(session, view, by=who.actor, now=home.clock())
            return f"The row is on the list for {view.line.lab}. It waits here until it comes again, mended."

        return _act(desk, request, who, ref, work)

    @router.post("/rows/{ref}/attach")
    def attach(request: Request, who: Staff, ref: str, code: Annotated[str, Form(max_length=40)]) -> Response:
        def work(home: Ingest) -> str:
            attach_row(home, ref, code, by=who.actor)
            return "Everything else agrees. A second, senior person must say that it is this kit’s."

        return _act(desk, request, who, ref, work, code=code)

    @router.post("/rows/{ref}/settle")
    def settle(request: Request, who: Staff, ref: str, approve: Annotated[bool, Form()]) -> Response:
        def work(home: Ingest) -> str:
            settle_row(home, ref, approve=approve, by=who.actor)
            return (
                "The row is this kit’s result now, and waits for a clinician." if approve else "Nothing was attached."
            )

        return _act(desk, request, who, ref, work)

    @router.post("/rows/{ref}/break-seal")
    def break_open(
        request: Request,
        who: Staff,
        ref: str,
        code: Annotated[str, Form(max_length=40)] = "",
        because: Annotated[str, Form()] = "",
    ) -> Response:
        def work(home: Ingest) -> str:
            with home.begin() as session:
                open_sealed_kit(session, ref, code, because=because, by=who.actor, now=home.clock())
            return "You broke the seal. It is open to you for eight hours, and your reason is recorded."

        return _act(desk, request, who, ref, work)
