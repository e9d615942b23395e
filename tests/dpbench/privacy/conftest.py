"""A cache of the tests' own, so that searches several tests need are made once a run."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(shared_cache, monkeypatch):
    monkeypatch.setenv("DPBENCH_CACHE", str(shared_cache))
