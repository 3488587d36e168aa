"""Texts through Twilio's Messages API, with Twilio's own client.

Twilio has no idempotency key, so what comes back is sorted by one question: may it have gone?
Only a refused connection, a 429 and a coded refusal prove that it has not. A timeout, a dropped
connection, a 5xx or an answer without an id is Unsure: the text is looked up, never sent again blindly.

Measured on twilio-python 9.13 (sms-and-post.md A1, A2): the client's timeout is none unless given; its
async client repeats POSTs; its log prints numbers; its exceptions quote them.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter
from twilio.base.exceptions import TwilioException, TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.request_validator import RequestValidator
from twilio.rest import Client
from twilio.rest.api.v2010.account.message import MessageInstance

from integrations.ports import (
    Accepted,
    NotSent,
    OutgoingText,
    Pace,
    RefusalKind,
    Refused,
    Reply,
    Seen,
    StatusEvent,
    Unsure,
)
from integrations.texts.connection import (
    CONNECTIONS,
    TIMEOUT_SECONDS,
    keep_people_out_of_logs,
    never_connected,
    read_environment_once,
)
from models.rules.errors import Code, ServiceError
from models.rules.vocabulary import DeliveryStatus

PACE: Final = Pace(at_once=32, per_second=300.0)
"""More is answered with 20429 or waits in Twilio's own queue. An account may be allowed less."""
VALIDITY_SECONDS: Final = 36_000
"""How late a queued text may still go out: Twilio's longest, ten hours. Bounds how long an unsure text stays unsure."""
LOOK_BACK: Final = 20
"""How many texts to one number are looked through. Nobody gets that many in a validity period."""
PAGE: Final = 1_000
"""The most that Twilio lists at once."""
CALLBACK_PATH: Final = "/callbacks/twilio/status"

STATUS: Final[dict[str, DeliveryStatus]] = {
    "accepted": DeliveryStatus.IN_FLIGHT,
    "scheduled": DeliveryStatus.IN_FLIGHT,
    "queued": DeliveryStatus.IN_FLIGHT,
    "sending": DeliveryStatus.IN_FLIGHT,
    "sent": DeliveryStatus.WITH_CARRIER,
    "delivered": DeliveryStatus.DELIVERED,
    "read": DeliveryStatus.DELIVERED,
    "undelivered": DeliveryStatus.FAILED,
    "failed": DeliveryStatus.FAILED,
    "canceled": DeliveryStatus.CANCELLED,
}
"""Twilio's words as ours. Any other word, `partially_delivered` included, is UNKNOWN and never delivered."""

REFUSALS: Final[dict[int, RefusalKind]] = {
    21211: RefusalKind.BAD_NUMBER,  # invalid To
    21214: RefusalKind.BAD_NUMBER,  # To can't be reached
    21217: RefusalKind.BAD_NUMBER,  # To does not look like a number
    21602: RefusalKind.CONTENT,  # body missing
    21605: RefusalKind.CONTENT,  # body over the maximum length
    21610: RefusalKind.OPTED_OUT,  # the person sent STOP
    21612: RefusalKind.CONFIGURATION,  # this sender can't reach this number
    21614: RefusalKind.LANDLINE,  # not a mobile
    21617: RefusalKind.CONTENT,  # body over 1,600 characters
    21635: RefusalKind.LANDLINE,  # a landline
}
"""Codes that no later try can change: the text goes to a person."""

HOLDS: Final[frozenset[int]] = frozenset(
    {
        20003,  # credentials
        20404,  # account not found
        21408,  # no permission for the country
        21606,  # sender not ours
        21608,  # trial account
        21703,  # messaging service without a sender
        21705,  # messaging service unknown
        30002,  # account suspended
        30029,  # content retention not enabled
        30030,  # address retention not enabled
        30034,  # US registration, never for the UK
        63038,  # the account's daily limit
    }
)
"""Codes that are the service's fault, not the person's: nothing was sent, hold everything and ring the alarm."""

TRY_LATER: Final[frozenset[int]] = frozenset({20429, 21611})
"""Too many at once, or a full queue: never processed, safe to send again later."""

_NOT_ALLOWED: Final = frozenset({401, 403})
_TOO_MANY: Final = 429
_NOT_FOUND: Final = 404
_CLIENT_ERRORS: Final = range(400, 500)


class RebasedHttpClient(TwilioHttpClient):  # type: ignore[misc] # twilio ships no types
    """Twilio's HTTP client, pointed at another base URL. One connection pool, a timeout, no retries."""

    def __init__(self, base_url: str, timeout_seconds: float) -> None:
        super().__init__(timeout=timeout_seconds)
        self._base = urlsplit(base_url)
        self.session.mount(f"{self._base.scheme}://", HTTPAdapter(pool_maxsize=CONNECTIONS, max_retries=0))
        read_environment_once(self.session, base_url)

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        """As Twilio's own, with scheme, host and port of the base URL."""
        asked = urlsplit(url)
        path = self._base.path.rstrip("/") + asked.path
        rebased = urlunsplit((self._base.scheme, self._base.netloc, path, asked.query, ""))
        return super().request(method, rebased, *args, **kwargs)


class TwilioSender:
    """The TextSender that speaks to Twilio. One instance serves any number of threads."""

    name = "twilio"
    remembers = timedelta(days=365)
    """Twilio keeps a message's record for thirteen months."""

    def __init__(
        self,
        *,
        account_sid: str,
        auth_token: str,
        messaging_service_sid: str,
        public_base_url: str,
        base_url: str = "https://api.twilio.com",
        secondary_auth_token: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        pace: Pace = PACE,
    ) -> None:
        self.pace = pace
        keep_people_out_of_logs("twilio.http_client")
        self.http = RebasedHttpClient(base_url, timeout_seconds)
        self._client = Client(account_sid, auth_token, http_client=self.http)
        self._messaging_service_sid = messaging_service_sid
        self._callback_url = public_base_url.rstrip("/") + CALLBACK_PATH
        self._validators = [RequestValidator(token) for token in (auth_token, secondary_auth_token) if token]

    def send(self, text: OutgoingText) -> Accepted:
        """Hands one text over. Raises NotSent, Refused or Unsure (see integrations.ports)."""
        try:
            message = self._client.messages.create(
                to=text.to_e164,
                body=text.body,
                messaging_service_sid=self._messaging_service_sid,
                status_callback=f"{self._callback_url}?a={quote(text.attempt_ref, safe='')}",
                validity_period=VALIDITY_SECONDS,
                smart_encoded=False,
            )
        except TwilioRestException as refusal:
            raise _verdict(refusal) from None
        except requests.RequestException as broken:
            raise (NotSent("no_connection") if never_connected(broken) else Unsure(type(broken).__name__)) from None
        except (TwilioException, ValueError, TypeError, KeyError, AttributeError):
            raise Unsure("unreadable_answer") from None
        if not message.sid:
            raise Unsure("answer_without_id")
        return Accepted(message.sid, STATUS.get(str(message.status), DeliveryStatus.UNKNOWN))

    def find(self, text: OutgoingText) -> Sequence[Seen]:
        """The texts that Twilio holds with this number and this very body, newest first. Raises NotSent.

        Twilio filters by the date of sending, which may be null, so dates are left to the caller:
        compare `created_at` with the start of the attempt. Listing lags behind acceptance.
        """
        with _Asking():
            held = self._client.messages.list(to=text.to_e164, limit=LOOK_BACK)
            return [_seen(each) for each in held if each.direction == "outbound-api" and each.body == text.body]

    def texted_since(self, since: datetime) -> Mapping[str, str]:
        """The numbers of all texts that Twilio took since an instant, by its ids. Raises NotSent.

        Texts whose words are blanked are among them. The list is asked for without dates (see `find`), newest first.
        """
        with _Asking():
            found: dict[str, str] = {}
            for each in self._client.messages.stream(page_size=PAGE):
                if each.date_created is not None and each.date_created < since:
                    break
                if each.direction == "outbound-api":
                    found[str(each.sid)] = str(each.to)
            return found

    def status(self, provider_id: str) -> Seen:
        """Twilio's present word on one text. Raises NotSent, or Refused when Twilio knows no such text."""
        with _Asking():
            return _seen(self._client.messages(provider_id).fetch())

    def redact(self, provider_id: str) -> None:
        """Blanks the body at Twilio; a text that is gone there is blank enough. Raises NotSent."""
        try:
            with _Asking():
                self._client.messages(provider_id).update(body="")
        except Refused:
            return

    def parse_status(self, url: str, signature: str, form: Mapping[str, str]) -> StatusEvent:
        """Reads one status callback. The signature covers the public URL and every field, blank ones included.

        Raises ServiceError BAD_SIGNATURE or BAD_INPUT. A replay passes: settling must be idempotent.
        """
        fields = self._signed(url, signature, form)
        attempt_ref = parse_qs(urlsplit(url).query).get("a", [""])[0]
        provider_id, status_raw = fields.get("MessageSid", ""), fields.get("MessageStatus", "")
        if not (attempt_ref and provider_id and status_raw):
            raise ServiceError(Code.BAD_INPUT, "The callback names no attempt, no message or no status.")
        return StatusEvent(
            attempt_ref=attempt_ref,
            provider_id=provider_id,
            status=STATUS.get(status_raw, DeliveryStatus.UNKNOWN),
            status_raw=status_raw,
            error_code=fields.get("ErrorCode") or None,
        )

    def parse_reply(self, url: str, signature: str, form: Mapping[str, str]) -> Reply:
        """Reads one text that came back. `OptOutType` says what Twilio has done about STOP, START or HELP itself.

        Raises ServiceError BAD_SIGNATURE or BAD_INPUT. A replay passes: the message's id is kept once.
        """
        fields = self._signed(url, signature, form)
        provider_id, from_e164 = fields.get("MessageSid", ""), fields.get("From", "")
        if not (provider_id and from_e164):
            raise ServiceError(Code.BAD_INPUT, "The reply names no message or no sender.")
        return Reply(provider_id, from_e164, fields.get("Body", ""), fields.get("OptOutType", ""))

    def _signed(self, url: str, signature: str, form: Mapping[str, str]) -> dict[str, str]:
        """The fields of a callback that was signed with one of our tokens. Raises ServiceError(BAD_SIGNATURE)."""
        fields = dict(form)
        if not any(validator.validate(url, fields, signature or "") for validator in self._validators):
            raise ServiceError(Code.BAD_SIGNATURE, "The callback is not signed with our Twilio account's token.")
        return fields


class _Asking:
    """Turns the failures of a question, which changes nothing at Twilio, into NotSent or Refused."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TwilioRestException):
            if error.status == _NOT_FOUND:
                raise Refused(_code(error), RefusalKind.UNKNOWN_CODE) from None
            raise NotSent(_code(error), alarm=error.status in _NOT_ALLOWED) from None
        if isinstance(error, requests.RequestException):
            raise NotSent(type(error).__name__) from None
        if isinstance(error, (TwilioException, ValueError, TypeError, KeyError, AttributeError)):
            raise NotSent("unreadable_answer") from None


def _verdict(error: TwilioRestException) -> NotSent | Refused | Unsure:
    """What a refused create means. The status decides first: a 5xx may have sent, whatever code it carries."""
    code = _code(error)
    if error.status == _TOO_MANY or (error.status in _CLIENT_ERRORS and error.code in TRY_LATER):
        return NotSent(code)
    if error.status not in _CLIENT_ERRORS:
        return Unsure(code)
    if error.status in _NOT_ALLOWED or error.code in HOLDS:
        return NotSent(code, alarm=True)
    return Refused(code, REFUSALS.get(error.code, RefusalKind.UNKNOWN_CODE))


def _code(error: TwilioRestException) -> str:
    """Twilio's number for an error. Its message is left behind: it quotes the person's number."""
    return str(error.code or error.status)


def _seen(message: MessageInstance) -> Seen:
    status = str(message.status)
    return Seen(
        provider_id=str(message.sid),
        status=STATUS.get(status, DeliveryStatus.UNKNOWN),
        status_raw=status,
        error_code=str(message.error_code) if message.error_code else None,
        created_at=message.date_created,
    )
