"""Labels guessed wrong are exchanged for the right ones, and for nothing else."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import attacks
from attacks import labels as rules
from attacks.exact import relabelled
from attacks.exact.consistency import Layer
from attacks.exact.last_layer import samples
from attacks.exact.relabelled import Search
from attacks.exact.subspace import subspace
from dpbench.protocol import Release
from tests.helpers.attacks import know, plain_release

CLASSES = 10


def scene(labels, seed=0, size=24):
    """A drawn layer of `size` features in [-1, 1], the gradient of samples with these labels, and them."""
    draws = torch.Generator().manual_seed(seed)
    weight = torch.randn(CLASSES, size, generator=draws).double() / 3
    bias = torch.zeros(CLASSES).double()
    features = torch.randn(len(labels), size, generator=draws).tanh().double()
    deltas = (features @ weight.T + bias).softmax(1) - F.one_hot(torch.tensor(labels), CLASSES)
    gradients = (t.float().double() for t in (deltas.T @ features, deltas.sum(0)))
    return Layer(*gradients, weight, bias, False), features


def search(layer, batch, exchange=True, tries=6):
    space = subspace(layer.weight, batch)
    return Search(space, layer, torch.Generator().manual_seed(0), tries, exchange)


@pytest.mark.parametrize("guess", [[1, 1, 3, 7], [1, 1, 3, 2], [1, 3, 7, 9], [1, 3, 4, 8]])
def test_wrong_labels_are_exchanged(guess):
    """None, one, one and two of four."""
    right = [1, 1, 3, 7]
    layer, features = scene(right)
    solution = search(layer, 4)([torch.tensor(guess)])
    assert solution.certain
    assert sorted(solution.labels.tolist()) == right
    space = subspace(layer.weight, 4)
    assert torch.cdist(features, solution.point @ space.basis).min(1).values.max() < 1e-4


def test_labels_that_are_known_are_not_exchanged():
    layer, _ = scene([1, 1, 3, 7])
    solution = search(layer, 4, exchange=False)([torch.tensor([1, 1, 3, 2])])
    assert not solution.certain
    assert sorted(solution.labels.tolist()) == [1, 1, 2, 3]


def test_labels_that_the_bias_gradient_shows_are_kept():
    layer, _ = scene([1, 1, 3, 7])
    shown = {n for n in range(CLASSES) if layer.bias[n] < -0.1}
    assert {3, 7} <= shown
    for _, labels in search(layer, 4).exchanged(torch.tensor([1, 3, 7, 2]), {(1, 2, 3, 7)}):
        assert {3, 7} <= set(labels.tolist())
        assert 2 not in labels


def test_a_gradient_of_no_samples_has_no_labels():
    layer, _ = scene([1, 1, 3, 7])
    torch.manual_seed(0)
    deltas = torch.randn(4, CLASSES).double()
    deltas -= deltas.mean(1, keepdim=True)
    weight = deltas.T @ torch.randn(4, 24).double()
    layer = Layer(weight, deltas.sum(0), layer.own_weight, layer.own_bias, False)
    assert not search(layer, 4)([torch.tensor([0, 1, 2, 3])]).certain


def test_exchanges_end(monkeypatch):
    begun, told = [], []
    monkeypatch.setattr(relabelled, "EXCHANGES", 5)
    solution = relabelled.Equations.solution
    monkeypatch.setattr(
        relabelled.Equations,
        "solution",
        lambda self, labels, *given: begun.append(len(labels)) or solution(self, labels, *given),
    )
    layer, _ = scene([1, 1, 3, 7])
    exchanging = replace(search(layer, 4, tries=1), tell=lambda *progress: told.append(progress))
    assert not exchanging([torch.tensor([2, 4, 5, 6])]).certain
    assert sum(begun) <= 1 + 2 * 5
    assert told[-1] == (5, 5)


def test_too_many_samples_are_not_begun(monkeypatch):
    monkeypatch.setattr(relabelled, "LARGEST", 2)
    layer, _ = scene([1, 3, 7])
    assert search(layer, 3)([torch.tensor([1, 3, 7])]) is None


def test_auto_restores_labels_that_counts_gets_wrong():
    """All of eight drawn batches of four."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.Tanh(), nn.Linear(64, CLASSES))
    with torch.no_grad():
        model[3].weight.mul_(4)
    by_rule = {"counts": 0, "auto": 0}
    for seed in range(8):
        draws = torch.Generator().manual_seed(seed)
        images = torch.rand(4, 3, 8, 8, generator=draws)
        labels = torch.randint(CLASSES, (4,), generator=draws)
        release, knowledge = plain_release(model, images, labels), know(model, None, (3, 8, 8), CLASSES)
        for rule in by_rule:
            found = torch.bincount(rules.infer(release, knowledge, rule), minlength=CLASSES)
            by_rule[rule] += int(torch.minimum(found, torch.bincount(labels, minlength=CLASSES)).sum())
        if seed == 0:
            told = []
            search = attacks.create("inverting-gradients", iterations=1)
            search(release, knowledge, seed=0, progress=lambda *each, told=told: told.append(each))
            assert len(told) > 2  # one of the iteration
            assert all(0 <= done <= whole for done, whole, _ in told)
            found, _ = samples(release, knowledge, torch.Generator().manual_seed(0), 200)
            assert sorted(found.labels.tolist()) == sorted(labels.tolist())
    assert by_rule["auto"] == 32 > by_rule["counts"]


def test_two_samples_that_add_up_are_not_taken_for_one():
    """Two of one class with the same features leave one row, which is twice as long."""
    layer, features = scene([1, 3, 7], size=128)
    features = features.clamp_min(0)
    deltas = (features @ layer.own_weight.T).softmax(1) - F.one_hot(torch.tensor([1, 3, 7]), CLASSES)
    deltas = deltas * torch.tensor([[2.0], [1.0], [1.0]])
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, CLASSES)).double()
    with torch.no_grad():
        model[1].weight.copy_(layer.own_weight)
        model[1].bias.zero_()
    gradients = (deltas.T @ features / 4).float(), (deltas.sum(0) / 4).float()
    release = Release(("1.weight", "1.bias"), gradients, 4)
    knowledge = know(model, None, (128, 1, 1), CLASSES)
    found, _ = samples(release, knowledge, torch.Generator().manual_seed(0), 200)
    places = torch.cdist(features, found.features).argmin(1)
    assert found.factors[places].tolist() == pytest.approx([2, 1, 1], abs=1e-3)
    assert found.residual[places].isinf().tolist() == [True, False, False]
