"""The hazard log: every hazard has a proof that exists, or says which issue is still to bring it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (H\d+) \|(.*)\|$", re.MULTILINE)
SEEDS = {f"H{number}" for number in range(1, 31)}
"""The hazards that the product was built against; more are added as they are found."""

OPEN = re.compile(r"\bopen: (issue \d+|an issue is still to be filed)")
RATING = re.compile(r"([1-5])×([1-5]) → ([1-5])×([1-5])")


def hazards():
    """The cells of each row of docs/hazards.md, by id."""
    rows = ROW.findall((ROOT / "docs" / "hazards.md").read_text(encoding="utf-8"))
    return [(hazard, [cell.strip() for cell in cells.split("|")]) for hazard, cells in rows]


def names_of_all_tests():
    """Every test function under tests/, read without importing anything."""
    return {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


by_hazard = pytest.mark.parametrize(("hazard", "cells"), hazards(), ids=[hazard for hazard, _ in hazards()])


def test_every_hazard_that_the_product_was_built_against_has_one_row():
    ids = [hazard for hazard, _ in hazards()]

    assert set(ids) >= SEEDS
    assert len(ids) == len(set(ids))


def test_every_test_that_the_hazard_log_names_exists():
    named = {test for _, cells in hazards() for test in re.findall(r"`(test_\w+)`", cells[-1])}

    assert named
    assert named - names_of_all_tests() == set()


@by_hazard
def test_a_hazard_has_a_test_or_says_what_is_open(hazard, cells):
    assert "`test_" in cells[-1] or OPEN.search(cells[-1]), hazard


@by_hazard
def test_what_is_called_open_names_its_issue(hazard, cells):
    assert len(re.findall(r"\bopen\b", cells[-1], re.IGNORECASE)) == len(
        OPEN.findall(cells[-1].replace("Open", "open"))
    )


@by_hazard
def test_no_control_makes_a_hazard_worse(hazard, cells):
    harm, likelihood, harm_after, likelihood_after = map(int, RATING.fullmatch(cells[1]).groups())

    assert harm_after <= harm
    assert likelihood_after <= likelihood


def test_the_ratings_are_called_proposed_until_a_safety_officer_signs_them():
    assert "proposed, for the clinical safety officer" in (ROOT / "docs" / "hazards.md").read_text(encoding="utf-8")
