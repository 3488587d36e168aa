"""One application and one sign-in provider on loopback for the run, a database for each test."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from app.demo.oidc_provider import make_provider
from app.web.main import create_app
from tests.support import web
from tests.support.postgres import Database


@dataclass(frozen=True, slots=True)
class Street:
    """Where the application and the provider stand."""

    door: web.Door
    url: str
    issuer: str


@dataclass(frozen=True, slots=True)
class Site:
    """One test's application."""

    url: str
    home: web.Home
    db: Database
    at_the_end: ExitStack

    def browser(self) -> web.Browser:
        browser = web.Browser(self.url)
        self.at_the_end.callback(browser.http.close)
        return browser

    def signed_in(self, login: str) -> web.Browser:
        browser = self.browser()
        browser.sign_in(login)
        return browser


@pytest.fixture(scope="session")
def street() -> Iterator[Street]:
    door = web.Door()
    with web.listening() as ours, web.listening() as theirs:
        url, issuer = web.address(ours), web.address(theirs)
        provider = make_provider(
            issuer=issuer,
            client_id=web.CLIENT_ID,
            client_secret=web.CLIENT_SECRET,
            redirect=f"{url}/sign-in/back",
        )
        with web.serving(door, ours), web.serving(provider, theirs):
            yield Street(door, url, issuer)


@pytest.fixture
def site(street: Street, db: Database) -> Iterator[Site]:
    home = web.home_on(db, public_base_url=street.url, issuer=street.issuer)
    street.door.app = create_app(home)
    with ExitStack() as at_the_end:
        yield Site(street.url, home, db, at_the_end)
    street.door.shut()
    home.engine.dispose()
