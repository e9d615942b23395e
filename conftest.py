"""Runs the whole suite in several processes, and a part of it in this one."""

from __future__ import annotations

import compileall
import gc
import os
from collections.abc import Generator
from pathlib import Path

import pytest

MOST = 4
"""Each process imports PyTorch, and the longest file of tests has to fit into one."""

gc.disable()  # until the tests are collected, which makes half a million objects that stay


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """What `-n auto` of pyproject.toml means; `-n NUMBER` wins."""
    named = config.invocation_params.args and config.args_source is config.ArgsSource.ARGS
    return 0 if named else min(MOST, os.cpu_count() or 1)


def pytest_configure(config: pytest.Config) -> None:
    """Compiles the packages once, where Python may not keep what it compiles ($PYTHONDONTWRITEBYTECODE).

    Tests start many processes, and each would compile all modules anew. What tests write is left alone.
    """
    if not hasattr(config, "workerinput"):
        for package in ("dpbench", "attacks", "defenses"):
            compileall.compile_dir(Path(__file__).parent / package, quiet=2)


@pytest.fixture(autouse=True)
def results_of_examples(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the examples of docstrings compute is kept apart from the user's own results."""
    if isinstance(request.node, pytest.DoctestItem):
        from dpbench.accuracy import (
            trial,
        )  # imports PyTorch, which the process that only hands out tests spares

        monkeypatch.setattr(trial, "folder", lambda: tmp_path_factory.getbasetemp() / "utility")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What was imported stays: looking through it for garbage took an eighth of the time of many tests."""
    found = yield
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()
    return found
