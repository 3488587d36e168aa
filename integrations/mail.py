"""E-mail over SMTP: notices to the service's own staff. Residents are never written to.

What may have gone is told from what has not: until the server was given the message nothing left; between that and its
answer it may have.
"""

import smtplib
import ssl
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, parseaddr
from typing import Final

from integrations.ports import NotSent, OutgoingMail, RefusalKind, Refused, Unsure

TIMEOUT_SECONDS: Final = 15.0
_TRY_LATER: Final = range(400, 500)
_OK: Final = range(200, 300)


class SmtpPost:
    """The MailSender that speaks to an SMTP server, one connection a message."""

    def __init__(
        self, host: str, port: int, *, sender: str, user: str = "", password: str = "", over_tls: bool = True
    ) -> None:
        self._host, self._port, self._sender = host, port, sender
        self._user, self._password, self._over_tls = user, password, over_tls

    def send(self, mail: OutgoingMail) -> None:
        """Hands one e-mail over. Errors name codes and kinds: a server's own words may quote the address."""
        message = self._message(mail)
        try:
            server = smtplib.SMTP(self._host, self._port, timeout=TIMEOUT_SECONDS)
        except (OSError, smtplib.SMTPException) as error:
            raise NotSent(type(error).__name__) from None
        try:
            self._enter(server)
            self._address(server, mail.to)
            self._hand_over(server, message)
        finally:
            server.close()

    def _enter(self, server: smtplib.SMTP) -> None:
        try:
            if self._over_tls:
                server.starttls(context=ssl.create_default_context())
            server.ehlo_or_helo_if_needed()
            if self._user:
                server.login(self._user, self._password)
        except (OSError, smtplib.SMTPException) as error:
            raise NotSent(type(error).__name__, alarm=True) from None

    def _address(self, server: smtplib.SMTP, to: str) -> None:
        try:
            for code, _ in (server.mail(parseaddr(self._sender)[1]), server.rcpt(to)):
                if code in _TRY_LATER:
                    raise NotSent(str(code))
                if code not in _OK:
                    raise Refused(str(code), RefusalKind.CONFIGURATION)
        except (OSError, smtplib.SMTPException) as error:
            raise NotSent(type(error).__name__) from None

    def _hand_over(self, server: smtplib.SMTP, message: EmailMessage) -> None:
        try:
            code, _ = server.data(message.as_bytes(policy=SMTP))
        except smtplib.SMTPDataError as error:
            code = error.smtp_code
        except (OSError, smtplib.SMTPException) as error:
            raise Unsure(type(error).__name__) from None
        if code in _TRY_LATER:
            raise NotSent(str(code))
        if code not in _OK:
            raise Refused(str(code), RefusalKind.CONTENT)

    def _message(self, mail: OutgoingMail) -> EmailMessage:
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = self._sender, mail.to, mail.subject
        message["Date"] = formatdate(localtime=False)
        message["Message-ID"] = f"<{mail.ref}@{parseaddr(self._sender)[1].rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(mail.body)
        return message
