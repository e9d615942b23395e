"""Tests share code through fixtures and `tests.helpers`, and import nothing from one another."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def forbidden(node: ast.AST) -> bool:
    """Whether `node` imports from a test file or a conftest."""
    if not isinstance(node, ast.ImportFrom):
        return False
    if node.module == "tests":
        return [each.name for each in node.names] != ["helpers"]
    first, _, rest = (node.module or "").partition(".")
    return node.level > 0 or (first == "tests" and rest.partition(".")[0] != "helpers")


@pytest.mark.parametrize("folder", ["attacks", "contract"])
def test_no_test_imports_another(folder):
    files = sorted((TESTS / folder).rglob("*.py"))
    found = [(f.name, n.lineno) for f in files for n in ast.walk(ast.parse(f.read_text())) if forbidden(n)]
    assert files
    assert found == []
