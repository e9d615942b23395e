"""The informed attacker's candidates and their clipped gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dpbench.cell.candidates import check_count, clipped_gradients, draw_candidates
from dpbench.cell.run import run_cell
from dpbench.protocol import InputError
from tests.helpers.cells import cell, part, small_scene


def drawn(scene, count=10, max_grad_norm=1.0, seed=3):
    arguments = (scene.victim.model, F.cross_entropy, scene.images, scene.labels, scene.others)
    return draw_candidates(*arguments, count, max_grad_norm, seed)


@pytest.mark.parametrize("bound", [2.0, 1e-3, None])
def test_clipped_gradients_against_one_by_one_autograd(bound):
    scene = small_scene()
    images, labels = scene.others[0][:4], scene.others[1][:4]
    model = scene.victim.model
    found = clipped_gradients(model, F.cross_entropy, images, labels, bound)
    for row, image, label in zip(found, images, labels, strict=True):
        delta = model(image[None])[0].softmax(0) - F.one_hot(label, 5)
        whole = torch.cat([torch.outer(delta, image.flatten()).flatten(), delta]).detach()
        expected = whole * (1 if bound is None else min(1, bound / float(whole.norm())))
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-6)


def test_candidates_are_the_truth_and_others_each_once():
    scene = small_scene()
    given = drawn(scene)
    assert torch.equal(given.images[0], scene.images[0])
    assert len(np.unique(given.images.flatten(1).numpy(), axis=0)) == 10
    assert float(given.known.norm()) == 0


def test_the_seed_decides_which_others():
    scene = small_scene()
    one, same, other = (drawn(scene, seed=seed).images for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_rest_of_the_batch_is_known():
    scene = small_scene(4)
    given = drawn(scene, max_grad_norm=0.5)
    rest = clipped_gradients(scene.victim.model, F.cross_entropy, scene.images[1:], scene.labels[1:], 0.5)
    torch.testing.assert_close(given.known, rest.sum(0))
    assert float(given.known.norm()) <= 1.5
    assert torch.equal(given.labels[1:].unique(), scene.others[1].unique())


@pytest.mark.parametrize(
    ("count", "others", "enough"), [(1, 9, False), (2, 1, True), (2, 0, False), (10, 9, True)]
)
def test_how_many_there_may_be(count, others, enough):
    if enough:
        check_count(count, others)
        return
    with pytest.raises(InputError, match="`candidates`"):
        check_count(count, others)


def test_too_many_candidates():
    row = run_cell(cell("prior-aware", threat=part("informed", candidates=21), batch_size=1)).rows[0]
    assert row["status"] == "skipped"
    assert "give `candidates` from 2 to 20" in row["error"]
