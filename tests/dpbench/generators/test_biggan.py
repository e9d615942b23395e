"""BigGAN through its package, or a stand-in for it."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dpbench.generators import load_generator
from dpbench.generators.biggan import BigGAN
from dpbench.protocol import InputError
from tests.helpers.generators import latents, refused


class Network(nn.Module):
    """Has the interface of the package's BigGAN at 8 px: remembers what it was asked."""

    def __init__(self, config):
        super().__init__()
        self.config, self.asked = config, None
        self.fc = nn.Linear(config.z_dim + config.num_classes, 3 * config.output_dim**2)

    def forward(self, z, class_label, truncation):
        self.asked = z, truncation
        return torch.tanh(9 * self.fc(torch.cat([z, class_label], 1))).unflatten(
            1, (3, self.config.output_dim, self.config.output_dim)
        )


CONFIG = {"z_dim": 5, "num_classes": 1000, "output_dim": 8}


@pytest.fixture
def package(monkeypatch):
    """A package that stands in for pytorch-pretrained-biggan, so that its big network is not needed."""

    def from_json_file(name):
        with open(name) as file:
            return SimpleNamespace(**json.load(file))

    module = ModuleType("pytorch_pretrained_biggan")
    module.BigGAN, module.BigGANConfig = Network, SimpleNamespace(from_json_file=from_json_file)
    monkeypatch.setitem(sys.modules, "pytorch_pretrained_biggan", module)


def published(folder, weights="pytorch_model.bin", config="config.json"):
    """Weights and configuration as BigGAN's authors lay them out."""
    folder.mkdir(exist_ok=True)
    network = Network(SimpleNamespace(**CONFIG))
    save = save_file if weights.endswith("safetensors") else torch.save
    save(network.state_dict(), folder / weights)
    (folder / config).write_text(json.dumps(CONFIG))
    return network


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("named", ["folder", "file"])
def test_biggan_from_a_folder_or_a_file(package, tmp_path, weights, named):
    network = published(tmp_path / "b", weights)
    where = tmp_path / "b" if named == "folder" else tmp_path / "b" / weights
    generator = load_generator(f"biggan:{where}", num_classes=1000, size=8)
    assert (generator.latent_dim, generator.num_classes, generator.image_shape) == (5, 1000, (3, 8, 8))
    z, y = latents(2, 5).requires_grad_(), torch.full((2, 1000), 1e-3).requires_grad_()
    images = generator(z, y)
    assert torch.allclose(images, (network(z, y, 1.0) + 1) / 2)
    assert images.min() < 0.3 < 0.7 < images.max()
    assert all(way.abs().max() > 0 for way in torch.autograd.grad(images.sum(), (z, y)))


def test_biggan_truncation_scales_z_and_selects_the_statistics():
    network = Network(SimpleNamespace(**CONFIG))
    z = latents(1, 5)
    BigGAN(network, truncation=0.5)(z, torch.zeros(1, 1000))
    asked, truncation = network.asked
    assert torch.equal(asked, z / 2)
    assert truncation == 0.5
    for value in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(InputError, match="must lie in"):
            BigGAN(network, truncation=value)


def test_biggan_from_the_cache_of_its_package(package, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTORCH_PRETRAINED_BIGGAN_CACHE", str(tmp_path))
    refused("biggan:FOLDER", "biggan", 1000, 8)
    network = published(tmp_path, "a1b2.c3", "d4.e5")
    for size, suffix in ((8, ""), (16, ".old")):
        for note, kind in (("a1b2.c3", "pytorch_model.bin"), ("d4.e5", "config.json")):
            address = f"https://models.example/biggan/biggan-deep-{size}-{kind}"
            (tmp_path / f"{note}{suffix}.json").write_text(json.dumps({"url": address, "etag": "e"}))
    (tmp_path / "rubbish.json").write_text("[")
    generator = load_generator("biggan", num_classes=1000, size=8)
    assert torch.equal(generator.network.fc.weight, network.fc.weight)
    refused("are not in", "biggan", 1000, 32)


def test_biggan_that_cannot_be_had(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_pretrained_biggan", None)
    refused("pip install pytorch-pretrained-biggan", "biggan", 1000, 128)


def test_biggan_files_that_do_not_fit(package, tmp_path):
    spec, folder = f"biggan:{tmp_path / 'b'}", tmp_path / "b"
    refused("There is no file or folder of BigGAN weights", spec, 1000, 8)
    folder.mkdir()
    refused("holds no BigGAN weights", spec, 1000, 8)
    network = published(folder)
    refused("images of 8x8 and the victim takes 32x32", spec, 1000, 32)
    refused("knows 1000 classes and the victim 10", spec, 10, 8)
    (folder / "config.json").write_text("{")
    refused("does not fit the BigGAN", spec, 1000, 8)
    (folder / "config.json").write_text("{}")
    refused("does not fit the BigGAN", spec, 1000, 8)
    (folder / "config.json").unlink()
    refused("configuration", spec, 1000, 8)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"z_dim": 6}))
    refused("does not fit the BigGAN", spec, 1000, 8)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    torch.save({"fc.weight": network.fc.weight.detach()}, folder / "pytorch_model.bin")
    refused("it lacks fc.bias", spec, 1000, 8)
    state = {"fc.weight": network.fc.weight.detach(), "fc.bias": torch.full((192,), float("inf"))}
    torch.save(state, folder / "pytorch_model.bin")
    refused("fc.bias holds values that are not finite", spec, 1000, 8)
    torch.save(network, folder / "pytorch_model.bin")
    refused("could run code", spec, 1000, 8)


def test_biggan_with_the_real_package_at_random_weights(tmp_path):
    package = pytest.importorskip("pytorch_pretrained_biggan")
    config = {"output_dim": 32, "channel_width": 8, "attention_layer_position": 1}
    config |= {"layers": [[False, 16, 8], [True, 8, 4], [True, 4, 2], [True, 2, 1]], "z_dim": 8}
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    network = package.BigGAN(package.BigGANConfig.from_json_file(str(tmp_path / "config.json")))
    nn.init.ones_(network.generator.bn.weight)  # the package leaves them as they lie in memory
    nn.init.zeros_(network.generator.bn.bias)
    for _ in range(10):  # until the spectral norms know the weights' size
        network.train()(latents(2, 8), torch.full((2, 1000), 1e-3), 1.0)
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    generator = load_generator(f"biggan:{tmp_path}", num_classes=1000, size=32)
    z, y = latents(2, 8).requires_grad_(), torch.full((2, 1000), 1e-3).requires_grad_()
    images = generator(z, y)
    assert images.shape == (2, 3, 32, 32)
    assert 0 <= images.min() < images.max() <= 1
    assert torch.equal(images, generator(z, y))
    assert torch.allclose(images, (network.eval()(z, y, 1.0) + 1) / 2)
    assert all(way.abs().max() > 0 for way in torch.autograd.grad(images.square().sum(), (z, y)))
