"""Royal Mail's Tracking API v2, polled: where our return parcels are.

One `summary` call answers for up to 30 numbers with the last event of each; those that moved are then
asked for all their events. The product never says who a parcel is from. Source: sms-and-post.md B1.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import httpx

from integrations.ports import NotSent, Scan, ScanKind

MOST_AT_ONCE: Final = 30
"""Numbers in one summary call (sms-and-post.md B1)."""

TIMEOUT_SECONDS: Final = 15.0

_CODES: Final[Mapping[ScanKind, str]] = {
    ScanKind.LABELLED: "EVAIE EVAIP",
    ScanKind.IN_NETWORK: "EVBAH EVDAC EVDAV EVIAV EVIMC EVGMI EVIPI EVNMI",
    ScanKind.OUT_FOR_DELIVERY: "EVGPD",
    ScanKind.DELIVERED: "EVKSP EVKOP EVKSF EVKDN EVNOC EVPLC",
    ScanKind.ATTEMPTED: "EVKNA EVNDA EVKAA EVNAA EVNDN EVKSU EVNKS EVNRT EVNAR EVKLC",
    ScanKind.RETURNING: "EVKAI EVKGA EVNGA EVKRF EVNRF",
    ScanKind.RETURNED_TO_SENDER: "EVRTS",
}
KIND_OF: Final[Mapping[str, ScanKind]] = {code: kind for kind, codes in _CODES.items() for code in codes.split()}
"""Royal Mail's event codes in our words (sms-and-post.md B1). A code that is not here is UNKNOWN, kept as it is."""

_REFUSES_US: Final = frozenset({401, 403, 404})
"""Wrong credentials, or a wrong address."""

_NO_SUCH_NUMBER: Final = 404
_TOO_MANY: Final = 429
_OK: Final = 200


class RoyalMailTracker:
    """Asks Royal Mail. Never retries: the parcel is asked about again in the next run."""

    def __init__(self, base_url: str, client_id: str, client_secret: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._headers = {
            "Accept": "application/json",
            "X-IBM-Client-Id": client_id,
            "X-IBM-Client-Secret": client_secret,
        }

    def scans(self, tracking_numbers: Sequence[str]) -> Sequence[Scan]:
        """All events known for up to 30 numbers, as Royal Mail tells them: doubled and in any order.

        Raises NotSent when it can't be asked now, with an alarm when it refuses us or can't be understood.
        """
        if not tracking_numbers:
            return []
        if len(tracking_numbers) > MOST_AT_ONCE:
            raise ValueError(f"at most {MOST_AT_ONCE} numbers at once")
        found: list[Scan] = []
        with httpx.Client(base_url=self._base_url, headers=self._headers, timeout=TIMEOUT_SECONDS) as client:
            for number in _moved(client, tracking_numbers):
                answer = _ask(client, f"/{number}/events")
                if answer is not None:
                    found += _read(partial(_events, answer, number))
        return found


def _moved(client: httpx.Client, numbers: Sequence[str]) -> list[str]:
    """Those of the numbers with an event that says more than that their label was made."""
    answer = _ask(client, "/summary", {"mailPieceId": ",".join(numbers)}) or {"mailPieces": []}
    last = _read(lambda: dict(_last_codes(answer)))
    return [number for number in numbers if number in last and KIND_OF.get(last[number]) is not ScanKind.LABELLED]


def _ask(client: httpx.Client, path: str, params: Mapping[str, str] | None = None) -> Any:
    """One answer, or None where Royal Mail has not seen the number yet."""
    try:
        answer = client.get(path, params=params)
    except httpx.HTTPError as error:
        raise NotSent(type(error).__name__) from error
    if answer.status_code == _NO_SUCH_NUMBER and _is_of_the_api(answer):
        return None
    if answer.status_code != _OK:
        raise NotSent(str(answer.status_code), _retry_after(answer), alarm=answer.status_code in _REFUSES_US)
    return _read(answer.json)


def _is_of_the_api(answer: httpx.Response) -> bool:
    """Whether an error is the API's own: a wrong address answers 404 too, and would make every parcel unseen."""
    try:
        return bool(answer.json()["errors"][0]["errorCode"])
    except (ValueError, KeyError, TypeError, IndexError):
        return False


def _last_codes(answer: Any) -> Iterator[tuple[str, str]]:
    for piece in answer["mailPieces"]:
        if "summary" in piece:  # else an error of this number alone: not seen yet
            yield piece["mailPieceId"], piece["summary"]["lastEventCode"]


def _events(answer: Any, number: str) -> list[Scan]:
    return [
        Scan(number, KIND_OF.get(code, ScanKind.UNKNOWN), code, _instant(event["eventDateTime"]))
        for event in answer["mailPieces"]["events"]
        for code in [str(event["eventCode"])]
    ]


def _instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("an event's time has no zone")
    return at.astimezone(UTC)


def _retry_after(answer: httpx.Response) -> float | None:
    told = answer.headers.get("Retry-After", "")
    return float(told) if answer.status_code == _TOO_MANY and told.isdigit() else None


def _read(reading: Any) -> Any:
    """Runs one reading of an answer; what is not of the documented shape is no answer."""
    try:
        return reading()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotSent("unreadable", alarm=True) from error
