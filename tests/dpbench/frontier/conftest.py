import pytest

from dpbench.data import datasets
from dpbench.frontier.ranking import Ranking
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


@pytest.fixture
def usual(instant, monkeypatch):
    """Keywords of a frontier whose cells take milliseconds."""
    monkeypatch.setitem(datasets._items, "tiny", lambda argument, size: tiny())
    return dict(USUAL)


@pytest.fixture
def scripted(monkeypatch):
    """Makes success a matter of the noise multiplier; returns the keys of the cells that are run."""

    def write(succeeds):
        run = []

        def fill(self, seed, result):
            sigma = result.rows[0].get("noise_multiplier", 0.0)
            result.rows[0] |= {"ranked_first": succeeds(sigma, seed), "best_correlation": 0.5}
            run.append(result.rows[0]["key"])

        monkeypatch.setattr(Ranking, "fill", fill)
        return run

    return write
