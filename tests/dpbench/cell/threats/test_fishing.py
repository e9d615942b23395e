"""Fishing: one image's gradient out of a batch, and what an attack on one image makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dpbench.cell.floors import Floor
from dpbench.cell.run import measure
from dpbench.protocol import InputError
from dpbench.store import schema
from dpbench.victim import Victim
from tests.helpers.cells import cell, dp, part, small_scene

TINY = "analytic"
"""Inverts the victim below where it hears one image only."""


def batch(count=5, labels=None):
    """Noise of 8 pixels, label i % 5 unless told, and a victim that begins with a fully connected layer."""
    scene = small_scene(count)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 40), nn.Sigmoid(), nn.Linear(40, 5)).eval()
    labels = scene.labels if labels is None else torch.tensor(labels)
    return replace(scene, victim=Victim(model, F.cross_entropy, None), labels=labels)


def rows(scene, defence="none", attack=TINY, floor=None, told="known", **given):
    """Rows of the batch, without those of the start."""
    found = cell(attack, defence, part("fishing", **given), floor=floor, labels=told)
    return measure(found, scene).rows[: len(scene.images)]


def alone(spy, scene, **given):
    """What an attack sees of a batch, and the changed model's gradient of each image."""
    rows(scene, **given)
    model, single = spy.knowledge.model, []
    for x, y in zip(scene.images, scene.labels, strict=True):
        loss = F.cross_entropy(model(x[None]), y[None])
        single.append(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))
    return spy.release, spy.knowledge, single


@pytest.mark.parametrize("target", [0, 2, 4])
@pytest.mark.parametrize("defence", ["none", part("clip", max_grad_norm=0.1)])
def test_the_image_of_any_class_comes_out_of_the_batch_exactly(target, defence):
    found = rows(batch(), defence, target=target)
    assert found[target]["psnr"] > 80
    assert found[target]["identified"]
    assert all(row["psnr"] < 20 for row in found if row["label"] != target)


def test_an_honest_server_gets_none_of_them():
    assert all(row["psnr"] < 20 for row in measure(cell(TINY), batch()).rows[:5])


def test_noise_hides_it_and_pure_noise_holds_nothing():
    assert rows(batch(), dp(None, noise_multiplier=10.0), target=1)[1]["psnr"] < 20
    assert rows(batch(), floor=Floor.NOISE_GRADIENT, target=1)[1]["psnr"] < 20


@pytest.mark.parametrize("told", ["known", "inferred"])
@pytest.mark.parametrize("defence", ["none", part("clip", max_grad_norm=1e4)])
def test_the_attack_is_given_the_gradient_of_the_fished_image_alone(spy, defence, told):
    release, knowledge, single = alone(spy, batch(), defence=defence, target=3, told=told)
    for found, own in zip(release.gradients, single[3], strict=True):
        torch.testing.assert_close(found, own, atol=1e-3 * float(own.abs().max()), rtol=0)
    assert (release.batch_size, knowledge.labels.tolist()) == (1, [3])


@pytest.mark.parametrize("kept", ["", "3.weight", "3.bias"])
def test_a_client_that_keeps_the_last_layer_frozen_is_fished_as_well(spy, kept):
    scene = batch()
    for name in {"3.weight", "3.bias"} - {kept}:
        scene.victim.model.get_parameter(name).requires_grad_(False)
    trained = [name for name, p in scene.victim.model.named_parameters() if p.requires_grad]
    release, _, single = alone(spy, scene, target=3)
    assert list(release.names) == trained
    for found, expected in zip(release.gradients, single[3], strict=True):
        torch.testing.assert_close(found, expected, atol=1e-3 * float(expected.abs().max()), rtol=0)
    if kept != "3.bias":
        with pytest.raises(InputError, match=r"read off the gradient of 3\.bias, which is frozen: use"):
            rows(scene, told="inferred")


def test_images_of_one_class_stay_mixed_and_the_row_says_so(spy):
    scene = batch(5, [1, 0, 1, 2, 1])
    release, knowledge, single = alone(spy, scene)  # without a class, that of the first image
    for i, found in enumerate(release.gradients):
        mean = sum(single[j][i] for j in (0, 2, 4)) / 3
        torch.testing.assert_close(found, mean, atol=1e-3 * float(mean.abs().max()), rtol=0)
    assert knowledge.labels.tolist() == [1, 1, 1]
    assert rows(scene)[0]["note"] == "The 3 images of the fished class were not told apart."
    inferred = rows(scene, told="inferred")[0]
    assert inferred["note"].startswith("The 3 images")
    assert inferred["labels"] == "inferred"


@pytest.mark.parametrize("defence", [part("noise", noise_std=0.5), dp(None, noise_multiplier=2.0)])
def test_the_noise_is_as_strong_as_it_is_said_to_be(spy, defence):
    """On the sum, which is the fished image's own gradient; the first layer's is far below it."""
    rows(batch(), defence, target=3)
    found = float(spy.release.gradients[0].std())
    assert found == pytest.approx(spy.release.noise_on_sum(), rel=0.05)
    assert found == pytest.approx(2.5 if defence.name == "noise" else 2.0, rel=0.05)


def test_the_change_is_told_and_adds_nothing():
    found = [schema.checked(row) for row in rows(batch(), target=1, margin=30.0)]
    assert {row["added_parameters"] for row in found} == {0}
    assert found[0]["loss_rise"] > rows(batch(), target=1, margin=3.0)[0]["loss_rise"] + 4
    assert "loss_rise" not in measure(cell(TINY), batch()).rows[0]


class Twice(nn.Module):
    """Its logits are no layer's outputs."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(192, 5)

    def forward(self, images):
        return 2 * self.fc(images.flatten(1))


@pytest.mark.parametrize(
    ("change", "given", "words"),
    [
        ({"labels": torch.tensor([0, 0, 0, 0, 0])}, {"target": 1}, "No image of the batch has the class 1"),
        ({}, {"local_epochs": 1}, "leave out `local_epochs`"),
        ({"others": None}, {}, "give `others`"),
        ({"victim": Victim(Twice(), F.cross_entropy, None)}, {}, "does not end with fc"),
        ({"victim": Victim(nn.Flatten(), F.cross_entropy, None)}, {}, "which this model lacks"),
    ],
)
def test_what_cannot_be_fished_is_refused(change, given, words):
    with pytest.raises(InputError, match=words):
        rows(replace(batch(), **change), **given)


def test_a_defence_that_is_no_sum_is_refused():
    with pytest.raises(InputError, match="which prune does not release"):
        rows(batch(), part("prune", prune_ratio=0.5))
