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
        assert norms[1:] == pytest.approx([1] * (batch_size - 1), rel=1e-5)
        first = gradient(canary.present[:1])
        torch.testing.assert_close(first, canary.direction * first.norm())
        assert not gradient(canary.absent[:1]).any()
        torch.testing.assert_close(canary.absent[1:], canary.present[1:])
        cosines = [float(gradient(image[None]) @ canary.direction) / bound for image in canary.present[1:]]
        if "opposed" in canary.name:
            assert cosines == pytest.approx([-1] * (batch_size - 1), rel=1e-5)
        else:
            assert max(map(abs, cosines)) < 0.7


def test_both_tensors_carry_the_canary():
    for canary in canaries(1.0, 4, seed=0):
        shares = [float(part.norm()) for part in canary.direction.chunk(2)]
        assert min(shares) > 0.4
