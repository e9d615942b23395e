"""A module with other tensors, where a layer stands in two places or a weight belongs to two layers."""

from __future__ import annotations

import copy

import pytest
import torch

import defenses
from dpbench.protocol import functional_call
from tests.helpers.networks import NETWORKS, SIZE


@pytest.mark.parametrize("name", ["one layer twice", "tied weights", "MLP", "MobileNetV3"])
def test_it_gives_what_a_model_with_these_weights_gives_and_leaves_the_model_as_it_was(name):
    torch.manual_seed(0)
    model, images = NETWORKS[name].build(), torch.rand(2, 3, SIZE, SIZE)
    before = {name: (p, p.detach().clone()) for name, p in model.named_parameters(remove_duplicate=False)}
    given = {n: torch.rand_like(p) for n, p in model.named_parameters() if p.requires_grad}
    other = copy.deepcopy(model)
    with torch.no_grad():
        for n, tensor in given.items():
            other.get_parameter(n).copy_(tensor)
    assert torch.equal(functional_call(model, given, (images,)), other(images))
    after = dict(model.named_parameters(remove_duplicate=False))
    assert list(after) == list(before)
    assert all(after[n] is p and torch.equal(p, values) for n, (p, values) in before.items())


@pytest.mark.parametrize("defence", ["clip", "dp", "censor"])
def test_a_defence_leaves_the_weights_of_a_layer_that_stands_in_two_places(defence):
    torch.manual_seed(0)
    network = NETWORKS["one layer twice"]
    model = network.build()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    options = {"noise_multiplier": 0.1} if defence == "dp" else {}
    chain = defenses.create(defence, **options)
    images, labels = torch.rand(2, 3, SIZE, SIZE), torch.tensor([0, 1])
    chain.release(model, network.loss, images, labels, seed=0)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
