"""The engine's `batch_norm` against PyTorch's: the same derivatives of every order."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from attacks.engine.normalisation import batch_norm
from attacks.engine.twice import twice_differentiable
from dpbench.victim.layers import FrozenBatchNorm2d


def tensors(shape):
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(s, generator=generator, dtype=torch.float64) for s in (shape, (4,), (4,), (4,))]
    variance = torch.rand(4, generator=generator, dtype=torch.float64) + 0.1
    return [v.requires_grad_() for v in given[:3]], (given[3], variance)


def derivatives(function, shape, of=(0, 1, 2)):
    """Value, then the first three derivatives where the second is that of some of the first ones only."""
    (x, weight, bias), (mean, variance) = tensors(shape)
    y = function(x, mean, variance, weight, bias, eps=0.01)
    first = torch.autograd.grad(y.sin().sum(), (x, weight, bias), create_graph=True)
    value = sum((i + 1) * first[i].square().sum() for i in of)
    second = torch.autograd.grad(value, (x, weight, bias), create_graph=True)
    third = torch.autograd.grad(second[0].square().sum(), (x, weight), materialize_grads=True)
    return [y, *first, *second, *third]


@pytest.mark.parametrize("of", [(0, 1, 2), (0,), (1,), (2,)], ids=["all", "input", "weights", "biases"])
@pytest.mark.parametrize("shape", [(2, 4, 5, 3), (1, 4, 2, 2), (3, 4)], ids=["images", "one", "vectors"])
def test_derivatives_of_every_order_are_pytorchs(shape, of):
    for ours, theirs in zip(*(derivatives(f, shape, of) for f in (batch_norm, F.batch_norm)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_weights_that_are_asked_for_get_their_second_derivative():
    found = []
    for function in (batch_norm, F.batch_norm):
        (x, weight, bias), (mean, variance) = tensors((2, 4, 5, 3))
        y = function(x, mean, variance, weight, bias)
        (first,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
        first.square().sum().backward()
        found.append(weight.grad)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ("norm", "training"),
    [
        (nn.BatchNorm2d(4), True),
        (nn.BatchNorm2d(4, affine=False), False),
        (nn.BatchNorm2d(4, track_running_stats=False), False),
    ],
    ids=["training", "not affine", "no statistics"],
)
def test_what_is_no_affine_map_of_each_channel_is_pytorchs(norm, training):
    norm.train(training)
    x = torch.randn(2, 4, 3, 3)
    expected = norm(x)
    with twice_differentiable():
        torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4).eval(), FrozenBatchNorm2d(4)], ids=["eval", "frozen"])
def test_a_search_takes_it(norm):
    x = torch.randn(2, 4, 3, 3)
    with twice_differentiable():
        assert norm(x).grad_fn.name() == "_AffineBackward"
    torch.testing.assert_close(norm(x), norm.weight[:, None, None] * x, rtol=1e-4, atol=1e-4)


class Watched(TorchDispatchMode):
    """Notes the arguments of each backward pass of a batch norm."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.native_batch_norm_backward.default:
            self.seen.append(args)
        return func(*args, **(kwargs or {}))


def test_the_backward_pass_hands_over_what_the_forward_pass_saved():
    """As a graphics card demands; the CPU takes None, too."""
    (x, weight, bias), (mean, variance) = tensors((2, 4, 5, 3))
    with Watched() as watched:
        batch_norm(x, mean, variance, weight, bias).sin().sum().backward()
    ((_, _, _, _, _, saved_mean, saved_rate, training, *_),) = watched.seen
    assert training is False
    assert isinstance(saved_mean, torch.Tensor)
    assert isinstance(saved_rate, torch.Tensor)
