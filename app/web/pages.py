"""Draws pages: Jinja templates that may not miss a value, and that take every value as text."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import ChainableUndefined, Environment, FileSystemLoader, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from app.web import presenters

STATIC: Final = Path(__file__).parent / "static"

_COMPONENTS: Final = {
    "back_link": "backLink",
    "button": "button",
    "card": "card",
    "checkboxes": "checkboxes",
    "details": "details",
    "error_summary": "errorSummary",
    "fieldset": "fieldset",
    "footer": "footer",
    "header": "header",
    "input": "input",
    "inset_text": "insetText",
    "notification_banner": "notificationBanner",
    "pagination": "pagination",
    "radios": "radios",
    "select": "select",
    "skip_link": "skipLink",
    "tag": "tag",
    "textarea": "textarea",
}
"""NHS.UK frontend's components that pages use, by their macros' names."""


class Pages:
    """The templates of one folder. `static(name)` changes its address whenever its content does."""

    def __init__(self, folder: Path) -> None:
        self._templates = Environment(
            loader=FileSystemLoader(folder),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals.update(presenters.WORDS, static=static_address, nhs=_components())

    def show(self, template: str, request: Request, *, title: str, status: int = 200, **values: Any) -> HTMLResponse:
        """One page. `who` is the person signed in, None on pages before that."""
        shown = {"who": None, "path": request.url.path, "title": title, **values}
        return HTMLResponse(self._templates.get_template(template).render(shown), status)


class Assets(StaticFiles):
    """The files of `static`. What is asked for by the address of its content is kept for ever, all else not at all."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """One file. Raises HTTPException(404) where there is none."""
        answer = await super().get_response(path, scope)
        if static_address(path) == f"/static/{path}?{scope['query_string'].decode('latin-1')}":
            answer.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return answer


@cache
def static_address(name: str) -> str:
    """Where a file of `static` is had: a new address for new content, so that a browser may keep it for ever."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


@cache
def _components() -> dict[str, Any]:
    """NHS.UK frontend's macros. They ask for parameters that nobody gave: they alone may miss a value."""
    library = Environment(
        loader=PackageLoader("nhsuk_frontend_jinja"),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return {
        name: getattr(library.get_template(f"nhsuk/components/{name.replace('_', '-')}/macro.jinja").module, macro)
        for name, macro in _COMPONENTS.items()
    }
