"""Epsilons and bounds that somebody wrote into an entry, beside the noise that they are said to have."""

import pytest

from dpbench import privacy
from dpbench.protocol import Factorisation
from dpbench.report.entries.budgets import too_small
from dpbench.report.entries.check import check
from dpbench.store.schema import frame

SIGMA, DELTA, RATE, STEPS = 1.1, 1e-5, 0.05, 20


def row(sigma=SIGMA, defense="dp", **more):
    """One that says what is true of a release with this noise."""
    found = {"defense": defense, "noise_multiplier": SIGMA, "delta": DELTA, "sample_rate": RATE}
    found |= {"steps": STEPS, "eps": privacy.epsilon(SIGMA, DELTA, RATE, STEPS), "releases": 1}
    found |= {
        "eps_release": privacy.epsilon(sigma, DELTA),
        "rero_release": privacy.reconstruction_bound(sigma),
    }
    return found | more


def test_what_follows_from_the_noise_stands():
    sampled = {
        "inclusion": 0.3,
        "releases": 4,
        "eps_release": privacy.epsilon(SIGMA, DELTA, 0.3, 4),
        "rero_release": privacy.reconstruction_bound(SIGMA, 0.3, 4),
    }
    together = SIGMA / Factorisation(4, 3).sensitivity()
    rows = [row(), row(SIGMA / 2, releases=4), row(**sampled)]
    rows += [row(together, "dp-ftrl", releases=4, bands=3, eps=None), row(SIGMA / 2)]
    apart = {
        "eps_replace": privacy.eps_replace(SIGMA, DELTA),
        "eps_client": privacy.epsilon(SIGMA / 2, DELTA),
        "success_bound": privacy.reconstruction_bound(SIGMA, kappa=1 / 5),
    }
    rows += [row(**apart, clients=4, candidates=5)]
    assert too_small(frame(rows)) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"eps": 0.5}, r"the ε of the training under dp, 0.5, is too small"),
        ({"eps_release": 0.5}, r"the ε of the attacked release under dp, 0.5, is too small: noise of σ 1.1"),
        ({"rero_release": 0.11}, r"the bound on reconstruction under dp, 0.11, is too small"),
        ({"eps_replace": 5.0}, r"the ε of the attacked release under replacement under dp, 5, is too small"),
        ({"eps_client": 5.0, "clients": 4}, r"the ε of one client's message under dp, 5, is too small"),
        ({"success_bound": 0.3, "candidates": 5}, r"the bound on picking the sample under dp, 0.3, is too"),
        ({"releases": 4}, r"ε of the attacked release under dp"),
        ({"inclusion": 0.3, "releases": 100}, r"ε of the attacked release under dp"),
        ({"defense": "dp-ftrl", "bands": 3, "releases": 2}, r"ε of the attacked release under dp-ftrl"),
    ],
)
def test_what_does_not_is_told(more, said):
    assert said in " ".join(too_small(frame([row(**more)])))
    assert too_small(frame([row(**more, noise_unchecked=True)])) == []  # a plug-in's


def test_an_entry_with_such_an_epsilon_has_a_fault(enter, gallery):
    assert check(enter("right", gallery(0))).faults == ()
    found = check(enter("wrong", [each | {"eps_release": 0.01} for each in gallery(0)]))
    assert found.faults[0].startswith("the ε of the attacked release under dp, 0.01, is too small")
