"""The Gaussian image prior against NumPy's Fourier transform."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import defenses
from attacks.gaussian_prior import ROUNDING, GaussianPrior, Whitening, nat_weight
from dpbench.data import image_statistics
from dpbench.protocol import ImageStatistics, Release, Stage, combined

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture
def statistics() -> ImageStatistics:
    """Of 60 smooth random images that are not square."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(60, 3, 3, 4, generator=generator) * 255
    images = torch.nn.functional.interpolate(coarse, (6, 9), mode="bilinear").byte()
    return image_statistics.fit(images, images.float().mean(0) / 255)


def nats(statistics: ImageStatistics, images: np.ndarray) -> float:
    """Half the power over the spectrum, by NumPy."""
    deviation = images - statistics.mean_image.double().numpy()
    colours = np.einsum("kc,bchw->bkhw", statistics.colours.double().numpy(), deviation)
    power = np.abs(np.fft.fft2(colours, norm="ortho")) ** 2
    return float((power / (statistics.spectrum.double().numpy() + ROUNDING)).sum() / 2)


def normalised(images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values, dtype=images.dtype)[:, None, None] for values in (MEAN, STD))
    return (images - mean) / std


def test_value_and_gradient_are_those_of_the_field(statistics):
    images = torch.rand(2, 3, 6, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    prior, weight = GaussianPrior(0.7, statistics, MEAN, STD), 0.7
    z = normalised(images).requires_grad_()
    value = prior(z)
    assert float(value.detach()) == pytest.approx(weight * nats(statistics, images.numpy()), rel=1e-5)
    (gradient,) = torch.autograd.grad(value, z)
    for place in [(0, 0, 2, 3), (1, 2, 5, 8)]:
        step = np.zeros(images.shape)
        step[place] = 1e-4
        up, down = (nats(statistics, images.numpy() + sign * step) for sign in (1, -1))
        expected = weight * (up - down) / 2e-4 * STD[place[1]]
        assert float(gradient[place]) == pytest.approx(expected, rel=1e-3)


def test_a_noisy_release_of_zeros_has_a_weight():
    stages = Stage("noise", {"noise_std": 0.1}), Stage("prune", {"prune_ratio": 0.5})
    assert nat_weight(Release(("weight",), (torch.zeros(4),), 1, stages)) > 0


@pytest.mark.parametrize(("bits", "count"), [(1, 1), (4, 1), (4, 5)])
def test_rounding_weighs_like_noise_of_its_variance(bits, count):
    gradient = (torch.randn(3000, generator=torch.Generator().manual_seed(0)),)
    chain, generator = defenses.create("quantize", quantize_bits=bits), torch.Generator().manual_seed(1)
    sent = chain.stages[0].process_all([gradient] * count, generator)
    described = tuple(stage.stage() for stage in chain.stages)
    release = combined([Release(("weight",), each, 1, described) for each in sent])
    variance = float((release.gradients[0] - gradient[0]).square().mean())
    weight = variance / float(gradient[0].norm() * release.gradients[0].norm())
    assert nat_weight(release) == pytest.approx(weight, rel=0.15)


def test_the_mean_image_is_the_likeliest(statistics):
    prior = GaussianPrior(1.0, statistics, MEAN, STD)
    z = normalised(statistics.mean_image[None]).requires_grad_()
    value = prior(z)
    assert float(value.detach()) < 1e-6
    (gradient,) = torch.autograd.grad(value, z)
    assert float(gradient.abs().max()) < 1e-2


def test_samples_of_the_field_are_whitened_and_come_back(statistics):
    whitening = Whitening(statistics)
    entries = torch.randn(400, 3, 6, 9, generator=torch.Generator().manual_seed(2))
    images = whitening.inverse(entries)
    torch.testing.assert_close(whitening(images), entries, atol=1e-3, rtol=0)
    power = torch.fft.fft2(
        torch.einsum("kc,bchw->bkhw", statistics.colours, images - statistics.mean_image), norm="ortho"
    )
    ratio = power.abs().square().mean(0) / (statistics.spectrum + ROUNDING)
    assert float((ratio - 1).abs().max()) < 0.4  # 400 draws: a standard error of 0.05 to 0.07
