"""Tells a clinic's system that a referral waits: a signed webhook that names an opaque reference and nothing else.

Signed as the Standard Webhooks specification says (id, timestamp and body under HMAC-SHA-256), so that receivers may
use its libraries. The id is the referral's own: whoever hears it twice knows that it is the same.
"""

import base64
import hashlib
import hmac
import json
from datetime import datetime
from typing import Final

import httpx

from integrations.ports import NotSent, RefusalKind, Refused

TIMEOUT_SECONDS: Final = 10.0
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what marks a secret in that specification
_OK: Final = range(200, 300)
_AGAIN: Final = frozenset({408, 425, 429})
_SERVER_ERRORS: Final = range(500, 600)


class SignedBell:
    """The ClinicBell of one address and secret. Never follows a redirect, never retries. Close it."""

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        self._key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
        self._http = httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=False)

    def close(self) -> None:
        """Ends the connections."""
        self._http.close()

    def ring(self, ref: str, made_at: datetime, *, now: datetime) -> None:
        """Rings once. Raises NotSent where it may be heard later, and Refused where it will not be.

        `now` is machine time: receivers refuse an old signature.
        """
        told = {"type": "referral.made", "timestamp": made_at.isoformat(), "data": {"referral": ref}}
        body = json.dumps(told, separators=(",", ":")).encode()
        stamp = str(int(now.timestamp()))
        headers = {
            "Content-Type": "application/json",
            "webhook-id": ref,
            "webhook-timestamp": stamp,
            "webhook-signature": f"v1,{self._signature(ref, stamp, body)}",
        }
        try:
            status = self._http.post(self._url, content=body, headers=headers).status_code
        except httpx.HTTPError as error:
            raise NotSent(type(error).__name__) from None
        if status in _AGAIN or status in _SERVER_ERRORS:
            raise NotSent(str(status))
        if status not in _OK:
            raise Refused(str(status), RefusalKind.CONFIGURATION)

    def _signature(self, ref: str, stamp: str, body: bytes) -> str:
        signed = b".".join((ref.encode(), stamp.encode(), body))
        return base64.b64encode(hmac.new(self._key, signed, hashlib.sha256).digest()).decode()
