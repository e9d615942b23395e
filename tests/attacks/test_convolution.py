"""The engine's `conv2d` against PyTorch's: the same derivatives, without the one that nobody asks for."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attacks.engine import convolution
from attacks.engine.convolution import conv2d
from attacks.engine.twice import twice_differentiable

SETTINGS = {
    "plain": {},
    "strided": {"stride": 2, "padding": (1, 2)},
    "dilated": {"dilation": (2, 1), "padding": 2},
    "grouped": {"groups": 2, "padding": (1,)},
    "same": {"padding": "same"},
}


def tensors(groups=1, batch=2):
    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, 4, 7, 6), (6, 4 // groups, 3, 3), (6,))
    return [torch.randn(s, generator=generator, dtype=torch.float64).sin().requires_grad_() for s in shapes]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_derivatives_of_every_order_are_pytorchs(setting, batch):
    x, weight, bias = tensors(setting.get("groups", 1), batch)
    found = []
    for function in (conv2d, F.conv2d):
        y = function(x, weight, bias, **setting)
        first = torch.autograd.grad(y.sin().sum(), (x, weight, bias), create_graph=True)
        value = sum(g.square().sum() for g in first)
        second = torch.autograd.grad(value, (x, weight, bias), create_graph=True)
        third = torch.autograd.grad(second[0].square().sum(), (x, weight))
        found.append([y, *first, *second, *third])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_an_image_without_a_batch_is_pytorchs():
    x, weight, bias = tensors()
    torch.testing.assert_close(conv2d(x[0], weight, bias), F.conv2d(x[0], weight, bias))


def test_under_autocast_second_derivatives_are_pytorchs():
    """The output has fewer bits than the weights there, and the passes back are outside autocast."""
    x, weight, bias = (each.detach().float().requires_grad_() for each in tensors())
    found = []
    for function in (conv2d, F.conv2d):
        with torch.autocast("cpu", torch.bfloat16):
            y = function(x, weight, bias)
        first = torch.autograd.grad(y.float().sin().sum(), (weight, bias), create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), x)[0])
    torch.testing.assert_close(*found)


def test_a_convolution_of_twice_the_channels_is_two(monkeypatch):
    """Where weights outnumber the input's values, two are run instead."""
    for shape, count in (((2, 4, 7, 6), 1), ((1, 4, 3, 3), 2)):
        x, (_, weight, _) = torch.randn(shape, dtype=torch.float64), tensors()
        to_x, to_weight = torch.randn_like(x), torch.randn_like(weight)
        expected = F.conv2d(to_x, weight) + F.conv2d(x, to_weight)
        counts: list[int] = []
        with monkeypatch.context() as patch:
            patch.setattr(torch, "conv2d", lambda *given, c=counts, f=torch.conv2d: c.append(1) or f(*given))
            found = convolution._to_output(to_x, to_weight, x, weight, ((1, 1), (0, 0), (1, 1), 1))
        torch.testing.assert_close(found, expected)
        assert len(counts) == count


@pytest.mark.parametrize("computed", [False, True], ids=["parameter", "computed"])
def test_weights_that_are_asked_for_get_their_gradient(computed):
    x, weight, _ = tensors()

    def loss(function):
        return function(x, weight * 1 if computed else weight).sin().sum()

    (found,), (expected,) = (torch.autograd.grad(loss(f), weight) for f in (conv2d, F.conv2d))
    torch.testing.assert_close(found, expected)
    loss(conv2d).backward()
    torch.testing.assert_close(weight.grad, expected)


def test_a_search_computes_only_what_it_needs(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3))
    z = torch.randn(2, 3, 8, 8, requires_grad=True)
    forward, backward = torch.conv2d, convolution._gradients
    counts = []
    monkeypatch.setattr(torch, "conv2d", lambda *given: counts.append(1) or forward(*given))
    monkeypatch.setattr(
        convolution, "_gradients", lambda *given: counts.append(sum(given[-2:])) or backward(*given)
    )
    with twice_differentiable():
        loss = model(z).sin().sum()
    gradients = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    torch.autograd.grad(sum(g.square().sum() for g in gradients), z)
    # of each layer the output and two gradients, then four, of which two go as one; the first layer's input
    # needs none at first
    assert sum(counts) == 6 + 5
