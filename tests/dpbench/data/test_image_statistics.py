"""Statistics of public images, and that public means disjoint from the attacked ones."""

from __future__ import annotations

import hashlib

import pytest
import torch

from dpbench.assets import AssetUnavailable
from dpbench.data import cifar10, image_statistics, load_data
from dpbench.victim.imprint import edges_for


def hashes(images) -> set[bytes]:
    return {hashlib.sha256(image.numpy().tobytes()).digest() for image in images}


def test_colours_and_spectrum_keep_the_power():
    """Parseval: the spectrum's sum is the mean squared deviation, whatever the colours."""
    images = torch.randint(
        0, 256, (50, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    mean = images.float().mean(0) / 255
    statistics = image_statistics.fit(images, mean)
    power = (images.double() / 255 - mean).square().sum((1, 2, 3)).mean()
    assert float(statistics.spectrum.double().sum()) == pytest.approx(float(power), rel=1e-5)
    torch.testing.assert_close(statistics.colours @ statistics.colours.T, torch.eye(3), atol=1e-5, rtol=0)


def test_a_field_that_is_one_wave_has_its_power_there():
    phase = torch.rand(200, 1, 1, generator=torch.Generator().manual_seed(0)) * 6.2832
    wave = 127.5 + 100 * torch.cos(torch.arange(16) * 6.2832 * 3 / 16 + phase).expand(200, 16, 16)
    images = wave[:, None].expand(-1, 3, -1, -1).round().byte()
    spectrum = image_statistics.fit(images, torch.full((3, 16, 16), 0.5)).spectrum.sum(0)
    assert float(spectrum[0, 3] + spectrum[0, 13]) > 0.99 * float(spectrum.sum())


def test_bins_are_hit_equally_often():
    data = load_data("imagenet-samples", size=32)
    brightness = data.images.float().mean((1, 2, 3)) / 255
    edges = edges_for(2, load_data("samples").statistics)
    assert len(edges) == 129
    assert edges[0] < 0
    assert edges[-1] > 1
    below = (brightness < edges[64]).float().mean()
    assert 0.2 < float(below) < 0.8


def test_what_victims_and_statistics_were_fitted_on_is_never_attacked():
    """Shipped victims, mean image and spectrum come from CIFAR-10's training images and nothing else."""
    try:
        public, attacked = hashes(cifar10("train")[0]), hashes(cifar10("test")[0])
    except AssetUnavailable:
        pytest.skip("CIFAR-10 is not here")
    assert not public & hashes(load_data("samples").images)
    assert not public & attacked
