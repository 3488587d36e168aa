"""Texts through GOV.UK Notify, with its own Python client.

Notify keeps our reference of each attempt, so that an unsure text is looked up exactly; the reference does
not stop a second send, so nothing is ever repeated blindly here either. Its template holds one placeholder,
((message)), and nothing else: what leaves is our own words, which a first look at the template proves.
Notify deletes what it holds after seven days and has no call that blanks a text before that.

Sources: docs.notifications.service.gov.uk (REST API); alphagov/notifications-api, `app/v2` (its answers);
the client's own source, 13.0: no retries, 30 s unless told, not safe between threads.
"""

import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import requests
from notifications_python_client.errors import APIError
from notifications_python_client.notifications import NotificationsAPIClient
from requests.adapters import HTTPAdapter

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

PACE: Final = Pace(at_once=16, per_second=40.0)
"""Notify allows 3,000 requests a minute and key, look-ups included."""
PLACEHOLDER: Final = "message"
"""The one placeholder of the template: ((message))."""

STATUS: Final[dict[str, DeliveryStatus]] = {
    "created": DeliveryStatus.IN_FLIGHT,
    "sending": DeliveryStatus.IN_FLIGHT,
    "pending": DeliveryStatus.IN_FLIGHT,
    "sent": DeliveryStatus.WITH_CARRIER,
    "delivered": DeliveryStatus.DELIVERED,
    "permanent-failure": DeliveryStatus.FAILED,
    "temporary-failure": DeliveryStatus.FAILED,
    "technical-failure": DeliveryStatus.FAILED,
}
"""Notify's words as ours. Any other word is UNKNOWN and never delivered."""

FAILURES: Final = frozenset({"permanent-failure", "temporary-failure", "technical-failure"})
"""Notify gives no code for a failure: its word is the code."""

_OUR_ACCOUNT: Final = frozenset({401, 403})
_TOO_MANY: Final = 429
_NOT_FOUND: Final = 404
_BAD_REQUEST: Final = 400
_DAILY_LIMIT: Final = "TooManyRequestsError"
_ABOUT_THE_NUMBER: Final = ("phone_number", "Number", "recipient phone")
_LANDLINE: Final = "landline"
_TEAM_KEY: Final = ("team-only", "trial mode", "Can’t send to this recipient", "Can't send to this recipient")
_CHECK_WORDS: Final = "Check: the template adds nothing."


class GovukNotifySender:
    """The TextSender that speaks to GOV.UK Notify. One instance serves any number of threads."""

    name = "govuk_notify"
    remembers = timedelta(days=6)
    """Notify deletes after seven days; a day is left for a slow look-up."""

    def __init__(
        self,
        *,
        api_key: str,
        template_id: str,
        callback_token: str,
        base_url: str = "https://api.notifications.service.gov.uk",
        sender_id: str | None = None,
        secondary_callback_token: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        pace: Pace = PACE,
    ) -> None:
        keep_people_out_of_logs("notifications_python_client.base")
        self.pace = pace
        self._key, self._base_url, self._timeout = api_key, base_url, timeout_seconds
        self._template_id, self._sender_id = template_id, sender_id
        self._bearers = [f"Bearer {token}" for token in (callback_token, secondary_callback_token) if token]
        self._own = threading.local()
        self._checking = threading.Lock()
        self._template_is_bare = False
        self.http = requests.Session()
        for scheme in ("https://", "http://"):
            self.http.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS, max_retries=0))
        read_environment_once(self.http, base_url)

    def send(self, text: OutgoingText) -> Accepted:
        """Hands one text over. Raises NotSent, Refused or Unsure (see integrations.ports)."""
        self._check_template()
        try:
            answer = self._client.send_sms_notification(
                phone_number=text.to_e164,
                template_id=self._template_id,
                personalisation={PLACEHOLDER: text.body},
                reference=text.attempt_ref,
                sms_sender_id=self._sender_id,
            )
        except APIError as refusal:
            raise _verdict(refusal) from None
        except requests.RequestException as broken:
            raise Unsure(type(broken).__name__) from None
        provider_id = answer.get("id") if isinstance(answer, dict) else None
        if not provider_id:
            raise Unsure("answer_without_id")
        return Accepted(str(provider_id), DeliveryStatus.IN_FLIGHT)

    def find(self, text: OutgoingText) -> Sequence[Seen]:
        """What Notify holds under this very attempt's reference. Raises NotSent."""
        with _Asking():
            found = self._client.get_all_notifications(reference=text.attempt_ref, template_type="sms")
            return [_seen(each) for each in found["notifications"] if each["reference"] == text.attempt_ref]

    def texted_since(self, since: datetime) -> Mapping[str, str]:
        """The numbers of all texts that Notify took since an instant, by its ids. Raises NotSent."""
        with _Asking():
            found: dict[str, str] = {}
            for each in self._newest_first():
                if _at(each["created_at"]) < since:
                    break
                found[str(each["id"])] = str(each["phone_number"])
            return found

    def status(self, provider_id: str) -> Seen:
        """Notify's present word on one text. Raises NotSent, or Refused when Notify holds no such text (any more)."""
        with _Asking():
            return _seen(self._client.get_notification_by_id(provider_id))

    def redact(self, provider_id: str) -> None:
        """Notify has no such call; it deletes the text by itself after its seven days."""

    def parse_status(self, url: str, signature: str, form: Mapping[str, str]) -> StatusEvent:  # noqa: ARG002 - the port's
        """Reads one delivery receipt. `signature` is its Authorization header; `form` its JSON's members as text.

        Raises ServiceError BAD_SIGNATURE or BAD_INPUT. A replay passes: settling must be idempotent.
        """
        self._check_bearer(signature)
        attempt_ref, provider_id, status_raw = (form.get(name, "") for name in ("reference", "id", "status"))
        if not (attempt_ref and provider_id and status_raw):
            raise ServiceError(Code.BAD_INPUT, "The receipt names no attempt, no message or no status.")
        return StatusEvent(
            attempt_ref=attempt_ref,
            provider_id=provider_id,
            status=STATUS.get(status_raw, DeliveryStatus.UNKNOWN),
            status_raw=status_raw,
            error_code=status_raw if status_raw in FAILURES else None,
        )

    def parse_reply(self, url: str, signature: str, form: Mapping[str, str]) -> Reply:  # noqa: ARG002 - the port's
        """Reads one received text: JSON with `id`, `source_number` (with or without a plus) and `message`.

        So alphagov/notifications-api sends it (send_inbound_sms_to_service), with `destination_number` and
        `date_received` beside them, which say nothing that we need. Notify knows no keywords: STOP is for us to honour.
        Raises ServiceError BAD_SIGNATURE or BAD_INPUT.
        """
        self._check_bearer(signature)
        provider_id, number = form.get("id", ""), form.get("source_number", "")
        if not (provider_id and number):
            raise ServiceError(Code.BAD_INPUT, "The reply names no message or no sender.")
        return Reply(provider_id, f"+{number.removeprefix('+')}", form.get("message", ""))

    def _check_bearer(self, given: str) -> None:
        """Raises ServiceError(BAD_SIGNATURE) unless it is one of the tokens that we gave to Notify."""
        if not any([secrets.compare_digest(bearer.encode(), given.encode()) for bearer in self._bearers]):  # noqa: C419 - never stops early
            raise ServiceError(
                Code.BAD_SIGNATURE, "The receipt does not carry the bearer token that we gave to Notify."
            )

    @property
    def _client(self) -> Any:
        """One thread's own client, over the connections that all share: Notify's client is not safe between threads."""
        client = getattr(self._own, "client", None)
        if client is None:
            client = NotificationsAPIClient(  # type: ignore[no-untyped-call] # Notify ships no types
                self._key, base_url=self._base_url, timeout=self._timeout
            )
            client.request_session = self.http
            self._own.client = client
        return client

    def _check_template(self) -> None:
        """Before a process's first text: the template and the service's settings add nothing to our words.

        Raises NotSent with an alarm where they do: a prefix with the service's name would stand on lock screens.
        """
        with self._checking:
            if self._template_is_bare:
                return
            try:
                shown = self._client.post_template_preview(self._template_id, {PLACEHOLDER: _CHECK_WORDS})
            except APIError as refusal:
                raise NotSent(_code(refusal), alarm=refusal.status_code in {*_OUR_ACCOUNT, _NOT_FOUND}) from None
            except requests.RequestException as broken:
                raise NotSent(type(broken).__name__) from None
            if not isinstance(shown, dict) or shown.get("body") != _CHECK_WORDS:
                raise NotSent("template_adds_words", alarm=True)
            self._template_is_bare = True

    def _newest_first(self) -> Iterator[Mapping[str, Any]]:
        older_than = None
        while True:
            page = self._client.get_all_notifications(template_type="sms", older_than=older_than)["notifications"]
            yield from page
            if not page:
                return
            older_than = page[-1]["id"]


class _Asking:
    """Turns the failures of a question, which changes nothing at Notify, into NotSent or Refused."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, APIError):
            if error.status_code == _NOT_FOUND:
                raise Refused(_code(error), RefusalKind.UNKNOWN_CODE) from None
            raise NotSent(_code(error), alarm=error.status_code in _OUR_ACCOUNT) from None
        if isinstance(error, requests.RequestException):
            raise NotSent(type(error).__name__) from None
        if isinstance(error, (ValueError, TypeError, KeyError, AttributeError)):
            raise NotSent("unreadable_answer") from None


def _verdict(error: APIError) -> NotSent | Refused | Unsure:
    """What a refused send means. The status decides first: a 5xx, or none at all, may have sent."""
    code, words = _code(error), str(error.message)
    if never_connected(error.__cause__):
        return NotSent("no_connection")
    if error.status_code == _TOO_MANY:
        return NotSent(code, alarm=code == _DAILY_LIMIT)
    if error.status_code in _OUR_ACCOUNT or any(word in words for word in _TEAM_KEY):
        return NotSent(code, alarm=True)
    if error.status_code != _BAD_REQUEST:
        return Unsure(code)
    if _LANDLINE in words:
        return Refused(code, RefusalKind.LANDLINE)
    if any(word in words for word in _ABOUT_THE_NUMBER):
        return Refused(code, RefusalKind.BAD_NUMBER)
    if "template" in words.lower() or "personalisation" in words.lower():
        return NotSent(code, alarm=True)
    if "content" in words.lower() or "characters" in words.lower():
        return Refused(code, RefusalKind.CONTENT)
    return Refused(code, RefusalKind.UNKNOWN_CODE)


def _code(error: APIError) -> str:
    """Notify's word for an error, or the status. Its message is left behind: it may quote what was sent."""
    message = error.message
    if isinstance(message, list) and message and isinstance(message[0], dict):
        return str(message[0].get("error", error.status_code))
    return str(error.status_code)


def _seen(notification: Mapping[str, Any]) -> Seen:
    status = str(notification["status"])
    return Seen(
        provider_id=str(notification["id"]),
        status=STATUS.get(status, DeliveryStatus.UNKNOWN),
        status_raw=status,
        error_code=status if status in FAILURES else None,
        created_at=_at(notification["created_at"]),
    )


def _at(written: str) -> datetime:
    """An instant as Notify writes it: 2026-11-24T12:00:00.000000Z."""
    return datetime.fromisoformat(written)
