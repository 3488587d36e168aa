"""`kitpost deploy`: tells a Prefect server what runs when. Safe to repeat."""

import gc
import io
import os
import runpy
import sys
import time
from contextlib import chdir, redirect_stderr, redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer
import yaml

from models.rules.errors import Code, ServiceError

ROOT: Final = Path(__file__).resolve().parents[2]
KEPT: Final = ROOT / "app" / "prefect"
"""Work pool and automations, as files."""

LOOK_EVERY_SECONDS: Final = 0.1

QUIET: Final = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}


def deploy(
    wait: Annotated[int, typer.Option(min=0, help="Seconds to wait for a Prefect server that is still starting.")] = 0,
) -> None:
    """Apply work pool, automations and the deployments of prefect.yaml to the Prefect server."""
    from app.wiring import wiring

    apply(wiring().settings.prefect_api_url, wait_seconds=wait)


def apply(api_url: str, *, wait_seconds: float = 0) -> None:
    """Brings a Prefect server to what the files say. Raises ServiceError(NOT_NOW) when it does not answer."""
    if not (ROOT / "prefect.yaml").exists():
        raise ServiceError(
            Code.NOT_FOUND, f"{ROOT} has no prefect.yaml: run kitpost deploy from a checkout of kitpost."
        )
    gc.disable()  # all that is imported from here on stays until the end, a few seconds away
    os.environ.update(QUIET, PREFECT_API_URL=api_url)
    # Before the server answers: it takes longer than all that is asked of it then.
    for module in ("prefect.main", "prefect.cli.deploy"):
        import_module(module)
    import_flows()
    _wait_for(api_url, wait_seconds)
    _apply_kept_files(api_url)
    # The pool must be there before its deployments. In this process: another would import Prefect again.
    said = io.StringIO()
    with chdir(ROOT), redirect_stdout(said), redirect_stderr(said):
        code = _prefect("--no-prompt", "deploy", "--all")  # without --no-prompt it would ask questions
    if code != 0:
        raise ServiceError(Code.UNEXPECTED, f"Prefect refused prefect.yaml:\n{said.getvalue()}")


def import_flows() -> None:
    """Imports every flow of prefect.yaml, from where it says that they stand."""
    plan = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    for each in plan["deployments"]:
        import_module(each["entrypoint"].rpartition(".")[0])


def _prefect(*words: str) -> int:
    """Prefect's own command, here. Returns its exit code."""
    before, sys.argv = sys.argv, ["prefect", *words]
    try:
        runpy.run_module("prefect", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before
    return 0


def _wait_for(api_url: str, seconds: float) -> None:
    """Until the server says that it is well, or the time is over: then the next call says what is wrong."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{api_url}/health").is_success:
                return
        time.sleep(LOOK_EVERY_SECONDS)


def _apply_kept_files(api_url: str) -> None:
    from prefect.automations import AutomationCore
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import PrefectHTTPStatusError

    pool = WorkPoolCreate.model_validate(_read("work_pool.yaml"))
    automations = [AutomationCore.model_validate(automation) for automation in _read("automations.yaml")]
    try:
        with SyncPrefectClient(api_url) as client:
            client.create_work_pool(pool, overwrite=True)
            for automation in automations:
                # Creating one again would make a second: names are not unique in Prefect.
                known = client.read_automations_by_name(automation.name)
                if known:
                    client.update_automation(known[0].id, automation)
                else:
                    client.create_automation(automation)
    except PrefectHTTPStatusError as error:
        raise ServiceError(Code.UNEXPECTED, f"Prefect refused a file of {KEPT}: {error}") from error
    except httpx.HTTPError as error:
        raise ServiceError(
            Code.NOT_NOW, f"The Prefect server at {api_url} does not answer: start it, or set KITPOST_PREFECT_API_URL."
        ) from error


def _read(name: str) -> Any:
    return yaml.safe_load((KEPT / name).read_text(encoding="utf-8"))
