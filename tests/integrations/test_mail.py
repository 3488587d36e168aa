"""E-mails to staff on duty, spoken to a mail server on loopback."""

import pytest

from integrations.mail import SmtpPost
from integrations.ports import NotSent, OutgoingMail, Refused, Unsure
from tests.support.smtp import mail_server

MAIL = OutgoingMail("0f" * 16, "duty@clinic.example", "2 cases past due", "Please look at the worklist.\n")


@pytest.fixture
def server():
    with mail_server() as found:
        yield found


@pytest.fixture
def post(server):
    return SmtpPost(*server.server_address, sender="Larkfield <notices@larkfield.example>", over_tls=False)


def test_an_e_mail_arrives_with_its_words_and_a_name_that_a_second_copy_would_share(server, post):
    post.send(MAIL)
    [taken] = server.taken
    assert (taken["To"], taken["Subject"], taken["From"]) == (
        "duty@clinic.example",
        "2 cases past due",
        "Larkfield <notices@larkfield.example>",
    )
    assert taken["Message-ID"] == f"<{MAIL.ref}@larkfield.example>"
    assert taken["Auto-Submitted"] == "auto-generated"
    assert taken.get_content() == "Please look at the worklist.\r\n"


@pytest.mark.parametrize(
    ("word", "answer", "verdict"),
    [
        ("RCPT", "550 no such box duty@clinic.example", Refused),
        ("RCPT", "451 later", NotSent),
        ("RCPT", "hang up", NotSent),
        ("MAIL", "421 busy", NotSent),
        ("DATA", "451 later", NotSent),
        (".", "452 later", NotSent),
        (".", "554 spam: Please look", Refused),
        (".", "hang up", Unsure),
    ],
)
def test_what_a_server_says_proves_what_happened(server, post, word, answer, verdict):
    server.wrong = {word: answer}
    with pytest.raises(verdict) as told:
        post.send(MAIL)
    assert "duty@" not in told.value.code
    assert "look" not in told.value.code
    assert server.taken == []


def test_nobody_there_means_not_sent():
    with pytest.raises(NotSent):
        SmtpPost("127.0.0.1", 9, sender="a@b.example", over_tls=False).send(MAIL)


def test_without_encryption_nothing_is_said_to_a_server_that_was_to_have_it(server):
    post = SmtpPost(*server.server_address, sender="a@b.example", user="us", password="swordfish")
    with pytest.raises(NotSent) as told:
        post.send(MAIL)
    assert told.value.alarm
    assert server.taken == []


def test_an_address_does_not_show_when_an_e_mail_is_printed():
    assert "clinic" not in repr(MAIL)
