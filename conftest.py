"""Runs the whole suite in several processes, and a part of it in this one."""

from __future__ import annotations

import os

import pytest

MOST = 4
"""Each process imports PyTorch, and the longest file of tests has to fit into one."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """What `-n auto` of pyproject.toml means; `-n NUMBER` wins."""
    named = config.invocation_params.args and config.args_source is config.ArgsSource.ARGS
    return 0 if named else min(MOST, os.cpu_count() or 1)
