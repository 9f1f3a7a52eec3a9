"""docs/threat_model.md: every line of its table names a test that is there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def lines() -> list[list[str]]:
    """The cells of the table's rows."""
    text = (ROOT / "docs" / "threat_model.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in rows[2:]]


@pytest.mark.parametrize("line", lines(), ids=lambda line: f"{line[0]}: {line[1]}"[:60])
def test_each_line_names_a_test(line: list[str]) -> None:
    assert len(line) == 3, "| Input or actor | It cannot | Test |"
    file, _, name = line[2].strip("`").partition("::")
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, line[2]


def test_there_are_lines() -> None:
    assert len(lines()) > 5
