"""What is known of entries that were not sent, on a victim whose gradient is its image."""

from __future__ import annotations

import pytest
import torch

import attacks
from attacks import posterior_mean
from attacks.bounded import Bounded
from attacks.posterior import Misfit
from defenses import create
from dpbench.protocol import Release
from tests.helpers.linear_victim import CLASSES, PIXELS, gradients, told
from tests.helpers.linear_victim import draw as drawn

NAMES = ("fc.weight", "fc.bias")
LABEL = torch.tensor([1])


def largest(images, ratio):
    """A release of the largest entries of an image's gradient."""
    (stage,) = create("topk", topk_ratio=ratio).stages
    row, size = gradients(images, LABEL)[0], CLASSES * PIXELS
    shaped = (row[:size].view(CLASSES, PIXELS).clone(), row[size:].clone())
    return Release(NAMES, stage.process(shaped, torch.Generator()), 1, (stage.stage(),))


@pytest.fixture
def any_share(monkeypatch):
    """Bounds count however many entries were sent, of which the victim has few."""
    monkeypatch.setattr("attacks.bounded.FEW", 1.0)


def test_what_was_not_sent_is_held_to_the_size_of_the_smallest_entry_that_was(any_share):
    images = drawn(LABEL)
    release = largest(images, 0.2)
    misfit = Bounded(release, told(LABEL), LABEL)
    assert not misfit.residuals(images).any()
    row, sent = images.flatten(), release.gradients[0][1].abs()
    smallest, place = sent[sent != 0].min(), int(row.abs().argmin())
    for value, beyond in ((0.5 * smallest, 0.0), (-smallest - 0.1, -0.1), (smallest + 0.3, 0.3)):
        changed = row.clone()
        changed[place] = value
        left = misfit.residuals(changed.view_as(images)).detach() * misfit.variance.sqrt()
        assert float(left[PIXELS + place]) == pytest.approx(beyond, abs=1e-6)
        assert left.count_nonzero() == (beyond != 0)


@pytest.mark.parametrize(("ratio", "counts"), [(0.2, False), (0.001, True)])
def test_bounds_count_where_few_entries_were_sent(ratio, counts, monkeypatch):
    monkeypatch.setattr("attacks.bounded.FEW", 0.05)  # of 39 entries
    release, images = largest(drawn(LABEL), ratio), torch.full((1, 3, 2, 2), 5.0)
    kinds = [kind(release, told(LABEL), LABEL).residuals(images) for kind in (Bounded, Misfit)]
    assert torch.equal(*kinds) != counts


@pytest.mark.parametrize("name", ["none", "noise", "clip", "quantize", "sign", "censor"])
def test_without_bounds_it_is_the_misfit(name):
    knowledge, images = told(LABEL), drawn(LABEL)
    release = create(name).release(knowledge.model, knowledge.loss, images, LABEL, seed=0)
    kinds = [kind(release, knowledge, LABEL).residuals(images + 0.1) for kind in (Bounded, Misfit)]
    assert torch.equal(*kinds)


def test_bounds_bring_the_mean_of_the_draws_nearer(any_share, monkeypatch):
    errors = {}
    for kind in (Bounded, Misfit):
        monkeypatch.setattr(posterior_mean, "Bounded", kind)
        errors[kind] = 0.0
        for seed in range(3):
            images = drawn(LABEL, seed=100 + seed)
            attack = attacks.create("posterior-mean", restarts=3)
            found = attack(largest(images, 0.1), told(LABEL), seed=0).images
            errors[kind] += float((found - images).square().mean())
    assert errors[Bounded] < 0.85 * errors[Misfit]
