"""What every test finds: an environment without settings or Prefect profile, a database, golden files."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Before anything imports prefect: its home is shared by default, and it would talk to its makers.
os.environ.update(
    PREFECT_HOME=tempfile.mkdtemp(prefix="kitpost-tests-prefect-"),
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    DO_NOT_TRACK="1",
    PREFECT_LOGGING_TO_API_ENABLED="false",
)
for name in [name for name in os.environ if name == "PREFECT_API_URL" or name.startswith("KITPOST_")]:
    del os.environ[name]

import shutil

import pytest
from hypothesis import settings
from sqlalchemy import Engine

from app.database import Begin, begin_on
from tests.support import postgres

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LEFT_OUT = pytest.StashKey[int]()
GOLDEN = Path(__file__).parent / "golden"

# A first call that loads a calendar, or a busy machine, is no failure.
settings.register_profile("kitpost", deadline=None)
settings.load_profile("kitpost")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", action="store_true", help="write the golden files instead of comparing with them")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        postgres.prepare_run()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        postgres.end_run()
    shutil.rmtree(os.environ["PREFECT_HOME"], ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the browser tests out where there is no browser; the closing lines say so."""
    browser = [item for item in items if item.get_closest_marker("browser")]
    if browser and not any(map(shutil.which, BROWSERS)):
        items[:] = [item for item in items if item not in browser]
        config.hook.pytest_deselected(items=browser)
        config.stash[LEFT_OUT] = len(browser)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if left_out := config.stash.get(LEFT_OUT, 0):
        terminalreporter.section("BROWSER TESTS LEFT OUT", red=True)
        terminalreporter.line(f"{left_out} tests need a browser: install Chromium (apt-get install chromium).")


@pytest.fixture(scope="session")
def migrated() -> str:
    """The name of a database with every table and no row, to copy from."""
    return postgres.template()


@pytest.fixture(scope="session")
def _database(migrated: str) -> Iterator[postgres.Database]:
    with postgres.fresh_database(migrated) as database:
        yield database


@pytest.fixture
def db(_database: postgres.Database) -> Iterator[postgres.Database]:
    """A migrated database without a row, for this test alone."""
    with postgres.emptied(_database) as database:
        yield database


@pytest.fixture
def engine(db: postgres.Database) -> Engine:
    """An engine on the test's database, as the product's own role."""
    return db.engine


@pytest.fixture
def begin(engine: Engine) -> Begin:
    """Opens a transaction on the test's database, as the product's own role."""
    return begin_on(engine)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str | bytes], None]:
    """Compares with tests/golden/NAME byte for byte; `make golden` writes instead, for review in the diff."""

    def check(name: str, actual: str | bytes) -> None:
        found = actual.encode() if isinstance(actual, str) else actual
        path = GOLDEN / name
        if request.config.getoption("--golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(found)
        assert path.exists(), f"{path} is missing: run make golden and look at what it writes"
        assert found == path.read_bytes(), f"{name} differs from its golden file"

    return check
