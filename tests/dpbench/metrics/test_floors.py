from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from dpbench.metrics import floors, psnr
from dpbench.protocol import Guarantee, InputError, Release, Stage

relaxed = settings(deadline=None)  # machines may be busy
GUARANTEE = Guarantee(1.0, 4.0, 1e-5, 1.1, 1.0, 0.01, 100, "pld", "training", 0.2)


def release(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = [(64, 32, 3, 3), (64,), (10, 64), (1,)]
    gradients = [10.0**-i * torch.rand(s, generator=generator).to(dtype) for i, s in enumerate(shapes)]
    gradients.append(torch.zeros(5, dtype=dtype))
    names = tuple(f"p{i}" for i in range(len(gradients)))
    return Release(names, tuple(gradients), 4, (Stage("dp", {"max_grad_norm": 1.0}),), GUARANTEE)


@relaxed
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.integers(0, 2))
def test_no_constant_colour_beats_constant_image(seed, value, channel):
    originals = torch.rand(2, 3, 8, 9, generator=torch.Generator().manual_seed(seed)) ** 2
    best = floors.constant_image(originals)
    assert best.flatten(2).std(-1).max() == 0
    other = best.clone()
    other[:, channel] = value
    assert (psnr(other, originals) <= psnr(best, originals) + 1e-6).all()


def test_a_constant_image_has_the_pixel_variance_as_its_error():
    original = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = -10 * math.log10(original.double().var((2, 3), correction=0).mean())
    assert psnr(floors.constant_image(original), original).item() == pytest.approx(expected, abs=1e-4)


def test_mean_image_is_the_same_for_every_image_and_a_copy():
    public = torch.rand(3, 4, 5)
    batch = floors.mean_image(3, public)
    assert batch.shape == (3, 3, 4, 5)
    assert all(image.equal(public) for image in batch)
    batch[0] = 0
    assert batch[1].equal(public)


def test_mean_image_refuses_an_empty_batch():
    with pytest.raises(InputError, match="at least 1, not 0"):
        floors.mean_image(0, torch.zeros(3, 4, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_release_keeps_sizes_and_the_public_description_only(dtype):
    real = release(dtype)
    noise = floors.noise_release(real, seed=3)
    assert noise.guarantee is None
    assert (noise.names, noise.batch_size, noise.defense) == (real.names, real.batch_size, real.defense)
    for a, b in zip(real.gradients, noise.gradients, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        torch.testing.assert_close(a.norm(), b.norm())
    # The direction must know nothing of the gradient: independent directions in n dimensions have a cosine of
    # standard deviation 1 / sqrt(n).
    cosine = torch.nn.functional.cosine_similarity(
        real.gradients[0].flatten(), noise.gradients[0].flatten(), 0
    )
    assert abs(cosine) < 5 / math.sqrt(real.gradients[0].numel())


def test_noise_release_is_gaussian_and_decided_by_its_seed():
    real = release()
    noise = floors.noise_release(real, seed=3).gradients[0].flatten()
    sigma = real.gradients[0].norm() / math.sqrt(noise.numel())
    assert kstest((noise / sigma).numpy(), "norm").pvalue > 1e-3
    assert floors.noise_release(real, seed=3).gradients[0].flatten().equal(noise)
    other = floors.noise_release(real, seed=4).gradients[0].flatten()
    assert abs(torch.corrcoef(torch.stack([noise, other]))[0, 1]) < 5 / math.sqrt(noise.numel())


def test_noise_release_leaves_the_callers_random_state_alone():
    state = torch.get_rng_state()
    floors.noise_release(release(), seed=0)
    assert torch.get_rng_state().equal(state)
