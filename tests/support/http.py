"""Asks an application in this process, as a browser or another system would over HTTP."""

import asyncio
from typing import Any

import httpx
from fastapi import FastAPI


class Client:
    """One caller with headers of its own. No socket is opened."""

    def __init__(self, application: FastAPI, **headers: str) -> None:
        self._transport = httpx.ASGITransport(application)
        self._headers = headers

    def request(self, method: str, path: str, *, headers: dict[str, str] | None = None, **sent: Any) -> httpx.Response:
        """One request and its answer; an error that the application does not handle is raised here."""

        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://kitpost.test") as client:
                return await client.request(method, path, headers={**self._headers, **(headers or {})}, **sent)

        return asyncio.run(ask())

    def get(self, path: str, **sent: Any) -> httpx.Response:
        """GET."""
        return self.request("GET", path, **sent)

    def post(self, path: str, **sent: Any) -> httpx.Response:
        """POST."""
        return self.request("POST", path, **sent)
