from functools import partial

import pytest

from dpbench.data import datasets
from tests.helpers import exports, frontiers
from tests.helpers.tiny import tiny

USUAL = {
    "data": "tiny",
    "attack": "instant",
    "victim": "untrained",
    "model": "lenet",
    "batch_size": 1,
    "device": "cpu",
    "levels": (0.1, 1.0),
    "progress": False,
}
"""A frontier of an attack that does nothing."""


@pytest.fixture(scope="module")
def usual(instant):
    """Keywords of a frontier whose cells take milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(datasets._items, "tiny", lambda argument, size: tiny())
        yield dict(USUAL)


@pytest.fixture(scope="module")
def script():
    """Makes success a matter of the noise multiplier; returns the keys of the cells that are run."""
    with pytest.MonkeyPatch.context() as patch:
        yield partial(frontiers.script, patch)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Figures take longer than all cells together, and have tests of their own."""
    exports.bare(monkeypatch)
