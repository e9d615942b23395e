"""A set of images that a linear layer tells apart, and a cache folder of each test's own."""

import pytest
import torch
from torch import nn

from dpbench.accuracy import scattering, trial


def images(count, seed):
    """Two classes: bright above or bright below, with noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    up = torch.linspace(0, 1, 6)[:, None].expand(6, 6)
    clean = torch.where(labels[:, None, None] == 1, up, 1 - up)
    noise = torch.rand(count, 6, 6, generator=generator)
    return (0.6 * clean + 0.4 * noise)[:, None], labels


@pytest.fixture(scope="session")
def train():
    return images(320, 0)


@pytest.fixture(scope="session")
def test():
    return images(200, 1)


@pytest.fixture
def linear():
    """Makes a linear layer on the pixels."""
    return lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 2))


@pytest.fixture
def convolution():
    """Makes a small network that Opacus has no ghost clipping for."""
    return lambda: nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 2 * 2, 2)
    )


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Trainings and features of this test alone; what accountants computed is kept for all."""
    for module in (scattering, trial):
        name = module.__name__.rpartition(".")[2]
        monkeypatch.setattr(module, "folder", lambda name=name: tmp_path / "cache" / name)
    return tmp_path / "cache"
