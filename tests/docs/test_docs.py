"""The documents: what they point at is there, and what is written by a command is as the command writes it."""

import dataclasses
import re
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from app.cli import cli
from app.cli.states import MEANING, states_page
from app.service.labs import map_keys
from app.settings import settings_table
from models.rules.kit import KitState
from models.rules.lab import LabMap
from models.rules.quarantine import SENTENCES
from models.rules.service import (
    ClinicPolicy,
    LabContract,
    OrderPolicy,
    PackPolicy,
    ReleasePolicy,
    ReturnPolicy,
    Service,
    TextPolicy,
)
from models.rules.vocabulary import Quarantine

ROOT = Path(__file__).parents[2]
SETTINGS = (
    Service,
    OrderPolicy,
    PackPolicy,
    ReturnPolicy,
    ReleasePolicy,
    TextPolicy,
    ClinicPolicy,
    LabContract,
    LabMap,
)
PAGES = [ROOT / "README.md", ROOT / "DEVELOPING.md", *sorted((ROOT / "docs").rglob("*.md"))]

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
TOP = r"(?:app|docs|flows|integrations|models|templates|tests|\.ci)/"
FILE = re.compile(rf"`({TOP}[\w./-]*|(?:Makefile|prefect\.yaml|pyproject\.toml|requirements\.lock))`")
"""A path in code quotes that starts at the root of the repository. Patterns (<, *, NAME) are no paths."""

on_every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def slugs(page):
    """What the page's headings can be linked as."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@on_every_page
def test_every_link_inside_the_repository_leads_somewhere(page):
    broken = []
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        led = (page.parent / path).resolve() if path else page
        if not led.exists() or (heading and heading not in slugs(led)):
            broken.append(target)

    assert broken == []


@on_every_page
def test_every_file_that_a_page_names_exists(page):
    named = {path for path in FILE.findall(page.read_text(encoding="utf-8")) if not re.search("NAME|XX", path)}

    assert {path for path in named if not (ROOT / path).exists()} == set()


@on_every_page
def test_every_make_target_that_a_page_names_exists(page):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`|^ {4})make ([a-z]+)\b", text, re.MULTILINE))

    assert named <= targets


@on_every_page
def test_every_kitpost_command_that_a_page_names_exists(page):
    root = typer.main.get_command(cli)
    commands = set(root.commands) | {
        f"{name} {sub}" for name, group in root.commands.items() for sub in getattr(group, "commands", {})
    }
    named = re.findall(
        r"(?:`|^ {4})(?:\S*/)?kitpost ([a-z]+)(?: ([a-z]+))?", page.read_text(encoding="utf-8"), re.MULTILINE
    )
    named = {f"{one} {two}" if two and getattr(root.commands.get(one), "commands", None) else one for one, two in named}

    assert named <= commands


def test_the_readme_leads_to_every_page_of_the_docs_in_one_step():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} | {
        "docs/decisions/README.md",
        "DEVELOPING.md",
    }

    assert {page for page in pages if f"({page})" not in readme} == set()


def test_every_decision_has_a_row_in_the_list_of_decisions():
    folder = ROOT / "docs" / "decisions"
    listed = (folder / "README.md").read_text(encoding="utf-8")

    assert {
        path.name for path in folder.glob("*.md") if path.name != "README.md" and f"({path.name})" not in listed
    } == set()


def test_every_decision_says_why_what_and_how_it_is_checked():
    for path in (ROOT / "docs" / "decisions").glob("*.md"):
        if path.name != "README.md":
            text = path.read_text(encoding="utf-8")
            assert all(word in text for word in ("**Context.**", "**Decision.** *", "**Checked by**")), path.name


def test_the_page_of_states_is_what_the_command_draws(request):
    page = ROOT / "docs" / "states.md"
    if request.config.getoption("--golden"):
        page.write_text(states_page(), encoding="utf-8")

    assert page.read_text(encoding="utf-8") == states_page()


def test_the_command_prints_that_page_and_nothing_else():
    assert CliRunner().invoke(cli, ["states"]).output == states_page()


def test_every_state_has_a_meaning_in_words():
    assert set(MEANING) == set(KitState)


def test_every_setting_that_the_safety_page_names_is_one_of_a_service_or_a_lab():
    page = (ROOT / "docs" / "safety.md").read_text(encoding="utf-8")
    table = page.partition("## Facts that are known least")[2]
    named = {name for row in re.findall(r"^\|.*\|$", table, re.MULTILINE) for name in re.findall(r"`([a-z_]+)`", row)}
    settings = {field.name for kind in SETTINGS for field in dataclasses.fields(kind)}

    assert named
    assert named - settings == set()


def test_every_sample_that_the_guide_for_laboratories_names_is_there_and_every_sample_is_named():
    page = (ROOT / "docs" / "lab-integration.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\d\d[ab]?-[\w-]+\.(?:hl7|json|csv))`", page))
    kept = {path.name for path in (ROOT / "tests" / "golden" / "lab").iterdir()}

    assert named == {name for name in kept if name.endswith((".hl7", ".json", ".csv"))}


def quarantine_words():
    """A table of the vocabulary: what the laboratory is told, and what a clinician."""
    lines = ["| word | for the laboratory | for the clinician |", "|---|---|---|"]
    lines += [f"| `{word}` | {SENTENCES[word].lab} | {SENTENCES[word].clinician} |" for word in Quarantine]
    return "\n".join(lines)


def libraries():
    """A table of what pyproject.toml asks for: name, installed version, licence, and what it is for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    lines = ["| library | version | licence | extra |", "|---|---|---|---|"]
    for extra, requirements in groups.items():
        for requirement in requirements:
            name = re.match(r"[\w-]+", requirement).group()
            if name != project["name"]:
                stated = metadata(name)
                lines.append(f"| `{name}` | {stated['Version']} | {licence(stated)} | {extra} |")
    return "\n".join(lines)


def licence(stated):
    """The licence as the package's metadata puts it: an expression, else its classifiers, else free words."""
    classifiers = [each.rpartition(" :: ")[2] for each in stated.get_all("Classifier") or [] if "License ::" in each]
    return stated.get("License-Expression") or ", ".join(classifiers) or (stated.get("License") or "").split("\n")[0]


@pytest.mark.parametrize(
    ("page", "name", "table"),
    [
        ("running.md", "settings", settings_table),
        ("lab-integration.md", "quarantine words", quarantine_words),
        ("lab-integration.md", "map keys", map_keys),
        ("sources.md", "libraries", libraries),
    ],
)
def test_a_table_that_is_written_by_a_command_is_as_the_command_writes_it(request, page, name, table):
    path = ROOT / "docs" / page
    begin, end = f"<!-- {name}: written by make golden -->\n", f"\n<!-- /{name} -->"
    before, rest = path.read_text(encoding="utf-8").split(begin)
    shown, after = rest.split(end)
    if request.config.getoption("--golden"):
        path.write_text(before + begin + table() + end + after, encoding="utf-8")
        return

    assert shown == table()


def test_the_guide_for_laboratories_says_what_each_key_of_a_map_is():
    assert not re.findall(r"^\| `\S+` \|.*\| (?:None)? \|$", map_keys(), re.MULTILINE)
