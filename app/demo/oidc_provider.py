"""A small OpenID Connect provider on loopback, for the demo and the tests: whom it signs in is invented.

It is a real one: discovery, authorisation code with PKCE (S256 only), RS256 id tokens, a key set, and
signing out at the provider. What it leaves out is asking for a password: whoever reaches the loopback
interface picks a login from a list. None of these logins exists anywhere else.

    python -m app.demo.oidc_provider --port 8424 --client-id kitpost --client-secret … --redirect http://…/sign-in/back
"""

import argparse
import base64
import hashlib
import html
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import uvicorn
from fastapi import FastAPI, Form, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

CODE_SECONDS: Final = 60.0
TOKEN_SECONDS: Final = 300


@dataclass(frozen=True, slots=True)
class Login:
    """Somebody who may be signed in as. `sub` is what the product sees of them."""

    sub: str
    name: str
    roles: tuple[str, ...]


LOGINS: Final = (
    Login("demo-adviser", "Anna Adviser", ("health_adviser",)),
    Login("demo-adviser-2", "Bela Adviser", ("health_adviser",)),
    Login("demo-senior", "Sian Senior", ("senior_health_adviser",)),
    Login("demo-clinician", "Dora Doctor", ("clinician",)),
    Login("demo-safeguarding", "Sam Safeguarding", ("safeguarding_lead",)),
    Login("demo-lab", "Lara Lab", ("lab_liaison",)),
    Login("demo-packer", "Paul Packer", ("packer",)),
    Login("demo-manager", "Mina Manager", ("service_manager",)),
    Login("demo-auditor", "Otto Auditor", ("auditor",)),
    Login("demo-counter", "Cora Counter", ("counter",)),
    Login("demo-nobody", "Norah Norole", ()),
)


@dataclass(frozen=True, slots=True)
class _Grant:
    """What a code stands for until it is exchanged, once."""

    login: Login
    nonce: str
    challenge: str
    until: float


@dataclass(slots=True)
class _Provider:
    issuer: str
    client_id: str
    client_secret: str
    redirect: str
    services: tuple[str, ...]
    key: RSAKey = field(
        default_factory=lambda: RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True)
    )
    grants: dict[str, _Grant] = field(default_factory=dict)

    def discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "end_session_endpoint": f"{self.issuer}/end-session",
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": ["openid", "profile"],
        }

    def fault_in(self, asked: dict[str, str]) -> str:
        """What is wrong with a request to sign somebody in, or nothing."""
        wanted = {
            "client_id": self.client_id,
            "redirect_uri": self.redirect,
            "response_type": "code",
            "code_challenge_method": "S256",
        }
        for name, value in wanted.items():
            if asked.get(name) != value:
                return f"{name} is not what this provider was started with."
        for name in ("state", "nonce", "code_challenge"):
            if not asked.get(name):
                return f"{name} is missing."
        return "" if "openid" in asked.get("scope", "").split() else "scope lacks openid."

    def grant(self, login: Login, asked: dict[str, str]) -> str:
        code = secrets.token_urlsafe(24)
        self.grants[code] = _Grant(login, asked["nonce"], asked["code_challenge"], time.monotonic() + CODE_SECONDS)
        return code

    def tokens(self, code: str, verifier: str) -> dict[str, Any] | None:
        """The tokens of a code, if its verifier is right and its minute is not over."""
        found = self.grants.pop(code, None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        if found is None or found.until < time.monotonic() or not secrets.compare_digest(challenge, found.challenge):
            return None
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": found.login.sub,
            "aud": self.client_id,
            "iat": now,
            "exp": now + TOKEN_SECONDS,
            "nonce": found.nonce,
            "name": found.login.name,
            "kitpost_roles": list(found.login.roles),
            "kitpost_services": list(self.services),
        }
        return {
            "access_token": secrets.token_urlsafe(24),
            "token_type": "Bearer",
            "expires_in": TOKEN_SECONDS,
            "id_token": jwt.encode({"alg": "RS256", "kid": self.key.kid}, claims, self.key),
        }


def make_provider(
    *, issuer: str, client_id: str, client_secret: str, redirect: str, services: Sequence[str] = ("larkfield",)
) -> FastAPI:
    """The provider as a web application for one client."""
    provider = _Provider(issuer, client_id, client_secret, redirect, tuple(services))
    app = FastAPI(title="Demo sign-in", openapi_url=None)

    @app.get("/.well-known/openid-configuration")
    def discovery() -> dict[str, Any]:
        return provider.discovery()

    @app.get("/jwks")
    def keys() -> dict[str, Any]:
        return dict(KeySet([provider.key]).as_dict(private=False))

    @app.get("/authorize")
    def choose(request: Request) -> HTMLResponse:
        asked = dict(request.query_params)
        fault = provider.fault_in(asked)
        if fault:
            return HTMLResponse(f"<!doctype html><title>Refused</title><p>{html.escape(fault)}</p>", 400)
        return HTMLResponse(_page(request.url.query))

    @app.post("/authorize")
    def chosen(request: Request, login: Annotated[str, Form()]) -> RedirectResponse:
        asked = dict(request.query_params)
        who = next((each for each in LOGINS if each.sub == login), None)
        if provider.fault_in(asked) or who is None:
            return RedirectResponse(f"{provider.redirect}?{urlencode({'error': 'access_denied'})}", 303)
        answer = {"code": provider.grant(who, asked), "state": asked["state"], "iss": provider.issuer}
        return RedirectResponse(f"{provider.redirect}?{urlencode(answer)}", 303)

    @app.post("/token")
    async def token(request: Request) -> JSONResponse:
        form = dict(parse_qsl((await request.body()).decode()))
        if not _is_client(provider, request.headers.get("authorization", ""), form):
            return JSONResponse({"error": "invalid_client"}, 401)
        if form.get("grant_type") != "authorization_code" or form.get("redirect_uri") != provider.redirect:
            return JSONResponse({"error": "invalid_request"}, 400)
        issued = provider.tokens(form.get("code", ""), form.get("code_verifier", ""))
        if issued is None:
            return JSONResponse({"error": "invalid_grant"}, 400)
        return JSONResponse(issued, headers={"Cache-Control": "no-store"})

    @app.get("/end-session")
    def end_session(post_logout_redirect_uri: str = "") -> Response:
        return _signed_out(provider, post_logout_redirect_uri)

    return app


def _signed_out(provider: _Provider, back_to: str) -> Response:
    """Back to the client's own site, and to no other."""
    wanted, ours = urlsplit(back_to), urlsplit(provider.redirect)
    if (wanted.scheme, wanted.netloc) == (ours.scheme, ours.netloc):
        return RedirectResponse(back_to, 303)
    return HTMLResponse("<!doctype html><title>Signed out</title><p>You are signed out.</p>")


def _is_client(provider: _Provider, authorization: str, form: dict[str, str]) -> bool:
    given = f"{form.get('client_id', '')}:{form.get('client_secret', '')}"
    if authorization.startswith("Basic "):
        given = base64.b64decode(authorization.removeprefix("Basic ")).decode()
    return secrets.compare_digest(given.encode(), f"{provider.client_id}:{provider.client_secret}".encode())


def _page(query: str) -> str:
    buttons = "\n".join(
        f'<p><button name="login" value="{login.sub}">{login.name}</button> '
        f"{', '.join(login.roles).replace('_', ' ') or 'no role'}</p>"
        for login in LOGINS
    )
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Demo sign-in</title>
<style>body {{ font: 1.1rem/1.5 sans-serif; margin: 2rem auto; max-width: 34rem; padding: 0 1rem; }}
button {{ font: inherit; padding: .4rem .8rem; min-width: 12rem; }}</style></head>
<body>
<main>
<h1>Demo sign-in</h1>
<p>Everyone here is invented. Choose whom to sign in as.</p>
<form method="post" action="?{html.escape(query)}">
{buttons}
</form>
</main>
</body>
</html>"""


def main() -> None:
    """Serves on loopback until it is stopped."""
    parser = argparse.ArgumentParser(description="A small OpenID Connect provider with invented logins.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--client-id", required=True)
    parser.add_argument("--client-secret", required=True)
    parser.add_argument("--redirect", required=True, help="where the product takes the answer, …/sign-in/back")
    parser.add_argument("--services", nargs="+", default=["larkfield"], help="ids of the services that every login has")
    given = parser.parse_args()
    provider = make_provider(
        issuer=f"http://127.0.0.1:{given.port}",
        client_id=given.client_id,
        client_secret=given.client_secret,
        redirect=given.redirect,
        services=given.services,
    )
    uvicorn.run(provider, host="127.0.0.1", port=given.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
