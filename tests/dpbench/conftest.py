"""Sweeps that cost nothing: an attack that does nothing, known to every process they start."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from attacks.base import attacks
from dpbench.run import main
from tests.helpers.exports import bare
from tests.helpers.sixty import SIXTY

INSTANT = Path(__file__).parents[2] / "benchmarks" / "instant"


@pytest.fixture(scope="session")
def instant():
    """Makes `--attack instant` known here and, through sys.path and PYTHONPATH, in child processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(INSTANT))
        patch.setenv("PYTHONPATH", ":".join([str(INSTANT), *filter(None, sys.path)]))
        patch.setenv("OMP_NUM_THREADS", "1")
        from dpbench_instant import Instant

        _ = list(attacks)
        patch.setitem(attacks._items, "instant", Instant)
        yield


@pytest.fixture(scope="session")
def undisturbed(instant, tmp_path_factory) -> Path:
    """A run of sixty cells in one process that nobody interrupted."""
    folder = tmp_path_factory.mktemp("sixty") / "run"
    with pytest.MonkeyPatch.context() as patch:
        bare(patch)
        assert main([*SIXTY, "--out", str(folder), "--quiet"]) == 0
    return folder
