"""Signing in: through a real provider, for people with a role and a service, and for no longer than a shift."""

import time
from http.cookiejar import Cookie

import pytest
from httpx import Response

from app.web.session import IDLE_SECONDS, LONGEST_SECONDS
from app.web.signin import SIGN_INS_A_MINUTE
from tests.support import web


def cookie(browser: web.Browser) -> Cookie:
    [found] = browser.http.cookies.jar
    return found


def test_somebody_signs_in_through_the_provider_and_lands_where_they_wanted_to_go(site):
    browser = site.browser()
    browser.get("/kits/7K3F9XN2PP")

    landed = browser.sign_in("demo-adviser")

    assert landed.url.path == "/kits/7K3F9XN2PP"
    assert "Anna Adviser" in landed.text


def test_one_address_that_signs_in_again_and_again_has_to_wait_and_nobody_signed_in_notices(site):
    working = site.signed_in("demo-adviser")
    hammering = site.browser()

    answers = [hammering.http.get("/sign-in/back?code=guess&state=guess").status_code for _ in range(SIGN_INS_A_MINUTE)]

    assert answers[0] == 403
    assert answers[-1] == 429
    assert "wait a minute" in hammering.http.get("/sign-in/start").text
    assert working.get("/worklist").status_code == 200


def test_the_session_cookie_shows_nothing_and_is_for_the_server_alone(site):
    browser = site.signed_in("demo-adviser")

    held = cookie(browser)

    assert "Anna" not in held.value
    assert held.has_nonstandard_attr("HttpOnly")
    assert held.get_nonstandard_attr("SameSite") == "Lax"


def test_a_cookie_that_was_touched_signs_nobody_in(site):
    browser = site.signed_in("demo-adviser")
    held = cookie(browser)
    held.value = held.value[:40] + ("A" if held.value[40] != "A" else "B") + held.value[41:]

    assert browser.get("/worklist").headers["location"] == "/sign-in"


def presented(browser: web.Browser, value: str) -> Response:
    """A page asked for with this cookie, whatever the browser itself thinks of its age."""
    browser.http.cookies.clear()
    return browser.http.get("/worklist", headers={"Cookie": f"kitpost={value}"})


def test_a_session_ends_after_half_an_hour_without_a_page(site, monkeypatch):
    browser = site.signed_in("demo-adviser")
    held, began = cookie(browser).value, time.time()
    monkeypatch.setattr(time, "time", lambda: began + IDLE_SECONDS - 5)
    assert presented(browser, held).status_code == 200

    monkeypatch.setattr(time, "time", lambda: began + IDLE_SECONDS + 5)

    assert presented(browser, held).headers["location"] == "/sign-in"


def test_a_session_in_constant_use_still_ends_after_a_shift(site, monkeypatch):
    browser = site.signed_in("demo-adviser")
    held, began = cookie(browser).value, time.time()
    answers = []
    for minutes in range(0, LONGEST_SECONDS // 60 + 20, 20):
        monkeypatch.setattr(time, "time", lambda minutes=minutes: began + minutes * 60)
        answers.append(presented(browser, held))
        held = answers[-1].headers["set-cookie"].split(";")[0].removeprefix("kitpost=")

    assert {answer.status_code for answer in answers[:-2]} == {200}
    assert answers[-1].headers["location"] == "/sign-in"


@pytest.mark.parametrize("login", ["demo-nobody", "demo-unknown"])
def test_somebody_without_a_role_or_unknown_is_refused_with_one_sentence(site, login):
    browser = site.browser()

    landed = browser.sign_in(login)

    assert landed.status_code == 403
    assert "Your sign-in names no role" in landed.text or "You could not be signed in" in landed.text
    assert browser.get("/worklist").headers["location"] == "/sign-in"


def test_an_answer_to_a_sign_in_that_somebody_else_began_is_refused(site):
    theirs, mine = site.browser(), site.browser()
    asked = theirs.http.get("/sign-in/start")
    answer = theirs.http.post(asked.headers["location"], data={"login": "demo-senior"}).headers["location"]
    mine.http.get("/sign-in/start")

    refused = mine.http.get(answer)

    assert refused.status_code == 403
    assert "You could not be signed in" in refused.text


def test_a_code_is_good_once(site):
    browser = site.browser()
    asked = browser.http.get("/sign-in/start")
    answer = browser.http.post(asked.headers["location"], data={"login": "demo-senior"}).headers["location"]
    browser.http.get(answer)

    assert browser.http.get(answer).status_code == 403


def test_a_provider_that_is_down_is_said_in_one_sentence(site, street):
    from app.web.main import create_app

    with web.listening() as nobody:
        closed = web.address(nobody)
    home = web.home_on(site.db, public_base_url=site.url, issuer=closed)
    site.at_the_end.callback(home.engine.dispose)
    street.door.app = create_app(home)

    refused = site.browser().get("/sign-in/start")

    assert (refused.status_code, "The sign-in provider does not answer" in refused.text) == (409, True)


def test_signing_out_ends_the_session_here_and_at_the_provider(site, street):
    browser = site.signed_in("demo-adviser")

    answer = browser.http.post("/sign-out", data=web.hidden_fields(browser.get("/worklist").text, "/sign-out"))

    assert answer.headers["location"].startswith(f"{street.issuer}/end-session?")
    assert browser.http.get(answer.headers["location"]).headers["location"] == f"{site.url}/signed-out"
    assert browser.get("/worklist").headers["location"] == "/sign-in"


def test_a_form_without_this_sessions_token_changes_nothing(site):
    browser = site.signed_in("demo-adviser")

    for forged in ({}, {"csrf": ""}, {"csrf": "guessed"}):
        refused = browser.http.post("/sign-out", data=forged)
        assert (refused.status_code, "This form is from another session" in refused.text) == (403, True)
    assert browser.get("/worklist").status_code == 200
