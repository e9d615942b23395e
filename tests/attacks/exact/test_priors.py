"""What is believed of images: one Gaussian, whichever way it is asked for."""

import pytest
import torch

from attacks.exact.priors import Images, Wide
from dpbench.data import image_statistics
from tests.helpers.attacks import smooth_images


@pytest.fixture
def prior():
    images = (smooth_images(2) * 255).byte()
    statistics = image_statistics.fit(torch.cat([images, images.flip(3)]), torch.full((3, 8, 8), 0.4))
    generator = torch.Generator().manual_seed(0)
    gain = 1 + torch.rand(3, 8, 8, generator=generator, dtype=torch.float64)
    return Images(statistics, gain, gain - 2)


@pytest.mark.parametrize("kind", ["images", "wide"])
def test_the_pull_is_the_precision_times_the_way_to_the_mean(kind, prior):
    prior = prior if kind == "images" else Wide(2.0, 3)
    generator = torch.Generator().manual_seed(1)
    basis = torch.linalg.qr(torch.randn(64, 5, generator=generator, dtype=torch.float64)).Q
    coefficients = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    moved = prior.pull(coefficients @ basis.T) - prior.pull(torch.zeros(3, 64, dtype=torch.float64))
    expected = -(prior.precision(basis) @ coefficients.flatten()).view(3, 5)
    assert torch.allclose(moved @ basis, expected, rtol=1e-9, atol=1e-9)


def test_the_mean_image_is_where_nothing_pulls(prior):
    mean = (prior.gain * 0.4 + prior.offset).flatten(1)
    assert float(prior.pull(mean).abs().max()) < 1e-4
    assert float(prior.pull(mean + 0.1).abs().max()) > 1e-2
