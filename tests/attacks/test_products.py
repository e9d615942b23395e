"""Convolutions of one image as oneDNN's products, against PyTorch's own."""

import pytest
import torch
from torch.nn import functional as F

from attacks.engine import products
from attacks.engine.convolution import conv2d

SETTINGS = {
    "plain": {},
    "padded": {"padding": 1},
    "strided": {"stride": 2, "padding": (1, 2)},
    "dilated": {"dilation": (2, 1), "padding": 2},
}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(products, "LEAST", 0)


def derivatives(function, layout, setting):
    """Output, first derivatives, and the gradient of a sum of their squares by the image."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(s, generator=generator) for s in ((1, 4, 6, 5), (64, 4, 3, 2), (64,)))
    weight = weight.contiguous(memory_format=layout)
    leaves = [v.requires_grad_() for v in (x, weight, bias)]
    y = function(*leaves, **setting)
    first = torch.autograd.grad(y.sin().sum(), leaves, create_graph=True)
    return [y, *first, *torch.autograd.grad(sum(g.square().sum() for g in first), x)]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_a_search_gets_pytorchs_values(setting, layout, small, monkeypatch):
    counts = []
    kept = torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(
        torch.ops.mkldnn, "_linear_pointwise", lambda *given: counts.append(1) or kept(*given), raising=False
    )
    found = derivatives(conv2d, layout, setting)
    assert len(counts) == 7  # one and two in the first pass and four in the second: all by oneDNN
    for ours, theirs in zip(found, derivatives(F.conv2d, layout, setting), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_compilers_take_it():
    from torch.fx.experimental.proxy_tensor import make_fx

    a, b = torch.randn(3, 5), torch.randn(4, 5)
    traced = make_fx(lambda a, b: products.product(a, b) + 1, tracing_mode="fake")(a, b)
    torch.testing.assert_close(traced(a, b), a @ b.T + 1)


@pytest.mark.parametrize(
    ("shape", "weight", "setting"),
    [
        ((2, 4, 3, 3), (40, 4, 3, 3), {"padding": 1}),
        ((1, 4, 9, 9), (40, 4, 3, 3), {"padding": 1}),
        ((1, 4, 3, 3), (40, 2, 3, 3), {"padding": 1, "groups": 2}),
    ],
    ids=["two images", "many places", "groups"],
)
def test_other_shapes_are_pytorchs(shape, weight, setting, small, monkeypatch):
    monkeypatch.setattr(products, "output", None)
    x, weight = torch.randn(shape), torch.randn(weight)
    torch.testing.assert_close(conv2d(x, weight, **setting), F.conv2d(x, weight, **setting))


def test_small_products_are_pytorchs():
    x, weight = torch.randn(1, 64, 4, 4), torch.randn(64, 64, 3, 3)
    assert not products.serves(x, weight, ((1, 1), (1, 1), (1, 1), 1))
    assert products.serves(x.repeat(1, 4, 1, 1), torch.randn(256, 256, 3, 3), ((1, 1), (1, 1), (1, 1), 1))
