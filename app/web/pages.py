"""Draws pages: Jinja templates that may not miss a value, and that take every value as text."""

import hashlib
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from app.web import presenters

STATIC: Final = Path(__file__).parent / "static"


class Pages:
    """The templates of one folder. `style` changes its address whenever its content does."""

    def __init__(self, folder: Path) -> None:
        self._templates = Environment(
            loader=FileSystemLoader(folder),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        digest = hashlib.sha256((STATIC / "kitpost.css").read_bytes()).hexdigest()[:12]
        self._templates.globals.update(presenters.WORDS, style=f"/static/kitpost.css?v={digest}")

    def show(self, template: str, request: Request, *, title: str, status: int = 200, **values: Any) -> HTMLResponse:
        """One page. `who` is the person signed in, None on pages before that."""
        shown = {"who": None, "path": request.url.path, "title": title, **values}
        return HTMLResponse(self._templates.get_template(template).render(shown), status)
