"""Couriers that tell us instead of being asked: a signed JSON event, in the shape that EasyPost sends.

The signature is an HMAC-SHA256 over the raw body, in hex, in `X-Hmac-Signature`, under a secret that is
NFKD-normalised first (sms-and-post.md B1). The same event may come many times and late.
"""

import hmac
import json
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from integrations.ports import Scan
from models.rules.errors import Code, ServiceError
from models.rules.vocabulary import ScanKind

SIGNATURE_HEADER: Final = "X-Hmac-Signature"
_SCHEME: Final = "hmac-sha256-hex="
_LONGEST_CODE: Final = 20

KIND_OF: Final[Mapping[str, ScanKind]] = {
    "pre_transit": ScanKind.LABELLED,
    "in_transit": ScanKind.IN_NETWORK,
    "out_for_delivery": ScanKind.OUT_FOR_DELIVERY,
    "available_for_pickup": ScanKind.ATTEMPTED,
    "delivered": ScanKind.DELIVERED,
    "return_to_sender": ScanKind.RETURNING,
}
"""EasyPost's tracker statuses in our words. `failure`, `error`, `cancelled`, `unknown` and new ones go to a person."""


class CourierWebhook:
    """Checks and reads events. `secrets` are the live one and, while it is changed, the one before."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._keys = [unicodedata.normalize("NFKD", secret).encode() for secret in secrets]

    def check(self, signature: str, body: bytes) -> None:
        """Raises ServiceError(BAD_SIGNATURE) unless the body was signed with a secret of ours."""
        given = signature.removeprefix(_SCHEME).encode()
        made = (hmac.new(key, body, "sha256").hexdigest().encode() for key in self._keys)
        if not any(hmac.compare_digest(each, given) for each in made):
            raise ServiceError(Code.BAD_SIGNATURE, "This event is not signed with our secret.")

    def event_id(self, body: bytes) -> str:
        """The courier's own id of an event. Raises ServiceError(BAD_INPUT) where there is none."""
        found = _event(body).get("id")
        if not isinstance(found, str) or not 0 < len(found) <= 80:  # noqa: PLR2004 - an id, not a text
            raise ServiceError(Code.BAD_INPUT, "The event has no id.")
        return found

    def scans(self, body: bytes) -> list[Scan]:
        """What an event says of its parcel; nothing for events that are not about one.

        Raises ServiceError(BAD_INPUT) for an event that is not of the documented shape.
        """
        tracker = _event(body).get("result")
        if not isinstance(tracker, dict) or tracker.get("object") != "Tracker":
            return []
        try:
            number = str(tracker["tracking_code"]).replace(" ", "").upper()
            return [
                Scan(number, KIND_OF.get(code, ScanKind.UNKNOWN), code[:_LONGEST_CODE], _instant(each["datetime"]))
                for each in tracker["tracking_details"]
                for code in [str(each["status"])]
            ]
        except (KeyError, TypeError, ValueError):
            raise ServiceError(Code.BAD_INPUT, "The event's tracker can't be read.") from None


def _event(body: bytes) -> dict[str, Any]:
    try:
        event = json.loads(body)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise ServiceError(Code.BAD_INPUT, "The event is not a JSON object.")
    return event


def _instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("an event's time has no zone")
    return at.astimezone(UTC)
