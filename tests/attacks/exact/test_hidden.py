"""Hidden units follow from the sums of their loss gradients, and with them the image behind `soteria`."""

import pytest
import torch
from torch import nn

import attacks
import defenses
from attacks.exact.hidden import MOST, summing
from dpbench.data import load_data
from dpbench.victim import load
from tests.helpers.attacks import know, photograph, psnr


def randoms(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_active_units_are_the_set_with_the_right_sum():
    delta, active = randoms(20, 12), randoms(20, 12) > 0.3
    seen = active & (randoms(12) > 0)
    total = torch.where(active, delta, 0.0).sum(1).float().double()
    found, sure = summing(delta, seen, total)
    assert bool(sure.all())
    assert torch.equal(found, active)


def test_equal_sums_and_too_many_hidden_units_leave_a_channel_open():
    delta, none = randoms(3, MOST + 1), torch.zeros(3, MOST + 1, dtype=torch.bool)
    seen = none.clone()
    seen[:2, 2:] = True
    delta[0, 0] = delta[0, 1]
    active = seen.clone()
    active[:, 0] = True
    found, sure = summing(delta, seen, torch.where(active, delta, 0.0).sum(1))
    assert sure.tolist() == [False, True, False]
    assert torch.equal(found[1], active[1])


@pytest.fixture(scope="module")
def early():
    return load("convnet", "none", "early", None, load_data("samples"), 32)


def answer(network, release, labels=None):
    attack = attacks.create("peel", iterations=2, engine="eager")
    return attack(release, know(network.model, labels), seed=0)


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.95])
def test_soteria_does_not_keep_an_image_from_peel(early, ratio):
    """At .5 and .95 nothing at all of the head's weight gradient is sent."""
    images, labels = photograph(2)
    chain = defenses.create("soteria", soteria_ratio=ratio)
    release = chain.release(early.model, early.loss, images, labels, seed=0)
    assert bool(release.gradients[-2].any()) == (ratio < 0.4)
    found = answer(early, release)
    assert found.certified.tolist() == [True]
    assert psnr(found.images, images) > 100
    assert torch.equal(found.labels, labels)


def test_the_certificate_ignores_what_was_not_sent_and_nothing_else(early):
    images, labels = photograph(2)
    release = defenses.create("soteria").release(early.model, early.loss, images, labels, seed=0)
    release.gradients[0][0, 0] *= 1.01
    found = answer(early, release)
    assert found.certified.tolist() == [False]


@pytest.mark.parametrize("defence", ["soteria+noise", "soteria+prune"])
def test_where_other_entries_are_touched_too_peel_gives_up(early, defence):
    images, labels = photograph(2)
    release = defenses.create(defence).release(early.model, early.loss, images, labels, seed=0)
    found = answer(early, release, labels)
    assert found.certified.tolist() == [False]
    assert f"it needs exact gradients, and {defence.split('+')[1]} changes them" in found.note


def test_hidden_features_behind_a_sigmoid_are_left_to_the_search():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 24, 3, stride=8)
    model = nn.Sequential(conv, nn.Sigmoid(), nn.Flatten(), nn.Linear(24 * 16, 10)).eval()
    images, labels = photograph(2)
    loss = nn.functional.cross_entropy
    release = defenses.create("soteria").release(model, loss, images, labels, seed=0)
    found = attacks.create("peel", iterations=2, engine="eager")(release, know(model), seed=0)
    assert found.certified.tolist() == [False]
    assert "the gradient hides features, and there is no ReLU" in found.note
