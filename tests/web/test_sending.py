"""The switches of sending, as a service manager sees them (H11; FEATURES 79)."""

import re

from models.actions.text import hold_burst
from models.actions.text_switch import set_sending, stopped_classes
from models.rules.service import TextPolicy
from models.rules.text import TextClass
from tests.support import build, web
from tests.support.texts import ACTOR, NOW, owed_result
from tests.support.web import words


def stopped(site):
    with site.home.begin() as session:
        return stopped_classes(session, "larkfield")


def test_one_button_stops_a_class_without_asking_why_and_the_audit_names_who(site):
    page = site.signed_in("demo-manager").send("/sending", "/sending/larkfield/result/stop")

    assert "Stopped: Results" in words(page)
    assert stopped(site) == {TextClass.RESULT}
    line = web.audited(site.db)[-1]
    assert (line["action"], line["detail"]) == ("texts.stopped", {"text_class": "result"})
    assert line["actor"].startswith("staff:")


def test_starting_again_takes_a_reason(site):
    manager = site.signed_in("demo-manager")
    manager.send("/sending", "/sending/larkfield/result/stop")

    refused = manager.send("/sending", "/sending/larkfield/result/start", because=" ")

    assert (refused.status_code, stopped(site)) == (422, {TextClass.RESULT})
    manager.send("/sending", "/sending/larkfield/result/start", because="put right")
    assert stopped(site) == frozenset()


def test_a_held_burst_is_shown_and_let_go_by_a_named_person(site):
    with site.home.begin() as session:
        for _ in range(3):
            owed_result(session)
        hold_burst(session, service=build.service(texts=TextPolicy(max_per_run=1)), now=NOW, actor=ACTOR)
    manager = site.signed_in("demo-manager")

    assert "2 texts wait for you" in words(manager.get("/sending"))
    page = manager.send("/sending", "/sending/larkfield/release", because="a big lab file")

    assert "2 texts may go" in words(page)
    assert "wait for you" not in words(page)


def test_a_stop_of_the_whole_installation_is_told(site):
    with site.home.begin() as session:
        set_sending(session, stopped=True, actor="cli:ops", because="test", now=NOW)

    assert "All texts are stopped" in words(site.signed_in("demo-senior").get("/sending"))


def test_nobody_stops_another_services_texts(site):
    manager = site.signed_in("demo-manager")
    page = manager.get("/sending").text
    token = re.search(r'name="csrf" value="([^"]+)"', page).group(1)

    answer = manager.http.post("/sending/moorside/result/stop", data={"csrf": token})

    assert answer.status_code == 403
