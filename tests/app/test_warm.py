"""A warm process becomes each run that asks, and the worker's command stays its master (docs/running.md)."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.local import Choices, LocalServices
from app.prefect import warm
from models.rules.errors import ServiceError

ROOT = Path(__file__).parents[2]

SERVER = """
import os, socket, sys
from pathlib import Path
from app.prefect import warm
listen = socket.socket.listen
socket.socket.listen = lambda door, waiting: (listen(door, waiting), print("ready", flush=True))
warm.serve(Path(sys.argv[1]), made_of=warm.newest_code())
exec(os.environ["JOB"])
"""
"""Says when it can be asked. After `serve` only a child goes on: it does what its environment says."""

COMMAND = """
import sys
from app.prefect import warm
taken = warm.ask(sys.argv[1])
sys.exit(99 if taken is None else taken)
"""
NOBODY = 99


@pytest.fixture
def place(tmp_path):
    return str(tmp_path / "warm.sock")


@contextmanager
def serving(place, server=SERVER):
    process = subprocess.Popen(
        [sys.executable, "-c", server, place], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def command(place, job, cwd=ROOT, **more):
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, place],
        cwd=cwd,
        env=environment(JOB=job, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_run_has_the_environment_the_folder_and_the_streams_of_its_command(place, tmp_path):
    job = "import sys; print(os.environ['WHO'], os.getcwd()); print('aside', file=sys.stderr)"
    with serving(place):
        for who in ("one", "two"):
            run = command(place, job, cwd=tmp_path, WHO=who)
            assert run.communicate() == (f"{who} {tmp_path}\n", "aside\n")
            assert run.returncode == 0


@pytest.mark.parametrize(
    ("job", "code"),
    [("sys.exit(3)", 3), ("raise ValueError", 1), ("os.kill(os.getpid(), 9)", 128 + 9), ("os._exit(0)", 0)],
)
def test_the_command_ends_as_its_run_ends(place, job, code):
    with serving(place):
        run = command(place, job)
        run.communicate()
    assert run.returncode == code


def test_runs_go_on_beside_each_other(place):
    with serving(place):
        first = command(place, "sys.stdout.write(sys.stdin.readline())")
        second = command(place, "print('second')")
        assert second.communicate()[0] == "second\n"
        first.kill()
        first.communicate()


def test_where_nobody_is_warm_the_command_does_it_itself(place):
    assert warm.ask(place) is None


def test_a_socket_that_a_dead_process_left_is_nobody_and_is_replaced(place):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(place)
    assert warm.ask(place) is None
    with serving(place):
        run = command(place, "sys.exit(5)")
        run.communicate()
    assert run.returncode == 5


def test_what_is_older_than_the_code_takes_no_run(place):
    older = SERVER.replace("made_of=warm.newest_code()", "made_of=warm.newest_code() - 1")
    with serving(place, older):
        run = command(place, "print('never')")
        assert run.communicate()[0] == ""
    assert run.returncode == NOBODY


def test_another_user_gets_nothing(place):
    with serving(place, SERVER.replace("warm.serve", "os.getuid = lambda: 4711\nwarm.serve")):
        run = command(place, "print('never')")
        assert run.communicate()[0] == ""
    assert run.returncode == NOBODY


def test_an_order_that_is_cut_short_disturbs_nobody(place):
    with serving(place):
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(place)
            socket.send_fds(line, [b"\0\0\1\0"], [0, 1, 2])
            line.sendall(b"{")
        run = command(place, "print('fine')")
        assert run.communicate()[0] == "fine\n"


ENDLESS = "print('begun', flush=True); import signal; signal.pause()"


def test_whoever_kills_the_command_kills_the_run(place):
    with serving(place):
        run = command(place, ENDLESS)
        assert run.stdout.readline() == "begun\n"
        run.kill()
        assert run.communicate(timeout=20) == ("", "")  # its streams end when the last who holds them is gone: the run


def test_a_polite_end_reaches_the_run(place):
    job = "import signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); " + ENDLESS
    with serving(place):
        run = command(place, job)
        run.stdout.readline()
        run.send_signal(signal.SIGTERM)
        run.communicate()
    assert run.returncode == 7


def test_a_run_outlives_whoever_forked_it_and_is_waited_for(place, tmp_path):
    job = "print('begun', flush=True); sys.stdin.readline(); open(os.environ['DONE'], 'w').close()"
    with serving(place) as server:
        run = subprocess.Popen(
            [sys.executable, "-c", COMMAND, place],
            cwd=ROOT,
            env=environment(JOB=job, DONE=str(tmp_path / "done")),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert run.stdout.readline() == "begun\n"
        server.kill()
        server.wait()
        run.communicate("go on\n")
    assert (tmp_path / "done").exists()
    assert run.returncode == 1, "nobody knows how it ended: the worker takes it for crashed, and the next run goes on"


def test_only_our_user_may_open_the_socket(place):
    with serving(place):
        assert Path(place).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("folder", ["no-such-folder", "long" * 40])
def test_a_socket_that_cannot_be_made_is_said_in_one_sentence(tmp_path, folder):
    path = tmp_path / folder / "warm.sock"
    if folder != "no-such-folder":
        path.parent.mkdir()
    with pytest.raises(ServiceError, match="name a short path in a folder that is there and yours"):
        warm.serve(path, made_of=warm.newest_code())


def test_services_in_a_folder_too_deep_for_a_socket_run_without_a_warm_process(tmp_path):
    deep = tmp_path / ("deep" * 30)
    choices = Choices(api_keys=("larkfield/web",))
    for folder, warmed in ((tmp_path, True), (deep, False)):
        services = LocalServices(folder, folder / "local.env", pg_bin=None, choices=choices)
        assert bool(services._warm()) is warmed
