"""Draws pages: Jinja templates that may not miss a value, and that take every value as text."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from app.web import presenters

STATIC: Final = Path(__file__).parent / "static"


class Pages:
    """The templates of one folder. `style` and `static(name)` change their address whenever their content does."""

    def __init__(self, folder: Path) -> None:
        self._templates = Environment(
            loader=FileSystemLoader(folder),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals.update(presenters.WORDS, style=_address("kitpost.css"), static=_address)

    def show(self, template: str, request: Request, *, title: str, status: int = 200, **values: Any) -> HTMLResponse:
        """One page. `who` is the person signed in, None on pages before that."""
        shown = {"who": None, "path": request.url.path, "title": title, **values}
        return HTMLResponse(self._templates.get_template(template).render(shown), status)


@cache
def _address(name: str) -> str:
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"
