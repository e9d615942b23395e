"""The planted layer's predicted error against the oracle estimator on releases of the real defence."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from dpbench.cell.grid import Cell

from dpbench.cell import trial
from dpbench.store import schema

torch.set_num_threads(1)


def cell(**changed) -> Cell:
    same = {"data": "samples", "images_digest": "", "image_size": None, "model": "convnet", "norm": "none"}
    same |= {"victim": "early", "weights": None, "weights_digest": "", "batch_size": 1, "batch_seed": 0}
    same |= {"label_draw": "distinct", "labels": "known", "bn_stats": "none", "attack": "analytic"}
    same |= {"threat_model": "malicious-linear", "prior": "wiener", "attack_seed": 0, "adaptive": True}
    same |= {"defense": "dp", "max_grad_norm": 1.0, "eps_scope": "release", "delta": 1e-5}
    same |= {"accountant": "pld", "device": "cpu", "version": "0"}
    return Cell(**(same | changed))


def oracle(given: Cell, scene: trial.Scene) -> list[float]:
    """PSNR per image, not clamped, of the row divided by the true loss gradient and clip factor."""
    model, found = scene.victim.model, []
    release = trial.released(given, scene)
    rows = dict(zip(release.names, release.gradients, strict=True))["imprint.weight"] * release.batch_size
    for image, label in zip(scene.images, scene.labels, strict=True):
        model.zero_grad()
        scene.victim.loss(model(image[None]), label[None]).backward()
        whole = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
        factor = (given.max_grad_norm / whole).clamp(max=1)
        own = int(model.imprint.bias.grad.abs().argmax())
        row = rows[own] / (factor * model.imprint.bias.grad[own] * model.gain)
        error = (row.view_as(image) + model.mean_image - image).double().square().mean()
        found.append(-10 * float(error.log10()))
    return found


@pytest.mark.parametrize(
    "changed",
    [
        {"noise_multiplier": 0.01},
        {"noise_multiplier": 0.1, "releases": 4},
        {"noise_multiplier": 0.01, "max_grad_norm": 1e4},  # nothing is clipped
        {"noise_multiplier": 0.001, "batch_size": 4},
    ],
)
def test_the_probe_is_the_oracle_estimators_psnr(changed):
    measured, predicted = [], []
    for seed in range(3):
        given = cell(batch_seed=seed, **changed)
        scene = trial.prepare(given)
        rows = trial.measure(given, scene).rows
        probes = [schema.checked(row).get("psnr_unbiased_probe") for row in rows]
        for decibels, probe in zip(oracle(given, scene), probes, strict=True):
            if probe is not None:  # two of a batch may share a bin
                measured.append(decibels)
                predicted.append(probe)
    assert len(measured) >= 3
    assert sum(measured) / len(measured) == pytest.approx(sum(predicted) / len(predicted), abs=0.3)


def test_images_of_one_bin_have_no_probe_of_their_own():
    given = cell(noise_multiplier=0.1, batch_size=2)
    scene = trial.prepare(given)
    twice = replace(scene, images=scene.images[:1].repeat(2, 1, 1, 1), labels=scene.labels[:1].repeat(2))
    assert [row["psnr_unbiased_probe"] for row in trial.measure(given, twice).rows] == [None, None]


@pytest.mark.parametrize(
    "changed",
    [
        {"defense": "none", "max_grad_norm": None, "adaptive": False, "prior": None},
        {"defense": "dp+prune", "noise_multiplier": 0.1, "prune_ratio": 0.9, "prune_scope": "layer"},
    ],
)
def test_where_it_is_not_defined_it_is_empty(changed):
    given = cell(**changed)
    assert trial.measure(given, trial.prepare(given)).rows[0]["psnr_unbiased_probe"] is None


@pytest.mark.parametrize("label", range(4))
def test_the_planted_row_has_nearly_all_of_every_images_gradient(label):
    """And its bias about a tenth of that, squared, in the mean over images."""
    given, shares = cell(noise_multiplier=1.0), []
    for seed in range(8):
        scene = trial.prepare(replace(given, batch_seed=seed))
        model = scene.victim.model
        scene.victim.loss(model(scene.images), torch.tensor([label])).backward()
        whole = sum(float(p.grad.square().sum()) for p in model.parameters())
        weight, bias = (float(p.grad.square().sum()) for p in model.imprint.parameters())
        assert weight + bias > 0.999 * whole
        assert weight + bias > 1  # so that it is clipped, and as loud as it can be
        shares.append(bias / whole)
        model.zero_grad()
    assert 0.05 < sum(shares) / len(shares) < 0.2
