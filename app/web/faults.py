"""How failures read: a page for staff, problem details (RFC 9457) for machines, one clear sentence for both.

Nothing that was sent is quoted back: a field's name and what is wrong with it, never its value.
"""

import logging
import secrets
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from app.web.pages import Pages
from app.web.signin import NotSignedIn
from models.rules.errors import Code, ServiceError

STATUS: Final[Mapping[Code, int]] = {
    Code.BAD_INPUT: 422,
    Code.BAD_SIGNATURE: 403,
    Code.NOT_ALLOWED: 403,
    Code.SEALED: 403,
    Code.NOT_FOUND: 404,
    Code.CONFLICT: 409,
    Code.NOT_NOW: 409,
    Code.TOO_OFTEN: 429,
    Code.DATABASE_DOWN: 503,
    Code.DATABASE_NOT_READY: 503,
    Code.STORE_DOWN: 503,
}
"""Any other code is our own fault: 500."""

Broken = Callable[[Request, Exception], Response]
"""Answers what nobody expected."""

_MACHINES: Final = ("/api", "/callbacks", "/health")

log: Final = logging.getLogger("kitpost")


def add_faults(app: FastAPI, pages: Pages) -> Broken:
    """Makes every expected failure of an application end as a page or a problem, and returns what does the rest."""

    def told(request: Request, status: int, code: str, sentence: str, **more: Any) -> Response:
        if request.url.path.startswith(_MACHINES):
            problem = {"type": f"about:blank#{code}", "title": code, "status": status, "detail": sentence, **more}
            return JSONResponse(problem, status, media_type="application/problem+json")
        who = getattr(request.state, "who", None)
        return pages.show("fault.html", request, title="This can't be done", status=status, who=who, sentence=sentence)

    @app.exception_handler(NotSignedIn)
    def not_signed_in(_request: Request, _error: Exception) -> Response:
        return RedirectResponse("/sign-in", 303)

    @app.exception_handler(ServiceError)
    def expected(request: Request, error: Exception) -> Response:
        assert isinstance(error, ServiceError)  # registered for it
        return told(request, STATUS.get(error.code, 500), error.code, error.message)

    @app.exception_handler(RequestValidationError)
    def unreadable(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # registered for it
        faults = [{"field": str(each["loc"][-1]), "sentence": _sentence(each["type"])} for each in error.errors()]
        fields = ", ".join(sorted({fault["field"] for fault in faults}))
        return told(request, 422, Code.BAD_INPUT, f"Check the form: {fields} can't be read.", errors=faults)

    @app.exception_handler(HTTPException)
    def plain(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # registered for it
        sentence = {404: "There is no such page.", 405: "This page does not take that."}.get(error.status_code)
        return told(request, error.status_code, "http", sentence or "This request can't be served.")

    @app.exception_handler(OperationalError)
    def database_down(request: Request, error: Exception) -> Response:
        log.error("the database failed: %s", type(error.__cause__).__name__)
        return told(request, 503, Code.DATABASE_DOWN, "The database does not answer: try again in a minute.")

    def unexpected(request: Request, error: Exception) -> Response:
        # Foreign words may hold personal values: the log gets where it broke and what kind of error it was.
        ref, frames = secrets.token_hex(4), traceback.extract_tb(error.__traceback__)
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "nowhere"
        log.error("unexpected failure %s: %s at %s", ref, type(error).__name__, where)
        sentence = f"Something broke here: tell support the reference {ref}, and try again."
        return told(request, 500, Code.UNEXPECTED, sentence)

    return unexpected


def _sentence(kind: str) -> str:
    return "It is missing." if kind == "missing" else "It is not one of the values that can stand here."
