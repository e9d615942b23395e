"""Cosine coefficients against SciPy's transform, and that a step in them looks like a photograph."""

import pytest
import scipy.fft
import torch

from attacks.engine.variables import Frequencies, Pixels
from dpbench.data.channels import CIFAR10_MEAN, CIFAR10_STD

MEAN, STD = CIFAR10_MEAN, CIFAR10_STD


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def neighbours(z):
    """Correlation of each pixel with the one to its right."""
    return float(torch.corrcoef(torch.stack([z[..., 1:].flatten(), z[..., :-1].flatten()]))[0, 1])


def test_coefficients_are_scipys():
    variables, z = Frequencies(MEAN, STD, 6, 10).double(), draw(2, 3, 6, 10)
    opponents = torch.stack([z.sum(1) / 3**0.5, (z[:, 0] - z[:, 2]) / 2**0.5], 1)
    truth = torch.from_numpy(scipy.fft.dctn(opponents.numpy(), axes=(2, 3), norm="ortho"))
    found = (variables.inverse(z) * variables.scale)[:, :2]
    torch.testing.assert_close(found, truth, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 5, 9), (1, 8, 8)])
def test_there_and_back(shape):
    variables, z = Frequencies(MEAN[: shape[0]], STD[: shape[0]], *shape[1:]).double(), draw(2, *shape)
    torch.testing.assert_close(variables([variables.inverse(z)]), z, rtol=1e-5, atol=1e-5)


def test_an_image_is_left_alone_and_what_is_none_brought_back():
    variables, box = Frequencies(MEAN, STD, 8, 8).double(), Pixels(MEAN, STD).double()
    inside, other = box.project([0.1 * draw(1, 3, 8, 8)])[0], torch.ones(1, dtype=torch.float64)
    coefficients, kept = variables.project([variables.inverse(inside), other])
    torch.testing.assert_close(variables([coefficients]), inside, rtol=1e-5, atol=1e-5)
    assert kept is other
    far = variables(variables.project([30 * draw(1, 3, 8, 8)]))
    torch.testing.assert_close(far, box.project([far])[0], rtol=1e-5, atol=1e-5)


def test_equal_steps_look_like_a_photograph():
    z = Frequencies(MEAN, STD, 32, 32)([draw(64, 3, 32, 32).float()])
    assert float(z.std()) == pytest.approx(1, abs=0.1)
    assert neighbours(z) > 0.7
    assert abs(neighbours(draw(64, 3, 32, 32))) < 0.05
    brightness, blue = z.mean(1), (z[:, 0] - z[:, 2]) / 2
    assert float(brightness.std()) > 2 * float(blue.std())
