import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from dpbench.data import load_data
from dpbench.data.image_statistics import fit
from dpbench.generators import Denoiser, load_denoiser
from dpbench.generators.denoiser import SHIPPED
from dpbench.metrics import psnr
from dpbench.protocol import InputError


@pytest.fixture(scope="module")
def data():
    return load_data("samples")


@pytest.fixture(scope="module")
def shipped(data):
    return load_denoiser((3, 32, 32), data.statistics)


def noisy(images, level, seed=0):
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return images + level * noise, torch.full((len(images),), level)


def test_the_shipped_one_is_small_and_its_record_is_of_it(shipped):
    assert sum(p.numel() for p in shipped.parameters()) < 400_000
    assert SHIPPED.stat().st_size < 1_000_000
    assert not shipped.training
    record = json.loads(SHIPPED.with_name("denoisers.json").read_text())["cifar10"]
    assert record["steps"] > 0
    for level, scores in record["psnr"].items():
        if float(level) < 1:
            assert scores["denoiser"] > scores["wiener"]


@pytest.mark.parametrize("level", [0.05, 0.2, 0.5])
def test_it_beats_its_wiener_filter_on_photographs(data, shipped, level):
    images = data.images.float() / 255
    seen, noise = noisy(images, level)
    found = psnr(shipped(seen, noise).clamp(0, 1), images)
    linear = psnr(shipped.filtered(seen, noise)[0].clamp(0, 1), images)
    assert (found - linear).mean() > 0.3
    assert (found > linear).float().mean() >= 0.8


def test_what_it_adds_to_pure_noise_is_little(data, shipped):
    """Noise without an image tells nothing, and the answer is near the mean image."""
    seen, noise = noisy(torch.zeros(8, 3, 32, 32), 1e4)
    assert (shipped(seen, noise) - shipped.mean_image).abs().max() < 0.05
    assert torch.equal(shipped(seen, noise), shipped.filtered(seen, noise)[0])


def test_a_class_moves_the_answer_and_an_unknown_one_does_not(data, shipped):
    seen, noise = noisy(data.images[:2].float() / 255, 1.0)
    nobody, somebody = torch.tensor([-1, -1]), torch.tensor([-1, 8])
    unknown = shipped(seen, noise)
    torch.testing.assert_close(shipped(seen, noise, nobody), unknown)
    moved = (shipped(seen, noise, somebody) - unknown).abs().amax((1, 2, 3))
    assert moved[0] < 1e-5
    assert moved[1] > 0.01


def test_labels_of_other_data_are_ignored(data):
    images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8)
    other = load_denoiser((3, 32, 32), fit(images, images.float().mean(0) / 255))
    seen, noise = noisy(data.images[:2].float() / 255, 0.3)
    assert torch.equal(other(seen, noise, torch.tensor([1, 2])), other(seen, noise))


def test_untrained_it_is_the_wiener_filter(data):
    fresh = Denoiser(data.statistics, torch.rand(10, 3, 32, 32), (8, 16))
    seen, noise = noisy(data.images[:2].float() / 255, 0.1)
    assert torch.equal(fresh(seen, noise), fresh.filtered(seen, noise)[0])


def test_images_do_not_see_their_neighbours_or_another_dtype(data, shipped):
    images = data.images[:3].float() / 255
    seen, noise = noisy(images, 0.2)
    assert torch.allclose(shipped(seen, noise)[1:], shipped(seen[1:], noise[1:]), atol=1e-5)


def test_there_is_none_for_images_of_another_shape():
    assert load_denoiser((1, 32, 32)) is None
    assert load_denoiser((3, 64, 64)) is None


@pytest.mark.parametrize("change", ["lacks", "shape", "infinite"])
def test_a_file_that_holds_something_else_is_refused(tmp_path, change):
    state = load_file(SHIPPED)
    if change == "lacks":
        del state["out.bias"]
    else:
        state["tell.0.weight"] = torch.full((3, 3) if change == "shape" else (32, 15), torch.inf)
    save_file(state, tmp_path / "d.safetensors")
    with pytest.raises(InputError, match=r"d\.safetensors"):
        load_denoiser((3, 32, 32), path=tmp_path / "d.safetensors")
