from __future__ import annotations

import math

import pytest

from dpbench import privacy
from dpbench.privacy import Budget
from dpbench.privacy.accountants import ACCOUNTANTS
from dpbench.protocol import InputError
from dpbench.protocol.parameters import parameters

GIVEN = {"max_grad_norm": 2.0, "batch_size": 4}


def test_a_budget_becomes_noise_and_noise_becomes_a_budget():
    forth = Budget(eps=8.0).guarantee(noise_multiplier=None, **GIVEN)
    assert (forth.eps, forth.steps, forth.sample_rate) == (8.0, 1954, 256 / 50_000)
    assert forth.noise_multiplier == pytest.approx(0.537, rel=0.01)
    back = Budget(eps=None).guarantee(noise_multiplier=forth.noise_multiplier, **GIVEN)
    assert 8 * 0.999 <= back.eps <= 8


def test_a_release_budget_is_of_all_releases():
    found = Budget(eps=8.0, eps_scope="release", delta=1e-6).guarantee(
        noise_multiplier=None, releases=4, **GIVEN
    )
    assert found.noise_multiplier == privacy.noise_multiplier(8.0, 1e-6, steps=4)
    assert (found.eps, found.releases, found.max_grad_norm) == (None, 4, 2.0)


@pytest.mark.parametrize(("eps", "sigma"), [(1.0, 1.0), (None, None)])
def test_eps_and_noise_are_alternatives(eps, sigma):
    with pytest.raises(InputError, match="either `eps` or `noise_multiplier`, not both"):
        Budget(eps=eps).guarantee(noise_multiplier=sigma, **GIVEN)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"eps": 0}, "`eps` must be above 0"),
        ({"eps": math.nan}, "`eps` must be a finite number"),
        ({"eps_scope": "run"}, "`eps_scope` must be one of training, release"),
        ({"delta": 0}, "`delta` must be above 0"),
        ({"delta": 0.6}, "`delta` must be at most 0.5"),
        ({"train_size": 0}, "`train_size` must be at least 1"),
        ({"train_size": 2**63}, "`train_size` must be a finite number below"),
        ({"train_batch_size": 0}, "`train_batch_size` must be at least 1"),
        ({"train_batch_size": 1.5}, "`train_batch_size` must be a whole number"),
        ({"train_batch_size": "all"}, "`train_batch_size` must be a whole number or batch, not 'all'"),
        ({"epochs": 1e308}, "`epochs` must be a finite number below"),
        ({"epochs": 0}, "`epochs` must be above 0"),
        ({"accountant": "gdp"}, "`accountant` must be one of pld, prv, rdp"),
    ],
)
def test_bad_values_get_one_sentence_each(changed, match):
    with pytest.raises(InputError, match=match):
        Budget(**changed)


def noise(batch_size, **budget):
    found = Budget(**budget).guarantee(noise_multiplier=None, max_grad_norm=1.0, batch_size=batch_size)
    return found.noise_multiplier, found.sample_rate, found.steps


def test_the_noise_is_that_of_the_training_whatever_part_of_a_batch_is_attacked():
    assert noise(1) == noise(4) == noise(256) == noise(4, train_batch_size=256)
    sigma, rate, steps = noise(4, train_size=20_000, epochs=30)  # the example
    assert (rate, steps) == (256 / 20_000, 2344)
    assert sigma == pytest.approx(2.449, rel=0.001)


def test_the_attacked_batch_may_be_the_whole_of_the_trainings():
    """By the fastest accountant: which of them it is makes no difference to what it is asked."""
    found = noise(4, train_batch_size="batch", accountant="rdp")
    assert found == noise(1, train_batch_size=4, accountant="rdp") != noise(4, accountant="rdp")
    assert found[1:] == (4 / 50_000, 125_000)


def test_a_training_batch_larger_than_the_training_set_is_refused():
    for budget in ({}, {"train_batch_size": 101}):
        with pytest.raises(InputError, match=r"100 samples has no batches of .*`train_batch_size`"):
            noise(4, train_size=100, **budget)
    assert noise(4, train_size=100, eps_scope="release")  # nothing is said of a training


def test_an_attacked_batch_larger_than_the_trainings_is_refused():
    with pytest.raises(InputError, match="attacked batch of 8 is no part of a training batch of 4"):
        noise(8, train_batch_size=4)
    by = {"accountant": "rdp"}
    assert noise(8, train_batch_size="batch", **by) == noise(8, train_batch_size=8, **by)
    assert noise(300, eps_scope="release")


def test_the_training_run_plays_a_role_under_its_scope_only():
    only = {name for name, found in parameters(Budget).items() if found.only_if == {"eps_scope": "training"}}
    assert only == {"train_size", "train_batch_size", "epochs", "accountant"}


def test_every_accountant_can_be_chosen():
    assert parameters(Budget)["accountant"].choices == tuple(ACCOUNTANTS)
