"""The copy that defences work on: what `copy.deepcopy` gives, and nothing of it is the victim's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from defenses.copies import untouched
from dpbench.protocol import InputError


class Odd(nn.Module):
    """Attributes that refer to each other, to other modules and to one another's memory."""

    def __init__(self):
        super().__init__()
        self.first, self.again = nn.Linear(3, 3), nn.Linear(3, 3)
        self.again.weight = self.first.weight
        self.twice = self.first
        self.register_buffer("whole", torch.arange(4.0))
        self.register_buffer("part", self.whole[1:3])
        self.log, self.settings = [], {"sizes": [1, 2], "none": None}
        self.reader = nn.Identity()
        self.reader.log, self.reader.parents = self.log, [self]
        self.first.register_forward_hook(self.note)

    def note(self, module, inputs, output):
        self.log.append(len(output))

    def forward(self, x):
        return self.again(self.first(x))


def test_what_is_shared_in_a_model_is_shared_in_its_copy():
    model = Odd()
    model.again.requires_grad_(False)
    found = untouched(model.train())
    assert type(found) is Odd
    assert vars(found).keys() == vars(model).keys()
    assert found.again.weight is found.first.weight
    assert not found.again.weight.requires_grad
    assert found.twice is found.first
    assert found.reader.parents == [found]
    found.whole[1] = 7
    assert float(found.part[0]) == 7
    found(torch.rand(2, 3))
    assert found.log == found.reader.log == [2]
    assert found.log is found.reader.log


def test_nothing_of_the_copy_is_the_models():
    model = Odd()
    found = untouched(model)
    found(torch.rand(2, 3))
    found.settings["sizes"].append(3)
    for tensor in (*found.parameters(), *found.buffers()):
        tensor.detach().fill_(5)
    found.eval()
    assert (model.log, model.settings["sizes"], model.training) == ([], [1, 2], True)
    assert not any(bool((t == 5).any()) for t in (*model.parameters(), *model.buffers()))
    assert {*found.modules()}.isdisjoint(model.modules())


class OwnCopy(nn.Linear):
    def __deepcopy__(self, memo):
        other = OwnCopy(self.in_features, self.out_features)
        other.note = "its own"
        return other


class OwnState(nn.Module):
    """Leaves something out, and makes it anew of the modules within."""

    def __init__(self):
        super().__init__()
        self.inner, self.lock = nn.Sequential(nn.Linear(3, 5)), (n for n in range(3))

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "lock"}

    def __setstate__(self, state):
        super().__setstate__(state)
        self.lock = self.inner[0].out_features


def test_modules_that_are_copied_in_their_own_way():
    found = untouched(nn.Sequential(OwnState(), nn.Linear(2, 2)))
    assert found[0].lock == 5
    assert untouched(nn.Sequential(nn.Sequential(OwnCopy(2, 2))))[0][0].note == "its own"


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.BatchNorm2d(4), nn.Softmax(1), nn.Flatten()),
        nn.MultiheadAttention(8, 2),
        nn.TransformerEncoderLayer(8, 2, 16),
        nn.LSTM(8, 8),
        nn.Sequential(nn.Flatten(), nn.LazyLinear(5)),
        nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 2))),
    ],
    ids=["convolution", "attention", "transformer", "lstm", "lazy", "weight norm"],
)
def test_it_is_what_deepcopy_gives(model):
    found, expected = untouched(model), copy.deepcopy(model)
    for one, other in zip(found.modules(), expected.modules(), strict=True):
        assert type(one).__qualname__ == type(other).__qualname__
        assert vars(one).keys() == vars(other).keys()
        assert one.extra_repr() == other.extra_repr()
    if not any(nn.parameter.is_lazy(p) for p in model.parameters()):
        ours, theirs = found.state_dict(), expected.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_compiled_model_is_copied():
    compiled = torch.compile(nn.Sequential(nn.Linear(2, 2)))  # compiles nothing until it is called
    for model in (compiled, nn.Sequential(compiled, nn.Linear(2, 2))):
        found = untouched(model)
        assert {*found.parameters()}.isdisjoint(model.parameters())
        assert all(torch.equal(a, b) for a, b in zip(found.parameters(), model.parameters(), strict=True))


def test_a_model_that_cannot_be_copied_is_refused():
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].computed = [model[0].weight * 2]  # not a leaf, and not where a forward pass would replace it
    with pytest.raises(InputError, match="cannot be copied"):
        untouched(model)
