"""The imprint layer of a malicious server, beside shipped victims."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dpbench.cell import parts
from dpbench.cell.scene import prepare
from dpbench.victim.imprint import exposures
from tests.helpers.cells import cell


def scene(batch_seed=0, batch_size=1):
    given = cell(
        "analytic", threat="malicious-linear", victim="early", batch_seed=batch_seed, batch_size=batch_size
    )
    return parts.threat_of(given).prepare(prepare(given.batch))


@pytest.mark.parametrize("label", range(4))
def test_the_layer_has_nearly_all_of_every_images_gradient(label):
    """And its bias about a tenth of that, squared, in the mean over images."""
    shares = []
    for seed in range(8):
        found = scene(seed)
        model = found.victim.model
        found.victim.loss(model(found.images), torch.tensor([label])).backward()
        whole = sum(float(p.grad.square().sum()) for p in model.parameters())
        weight, bias = (float(p.grad.square().sum()) for p in model.imprint.parameters())
        assert weight + bias > 0.999 * whole
        assert weight + bias > 1  # so that it is clipped, and as loud as it can be
        shares.append(bias / whole)
        model.zero_grad()
    assert 0.05 < sum(shares) / len(shares) < 0.2


def test_an_image_is_exposed_in_a_row_of_its_own_only():
    found = scene(batch_size=2)
    arguments = (found.victim.model, found.victim.loss)
    both = exposures(*arguments, found.images, found.labels)
    alone = [exposures(*arguments, found.images[i : i + 1], found.labels[i : i + 1])[0] for i in range(2)]
    assert both == alone
    assert all(norm > 0 and row > 0 for norm, row in alone)
    twice = replace(found, images=found.images[:1].repeat(2, 1, 1, 1), labels=found.labels[:1].repeat(2))
    assert exposures(*arguments, twice.images, twice.labels) == [None, None]
