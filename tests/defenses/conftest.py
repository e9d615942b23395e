"""The reference that clipping is compared with: one backward pass for each image."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F


@pytest.fixture(scope="session")
def flat():
    """Gradients as one float64 vector."""
    return lambda gradients: torch.cat([g.detach().double().flatten() for g in gradients])


@pytest.fixture(scope="session")
def looped(flat):
    """Mean of the clipped per-sample gradients, one backward pass for each image, in float64 sums."""

    def mean(model, images, labels, bound, loss=F.cross_entropy):
        parameters = [p for p in model.parameters() if p.requires_grad]
        total = 0
        for i in range(len(images)):
            value = loss(model(images[i : i + 1]), labels[i : i + 1])
            gradient = flat(torch.autograd.grad(value, parameters, materialize_grads=True))
            total = total + gradient * min(1.0, bound / max(float(gradient.norm()), 1e-30))
        return total / len(images)

    return mean


@pytest.fixture(scope="session")
def clipped_by_a_loop(flat, looped):
    """Asserts that `clip` releases what the loop gives, and that C matters; returns the release."""
    import defenses

    def check(model, images, labels, loss=F.cross_entropy, tolerance=1e-5):
        norms = [
            float(looped(model, images[i : i + 1], labels[i : i + 1], 1e30, loss).norm())
            for i in range(len(images))
        ]
        bound = sorted(norms)[len(norms) // 2] * 0.9
        release = defenses.create("clip", max_grad_norm=bound).release(model, loss, images, labels, seed=0)
        expected = looped(model, images, labels, bound, loss)
        assert float((flat(release.gradients) - expected).norm() / expected.norm()) < tolerance
        return release

    return check
