from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from dpbench.data import load_data
from dpbench.protocol import InputError
from dpbench.system import digest
from dpbench.victim import load, network, usual_norm, weights_digest
from dpbench.victim.networks import Normalise, build, models

DATA = load_data("samples")


@pytest.mark.parametrize(("model", "norm"), [("convnet", "none"), ("resnet20", "frozen-bn")])
def test_shipped_victim_knows_what_its_record_says(model, norm):
    victim = load(model, norm, "early", None, DATA, 32)
    with torch.no_grad():
        right = (victim.model(DATA.images / 255).argmax(1) == DATA.labels).float().mean()
    assert 0.4 < victim.accuracy < 0.9
    assert right >= victim.accuracy - 0.35  # 20 images: three standard errors
    assert not any(module.training for module in victim.model.modules())


def test_weights_of_ones_own_are_the_ones_attacked(tmp_path):
    own = build("convnet", seed=7)
    torch.save(own.state_dict(), tmp_path / "own.pt")
    loaded = load("convnet", "none", "trained", str(tmp_path / "own.pt"), DATA, 32).model
    images = DATA.images[:2] / 255
    assert torch.equal(own(images), loaded(images))
    first = weights_digest("convnet", "none", "trained", str(tmp_path / "own.pt"), DATA, 32)
    torch.save(build("convnet", seed=8).state_dict(), tmp_path / "other.pt")
    assert weights_digest("convnet", "none", "trained", str(tmp_path / "other.pt"), DATA, 32) != first


@pytest.mark.parametrize("weights", ["own.pt", None])
def test_weights_that_changed_since_the_plan_are_refused(tmp_path, weights):
    torch.save(build("convnet", seed=7).state_dict(), tmp_path / "own.pt")
    chosen = "convnet", "none", "early", weights and str(tmp_path / weights), DATA, 32
    planned = weights_digest(*chosen)
    assert load(*chosen, planned).model.fc.out_features == 10
    with pytest.raises(InputError, match="has changed since the run was planned: start it again"):
        load(*chosen, planned[:-1] + ("0" if planned[-1] != "0" else "1"))


@pytest.fixture
def tiny():
    """A network as another package would bring it: one class."""

    @network("tiny", norm="none")
    class Tiny(nn.Module):
        def __init__(self, num_classes, norm, size, mean, std):
            super().__init__()
            self.normalise, self.fc = Normalise(mean, std), nn.Linear(3, num_classes)
            self.doubled = False

        def suit(self, tensors, facts):
            self.doubled = bool(tensors["fc.bias"].sum() > 0)

        def forward(self, images):
            return self.fc(self.normalise(images).mean((2, 3))) * (2 if self.doubled else 1)

    yield Tiny
    del models._items["tiny"]


def test_a_network_is_one_class(tiny, tmp_path):
    assert usual_norm("tiny") == "none"
    victim = load("tiny", "none", "untrained", None, DATA, 32)
    assert victim.model(DATA.images[:2] / 255).shape == (2, 10)
    weights = {"module.fc.weight": torch.ones(12, 3), "module.fc.bias": torch.ones(12)}
    torch.save(weights, tmp_path / "w.pt")
    loaded = load("tiny", "none", "trained", str(tmp_path / "w.pt"), DATA, 32).model
    assert loaded.doubled
    assert loaded.fc.out_features == 12


def test_each_victim_has_its_own_digest():
    states = ("early", "trained", "untrained")
    assert len({weights_digest("convnet", "none", state, None, DATA, 32) for state in states}) == 3


def test_untrained_victim_fits_any_data():
    data = load_data("imagenet-samples", size=40)
    victim = load("resnet20", "gn", "untrained", None, data, 40)
    assert victim.model(data.images[:1] / 255).shape == (1, 1000)
    assert victim.accuracy is None


def test_shipped_victim_is_for_its_own_classes_only():
    data = load_data("imagenet-samples", size=32)
    with pytest.raises(InputError, match=r"1000 at 32x32: use --victim untrained or --weights FILE\.$"):
        weights_digest("convnet", "none", "early", None, data, 32)


def test_victim_that_is_not_shipped_names_those_that_are():
    with pytest.raises(InputError, match="convnet-none-early"):
        weights_digest("resnet18", "gn", "trained", None, DATA, 32)


def test_usual_norms():
    assert [usual_norm(model) for model in ("lenet", "convnet", "resnet20")] == ["none", "none", "frozen-bn"]
    with pytest.raises(InputError, match="known: lenet"):
        usual_norm("alexnet")


def test_digest_of_tensors_sees_names_values_shapes_and_types():
    value = torch.arange(6.0)
    found = {
        digest.tensors({name: tensor})
        for name, tensor in (
            ("a", value),
            ("b", value),
            ("a", value + 1),
            ("a", value.view(2, 3)),
            ("a", value.int()),
        )
    }
    assert len(found) == 5
    assert digest.tensors({"a": value, "b": value}) == digest.tensors({"b": value, "a": value})


def test_weights_bring_the_stem_they_were_made_with(tmp_path):
    """Those of 224 px run on 64 px, where a fresh network would have the small stem."""
    large = build("resnet18", num_classes=10, size=224)
    torch.save(large.state_dict(), tmp_path / "large.pt")
    data = load_data("imagenet-samples", size=64)
    data = replace(data, labels=data.labels % 10, num_classes=10)
    loaded = load("resnet18", "frozen-bn", "trained", str(tmp_path / "large.pt"), data, 64).model
    assert loaded.conv1.kernel_size == (7, 7)
    assert loaded(torch.rand(1, 3, 64, 64)).shape == (1, 10)
