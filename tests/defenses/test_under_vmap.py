"""Layers with a faster way for weights of each sample's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from defenses.per_sample import per_sample, verified
from defenses.per_sample.plain import _made_for_vmap, by_functorch
from dpbench.victim.layers import FrozenBatchNorm2d

torch.set_num_threads(1)
IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(4)


@pytest.fixture(autouse=True)
def nothing_verified(monkeypatch):
    monkeypatch.setattr(verified, "_verified", set())


def norm(kind=FrozenBatchNorm2d):
    layer, generator = kind(3), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            tensor.copy_(torch.rand(3, generator=generator) + 0.5)
    return layer


def network(layer):
    torch.manual_seed(0)
    return nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.Linear(192, 5)).eval()


def test_frozen_batch_norms_faster_way_is_the_same_map():
    layer = norm()
    inputs = [IMAGES.clone().requires_grad_(), layer.weight, layer.bias]
    one, other = layer(inputs[0]), layer.under_vmap(inputs[0])
    torch.testing.assert_close(one, other)
    slopes = [torch.autograd.grad(y, inputs, IMAGES) for y in (one, other)]
    torch.testing.assert_close(*slopes)


def test_it_takes_rows_as_well():
    layer, rows = norm(), torch.rand(4, 3, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(layer.under_vmap(rows), layer(rows))


def test_it_runs_while_gradients_are_taken_and_not_after(monkeypatch):
    model, seen = network(norm()), []
    plain = FrozenBatchNorm2d.under_vmap
    monkeypatch.setattr(FrozenBatchNorm2d, "under_vmap", lambda self, x: (seen.append(1), plain(self, x))[1])
    by_functorch(model, F.cross_entropy, IMAGES, LABELS)
    assert len(seen) == 1
    model(IMAGES)
    assert len(seen) == 1
    assert "forward" not in vars(model[0])


class Own(FrozenBatchNorm2d):
    """Changes the map, and knows nothing of the faster way."""

    def forward(self, x):
        return super().forward(x) * 2


class Other(Own):
    def forward(self, x):
        return super().forward(x)

    def under_vmap(self, x):
        return super().under_vmap(x)


class Fails(Own):
    def forward(self, x):
        return super().forward(x)

    def under_vmap(self, x):
        raise ValueError("not here")


def test_a_subclass_with_a_forward_of_its_own_runs_that():
    model = network(norm(Own))
    found = per_sample(model, F.cross_entropy, IMAGES, LABELS)
    assert found.method == "functorch"
    loss = F.cross_entropy(model(IMAGES[:1]), LABELS[:1])
    expected = torch.autograd.grad(loss, list(model.parameters()))
    torch.testing.assert_close([g[0] for g in found.gradients], list(expected))


@pytest.mark.parametrize("kind", [Other, Fails])
def test_a_wrong_one_is_found(kind):
    model = network(norm(kind))
    found = per_sample(model, F.cross_entropy, IMAGES, LABELS)
    assert found.method == "loop"
    assert "forward" not in vars(model[0])
    for row in range(4):
        loss = F.cross_entropy(model(IMAGES[row : row + 1]), LABELS[row : row + 1])
        expected = torch.autograd.grad(loss, list(model.parameters()))
        torch.testing.assert_close([g[row] for g in found.gradients], list(expected))


def test_a_forward_of_ones_own_stays():
    model = network(norm())
    model[0].forward = lambda x: x * model[0].weight[:, None, None] + model[0].bias[:, None, None]
    own = model[0].forward
    assert per_sample(model, F.cross_entropy, IMAGES, LABELS).method == "functorch"
    assert model[0].forward is own


def test_only_a_cpu_takes_it():
    model = network(norm())
    for device, taken in (("cpu", True), ("meta", False)):
        with _made_for_vmap(model.to(device)):
            assert ("forward" in vars(model[0])) is taken
