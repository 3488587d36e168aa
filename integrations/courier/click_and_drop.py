"""Postage from Royal Mail's Click & Drop, parcel by parcel, labels in the answer.

There is no idempotency key, but an order can be asked for by our own reference: what may have been made is found,
never made again blindly. Contents, special instructions and the recipient's phone and e-mail stay empty, and Royal
Mail's own notices are off: they would name the sender to whoever reads along (sms-and-post.md B1; FEATURES 20).
"""

import base64
import binascii
from collections.abc import Callable
from datetime import UTC
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

import httpx

from integrations.ports import Bought, NotSent, Posting, RefusalKind, Refused, Unsure

Answer = TypeVar("Answer")

TIMEOUT_SECONDS: Final = 15.0
COUNTRY: Final = "GB"
PDF: Final = b"%PDF-"

_NOT_ALLOWED: Final = frozenset({401, 403})
_OK: Final = 200
_NOT_FOUND: Final = 404
_TOO_MANY: Final = 429
_CLIENT_ERRORS: Final = range(400, 500)


class ClickAndDrop:
    """The PostageSeller that speaks to Click & Drop. Never retries. Close it, or use it as a context manager."""

    def __init__(self, base_url: str, key: str) -> None:
        self._http = httpx.Client(
            base_url=base_url.rstrip("/"),
            headers={"Authorization": f"Bearer {key}", "Accept": "application/json"},
            timeout=TIMEOUT_SECONDS,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections."""
        self._http.close()

    def buy(self, posting: Posting) -> Bought:
        """One order with its label. Raises NotSent, Refused (`code` holds field names, never values) or Unsure."""
        try:
            answer = self._http.post("/orders", json={"items": [self._order(posting)]})
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NotSent(type(error).__name__) from None
        except httpx.HTTPError as error:
            raise Unsure(type(error).__name__) from None
        _raise_for_refusal(answer)
        if answer.status_code == _NOT_FOUND:
            raise NotSent("404", alarm=True)  # a wrong address: nobody there takes orders
        if answer.status_code != _OK:
            raise Unsure(str(answer.status_code))
        return _read(lambda: _created(answer.json(), posting.reference), Unsure("unreadable"))

    def find(self, reference: str) -> Bought | None:
        """The order that carries our reference. Raises NotSent, or Refused where there are two: a person must look."""
        quoted = quote(f'"{reference}"', safe="")
        answer = self._ask("GET", f"/orders/{quoted}")
        if answer.status_code == _NOT_FOUND:
            return None
        found = _read(
            lambda: [_bought(each) for each in answer.json() if each.get("orderReference") == reference],
            NotSent("unreadable", alarm=True),
        )
        if len(found) > 1:
            raise Refused("twice", RefusalKind.CONTENT)
        return found[0] if found else None

    def label(self, courier_id: str, *, with_return: bool) -> bytes:
        """The labels of one order. Raises NotSent, or Refused where the account has none by API."""
        wanted = {"documentType": "postageLabel", "includeReturnsLabel": str(with_return).lower()}
        answer = self._ask("GET", f"/orders/{int(courier_id)}/label", params=wanted, accept="application/pdf")
        if answer.status_code == _NOT_FOUND:
            raise Refused("404", RefusalKind.CONTENT)
        if not answer.content.startswith(PDF):
            raise NotSent("unreadable", alarm=True)
        return answer.content

    def cancel(self, courier_id: str) -> None:
        """Deletes one order. Raises NotSent, or Refused where Click & Drop keeps it: then a person must."""
        answer = self._ask("DELETE", f"/orders/{int(courier_id)}")
        if answer.status_code == _NOT_FOUND:
            return
        gone = _read(
            lambda: {str(each["orderIdentifier"]) for each in answer.json().get("deletedOrders") or []},
            NotSent("unreadable", alarm=True),
        )
        if courier_id not in gone:
            raise Refused("kept", RefusalKind.CONTENT)

    def _order(self, posting: Posting) -> dict[str, Any]:
        chosen = posting.policy
        lines = {f"addressLine{number}": line for number, line in enumerate(posting.to.lines, start=1)}
        order: dict[str, Any] = {
            "orderReference": posting.reference,
            "orderDate": posting.ordered_at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "recipient": {
                "address": {
                    "fullName": posting.to.name,
                    **lines,
                    "city": posting.to.town,
                    "postcode": posting.to.postcode,
                    "countryCode": COUNTRY,
                }
            },
            "packages": [{"weightInGrams": chosen.weight_grams, "packageFormatIdentifier": chosen.format}],
            "postageDetails": {"receiveEmailNotification": False, "receiveSmsNotification": False},
            "subtotal": 0,
            "shippingCostCharged": 0,
            "total": 0,
            "label": {"includeLabelInResponse": chosen.labels, "includeReturnsLabel": chosen.return_labels},
        }
        if chosen.service_code:
            order["postageDetails"]["serviceCode"] = chosen.service_code
        if chosen.sender_name:
            order["sender"] = {"tradingName": chosen.sender_name}
        return order

    def _ask(self, method: str, path: str, *, accept: str = "application/json", **kwargs: Any) -> httpx.Response:
        """One question or deletion, which may be repeated. Raises NotSent or Refused; 200 and 404 come back."""
        try:
            answer = self._http.request(method, path, headers={"Accept": accept}, **kwargs)
        except httpx.HTTPError as error:
            raise NotSent(type(error).__name__) from None
        if answer.status_code in {_OK, _NOT_FOUND}:
            return answer
        _raise_for_refusal(answer)
        raise NotSent(str(answer.status_code))


def _raise_for_refusal(answer: httpx.Response) -> None:
    """What proves that nothing was done. The answer's words are left behind: they may quote the address."""
    code = str(answer.status_code)
    if answer.status_code == _TOO_MANY:
        told = answer.headers.get("Retry-After", "")
        raise NotSent(code, float(told) if told.isdigit() else None)
    if answer.status_code in _NOT_ALLOWED:
        raise NotSent(code, alarm=True)
    if answer.status_code in _CLIENT_ERRORS and answer.status_code != _NOT_FOUND:
        raise Refused(code, RefusalKind.CONTENT)


def _created(answer: Any, reference: str) -> Bought:
    for order in answer.get("createdOrders") or []:
        if order.get("orderReference") == reference:
            return _bought(order)
    for failed in answer.get("failedOrders") or []:
        raise Refused(_named(failed.get("errors") or []), RefusalKind.CONTENT)
    raise ValueError("the answer neither made nor refused the order")


def _named(errors: list[dict[str, Any]]) -> str:
    """Numbers and field names of errors: 'Recipient.Address.City'. Their values and messages quote the person."""
    names = [str(each["fieldName"]).rpartition(".")[2] for error in errors for each in error.get("fields") or []]
    codes = [str(int(error["errorCode"])) for error in errors if "errorCode" in error]
    return " ".join(sorted(set(names)) or sorted(set(codes))) or "refused"


def _bought(order: dict[str, Any]) -> Bought:
    return Bought(str(int(order["orderIdentifier"])), order.get("trackingNumber") or "", _pdf(order.get("label")))


def _pdf(label: str | None) -> bytes:
    try:
        plain = base64.b64decode(label or "", validate=True)
    except binascii.Error:
        return b""
    return plain if plain.startswith(PDF) else b""  # a label that can't be read is asked for again


def _read(reading: Callable[[], Answer], otherwise: Exception) -> Answer:
    """Runs one reading of an answer; what is not of the documented shape ends as the caller says."""
    try:
        return reading()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise otherwise from None
