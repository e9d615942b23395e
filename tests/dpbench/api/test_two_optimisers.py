"""Two optimisers on one model: what one of Opacus claims does not hold for what both send."""

import pytest
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import nn
from torch.nn.functional import cross_entropy

import dpbench
from dpbench.protocol import InputError, Release

torch.set_num_threads(1)


def network():
    torch.manual_seed(0)
    return GradSampleModule(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)))


def plain(layer):
    return torch.optim.SGD(layer.parameters(), lr=0.1)


def private(layer):
    return DPOptimizer(plain(layer), noise_multiplier=0.7, max_grad_norm=1.3, expected_batch_size=4)


def backward(model):
    cross_entropy(model(torch.rand(4, 6)), torch.tensor([0, 1, 2, 0])).backward()


def test_each_clips_its_own_part_so_together_they_move_by_more_than_c():
    """What the refusal is about, measured: without noise, one sample of a large gradient."""
    model = network()
    optimisers = [
        DPOptimizer(plain(part), noise_multiplier=0, max_grad_norm=1e-3, expected_batch_size=1)
        for part in (model._module[0], model._module[2])
    ]
    cross_entropy(model(torch.rand(1, 6)), torch.tensor([1])).backward()
    for each in optimisers:
        each.step()
    sent = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert float(sent.norm()) == pytest.approx(2**0.5 * 1e-3, rel=1e-3)


def test_a_second_optimiser_in_the_block_is_refused():
    model = network()
    first, second = private(model._module[2]), plain(model._module[0])
    with dpbench.capture(model, first):
        backward(model)
        first.step()
        with pytest.raises(InputError, match=r"Another optimiser steps `0\.weight`"):
            second.step()


def test_a_second_one_of_opacus_is_noticed_when_the_release_is_read():
    model = network()
    first, _ = private(model._module[2]), private(model._module[0])
    backward(model)
    first.step()
    with pytest.raises(InputError, match="its epsilon does not hold"):
        Release.from_optimizer(first, model)
    with (
        pytest.raises(InputError, match=r"Another optimiser steps `0\.weight`"),
        dpbench.capture(model, first),
    ):
        pytest.fail("the block has begun")


def test_frozen_layers_and_optimisers_of_other_models_do_not_matter():
    model, elsewhere = network(), nn.Linear(2, 2)
    _, first = private(model._module[0]), private(model._module[2])
    model._module[0].requires_grad_(False)
    another = plain(elsewhere)
    with dpbench.capture(model, first) as captured:
        backward(model)
        first.step()
        elsewhere(torch.ones(1, 2)).sum().backward()
        another.step()
    assert captured.release.names == ("2.weight", "2.bias")


def test_after_the_block_nobody_is_watched():
    model = network()
    first, second = private(model._module[2]), plain(model._module[0])
    with dpbench.capture(model, first):
        backward(model)
        first.step()
    second.step()


def test_a_parameter_that_is_frozen_after_backward_is_stepped_without_clipping_and_noise():
    model = network()
    first, weight = private(model), model._module[0].weight
    with dpbench.capture(model, first) as found:
        backward(model)
        first.step()
    assert len(found.release.names) == 4
    first.zero_grad()
    backward(model)
    plain_gradient = weight.grad.clone()
    weight.requires_grad_(False)
    with pytest.raises(InputError, match=r"frozen between .*no epsilon holds"), dpbench.capture(model, first):
        first.step()
    assert torch.equal(weight.grad, plain_gradient)
    first.zero_grad()
    backward(model)
    with dpbench.capture(model, first) as found:
        first.step()
    assert len(found.release.names) == 3
