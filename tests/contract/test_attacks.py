"""What holds for every registered attack. A new one is tested by registering it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import attacks
from dpbench.testing.attacks import CHECKS


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Some attacks keep what they learnt."""
    monkeypatch.setenv("DPBENCH_CACHE", str(tmp_path))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", attacks.names())
def test_contract(name, check):
    check(attacks.kind(name))


def test_messages_name_parameters_and_no_flags():
    files = Path(attacks.__file__).parent.rglob("*.py")
    assert [(f.name, flag) for f in files for flag in re.findall(r"--[a-z]\w+", f.read_text())] == []
