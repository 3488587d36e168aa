"""The web application: staff pages, the ordering channels' API, the provider's callbacks, health.

`uvicorn --factory app.web.main:app` serves it. `create_app` takes an installation, so that tests and
the server build the same thing.
"""

import sys

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import JSONResponse

from app.database import check_ready
from app.lab_reading import ingest_of
from app.web.api import collection_points_router, orders_api, orders_router
from app.web.board import BoardRoom, board_router
from app.web.callbacks import Callbacks, callbacks_router
from app.web.clinic import Clinic, clinic_router
from app.web.counter import CounterDesk, counter_router
from app.web.faults import add_faults
from app.web.fhir import LabResultsApi, lab_results_router
from app.web.labs import Labs, labs_router
from app.web.logistics import LogisticsDesk, logistics_router
from app.web.messages import MessagesDesk, messages_router
from app.web.packing import PackingRoom, packing_router
from app.web.pages import Assets, Pages
from app.web.referrals import ReferralsApi, referrals_router
from app.web.sending import SendingDesk, sending_router
from app.web.session import SealedSessions
from app.web.shell import Shell, security_headers
from app.web.signin import Issuer, sign_in_router
from app.web.verifications import verifications_api, verifications_router
from app.wiring import TEMPLATES, Wiring, connect
from models.actions.text_moves import Toolbox
from models.rules.errors import ServiceError


def create_app(home: Wiring) -> FastAPI:
    """The application of one installation. Raises ServiceError for what would stop it from serving."""
    choices = home.staff_web
    issuer = Issuer(choices.issuer, choices.client_id, choices.client_secret)
    over_https = choices.public_base_url.startswith("https://")
    pages = Pages(TEMPLATES / "pages")
    app = FastAPI(
        title="kitpost",
        description="Order free STI self-sampling kits for residents of a council, and ask what became of an order.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    broken = add_faults(app, pages)
    app.user_middleware = [
        Middleware(
            Shell,
            headers=security_headers(over_https=over_https, sign_in_origin=issuer.origin),
            broken=broken,
        ),
        Middleware(SealedSessions, secret=choices.session_secret, over_https=over_https),
    ]
    app.include_router(orders_router(orders_api(home)))
    app.include_router(collection_points_router(orders_api(home)))
    app.include_router(verifications_router(verifications_api(home)))
    app.include_router(
        lab_results_router(
            LabResultsApi(lambda: ingest_of(home), home.services, home.lab_maps, home.lab_keys, choices.public_base_url)
        )
    )
    app.include_router(
        referrals_router(
            ReferralsApi(home.begin, home.clock, home.services, home.cipher, home.clinic_keys, choices.public_base_url)
        )
    )
    app.include_router(
        callbacks_router(
            Callbacks(
                home.begin,
                home.clock,
                home.senders,
                home.cipher,
                home.index,
                choices.public_base_url,
                home.courier_news,
            )
        )
    )
    app.include_router(sign_in_router(pages, issuer, choices.public_base_url))
    app.include_router(
        clinic_router(
            Clinic(
                home.begin,
                home.clock,
                home.cipher,
                home.services,
                home.intake,
                pages,
                home.letters,
                home.referral_letters,
                frozenset(home.clinic_bells),
            )
        )
    )
    app.include_router(labs_router(Labs(lambda: ingest_of(home), pages)))
    app.include_router(sending_router(SendingDesk(home.begin, home.clock, home.services, home.text_provider, pages)))
    tools = Toolbox(home.services, home.cipher, home.index, home.catalogue.render, home.text_provider)
    app.include_router(messages_router(MessagesDesk(home.begin, home.clock, tools, pages)))
    app.include_router(board_router(BoardRoom(home.begin, home.clock, home.services, pages)))
    app.include_router(
        logistics_router(
            LogisticsDesk(home.begin, home.clock, home.services, pages, home.store, home.cipher, home.index)
        )
    )
    app.include_router(
        packing_router(
            PackingRoom(home.begin, home.clock, home.services, home.cipher, home.index, pages, issuer.origin)
        )
    )
    app.include_router(
        counter_router(CounterDesk(home.begin, home.clock, home.services, home.cipher, home.index, pages))
    )
    app.mount("/static", GZipMiddleware(Assets()))  # nothing in them is secret: a length tells nobody anything
    _add_health(app, home)
    return app


def _add_health(app: FastAPI, home: Wiring) -> None:
    @app.get("/health", include_in_schema=False)
    def alive() -> JSONResponse:
        """Whether this process serves."""
        return JSONResponse({"status": "ok"})

    @app.get("/health/ready", include_in_schema=False)
    def ready() -> JSONResponse:
        """Whether its database answers with today's tables."""
        check_ready(home.engine)
        return JSONResponse({"status": "ok"})


def app() -> FastAPI:
    """The application of this machine's installation; ends with one sentence where it can't start."""
    try:
        return create_app(connect())
    except ServiceError as error:
        print(error.message, file=sys.stderr)  # noqa: T201 - the server has no log of its own yet
        raise SystemExit(error.exit_code) from None
