"""The whole world on one machine, for looking around and for the demo: every service a child process.

PostgreSQL, a file store with its queue, an SMS provider, a courier, a sign-in provider, the Prefect
server and a worker, the web application, and a laboratory's door for HL7 messages. All listen on
loopback only. What has to be secret is made up once per state folder and kept in one file of mode
0600, which `kitpost` commands on this machine read too. The children end when we end, however we end.
"""

import base64
import ctypes
import fcntl
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Self

import boto3
from dotenv import dotenv_values

from app import embedded_postgres
from app.database import is_demo, migrate
from models.rules.errors import Code, ServiceError

READY_WITHIN_SECONDS: Final = 120.0
"""The slowest is a Prefect server that makes its tables: 9 s alone, 40 s on a busy machine."""

STOP_WITHIN_SECONDS: Final = 15.0

LOOK_EVERY_SECONDS: Final = 0.1

LOOPBACK: Final = "127.0.0.1"

USUAL_PORTS: Final = {
    "store": 8421, "texts": 8422, "courier": 8423, "sign-in": 8424, "prefect": 4200, "web": 8420, "worker": 8425,
    "mllp": 2575,
}  # fmt: skip
"""Taken when free, so that addresses stay the same from one day to the next."""

HEALTH: Final = {"prefect": "/api/health", "worker": "/health"}
"""Services that listen before they are ready, and where they say so. The others listen when they are."""

WORK_POOL: Final = "/api/work_pools/kitpost"
"""Where the Prefect server shows what its worker works for."""

PATIENCE_SECONDS: Final = 1.5
"""With the SMS provider on loopback: an answer that takes longer is one that it withholds on purpose."""

WARM_SOCKET: Final = "KITPOST_WARM_SOCKET"

BUCKET: Final = "kitpost"
QUEUE: Final = "kitpost-arrivals"
MOTO_ACCOUNT: Final = "123456789012"
REGION: Final = "eu-west-2"


@dataclass(frozen=True, slots=True)
class Choices:
    """What may differ between one run and another."""

    api_keys: tuple[str, ...]
    """`service/channel` pairs that get a key made up; their services are those of every demo login."""
    laboratory: str = ""
    """Whose HL7 messages are taken over MLLP, on loopback."""
    seed: int = 1
    faults: float = 0.2
    """Share of the SMS provider's answers that go wrong, 0 to 1."""
    usual_ports: bool = True
    """False: ports that the system picks, so that any number of installations can start at once."""


class LocalServices:
    """Starts, watches and stops the services of one state folder. Use as a context manager."""

    def __init__(self, state_dir: Path, settings_file: Path, *, pg_bin: Path | None, choices: Choices) -> None:
        self._state = state_dir
        self._settings_file = settings_file
        self._pg_bin = pg_bin
        self._choices = choices
        self._lock: IO[str] | None = None
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: dict[str, int] = {}
        self._prefect_database = ""
        self.settings: dict[str, str] = {}
        """The KITPOST_* variables that lead the product to these services; also in the settings file."""

    def __enter__(self) -> Self:
        if not self._state.exists():
            self._state.mkdir(parents=True)
            self._state.chmod(0o711)  # PostgreSQL's user must get through; what is inside is closed by itself
        (self._state / "logs").mkdir(mode=0o700, exist_ok=True)
        self._lock = _locked_alone(self._state / "up.lock")
        try:
            self._start_all()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def addresses(self) -> dict[str, str]:
        """Where a person can look, by what is found there."""
        return {
            "worklist": f"{self._address('web')}/",
            "sign-in": "choose whom to be from the list; there are no passwords",
            "Prefect": f"{self._address('prefect')}/",
            "logs": str(self._state / "logs"),
        } | (
            {"HL7": f"{LOOPBACK}:{self._ports['mllp']} takes {lab}'s messages over MLLP"}
            if (lab := self._choices.laboratory)
            else {}
        )

    def pid(self, name: str) -> int:
        """The process of a running service; also its process group."""
        return self._running[name].pid

    def start(self, name: str) -> None:
        """Starts one service, or starts it again; returns when it is ready."""
        self._spawn(name)
        self._wait_for([name])

    def watch(self, until: Callable[[], bool]) -> None:
        """Stays until it is told to end. Raises ServiceError(UNEXPECTED) that says which service ended by itself."""
        while not until():
            self._raise_if_one_ended()
            time.sleep(1)

    def stop(self) -> None:
        """Ends everything, politely at first. Safe to repeat."""
        for process in self._running.values():
            _signal_group(process, signal.SIGTERM)
        give_up = time.monotonic() + STOP_WITHIN_SECONDS
        for process in self._running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, give_up - time.monotonic()))
            _signal_group(process, signal.SIGKILL)  # and whoever is left of its group
            process.wait()
        self._running.clear()
        if self._lock is not None:
            embedded_postgres.stop(self._state, binaries=self._pg_bin)
            self._lock.close()
            self._lock = None

    def _start_all(self) -> None:
        """In parallel where nothing has to wait: the Prefect server takes longest, so it goes first.

        Beside it one service after the other: all at once they would take the processors from it.
        """
        self._ports = _free_ports(usual=self._choices.usual_ports)
        self.settings = self._made_up_settings()
        _write_privately(self._settings_file, "".join(f"{name}='{value}'\n" for name, value in self.settings.items()))
        admin = embedded_postgres.ensure(self._state, binaries=self._pg_bin)
        prefect_database = embedded_postgres.create_database(admin, "prefect")
        self._prefect_database = prefect_database.replace("+psycopg", "+asyncpg", 1)
        self._spawn("prefect")
        self._prepare_database(admin)
        with self._deploying() as pool_is_there:
            self.start("store")
            _prepare_store(self._address("store"))
            for name in ("texts", "courier", "sign-in", "web"):
                self.start(name)
            pool_is_there()
            self._spawn("worker")
            if WARM_SOCKET in self.settings:
                self._spawn("warm")
            self._spawn("listener")
            if self._choices.laboratory:
                self._spawn("mllp")
            self._wait_for(self._running)

    def _made_up_settings(self) -> dict[str, str]:
        """Secrets as they were last time, addresses as they are now."""
        before = {name: value for name, value in dotenv_values(self._settings_file).items() if value}
        keys = json.loads(before.get("KITPOST_API_KEYS", "{}"))
        lasting = {
            "KITPOST_DATA_KEYS": json.dumps({"local": _random_key()}),
            "KITPOST_INDEX_KEYS": json.dumps({"1": _random_key()}),
            "KITPOST_SESSION_SECRET": secrets.token_urlsafe(32),
            "KITPOST_TWILIO_ACCOUNT_SID": f"AC{secrets.token_hex(16)}",
            "KITPOST_TWILIO_AUTH_TOKEN": secrets.token_hex(16),
            "KITPOST_TWILIO_MESSAGING_SERVICE_SID": f"MG{secrets.token_hex(16)}",
            "KITPOST_COURIER_CLIENT_SECRET": secrets.token_urlsafe(32),
            "KITPOST_OIDC_CLIENT_SECRET": secrets.token_urlsafe(32),
        }
        return {name: before.get(name, value) for name, value in lasting.items()} | {
            "KITPOST_ENVIRONMENT": "demo",
            "KITPOST_STATE_DIR": str(self._state),
            "KITPOST_PUBLIC_BASE_URL": self._address("web"),
            "KITPOST_DATA_KEY_CURRENT": "local",
            "KITPOST_S3_BUCKET": BUCKET,
            "KITPOST_S3_REGION": REGION,
            "KITPOST_S3_ENDPOINT": self._address("store"),
            "KITPOST_S3_ACCESS_KEY": "local",
            "KITPOST_S3_SECRET_KEY": "local",
            "KITPOST_SQS_ENDPOINT": self._address("store"),
            "KITPOST_SQS_QUEUE_URL": f"{self._address('store')}/{MOTO_ACCOUNT}/{QUEUE}",
            "KITPOST_TWILIO_BASE_URL": self._address("texts"),
            "KITPOST_TWILIO_TIMEOUT_SECONDS": str(PATIENCE_SECONDS),
            "KITPOST_COURIER_BASE_URL": f"{self._address('courier')}/mailpieces/v2",
            "KITPOST_COURIER_CLIENT_ID": "kitpost-local",
            "KITPOST_OIDC_ISSUER": self._address("sign-in"),
            "KITPOST_OIDC_CLIENT_ID": "kitpost-local",
            "KITPOST_API_KEYS": json.dumps(
                {pair: keys.get(pair, secrets.token_urlsafe(32)) for pair in self._choices.api_keys}
            ),
            "KITPOST_MLLP_PORT": str(self._ports["mllp"]),
            "KITPOST_MLLP_PEERS": json.dumps({LOOPBACK: lab} if (lab := self._choices.laboratory) else {}),
            "KITPOST_PREFECT_API_URL": f"{self._address('prefect')}/api",
            **self._warm(),
        }

    def _warm(self) -> dict[str, str]:
        """Where runs begin at once: nowhere, in a folder whose path is too long for a socket."""
        socket_path = self._state.resolve() / "warm.sock"
        fits = len(os.fsencode(socket_path)) <= embedded_postgres.LONGEST_SOCKET_PATH
        return {WARM_SOCKET: str(socket_path)} if fits else {}

    def _environment(self) -> dict[str, str]:
        prefect = {
            # Runs begin with `python`: this one's.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PREFECT_HOME": str(self._state / "prefect"),
            "PREFECT_API_URL": self.settings["KITPOST_PREFECT_API_URL"],
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": self._prefect_database,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
            "PREFECT_WORKER_QUERY_SECONDS": "0.5",
            "PREFECT_WORKER_WEBSERVER_HOST": LOOPBACK,
            "PREFECT_WORKER_WEBSERVER_PORT": str(self._ports["worker"]),
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        }
        return {**os.environ, **self.settings, **prefect}

    def _command(self, name: str) -> Sequence[str]:
        port = str(self._ports.get(name, ""))  # the listener has none
        match name:
            case "store":
                return "moto.server", "-H", LOOPBACK, "-p", port
            case "texts":
                ledger, token = str(self._state / "texts.jsonl"), self.settings["KITPOST_TWILIO_AUTH_TOKEN"]
                chance = "--seed", str(self._choices.seed), "--faults", str(self._choices.faults)
                mischief = *chance, "--hold", str(2 * PATIENCE_SECONDS)
                return "app.demo.sms_provider", "--port", port, "--ledger", ledger, "--auth-token", token, *mischief
            case "courier":
                return "app.demo.courier", "--port", port, *self._client("COURIER")
            case "sign-in":
                back = "--redirect", f"{self._address('web')}/sign-in/back"
                services = sorted({pair.partition("/")[0] for pair in self._choices.api_keys})
                return "app.demo.oidc_provider", "--port", port, *self._client("OIDC"), *back, "--services", *services
            case "web":
                return "uvicorn", "--factory", "app.web.main:app", "--host", LOOPBACK, "--port", port, "--no-access-log"
            case "prefect":
                return "prefect", "server", "start", "--host", LOOPBACK, "--port", port
            case "worker":
                return "prefect", "worker", "start", "--pool", "kitpost", "--name", "local", "--with-healthcheck"
            case "listener":
                return "app.cli", "listen"
            case "warm" | "mllp":
                return "app.cli", name
            case _:
                raise ServiceError(
                    Code.NOT_FOUND, f"There is no local service {name}; there are {', '.join(USUAL_PORTS)}."
                )

    def _client(self, provider: str) -> Sequence[str]:
        """How a stand-in is told who we are."""
        known, secret = (self.settings[f"KITPOST_{provider}_CLIENT_{what}"] for what in ("ID", "SECRET"))
        return f"--client-id={known}", f"--client-secret={secret}"  # with =: a random secret may begin with a dash

    def _spawn(self, name: str) -> None:
        self._running[name] = self._begin(name, *self._command(name))

    def _begin(self, name: str, *module: str) -> "subprocess.Popen[bytes]":
        with self._log(name).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *module],
                cwd=self._state,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone; we end the others
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - safe where no thread was started
            )

    def _wait_for(self, names: Iterable[str]) -> None:
        give_up = time.monotonic() + READY_WITHIN_SECONDS
        for name in names:
            while name in self._ports and not _is_ready(self._ports[name], HEALTH.get(name)):
                self._raise_if_one_ended()
                if time.monotonic() > give_up:
                    raise ServiceError(
                        Code.NOT_NOW,
                        f"{name} was not ready within {READY_WITHIN_SECONDS:.0f} s: {self._log(name)} says why.",
                    )
                time.sleep(LOOK_EVERY_SECONDS)

    def _raise_if_one_ended(self) -> None:
        for name, process in self._running.items():
            if process.poll() is not None:
                raise ServiceError(
                    Code.UNEXPECTED, f"{name} ended by itself ({process.returncode}): {self._log(name)} says why."
                )

    def _prepare_database(self, admin_url: str) -> None:
        owner = embedded_postgres.create_database(admin_url, "kitpost")
        if is_demo(owner) is False:
            raise ServiceError(
                Code.CONFLICT,
                f"{self._state} holds a real service's database: set KITPOST_STATE_DIR to another folder.",
            )
        migrate(owner, demo=True)

    @contextmanager
    def _deploying(self) -> Iterator[Callable[[], None]]:
        """Tells Prefect what runs when, as soon as it answers. Gives what waits for its work pool, for the worker."""
        deploy = self._begin("deploy", "app.cli", "deploy", "--wait", f"{READY_WITHIN_SECONDS:.0f}")

        def pool_is_there() -> None:
            self._wait_for(["prefect"])
            while deploy.poll() is None and not _is_ready(self._ports["prefect"], WORK_POOL):
                time.sleep(LOOK_EVERY_SECONDS)

        try:
            yield pool_is_there
        except BaseException:
            _signal_group(deploy, signal.SIGKILL)
            raise
        finally:
            done = deploy.wait()
        if done != 0:
            raise ServiceError(Code.UNEXPECTED, f"The flows could not be deployed: {self._log('deploy')} says why.")

    def _address(self, name: str) -> str:
        return f"http://{LOOPBACK}:{self._ports[name]}"

    def _log(self, name: str) -> Path:
        return self._state / "logs" / f"{name}.log"


def _prepare_store(endpoint: str) -> None:
    """The bucket, with versions, and the queue that hears of each new file in it."""
    session = boto3.Session("local", "local", region_name=REGION)  # moto wants a key and takes any
    s3, sqs = session.client("s3", endpoint_url=endpoint), session.client("sqs", endpoint_url=endpoint)
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    sqs.create_queue(QueueName=QUEUE)
    arn = f"arn:aws:sqs:{REGION}:{MOTO_ACCOUNT}:{QUEUE}"
    s3.put_bucket_notification_configuration(
        Bucket=BUCKET,
        NotificationConfiguration={"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]},
    )


def _is_ready(port: int, health: str | None) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        if health is None:
            connection.connect()
            return True
        connection.request("GET", health)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _free_ports(*, usual: bool) -> dict[str, int]:
    """A port each: the usual one, or if that is taken one that the system picks. All are held until all are known."""
    held: dict[str, socket.socket] = {}
    try:
        for name, number in USUAL_PORTS.items():
            held[name] = socket.socket()
            try:
                held[name].bind((LOOPBACK, number if usual else 0))
            except OSError:
                held[name].bind((LOOPBACK, 0))
        return {name: sock.getsockname()[1] for name, sock in held.items()}
    finally:
        for sock in held.values():
            sock.close()


def _locked_alone(path: Path) -> IO[str]:
    lock = path.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise ServiceError(
            Code.CONFLICT,
            f"The services of {path.parent} are running already: end them first, or set KITPOST_STATE_DIR.",
        ) from error
    return lock


def _write_privately(path: Path, content: str) -> None:
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
    draft.rename(path)


def _random_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def _signal_group(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _end_with_parent() -> None:
    """In a new child on Linux: be killed when the parent is gone, even by SIGKILL. Elsewhere Ctrl-C must do.

    Not SIGTERM: a worker asked politely waits minutes for a Prefect server that is gone too.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
