"""Aggregation on a victim whose gradient is known in closed form: what it hides and what it does not.

Row y of the gradient is the sum of the images of label y over all clients. So clients' images of different
labels stay apart whoever they belong to, and of images of one label the server has the sum alone.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dpbench.cell import release as releasing
from dpbench.cell.run import measure
from dpbench.victim import Victim
from tests.helpers.cells import cell, part, small_scene
from tests.helpers.linear_victim import CLASSES, SHAPE, Linear, draw, own_logit


def scene_of(labels):
    """One image for each client, with a label each; and images that are not attacked."""
    usual, labels = small_scene(1), torch.tensor(labels)
    rest = draw(torch.arange(12) % CLASSES, seed=9).clamp(0, 1), torch.arange(12) % CLASSES
    return replace(
        usual,
        victim=Victim(Linear().eval(), own_logit, None),
        images=draw(labels, seed=3).clamp(0, 1),
        labels=labels,
        indices=tuple(range(len(labels))),
        num_classes=CLASSES,
        mean_image=torch.full(SHAPE, 0.5),
        others=rest,
        gallery=rest,
        clients=len(labels),
    )


def attacked(labels, defence="none"):
    """What the attack makes of the sum, for the first client, and that client's image."""
    scene = scene_of(labels)
    given = cell("analytic", defence, clients=len(labels), batch_size=1)
    return measure(given, scene), scene


def test_distinct_labels_stay_apart_in_the_sum():
    result, scene = attacked([1, 0, 2])
    torch.testing.assert_close(result.images[0], scene.images[0], atol=1e-5, rtol=0)
    assert result.rows[0]["psnr"] > 80


def test_of_one_label_the_server_has_the_mean_alone():
    scene, given = scene_of([1, 1, 1]), cell("analytic", clients=3, batch_size=1)
    found = releasing.attacked(given, scene, releasing.released(given, scene)).images
    torch.testing.assert_close(found[0], scene.images.mean(0), atol=1e-5, rtol=0)
    for image in scene.images:  # the other outputs are the attack's blind guess
        assert float((found - image).abs().flatten(1).amax(1).min()) > 0.02


def test_a_client_alone_in_its_label_is_as_exposed_as_without_aggregation():
    for labels in ([2], [2, 0, 0]):
        result, scene = attacked(labels)
        torch.testing.assert_close(result.images[0], scene.images[0], atol=1e-5, rtol=0)


def test_noise_of_one_budget_weighs_as_much_however_many_clients():
    """Distributed noise on the sum is sigma C, and so is that on a row which holds one client's image."""
    defence = part("dp", noise_multiplier=0.01, max_grad_norm=10.0, eps_scope="release", noise="distributed")
    for labels in ([2], [2, 0, 1]):
        scene, given = scene_of(labels), cell("analytic", defence, clients=len(labels), batch_size=1)
        made = (releasing.released(replace(given, attack_seed=seed), scene) for seed in range(40))
        sums = torch.stack([release.gradients[0][2] for release in made]) * len(labels)
        error = sums - scene.images[0].flatten()
        assert float(error.std()) == pytest.approx(0.1, rel=0.15)
