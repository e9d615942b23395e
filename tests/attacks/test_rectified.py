"""ReLUs that are rounded off."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attacks.engine.rectified import Rounded, rounded


def test_it_is_the_mean_over_errors_of_what_the_relu_is_given():
    errors = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for z in (-2.0, -0.3, 0.0, 0.4, 3.0):
        given = torch.tensor(z, dtype=torch.float64)
        assert float(rounded(given, 0.7)) == pytest.approx(
            float(F.relu(given + 0.7 * errors).mean()), abs=4e-3
        )


def test_its_slope_is_the_share_of_errors_for_which_the_unit_is_on():
    z = torch.tensor([-0.5, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(rounded(z, 0.5).sum(), z)
    assert torch.allclose(slope, torch.special.ndtr(z.detach() / 0.5))
    assert torch.autograd.gradgradcheck(lambda x: rounded(x, 0.5), z)


@pytest.mark.parametrize(
    "relu",
    [F.relu, torch.relu, torch.Tensor.relu, nn.ReLU(), nn.ReLU(inplace=True)],
    ids=["functional", "torch", "method", "module", "in place"],
)
def test_every_relu_is_rounded_off_in_the_context_and_only_there(relu):
    z = torch.tensor([-1.0, 0.0, 2.0])
    with Rounded(0.1):
        inside, other = relu(z.clone()), torch.sigmoid(z)
    assert torch.allclose(inside, rounded(z, 0.1 * z.square().mean().sqrt()))
    assert torch.equal(other, torch.sigmoid(z))
    assert torch.equal(relu(z.clone()), torch.tensor([0.0, 0.0, 2.0]))


def test_a_layer_of_zeros_stays_a_number():
    with Rounded(0.1):
        assert F.relu(torch.zeros(3)).abs().max() < 1e-30
