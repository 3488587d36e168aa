"""What can be seen of law 8 in the source alone: log lines, errors and flow parameters are given nothing personal.

These look at the names of variables, so that a slip is caught when it is written; the canary in tests/proof
looks at what really comes out.
"""

import ast
import importlib
import inspect
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from prefect import Flow

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("app", "flows", "integrations", "models")
SOURCES: Final = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FLOWS: Final = sorted(path.stem for path in (ROOT / "flows").glob("*.py") if path.stem not in {"__init__", "guard"})

PERSONAL: Final = re.compile(
    r"(^|_)(name|names|given|family|surname|recipient|mobile|numbers?|phone|e164|to|email|address|postcode|lines?"
    r"|born|birth|dob|body|words|note|comment|answers|outcome|values?|findings?|results?|person|contact|resident"
    r"|rows?|payload|raw|content|text|messages?|error|exc|said|plain)(_|$)"
)
"""What may be personal, or, as the text of a foreign error does, may quote what is."""

LEVELS: Final = frozenset({"debug", "info", "warning", "error", "critical", "exception", "log"})
LOGS: Final = frozenset({"log", "logger", "logging"})


class Slip(NamedTuple):
    """A variable that a log line or an error is given."""

    file: str
    variable: str


@cache
def files() -> tuple[tuple[str, ast.Module], ...]:
    """Every source file of the product, parsed."""
    return tuple((str(path.relative_to(ROOT)), ast.parse(path.read_text())) for path in SOURCES)


def variables(expression: ast.AST) -> Iterator[str]:
    """The variables and attributes whose values an expression shows. How many, or of which type, shows none."""
    match expression:
        case ast.Call(func=ast.Name(id="type" | "len" | "isinstance" | "bool")):
            return
        case ast.Attribute(value=ast.Call(func=ast.Name(id="type"))):
            return
        case ast.Attribute(attr=attribute):
            yield attribute
        case ast.Name(id=name):
            yield name
        case ast.Call(func=called, args=given, keywords=named):
            if isinstance(called, ast.Attribute):
                yield from variables(called.value)
            for each in (*given, *(keyword.value for keyword in named)):
                yield from variables(each)
        case ast.IfExp(body=one, orelse=other):
            yield from variables(one)
            yield from variables(other)
        case _:
            for child in ast.iter_child_nodes(expression):
                yield from variables(child)


def log_calls(tree: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=level)) if name in LOGS and level in LEVELS:
                yield node


def errors_of(tree: ast.Module, kinds: frozenset[str]) -> Iterator[list[ast.expr]]:
    """What each expected failure is made from; for a variable, whatever this file puts in one of that name."""
    put: dict[str, list[ast.expr]] = {}
    calls = []
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                put.setdefault(name, []).append(value)
            case ast.Call(func=ast.Name(id=name)) if name in kinds:
                calls.append(node)
    for call in calls:
        given = [*call.args, *(each.value for each in call.keywords if each.arg != "ref")]
        yield [one for each in given for one in (put.get(each.id, [each]) if isinstance(each, ast.Name) else [each])]


def expected_failures() -> frozenset[str]:
    """ServiceError and every class made from it."""
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for _, tree in files()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    kinds = {"ServiceError"}
    while more := {name for name, of in bases.items() if of & kinds} - kinds:
        kinds |= more
    return frozenset(kinds)


def slips_in_logs() -> set[Slip]:
    return {
        Slip(file, variable)
        for file, tree in files()
        for call in log_calls(tree)
        for given in call.args
        for variable in variables(given)
        if PERSONAL.search(variable)
    }


def slips_in_errors() -> set[Slip]:
    kinds = expected_failures()
    return {
        Slip(file, variable)
        for file, tree in files()
        for given in errors_of(tree, kinds)
        for each in given
        for part in ast.walk(each)
        if isinstance(part, ast.FormattedValue)
        for variable in variables(part.value)
        if PERSONAL.search(variable)
    }


IN_LOGS_ALLOWED: Final = {
    Slip("flows/guard.py", "error"): "_detail gives a foreign error's type, sqlstate and place, and our own sentences",
    Slip("flows/guard.py", "flow_name"): "the constant beside each @flow",
}

IN_ERRORS_ALLOWED: Final = {
    Slip("app/cli/deploy.py", "error"): "Prefect's refusal of a file that ships with us",
    Slip("app/cli/deploy.py", "said"): "what Prefect's deploy printed of prefect.yaml",
    Slip("app/local.py", "name"): "a local service's",
    Slip("app/service/__init__.py", "name"): "a council's file",
    Slip("app/service/labs.py", "name"): "a lab map's file",
    Slip("app/service/labs.py", "error"): "what is wrong with a lab map",
    Slip("app/web/api.py", "name"): "an ordering channel's",
    Slip("app/web/calls.py", "name"): "a file of passages",
    Slip("app/web/calls.py", "error"): "what is wrong with a file of passages",
    Slip("app/web/fhir.py", "name"): "a laboratory's contract",
    Slip("app/web/told.py", "name"): "a file of sentences",
    Slip("app/web/told.py", "error"): "what is wrong with a file of sentences",
    Slip("app/wiring.py", "name"): "a clinic's, in a setting",
    Slip("integrations/texts/catalogue.py", "name"): "a template's",
    Slip(
        "integrations/texts/catalogue.py", "message"
    ): "BadWording's own sentence, about words for nobody in particular",
    Slip("models/actions/kit.py", "value"): "a kit state's word",
    Slip(
        "models/rules/clinic.py", "outcome"
    ): "how the clinician at the page chose to close a case; no kit stands beside it",
    Slip("models/rules/text.py", "__name__"): "a type's name",
}


def test_no_log_line_is_given_a_variable_that_may_be_personal():
    assert slips_in_logs() == set(IN_LOGS_ALLOWED)


def test_no_expected_error_is_worded_with_a_variable_that_may_be_personal():
    assert slips_in_errors() == set(IN_ERRORS_ALLOWED)


@pytest.mark.parametrize(
    "line",
    [
        'log.info("%s", person.family_name)',
        'log.error("for %s", to_e164)',
        'logger.warning("%s", ", ".join(resident_lines))',
        'logging.error("%s", order.mobile if order else "")',
        'log.info("failed: %s", str(error))',
    ],
)
def test_a_personal_variable_in_a_log_line_would_be_seen(line):
    [call] = log_calls(ast.parse(line))

    assert any(PERSONAL.search(variable) for given in call.args for variable in variables(given))


def test_a_personal_variable_in_an_error_would_be_seen_through_a_variable_too():
    source = """
def refuse(contact):
    message = f"{contact.email} is known already"
    raise ServiceError(Code.CONFLICT, message)
"""
    [given] = errors_of(ast.parse(source), frozenset({"ServiceError"}))

    assert "email" in {name for each in given for part in ast.walk(each) for name in variables(part)}


def test_a_log_line_is_a_constant_sentence_with_its_values_beside_it():
    # With an f-string nobody could tell the sentence from what was put in it.
    loose = [
        (file, call.lineno)
        for file, tree in files()
        for call in log_calls(tree)
        if not isinstance(call.args[0], ast.Constant) or call.func.attr == "exception" or _named(call, "exc_info")
    ]

    assert loose == []


def _named(call: ast.Call, name: str) -> bool:
    return any(keyword.arg == name for keyword in call.keywords)


def test_every_logger_is_kitposts_own():
    asked = {
        (file, ast.unparse(node.args[0]) if node.args else "")
        for file, tree in files()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("getLogger", "get_run_logger", "get_logger"))
    }

    foreign = {each for each in asked if not re.fullmatch(r"'kitpost(\.\w+)?'", each[1])}
    # Not to write: filters on the loggers of the providers' clients and urllib3, which would name numbers.
    assert foreign == {
        ("integrations/texts/connection.py", "client"),
        ("integrations/texts/connection.py", "'urllib3.connectionpool'"),
    }


def flow_of(module: str) -> Flow:
    [found] = [each for each in vars(importlib.import_module(f"flows.{module}")).values() if isinstance(each, Flow)]
    return found


@pytest.mark.parametrize("module", FLOWS)
def test_a_flow_takes_numbers_only_and_has_prefect_keep_nothing_else(module):
    found = flow_of(module)

    assert {parameter.annotation for parameter in inspect.signature(found.fn).parameters.values()} <= {int}
    assert found.retries == 0
    assert not found.log_prints
    assert not found.persist_result
    assert found.flow_run_name is None  # it would stand in every event of a run
    assert inspect.signature(found.fn).return_annotation is None


@pytest.mark.parametrize("module", FLOWS)
def test_every_flow_body_runs_in_the_guard(module):
    found = flow_of(module)
    tree = ast.parse(inspect.getsource(inspect.getmodule(found.fn)))

    [decorators] = [
        [ast.unparse(each) for each in node.decorator_list]
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == found.fn.__name__
    ]
    assert decorators == [f"flow(name='{found.name}', retries=0)", f"guarded('{found.name}')"]


def test_no_flow_prints_makes_artifacts_or_runs_tasks_which_prefect_would_keep():
    kept = re.compile(r"\bprint\(|artifact|@task|get_run_logger|log_prints")

    assert [path.name for path in (ROOT / "flows").glob("*.py") if kept.search(path.read_text())] == []


def test_nothing_hands_our_log_to_prefect():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    hands_over = re.compile(r"(EXTRA_LOGGERS|LOG_PRINTS|extra_loggers)['\"]?\]?\s*[=:]")

    read = [path for name in listed if (path := ROOT / name).suffix in {".py", ".toml", ".yaml", ".yml", ".env", ""}]
    assert len(read) > len(SOURCES)
    assert [path.name for path in read if path.is_file() and hands_over.search(path.read_text(errors="replace"))] == []
