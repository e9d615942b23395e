"""Features of networks that take images of one size only."""

import torch
from torch import nn
from torch.nn import functional as F

from attacks.features import network_features
from tests.helpers.attacks import smooth_images


class OneSize(nn.Sequential):
    def forward(self, x):
        assert x.shape[2:] == (8, 8), "made for 8 px"
        return super().forward(x)


def layers():
    torch.manual_seed(0)
    return nn.Conv2d(3, 5, 3, padding=1), nn.Flatten(), nn.Linear(320, 4)


def test_images_of_another_size_are_resized_and_the_maps_back():
    features, images = network_features(OneSize(*layers()), (3, 8, 8)), smooth_images()
    larger = F.interpolate(images, 24, mode="bilinear")
    found = features(larger)
    assert found.shape == (2, 5, 24, 24)
    resized = F.interpolate(larger, 8, mode="bicubic", antialias=True).clamp(0, 1)
    expected = F.interpolate(layers()[0](resized), 24, mode="bilinear")
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(features(images), layers()[0](images), atol=1e-5, rtol=1e-5)


def test_a_network_that_takes_any_size_is_given_it():
    features, images = network_features(nn.Sequential(*layers()), (3, 8, 8)), smooth_images(size=24)
    torch.testing.assert_close(features(images), layers()[0](images))
