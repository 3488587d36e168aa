"""`kitpost texts`: the switch, a held burst, what became of a text, and every text there is (FEATURES 79)."""

import pypdfium2
import pytest
from sqlmodel import select

from app.wiring import wiring
from models.actions.text import hold_burst
from models.actions.text_moves import short_ref
from models.actions.text_switch import chosen_provider, count_run, restored_from, sending_stopped, stopped_classes
from models.rules.errors import ServiceError
from models.rules.service import TextPolicy
from models.rules.text import TextClass, TextPurpose
from models.tables.audit import Audit
from models.tables.text import Text
from tests.support import build, command
from tests.support.fake_sender import FakeSender
from tests.support.texts import ACTOR, NOW, owed_result


@pytest.fixture
def kitpost(db, monkeypatch, tmp_path):
    with command.at_home(db, monkeypatch, tmp_path) as run:
        yield lambda *words: run("texts", *words)


def test_the_switch_stops_sending_and_says_who_threw_it_and_why(begin, kitpost):
    kitpost("stop", "--because", "wrong wording")
    with begin() as session:
        assert sending_stopped(session)
        line = session.exec(select(Audit).where(Audit.action == "texts.stopped")).one()

    kitpost("start", "--because", "put right")

    with begin() as session:
        assert not sending_stopped(session)
    assert line.because == "wrong wording"
    assert line.actor.startswith("cli:")


def test_a_held_burst_is_let_go_by_command(begin, kitpost):
    with begin() as session:
        for _ in range(3):
            owed_result(session)
        hold_burst(session, service=build.service(texts=TextPolicy(max_per_run=1)), now=NOW, actor=ACTOR)

    said = kitpost("release", "larkfield", "--because", "a big file")

    assert said == "2 texts may go.\n"
    with begin() as session:
        assert not any(session.exec(select(Text.held_at)))


def test_a_text_is_shown_by_the_characters_a_person_reads_out_without_its_words(begin, kitpost):
    with begin() as session:
        text = owed_result(session)

    said = kitpost("show", short_ref(text.ref))

    assert f"Text {text.ref} of larkfield: owed" in said
    assert "clear" not in said
    assert "+44" not in said


def test_an_unknown_reference_is_one_clear_sentence(kitpost):
    with pytest.raises(ServiceError, match="no text with this reference"):
        kitpost("show", "ffffff")


def test_the_preview_shows_every_text_in_both_languages_and_sends_nothing(kitpost):
    said = kitpost("preview")

    assert all(purpose.value in said for purpose in TextPurpose)
    assert "Cyf 7K3F9X" in said
    assert "reactive" not in said.lower()


def test_one_class_of_one_service_is_stopped_and_started_by_itself(kitpost, begin):
    kitpost("stop", "--because", "wrong wording", "--service", "larkfield", "--class", "reminder")
    with begin() as session:
        assert stopped_classes(session, "larkfield") == {TextClass.REMINDER}
        assert stopped_classes(session, "elsewhere") == frozenset()
    kitpost("start", "--because", "put right", "--class", "reminder")
    with begin() as session:
        assert stopped_classes(session, "larkfield") == frozenset()
        assert [line.because for line in session.exec(select(Audit))] == ["wrong wording", "put right"]


@pytest.mark.parametrize("words", [("--service", "nowhere"), ("--class", "gossip")])
def test_a_switch_that_names_nothing_stops_nothing_and_says_so(kitpost, begin, words):
    with pytest.raises(ServiceError):
        kitpost("stop", "--because", "test", *words)
    with begin() as session:
        assert stopped_classes(session, "larkfield") == frozenset()


def test_a_provider_without_credentials_can_not_be_chosen(kitpost, begin):
    with pytest.raises(ServiceError):
        kitpost("use", "govuk_notify", "--because", "Twilio is down")
    kitpost("use", "twilio", "--because", "it is up again")
    with begin() as session:
        assert chosen_provider(session) == "twilio"
    kitpost("use", "setting", "--because", "as usual")
    with begin() as session:
        assert chosen_provider(session) == ""


def test_only_a_restored_database_can_catch_up(kitpost, begin):
    assert "not known as a restored one" in kitpost("resume", "--because", "test")
    with begin() as session:
        count_run(session, outside=7, actor=ACTOR, now=NOW)
    assert "as usual" in kitpost("resume", "--because", "the lab files of the lost day were read again")
    with begin() as session:
        assert restored_from(session) is None


def test_the_sheet_to_sign_holds_every_text_on_a_page_and_on_paper(kitpost, tmp_path):
    kitpost("preview", "--into", str(tmp_path / "sheet"))

    page = (tmp_path / "sheet" / "texts-larkfield.html").read_text(encoding="utf-8")
    paper = pypdfium2.PdfDocument((tmp_path / "sheet" / "texts-larkfield.pdf").read_bytes())
    printed = " ".join(sheet.get_textpage().get_text_range() for sheet in paper)
    for purpose in TextPurpose:
        assert purpose.value.replace("_", " ").capitalize() in page
        assert purpose.value.replace("_", " ").capitalize() in printed
    assert page.count("Signature") == printed.count("Signature") == len(TextPurpose)
    assert "gwnaethom ei haddo" in page
    assert "reactive" not in (page + printed).lower()
    assert "http" not in page


def test_a_text_goes_to_the_test_number_and_to_no_other(kitpost, monkeypatch, begin):
    with pytest.raises(ServiceError, match="Only to the test number"):
        kitpost("send", "all_clear", "--to-test")
    monkeypatch.setenv("KITPOST_TEST_MOBILE", "+447700900777")
    wiring().engine.dispose()
    wiring.cache_clear()
    with pytest.raises(ServiceError, match="Only to the test number"):
        kitpost("send", "all_clear")
    sender = FakeSender(name="twilio")
    with begin() as session:
        build.in_force(session)
    monkeypatch.setattr("app.wiring.Wiring.senders", {"twilio": sender})

    said = kitpost("send", "all_clear", "--to-test", "--language", "cy")

    [message] = sender.ledger
    assert message.to_e164 == "+447700900777"
    assert "neb" not in said
    assert "diweddariad" in message.body
    kitpost("stop", "--because", "wrong wording")
    with pytest.raises(ServiceError, match="Sending is stopped"):
        kitpost("send", "all_clear", "--to-test")
    with begin() as session:
        assert session.exec(select(Audit).where(Audit.action == "texts.test_sent")).one().actor.startswith("cli:")
