"""Files of weights that are taken, and those that do not fit."""

import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dpbench.assets import cache
from dpbench.victim.networks import build
from dpbench.victim.weights import load_weights, read
from tests.helpers.weights import IMAGES, other, refused

torch.set_num_threads(1)


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "pth"])
def test_round_trip(tmp_path, suffix):
    file, model = tmp_path / f"w.{suffix}", other()
    if suffix == "safetensors":
        save_file(model.state_dict(), file)
    else:
        torch.save(model.state_dict(), file)
    loaded = build("resnet20", seed=9)
    assert load_weights(loaded, str(file)) is loaded
    assert torch.equal(loaded(IMAGES), model(IMAGES))


def test_half_precision_is_widened(tmp_path):
    model = other()
    halves = {k: v if "running" in k else v.half() for k, v in model.state_dict().items()}
    save_file(halves, tmp_path / "w.safetensors")
    loaded = load_weights(build("resnet20", seed=9), tmp_path / "w.safetensors")
    assert loaded.conv1.weight.dtype == torch.float32
    assert (loaded(IMAGES) - model(IMAGES)).abs().max() < 0.02 * model(IMAGES).abs().max()


def test_training_batch_norm_loads_into_frozen(tmp_path):
    trained = build("resnet20", norm="bn", seed=1)
    trained.train()(IMAGES)
    torch.save(trained.state_dict(), tmp_path / "w.pt")  # holds num_batches_tracked too
    loaded = load_weights(build("resnet20", norm="frozen-bn", seed=9), tmp_path / "w.pt")
    assert torch.allclose(loaded(IMAGES), trained.eval()(IMAGES), atol=1e-4)


def test_gradients_still_flow_after_loading(tmp_path):
    torch.save(other().state_dict(), tmp_path / "w.pt")
    loaded = load_weights(build("resnet20"), tmp_path / "w.pt")
    loaded(IMAGES).sum().backward()
    assert all(p.grad is not None for p in loaded.parameters())


def test_facts_move_stride_eps_and_normalisation(tmp_path):
    model = build("resnet50", 10, "frozen-bn", 96)
    facts = {"stride_in": "conv1", "bn_eps": 1e-3, "mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 3.0]}
    cache.write(tmp_path / "w.safetensors", model.state_dict(), facts)
    loaded = load_weights(build("resnet50", 10, "frozen-bn", 96), tmp_path / "w.safetensors")
    strides = {n: m.stride[0] for n, m in loaded.named_modules() if isinstance(m, nn.Conv2d)}
    twos = sorted(n for n, s in strides.items() if s == 2)
    expected = [f"layer{i}.0.{n}" for i in (2, 3, 4) for n in ("conv1", "downsample.0")]
    assert twos == ["conv1", *expected]
    assert {m.eps for m in loaded.modules() if hasattr(m, "running_var")} == {1e-3}
    assert torch.allclose(loaded.normalise.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    assert torch.allclose(loaded.normalise.std.flatten(), torch.tensor([1.0, 2.0, 3.0]))


class Payload:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_pickled_code_is_refused_and_does_not_run(tmp_path, writer):
    trap, file = tmp_path / "trap", tmp_path / "w.pt"
    content = {"conv1.weight": Payload(trap)}
    if writer == "torch":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content, 2))
    refused(file, "could run code")
    assert not trap.exists()


def test_whole_models_are_refused(tmp_path):
    torch.save(build("convnet"), tmp_path / "w.pt")
    refused(tmp_path / "w.pt", r"save it again with torch.save\(model.state_dict\(\), FILE\)")


def test_the_state_dict_in_a_checkpoint_is_pointed_out(tmp_path):
    torch.save({"args": {}, "model": other().state_dict(), "epoch": 3}, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", r"whose key 'model' holds .* torch.save\(checkpoint\['model'\], FILE\)")


def test_files_that_are_no_weights(tmp_path):
    refused(tmp_path / "none.pt", "There is no weights file")
    refused(tmp_path, "There is no weights file")
    for name in ("w.pt", "w.safetensors"):
        for content in (b"", b"hello", os.urandom(300)):
            (tmp_path / name).write_bytes(content)
            refused(tmp_path / name, name)
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "not a state dict")
    torch.save([1, 2], tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "not a state dict")
    np.savez(tmp_path / "w.npz", a=np.zeros(3))
    refused(tmp_path / "w.npz", "w.npz")


def test_truncated_files(tmp_path):
    for name in ("w.pt", "w.safetensors"):
        file = tmp_path / name
        (torch.save if name == "w.pt" else save_file)(other().state_dict(), file)
        file.write_bytes(file.read_bytes()[:5000])
        refused(file, "cannot be read as weights")


def test_weights_of_another_network(tmp_path):
    torch.save(build("convnet").state_dict(), tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "it lacks .* more and the model has no .* more")
    state = other().state_dict()
    state.pop("fc.bias")
    torch.save(state, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "it lacks fc.bias")
    torch.save(build("resnet20", num_classes=100).state_dict(), tmp_path / "w.pt")
    refused(tmp_path / "w.pt", r"fc.weight is \[100, 64\] in the file and \[10, 64\] in the model")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path, value):
    state = other().state_dict()
    state["fc.bias"] = torch.full((10,), value)
    save_file(state, tmp_path / "w.safetensors")
    refused(tmp_path / "w.safetensors", "fc.bias holds values that are not finite")


# What wrappers around a network leave in the names.


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "_module.", "_orig_mod.module.", "module._orig_mod._module.", "module.module."],
)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_wrappers_names_are_taken_off(tmp_path, prefix, suffix):
    model, file = other(), tmp_path / f"w.{suffix}"
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    (torch.save if suffix == "pt" else save_file)(state, file)
    assert torch.equal(load_weights(build("resnet20", seed=9), file)(IMAGES), model(IMAGES))
    assert read(file).outputs() == 10


def test_what_real_wrappers_save(tmp_path):
    from opacus import GradSampleModule

    model = build("convnet", seed=3)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    parts = build("convnet", seed=3)
    parts.conv1 = torch.compile(parts.conv1, backend="eager")
    for wrapped in (nn.DataParallel(model), torch.compile(nn.DataParallel(model), backend="eager"), averaged):
        torch.save(wrapped.state_dict(), tmp_path / "w.pt")
        assert torch.equal(load_weights(build("convnet"), tmp_path / "w.pt")(IMAGES), model(IMAGES))
    for wrapped in (parts, GradSampleModule(build("convnet", seed=3))):
        torch.save(wrapped.state_dict(), tmp_path / "w.pt")
        assert torch.equal(load_weights(build("convnet"), tmp_path / "w.pt")(IMAGES), model(IMAGES))


def test_a_name_with_and_without_wrapper_is_refused(tmp_path):
    state = other().state_dict()
    torch.save(state | {"module.fc.bias": state["fc.bias"]}, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "holds fc.bias twice")


def test_home_is_spelt_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(other().state_dict(), tmp_path / "w.pt")
    assert torch.equal(load_weights(build("resnet20"), "~/w.pt")(IMAGES), other()(IMAGES))
    refused("~nosuchuser/w.pt", "home folder in ~nosuchuser/w.pt is not known")
    refused("~/none.pt", "There is no weights file")
