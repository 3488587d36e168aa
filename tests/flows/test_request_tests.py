"""A dispatched kit is told to its laboratory once, in the form and the way of its contract, and by no name."""

import csv
import io
import json
from dataclasses import replace
from uuid import uuid4

import hl7
import pytest
from sqlmodel import select

from app.lab_messages import MllpDesk
from app.lab_reading import read_rows_again
from app.service import SHIPPED, load_services
from flows.ingest_results import ingest_waiting_files
from flows.reconcile import strike
from flows.request_tests import MOST_IN_DOUBT, Desk, Tally, check_all_were_told, send_requests
from integrations.lab.hl7_words import answer, header_of
from integrations.lab.mllp import ListenerChoices, MllpAddress, MllpListener, MllpSender
from integrations.ports import NotSent, Unsure
from models.actions.lab_desk import late_kits
from models.actions.lab_request import ask_again, claim_sending, take_answer
from models.actions.parcel import pair_and_dispatch
from models.rules.errors import Code, ServiceError
from models.rules.kit import NO_SAMPLE_EXPECTED
from models.rules.lab import Answer
from models.rules.lab_request import RequestForm, RequestWay
from models.tables.audit import Audit
from tests.support import build, s10
from tests.support.certificates import Authority
from tests.support.ingesting import ask, ingest, lab_maps
from tests.support.memory_store import MemoryStore
from tests.support.mllp import OtherEnd, running

LAB = "northlab"


@pytest.fixture
def store():
    return MemoryStore()


def council(**contract):
    return replace(build.service(), labs=(replace(build.NORTHLAB, **contract),))


@pytest.fixture
def dispatch(begin):
    """Dispatches a kit under a contract, as the packing bench does; its row."""
    numbers = s10.numbers()

    def one(service):
        with begin() as session:
            kit = build.printed_kit(session)
            pair_and_dispatch(
                session, kit, return_number=next(numbers), service=service, now=build.NOW, actor="t",
                cipher=build.cipher(),
            )  # fmt: skip
            return kit

    return one


class NoLine:
    """A line that nobody may use."""

    def send(self, _):
        raise AssertionError("nothing goes over this line")

    def late(self, _=0.0):
        return []

    def close(self):
        pass


def desk(begin, store, service, line=NoLine):
    with begin() as session:
        force = build.in_force(session, service)
    return Desk(begin, store, lambda _: line(), {"larkfield": force}, build.cipher(), lambda: build.NOW)


def states(begin):
    return ask(begin, "SELECT state, error_code FROM lab_request ORDER BY id")


def sent(store):
    """The one file that was put out."""
    [key] = store.objects
    assert key.startswith(f"{LAB}/outgoing/larkfield-")
    return store.read(key)


# ── Owed ─────────────────────────────────────────────────────────────────────────────────────


def test_a_request_is_owed_by_the_very_transaction_that_dispatches(begin, dispatch):
    kit = dispatch(council(requests=RequestForm.HL7, answers_requests=True))

    assert ask(begin, "SELECT kit_id, lab, state, wants_answer FROM lab_request") == [(kit.id, LAB, "owed", True)]


def test_a_lab_that_wants_none_is_owed_none(begin, dispatch):
    dispatch(council())

    assert states(begin) == []


def test_only_hl7_can_go_by_mllp(tmp_path):
    content = (
        (SHIPPED / "larkfield.toml").read_text().replace('requests = "hl7"', 'requests = "csv"\nrequests_by = "mllp"')
    )
    (tmp_path / "larkfield.toml").write_text(content)

    with pytest.raises(ServiceError, match=r"labs\.NORTHLAB\.requests must be hl7 where requests go by mllp"):
        load_services(tmp_path)


# ── As files ─────────────────────────────────────────────────────────────────────────────────


def test_hl7_requests_name_every_tube_and_test_and_no_person(begin, store, dispatch):
    service = council(requests=RequestForm.HL7)
    kit = dispatch(service)
    assert send_requests(desk(begin, store, service), limit=10).sent == 1

    content = sent(store)
    read = hl7.parse(content.decode())
    assert str(read.segment("MSH")[9]) == "OML^O21^OML_O21"
    assert str(read.segment("PID")[3]) == f"{kit.code}^^^KITPOST^KIT"
    asked = {(str(obr[2]).split("^")[0], str(obr[4]).split("^")[0]) for obr in read.segments("OBR")}
    assert asked == set(ask(begin, "SELECT tube_code, test FROM kit_test"))
    assert [str(spm[4]).split("^")[0] for spm in read.segments("SPM")] != []
    assert states(begin) == [("sent", "")]
    assert b"Testina" not in content
    assert str(read.segment("PID")[5]) == "^^^^^^U"


def test_several_hl7_requests_are_one_batch_with_its_counts(begin, store, dispatch):
    service = council(requests=RequestForm.HL7)
    [dispatch(service) for _ in range(3)]
    send_requests(desk(begin, store, service), limit=10)

    lines = sent(store).decode().split("\r")
    assert lines[-3:] == ["BTS|3", "FTS|1", ""]
    ids = [line.split("|")[9] for line in lines if line.startswith("MSH")]
    assert len(set(ids)) == 3
    assert all(len(each) == 20 for each in ids)


def test_fhir_requests_refer_to_their_tube_and_kit(begin, store, dispatch):
    service = council(requests=RequestForm.FHIR)
    kit = dispatch(service)
    send_requests(desk(begin, store, service), limit=10)

    bundle = json.loads(sent(store))
    by_url = {each["fullUrl"]: each["resource"] for each in bundle["entry"]}
    requests = [each for each in by_url.values() if each["resourceType"] == "ServiceRequest"]
    asked = {
        (by_url[each["specimen"][0]["reference"]]["identifier"][0]["value"], each["code"]["coding"][0]["code"])
        for each in requests
    }
    assert asked == set(ask(begin, "SELECT tube_code, test FROM kit_test"))
    assert {by_url[each["subject"]["reference"]]["identifier"][0]["value"] for each in requests} == {kit.code}
    assert "name" not in json.dumps(bundle)


def test_a_table_of_requests_has_a_line_for_each_test_of_a_tube(begin, store, dispatch):
    service = council(requests=RequestForm.CSV)
    kit = dispatch(service)
    send_requests(desk(begin, store, service), limit=10)

    rows = list(csv.DictReader(io.StringIO(sent(store).decode())))
    assert {(row["tube"], row["test"]) for row in rows} == set(ask(begin, "SELECT tube_code, test FROM kit_test"))
    assert {row["kit"] for row in rows} == {kit.code}


def test_nothing_is_sent_twice(begin, store, dispatch):
    service = council(requests=RequestForm.CSV)
    dispatch(service)
    tallies = [send_requests(desk(begin, store, service), limit=10).sent for _ in range(3)]

    assert tallies == [1, 0, 0]
    assert [len(versions) for versions in store.objects.values()] == [1]


class DeadlyStore(MemoryStore):
    """A store whose caller dies before its first put, or right after it."""

    def __init__(self, *, after):
        super().__init__()
        self.after, self.dead = after, False

    def put(self, key, body, content_type=""):
        alive, self.dead = not self.dead, True
        if alive and not self.after:
            raise KeyboardInterrupt
        version = super().put(key, body, content_type)
        if alive:
            raise KeyboardInterrupt
        return version


@pytest.mark.parametrize("after", [False, True])
def test_a_file_that_was_cut_short_is_made_again_with_the_same_bytes_under_the_same_name(begin, db, dispatch, after):
    service = council(requests=RequestForm.HL7)
    dispatch(service)
    store = DeadlyStore(after=after)
    with pytest.raises(KeyboardInterrupt):
        send_requests(desk(begin, store, service), limit=10)
    dispatch(service)  # comes later and must not slip into that file
    lease_runs_out(db)

    send_requests(desk(begin, store, service), limit=10)

    assert len(store.objects) == 2
    assert all(len(set(versions.values())) == 1 for versions in store.objects.values())
    assert states(begin) == [("sent", ""), ("sent", "")]


@pytest.fixture
def cut_short(begin, db, dispatch):
    """A file of two requests that was written by a run that was killed before it could say so; its store, its kits."""
    service = council(requests=RequestForm.CSV)
    kits = [dispatch(service) for _ in range(2)]
    store = DeadlyStore(after=True)
    with pytest.raises(KeyboardInterrupt):
        send_requests(desk(begin, store, service), limit=10)
    lease_runs_out(db)
    return service, store, kits


def test_a_file_made_again_holds_what_was_claimed_for_it_whatever_was_answered_meanwhile(begin, db, cut_short):
    service, store, (_, cancelled) = cut_short
    [(first,)] = ask(begin, "SELECT left(ref, 20) FROM lab_request ORDER BY id LIMIT 1")
    with begin() as session:
        assert take_answer(session, Answer("AA", first), lab=LAB, now=build.NOW)
    cancel(db, cancelled)

    send_requests(desk(begin, store, service), limit=10)

    [versions] = store.objects.values()
    assert (len(versions), len(set(versions.values()))) == (2, 1)
    assert states(begin) == [("acknowledged", ""), ("sent", "")]


def test_a_request_is_not_asked_for_again_while_a_file_that_holds_it_may_be_made_again(begin, cut_short):
    service, store, (refused, _) = cut_short
    [(first,)] = ask(begin, "SELECT left(ref, 20) FROM lab_request ORDER BY id LIMIT 1")
    with begin() as session:
        take_answer(session, Answer("AR", first), lab=LAB, now=build.NOW)

    def again():
        with begin() as session:
            ask_again(session, refused.code, services=["larkfield"], because="mended", now=build.NOW, actor="cli:lab")

    with pytest.raises(ServiceError) as not_yet:
        again()
    assert not_yet.value.code is Code.NOT_NOW
    send_requests(desk(begin, store, service), limit=10)
    again()
    assert [state for state, _ in states(begin)] == ["owed", "sent"]


@pytest.mark.parametrize(
    "way", [{"requests": RequestForm.CSV}, {"requests": RequestForm.HL7, "requests_by": RequestWay.MLLP}]
)
def test_of_a_kit_that_was_cancelled_before_its_request_left_no_laboratory_is_told(begin, db, store, dispatch, way):
    service = council(**way)
    cancel(db, dispatch(service))

    tallies = [send_requests(desk(begin, store, service), limit=10) for _ in range(2)]

    assert states(begin) == [("not_needed", "")]
    assert [(tally.not_needed, tally.sent) for tally in tallies] == [(1, 0), (0, 0)]
    assert store.objects == {}
    assert found(begin) == set()


def test_a_kit_that_is_cancelled_while_a_run_goes_on_is_not_claimed(begin, db, dispatch):
    service = council(requests=RequestForm.CSV)
    cancel(db, dispatch(service))

    with begin() as session:
        assert claim_sending(
            session, service_id="larkfield", lab=LAB, size=5, again=True, cipher=build.cipher()
        ) is None  # fmt: skip


def cancel(db, kit):
    with db.owner_engine.begin() as owner:
        owner.exec_driver_sql(
            "UPDATE kit SET state = 'cancelled', closed_reason = 'asked', closed_at = dispatched_at WHERE id = %s",
            (kit.id,),
        )


def lease_runs_out(db):
    with db.owner_engine.begin() as owner:
        owner.exec_driver_sql("UPDATE lab_request SET claimed_until = clock_timestamp() - interval '1 second'")


# ── As messages ──────────────────────────────────────────────────────────────────────────────


def said(code, message):
    """A lab's answer to one message."""
    return answer(header_of(message), code, now=build.NOW, control_id="x", complaint=None)


class Laboratory:
    """A lab's listener, as its side of the line: answers as it is told."""

    def __init__(self, *codes):
        self.codes, self.taken, self.tried = list(codes), [], []

    def __call__(self):
        return self

    def send(self, message):
        code = self.codes.pop(0)
        self.tried.append(message)
        if isinstance(code, BaseException):
            raise code
        self.taken.append(message)
        return said(code, message)

    def late(self, _=0.0):
        return []

    def close(self):
        pass


BY_MLLP = {"requests": RequestForm.HL7, "requests_by": RequestWay.MLLP}


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("AA", ("acknowledged", "")),
        ("CA", ("acknowledged", "")),
        ("AR", ("refused", "AR")),
        ("AE", ("refused", "AE")),
        ("??", ("unsure", "no_such_answer")),
        (Unsure("TimeoutError"), ("unsure", "TimeoutError")),
        (NotSent("ConnectionRefusedError"), ("owed", "ConnectionRefusedError")),
    ],
)
def test_what_the_lab_says_settles_a_request(begin, store, dispatch, said, state):
    service = council(**BY_MLLP)
    dispatch(service)
    send_requests(desk(begin, store, service, Laboratory(said)), limit=10)

    assert states(begin) == [state]


def test_a_message_in_doubt_is_never_sent_again_and_the_others_go_on(begin, store, dispatch):
    service = council(**BY_MLLP)
    [dispatch(service) for _ in range(3)]
    laboratory = Laboratory("AA", Unsure("TimeoutError"), "AA")
    for _ in range(2):
        send_requests(desk(begin, store, service, laboratory), limit=10)

    assert [state for state, _ in states(begin)] == ["acknowledged", "unsure", "acknowledged"]
    assert len(laboratory.taken) == 2


def test_a_person_who_asked_the_lab_has_a_request_in_doubt_sent_once_more_under_its_control_id(begin, store, dispatch):
    service = council(**BY_MLLP)
    kit = dispatch(service)
    laboratory = Laboratory(Unsure("TimeoutError"), "AA")
    send_requests(desk(begin, store, service, laboratory), limit=10)

    with begin() as session:
        ask_again(session, kit.code, services=["larkfield"], because="never came", now=build.NOW, actor="cli:lab")
    send_requests(desk(begin, store, service, laboratory), limit=10)

    assert [state for state, _ in states(begin)] == ["acknowledged"]
    first, second = laboratory.tried
    assert header_of(first).control_id == header_of(second).control_id
    with begin() as session:
        line = session.exec(select(Audit).where(Audit.action == "lab_request.again")).one()
    assert (line.because, line.detail["was"], line.subject_id) == ("never came", "unsure", kit.id)


@pytest.mark.parametrize(
    ("services", "because"), [(["moorside"], "lost"), (["larkfield"], " "), (["larkfield"], "lost")]
)
def test_a_request_that_is_answered_or_anothers_or_asked_for_without_a_reason_is_not_sent_again(
    begin, store, dispatch, services, because
):
    service = council(**BY_MLLP)
    kit = dispatch(service)
    send_requests(desk(begin, store, service, Laboratory("AA")), limit=10)

    with begin() as session, pytest.raises(ServiceError):
        ask_again(session, kit.code, services=services, because=because, now=build.NOW, actor="cli:lab")

    assert [state for state, _ in states(begin)] == ["acknowledged"]


def test_a_run_killed_with_a_message_under_way_leaves_it_unsure(begin, store, db, dispatch):
    service = council(**BY_MLLP)
    dispatch(service)
    with pytest.raises(KeyboardInterrupt):
        send_requests(desk(begin, store, service, Laboratory(KeyboardInterrupt())), limit=10)
    lease_runs_out(db)

    send_requests(desk(begin, store, service, Laboratory()), limit=10)

    assert states(begin) == [("unsure", "cut_short")]


def test_a_request_goes_over_tls_to_a_real_listener(begin, store, dispatch, tmp_path):
    service = council(**BY_MLLP)
    dispatch(service)
    authority = Authority(tmp_path)
    theirs, ours = authority.issue("lab.example"), authority.issue("kitpost.example")
    laboratory = Laboratory("AA")
    listener = MllpListener(
        ListenerChoices("127.0.0.1", 0, {"kitpost.example": "US"}, *theirs, authority.certificate),
        lambda _, message: laboratory.send(message),
        lambda head: head,
    )
    with running(listener) as port:
        address = MllpAddress("127.0.0.1", port, authority.certificate, *ours)
        tally = send_requests(desk(begin, store, service, lambda: MllpSender(address)), limit=10)

    assert (tally.sent, tally.acknowledged) == (1, 1)
    assert states(begin) == [("acknowledged", "")]


STRAY = b"MSH|^~\\&|WINLIMS|NORTHLAB|KITPOST|larkfield|20261124||ACK|9|P|2.5.1\rMSA|AA|no such\r"


@pytest.mark.parametrize(
    ("script", "states_after", "connections"),
    [
        (lambda _, m: [said("CA", m[-1]), said("AA", m[-1])], ["acknowledged"] * 4, 1),
        (lambda n, m: [said("AA", m[0])] * (n > 1) + [said("AA", m[-1])], ["acknowledged"] * 4, 1),
        (lambda n, m: [said("CA", m[-1])] + [said("AR", m[-1])] * (n == 4), ["acknowledged"] * 3 + ["refused"], 1),
        (
            lambda n, m: [said("AE", m[0])] * (n == 2) + [said("CA", m[-1])],
            ["refused", *["acknowledged"] * 3],
            1,
        ),
        (
            lambda n, m: [STRAY] * (n == 2) + [said("AA", m[-1])],
            ["acknowledged", "unsure", *["acknowledged"] * 2],
            2,
        ),
        (
            lambda n, m: [said("AA", m[-1])] + [STRAY] * (n == 2),
            ["acknowledged"] * 4,
            2,
        ),
    ],
    ids=["taken, then taken in", "said again", "taken, then refused", "refused later", "a stranger", "one more"],
)
def test_each_answer_counts_for_the_request_that_it_names(begin, store, dispatch, script, states_after, connections):
    service = council(**BY_MLLP)
    [dispatch(service) for _ in states_after]
    laboratory = OtherEnd(script)
    with laboratory.listening() as port:
        sender = MllpSender(MllpAddress("127.0.0.1", port), timeout_seconds=5)
        send_requests(desk(begin, store, service, lambda: sender), limit=10)

    assert [state for state, _ in states(begin)] == states_after
    assert (len(laboratory.messages), laboratory.connections) == (4, connections)


class Wavering(Laboratory):
    """Says that it has a request, and on second thoughts refuses it."""

    def late(self, wait_seconds=0.0):
        return [said("AR", message) for message in self.taken if wait_seconds]


def test_a_lab_that_has_only_said_that_it_has_a_request_is_listened_to_a_moment_longer(begin, store, dispatch):
    service = council(**BY_MLLP)
    dispatch(service)

    tally = send_requests(desk(begin, store, service, Wavering("CA")), limit=10)

    assert states(begin) == [("refused", "AR")]
    assert tally.refused_late == 1


# ── One laboratory's trouble ─────────────────────────────────────────────────────────────────


class Afterthought(Laboratory):
    """One that says more about its first request, which is heard once its line is broken."""

    def __init__(self, *codes, late):
        super().__init__(*codes)
        self.afterwards = late

    def late(self, _=0.0):
        if self.codes or not self.tried:
            return []
        late, self.afterwards = self.afterwards, []
        return [said(code, self.tried[0]) for code in late]


ANSWERING = BY_MLLP | {"answers_requests": True}


@pytest.mark.parametrize("broken", [NotSent("ConnectionRefusedError"), ServiceError(Code.SETTINGS, "mend it")])
def test_a_no_that_came_before_the_line_broke_is_not_thrown_away(begin, store, dispatch, broken):
    service = council(**ANSWERING)
    dispatch(service)
    dispatch(service)
    line = Afterthought("CA", broken, late=["AR"])

    tally = send_requests(desk(begin, store, service, line), limit=5)

    assert (tally.refused_late, tally.labs_down + (tally.fault is broken)) == (1, 1)
    assert sorted(state for state, _ in states(begin)) == ["owed", "refused"]


def test_a_later_word_that_is_no_answer_takes_nothing_back(begin, store, dispatch):
    service = council(**ANSWERING)
    dispatch(service)

    send_requests(desk(begin, store, service, Afterthought("AA", late=["XX"])), limit=5)

    assert states(begin) == [("acknowledged", "")]


@pytest.mark.parametrize("doubtful", [Unsure("TimeoutError"), "XX"], ids=["nothing", "nonsense"])
def test_a_lab_that_answers_nothing_of_use_is_left_in_peace_before_all_is_in_doubt(begin, store, dispatch, doubtful):
    service = council(**ANSWERING)
    for _ in range(6):
        dispatch(service)

    silent = Laboratory(*[doubtful] * 6)
    tally = send_requests(desk(begin, store, service, silent), limit=50)

    assert tally.unsure == MOST_IN_DOUBT
    assert sorted(state for state, _ in states(begin)) == ["owed"] * 3 + ["unsure"] * 3


@pytest.mark.parametrize("wrong", ["refused", "unsure", "sent"])
@pytest.mark.parametrize("state", ["dispatched", *sorted(NO_SAMPLE_EXPECTED)])
def test_what_a_lab_said_of_a_kit_that_is_over_is_nobodys_to_mend(begin, store, dispatch, db, state, wrong):
    service = council(**ANSWERING)
    dispatch(service)
    held = desk(begin, store, service).services
    with db.owner_engine.begin() as owner:
        owner.exec_driver_sql(
            f"UPDATE lab_request SET state = '{wrong}', sent_at = '2026-11-01', recorded_at = now() - interval '3 days'"
        )
        if state != "dispatched":
            owner.exec_driver_sql(f"UPDATE kit SET state = '{state}', closed_reason = 'asked', closed_at = now()")

    with begin() as session:
        late = late_kits(session, held, now=build.NOW)
    assert (len(late), len(found(begin))) == ((1, 1) if state == "dispatched" else (0, 0))


def two_labs(**first):
    """A council whose first laboratory is told as said here and whose second gets files, and a kit for each."""
    return replace(
        build.service(),
        labs=(replace(build.NORTHLAB, **first), replace(build.NORTHLAB, lab="southvale", requests=RequestForm.CSV)),
    )


def owed_to_both(begin, dispatch, service):
    [dispatch(service) for _ in range(2)]
    with begin() as session:
        session.connection().exec_driver_sql(
            "UPDATE lab_request SET lab = 'southvale' WHERE id = (SELECT max(id) FROM lab_request)"
        )


def test_an_unreadable_certificate_puts_nothing_in_doubt_and_keeps_no_other_lab_waiting(
    begin, store, dispatch, tmp_path
):
    service = two_labs(**BY_MLLP)
    owed_to_both(begin, dispatch, service)

    tally = send_requests(
        desk(begin, store, service, lambda: MllpSender(MllpAddress("lab", 1, tmp_path / "none.pem"))), limit=10
    )

    assert states(begin) == [("owed", ""), ("sent", "")]
    assert tally.fault.code is Code.SETTINGS


@pytest.mark.parametrize("way", [BY_MLLP, {"requests": RequestForm.CSV}], ids=["messages", "files"])
def test_a_lab_of_which_much_is_owed_takes_nothing_of_anothers_share(begin, store, dispatch, way):
    service = two_labs(**way)
    dispatch(service)
    owed_to_both(begin, dispatch, service)

    tally = send_requests(desk(begin, store, service, Laboratory("AA")), limit=1)

    assert tally.sent == 2
    first, waiting, others = [state for state, _ in states(begin)]
    assert (waiting, others) == ("owed", "sent")
    assert first != "owed"


def test_what_is_found_wrong_before_a_message_left_leaves_it_owed(begin, store, dispatch):
    service = council(**BY_MLLP)
    dispatch(service)

    tally = send_requests(desk(begin, store, service, Laboratory(ServiceError(Code.SETTINGS, "mend it"))), limit=10)

    assert states(begin) == [("owed", "settings")]
    assert (tally.fault.code, tally.sent) == (Code.SETTINGS, 0)


def test_a_store_that_refuses_one_labs_file_takes_the_others(begin, dispatch):
    class Picky(MemoryStore):
        def put(self, key, body, content_type=""):
            if key.startswith(LAB):
                raise ServiceError(Code.STORE_DOWN, "refused")
            return super().put(key, body, content_type)

    service = two_labs(requests=RequestForm.CSV)
    owed_to_both(begin, dispatch, service)

    tally = send_requests(desk(begin, Picky(), service), limit=10)

    assert [state for state, _ in states(begin)] == ["sending", "sent"]
    assert tally.fault.code is Code.STORE_DOWN


def test_a_run_that_could_not_tell_a_lab_fails_at_its_end():
    check_all_were_told(Tally(sent=3))
    for tally, code in ((Tally(fault=ServiceError(Code.SETTINGS, "mend it")), Code.SETTINGS),
                        (Tally(labs_down=1), Code.NOT_NOW)):  # fmt: skip
        with pytest.raises(ServiceError) as failed:
            check_all_were_told(tally)
        assert failed.value.code is code


# ── Answers ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def asked(begin, store, dispatch):
    """The control id of a request that left and waits for its answer."""
    service = council(requests=RequestForm.HL7, answers_requests=True)
    dispatch(service)
    send_requests(desk(begin, store, service), limit=10)
    [(control_id,)] = ask(begin, "SELECT left(ref, 20) FROM lab_request")
    return control_id


def acknowledgement(code, about, *, mode="P", sender="WINLIMS"):
    return (
        f"MSH|^~\\&|{sender}|NORTHLAB|KITPOST|larkfield|20261124||ORL^O22^ORL_O22|L1|{mode}|2.5.1\rMSA|{code}|{about}\r"
    ).encode()


def reading(begin, store, *, senders=None):
    northlab = lab_maps()["NORTHLAB"]
    return replace(ingest(begin, store), maps={LAB: replace(northlab, lab=LAB, senders=senders or northlab.senders)})


def read(begin, store, message):
    store.put(f"{LAB}/incoming/{uuid4()}.hl7", message)
    return ingest_waiting_files(reading(begin, store), limit=5)


@pytest.mark.parametrize(("code", "state"), [("AA", "acknowledged"), ("AR", "refused")])
def test_an_answer_that_comes_as_a_message_of_its_own_settles_its_request(begin, store, asked, code, state):
    mllp = MllpDesk(reading(begin, store))

    assert b"MSA|AR|L1" in mllp.take(LAB, acknowledgement(code, "no such"))
    assert b"MSA|AA|L1" in mllp.take(LAB, acknowledgement(code, asked))
    assert [each for each, _ in states(begin)] == [state]


def test_an_answer_by_message_that_says_neither_yes_nor_no_is_refused_for_that_and_settles_nothing(begin, store, asked):
    refused = MllpDesk(reading(begin, store)).take(LAB, acknowledgement("XX", asked))

    assert b"MSA|AR|L1" in refused
    assert b"MSA^1^1|103^" in refused
    assert [each for each, _ in states(begin)] == ["sent"]


@pytest.mark.parametrize(
    ("was", "becomes", "code"),
    [(b"|P|", b"|T|", b"202"), (b"|WINLIMS|NORTHLAB|", b"|WINLIMS|ELSEWHERE|", b"103")],
    ids=["a test", "a stranger"],
)
def test_an_answer_that_is_a_test_or_a_strangers_settles_nothing(begin, store, asked, was, becomes, code):
    [(before, _)] = states(begin)
    message = acknowledgement("AA", asked)
    assert was in message

    refused = MllpDesk(reading(begin, store)).take(LAB, message.replace(was, becomes))

    assert b"MSA|AR|" in refused
    assert code in refused
    assert [each for each, _ in states(begin)] == [before]


@pytest.mark.parametrize(("code", "state"), [("AA", "acknowledged"), ("AE", "refused")])
def test_an_answer_in_a_file_settles_its_request(begin, store, asked, code, state):
    tally = read(begin, store, acknowledgement(code, asked))

    assert (tally.details, tally.quarantined) == (1, 0)
    assert [each for each, _ in states(begin)] == [state]
    assert read(begin, store, acknowledgement(code, asked)).duplicates == 1


@pytest.mark.parametrize(
    ("codes", "state", "quarantined"),
    [
        (("CA", "AA"), "acknowledged", 0),
        (("AE", "AA"), "acknowledged", 0),
        (("AR", "AE"), "refused", 0),
        (("AA", "AE"), "acknowledged", 1),
    ],
)
def test_a_lab_may_answer_again_and_only_takes_nothing_back(begin, store, asked, codes, state, quarantined):
    for code in codes:
        read(begin, store, acknowledgement(code, asked))

    assert [each for each, _ in states(begin)] == [state]
    assert ask(begin, "SELECT count(*) FROM quarantined_row") == [(quarantined,)]


@pytest.mark.parametrize(
    ("code", "about", "changes", "reason"),
    [
        ("AA", "no such", {}, "malformed"),
        ("AA", "", {}, "malformed"),
        ("perhaps", "{}", {}, "malformed"),
        ("AA", "{}", {"mode": "T"}, "test_message"),
        ("AA", "{}", {"sender": "OTHERLIMS"}, "unknown_sender"),
    ],
)
def test_an_answer_that_settles_nothing_waits_for_a_person(begin, store, asked, code, about, changes, reason):
    read(begin, store, acknowledgement(code, about.format(asked), **changes))

    assert states(begin) == [("sent", "")]
    assert ask(begin, "SELECT reason, owner_role FROM quarantined_row") == [(reason, "lab_liaison")]
    assert read_rows_again(reading(begin, store), actor="staff:l").used == 0
    left = {each.check for each in strike(begin, lambda: build.NOW).differences}
    assert left <= {"order_decided", "overdue_case_was_escalated"}, "of the order and the day, not of the file"


def test_an_answer_of_a_sender_that_is_agreed_later_settles_its_request_when_it_is_read_again(begin, store, asked):
    read(begin, store, acknowledgement("AA", asked, sender="OTHERLIMS"))

    now_agreed = reading(begin, store, senders=frozenset({("otherlims", "northlab")}))
    assert read_rows_again(now_agreed, actor="staff:l").used == 1

    assert [each for each, _ in states(begin)] == [("acknowledged")]
    assert ask(begin, "SELECT count(*) FROM quarantined_row WHERE resolved_at IS NULL") == [(0,)]


def test_a_first_result_is_an_answer_too(begin, store, dispatch, db):
    service = council(requests=RequestForm.CSV)
    kit = dispatch(service)
    with begin() as session:
        session.connection().exec_driver_sql(
            "UPDATE kit SET received_at = now(), state = 'at_lab' WHERE id = %s", (kit.id,)
        )

    assert send_requests(desk(begin, store, service), limit=10).by_results == 1
    assert states(begin) == [("acknowledged", "")]
    assert store.objects == {}


# ── Balance ──────────────────────────────────────────────────────────────────────────────────


def found(begin):
    checks = {each.check for each in strike(begin, lambda: build.NOW).differences}
    return {check for check in checks if check.startswith("lab_request")}


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ("state = 'owed'", set()),
        ("state = 'owed', recorded_at = now() - interval '3 days'", {"lab_request_was_sent"}),
        ("state = 'unsure', recorded_at = now() - interval '3 days'", {"lab_request_was_sent"}),
        ("state = 'refused'", {"lab_request_was_sent"}),
        ("state = 'sent', sent_at = '2026-11-20'", {"lab_request_was_acknowledged"}),
        ("state = 'sent', sent_at = '2026-11-20', wants_answer = false", set()),
    ],
)
def test_a_request_that_was_not_sent_or_not_acknowledged_shows_in_the_balance(begin, db, dispatch, change, check):
    dispatch(council(requests=RequestForm.HL7, answers_requests=True))
    with db.owner_engine.begin() as owner:
        owner.exec_driver_sql(f"UPDATE lab_request SET {change}")

    assert found(begin) == check
