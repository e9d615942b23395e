"""What somebody's model and loss do decides the key of a result, not only weights and code."""

import ast
import functools
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dpbench
from dpbench.system import behaviour
from dpbench.system.behaviour import of_function, of_module
from dpbench.victim.networks import build
from tests.helpers.held import VALUES, Held


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


@pytest.mark.parametrize("name", ["value", "_value"])
@pytest.mark.parametrize("make", VALUES)
def test_attributes_of_any_kind_tell_models_apart(make, name):
    assert of_module(Held(make(0.1), name)) == of_module(Held(make(0.1), name))
    assert of_module(Held(make(0.1), name)) != of_module(Held(make(0.2), name))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_scripted_models_are_told_apart():
    made = [torch.jit.script(nn.Sequential(nn.LeakyReLU(slope))) for slope in (0.1, 0.1, 0.2)]
    one, same, other = map(of_module, made)
    assert one == same != other


PROGRAM = """
import logging, threading, weakref
import numpy, torch
from torch import nn
from tests.helpers.held import VALUES, Held
from dpbench.system.behaviour import of_module
torch.manual_seed(0)
lstm = nn.LSTM(2, 2)
odd = [threading.Lock(), weakref.ref(lstm), logging.getLogger("x"), numpy.random.default_rng(0), object()]
odd += [numpy, {"a", "b", "c"}, {nn.ReLU, nn.ELU, nn.Tanh}, lstm.forward]
print(of_module(Held([*odd, *(make(0.1) for make in VALUES)])), of_module(lstm))
"""


def test_every_process_describes_a_model_the_same():
    def said(seed):
        run = [sys.executable, "-c", PROGRAM]
        return subprocess.run(run, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True)

    assert said("1").stdout == said("2").stdout != b""


def test_dpbenchs_own_networks_are_described_as_before():
    """Results of theirs are in folders of other people, under keys with these hashes."""
    network = build("resnet20")
    found = behaviour._Description(network).of_module(network)
    names = {name for held in ast.literal_eval(found["attributes"]).values() for name in held}
    assert "training" in names
    assert not any(name.startswith("_") for name in names)
    assert "object" not in found["attributes"]


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
