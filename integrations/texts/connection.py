"""What both providers' clients do alike: connect, and fail to."""

import logging
from typing import Final

import requests
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError

TIMEOUT_SECONDS: Final = 10.0
"""How long one call may take before it counts as unsure."""

CONNECTIONS: Final = 64


def read_environment_once(session: requests.Session, base_url: str) -> None:
    """Proxy and certificates as the environment names them for one provider, read now instead of before each call.

    Reading them anew was a sixth of what a call costs.
    """
    settings = session.merge_environment_settings(base_url, {}, None, None, None)
    session.trust_env = False
    session.proxies, session.verify = settings["proxies"], settings["verify"]


def never_connected(error: BaseException | None) -> bool:
    """True only when no connection came about: refused, no such host, or no answer to the first knock."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    cause = error.args[0] if error is not None and error.args else None
    return isinstance(cause, MaxRetryError) and isinstance(cause.reason, (NewConnectionError, ConnectTimeoutError))


def keep_people_out_of_logs(client: str) -> None:
    """The clients log what they ask for and the words of errors, urllib3 logs addresses: numbers stand in all of them.

    Filters, not levels: whoever sets up logging later may turn levels down.
    """
    logging.getLogger(client).addFilter(_nothing)
    logging.getLogger("urllib3.connectionpool").addFilter(_warnings_only)


def _nothing(_: logging.LogRecord) -> bool:
    return False


def _warnings_only(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING
