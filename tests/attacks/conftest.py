"""Victims of the attack tests."""

import pytest
import torch

from dpbench.victim.networks import build
from tests.helpers.attacks import Normed, Tiny, smooth_images


@pytest.fixture
def tiny():
    torch.manual_seed(3)
    return Tiny()


@pytest.fixture
def normed():
    torch.manual_seed(3)
    return Normed()


@pytest.fixture
def images():
    return smooth_images()


@pytest.fixture(scope="session")
def lenet():
    return build("lenet")


@pytest.fixture(scope="session")
def convnet():
    return build("convnet")
