"""Victims with operations that have no second derivative: attention, hardsigmoid, and made-up ones."""

import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer

import attacks
from attacks.engine.problem import Problem
from attacks.engine.twice import hardsigmoid, twice_differentiable
from attacks.objectives import SquaredL2
from dpbench.protocol import InputError
from tests.helpers.attacks import know, plain_release, smooth_images

SHAPE, CLASSES, LABELS = (3, 16, 16), 4, torch.tensor([2])
SEARCHES = {
    "inverting-gradients": {"iterations": 2},
    "gradinversion": {"iterations": 2, "restarts": 2, "terms": "registered"},
    "dlg": {"iterations": 2, "restarts": 1},
    "idlg": {"iterations": 2, "restarts": 1},
}


class Attention(nn.Module):
    """All that the fast path of attention asks for: evaluation mode, an even number of heads, one input."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, stride=2)
        self.attention, self.fc = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, CLASSES)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.fc(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))


def transformer():
    model = VisionTransformer(16, 8, 1, 2, 8, 16, num_classes=CLASSES)
    nn.init.normal_(model.heads.head.weight)  # zero from torchvision: no gradient would reach the images
    return model


class Scaled(nn.Module):
    """Hardsigmoid called as a function, as in squeeze and excitation."""

    def forward(self, x):
        return x * F.hardsigmoid(x.mean((2, 3), keepdim=True))


def convolutional(inplace):
    conv = nn.Conv2d(3, 8, 3, padding=1)
    gates = [nn.Hardswish(inplace), nn.Conv2d(8, 8, 1), nn.Hardsigmoid(inplace), Scaled()]
    return nn.Sequential(conv, *gates, nn.Flatten(), nn.Linear(2048, CLASSES))


VICTIMS = {
    "attention": Attention,
    "transformer": transformer,
    "hardsigmoid": lambda: convolutional(False),
    "in place": lambda: convolutional(True),
}


@pytest.fixture(params=VICTIMS)
def victim(request):
    torch.manual_seed(0)
    return VICTIMS[request.param]().eval()


@pytest.mark.parametrize("name", SEARCHES)
def test_searches_run(name, victim):
    images = smooth_images(1, 16)
    knowledge = know(victim, None if name == "dlg" else LABELS, SHAPE, CLASSES)
    found = attacks.create(name, **SEARCHES[name])(plain_release(victim, images, LABELS), knowledge, seed=0)
    assert found.images.shape == images.shape
    assert found.images.min() >= 0
    assert found.images.max() <= 1  # False for NaN
    assert torch.tensor(found.gradient_distance).isfinite()
    assert not torch.equal(found.images, found.start)


def gradient_at(victim, z):
    release = plain_release(victim, smooth_images(1, 16).to(z.dtype), LABELS)
    problem = Problem(know(victim, LABELS, SHAPE, CLASSES), release.gradients, SquaredL2())
    distance, _, (gradient,) = problem.gradient([z.requires_grad_()], LABELS)
    return float(distance), gradient


def test_the_gradient_is_that_of_finite_differences(victim):
    victim.double()
    generator = torch.Generator().manual_seed(1)
    z, step = (torch.randn(1, *SHAPE, generator=generator, dtype=torch.float64) for _ in range(2))
    _, gradient = gradient_at(victim, z)
    ahead, behind = (gradient_at(victim, z.detach() + h * step)[0] for h in (1e-6, -1e-6))
    assert gradient.isfinite().all()
    assert float((gradient * step).sum()) == pytest.approx((ahead - behind) / 2e-6, rel=1e-4)


def test_frozen_attention_stays_off_its_fast_path():
    torch.manual_seed(0)
    victim = Attention().eval()
    victim.attention.requires_grad_(False)
    z = torch.randn(1, *SHAPE, requires_grad=True)
    with twice_differentiable():
        loss = victim(z).square().sum()
    (first,) = torch.autograd.grad(loss, victim.fc.weight, create_graph=True)
    assert torch.autograd.grad(first.square().sum(), z)[0].isfinite().all()


@pytest.mark.parametrize("inplace", [False, True])
def test_hardsigmoid_is_pytorchs_own(inplace):
    x = torch.cat([torch.linspace(-4, 4, 1001), torch.tensor([-3.0, 3.0])]).requires_grad_()
    expected, other = F.hardsigmoid(x), x * 1
    found = hardsigmoid(other, inplace)
    assert (found is other) is inplace
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)
    gradients = [torch.autograd.grad(y.sum(), x)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-7)


class Twice(torch.autograd.Function):
    """Its backward pass is differentiable."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0].cos()


class Marked(Twice):
    """Its backward pass says that it has no backward pass itself."""

    backward = staticmethod(torch.autograd.function.once_differentiable(Twice.backward))


class Detached(Twice):
    """Its backward pass leaves autograd without a word."""

    @staticmethod
    def backward(ctx, gradient):
        return Twice.backward(ctx, gradient).detach()


class Straight(torch.autograd.Function):
    """Rounds; its gradient passes straight through."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Stop(torch.autograd.Function):
    """Its gradient is zero, and so are all further ones."""

    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient)


class Wave(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function.apply(x)


class Gate(nn.Module):
    """Hardsigmoid by a private name, which nothing replaces."""

    def forward(self, x):
        return torch._C._nn.hardsigmoid(x)


def waving(gate):
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), gate)
    return nn.Sequential(block, nn.Flatten(), nn.Linear(1024, CLASSES)).eval()


@pytest.mark.parametrize(
    ("gate", "words", "engine"),
    [
        (Wave(Marked), r"Marked in its module 0\.1 \(Wave\)", "eager"),
        (Wave(Marked), r"Marked in its module 0\.1 \(Wave\)", "compiled"),
        (Wave(Detached), r"Detached in its module 0\.1 \(Wave\)", "eager"),
        (Gate(), r"hardsigmoid in its module 0\.1 \(Gate\)", "eager"),
        (Gate(), r"hardsigmoid in its module 0\.1 \(Gate\)", "compiled"),
    ],
)
def test_what_has_no_second_derivative_is_named(gate, words, engine):
    victim = waving(gate)
    release, knowledge = plain_release(victim, smooth_images(1, 16), LABELS), know(victim, LABELS, SHAPE, 4)
    attack = attacks.create("inverting-gradients", iterations=2, engine=engine)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no other engine is tried
        with pytest.raises(InputError, match=words):
            attack(release, knowledge, seed=0)
    assert not any(module._forward_hooks for module in victim.modules())
    with pytest.raises(InputError, match=words):
        attacks.create("idlg", iterations=2)(release, knowledge, seed=0)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda logits, y: F.cross_entropy(Marked.apply(logits), y), "Marked in its loss"),
        (nn.MultiMarginLoss(), "multi_margin_loss in its loss"),
    ],
)
def test_a_loss_without_a_second_derivative_is_named(loss, words):
    victim = waving(nn.Tanh())
    release = plain_release(victim, smooth_images(1, 16), LABELS)
    knowledge = replace(know(victim, LABELS, SHAPE, CLASSES), loss=loss)
    with pytest.raises(InputError, match=words):
        attacks.create("idlg", iterations=2)(release, knowledge, seed=0)


@pytest.mark.parametrize("function", [Twice, Straight, Stop])
def test_functions_with_a_second_derivative_are_served(function):
    victim = waving(Wave(function))
    release, knowledge = plain_release(victim, smooth_images(1, 16), LABELS), know(victim, LABELS, SHAPE, 4)
    found = attacks.create("inverting-gradients", iterations=2)(release, knowledge, seed=0)
    assert torch.isfinite(found.images).all()


def test_an_attack_that_differentiates_once_serves_them_all():
    victim = waving(Wave(Marked))
    release, knowledge = plain_release(victim, smooth_images(1, 16), LABELS), know(victim, LABELS, SHAPE, 4)
    found = attacks.create("deepinversion", iterations=2)(release, knowledge, seed=0)
    assert torch.isfinite(found.images).all()


@pytest.mark.slow
def test_a_compiled_search_goes_the_same_way(victim):
    release, knowledge = plain_release(victim, smooth_images(1, 16), LABELS), know(victim, LABELS, SHAPE, 4)
    eager, compiled = (
        attacks.create("inverting-gradients", iterations=3, engine=engine)(release, knowledge, seed=0)
        for engine in ("eager", "compiled")
    )
    assert compiled.engine == "compiled"
    assert compiled.gradient_distance == pytest.approx(eager.gradient_distance, rel=1e-3)
