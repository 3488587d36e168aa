"""`kitpost deploy`: tells a Prefect server what runs when. Safe to repeat."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from models.rules.errors import Code, ServiceError

ROOT: Final = Path(__file__).resolve().parents[2]
KEPT: Final = ROOT / "app" / "prefect"
"""Work pool and automations, as files."""

QUIET: Final = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}


def deploy() -> None:
    """Apply work pool, automations and the deployments of prefect.yaml to the Prefect server."""
    from app.wiring import wiring

    apply(wiring().settings.prefect_api_url)


def apply(api_url: str) -> None:
    """Brings a Prefect server to what the files say. Raises ServiceError(NOT_NOW) when it does not answer."""
    if not (ROOT / "prefect.yaml").exists():
        raise ServiceError(
            Code.NOT_FOUND, f"{ROOT} has no prefect.yaml: run kitpost deploy from a checkout of kitpost."
        )
    _apply_kept_files(api_url)
    # The pool must be there before its deployments. Without --no-prompt it would ask questions.
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=ROOT,
        env={**os.environ, **QUIET, "PREFECT_API_URL": api_url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ServiceError(Code.UNEXPECTED, f"Prefect refused prefect.yaml:\n{done.stdout}{done.stderr}")


def _apply_kept_files(api_url: str) -> None:
    os.environ.update(QUIET)
    from httpx import HTTPError
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
    except HTTPError as error:
        raise ServiceError(
            Code.NOT_NOW, f"The Prefect server at {api_url} does not answer: start it, or set KITPOST_PREFECT_API_URL."
        ) from error


def _read(name: str) -> Any:
    return yaml.safe_load((KEPT / name).read_text(encoding="utf-8"))
