"""A stand-in for Royal Mail's Tracking API v2 on loopback, for the demo and the tests.

It is told journeys by `POST /_parcels` and tells them back as the real one does, but badly on purpose:
every second event twice, and never in order. `POST /_down` makes the next calls fail. Run it with
`python -m app.demo.courier --port N`; credentials default to the two below.
"""

import argparse
import json
from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

CLIENT_ID = "demo-courier"
CLIENT_SECRET = "demo-courier-secret"  # noqa: S105 - a stand-in's, on loopback
MOST_AT_ONCE = 30


class Courier:
    """What it was told of each parcel."""

    def __init__(self) -> None:
        self.journeys: dict[str, list[tuple[str, str]]] = {}
        self.failures: list[int] = []
        self.calls: list[str] = []

    def tell(self, number: str, events: list[tuple[str, str]]) -> None:
        """Adds events (code, ISO time with zone) to a parcel's journey."""
        for _, at in events:
            if datetime.fromisoformat(at).tzinfo is None:
                raise ValueError("an event's time needs a zone")
        self.journeys.setdefault(number, []).extend(events)

    def last(self, number: str) -> tuple[str, str]:
        """The latest event of a parcel, by its own time."""
        return max(self.journeys[number], key=lambda event: event[1])

    def muddled(self, number: str) -> list[tuple[str, str]]:
        """A parcel's events as they are told: backwards, every second one twice."""
        told = []
        for place, event in enumerate(reversed(self.journeys[number])):
            told += [event, event] if place % 2 == 0 else [event]
        return told[1:] + told[:1]


def _error(status: int, code: str, description: str) -> JSONResponse:
    return JSONResponse(
        {
            "httpCode": str(status),
            "httpMessage": description,
            "moreInformation": "",
            "errors": [{"errorCode": code, "errorDescription": description}],
        },
        status_code=status,
        headers={"Retry-After": "7"} if status == HTTPStatus.TOO_MANY_REQUESTS else {},
    )


def make_app(client_id: str = CLIENT_ID, client_secret: str = CLIENT_SECRET) -> FastAPI:
    """The stand-in as an ASGI application; its state is at `app.state.courier`."""
    app = FastAPI(title="Courier stand-in", openapi_url=None)
    courier = app.state.courier = Courier()

    def refusal(headers: Mapping[str, str]) -> Response | None:
        if courier.failures:
            return _error(courier.failures.pop(0), "E1001", "Told to fail")
        known = (headers.get("x-ibm-client-id"), headers.get("x-ibm-client-secret"))
        return None if known == (client_id, client_secret) else _error(401, "E0013", "Missing or wrong credentials")

    @app.post("/_parcels")
    async def tell(request: Request) -> Response:
        """[{"number": "…", "events": [["EVDAV", "2026-11-24T10:00:00+00:00"], …]}, …]."""
        for parcel in json.loads(await request.body()):
            courier.tell(parcel["number"], [(code, at) for code, at in parcel["events"]])
        return Response(status_code=204)

    @app.post("/_down")
    async def down(request: Request) -> Response:
        """[503, 429, …]: what the next calls answer."""
        courier.failures.extend(json.loads(await request.body()))
        return Response(status_code=204)

    @app.get("/mailpieces/v2/summary")
    def summary(request: Request, mailPieceId: str) -> Response:  # noqa: N803 - the API's own name
        courier.calls.append("summary")
        if (refused := refusal(request.headers)) is not None:
            return refused
        numbers = mailPieceId.split(",")
        if len(numbers) > MOST_AT_ONCE:
            return _error(400, "E1144", "Too many mail pieces in one request")
        return JSONResponse({"mailPieces": [_summary(courier, number) for number in numbers]})

    @app.get("/mailpieces/v2/{number}/events")
    def events(request: Request, number: str) -> Response:
        courier.calls.append(number)
        if (refused := refusal(request.headers)) is not None:
            return refused
        if number not in courier.journeys:
            return _error(404, "E1142", "Barcode reference isn't recognised")
        told = [
            {"eventCode": code, "eventName": code, "eventDateTime": at, "locationName": "Invented Delivery Office"}
            for code, at in courier.muddled(number)
        ]
        piece = {"mailPieceId": number, "carrierShortName": "RM", "carrierFullName": "Royal Mail Group Ltd"}
        return JSONResponse({"mailPieces": {**piece, "events": told}})

    return app


def _summary(courier: Courier, number: str) -> dict[str, Any]:
    piece = {"mailPieceId": number, "carrierShortName": "RM", "carrierFullName": "Royal Mail Group Ltd"}
    if not courier.journeys.get(number):
        error = {"errorCode": "E1142", "errorDescription": "Barcode reference isn't recognised"}
        return {**piece, "status": "404", "error": error}
    code, at = courier.last(number)
    return {
        **piece,
        "status": "200",
        "summary": {
            "uniqueItemId": number,
            "oneDBarcode": number,
            "lastEventCode": code,
            "lastEventName": code,
            "lastEventDateTime": at,
            "lastEventLocationName": "Invented Delivery Office",
        },
    }


def main() -> None:
    """Serves on loopback until it is stopped."""
    wanted = argparse.ArgumentParser(description="A courier that misbehaves on purpose.")
    wanted.add_argument("--port", type=int, required=True)
    wanted.add_argument("--client-id", default=CLIENT_ID)
    wanted.add_argument("--client-secret", default=CLIENT_SECRET)
    told = wanted.parse_args()
    app = make_app(told.client_id, told.client_secret)
    uvicorn.run(app, host="127.0.0.1", port=told.port, log_level="warning")


if __name__ == "__main__":
    main()
