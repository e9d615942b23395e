"""Is the noise of a defence what dpbench computes an epsilon for, where its class takes a `guarantee`?"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import defenses
from defenses import Chain
from dpbench.audit.moments import Moments
from dpbench.audit.noise import checks
from dpbench.cell.parts import calibrated, is_calibrated
from dpbench.privacy import Budget
from dpbench.protocol import parameters
from dpbench.testing.chains import batch, required
from dpbench.testing.claims import claim

RELEASES, IMAGES = 100, 11
"""Of each of two batches, the larger of which has so many images."""
ERROR = 1e-6
"""Chance that a correct Gaussian mechanism is refused."""


def its_noise_is_gaussian_where_it_takes_a_guarantee(name: str, seed: int = 0) -> None:
    """N(0, (sigma C)^2) on every entry of the sum, for sigma 1.5 and C 0.5; an image moves the sum by C.

    Post-processing may change the noise, so this is about the defence alone.
    """
    if len(defenses.stages(name)) != 1 or not is_calibrated(name):
        return
    (stage,) = defenses.stages(name)
    sigma, bound = 1.5, 0.5 if "max_grad_norm" in parameters(stage) else 1.0
    budget = Budget(eps=None, eps_scope="release", delta=1e-5)
    guarantee = budget.guarantee(noise_multiplier=sigma, max_grad_norm=bound, batch_size=IMAGES)
    chain, model = calibrated(name, required(name), guarantee), _victim()
    moments = Moments(sum(p.numel() for p in model.parameters()), 1)
    moments.add(*(_sums(chain, model, size, seed) for size in (IMAGES - 1, IMAGES)))
    wrong = [check for check in checks(moments, sigma, bound, ERROR) if check.failed]
    claim(
        not wrong,
        f"{name} takes a `guarantee`, so its epsilon is computed for noise N(0, (σ C)²) on every entry of "
        "the sum of clipped gradients, and its releases do not have that "
        f"({'; '.join(f'{check.name}: {check.found}' for check in wrong)}): add that noise, or leave out "
        "the field `guarantee`, and the defence has no epsilon.",
    )


def _victim() -> nn.Sequential:
    """Few parameters, in tensors of one, two and four dimensions."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = (nn.Conv2d(3, 2, 3), nn.GroupNorm(1, 2), nn.Sigmoid(), nn.AvgPool2d(3))
        return nn.Sequential(*features, nn.Flatten(), nn.Linear(8, 5))


def _steep(logits: Tensor, labels: Tensor) -> Tensor:
    """A loss whose gradients are longer than C, so that they have to be clipped."""
    return 100 * F.cross_entropy(logits, labels)


def _sums(chain: Chain, model: nn.Module, size: int, seed: int) -> np.ndarray:
    """[RELEASES, parameters], float64: noisy sums over a batch of `size`, independent of one another.

    One call makes them, but for a defence that remembers: there each has a call of its own.
    """
    images, labels = batch(size)
    calls = RELEASES if chain.stages[0].remembers else 1
    made = [
        release
        for call in range(calls)
        for release in chain.releases(
            model, _steep, images, labels, seed=1000 * (2 * seed + size % 2) + call, count=RELEASES // calls
        )
    ]
    return size * torch.stack([torch.cat([g.flatten() for g in r.gradients]) for r in made]).double().numpy()
