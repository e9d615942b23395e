"""The loss gradient of one image, from what a defence left of the last layer's gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import attacks
from attacks import inverting_gradients
from attacks.base import Task
from attacks.held import Held, held
from attacks.held_in_part import RIGHT, loss_gradient
from defenses import create
from tests.helpers.attacks import know, noise_release, plain_release, smooth_images

LABEL = torch.tensor([2])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(512, 6)

    def forward(self, x):
        return self.fc(torch.relu(self.conv((x - 0.5) / 0.25)).flatten(1))


def released(defence, given, model, loss=F.cross_entropy):
    return create(defence, **given).release(model, loss, smooth_images(1), LABEL, seed=0)


def knowing(model, loss=F.cross_entropy):
    return replace(know(model, LABEL, (3, 8, 8), 6), loss=loss)


def true(model, loss=F.cross_entropy):
    return released("none", {}, model, loss).gradients[-1]


@pytest.mark.parametrize(
    ("defence", "given", "error"),
    [
        ("prune", {"prune_ratio": 0.5}, 1e-5),
        ("prune", {"prune_ratio": 0.9}, 0.1),
        ("clip+prune", {"prune_ratio": 0.5, "max_grad_norm": 0.1}, 1e-5),
        ("topk", {"topk_ratio": 0.3}, 0.1),
        ("percentile", {"percentile": 1.0, "percentile_gamma": 0.3}, 1e-5),
        ("noise", {"noise_std": 3e-3}, 0.01),
        ("dp", {"noise_multiplier": 1e-3, "max_grad_norm": 1.0}, 0.01),
        ("quantize", {"quantize_bits": 8}, 0.02),
    ],
)
def test_it_is_read_of_what_was_sent(defence, given, error):
    model = Net()
    release, expected = released(defence, given, model), true(model)
    found, layer = loss_gradient(release, knowing(model))
    assert layer == "fc"
    assert float((found / found.norm() - expected / expected.norm()).norm()) < error
    if "clip" not in defence and defence != "dp":  # objectives that clamp see its length
        assert float(found.norm()) == pytest.approx(float(expected.norm()), rel=0.1)


@pytest.mark.parametrize(
    ("defence", "given"),
    [
        ("noise", {"noise_std": 1.0}),
        ("dp", {"noise_multiplier": 1.0, "max_grad_norm": 1.0}),
        ("prune", {"prune_ratio": 0.999}),
        ("sign", {}),
        ("censor", {}),
        ("quantize", {"quantize_bits": 1}),
        ("prune+quantize", {"prune_ratio": 0.5}),  # what rounding says of itself takes zeros for sent
        ("none", {}),
    ],
)
def test_it_is_left_where_it_would_be_a_guess(defence, given):
    model = Net()
    assert loss_gradient(released(defence, given, model), knowing(model)) is None


def test_no_outer_product_is_none():
    model = Net()
    release = released("prune", {"prune_ratio": 0.5}, model)
    assert loss_gradient(replace(noise_release(release), defense=release.defense), knowing(model)) is None


def test_what_was_not_sent_of_another_loss_is_not_guessed():
    """Of a softmax' the entries add up to zero."""
    model = Net()
    loss = lambda outputs, labels: (outputs - 9 * F.one_hot(labels, 6)).pow(2).sum(1).mean()  # noqa: E731
    release = released("prune", {"prune_ratio": 0.99}, model, loss)
    assert loss_gradient(release, knowing(model, loss)) is None
    told = released("prune", {"prune_ratio": 0.3}, model, loss)
    found, expected = loss_gradient(told, knowing(model, loss))[0], true(model, loss)
    assert float((found - expected).norm()) < RIGHT * float(expected.norm())


@pytest.mark.parametrize(
    ("given", "adaptive", "holds"),
    [
        ({"prune_ratio": 0.5}, True, True),
        ({"prune_ratio": 0.5}, False, False),
        ({"prune_ratio": 0.97}, True, False),  # the prior decides as much as the release
    ],
)
def test_the_search_that_knows_holds_it(monkeypatch, given, adaptive, holds):
    model, seen = Net(), []
    release = released("prune", given, model)

    class Watched(inverting_gradients.Problem):
        def __init__(self, knowledge, *rest, **more):
            seen.append(knowledge.loss)
            super().__init__(knowledge, *rest, **more)

    monkeypatch.setattr(inverting_gradients, "Problem", Watched)
    attacks.create("inverting-gradients", iterations=2, adaptive=adaptive)(release, knowing(model), seed=0)
    assert isinstance(seen[0], Held) == holds


def test_of_an_exact_release_nothing_changes():
    model = Net()
    release = plain_release(model, smooth_images(1), LABEL)
    task = Task(release, knowing(model), torch.Generator(), torch.device("cpu"), lambda *_: None, 0.0)
    pair = [held(task, LABEL, in_part).loss.deltas for in_part in (False, True)]
    assert torch.equal(*pair)
