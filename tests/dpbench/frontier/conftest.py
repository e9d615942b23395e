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

        def write(succeeds):
            run = []

            def fill(self, seed, result):
                sigma = result.rows[0].get("noise_multiplier", 0.0)
                result.rows[0] |= {"ranked_first": succeeds(sigma), "best_correlation": 0.5, "best_output": 0}
                run.append(result.rows[0]["key"])

            patch.setattr(Ranking, "fill", fill)
            return run

        yield write
