"""The web application on a benchmark's database, for `uvicorn --factory tests.bench.staff_door:app`."""

import os
from types import SimpleNamespace

from app.web.main import create_app
from models.actions.service import keep_service_version
from models.rules.service import ServiceInForce
from tests.support import build, web


def app():
    """One process of it. BENCH_DATABASE names the database, NOW is the builders'."""
    database = SimpleNamespace(url=os.environ["BENCH_DATABASE"])
    home = web.home_on(database, public_base_url="http://127.0.0.1:1", issuer="http://127.0.0.1:2")
    with home.begin() as session:
        version = keep_service_version(session, "larkfield", {"made": "for a benchmark"})
    vars(home)["services"] = {"larkfield": ServiceInForce(build.service(), version)}
    return create_app(home)
