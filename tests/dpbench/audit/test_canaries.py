"""Canaries have the gradients they are meant to have."""

from __future__ import annotations

import pytest
import torch

from dpbench.audit.canaries import Probe, canaries, mean_output


def gradient(images):
    model = Probe()
    found = torch.autograd.grad(
        mean_output(model(images), torch.zeros(len(images))), list(model.parameters())
    )
    return torch.cat([g.flatten() for g in found])


@pytest.mark.parametrize("bound", [0.5, 3.0])
@pytest.mark.parametrize("batch_size", [2, 5])
def test_norms_and_directions(bound, batch_size):
    planted = canaries(bound, batch_size, seed=1)
    assert len({canary.name for canary in planted}) == 4
    for canary in planted:
        norms = [float(gradient(image[None]).norm()) / bound for image in canary.present]
        assert norms[0] == pytest.approx(100 if canary.name.startswith("100") else 1, rel=1e-5)
        small, large = ((batch_size - 1) // 2, 0.5) if "uneven" in canary.name else (0, 1)
        assert norms[1:] == pytest.approx([0.01] * small + [large] * (batch_size - 1 - small), rel=1e-5)
        first = gradient(canary.present[:1])
        torch.testing.assert_close(first, canary.direction * first.norm())
        assert not gradient(canary.absent[:1]).any()
        torch.testing.assert_close(canary.absent[1:], canary.present[1:])
        cosines = [float(gradient(image[None]) @ canary.direction) / bound for image in canary.present[1:]]
        if "opposed" in canary.name:
            assert cosines == pytest.approx([-1] * (batch_size - 1), rel=1e-5)
        elif canary.name == "C, others random":
            assert max(map(abs, cosines)) < 0.7


@pytest.mark.parametrize("batch_size", [2, 3, 4, 5, 6, 48])
def test_median_mean_and_largest_norm_of_uneven_batches_depend_on_the_canary(batch_size):
    canary = next(c for c in canaries(2.0, batch_size, seed=0) if "uneven" in c.name)
    absent, present = (batch.flatten(1).norm(dim=1) for batch in (canary.absent, canary.present))
    for statistic in (torch.median, torch.mean, torch.max):
        assert statistic(present) > 1.5 * statistic(absent)
    assert present.clamp(max=2).max() == pytest.approx(2 * absent.clamp(max=2).max())  # clipped to C


def test_canaries_of_norm_c_lie_in_both_tensors_and_large_ones_in_one_each():
    shares = [[float(part.norm()) for part in c.direction.chunk(2)] for c in canaries(1.0, 4, seed=0)]
    assert all(0.5 < share < 0.9 for each in shares[:2] for share in each)
    assert shares[2][1] > 0.99 > 0.2 > shares[2][0] > 0.05
    assert shares[3][0] > 0.99 > 0.2 > shares[3][1] > 0.05
