"""Draws pages: Jinja templates that may not miss a value, and that take every value as text."""

import hashlib
import json
from collections.abc import Callable
from functools import cache, lru_cache
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
    "error_message": "errorMessage",
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

_ALIKE: Final = {
    "back_link",
    "button",
    "checkboxes",
    "footer",
    "input",
    "radios",
    "select",
    "skip_link",
    "tag",
    "textarea",
}
"""Those that stand on one page after the other with the same words: drawing a case's anew takes 20 ms."""


class Pages:
    """The templates of one folder. `static(name)` changes its address whenever its content does."""

    def __init__(self, folder: Path) -> None:
        self._templates = Environment(
            loader=FileSystemLoader(folder),
            autoescape=True,
            undefined=StrictUndefined,
            auto_reload=False,
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
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    macros = {
        name: getattr(library.get_template(f"nhsuk/components/{name.replace('_', '-')}/macro.jinja").module, macro)
        for name, macro in _COMPONENTS.items()
    }
    return macros | {name: _drawn_once(macros[name]) for name in _ALIKE}


def _drawn_once(macro: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any]], str]:
    """A component that is kept as it was drawn, by its parameters. What somebody typed or may read is never kept."""

    @lru_cache(maxsize=1000)
    def drawn(given: str) -> str:
        return macro(json.loads(given))

    return lambda params: macro(params) if params.get("value") or "html" in params else drawn(json.dumps(params))
