"""The laboratories' ways in as commands: `kitpost mllp` over TLS, killed and stopped; `kitpost collect` over SSH."""

import base64
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import asyncssh
import pytest

from flows.ingest_results import ingest_waiting_files
from integrations.store import S3FileStore
from tests.support import aws
from tests.support.certificates import Authority
from tests.support.ingesting import ask, ingest, texts_of
from tests.support.lab_files import hl7, lone_hl7
from tests.support.many_kits import send_kits
from tests.support.mllp import Line, client_tls
from tests.support.sftp import refuse, sftp_server

pytestmark = [pytest.mark.proof, pytest.mark.timeout(180)]

LAB = "lims.northlab.example"
ROOT = Path(__file__).parents[2]


class Installation:
    """Settings for commands on this test's database and store."""

    def __init__(self, db, begin, endpoint, folder):
        self.begin, self.folder = begin, folder
        client = aws.client("s3", endpoint)
        bucket = f"kitpost-{secrets.token_hex(4)}"
        client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": aws.REGION})
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        self.store = S3FileStore(client, bucket)
        self.ready = ingest(begin, self.store)

        def key(raw):
            return base64.b64encode(raw).decode()

        self.environment = {
            **os.environ,
            "KITPOST_ENVIRONMENT": "demo",
            "KITPOST_STATE_DIR": str(folder),
            "KITPOST_PUBLIC_BASE_URL": "http://127.0.0.1:1",
            "KITPOST_DATABASE_URL": db.url.replace("+psycopg", "", 1),
            "KITPOST_DATA_KEYS": json.dumps({"test": key(bytes(range(32)))}),
            "KITPOST_DATA_KEY_CURRENT": "test",
            "KITPOST_INDEX_KEYS": json.dumps({"1": key(bytes(reversed(range(32))))}),
            "KITPOST_SESSION_SECRET": "the-session-secret-of-the-tests-is-long",
            "KITPOST_S3_BUCKET": bucket,
            "KITPOST_S3_ENDPOINT": endpoint,
            "KITPOST_S3_ACCESS_KEY": "test",
            "KITPOST_S3_SECRET_KEY": "test",
            "KITPOST_SQS_QUEUE_URL": "http://127.0.0.1:1/queue",
            "KITPOST_TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
            "KITPOST_TWILIO_AUTH_TOKEN": "none",
            "KITPOST_TWILIO_MESSAGING_SERVICE_SID": "MG" + "0" * 32,
            "KITPOST_COURIER_CLIENT_ID": "none",
            "KITPOST_COURIER_CLIENT_SECRET": "none",
            "KITPOST_OIDC_ISSUER": "http://127.0.0.1:1",
            "KITPOST_OIDC_CLIENT_ID": "none",
            "KITPOST_OIDC_CLIENT_SECRET": "none",
        }

    def start(self, *words, **settings):
        environment = {**self.environment, **{f"KITPOST_{name}": str(value) for name, value in settings.items()}}
        return subprocess.Popen(
            [sys.executable, "-m", "app.cli", *words],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture
def here(db, begin, tmp_path):
    with aws.moto() as endpoint:
        yield Installation(db, begin, endpoint, tmp_path)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def listen(here, authority):
    """Starts `kitpost mllp` and returns it with its port and the TLS that a laboratory speaks."""
    ours, theirs = authority.issue("kitpost.example"), authority.issue(LAB)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started = []

    def once():
        process = here.start(
            "mllp",
            MLLP_PORT=port,
            MLLP_CERTIFICATE=ours.certificate,
            MLLP_KEY=ours.key,
            MLLP_CLIENTS_CA=authority.certificate,
            MLLP_PEERS=json.dumps({LAB: "NORTHLAB"}),
        )
        started.append(process)
        said = process.stdout.readline()
        assert f"port {port}" in said, said + process.stdout.read()
        return process, port, client_tls(authority.certificate, theirs)

    yield once
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def messages(begin, count):
    """The kits, and one message about each under a control id of its own."""
    with begin() as session:
        kits = send_kits(session, count)
    content = hl7([row for n, kit in enumerate(kits) for row in kit.rows(message_id=f"NL{n}")])
    found = re.findall(rb"MSH.*?(?=\rMSH|\rBTS)", content.replace(b"\r\n", b"\r").replace(b"\n", b"\r"), re.DOTALL)
    return kits, [message + b"\r" for message in found]


def test_a_listener_that_is_killed_has_stored_every_message_it_said_aa_to_and_another_takes_the_rest(
    here, begin, listen
):
    kits, sent = messages(begin, 60)
    waiting, taken = list(enumerate(sent)), set()
    for kills_at in (25, None):
        process, port, tls = listen()
        with Line(port, tls) as line:
            while waiting:
                number, message = waiting[0]
                if len(taken) == kills_at:
                    line.socket.sendall(b"\x0b" + message + b"\x1c\r")
                    process.send_signal(signal.SIGKILL)
                    break
                assert "MSA|AA|" in line.send(message)
                taken.add(f"NL{number}")
                waiting.pop(0)
        stored = {key for (key,) in ask(begin, "SELECT key FROM lab_message_in")}
        assert taken <= stored
        if kills_at:
            process.wait(20)

    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    ingest_waiting_files(here.ready, limit=50)
    assert {tuple(texts_of(begin, kit.id)) for kit in kits} == {(("all_clear", "owed"),)}
    assert len(stored) == len(sent)


def test_tens_of_messages_a_second_are_stored_and_gathered_into_few_files(here, begin, listen):
    _, sent = messages(begin, 200)
    process, port, tls = listen()
    with Line(port, tls) as line:
        line.send(sent[0])
        began = time.perf_counter()
        assert all("MSA|AA|" in line.send(message) for message in sent[1:])
        took = time.perf_counter() - began

    assert len(sent) / took > 20, took
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    ingest_waiting_files(here.ready, limit=50)
    [(files, read)] = ask(begin, "SELECT count(*), sum(messages_read) FROM lab_file")
    assert read == len(sent)
    assert files < len(sent) / 5
    print(f"{len(sent) / took:.0f} messages a second, {files} files")


def test_kitpost_collect_fetches_once_and_says_what_it_did(here, begin, tmp_path, monkeypatch):
    key = asyncssh.generate_private_key("ssh-ed25519")
    (tmp_path / "id").write_bytes(key.export_private_key())
    (tmp_path / "id").chmod(0o600)
    with begin() as session:
        [kit] = send_kits(session, 1)
    with sftp_server(tmp_path / "lab", key) as server:
        (server.folder / "a.hl7").write_bytes(lone_hl7(kit.rows()))
        known = {"host": "127.0.0.1", "port": server.port, "user": "kitpost", "key": str(tmp_path / "id"),
                 "host_key": server.host_key, "folder": "results", "renames": True}  # fmt: skip
        done = here.start("collect", "--once", SFTP_LABS=json.dumps({"NORTHLAB": known}))
        assert done.communicate(timeout=60)[0] == "NORTHLAB: 1 files fetched, 0 receipts left.\n"
        assert done.returncode == 0

        (server.folder / "SMITH.hl7").touch()
        (server.folder / "old").mkdir()
        refuse(monkeypatch, "open", b"SMITH.hl7")
        failed = here.start("collect", "--once", SFTP_LABS=json.dumps({"NORTHLAB": known}))
        told = failed.communicate(timeout=60)[0]
        assert "NORTHLAB: 1 links or folders passed over.\n" in told
        assert "The laboratory's server refused 1 files." in told
        assert "SMITH" not in told
        assert failed.returncode == 1

        ingest_waiting_files(here.ready, limit=5)
        assert texts_of(begin, kit.id) == [("all_clear", "owed")]
