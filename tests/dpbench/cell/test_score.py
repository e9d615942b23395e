"""From an attack's images to rows: matched once, labels with them, and measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dpbench import metrics
from dpbench.cell.floors import Floor
from dpbench.cell.run import measure, run_cell
from dpbench.cell.scene import prepare, with_statistics
from dpbench.data import draw_disjoint, load_data
from tests.helpers.cells import cell, part, small_scene

MEAN = cell(None, floor=Floor.MEAN_IMAGE)
CONSTANT = cell(None, floor=Floor.CONSTANT_IMAGE)
QUICK = part("dlg", iterations=1)


def test_score_of_the_mean_image_by_hand():
    data = load_data("samples")
    batch = draw_disjoint(data, 2, 0)
    rows = run_cell(MEAN).rows
    for i, row in enumerate(rows):
        error = (data.mean_image.double() - batch.images[i].double()).square().mean()
        assert row["psnr"] == pytest.approx(-10 * float(error.log10()), abs=1e-4)
        assert (row["original_index"], row["label"]) == (batch.indices[i], int(batch.labels[i]))


def test_constant_image_beats_every_colour_as_it_is_an_oracle():
    best = run_cell(CONSTANT).rows
    grey = torch.full((2, 3, 32, 32), 0.5)
    given = metrics.psnr(grey, draw_disjoint(load_data("samples"), 2, 0).images)
    assert all(row["psnr"] >= float(p) for row, p in zip(best, given, strict=True))


def test_permuted_batch_is_put_in_order_labels_with_it(spy):
    batch = draw_disjoint(load_data("samples"), 4, 0)
    order = torch.tensor([2, 0, 3, 1])
    spy.images, spy.labels = batch.images[order], batch.labels[order].clone()
    spy.labels[0] = (spy.labels[0] + 1) % 10  # what was found for original 2
    result = run_cell(cell(batch_size=4))
    rows = result.rows[:4]
    assert [row["psnr"] for row in rows] == [float("inf")] * 4
    assert [row["label_correct"] for row in rows] == [True, True, False, True]
    assert torch.equal(result.images[:4], batch.images)
    assert torch.equal(result.originals[:4], batch.images)


@pytest.mark.parametrize("net", [None, "alex"])
def test_metrics_are_given_the_gallery_and_the_cells_trunk(monkeypatch, net):
    asked = []

    def measured(scored):
        asked.append(scored)
        return [{"gallery_size": 7}, {}]

    monkeypatch.setattr("dpbench.metrics.matching.match", lambda images, *_: torch.arange(len(images)))
    monkeypatch.setattr(metrics, "measure", measured)
    scene = prepare(MEAN.batch)
    gallery = tuple(x[:5] for x in scene.gallery)
    rows = measure(
        replace(CONSTANT, runtime=replace(MEAN.runtime, lpips_net=net)), replace(scene, gallery=gallery)
    ).rows
    (scored,) = asked
    assert scored.originals.equal(scene.images)
    assert scored.images.equal(metrics.floors.constant_image(scene.images))
    assert scored.others[0].equal(gallery[0])
    assert scored.lpips_net == net
    assert [row.get("gallery_size") for row in rows] == [7, None]


def test_no_gallery_without_other_images():
    scene = prepare(MEAN.batch)
    # 20 images: 2 are attacked, 18 of any label are decoys, and each original stands among them
    assert measure(MEAN, scene).rows[0]["gallery_size"] == 19
    alone = measure(MEAN, replace(scene, gallery=None)).rows[0]
    assert not {"identified", "gallery_size", "iip", "decoys_known"} & set(alone)
    assert measure(MEAN, replace(scene, others=None)).rows[0]["gallery_size"] == 19


@pytest.mark.parametrize(("shared", "fitted"), [(True, True), (True, False), (False, True), (False, False)])
def test_decoys_are_known_where_the_statistics_were_made_of_them(shared, fitted):
    scene = replace(small_scene(2), shared=shared)
    scene = replace(with_statistics(scene), fitted=fitted)  # else as if they were shipped
    rows = measure(cell(QUICK), scene).rows
    assert [row["decoys_known"] for row in rows] == [shared and fitted] * 4


def test_a_guess_knows_no_decoys():
    scene = with_statistics(small_scene(2))
    assert "decoys_known" not in measure(MEAN, scene).rows[0]


def test_the_malicious_servers_statistics_are_of_the_decoys_where_data_are_few():
    given = cell("analytic", threat="malicious-linear")
    assert measure(given, small_scene(2)).rows[0]["decoys_known"] is True
    assert run_cell(given).rows[0]["decoys_known"] is False  # CIFAR-10's are shipped


def test_labels_alone_are_not_scored_as_images():
    row = measure(cell("label-restoration", labels="inferred"), small_scene(2)).rows[0]
    assert row["label_correct"] in (True, False)
    assert not {"psnr", "ssim", "identified"} & set(row)
