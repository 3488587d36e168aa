"""Each import contract of pyproject.toml holds, and each is broken once on purpose to see it caught."""

import copy
import tomllib
from pathlib import Path
from typing import Any

import grimp
import pytest
from importlinter.configuration import configure
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.layers import LayersContract
from importlinter.contracts.protected import ProtectedContract

configure()
CONFIGURATION = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["tool"]["importlinter"]
CONTRACTS = {contract["id"]: contract for contract in CONFIGURATION["contracts"]}
KINDS = {"layers": LayersContract, "forbidden": ForbiddenContract, "protected": ProtectedContract}

BREAKS = [
    ("layers", "models.rules.kit", "models.tables.kit"),
    ("layers", "models.tables.kit", "models.actions.kit"),
    ("layers", "models.actions.kit", "integrations.cipher"),
    ("layers", "integrations.cipher", "models.actions.kit"),
    ("layers", "app.wiring", "flows.guard"),
    ("layers", "flows.guard", "app.cli.up"),
    ("models-know-no-world", "models.actions.kit", "boto3"),
    ("models-know-no-world", "models.tables.kit", "app.settings"),
    ("integrations-know-no-rows", "integrations.store", "models.tables.kit"),
    ("integrations-know-no-rows", "integrations.store", "sqlalchemy"),
    ("rules-are-pure", "models.rules.kit", "logging"),
    ("rules-are-pure", "models.rules.kit", "os"),
    ("settings-are-wirings", "app.database", "app.settings"),
    ("adapters-are-wirings", "flows.guard", "integrations.store"),
    ("adapters-are-wirings", "app.database", "integrations.cipher"),
    ("stages", "models.rules.kit", "models.rules.release"),
    ("stages", "models.tables.kit", "models.tables.text"),
    ("stages-of-actions", "models.actions.owed", "models.actions.kit"),
    ("demo-stands-outside", "app.demo.sms_provider", "models.rules.errors"),
    ("demo-stands-outside", "app.demo.sms_provider", "app.wiring"),
    ("product-knows-no-demo", "flows.guard", "app.demo.sms_provider"),
]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*CONFIGURATION["root_packages"], include_external_packages=True, cache_dir=None)


def is_kept(contract_id: str, graph: grimp.ImportGraph) -> bool:
    options: dict[str, Any] = {k: v for k, v in CONTRACTS[contract_id].items() if k not in ("id", "name", "type")}
    session = {"root_packages": CONFIGURATION["root_packages"], "include_external_packages": True}
    kind = KINDS[CONTRACTS[contract_id]["type"]]
    contract = kind(name=contract_id, session_options=session, contract_options=options)
    return bool(contract.check(copy.deepcopy(graph), verbose=False).kept)


@pytest.mark.parametrize("contract_id", CONTRACTS)
def test_a_contract_holds(contract_id, graph):
    assert is_kept(contract_id, graph)


@pytest.mark.parametrize(("contract_id", "importer", "imported"), BREAKS)
def test_an_import_against_a_contract_is_caught(contract_id, importer, imported, graph):
    broken = copy.deepcopy(graph)
    if imported not in broken.modules:
        broken.add_module(imported, is_squashed=True)
    assert importer in broken.modules

    broken.add_import(importer=importer, imported=imported, line_number=1, line_contents=f"import {imported}")

    assert not is_kept(contract_id, broken)


def test_every_contract_is_broken_once():
    assert {contract_id for contract_id, _, _ in BREAKS} == set(CONTRACTS)
