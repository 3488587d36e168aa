"""The laboratories' way in over HTTP, on a real PostgreSQL: stored before it is answered, answered in FHIR."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from sqlalchemy.exc import OperationalError

from app.lab_reading import let_in_again
from app.web.fhir import LONGEST_BODY_BYTES, LabResultsApi, lab_results_router
from flows.ingest_results import ingest_waiting_files
from models.rules.errors import ServiceError
from tests.support.http import Client
from tests.support.ingesting import SAMPLES, ask, ingest, texts_of
from tests.support.lab_files import FHIR, fhir
from tests.support.many_kits import send_kits
from tests.support.memory_store import MemoryStore

KEY = "northlab-key-of-larkfield-0123456789ab"
OTHER_KEY = "southvale-key-of-larkfield-0123456789a"
PATH = "/api/labs/NORTHLAB/results"
BASE = "https://kits.example.test"


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def ready(begin, store):
    return ingest(begin, store)


@pytest.fixture
def api(ready):
    keys = {"larkfield/NORTHLAB": KEY, "larkfield/SOUTHVALE": OTHER_KEY}
    return LabResultsApi(lambda: ready, ready.services, ready.maps, keys, BASE)


def application(api):
    made = FastAPI()
    made.include_router(lab_results_router(api))
    return made


@pytest.fixture
def client(api):
    return lab(api)


def lab(api, key=KEY):
    return Client(
        application(api),
        **{"Authorization": f"Bearer {key}", "Content-Type": "application/fhir+json", "X-Correlation-ID": "c-1"},
    )


@pytest.fixture
def kit(begin):
    with begin() as session:
        [kit] = send_kits(session, 1)
    return kit


def lone_observation(kit, **changes):
    """One result as NHS HomeTest's suppliers send theirs: the Observation alone, what it is about inside it."""
    row = kit.rows(FHIR)[0]
    bundle = json.loads(fhir([row]))
    found = {each["resource"]["resourceType"]: each["resource"] for each in bundle["entry"]}
    person, specimen, observation = found["Patient"], found["Specimen"], found["Observation"]
    kept = {**observation, **changes, "contained": [{**person, "id": "p"}, {**specimen, "id": "s"}]}
    return {**kept, "subject": {"reference": "#p"}, "specimen": {"reference": "#s"}}


def issues(answer):
    assert answer.headers["content-type"] == "application/fhir+json"
    outcome = answer.json()
    assert outcome["resourceType"] == "OperationOutcome"
    return [(issue["severity"], issue["code"]) for issue in outcome["issue"]]


def stored(begin):
    return ask(begin, "SELECT count(*) FROM lab_message_in")[0][0]


# ── Taken ────────────────────────────────────────────────────────────────────────────────────


def test_a_bundle_is_stored_answered_read_and_told(client, begin, store, ready, kit):
    answer = client.post(PATH, content=fhir(kit.rows(FHIR)))

    assert answer.status_code == 202
    assert issues(answer) == [("information", "informational")]
    assert answer.headers["location"] == f"{BASE}{PATH}/c-1"
    assert len(store.objects) == 1  # handed to the readers at once

    ingest_waiting_files(ready, limit=10)
    assert texts_of(begin, kit.id) == [("all_clear", "owed")]

    told = client.get(f"{PATH}/c-1").json()
    assert (told["state"], told["receipt"]["verdict"], told["receipt"]["rows"]["taken"]) == ("finished", "taken", 4)


def test_after_a_go_ahead_the_document_is_read_anew_and_no_longer_held(client, begin, ready):
    with begin() as session:
        kits = send_kits(session, 30)
    odd = [kit.rows(FHIR, value="Perhaps") for kit in kits[:10]]
    content = fhir([row for rows in (*odd, *(kit.rows(FHIR) for kit in kits[10:])) for row in rows])
    client.post(PATH, content=content)
    ingest_waiting_files(ready, limit=5)
    assert client.get(f"{PATH}/c-1").json()["receipt"]["verdict"] == "held"

    ((ref,),) = ask(begin, "SELECT ref FROM lab_file")
    let_in_again(ready, ref, actor="staff:lab-1")
    ingest_waiting_files(ready, limit=5)

    told = client.get(f"{PATH}/c-1").json()
    assert (told["state"], told["receipt"]["verdict"]) == ("finished", "taken")


def test_a_copy_that_a_repeated_filing_left_behind_does_not_hide_that_the_document_was_used(
    client, begin, store, ready, kit
):
    client.post(PATH, content=fhir(kit.rows(FHIR)))
    ((key, versions),) = store.objects.items()
    (body,) = versions.values()
    ingest_waiting_files(ready, limit=5)
    store.put(key, body)
    ingest_waiting_files(ready, limit=5)

    assert ask(begin, "SELECT state FROM lab_file ORDER BY id") == [("done",), ("duplicate",)]
    assert client.get(f"{PATH}/c-1").json()["receipt"]["verdict"] == "taken"


def test_a_lone_observation_is_a_result(client, begin, ready, kit):
    answer = client.post(PATH, content=json.dumps(lone_observation(kit)))

    assert (answer.status_code, issues(answer)) == (202, [("information", "informational")])
    ingest_waiting_files(ready, limit=10)
    assert ask(begin, "SELECT test, outcome FROM result_series") == [("chlamydia", "negative")]


def test_a_sample_bundle_is_taken_whole(client, begin):
    answer = client.post(PATH, content=(SAMPLES / "06-fhir-bundle.json").read_bytes())

    assert answer.status_code == 202
    assert stored(begin) == 1


def test_what_can_not_be_used_is_stored_and_named_with_its_place_and_reason(client, begin, ready, kit):
    rows = kit.rows(FHIR)
    sent = json.loads(fhir(rows))
    place = next(n for n, each in enumerate(sent["entry"]) if each["resource"]["resourceType"] == "Observation")
    sent["entry"][place]["resource"]["valueCodeableConcept"] = {"text": "Perhaps"}
    answer = client.post(PATH, content=json.dumps(sent))

    assert answer.status_code == 202
    warning = answer.json()["issue"][1]
    assert warning["severity"] == "warning"
    assert warning["code"] == "code-invalid"
    assert warning["expression"] == [f"Bundle.entry[{place}].resource"]
    assert warning["details"]["coding"] == [{"system": "urn:kitpost:quarantine", "code": "unknown_token"}]
    assert "Perhaps" not in answer.text
    assert kit.family not in answer.text
    assert kit.born not in answer.text
    ingest_waiting_files(ready, limit=10)
    assert ask(begin, "SELECT DISTINCT reason FROM quarantined_row") == [("unknown_token",)]


def test_a_number_of_thousands_of_digits_is_stored_and_answered(client, begin, kit):
    content = json.dumps(lone_observation(kit, valueInteger="digits")).replace('"digits"', "9" * 5000)

    answers = [client.post(PATH, content=content) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [202, 200]
    assert answers[0].json()["issue"][1]["expression"] == ["Observation"]
    assert stored(begin) == 1


def test_what_is_sent_stands_in_the_database_before_the_answer_and_nobody_can_read_it_there(api, begin, kit):
    class Down(MemoryStore):
        def put(self, *_):
            raise ServiceError("store_down", "The store is away.")

    down = replace(api.ingest(), store=Down())
    answer = lab(replace(api, ingest=lambda: down)).post(PATH, content=fhir(kit.rows(FHIR)))

    assert answer.status_code == 202
    [(state, body)] = ask(begin, "SELECT state, body FROM lab_message_in")
    assert state == "filing"
    assert kit.family.encode() not in bytes(body)


# ── Again ────────────────────────────────────────────────────────────────────────────────────


def test_the_same_document_again_is_answered_200_and_stored_once(client, begin, kit):
    answers = [client.post(PATH, content=fhir(kit.rows(FHIR))) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [202, 200, 200]
    assert stored(begin) == 1


def test_other_content_under_a_used_id_is_a_conflict(client, begin, kit):
    client.post(PATH, content=fhir(kit.rows(FHIR)))
    answer = client.post(PATH, content=fhir(kit.rows(FHIR)[:1]))

    assert (answer.status_code, issues(answer)) == (409, [("error", "duplicate")])
    assert stored(begin) == 1
    assert notices(begin) == [("NORTHLAB", "http", "control_id_reuse", True, 1)]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-Correlation-ID": "", "Idempotency-Key": "k-1"}, 400),
        ({"Idempotency-Key": "c-1"}, 202),
        ({"Idempotency-Key": "other"}, 400),
        ({"X-Correlation-ID": "with a space"}, 400),
        ({"X-Correlation-ID": "x" * 201}, 400),
        ({"X-Correlation-ID": "."}, 400),
        ({"X-Correlation-ID": ".."}, 400),
        ({"X-Correlation-ID": "..."}, 202),
    ],
)
def test_one_usable_correlation_id_is_asked_for(client, kit, headers, status):
    assert client.post(PATH, content=fhir(kit.rows(FHIR)), headers=headers).status_code == status


def test_without_a_correlation_id_nothing_is_taken(api, begin, kit):
    anonymous = Client(application(api), Authorization=f"Bearer {KEY}")
    answer = anonymous.post(PATH, content=fhir(kit.rows(FHIR)), headers={"Content-Type": "application/json"})

    assert (answer.status_code, issues(answer)) == (400, [("error", "required")])
    assert stored(begin) == 0


# ── Refused ──────────────────────────────────────────────────────────────────────────────────


def test_only_the_labs_own_key_opens_its_way(api, client, begin, kit):
    body = fhir(kit.rows(FHIR))
    assert issues(client.post(PATH, content=body, headers={"Authorization": "Bearer no"})) == [("error", "login")]
    assert lab(api, OTHER_KEY).post(PATH, content=body).status_code == 403
    assert client.post("/api/labs/ELSEWHERE/results", content=body).status_code == 403
    assert lab(api, OTHER_KEY).get(f"{PATH}/c-1").status_code == 403
    assert stored(begin) == 0


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "required"),
        (b'{"resourceType": "Bundle"', 422, "incomplete"),
        (b'{"resourceType": "Patient"}', 422, "not-supported"),
        (b'{"resourceType": "Observation", "resourceType": "Observation"}', 422, "structure"),
        (b"MSH|^~\\&|", 422, "incomplete"),
        (b"[" * 100_000, 422, "structure"),
        (b" " * (LONGEST_BODY_BYTES + 1), 413, "too-long"),
    ],
)
def test_what_can_not_be_a_result_is_refused_with_a_reason(client, begin, body, status, code):
    answer = client.post(PATH, content=body)

    assert answer.status_code == status
    [issue] = issues(answer)
    assert issue[0] == "error"
    assert issue[1] in {code, "not-supported", "incomplete"}
    assert stored(begin) == 0


def test_another_type_of_content_is_refused(client):
    assert client.post(PATH, content=b"x", headers={"Content-Type": "text/csv"}).status_code == 415


def notices(begin):
    return ask(begin, "SELECT lab, way, reason, refused, times FROM lab_notice ORDER BY id")


@pytest.mark.parametrize(
    ("old", "new", "headers", "word"),
    [
        (b"Testina", b"T\xe9stina", {}, "encoding"),
        (b"", b"", {"X-Correlation-ID": "with a space"}, "malformed"),
        (b"", b"", {"Content-Type": "text/csv"}, "unsupported_format"),
    ],
)
def test_what_is_refused_leaves_a_trace_and_a_case_and_a_retry_is_counted(
    client, begin, kit, caplog, old, new, headers, word
):
    content = json.dumps(lone_observation(kit)).replace(kit.family, "Testina").encode().replace(old, new)
    assert all(400 <= client.post(PATH, content=content, headers=headers).status_code < 500 for _ in range(2))

    assert notices(begin) == [("NORTHLAB", "http", word, True, 2)]
    assert ask(begin, "SELECT owner_role, detail->>'quarantine' FROM clinic_case") == [("lab_liaison", word)]
    assert f"http: a message of NORTHLAB was refused: {word}" in caplog.text
    assert "stina" not in caplog.text


def test_refusals_at_the_same_moment_make_one_case_and_lose_no_count(api, begin):
    def send(number):
        return lab(api).post(PATH, content=b'{"resourceType": "Patient", "id": "%d"}' % (number % 3)).status_code

    with ThreadPoolExecutor(12) as at_once:
        assert set(at_once.map(send, range(12))) == {422}
    assert [times for *_, times in notices(begin)] == [4, 4, 4]
    assert ask(begin, "SELECT count(*) FROM clinic_case") == [(1,)]


def test_what_a_stranger_sends_leaves_no_trace_at_a_laboratory(api, begin, kit):
    assert lab(api, "no").post(PATH, content=fhir(kit.rows(FHIR))).status_code == 401
    assert lab(api, OTHER_KEY).post(PATH, content=fhir(kit.rows(FHIR))).status_code == 403
    assert notices(begin) == []


def test_nothing_is_said_to_be_stored_that_the_database_did_not_take(api, begin, kit):
    def down():
        raise OperationalError("INSERT", {}, Exception("gone"))

    answer = lab(replace(api, ingest=lambda: replace(api.ingest(), begin=down)))
    answer = answer.post(PATH, content=fhir(kit.rows(FHIR)))

    assert (answer.status_code, issues(answer)) == (503, [("error", "transient")])
    assert stored(begin) == 0


def test_a_key_of_no_contract_stops_the_start(api):
    with pytest.raises(ServiceError, match="larkfield/ELSEWHERE"):
        lab_results_router(replace(api, keys={"larkfield/ELSEWHERE": KEY}))


def test_an_unknown_document_is_not_found(client):
    answer = client.get(f"{PATH}/never-sent")

    assert (answer.status_code, issues(answer)) == (404, [("error", "not-found")])


def test_what_can_be_no_name_of_a_document_is_never_looked_for(client):
    answer = client.get(f"{PATH}/%00")

    assert (answer.status_code, issues(answer)) == (422, [("error", "invalid")])


# ── Described ────────────────────────────────────────────────────────────────────────────────


def test_the_capability_statement_says_where_to_send_and_which_fhir(api):
    answer = Client(application(api)).get("/api/fhir/metadata")

    assert answer.headers["content-type"] == "application/fhir+json"
    assert (answer.json()["resourceType"], answer.json()["fhirVersion"]) == ("CapabilityStatement", "4.0.1")
    assert answer.json()["messaging"][0]["endpoint"][0]["address"] == f"{BASE}/api/labs/{{lab}}/results"


def held_to_its_description(api, examples):
    """Every answer to invented requests is one that the OpenAPI description names. Returns their statuses."""
    described = schemathesis.openapi.from_asgi("/openapi.json", application(api))
    statuses = set()
    for operation in described.get_all_operations():

        def ask_one(case, named):
            if "lab" in case.path_parameters:
                case.path_parameters["lab"] = "NORTHLAB"  # hardly any invented word is a lab's
            headers = {"Authorization": f"Bearer {KEY}"} | ({"X-Correlation-ID": named} if named else {})
            # No schema can say which JSON is a document that we read: its refusal is no fault.
            answer = case.call_and_validate(headers=headers, excluded_checks=[positive_data_acceptance])
            statuses.add(answer.status_code)

        few = settings(
            max_examples=examples,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        invented = st.one_of(operation.ok().as_strategy(generation_mode=mode) for mode in GenerationMode)
        few(given(case=invented, named=st.sampled_from([None, "c-1", "c-2"]))(ask_one))()
    return statuses


def test_invented_requests_get_the_answers_that_are_described(api):
    assert held_to_its_description(api, 10) >= {200, 404}


@pytest.mark.proof
def test_many_invented_requests_get_the_answers_that_are_described(api):
    assert held_to_its_description(api, 150) >= {200, 400, 404, 422}
