"""What somebody's model and loss do decides the key of a result, not only weights and code."""

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dpbench
from dpbench.system.behaviour import of_function, of_module


class Scaled(nn.Module):
    """A layer with a number that is neither a parameter nor a buffer."""

    def __init__(self, factor, activation=torch.tanh):
        super().__init__()
        self.factor, self.activation = factor, activation
        self.register_buffer("shift", torch.zeros(1), persistent=False)

    def forward(self, x):
        return self.activation(self.factor * x + self.shift)


def shifted():
    made = Scaled(1.0)
    made.shift += 1
    return made


def frozen():
    made = nn.Linear(1, 1)
    made.weight.requires_grad_(False)
    return made


def smooth(amount):
    return lambda outputs, labels: F.cross_entropy(outputs, labels, label_smoothing=amount)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: nn.LeakyReLU(0.1), lambda: nn.LeakyReLU(0.2)),
        (lambda: Scaled(1.0), lambda: Scaled(2.0)),
        (lambda: Scaled(1.0), lambda: Scaled(1.0, torch.relu)),
        (lambda: Scaled(1.0), shifted),
        (lambda: nn.BatchNorm1d(1), lambda: nn.BatchNorm1d(1).eval()),
        (lambda: nn.Linear(1, 1), frozen),
    ],
)
def test_models_of_one_code_and_one_set_of_weights_are_told_apart(one, other):
    def made(make):
        torch.manual_seed(0)
        return of_module(make())

    assert made(one) == made(one)
    assert made(one) != made(other)


class Loss:
    def __init__(self, amount):
        self.amount = amount

    def __call__(self, outputs, labels):
        return F.cross_entropy(outputs, labels, label_smoothing=self.amount)

    def method(self, outputs, labels):
        return self(outputs, labels)


@pytest.mark.parametrize(
    "make",
    [
        smooth,
        Loss,
        lambda amount: Loss(amount).method,
        lambda amount: functools.partial(F.cross_entropy, label_smoothing=amount),
        lambda amount: nn.CrossEntropyLoss(label_smoothing=amount),
    ],
)
def test_losses_with_other_values_are_told_apart(make):
    assert of_function(make(0.1)) == of_function(make(0.1))
    assert of_function(make(0.1)) != of_function(make(0.2))


def test_functions_of_one_file_are_told_apart():
    assert of_function(shifted) != of_function(frozen)
    first, second = lambda x, y: x.sum(), lambda x, y: x.prod()
    assert of_function(first) != of_function(second)


def test_a_run_of_another_loss_or_slope_is_not_taken_for_this_one():
    images, labels = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([1])

    def key(slope=0.1, loss=F.cross_entropy):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.LeakyReLU(slope), nn.Linear(8, 3))
        given = {"attacks": "dlg", "iterations": 1, "loss": loss, "progress": False, "device": "cpu"}
        table = dpbench.benchmark(model, images, labels, **given)
        return table.loc[table["floor"].isna(), "key"].item()

    assert key() == key()
    assert len({key(), key(slope=0.2), key(loss=smooth(0.1))}) == 3
