"""GradInversion's axes from cell to table: oracles, generators, scaled logits, labels, published figures."""

import pandas as pd
import pytest
import torch
from dpbench.cell.grid import Axes, plan

from dpbench import metrics
from dpbench.cell import trial
from dpbench.report.naming import Naming
from dpbench.report.published import published
from dpbench.report.sentence import sentence
from dpbench.store import schema

from .test_trial import cell, dp

EMPTY = ("eps", "eps_release", "eps_replace", "delta", "rero_release")
RESNET = {"model": "resnet20", "norm": "frozen-bn", "victim": "early", "batch_size": 1}


@pytest.mark.parametrize("source", ["exact", "recovered", "running"])
def test_private_statistics_leave_no_epsilon(source):
    given = dp(**RESNET, attack="deepinversion", bn_stats=source, iterations=1)
    row = trial.run_cell(given).rows[0]
    if source == "running":
        assert all(row[name] is not None for name in ("eps_release", "rero_release"))
        return
    assert all(row[name] is None for name in EMPTY)
    assert row["noise_multiplier"] == 0.6
    table = schema.frame([schema.checked(row)])
    assert "without a guarantee" in Naming(table).defence(row)
    skipped = trial.run_cell(dp(**RESNET, attack="deepinversion", bn_stats=source, labels="inferred"))
    assert skipped.status == "skipped"
    assert skipped.rows[0]["eps_release"] is None


def test_latent_projection_searches_the_generator_that_the_cell_names():
    given = cell(victim="early", attack="latent-projection", generator="cifar10", iterations=2, restarts=1)
    result = trial.run_cell(given)
    assert result.rows[0]["status"] == "ok"
    assert result.rows[0]["generator"] == "cifar10"
    wrong = trial.run_cell(cell(attack="latent-projection", generator="cifar10", image_size=64))
    assert wrong.status == "skipped"
    assert "32x32 and the victim takes 64x64" in wrong.rows[0]["error"]


def test_smaller_logits_make_another_less_confident_victim():
    plain, quiet = (
        trial.prepare(cell(**RESNET | {"batch_size": 4}, logit_scale=scale)) for scale in (1, 0.25)
    )
    images = plain.images
    with torch.no_grad():
        torch.testing.assert_close(quiet.victim.model(images), plain.victim.model(images) / 4)
    losses = [[loss for loss, _ in trial.image_shares(scene)] for scene in (plain, quiet)]
    sure = min(range(4), key=losses[0].__getitem__)
    assert losses[1][sure] > losses[0][sure]
    assert cell(logit_scale=0.25).key() != cell().key()
    assert "logits x0.25" in cell(logit_scale=0.25).describe()


def test_only_attacks_that_have_an_axis_are_multiplied_by_it():
    axes = Axes(
        data="samples",
        device="cpu",
        version="0",
        model=("resnet20",),
        attack=("gradinversion", "latent-projection", "inverting-gradients", "label-restoration"),
        terms=("gradient", "registered"),
        preset=("tuned", "paper"),
        label_rule=("minimum", "sum"),
        labels=("known", "inferred"),
        generator=("cifar10", "biggan"),
    )
    cells = plan(axes, lambda *_: "w", "{}{}{}".format, lambda name: name, lambda spec: f"of {spec}").cells
    counts = {
        name: {labels: sum(c.attack == name and c.labels == labels for c in cells) for labels in axes.labels}
        for name in axes.attack
    }
    assert counts["gradinversion"] == {"known": 4, "inferred": 8}
    assert counts["latent-projection"] == {"known": 2, "inferred": 2}
    assert counts["inverting-gradients"] == {"known": 1, "inferred": 1}
    assert counts["label-restoration"] == {"known": 1, "inferred": 2}
    assert {c.generator_digest for c in cells if c.generator} == {"of cifar10", "of biggan"}
    floors = [c for c in cells if c.attack in ("floor:mean-image", "floor:constant-image")]
    assert all(c.terms is c.preset is c.generator is None for c in floors)
    assert "label-restoration" not in {c.floor_of for c in cells}


def test_labels_count_as_a_set_with_repeats():
    found, labels = torch.tensor([3, 1, 1, 2]), torch.tensor([1, 3, 3, 1])
    assert metrics.labels_restored(found, labels).tolist() == [True, True, False, True]


def rows(**changed):
    known = {"status": "ok", "defense": "none", "psnr": 10.0, "lpips": 0.5, "batch_size": 8, **changed}
    return schema.frame([schema.checked(known | {"image": i}) for i in range(2)])


def test_published_figures_stand_beside_ours_as_a_trend():
    lines = published(rows(attack="gradinversion", terms="lazy"))
    assert "12.52 dB, LPIPS 0.554" in lines[0]
    assert "here median PSNR 10.00 dB, LPIPS 0.500 of 2 images" in lines[0]
    assert "trend only" in lines[-1]
    both = pd.concat([rows(attack="gradinversion", terms="registered"), rows(attack="dlg")])
    assert len(published(both)) == 2
    assert published(rows(attack="dlg")) == []
    assert published(rows(attack="gradinversion", terms="lazy", defense="clip")) == []


def test_published_figures_stand_beside_each_condition_of_ours():
    table = pd.concat(
        [
            rows(attack="gradinversion", terms="lazy", bn_stats="exact", psnr=12.0),
            rows(attack="gradinversion", terms="lazy", bn_stats="running", psnr=8.0),
        ]
    )
    (line, _) = published(table)
    assert "12.00 dB, LPIPS 0.500 of 2 images (batch size=8, bn stats exact)" in line
    assert "8.00 dB, LPIPS 0.500 of 2 images (batch size=8, bn stats running)" in line


def test_how_gradients_are_compared_is_an_axis_of_gradinversion():
    one, layers = (cell(**RESNET, attack="gradinversion", matching=way) for way in (None, "layer-l2"))
    assert one.key() != layers.key()
    assert "matching=layer-l2" in layers.describe()
    assert [trial.attack_of(c).resolved().matching for c in (one, layers)] == ["cosine", "layer-l2"]
    both = pd.concat(
        [
            rows(attack="gradinversion", terms="lazy", matching=way, psnr=p)
            for way, p in ((None, 9), ("cosine", 8))
        ]
    )
    assert "9.00 dB" in published(both)[0]
    assert "8.00 dB" in published(both)[0]


def test_labels_alone_are_told_as_labels():
    known = {"psnr": None, "lpips": None, "label_correct": True}
    table = rows(attack="label-restoration", label_rule="minimum", **known)
    assert "100.0% of the labels by the minimum rule" in sentence(table)
    assert "labels 100.00% of 2" in published(table)[0]
