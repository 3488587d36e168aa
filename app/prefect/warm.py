"""One process that has imported everything, and becomes each flow run that asks: it begins at once instead of in 3 s.

`kitpost warm` listens on a Unix socket of its own user. A worker's command (`app.prefect.engine`) sends it its
environment, its folder and its three streams; it forks, and the child is the run. The command stays as the worker's
process: it passes signals on, ends with the run's exit code, and a run whose command was killed kills itself.

It only ever saves time: where nobody listens, or what listens is older than the code, the command imports for itself.
"""

import json
import os
import selectors
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import RawIOBase
from pathlib import Path
from threading import Thread
from typing import IO, Final

ROOT: Final = Path(__file__).resolve().parents[2]
CODE: Final = ("app", "flows", "integrations", "models")

STREAMS: Final = 3
_LENGTH: Final = struct.Struct("!I")
_CREDENTIALS: Final = struct.Struct("3i")
_PATIENCE_SECONDS: Final = 5.0
"""For an order that was begun to come whole: it comes from this machine."""

_LOST: Final = 1
"""Exit code of a command whose run can't be asked any more how it ended: Prefect takes the run for crashed."""


# ── The worker's command ─────────────────────────────────────────────────────────────────────


def ask(path: str) -> int | None:
    """Has a warm process carry out the run that this one was started for: its exit code. None: nobody takes it."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with line:
        try:
            line.connect(path)
            order = json.dumps({"environment": dict(os.environ), "folder": str(Path.cwd())}).encode()
            socket.send_fds(line, [_LENGTH.pack(len(order))], range(STREAMS))
            line.sendall(order)
            answers = line.makefile("r", encoding="ascii")
            if answers.readline() != "taken\n":
                return None
        except OSError:
            return None
        # From here on the run may have begun: it is never begun again here.
        return _wait(answers)


def _wait(answers: IO[str]) -> int:
    """Until the run has ended."""
    word, _, number = answers.readline().partition(" ")
    if word != "pid":
        return _LOST
    run = int(number)
    for passed_on in (signal.SIGTERM, signal.SIGINT):
        signal.signal(passed_on, lambda which, _frame: _kill(run, which))
    word, _, code = answers.readline().partition(" ")
    if word == "end":
        return int(code)
    while _kill(run, 0):  # who forked it is gone, and it may be at work
        time.sleep(0.1)
    return _LOST


def _kill(process: int, which: int) -> bool:
    try:
        os.kill(process, which)
    except ProcessLookupError:
        return False
    return True


# ── The warm process ─────────────────────────────────────────────────────────────────────────


def serve(path: Path, *, made_of: float) -> None:
    """Forks a child for each order. Returns in every child, as the run; never in the parent, which a signal ends.

    `made_of` is `newest_code` as it was before anything was imported: once it is another, no order is taken.
    """
    with _listening(path) as door, selectors.DefaultSelector() as watch:
        woken, wakes = socket.socketpair()
        for each in (woken, wakes, door):
            each.settimeout(0)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(wakes.fileno())
        watch.register(door, selectors.EVENT_READ)
        watch.register(woken, selectors.EVENT_READ)
        runs: dict[int, socket.socket] = {}
        while True:
            for key, _ in watch.select():
                if key.fileobj is woken:
                    with suppress(BlockingIOError):
                        woken.recv(4096)
                    _bury(runs)
                    continue
                try:
                    line, _ = door.accept()
                except BlockingIOError:  # whoever knocked is gone
                    continue
                order = _read(line) if _is_us(line) and newest_code() == made_of else None
                if order is None:
                    line.close()
                    continue
                if run := _fork(line, order):
                    runs[run] = line
                    continue
                signal.set_wakeup_fd(-1)
                for each in (woken, wakes, door, *runs.values()):
                    each.close()
                return


def _fork(line: socket.socket, order: tuple[dict[str, str], str, list[int]]) -> int:
    """The child's process id in the parent. Zero in the child, which is whoever sent the order by then."""
    environment, folder, streams = order
    with suppress(OSError):
        line.sendall(b"taken\n")
    run = os.fork()
    if run:
        for each in streams:
            os.close(each)
        with suppress(OSError):
            line.sendall(f"pid {run}\n".encode())
        return run
    for number, each in enumerate(streams):
        os.dup2(each, number)
        os.close(each)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    Thread(target=_die_with, args=(line,), daemon=True).start()
    return 0


def _die_with(line: socket.socket) -> None:
    """Whoever kills the worker's command kills the run: so it is for the worker, and for a power cut in a test."""
    with suppress(OSError):
        line.settimeout(None)
        line.recv(1)  # nothing is ever sent: it ends when the command does
    os.kill(os.getpid(), signal.SIGKILL)


def _bury(runs: dict[int, socket.socket]) -> None:
    """Tells each command whose run has ended how it ended."""
    while runs:
        run, status = os.waitpid(-1, os.WNOHANG)
        if not run:
            return
        code = os.waitstatus_to_exitcode(status)
        with runs.pop(run) as line, suppress(OSError):
            line.sendall(f"end {code if code >= 0 else 128 - code}\n".encode())


def _read(line: socket.socket) -> tuple[dict[str, str], str, list[int]] | None:
    """One order and its streams; None for one that does not come whole."""
    line.settimeout(_PATIENCE_SECONDS)
    try:
        head, streams, _, _ = socket.recv_fds(line, _LENGTH.size, STREAMS)
        with line.makefile("rb", buffering=0) as rest:
            order = json.loads(_whole(rest, _LENGTH.unpack(head)[0]))
    except (OSError, struct.error, ValueError):
        return None
    if len(streams) != STREAMS:
        return None
    return order["environment"], order["folder"], streams


def _whole(stream: RawIOBase, length: int) -> bytes:
    found = b""
    while len(found) < length:
        piece = stream.read(length - len(found))
        if not piece:
            raise ValueError("cut short")
        found += piece
    return found


def _is_us(line: socket.socket) -> bool:
    """Whether the other end is our own user: whoever it is becomes us."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the socket's mode must do
    told = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(told)[1] == os.getuid())


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """A socket that only our user may open. One that a dead process left is replaced."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        before = os.umask(0o077)
        try:
            door.bind(str(path))
        except OSError as error:
            raise _no_place(error) from error
        finally:
            os.umask(before)
        door.listen(16)
        yield door


def _no_place(error: OSError) -> Exception:
    from models.rules.errors import Code, ServiceError

    return ServiceError(
        Code.SETTINGS,
        f"KITPOST_WARM_SOCKET can't be made ({error.strerror or 'its path is too long'}): "
        "name a short path in a folder that is there and yours.",
    )


def newest_code() -> float:
    """When our own code was last changed."""
    return max(file.stat().st_mtime for package in CODE for file in (ROOT / package).rglob("*.py"))
