"""HL7 messages over MLLP, with TLS on loopback: stored before they are answered, and read like any file.

Issue's law: AA for what is durable and for nothing else; everyone who is not on the list is refused.
"""

import re
import ssl
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest
from sqlalchemy.exc import OperationalError

from app.lab_messages import MllpDesk, file_messages
from flows.ingest_results import ingest_waiting_files
from integrations.lab import hl7_words
from integrations.lab.mllp import ListenerChoices, MllpAddress, MllpListener, MllpSender
from integrations.ports import NotSent, Unsure
from models.actions.lab_message import keep_message
from models.rules.errors import Code, ServiceError
from models.rules.lab import Form
from models.tables.lab_message import WayIn
from tests.support.certificates import Authority
from tests.support.ingesting import READ_AT, ask, ingest, texts_of
from tests.support.lab_files import hl7
from tests.support.many_kits import send_kits
from tests.support.memory_store import MemoryStore
from tests.support.mllp import END, START, Line, OtherEnd, client_tls, running

LAB = "lims.northlab.example"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def northlab(authority):
    return authority.issue(LAB)


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def ready(begin, store):
    return ingest(begin, store)


def listener(ready, authority, **changes):
    ours = authority.issue("kitpost.example")
    choices = ListenerChoices(
        "127.0.0.1", 0, {LAB: "NORTHLAB"}, ours.certificate, ours.key, authority.certificate, frame_seconds=5.0
    )
    desk = MllpDesk(ready)
    return MllpListener(replace(choices, **changes), desk.take, desk.too_long)


@pytest.fixture
def line(ready, authority, northlab):
    with (
        running(listener(ready, authority)) as port,
        Line(port, client_tls(authority.certificate, northlab)) as opened,
    ):
        yield opened


@pytest.fixture
def kits(begin):
    with begin() as session:
        return send_kits(session, 3)


def messages(kits, **changes):
    """One message about each kit, each under a control id of its own."""
    rows = [row for n, kit in enumerate(kits) for row in kit.rows(message_id=f"NL{n}", **changes)]
    found = re.findall(rb"MSH.*?(?=\rMSH|\rBTS)", hl7(rows).replace(b"\r\n", b"\r").replace(b"\n", b"\r"), re.DOTALL)
    assert len(found) == len(kits)
    return [message + b"\r" for message in found]


def codes(answer):
    """MSA-1, and ERR's place and code where there is one."""
    segments = {line.split("|")[0]: line.split("|") for line in answer.split("\r") if line}
    error = segments.get("ERR")
    return (segments["MSA"][1], *(error[2:4] if error else ()))


def outcomes_of(begin, kit):
    return ask(begin, "SELECT outcome FROM result_series WHERE kit_id = :id", id=kit.id)


def stored(begin):
    return ask(begin, "SELECT count(*) FROM lab_message_in")[0][0]


# ── Taken ────────────────────────────────────────────────────────────────────────────────────


def test_messages_over_tls_are_answered_with_aa_and_end_in_texts(begin, store, ready, line, kits):
    sent = messages(kits)
    answers = [line.send(message) for message in sent]

    assert [codes(answer) for answer in answers] == [("AA",)] * 3
    assert [re.search(r"MSA\|AA\|(\w+)", answer)[1] for answer in answers] == ["NL0", "NL1", "NL2"]
    assert stored(begin) == 3

    ingest_waiting_files(ready, limit=10)

    assert [texts_of(begin, kit.id) for kit in kits] == [[("all_clear", "owed")]] * 3
    assert ask(begin, "SELECT state, complete, messages_read FROM lab_file") == [("done", True, 3)]
    assert ask(begin, "SELECT state, body FROM lab_message_in") == [("filed", b"")] * 3
    assert [key for key in store.objects if "/incoming/" in key] == []


def test_the_answer_goes_back_to_the_sender_in_its_own_version(line, kits):
    [answer] = [line.send(message) for message in messages(kits[:1])]
    header = answer.split("\r")[0].split("|")

    assert header[2:6] == ["STIPIPE", "ANYSVC", "WINLIMS", "NORTHLAB"]
    assert header[8].startswith("ACK^R01")
    assert header[10:12] == ["P", messages(kits[:1])[0].decode().split("\r")[0].split("|")[11]]


def test_frames_that_come_in_pieces_or_together_are_each_answered(begin, line, kits):
    one, two, three = (START + message + END for message in messages(kits))
    for piece in (one[:7], one[7:300], one[300:] + two + three[:-1]):
        line.socket.sendall(piece)
    first = [line.socket.recv(65536)]
    while sum(each.count(END) for each in first) < 2:
        first.append(line.socket.recv(65536))
    assert b"".join(first).count(b"MSA|AA|") == 2
    assert stored(begin) == 2

    line.socket.sendall(three[-1:])
    assert codes(line.answer()) == ("AA",)
    assert stored(begin) == 3


@pytest.mark.parametrize("half", [200, -1], ids=["cut anywhere", "cut at its end"])
def test_a_message_that_broke_off_does_not_spoil_the_one_that_follows_it(begin, store, ready, line, kits, caplog, half):
    first, second, _ = messages(kits)
    line.socket.sendall(START + first[:half])
    answer = line.send(second)

    assert codes(answer) == ("AA",)
    assert "MSA|AA|NL1" in answer
    assert "NORTHLAB broke off 1 messages" in caplog.text
    file_messages(ready)
    assert [store.read(key) for key in store.objects] == [second]


def test_a_frame_that_begins_twice_is_one_message(begin, line, kits):
    assert codes(line.send(START + messages(kits[:1])[0])) == ("AA",)
    assert stored(begin) == 1


def test_the_same_message_again_gets_aa_and_is_stored_once(begin, line, kits):
    [message] = messages(kits[:1])

    assert [codes(line.send(message)) for _ in range(3)] == [("AA",)] * 3
    assert stored(begin) == 1


def test_a_counter_that_begins_again_loses_no_result_and_the_lab_desk_is_told(begin, ready, line, kits):
    [negative] = messages(kits[:1])
    [positive] = messages(kits[1:2], value="Detected")
    line.send(negative)
    ingest_waiting_files(ready, limit=10)

    assert [codes(line.send(positive)) for _ in range(2)] == [("AA",)] * 2
    ingest_waiting_files(ready, limit=10)

    assert stored(begin) == 2
    assert {outcome for (outcome,) in outcomes_of(begin, kits[1])} >= {"positive"}
    assert ask(begin, "SELECT lab, reason, refused, times FROM lab_notice") == [
        ("NORTHLAB", "control_id_reuse", False, 1)
    ]
    assert ask(begin, "SELECT owner_role, detail->>'quarantine' FROM clinic_case WHERE lab = 'NORTHLAB'") == [
        ("lab_liaison", "control_id_reuse")
    ]


def test_a_message_sent_again_with_a_new_time_is_taken_and_changes_nothing(begin, ready, line, kits):
    [message] = messages(kits[:1])
    again = message.replace(b"20261103061500+0000", b"20261103061600+0000")
    assert again != message

    assert [codes(line.send(each)) for each in (message, again, message, again)] == [("AA",)] * 4
    ingest_waiting_files(ready, limit=10)

    assert stored(begin) == 2
    assert texts_of(begin, kits[0].id) == [("all_clear", "owed")]


def test_a_message_that_will_be_quarantined_is_stored_and_gets_aa(begin, ready, line, kits):
    [message] = messages(kits[:1], value="Perhaps")

    assert codes(line.send(message)) == ("AA",)
    ingest_waiting_files(ready, limit=10)
    assert ask(begin, "SELECT DISTINCT reason, message_id FROM quarantined_row") == [("unknown_token", "NL0")]


def test_bytes_of_any_encoding_reach_the_store_unchanged(begin, store, ready, line, kits):
    [message] = messages(kits[:1])
    odd = message.replace(b"\rOBR", b"\rNTE|1||caf\xe9 \x96 \xff\rOBR", 1)

    assert codes(line.send(odd)) == ("AA",)
    file_messages(ready)
    assert [store.read(key) for key in store.objects] == [odd]


# ── Refused ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"ORU^R01", b"ADT^A01", ("AR", "MSH^1^9", "200^Unsupported message type^HL70357")),
        (b"|NL0|P|", b"|NL0|T|", ("AR", "MSH^1^11", "202^Unsupported processing id^HL70357")),
        (b"|NL0|P|", b"||P|", ("AR", "MSH^1^10", "101^Required field missing^HL70357")),
        (b"|NL0|P|", b"|NL\x000|P|", ("AR", "MSH^1^10", "102^Data type error^HL70357")),
        (b"|NL0|P|", b"|NL\x7f0|P|", ("AR", "MSH^1^10", "102^Data type error^HL70357")),
        (b"WINLIMS", b"OTHERLIMS", ("AR", "MSH^1^3", "103^Table value not found^HL70357")),
        (b"\rPID", b"\rMSH|^~\\&|x\rPID", ("AR", "MSH^2", "100^Segment sequence error^HL70357")),
        (b"\rPID", b"\rBTS|7\rPID", ("AR", "MSH^2", "100^Segment sequence error^HL70357")),
    ],
)
def test_what_can_not_be_a_report_gets_ar_with_place_and_reason(begin, line, kits, old, new, expected):
    [message] = messages(kits[:1])
    message = re.sub(rb"(\|P\|)2\.\d(\.\d)?", rb"\g<1>2.5.1", message)
    assert old in message

    answer = line.send(message.replace(old, new, 1))

    assert codes(answer) == expected
    assert re.search(r"ERR\|\|[^|]+\|[^|]+\|E\|\|\|\|\w[^|]+\r", answer)
    assert stored(begin) == 0


def test_an_answer_that_names_no_id_at_all_gets_ar_and_is_not_asked_for_again(line):
    answer = line.send(b"MSH|^~\\&|WINLIMS|NORTHLAB|||||ACK|L1|P|2.5.1\rMSA|AA|ab\x00cd\r")

    assert codes(answer) == ("AR", "MSA^1^2", "102^Data type error^HL70357")


def test_before_version_2_5_the_reason_stands_where_that_version_has_it(line, kits):
    [message] = messages(kits[:1])
    old = re.sub(rb"(\|P\|)2\.\d(\.\d)?", rb"\g<1>2.3", message).replace(b"ORU^R01", b"ADT^A01", 1)
    msa, err = line.send(old).rstrip("\r").split("\r")[1:]

    assert msa == "MSA|AR|NL0|Only results (ORU\\S\\R01) and answers to our requests are taken here."
    assert err == "ERR|MSH^1^9^200&Unsupported message type&HL70357"


def test_what_is_no_hl7_gets_ar(begin, line):
    assert codes(line.send(b"hello")) == ("AR", "MSH^1", "100^Segment sequence error^HL70357")
    assert stored(begin) == 0


def notices(begin):
    return ask(begin, "SELECT lab, way, reason, refused, count(*), sum(times) FROM lab_notice GROUP BY 1, 2, 3, 4")


def test_messages_that_are_refused_leave_a_trace_and_one_case_and_a_retry_is_counted(begin, line, kits, caplog):
    for message in [*messages(kits, application="WINLIMS2")] * 2:
        assert codes(line.send(message))[0] == "AR"

    assert notices(begin) == [("NORTHLAB", "mllp", "unknown_sender", True, 3, 6)]
    assert ask(begin, "SELECT kind, owner_role, detail->>'quarantine' FROM clinic_case") == [
        ("lab_row", "lab_liaison", "unknown_sender")
    ]
    assert "mllp: a message of NORTHLAB was refused: unknown_sender" in caplog.text
    assert kits[0].family not in caplog.text


@pytest.mark.parametrize("which", ["the same", "another"])
def test_what_is_refused_after_its_case_was_ended_opens_it_again(begin, db, line, kits, which):
    first, second, _ = messages(kits, application="WINLIMS2")
    line.send(first)
    with db.owner_engine.begin() as owner:
        owner.exec_driver_sql(
            "UPDATE clinic_case SET closed_at = opened_at, closed_by = 'x', outcome = 'resolved_with_lab'"
        )

    line.send(first if which == "the same" else second)

    assert ask(begin, "SELECT closed_at IS NULL FROM clinic_case") == [(True,)]


def test_a_refusal_that_could_not_be_noted_is_asked_for_again(ready, kits):
    def down():
        raise OperationalError("INSERT", {}, Exception("gone"))

    [message] = messages(kits[:1], application="WINLIMS2")
    assert b"MSA|AE|NL0" in MllpDesk(replace(ready, begin=down)).take("NORTHLAB", message)


def test_nothing_gets_aa_that_the_database_did_not_take(ready, authority, northlab, kits, begin):
    def down():
        raise OperationalError("INSERT", {}, Exception("gone"))

    with (
        running(listener(replace(ready, begin=down), authority)) as port,
        Line(port, client_tls(authority.certificate, northlab)) as line,
    ):
        assert codes(line.send(messages(kits[:1])[0]))[0] == "AE"
    assert stored(begin) == 0


def test_a_message_longer_than_allowed_gets_ar_and_the_line_is_cut(begin, ready, authority, northlab, kits):
    [message] = messages(kits[:1])
    with (
        running(listener(ready, authority, longest_frame_bytes=4096)) as port,
        Line(port, client_tls(authority.certificate, northlab)) as line,
    ):
        answer = line.send(message + b"NTE|1||" + b"x" * 9000 + b"\r")
        assert codes(answer)[0] == "AR"
        assert "|NL0|" in answer or "NL0" in answer
        assert line.socket.recv(10) == b""
    assert stored(begin) == 0
    assert notices(begin) == [("NORTHLAB", "mllp", "too_many_quarantined", True, 1, 1)]


def test_what_is_no_frame_cuts_the_line_without_an_answer(begin, line):
    line.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")

    assert line.answer() == ""
    assert stored(begin) == 0


def test_half_a_frame_is_neither_stored_nor_answered(begin, ready, authority, northlab, kits):
    with (
        running(listener(ready, authority, frame_seconds=0.3)) as port,
        Line(port, client_tls(authority.certificate, northlab)) as line,
    ):
        line.socket.sendall(START + messages(kits[:1])[0][:200])
        assert line.answer() == ""
    assert stored(begin) == 0


# ── Strangers ────────────────────────────────────────────────────────────────────────────────


def refused(port, tls):
    """Whether a peer with this TLS gets no answer at all."""
    try:
        with ExitStack() as stack:
            line = stack.enter_context(Line(port, tls))
            return line.send(b"MSH|^~\\&|WINLIMS|NORTHLAB|||||ORU^R01|1|P|2.5\r") == ""
    except (ssl.SSLError, ConnectionError):
        return True


def test_only_a_certificate_on_the_list_may_speak(begin, ready, authority, tmp_path):
    other = Authority(tmp_path, "another authority")
    with running(listener(ready, authority)) as port:
        assert refused(port, client_tls(authority.certificate, authority.issue("lims.elsewhere.example")))
        assert refused(port, client_tls(authority.certificate, other.issue(LAB)))
        assert refused(port, client_tls(authority.certificate))
        assert refused(port, None)
    assert stored(begin) == 0


def test_without_client_certificates_only_an_address_on_the_list_may_speak(begin, ready, authority, kits):
    [message] = messages(kits[:1])
    for peers, answered in (({"127.0.0.0/8": "NORTHLAB"}, True), ({"192.0.2.0/24": "NORTHLAB"}, False)):
        with (
            running(listener(ready, authority, clients_ca=None, peers=peers)) as port,
        ):
            if answered:
                with Line(port, client_tls(authority.certificate)) as line:
                    assert codes(line.send(message)) == ("AA",)
            else:
                assert refused(port, client_tls(authority.certificate))
    assert stored(begin) == 1


def test_one_laboratory_can_not_take_another_ones_connections(ready, authority, northlab, kits):
    southvale = authority.issue("lims.southvale.example")
    peers = {LAB: "NORTHLAB", "lims.southvale.example": "SOUTHVALE"}
    with (
        running(listener(ready, authority, peers=peers, most_connections=4)) as port,
        ExitStack() as stack,
    ):
        tls = client_tls(authority.certificate, northlab)
        first, second, third = (stack.enter_context(Line(port, tls)) for _ in range(3))
        assert third.answer() == ""  # beyond its share

        other = stack.enter_context(Line(port, client_tls(authority.certificate, southvale)))
        assert codes(other.send(messages(kits[:1])[0]))[0] == "AR"  # it is spoken to: only the message is not its own
        assert [codes(each.send(messages(kits[:1])[0])) for each in (first, second)] == [("AA",)] * 2


def test_a_peer_that_reads_no_answer_does_not_keep_its_connection():
    choices = ListenerChoices("127.0.0.1", 0, {"127.0.0.1": "NORTHLAB"}, frame_seconds=0.2, most_connections=1)
    with (
        running(MllpListener(choices, lambda *_: b"MSH|" + b"a" * 1_000_000, lambda _: b"")) as port,
        Line(port) as deaf,
    ):
        deaf.socket.sendall((START + b"MSH|" + END) * 50)
        ends = time.monotonic() + 10
        while refused(port, None) and time.monotonic() < ends:
            time.sleep(0.1)
        assert not refused(port, None)


def test_plain_mllp_is_for_loopback_only(ready, authority):
    with pytest.raises(ServiceError, match="loopback only"):
        listener(ready, authority, host="0.0.0.0", certificate=None, key=None, clients_ca=None, peers={})


# ── Filing ───────────────────────────────────────────────────────────────────────────────────


class DeadlyStore(MemoryStore):
    """A store whose caller dies before its first put, or right after it."""

    def __init__(self, *, after):
        super().__init__()
        self.after, self.dead = after, False

    def put(self, key, body, content_type=""):
        if not self.dead and not self.after:
            self.dead = True
            raise KeyboardInterrupt
        version = super().put(key, body, content_type)
        if not self.dead:
            self.dead = True
            raise KeyboardInterrupt
        return version


class RefusingStore(MemoryStore):
    """Takes nothing for one laboratory."""

    def put(self, key, body, content_type=""):
        if key.startswith("NORTHLAB/"):
            raise ServiceError(Code.STORE_DOWN, "The store refused.")
        return super().put(key, body, content_type)


def test_one_labs_messages_that_can_not_be_filed_strand_no_other_labs(begin, kits):
    store = RefusingStore()
    ready = ingest(begin, store)
    with begin() as session:
        for lab, key in (("NORTHLAB", "1"), ("SOUTHVALE", "2")):
            keep_message(
                session, b"MSH|x", way=WayIn.MLLP, lab=lab, service_id="", key=key, form=Form.HL7, now=READ_AT,
                cipher=ready.cipher, indexes=ready.indexes,
            )  # fmt: skip

    with pytest.raises(ServiceError, match="refused"):
        file_messages(ready)

    assert [key.partition("/")[0] for key in store.objects] == ["SOUTHVALE"]


@pytest.mark.parametrize("after", [False, True])
def test_a_filing_that_was_cut_short_makes_the_same_file_again(begin, db, kits, after):
    store = DeadlyStore(after=after)
    ready = ingest(begin, store)
    desk = MllpDesk(ready)
    for message in messages(kits):
        desk.take("NORTHLAB", message)
    with pytest.raises(KeyboardInterrupt):
        file_messages(ready)
    assert file_messages(ready) == 0  # not before the first filing's time is over

    with db.owner_engine.begin() as owner:
        owner.exec_driver_sql("UPDATE lab_message_in SET claimed_until = clock_timestamp() - interval '1 second'")
    assert file_messages(ready) == 1

    [versions] = store.objects.values()
    assert len(set(versions.values())) == 1
    ingest_waiting_files(ready, limit=10)
    assert [texts_of(begin, kit.id) for kit in kits] == [[("all_clear", "owed")]] * 3


# ── Sending ──────────────────────────────────────────────────────────────────────────────────


def test_a_sender_is_unsure_where_the_line_breaks_after_the_message_left(ready, authority, northlab):
    sent = []

    class Silent(MllpDesk):
        def take(self, lab, message):  # noqa: ARG002
            sent.append(message)
            raise RuntimeError("the laboratory's system falls over")

    with running(
        MllpListener(
            replace(listener(ready, authority)._choices, clients_ca=authority.certificate),
            Silent(ready).take,
            Silent(ready).too_long,
        )
    ) as port:
        address = MllpAddress("127.0.0.1", port, authority.certificate, northlab.certificate, northlab.key)
        sender = MllpSender(address, timeout_seconds=5)
        with pytest.raises(Unsure):
            sender.send(b"MSH|...")
        sender.close()
    assert sent == [b"MSH|..."]


def test_a_sender_that_can_not_connect_has_sent_nothing(authority, northlab):
    address = MllpAddress("127.0.0.1", 1, authority.certificate, northlab.certificate, northlab.key)
    with pytest.raises(NotSent):
        MllpSender(address, timeout_seconds=5).send(b"MSH|...")


def test_a_sender_calls_a_laboratory_anew_that_has_hung_up_before_anything_is_sent():
    laboratory = OtherEnd(lambda _, messages: [acknowledged(messages[-1])], hangs_up=True)
    with laboratory.listening() as port:
        sender = MllpSender(MllpAddress("127.0.0.1", port), timeout_seconds=5)
        for number in range(2):
            assert sender.send(a_request(number)) == acknowledged(a_request(number))
            assert laboratory.hung_up.wait(5)
            laboratory.hung_up.clear()
        sender.close()
    assert laboratory.connections == 2


def a_request(number):
    return f"MSH|^~\\&|KITPOST|larkfield||LAB|20261124||OML^O21|R{number}|P|2.5.1\r".encode()


def acknowledged(message):
    return hl7_words.answer(hl7_words.header_of(message), "AA", now=READ_AT, control_id="x", complaint=None)


def test_a_sender_with_a_certificate_that_can_not_be_read_says_so_before_anything_is_to_be_sent(tmp_path):
    for address in (MllpAddress("lab.example", 1), MllpAddress("lab.example", 1, tmp_path / "none.pem")):
        with pytest.raises(ServiceError) as refused:
            MllpSender(address)
        assert refused.value.code is Code.SETTINGS
