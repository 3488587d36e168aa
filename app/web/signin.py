"""Who is asking: OpenID Connect sign-in, and the person behind a request (ruling 18).

Authorisation code with PKCE against the configured issuer. Roles and services come as claims and are
read by closed words: an unknown role gives nothing. We keep no password and no list of people.
"""

import logging
import secrets
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import urlencode, urlsplit

import httpx
from fastapi import APIRouter, Depends, Request
from joserfc.errors import JoseError
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.responses import HTMLResponse, RedirectResponse

from app.web.pages import Pages
from app.web.session import LONGEST_SECONDS, UNTIL
from models.rules.errors import Code, ServiceError
from models.rules.staff import Actor, Role

with warnings.catch_warnings(record=True):  # Authlib warns, past any filter, of httpx: which is what we have
    from authlib.integrations.starlette_client import OAuth, OAuthError

ROLES_CLAIM: Final = "kitpost_roles"
SERVICES_CLAIM: Final = "kitpost_services"
LONGEST_STAFF_ID: Final = 64
ANSWER_WITHIN_SECONDS: Final = 10.0

SIGN_INS_A_MINUTE: Final = 60
"""Steps of signing in that one address may take: thirty people behind one office's address at nine o'clock."""

_WHO: Final = "who"
_BACK_TO: Final = "back_to"
_LONGEST_BACK_TO: Final = 200
"""Characters: it is kept in a cookie."""

log: Final = logging.getLogger("kitpost")


@dataclass(frozen=True, slots=True)
class Issuer:
    """Where staff sign in, and as whom we ask there."""

    url: str
    client_id: str
    client_secret: str

    @property
    def origin(self) -> str:
        """Scheme, host and port, for the Content-Security-Policy."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def __repr__(self) -> str:
        return f"Issuer({self.url!r})"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The person behind a request. `name` is for the page's head only, and `csrf` for its forms."""

    actor: Actor
    name: str
    csrf: str


class NotSignedIn(Exception):  # noqa: N818 - no error: the answer is the sign-in page
    """Nobody is signed in, or not any more."""


def staff(request: Request) -> SignedIn:
    """The person who is signed in. Raises NotSignedIn."""
    who = request.session.get(_WHO)
    if who is None:
        if request.method == "GET":
            asked = f"{request.url.path}?{request.url.query}".rstrip("?")
            request.session[_BACK_TO] = asked if len(asked) <= _LONGEST_BACK_TO else request.url.path
        raise NotSignedIn
    known = {role.value for role in Role}
    actor = Actor(
        staff_id=who["sub"],
        roles=frozenset(Role(role) for role in who["roles"] if role in known),
        service_ids=frozenset(who["services"]),
    )
    request.state.who = SignedIn(actor, who["name"], who["csrf"])  # for a page that tells of a failure
    return request.state.who  # type: ignore[no-any-return]


Staff = Annotated[SignedIn, Depends(staff)]


async def check_form(request: Request, who: Staff) -> None:
    """Refuses a form that this session's pages did not write (cross-site request forgery)."""
    if request.method in ("GET", "HEAD"):
        return
    sent = (await request.form()).get("csrf")
    if not isinstance(sent, str) or not secrets.compare_digest(sent.encode(), who.csrf.encode()):
        raise ServiceError(Code.NOT_ALLOWED, "This form is from another session: go back, load the page and try again.")


def _turnstile() -> Callable[[Request], None]:
    """Lets so many steps of signing in through for each address.

    It counts in this process alone: an address is kept for a minute and written nowhere.
    """
    steps, pace = MovingWindowRateLimiter(MemoryStorage()), RateLimitItemPerMinute(SIGN_INS_A_MINUTE)

    def in_measure(request: Request) -> None:
        if not steps.hit(pace, request.client.host if request.client else ""):
            raise ServiceError(Code.TOO_OFTEN, "Too many sign-ins from your network: wait a minute and try again.")

    return in_measure


def sign_in_router(pages: Pages, issuer: Issuer, public_base_url: str) -> APIRouter:
    """Signing in and out."""
    router = APIRouter(include_in_schema=False)
    redirect = f"{public_base_url}/sign-in/back"
    # Authlib's client library is untyped.
    client: Any = OAuth().register(
        "staff",
        client_id=issuer.client_id,
        client_secret=issuer.client_secret,
        server_metadata_url=f"{issuer.url}/.well-known/openid-configuration",
        client_kwargs={
            "scope": "openid profile",
            "code_challenge_method": "S256",
            "timeout": ANSWER_WITHIN_SECONDS,
            "trust_env": False,
        },
    )

    in_measure = Depends(_turnstile())

    @router.get("/")
    def front(request: Request) -> RedirectResponse:
        who = request.session.get(_WHO)
        return RedirectResponse(_start_page(who["roles"]) if who else "/sign-in", 303)

    @router.get("/sign-in")
    def sign_in(request: Request) -> HTMLResponse:
        return pages.show("sign_in.html", request, title="Sign in")

    @router.get("/sign-in/start", dependencies=[in_measure])
    async def start(request: Request) -> RedirectResponse:
        try:
            answer: RedirectResponse = await client.authorize_redirect(request, redirect)
        except (httpx.HTTPError, KeyError, ValueError, RuntimeError) as error:
            raise _unreachable(error) from None
        return answer

    @router.get("/sign-in/back", dependencies=[in_measure])
    async def back(request: Request) -> RedirectResponse:
        pinned = {
            "iss": {"essential": True, "value": issuer.url},
            "aud": {"essential": True, "value": issuer.client_id},
            "sub": {"essential": True},
        }
        try:
            token = await client.authorize_access_token(request, claims_options=pinned)
            claims = token["userinfo"]
        except (OAuthError, JoseError, KeyError, ValueError) as error:
            # Their words may quote what was sent: only the kind of failure is told and logged.
            log.warning("sign-in refused: %s", type(error).__name__)
            raise ServiceError(
                Code.NOT_ALLOWED, "You could not be signed in: go back to the start and try again."
            ) from None
        except (httpx.HTTPError, RuntimeError) as error:
            raise _unreachable(error) from None
        who = _who(claims)
        back_to = request.session.get(_BACK_TO) or _start_page(who["roles"])
        request.session.clear()
        request.session.update({_WHO: who, UNTIL: time.time() + LONGEST_SECONDS})
        return RedirectResponse(back_to, 303)

    @router.post("/sign-out", dependencies=[Depends(check_form)])
    async def sign_out(request: Request) -> RedirectResponse:
        request.session.clear()
        signed_out = f"{public_base_url}/signed-out"
        try:
            ends = (await client.load_server_metadata()).get("end_session_endpoint")
        except (httpx.HTTPError, ValueError):
            ends = None
        if not ends:
            return RedirectResponse(signed_out, 303)
        query = urlencode({"client_id": issuer.client_id, "post_logout_redirect_uri": signed_out})
        return RedirectResponse(f"{ends}?{query}", 303)

    @router.get("/signed-out")
    def signed_out(request: Request) -> HTMLResponse:
        return pages.show("signed_out.html", request, title="Signed out")

    return router


def _who(claims: Any) -> dict[str, Any]:
    """What the session keeps of somebody. Raises ServiceError(NOT_ALLOWED) for somebody with no right anywhere."""
    sub, roles, services = claims["sub"], _words(claims.get(ROLES_CLAIM)), _words(claims.get(SERVICES_CLAIM))
    if not isinstance(sub, str) or not 0 < len(sub) <= LONGEST_STAFF_ID:
        raise ServiceError(Code.NOT_ALLOWED, "Your sign-in has no id that we can keep: ask your service manager.")
    if not services or not set(roles) & {role.value for role in Role}:
        raise ServiceError(Code.NOT_ALLOWED, "Your sign-in names no role and service here: ask your service manager.")
    name = claims.get("name")
    return {
        "sub": sub,
        "name": name[:80] if isinstance(name, str) else "",
        "roles": roles,
        "services": services,
        "csrf": secrets.token_urlsafe(24),
    }


_START_PAGES: Final = {frozenset({Role.COUNTER.value}): "/counter", frozenset({Role.AUDITOR.value}): "/kits"}
"""Of those who have no worklist."""


def _start_page(roles: list[str]) -> str:
    """Where somebody's day begins."""
    return _START_PAGES.get(frozenset(roles), "/worklist")


def _words(claim: object) -> list[str]:
    return [word for word in claim if isinstance(word, str)] if isinstance(claim, list) else []


def _unreachable(error: Exception) -> ServiceError:
    log.error("the sign-in provider could not be asked: %s", type(error).__name__)
    return ServiceError(Code.NOT_NOW, "The sign-in provider does not answer: try again in a minute.")
