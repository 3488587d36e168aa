"""A stand-in for Royal Mail's Click & Drop on loopback: takes orders, gives labels, forgets nothing.

`seller.failures` makes the next calls go wrong: "storm" (429), "closed" (500, nothing done), "down" (500, the order is
on the books), "forbidden" (403), "talkative" (400, quoting all it was told). Held against the published description in
tests/contract.
"""

import base64
import json
from datetime import UTC, datetime
from urllib.parse import unquote

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

KEY = "test-postage-key"
LABEL = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n%%EOF\n"
"""A document of no pages: a label's artwork is Royal Mail's own."""

WITH_RETURN = LABEL + b"% and the label that brings it back\n"

DOWN = "down"
REFUSALS = {
    "storm": lambda _: Response(status_code=429, headers={"Retry-After": "7"}),
    "closed": lambda _: JSONResponse({"message": "closed"}, 500),
    "forbidden": lambda _: Response(status_code=403),
    "talkative": lambda told: JSONResponse({"message": told.decode()}, 400),
}


def paper(with_return):
    """What comes out of the printer for one order."""
    return WITH_RETURN if with_return else LABEL


class Seller:
    """What was ordered, by number."""

    def __init__(self):
        self.orders = {}
        self.failures = []
        self.asked = []
        self.mute = ""
        """A reference about which, and about whose order, nothing can be had but an error."""
        self.keeps = False
        """Whether it refuses to delete: as for accounts that may not."""

    def create(self, asked):
        """The answer to one order: made, or refused by field."""
        self.asked.append(asked)
        missing = [name for name in ("addressLine1", "city") if not asked["recipient"]["address"].get(name)]
        if missing:
            fields = [{"fieldName": f"Recipient.Address.{name}", "value": ""} for name in missing]
            failed = {"errors": [{"errorCode": 5, "errorMessage": "A field is missing", "fields": fields}]}
            return {"successCount": 0, "errorsCount": 1, "createdOrders": [], "failedOrders": [failed]}
        order = dict(self.take(asked))
        if "trackingNumber" in order:
            order["label"] = base64.b64encode(paper(asked["label"].get("includeReturnsLabel", False))).decode()
        return {"successCount": 1, "errorsCount": 0, "createdOrders": [order], "failedOrders": []}

    def take(self, asked):
        """Puts one order on the books. As the real one does, it takes the same reference twice."""
        number = 1001 + len(self.orders)
        self.orders[number] = {
            "orderIdentifier": number,
            "orderReference": asked["orderReference"],
            "createdOn": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "orderDate": asked["orderDate"],
        }
        if asked["label"]["includeLabelInResponse"]:
            self.give_label(number)
        return self.orders[number]

    def give_label(self, number):
        """A label gets its tracking number when it is made."""
        self.orders[number]["trackingNumber"] = f"OT{number:08d}7GB"

    def find(self, written):
        """The orders that a path names, by number or by quoted reference."""
        names = [unquote(name) for name in written.split(";")]
        return [
            order
            for order in self.orders.values()
            if str(order["orderIdentifier"]) in names or f'"{order["orderReference"]}"' in names
        ]

    def trouble(self, path):
        """What goes wrong with the next call, to this path."""
        names = path.removeprefix("/orders").strip("/").split("/")[0]
        if any(order["orderReference"] == self.mute for order in self.find(names)):
            return "closed"
        return self.failures.pop(0) if self.failures else ""


def make_app():
    """The stand-in as an ASGI application; its state is at `app.state.seller`."""
    app = FastAPI(title="Postage stand-in", openapi_url=None)
    seller = app.state.seller = Seller()

    @app.middleware("http")
    async def misbehave(request: Request, go_on):
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return Response(status_code=401)
        word = seller.trouble(request.url.path)
        if word in REFUSALS:
            return REFUSALS[word](await request.body())
        answer = await go_on(request)
        return JSONResponse({"message": "down"}, 500) if word == DOWN else answer

    @app.post("/orders")
    async def create(request: Request):
        [asked] = json.loads(await request.body())["items"]
        return seller.create(asked)

    @app.get("/orders/{names}")
    async def read(names: str):
        return JSONResponse(seller.find(names)) if seller.find(names) else Response(status_code=404)

    @app.get("/orders/{names}/label")
    async def label(names: str, request: Request):
        found = seller.find(names)
        for order in found:
            seller.give_label(order["orderIdentifier"])
        labels = paper(request.query_params["includeReturnsLabel"] == "true")
        return Response(labels, media_type="application/pdf") if found else Response(status_code=404)

    @app.delete("/orders/{names}")
    async def delete(names: str):
        found = seller.find(names)
        if not found:
            return Response(status_code=404)
        told = [{name: order[name] for name in ("orderIdentifier", "orderReference")} for order in found]
        if seller.keeps:
            errors = [{"code": "Kept", "message": "It is kept", **each} for each in told]
            return {"deletedOrders": [], "errors": errors}
        for order in found:
            del seller.orders[order["orderIdentifier"]]
        return {"deletedOrders": told, "errors": []}

    return app
