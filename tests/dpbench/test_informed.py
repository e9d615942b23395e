"""Trials of the informed attacker through the real defence: what the Gram matrix predicts, and the bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dpbench import privacy, trial
from dpbench.grid import Cell
from dpbench.informed import clipped_gradients, lineup
from dpbench.intervals import clopper_pearson
from dpbench.predictions import candidate_success
from dpbench.protocol import InputError
from dpbench.victim import Victim

torch.set_num_threads(1)


def cell(**changed) -> Cell:
    same = {"data": "samples", "images_digest": "", "image_size": None, "model": "convnet", "norm": "none"}
    same |= {"victim": "early", "weights": None, "weights_digest": "", "batch_size": 1, "batch_seed": 0}
    same |= {"label_draw": "distinct", "labels": "known", "bn_stats": "none", "attack": "prior-aware"}
    same |= {"threat_model": "informed", "candidates": 10, "trials": 100, "attack_seed": 0, "device": "cpu"}
    return Cell(**(same | {"version": "0"} | changed))


def dp(eps: float, **changed) -> Cell:
    budget = {"eps": eps, "eps_scope": "release", "delta": 1e-5, "accountant": "pld"}
    return cell(**({"defense": "dp", "max_grad_norm": 1.0} | budget | changed))


def predicted(given: Cell, scene: trial.Scene) -> float:
    sigma = trial.defence_of(given).guarantee.noise_multiplier
    known = lineup(
        scene.victim.model,
        scene.victim.loss,
        scene.images,
        scene.labels,
        scene.others,
        given.candidates,
        given.max_grad_norm,
        given.search_seed(),
    ).gradients.double()
    gram = (known @ known.T / given.max_grad_norm**2).numpy()
    return candidate_success(gram, sigma, given.releases)[0]


def check(cells: list[Cell], scene_of) -> None:
    """Each success within 3 standard errors of its prediction, and none above the bound."""
    for given in cells:
        scene = scene_of(given)
        row = trial.measure(given, scene).rows[0]
        expected = predicted(given, scene)
        error = math.sqrt(max(expected * (1 - expected), 1e-4) / given.trials)
        assert abs(row["success"] - expected) < 3 * error + 0.005, (
            given.describe(),
            row["success"],
            expected,
        )
        right = round(row["success"] * given.trials)
        low, _ = clopper_pearson(right, given.trials, 1 - 2 * 0.05 / len(cells))  # one-sided, Bonferroni
        assert low <= row["success_bound"]
        assert row["success_low"] < row["success"] < row["success_high"] or row["success"] == 1


def small(given: Cell) -> trial.Scene:
    """8 px noise and a linear victim: a release takes milliseconds."""
    generator = torch.Generator().manual_seed(4)
    images, labels = torch.rand(30, 3, 8, 8, generator=generator), torch.arange(30) % 5
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).eval()
    size = given.batch_size
    return trial.Scene(
        Victim(model, F.cross_entropy, None),
        images[:size],
        labels[:size],
        tuple(range(size)),
        5,
        (0.5,) * 3,
        (0.3,) * 3,
        torch.full((3, 8, 8), 0.5),
        (images[size:], labels[size:]),
    )


def test_success_is_what_the_gram_matrix_predicts_and_under_the_bound():
    check(
        [dp(eps, trials=300) for eps in (1.0, 8.0)] + [dp(8.0, trials=200, batch_size=3, releases=2)], small
    )


@pytest.mark.slow
def test_photographs_and_shipped_victims():
    grid = [dp(eps, trials=1000) for eps in (1.0, 2.0, 4.0, 8.0, 16.0)]
    grid += [dp(8.0, trials=500, victim="trained"), dp(8.0, trials=500, batch_size=4, releases=3)]
    grid += [dp(8.0, trials=500, batch_size=4, max_grad_norm=0.1, candidates=5)]
    check(grid, trial.prepare)


def test_undefended_the_truth_is_always_found():
    row = trial.run_cell(cell(trials=20)).rows[0]
    assert row["status"] == "ok"
    assert (row["success"], row["membership"]) == (1, 1)
    assert "success_bound" not in row


def test_membership_is_a_coin_at_no_budget_and_certain_at_a_large_one():
    low, high = (trial.measure(dp(eps, trials=200), small(dp(eps))).rows[0] for eps in (0.01, 1000.0))
    assert abs(low["membership"] - 0.5) < 3 * 0.5 / math.sqrt(400) * math.sqrt(2)
    assert high["membership"] == 1


def test_membership_at_one_is_its_closed_form():
    """Right with chance Phi(||c|| / (2 sigma C)), and every gradient is clipped to C."""
    given = dp(2.0, trials=300)
    scene = small(given)
    norms = clipped_gradients(scene.victim.model, scene.victim.loss, scene.others[0], scene.others[1], None)
    assert (norms.norm(dim=1) > 1).all()
    expected = privacy.reconstruction_bound(2 * privacy.noise_multiplier(2.0, 1e-5), kappa=0.5)
    found = trial.measure(given, scene).rows[0]["membership"]
    assert abs(found - expected) < 3 * math.sqrt(expected * (1 - expected) / 300)


def test_clipped_gradients_against_one_by_one_autograd():
    scene = small(dp(1.0))
    images, labels = scene.others[0][:4], scene.others[1][:4]
    model = scene.victim.model
    bound = 2.0
    for row, image, label in zip(
        clipped_gradients(model, F.cross_entropy, images, labels, bound), images, labels, strict=True
    ):
        delta = model(image[None])[0].softmax(0) - F.one_hot(label, 5)
        whole = torch.cat([torch.outer(delta, image.flatten()).flatten(), delta]).detach()
        expected = whole * min(1, bound / float(whole.norm()))
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-6)


def test_too_many_candidates():
    row = trial.run_cell(cell(candidates=21)).rows[0]
    assert row["status"] == "skipped"
    assert "--candidates" in row["error"]


def test_candidates_are_the_truth_and_others_each_once():
    scene = small(dp(1.0))
    given = lineup(
        scene.victim.model, F.cross_entropy, scene.images, scene.labels, scene.others, 10, 1.0, seed=3
    )
    assert torch.equal(given.images[0], scene.images[0])
    assert len(np.unique(given.images.flatten(1).numpy(), axis=0)) == 10
    assert float(given.known.norm()) == 0


def test_a_batch_nobody_gave_others_for():
    scene = small(dp(1.0))
    with pytest.raises(InputError, match="outside the batch"):
        trial.measure(dp(1.0), trial.replace(scene, others=None))
