"""An attack that notes what it is shown, and a data set that a test makes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dpbench.cell import parts
from dpbench.cell import scene as scenes
from dpbench.data import load_data
from dpbench.protocol import Reconstruction


class Spy:
    """Hands back what it was told to; grey images of class 0 unless told."""

    def __init__(self):
        self.images = self.labels = None

    def __call__(self, release, knowledge, *, seed, device, progress):
        self.release, self.knowledge, self.seed = release, knowledge, seed
        shape = (release.batch_size, *knowledge.image_shape)
        images = torch.zeros(shape) if self.images is None else self.images
        labels = torch.zeros(release.batch_size, dtype=torch.int64) if self.labels is None else self.labels
        return Reconstruction(images, labels, "known", 0.0, torch.zeros_like(images), 1, 0.0)


@pytest.fixture
def spy(monkeypatch):
    """Takes the place of every attack."""
    found = Spy()
    monkeypatch.setattr(parts, "attack_of", lambda cell: found)
    return found


@pytest.fixture
def data(monkeypatch):
    """Puts a data set in the place of `samples`."""

    def put(**changes):
        found = replace(load_data("samples"), **changes)
        monkeypatch.setattr(scenes, "load_data", lambda spec, size: found)
        scenes.dataset.cache_clear()
        return found

    yield put
    scenes.dataset.cache_clear()
