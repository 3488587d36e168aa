"""Every route and every role: allowed or refused as the table says. A new route without a row fails here."""

import re
from pathlib import Path

import pytest
from fastapi.routing import iter_route_contexts
from sqlmodel import select
from starlette.routing import Mount

from app.demo.oidc_provider import LOGINS
from models.actions.owed import OwedCase, owe_cases
from models.rules.clinic import CaseKind
from models.rules.vocabulary import Outcome, Site, Test
from models.tables.clinic import ClinicCase
from tests.support import build

OPEN = {
    "/",
    "/sign-in",
    "/sign-in/start",
    "/sign-in/back",
    "/signed-out",
    "/health",
    "/health/ready",
    "/static",
    "/api/openapi.json",
    "/api/orders",
    "/api/orders/{channel_ref}",
    "/api/orders/{channel_ref}/cancel",
    "/api/collection-points",
    "/api/clinics/{clinic}/referrals",
    "/api/clinics/{clinic}/referrals/{ref}",
    "/api/clinics/{clinic}/events",
    "/api/labs/{lab}/results",
    "/api/labs/{lab}/results/{correlation_id}",
    "/api/fhir/metadata",
    "/api/verifications",
    "/api/verifications/{verification_ref}/confirm",
    "/callbacks/twilio/status",
    "/callbacks/twilio/message",
    "/callbacks/notify/status",
    "/callbacks/notify/message",
    "/callbacks/courier",
}
"""Without a staff session: they say nothing of anyone, or ask for a key or a signature of their own."""

EVERYONE = {"adviser", "adviser-2", "senior", "clinician", "safeguarding", "lab", "packer", "manager", "auditor"}
"""Of the service itself; a counter is somebody else's house."""
COUNTER = {"counter"}
CARING = {"adviser", "adviser-2", "senior", "clinician"}
SENIOR = {"senior", "clinician"}
STOPPING = {"manager", *SENIOR}
LIAISING = {"lab", *SENIOR}
PACKING = {"packer"}

ALLOWED = {
    ("GET", "/worklist"): EVERYONE - {"auditor"},
    ("GET", "/kits"): EVERYONE - {"packer"},
    ("POST", "/kits/find"): EVERYONE | COUNTER,
    ("GET", "/kits/{code}"): EVERYONE - {"packer"},
    ("GET", "/cases/{ref}"): CARING,
    ("POST", "/cases/{ref}/contact"): CARING,
    ("POST", "/cases/{ref}/notes"): SENIOR,
    ("POST", "/cases/{ref}/rows/{row_ref}"): CARING,
    ("POST", "/cases/{ref}/claim"): CARING,
    ("POST", "/cases/{ref}/hand-back"): CARING,
    ("POST", "/cases/{ref}/attempts"): CARING,
    ("POST", "/cases/{ref}/hand-over"): CARING,
    ("POST", "/cases/{ref}/concern"): CARING,
    ("POST", "/cases/{ref}/snooze"): CARING,
    ("POST", "/cases/{ref}/letter"): CARING,
    ("POST", "/cases/{ref}/partners"): CARING,
    ("POST", "/cases/{ref}/treatment"): CARING,
    ("POST", "/cases/{ref}/treatment/sign"): {"clinician"},
    ("POST", "/cases/{ref}/candour"): CARING,
    ("POST", "/cases/{ref}/candour/sign"): SENIOR,
    ("POST", "/cases/{ref}/refer"): CARING,
    ("POST", "/cases/{ref}/referral-letter"): CARING,
    ("POST", "/cases/{ref}/export"): CARING,
    ("POST", "/cases/{ref}/seal"): SENIOR,
    ("POST", "/cases/{ref}/break-seal"): CARING,
    ("POST", "/cases/{ref}/confirmations"): CARING,
    ("POST", "/cases/{ref}/close"): CARING,
    ("POST", "/cases/{ref}/release"): SENIOR,
    ("POST", "/cases/{ref}/order"): SENIOR,
    ("GET", "/board"): STOPPING,
    ("POST", "/board/export"): STOPPING,
    ("GET", "/logistics"): {"packer", *STOPPING},
    ("GET", "/logistics/batches/{ref}/picture"): PACKING,
    ("POST", "/logistics/{service_id}/problem"): {"packer", *CARING},
    ("POST", "/logistics/{service_id}/replace"): {"packer", *CARING},
    ("POST", "/logistics/{service_id}/receive"): PACKING,
    ("POST", "/logistics/{service_id}/adjust"): PACKING,
    ("POST", "/logistics/{service_id}/recall"): {"packer", *STOPPING},
    ("POST", "/logistics/{service_id}/code"): {"packer", *CARING},
    ("GET", "/counter"): COUNTER,
    ("POST", "/counter/point"): COUNTER,
    ("POST", "/counter/arrived"): COUNTER,
    ("POST", "/counter/code"): COUNTER,
    ("POST", "/counter/handed"): COUNTER,
    ("GET", "/packing"): PACKING,
    ("GET", "/packing/waiting"): PACKING,
    ("POST", "/packing/bench"): PACKING,
    ("POST", "/packing/scan"): PACKING,
    ("POST", "/packing/scans"): PACKING,
    ("POST", "/packing/aside"): PACKING,
    ("POST", "/packing/aside/{code}/on"): PACKING,
    ("POST", "/packing/aside/{code}/anew"): PACKING,
    ("GET", "/labs"): LIAISING,
    ("GET", "/labs/lists/{lab}"): LIAISING,
    ("POST", "/labs/replay"): LIAISING,
    ("POST", "/labs/files/{ref}/again"): LIAISING,
    ("GET", "/labs/rows/{ref}"): LIAISING,
    ("POST", "/labs/rows/{ref}/show"): LIAISING,
    ("POST", "/labs/rows/{ref}/replay"): LIAISING,
    ("POST", "/labs/rows/{ref}/send-back"): LIAISING,
    ("POST", "/labs/rows/{ref}/attach"): LIAISING,
    ("POST", "/labs/rows/{ref}/settle"): LIAISING,
    ("POST", "/labs/rows/{ref}/break-seal"): LIAISING,
    ("GET", "/messages"): {*CARING, "safeguarding"},
    ("GET", "/messages/{ref}"): {*CARING, "safeguarding"},
    ("POST", "/messages/{ref}/words"): {*CARING, "safeguarding"},
    ("GET", "/sending"): STOPPING,
    ("POST", "/sending/{service_id}/release"): STOPPING,
    ("POST", "/sending/{service_id}/{text_class}/stop"): STOPPING,
    ("POST", "/sending/{service_id}/{text_class}/start"): STOPPING,
    ("POST", "/sign-out"): EVERYONE | COUNTER,
}
"""Who may, on a reactive blood case of their own service. Refused is 403; allowed is anything that the rules answer."""

OPENED_BY = {
    kind: {
        CaseKind.SAFEGUARDING: CARING | {"safeguarding"},
        CaseKind.LAB_ROW: LIAISING,
        CaseKind.RESULTS_OVERDUE: LIAISING,
        CaseKind.PARCEL: CARING | PACKING,
    }.get(kind, CARING)
    for kind in CaseKind
}
"""Who opens the case of each kind."""

FORMS = {
    "/cases/{ref}/attempts": {"result": "no_answer"},
    "/cases/{ref}/confirmations": {"test": "hiv", "confirmation": "negative"},
    "/cases/{ref}/close": {"outcome": "confirmed_negative"},
    "/cases/{ref}/hand-over": {"to": "clinician", "why": "asks about a medicine"},
    "/cases/{ref}/snooze": {"reason": "person_is_away", "day": "2026-11-25", "at": "09:00"},
    "/cases/{ref}/concern": {"concern": "afraid of somebody at home"},
    "/cases/{ref}/partners": {
        "partner": "new",
        "elicited": "1",
        "contactable": "1",
        "notified": "0",
        "tested": "0",
        "verified": "0",
        "treated": "0",
    },
    "/cases/{ref}/treatment": {"way": "by_post"},
    "/cases/{ref}/candour": {"account": "told", "harm": "none", "apologised": "true"},
    "/cases/{ref}/refer": {"clinic": "none", "asked": "treatment"},
    "/cases/{ref}/seal": {"sealed": "false"},
    "/cases/{ref}/break-seal": {"because": "called back today"},
    "/cases/{ref}/order": {"accept": "false", "because": "asked to"},
    "/messages/{ref}/words": {"because": "asked what it said"},
    "/sending/{service_id}/release": {"because": "a big lab file"},
    "/sending/{service_id}/{text_class}/stop": {"because": "wrong wording"},
    "/sending/{service_id}/{text_class}/start": {"because": "put right"},
    "/kits/find": {"code": "7K3-F9X-N2PP"},
    "/logistics/{service_id}/receive": {"component": "lancet", "lot": "L", "pieces": "1", "expires_on": "2027-01-01"},
    "/logistics/{service_id}/adjust": {"component": "lancet", "lot": "L", "pieces": "1", "because": "counted"},
    "/logistics/{service_id}/recall": {"component": "lancet", "lot": "L", "because": "the maker says so"},
    "/logistics/{service_id}/problem": {"code": "7K3-F9X-N2PP", "what": "lost"},
    "/logistics/{service_id}/replace": {"code": "7K3-F9X-N2PP", "because": "asked_for"},
    "/logistics/{service_id}/code": {"code": "7K3-F9X-N2PP"},
    "/packing/scan": {"ref": "0" * 32, "code": "7K3-F9X-N2PP"},
    "/packing/scans": {"bench": "1", "scans": "[]"},
    "/packing/aside": {"code": "7K3-F9X-N2PP", "why": "damaged"},
    "/labs/replay": {"lab": "NORTHLAB", "reason": "unknown_token"},
    "/labs/rows/{ref}/attach": {"code": "7K3-F9X-N2PP"},
    "/labs/rows/{ref}/settle": {"approve": "false"},
    "/labs/rows/{ref}/break-seal": {"because": "called back today"},
}


VERSION = "SELECT version FROM clinic_case WHERE kind NOT IN ('partner_follow_up', 'safeguarding')"
"""Of the one case; partners that were recorded, and a concern, owe cases of their own."""


def routes(site, street) -> list[tuple[str, str]]:
    """Every method and path of the application, read from the application."""
    found = []
    for route in iter_route_contexts(street.door.app.routes):
        methods = {"GET"} if isinstance(route.original_route, Mount) else set(route.methods) - {"HEAD"}
        found += [(method, route.path) for method in methods]
    return sorted(found)


@pytest.fixture
def case(site) -> dict[str, str]:
    with site.home.begin() as session:
        kit = build.dispatched_kit(session)
        outcomes = {(Test.HIV, Site.BLOOD): Outcome.REACTIVE, (Test.SYPHILIS, Site.BLOOD): Outcome.NEGATIVE}
        build.results(session, kit, outcomes)
        [ref] = session.connection().exec_driver_sql("SELECT ref FROM clinic_case").scalars()
        return {"ref": ref, "code": kit.code, "row_ref": "0" * 32, "lab": "NORTHLAB",
                "service_id": "larkfield", "text_class": "reminder"}  # fmt: skip


def csrf(browser) -> str:
    for page in ("/worklist", "/kits/7K3F9XN2PP"):
        found = re.search(r'name="csrf" value="([^"]+)"', browser.get(page).text)
        if found:
            return found.group(1)
    raise AssertionError("no page has a form")


ROLES = ("adviser", "senior", "clinician", "safeguarding", "lab", "packer", "manager", "auditor", "counter")
ACCESS = Path(__file__).parents[2] / "docs" / "access.md"


PAGE = """# Who may do what

Every page and every form of the web application, and the roles that it answers. Decided in `models/rules/staff.py`,
within the services that a person's sign-in names. Written by `make golden` from the table that
`tests/web/test_access.py` walks through as each role: a route without a row fails there, and so does a refusal or
an answer that is not in the table. A sealed record takes a reason besides; an auditor sees of it who looked, alone.

Routes under `/cases/` stand here for the case of a reactive screen. A case of another kind opens to:

| case | {roles} |
|---|{lines}
{kinds}

| | route | {roles} |
|---|---|{lines}
{rows}

Without a staff sign-in, because they say nothing of anyone or ask for a key or a signature of their own:

{open_routes}
"""


def access_page() -> str:
    """The table as whoever is responsible for data reads it."""
    return PAGE.format(
        roles=" | ".join(ROLES),
        lines="---|" * len(ROLES),
        rows="\n".join(
            f"| {method} | `{path}` | {' | '.join('yes' if role in who else '' for role in ROLES)} |"
            for (method, path), who in ALLOWED.items()
        ),
        kinds="\n".join(
            f"| {kind.value.replace('_', ' ')} | {' | '.join('yes' if role in who else '' for role in ROLES)} |"
            for kind, who in OPENED_BY.items()
        ),
        open_routes="\n".join(f"- `{path}`" for path in sorted(OPEN)),
    )


def test_the_table_in_docs_is_the_one_that_is_walked(request):
    if request.config.getoption("--golden"):
        ACCESS.write_text(access_page(), encoding="utf-8")

    assert ACCESS.read_text(encoding="utf-8") == access_page()
    assert {role for who in ALLOWED.values() for role in who} - {"adviser-2"} == set(ROLES)
    assert all(("adviser" in who) == ("adviser-2" in who) for who in ALLOWED.values())


def test_every_route_is_either_open_or_has_a_row_in_the_table(site, street):
    listed = routes(site, street)

    assert {path for _, path in listed if (_, path) not in ALLOWED} == OPEN
    assert ALLOWED.keys() <= set(listed)


def test_without_a_session_every_staff_route_leads_to_the_sign_in_page(site, case):
    nobody = site.browser()
    for method, path in ALLOWED:
        answer = nobody.http.request(method, path.format(**case))
        assert (path, answer.status_code, answer.headers.get("location")) == (path, 303, "/sign-in")


@pytest.mark.proof
def test_a_case_of_each_kind_opens_to_those_in_the_table_and_to_nobody_else(site):
    with site.home.begin() as session:
        for kind in CaseKind:
            owed = OwedCase(f"test:{kind.value}", kind, kit_id=build.dispatched_kit(session).id)
            owe_cases(session, [owed], service=build.service(), now=build.NOW, actor=build.ACTOR)
        refs = {CaseKind(kind): ref for kind, ref in session.exec(select(ClinicCase.kind, ClinicCase.ref))}
    opened = dict.fromkeys(CaseKind, frozenset())
    for role in ROLES:
        looking = site.signed_in(f"demo-{role}")
        for kind, ref in refs.items():
            answer = looking.get(f"/cases/{ref}").status_code
            assert answer in {200, 403}, (role, kind)
            opened[kind] |= {role} if answer == 200 else set()
    assert opened == {kind: who - {"adviser-2"} for kind, who in OPENED_BY.items()}


WALKED_AT_ONCE = {"adviser", "manager", "packer"}
"""Each walk takes seconds: the other logins' are proofs."""


@pytest.mark.parametrize(
    "login",
    [
        pytest.param(name, marks=() if name in WALKED_AT_ONCE else pytest.mark.proof)
        for name in (login.sub.removeprefix("demo-") for login in LOGINS if login.roles)
    ],
)
def test_each_role_may_what_the_table_says_and_nothing_more(site, case, login):
    browser = site.signed_in(f"demo-{login}")
    token = csrf(browser)

    refused = set()
    for method, path in ALLOWED:
        if path == "/sign-out":
            continue
        with site.home.begin() as session:
            version = session.connection().exec_driver_sql(VERSION).scalar_one()
        form = {"csrf": token, "version": str(version), **FORMS.get(path, {})} if method == "POST" else None
        answer = browser.http.request(method, path.format(**case), data=form)
        assert answer.status_code in {200, 303, 403, 404, 409, 422}, (path, answer.status_code)
        if answer.status_code == 403:
            refused.add((method, path))

    assert refused == {row for row, who in ALLOWED.items() if login not in who}


def test_somebody_of_another_service_finds_no_case_and_no_kit(site, street, case):
    with site.home.begin() as session:
        session.connection().exec_driver_sql("SELECT 1")
    from app.demo.oidc_provider import make_provider
    from app.web.main import create_app
    from tests.support import web

    with web.listening() as theirs:
        issuer = web.address(theirs)
        provider = make_provider(
            issuer=issuer,
            client_id=web.CLIENT_ID,
            client_secret=web.CLIENT_SECRET,
            redirect=f"{site.url}/sign-in/back",
            services=["moorside"],
        )
        with web.serving(provider, theirs):
            home = web.home_on(site.db, public_base_url=site.url, issuer=issuer)
            site.at_the_end.callback(home.engine.dispose)
            street.door.app = create_app(home)
            stranger = site.signed_in("demo-clinician")

            assert stranger.get(f"/cases/{case['ref']}").status_code == 404
            assert stranger.get(f"/kits/{case['code']}").status_code == 404
            assert "0 open" in stranger.get("/worklist").text
