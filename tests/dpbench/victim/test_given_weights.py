"""Files of weights for networks that users name: for how many classes these are made."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch as safetensors
import torch
from torch import Tensor, nn

from dpbench.data import load_data
from dpbench.protocol import InputError
from dpbench.victim import loading, weights
from dpbench.victim.given import factory
from dpbench.victim.loading import load

torch.set_num_threads(1)
FILE = """
from torch import nn

class HeadFirst(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(8, num_classes)
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Tanh(), nn.Linear(8, 8))

    def forward(self, images):
        return self.head(self.trunk(images))

def three():
    return HeadFirst(3)

def demanding(num_classes):
    if num_classes != 12:
        raise ValueError("no checkpoint")
    return HeadFirst(12)
"""


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "head_first.py"
    path.write_text(FILE)
    yield f"{path}:HeadFirst"
    sys.modules.pop("head_first", None)
    factory.cache_clear()


def stored(model: str, classes: int, **changed: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return factory(model).function(classes).state_dict() | changed


def loaded(model: str, path: Path, classes: int = 10) -> nn.Module:
    data = replace(load_data("samples", size=8), num_classes=classes)
    return load(model, "own", "trained", str(path), data, 8).model


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("made", "shown"), [(10, 10), (12, 10), (8, 3), (1000, 10), (3, 3)])
def test_the_order_of_the_tensors_decides_nothing(made, shown, backwards, model, tmp_path):
    state = stored(model, made)
    torch.save(dict(sorted(state.items(), reverse=backwards)), tmp_path / "w.pt")
    network = loaded(model, tmp_path / "w.pt", shown)
    assert torch.equal(network.head.weight, state["head.weight"])


@pytest.mark.parametrize("backwards", [False, True])
def test_the_random_order_of_safetensors_decides_nothing(backwards, model, tmp_path, monkeypatch):
    def shuffled(content: bytes) -> dict[str, Tensor]:
        return dict(sorted(safetensors.load(content).items(), reverse=backwards))

    monkeypatch.setattr(weights, "load", shuffled)
    safetensors.save_file(stored(model, 12), tmp_path / "w.safetensors")
    assert next(iter(weights.read(tmp_path / "w.safetensors").tensors)) == "head.bias"
    assert loaded(model, tmp_path / "w.safetensors").head.out_features == 12


def test_the_number_of_the_data_comes_first_and_the_rarest_of_the_file_next(model, tmp_path, monkeypatch):
    tried = []

    def build(name, num_classes, *more):
        tried.append(num_classes)
        return factory(name).function(num_classes)

    monkeypatch.setattr(loading, "build", build)
    torch.save(stored(model, 1000), tmp_path / "w.pt")
    loaded(model, tmp_path / "w.pt")
    assert tried == [10, 1000]  # two layers have eight rows


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"trunk.1.bias": torch.zeros(7)},
            r"w.pt does not fit this model: head.weight is \[12, 8\] in the file and \[10, 8\] in the model; "
            "with 12 or 8 classes in place of 10 it does not fit either.$",
        ),
        ({"more": torch.zeros(1)}, "w.pt does not fit this model: the model has no more.$"),
        ({"trunk.1.bias": torch.full((8,), torch.nan)}, "trunk.1.bias holds values that are not finite"),
    ],
)
def test_why_a_file_cannot_be_used_is_said(changed, said, model, tmp_path):
    torch.save(stored(model, 12, **changed), tmp_path / "w.pt")
    with pytest.raises(InputError, match=said):
        loaded(model, tmp_path / "w.pt")


def test_a_factory_without_a_choice_is_not_asked_for_other_numbers(model, tmp_path):
    torch.save(stored(model, 12), tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"head.weight is \[12, 8\] in the file and \[3, 8\] in the model.$"):
        loaded(model.replace("HeadFirst", "three"), tmp_path / "w.pt", 3)


def test_a_factory_for_one_number_only(model, tmp_path):
    torch.save(stored(model, 12), tmp_path / "w.pt")
    name = model.replace("HeadFirst", "demanding")
    assert loaded(name, tmp_path / "w.pt").head.out_features == 12
    torch.save(stored(model, 11), tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"demanding cannot be made \(ValueError: no checkpoint\).$"):
        loaded(name, tmp_path / "w.pt")
