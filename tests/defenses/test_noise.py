"""The noise as a distribution: its scale, its shape, its seed."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

import defenses
from dpbench import privacy
from dpbench.protocol import InputError

torch.set_num_threads(1)
ENTRIES = 100_000


@pytest.fixture(scope="module")
def victim():
    """A model of more than 10^5 parameters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 33))


def released(victim, batch, name, seed=0, **parameters):
    images = torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    labels = torch.arange(batch) % 33
    return defenses.create(name, **parameters).release(victim, F.cross_entropy, images, labels, seed=seed)


def noise_of(victim, batch, seed=0, **parameters):
    noised = released(victim, batch, "dp", seed, **parameters)
    clean = released(victim, batch, "clip", max_grad_norm=parameters["max_grad_norm"])
    both = zip(noised.gradients, clean.gradients, strict=True)
    return torch.cat([(a - b).double().flatten() for a, b in both])[:ENTRIES].numpy()


@pytest.mark.parametrize(("sigma", "bound", "batch"), [(1.0, 1.0, 1), (0.6002, 3.0, 1), (2.5, 0.5, 8)])
def test_noise_is_gaussian_with_sigma_times_clip_norm_over_batch(victim, sigma, bound, batch):
    noise = noise_of(victim, batch, noise_multiplier=sigma, max_grad_norm=bound)
    expected = sigma * bound / batch
    low, high = stats.chi2.ppf([0.0005, 0.9995], ENTRIES)
    assert low < (noise**2).sum() / expected**2 < high
    assert stats.kstest(noise / expected, "norm").pvalue > 1e-3


@pytest.mark.parametrize("factor", [0.0, 0.9, 1.1, math.nan])
def test_a_release_with_the_wrong_noise_is_refused(victim, factor, monkeypatch):
    from defenses import clipping

    add = clipping.ExactDPOptimizer.add_noise

    def wrong(self):
        add(self)
        last = self.params[-2]
        last.grad = last.summed_grad + factor * (last.grad - last.summed_grad)

    released(victim, 2, "dp", noise_multiplier=1.0)
    monkeypatch.setattr(clipping.ExactDPOptimizer, "add_noise", wrong)
    with pytest.raises(InputError, match="has to be 1, so this release would not be private"):
        released(victim, 2, "dp", noise_multiplier=1.0)


@pytest.mark.parametrize("sigma", [1e-9, 1e9])
def test_noise_far_below_and_above_the_gradient_is_not_taken_for_wrong(victim, sigma):
    for bound in (1e-25, 1e-6, 1e6, 1e18):  # at both ends squares are beyond float32
        released(victim, 2, "dp", noise_multiplier=sigma, max_grad_norm=bound)


def test_noise_is_independent_of_the_data_and_between_seeds(victim):
    parameters = {"noise_multiplier": 1.0, "max_grad_norm": 1.0}
    first, other = (noise_of(victim, 1, seed, **parameters) for seed in (0, 1))
    assert abs(stats.pearsonr(first, other).statistic) < 4 / ENTRIES**0.5


def test_same_seed_same_release_whatever_the_callers_random_state(victim):
    parameters = {"noise_multiplier": 1.0, "max_grad_norm": 1.0}
    torch.manual_seed(1)
    first, state = released(victim, 2, "dp", 7, **parameters), torch.get_rng_state()
    torch.manual_seed(2)
    again, other = released(victim, 2, "dp", 7, **parameters), released(victim, 2, "dp", 8, **parameters)
    assert all(torch.equal(a, b) for a, b in zip(first.gradients, again.gradients, strict=True))
    assert not torch.equal(first.gradients[0], other.gradients[0])
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())


def test_unclipped_noise_has_its_own_scale_and_no_guarantee(victim):
    noised, clean = released(victim, 4, "noise", noise_std=0.25), released(victim, 4, "none")
    noise = (noised.gradients[0] - clean.gradients[0]).double().flatten()[:ENTRIES]
    low, high = stats.chi2.ppf([0.0005, 0.9995], ENTRIES)
    assert low < float((noise**2).sum()) / 0.25**2 < high
    assert noised.guarantee is None


def test_dp_carries_the_guarantee_it_was_given_and_no_other(victim):
    guarantee = privacy.calibrate(
        eps=8,
        noise_multiplier=None,
        eps_scope="release",
        delta=1e-5,
        train_size=100,
        train_batch_size=1,
        epochs=1,
        max_grad_norm=1.0,
    )
    right = {"noise_multiplier": guarantee.noise_multiplier, "max_grad_norm": 1.0, "guarantee": guarantee}
    assert released(victim, 1, "dp", **right).guarantee is guarantee
    pruned = released(victim, 1, "dp+prune", prune_ratio=0.5, **right)
    assert pruned.guarantee is guarantee
    assert [s.name for s in pruned.defense] == ["dp", "prune"]
    assert released(victim, 1, "clip").guarantee is None
    with pytest.raises(ValueError, match="another noise multiplier"):
        defenses.create("dp", **right | {"noise_multiplier": 0.1})


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("dp", {"noise_multiplier": 0.0}),
        ("dp", {"noise_multiplier": float("nan")}),
        ("dp", {"noise_multiplier": 1.0, "max_grad_norm": 0.0}),
        ("clip", {"max_grad_norm": float("inf")}),
        ("noise", {"noise_std": -1.0}),
        ("noise", {"noise_std": float("nan")}),
    ],
)
def test_values_outside_their_range_are_refused(name, parameters):
    (wrong,) = list(parameters)[-1:]
    with pytest.raises(InputError, match=rf"`{wrong}` must be (a finite number|above 0|at least 0)"):
        defenses.create(name, **parameters)
