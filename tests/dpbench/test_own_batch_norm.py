"""GradInversion on a user's own network with batch norm: it uses the statistics it is told, or says so."""

from __future__ import annotations

import pytest
import torch
from torchvision.models import resnet18

import dpbench
from dpbench.data import draw_batch, load_data
from dpbench.store import Store
from dpbench.victim.batch_norm import exact


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return resnet18(weights=None, num_classes=10).eval()


@pytest.fixture(scope="module")
def batch():
    return draw_batch(load_data("samples"), 1, 0)


def rebuilt(network, batch, folder, **told):
    """GradInversion's image after a short search."""
    table = dpbench.benchmark(
        network,
        batch.images,
        batch.labels,
        attacks="gradinversion",
        terms="fidelity",
        iterations=12,
        restarts=1,
        engine="eager",
        device="cpu",
        out=folder,
        progress=False,
        **told,
    )
    row = table[table["attack"] == "gradinversion"].iloc[0]
    assert row["status"] == "ok"
    stored = Store(folder).read(row["key"])
    return torch.from_numpy(stored.images[0]).float()[None] / 255


def distance(network, images, originals):
    """How far the statistics at the inputs of all batch-norm layers are from the originals', as a share."""
    pairs = list(zip(exact(network, images), exact(network, originals), strict=True))
    apart = sum(float((n - o).norm()) for new, old in pairs for n, o in zip(new, old, strict=True))
    return apart / sum(float(o.norm()) for _, old in pairs for o in old)


@pytest.mark.usefixtures("bare_exports")
def test_torchvisions_resnet18_with_the_batchs_statistics_and_without(network, batch, tmp_path):
    with_them = rebuilt(network, batch, tmp_path / "exact", bn_stats="exact")
    with pytest.warns(UserWarning, match="goes without its batch-norm term"):
        without = rebuilt(network, batch, tmp_path / "none", bn_stats="none")
    used, unused = (distance(network, images, batch.images) for images in (with_them, without))
    assert used < 0.8 * unused, (used, unused)


def test_running_statistics_of_a_network_that_was_never_trained_do_not_drown_the_gradient(network, batch):
    """All its running means are zero: a distance relative to them would be infinite."""
    from attacks.regularisers import BatchNormStatistics
    from dpbench.victim.batch_norm import statistics

    told = statistics(network, batch.images, "running")
    term = BatchNormStatistics(1.0, told, relative=True)
    seen = [mean.new_ones(2, len(mean), 4, 4) for mean, _ in told]
    assert float(term.penalty(batch.images, seen)) < 10
