"""Which units were active follows from the bias gradient, not from values below their errors."""

import pytest
import torch

from attacks.exact.activations import undone
from attacks.exact.layers import Activation, Affine
from attacks.exact.solve import Estimate

ERROR = 1e-8
RELU, LEAKY = Activation("relu"), Activation("leaky_relu", 0.5)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def solved(steps, values, delta, total):
    after = Estimate(tensor(*values), torch.full((len(values),), ERROR, dtype=torch.float64))
    before, passed = undone(steps, after, tensor(*delta), None if total is None else tensor(total))
    return before, passed


def test_the_sum_tells_an_active_unit_from_an_inactive_one():
    values, delta = (2.0, 3e-8, 1e-8, -2e-8), (1.0, 0.3, 0.2, 0.4)
    before, passed = solved([RELU], values, delta, total=1.3)
    assert passed.tolist() == [1.0, 0.3, 0.0, 0.0]
    assert before.deviations.isfinite().tolist() == [True, True, False, False]
    assert before.bound.tolist() == [False, False, True, True]
    assert solved([RELU], values, delta, total=1.0)[1].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert solved([RELU], values, delta, total=1.5)[1].tolist() == [1.0, 0.3, 0.2, 0.0]


def test_units_that_cancel_in_the_sum_count_as_inactive():
    """Values as small as the errors are zeros, positive or not."""
    _, passed = solved([RELU], (2.0, 3e-8, 2e-8, -2e-8), (1.0, 0.3, -0.3, 0.4), total=1.0)
    assert passed.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_gains_before_the_activation_count_in_the_sum():
    scale = Affine(tensor(2.0, 2.0, 2.0), tensor(1.0, 1.0, 1.0))
    before, passed = solved([scale, RELU], (4.0, 2e-8, -1e-8), (1.0, 0.25, 0.5), total=2.5)
    assert passed.tolist() == [2.0, 0.5, 0.0]
    assert before.values[0] == 1.5
    assert before.values[2] == -0.5  # at most, since the unit was inactive
    assert before.bound.tolist() == [False, False, True]


def test_without_a_sum_small_values_count_as_zero():
    _, passed = solved([RELU], (2.0, 3e-8, -2e-8), (1.0, 0.3, 0.4), total=None)
    assert passed.tolist() == [1.0, 0.0, 0.0]


def test_a_leaky_unit_passes_some_of_its_gradient():
    before, passed = solved([LEAKY], (2.0, -1.0, 1e-8), (1.0, 1.0, 0.4), total=1.9)
    assert passed.tolist() == [1.0, 0.5, 0.4]
    assert before.values[:2].tolist() == [2.0, -2.0]
    assert solved([LEAKY], (2.0, -1.0, 1e-8), (1.0, 1.0, 0.4), total=1.7)[1].tolist() == [1.0, 0.5, 0.2]


@pytest.mark.parametrize("kind", ["sigmoid", "tanh"])
def test_smooth_activations_are_inverted_with_their_slopes(kind):
    z = tensor(-1.5, 0.0, 2.0).requires_grad_()
    values = getattr(torch, kind)(z)
    (slopes,) = torch.autograd.grad(values.sum(), z)
    before, passed = solved([Activation(kind)], values.tolist(), (1.0, 2.0, 3.0), None)
    assert torch.allclose(before.values, z.detach())
    assert torch.allclose(passed, slopes * tensor(1.0, 2.0, 3.0))
    assert torch.allclose(before.deviations, ERROR / slopes)
    outside, nothing = solved([Activation(kind)], (1.5,), (1.0,), None)
    assert outside.deviations.isinf().all()
    assert not nothing.any()
