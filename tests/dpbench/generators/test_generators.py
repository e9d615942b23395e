import os

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from dpbench.data import load_data
from dpbench.generators import ConvGenerator, generators, load_generator
from dpbench.victim.networks import build
from tests.helpers.generators import latents, refused

Y = F.one_hot(torch.tensor([3, 9]), 10).float()


def shipped():
    return load_generator("cifar10", num_classes=10, size=32)


def small(**changes):
    """A generator of 16 px and 4 classes with random weights."""
    torch.manual_seed(0)
    return ConvGenerator(**({"latent_dim": 6, "num_classes": 4, "widths": (8, 16)} | changes))


def test_the_shipped_generator_keeps_the_interface():
    generator = shipped()
    assert (generator.latent_dim, generator.num_classes, generator.image_shape) == (128, 10, (3, 32, 32))
    images = generator(10 * latents(), Y)
    assert images.shape == (2, 3, 32, 32)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert not generator.training
    assert not any(p.requires_grad for p in generator.parameters())


def test_random_images_look_like_photographs_in_their_statistics():
    """Brightness, contrast, smoothness near the samples': fresh weights give grey, noise is not smooth."""

    def statistics(images):
        steps = (images[..., 1:] - images[..., :-1]).square().mean().sqrt()
        return torch.stack([images.mean(), images.std(), steps / images.std()])

    y = F.one_hot(torch.arange(100) % 10, 10).float()
    real = statistics(load_data("samples").images.float() / 255)
    for generator, close in ((shipped(), True), (ConvGenerator(), False)):
        with torch.no_grad():
            found = statistics(generator(latents(100), y))
        assert torch.allclose(found, real, rtol=0.5) == close
    noise = statistics(torch.rand(100, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert not torch.allclose(noise, real, rtol=0.5)


def test_same_input_same_image_and_no_image_sees_its_neighbours():
    generator, z = shipped(), latents()
    images = generator(z, Y)
    assert torch.equal(generator(z, Y), images)
    assert torch.equal(shipped()(z, Y), images)
    assert torch.allclose(generator(z[1:], Y[1:]), images[1:], atol=1e-5)
    assert (images[0] - images[1]).abs().max() > 0.1


def test_the_class_matters_and_may_be_soft():
    generator, z = shipped(), latents(1).expand(2, -1)
    first, second = generator(z, Y)
    between = generator(z[:1], Y.mean(0, keepdim=True))[0]
    assert (first - second).abs().mean() > 0.01
    assert min((between - first).abs().mean(), (between - second).abs().mean()) > 0.001
    assert (generator(z[:1], Y[:1] + 1e-4)[0] - first).abs().max() < 0.01


def test_gradients_of_z_and_y_against_finite_differences():
    generator = small().double().requires_grad_(False)
    z = latents(2, 6).double().requires_grad_()
    y = torch.rand(2, 4, dtype=torch.double, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(generator, (z, y))


def test_images_can_be_found_again_through_z():
    generator = shipped()
    images, z = generator(latents(), Y), torch.zeros(2, 128, requires_grad=True)
    optimizer = torch.optim.Adam([z], 0.1)
    for _ in range(150):
        optimizer.zero_grad()
        error = (generator(z, Y) - images).square().mean((1, 2, 3))
        error.sum().backward()
        optimizer.step()
    assert (error < 10**-2.5).all()  # 25 dB


def test_files_of_other_shapes_load(tmp_path):
    original, file = small(), tmp_path / "g.safetensors"
    save_file({name: tensor.half() for name, tensor in original.state_dict().items()}, file)
    loaded = load_generator(str(file), num_classes=4, size=16)
    assert loaded.image_shape == (3, 16, 16)
    assert loaded.fc.weight.dtype == torch.float32
    z, y = latents(2, 6), Y[:, :4]
    assert torch.allclose(loaded(z, y), original(z, y), atol=2e-3)


def test_size_and_classes_of_the_victim_are_checked(tmp_path):
    refused("images of 32x32 and the victim takes 64x64", "cifar10", size=64)
    refused("knows 10 classes and the victim 100", "cifar10", num_classes=100)
    save_file(small().state_dict(), tmp_path / "g.safetensors")
    refused("images of 16x16 and the victim takes 32x32", str(tmp_path / "g.safetensors"), num_classes=4)


def test_unknown_generators_and_unusable_files(tmp_path):
    refused("There is no generator 'stylegan': give cifar10, biggan or a file", "stylegan")
    refused("There is no generator", str(tmp_path / "none.safetensors"))
    refused("takes no file", "cifar10:file")
    file = tmp_path / "g.safetensors"
    file.write_bytes(os.urandom(300))
    refused("cannot be read as weights", str(file))
    save_file(build("convnet").state_dict(), file)
    refused("holds no generator", str(file))
    save_file({name: torch.cat([tensor, tensor]) for name, tensor in small().state_dict().items()}, file)
    refused("g.safetensors", str(file), num_classes=4, size=16)
    state = small().state_dict()
    state["rgb.bias"] = torch.full((3,), float("nan"))
    save_file(state, file)
    refused("rgb.bias holds values that are not finite", str(file), num_classes=4, size=16)


def test_a_pickle_runs_nothing(tmp_path):
    file = tmp_path / "g.pt"
    torch.save(small(), file)
    refused("could run code", str(file), num_classes=4, size=16)


def test_generators_of_other_packages_are_found(monkeypatch):
    _ = list(generators)
    monkeypatch.setitem(generators._items, "theirs", lambda where, size: small(widths=(8,) * 3))
    assert load_generator("theirs:anything", num_classes=4, size=32).image_shape == (3, 32, 32)


def test_a_generator_is_one_function(tmp_path):
    @generators.register("toy")
    def load(where, size):
        return small(widths=(8,) * 3)

    try:
        assert load_generator("toy:anything", num_classes=4, size=32).image_shape == (3, 32, 32)
    finally:
        del generators._items["toy"]


def test_home_is_spelt_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_file(small().state_dict(), tmp_path / "g.safetensors")
    assert load_generator("~/g.safetensors", num_classes=4, size=16).image_shape == (3, 16, 16)


@pytest.mark.parametrize("kind", ["sparse", "expanded", "facts", "deep"])
def test_odd_files_are_refused(tmp_path, kind):
    state, file = small().state_dict(), tmp_path / "g.pt"
    if kind == "sparse":
        state["rgb.bias"] = state["rgb.bias"].to_sparse()
    elif kind == "expanded":
        state["fc.weight"] = torch.zeros(1).expand(2**40, 10)
    elif kind == "deep":
        state["blocks.7.up.weight"] = state["blocks.0.up.weight"].clone()
    torch.save(state, file)
    if kind == "facts":
        file = tmp_path / "g.safetensors"
        save_file(state, file, metadata={"dpbench": '{"mean": [0.5, 0.5, 0.5]}'})
    refused("cannot be used|holds no generator|does not normalise", str(file), num_classes=4, size=16)
