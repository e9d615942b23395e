"""The malicious server: its layer is attacked, and the predicted error is that of the oracle estimator."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dpbench.cell import parts
from dpbench.cell import release as releasing
from dpbench.cell.run import measure, run_cell
from dpbench.cell.scene import prepare
from dpbench.protocol import InputError
from dpbench.store import schema
from dpbench.victim.imprint import ImprintModel
from tests.helpers.cells import cell, part, small_scene


def malicious(defence="none", releases=1, prior="wiener", **changes):
    attack, threat = part("analytic", prior=prior), part("malicious-linear", releases=releases)
    return cell(attack, defence, threat, **({"batch_size": 1, "victim": "early"} | changes))


def dp(**given):
    return part("dp", eps_scope="release", **given)


def with_layer(given):
    return parts.threat_of(given).prepare(prepare(given.batch))


def oracle(given, scene) -> list[float]:
    """PSNR per image, not clamped, of the row divided by the true loss gradient and clip factor."""
    model, found = scene.victim.model, []
    release = releasing.released(given, scene)
    rows = dict(zip(release.names, release.gradients, strict=True))["imprint.weight"] * release.batch_size
    for image, label in zip(scene.images, scene.labels, strict=True):
        model.zero_grad()
        scene.victim.loss(model(image[None]), label[None]).backward()
        whole = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
        factor = (given.defence.given.get("max_grad_norm", 1.0) / whole).clamp(max=1)
        own = int(model.imprint.bias.grad.abs().argmax())
        row = rows[own] / (factor * model.imprint.bias.grad[own] * model.gain)
        error = (row.view_as(image) + model.mean_image - image).double().square().mean()
        found.append(-10 * float(error.log10()))
    return found


@pytest.mark.parametrize(
    ("defence", "releases", "batch_size"),
    [
        (dp(noise_multiplier=0.01), 1, 1),
        (dp(noise_multiplier=0.1), 4, 1),
        (dp(noise_multiplier=0.01, max_grad_norm=1e4), 1, 1),  # nothing is clipped
        (dp(noise_multiplier=0.001), 1, 4),
    ],
)
def test_the_probe_is_the_oracle_estimators_psnr(defence, releases, batch_size):
    measured, predicted = [], []
    for seed in range(3):
        given = malicious(defence, releases, batch_seed=seed, batch_size=batch_size)
        rows = measure(given, prepare(given.batch)).rows
        probes = [schema.checked(row).get("psnr_unbiased_probe") for row in rows]
        for decibels, probe in zip(oracle(given, with_layer(given)), probes, strict=True):
            if probe is not None:  # two of a batch may share a bin
                measured.append(decibels)
                predicted.append(probe)
    assert len(measured) >= 3
    assert sum(measured) / len(measured) == pytest.approx(sum(predicted) / len(predicted), abs=0.3)


def test_images_of_one_bin_have_no_probe_of_their_own():
    given = malicious(dp(noise_multiplier=0.1), batch_size=2)
    scene = prepare(given.batch)
    twice = replace(scene, images=scene.images[:1].repeat(2, 1, 1, 1), labels=scene.labels[:1].repeat(2))
    assert [row["psnr_unbiased_probe"] for row in measure(given, twice).rows] == [None, None]


@pytest.mark.parametrize(
    "defence", ["none", part("dp+prune", eps_scope="release", noise_multiplier=0.1), "clip", "noise"]
)
def test_where_it_is_not_defined_it_is_empty(defence):
    given = malicious(defence)
    row = schema.checked(measure(given, prepare(given.batch)).rows[0])
    assert row["status"] == "ok"
    assert "psnr_unbiased_probe" not in row


def test_the_layer_is_attacked_and_scored():
    row = run_cell(malicious(victim="untrained")).rows[0]
    assert row["psnr"] > 60
    assert (row["identified"], row["gallery_size"], row["threat_model"]) == (True, 20, "malicious-linear")
    defended = run_cell(malicious(dp(noise_multiplier=0.001), victim="untrained")).rows[0]
    assert 20 < defended["psnr"] < row["psnr"]
    assert defended["prior"] == "wiener"
    denoised = run_cell(malicious(dp(noise_multiplier=0.001), prior="denoiser", victim="untrained")).rows[0]
    assert denoised["prior"] == "denoiser"
    assert denoised["psnr"] > defended["psnr"]


def test_the_layer_is_there_before_the_gradient_and_the_victim_stays():
    given = malicious()
    scene = prepare(given.batch)
    changed = parts.threat_of(given).prepare(scene)
    assert isinstance(changed.victim.model, ImprintModel)
    assert not isinstance(scene.victim.model, ImprintModel)
    assert changed.victim.loss is scene.victim.loss
    assert torch.equal(changed.images, scene.images)
    names = releasing.released(given, changed).names
    assert {"imprint.weight", "imprint.bias"} < set(names)


def test_data_without_shipped_statistics_are_judged_by_their_other_images():
    given = malicious(
        dp(noise_multiplier=0.001), data="imagenet-samples", image_size=16, label_draw="random",
        victim="untrained",
    )  # fmt: skip
    scene = with_layer(given)
    assert scene.statistics.spectrum.shape == (3, 16, 16)
    assert scene.fitted
    assert run_cell(given).status == "ok"


def test_without_other_images_there_is_nothing_to_plan_the_layer_with():
    with pytest.raises(InputError, match="give `others`"):
        measure(malicious(), replace(small_scene(), others=None))
