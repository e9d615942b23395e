"""Trials of the informed attacker through the real defence: what the Gram matrix predicts, and the bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from dpbench.cell.grid import Cell
from dpbench.cell.informed import clipped_gradients, draw_candidates, subsampled
from torch import nn
from torch.nn import functional as F

from dpbench import privacy
from dpbench.cell import trial
from dpbench.privacy.expected_success import candidate_success
from dpbench.privacy.intervals import clopper_pearson
from dpbench.protocol import InputError, combined
from dpbench.victim import Victim

torch.set_num_threads(1)


def cell(**changed) -> Cell:
    same = {"data": "samples", "images_digest": "", "image_size": None, "model": "convnet", "norm": "none"}
    same |= {"victim": "early", "weights": None, "weights_digest": "", "batch_size": 1, "batch_seed": 0}
    same |= {"label_draw": "distinct", "labels": "known", "bn_stats": "none", "attack": "prior-aware"}
    same |= {"threat_model": "informed", "candidates": 10, "trials": 100, "attack_seed": 0, "device": "cpu"}
    return Cell(**(same | {"version": "0"} | changed))


def dp(eps: float | None, **changed) -> Cell:
    budget = {"eps": eps, "eps_scope": "release", "delta": 1e-5, "accountant": "pld"}
    return cell(**({"defense": "dp", "max_grad_norm": 1.0} | budget | changed))


def predicted(given: Cell, scene: trial.Scene) -> float:
    sigma = trial.defence_of(given).guarantee.noise_multiplier
    known = draw_candidates(
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


def below_the_bound(row: dict, given: Cell, cells: int) -> None:
    right = round(row["success"] * given.trials)
    low, _ = clopper_pearson(right, given.trials, 1 - 2 * 0.05 / cells)  # one-sided, Bonferroni
    assert low <= row["success_bound"], given.describe()


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
        below_the_bound(row, given, len(cells))
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


def sampled(eps: float | None, q: float, **changed) -> Cell:
    return dp(eps, inclusion=None if q == 1 else q, **changed)


def test_sampled_inclusion_stays_below_the_subsampled_bound():
    """And the guarantee of the row is that of (q, T), whose noise is less than that of certain inclusion."""
    cells = [sampled(eps, q, trials=300, releases=4) for eps, q in ((1.0, 0.5), (8.0, 0.5), (50.0, 0.2))]
    for given in cells:
        row = trial.measure(given, small(given)).rows[0]
        sigma = row["noise_multiplier"]
        assert sigma < privacy.noise_multiplier(given.eps, 1e-5, steps=4)
        assert sigma == privacy.noise_multiplier(given.eps, 1e-5, given.inclusion, 4)
        assert row["eps_release"] == pytest.approx(given.eps, rel=2e-3)
        assert row["success_bound"] == privacy.reconstruction_bound(sigma, given.inclusion, 4, 0.1)
        assert row["rero_release"] == row["success_bound"]  # ten candidates: the same prior
        assert row["success_bound"] < privacy.reconstruction_bound(sigma, 1, 4, 0.1)
        assert row.get("eps_replace") is None
        below_the_bound(row, given, len(cells))


@pytest.mark.parametrize("q", [0.5, 0.25])
def test_at_hardly_any_noise_success_is_the_chance_of_ever_being_in(q):
    given = sampled(None, q, trials=400, releases=2, noise_multiplier=0.05)
    row = trial.measure(given, small(given)).rows[0]
    ever = 1 - (1 - q) ** 2
    expected = ever + (1 - ever) / 10
    assert abs(row["success"] - expected) < 3 * math.sqrt(expected * (1 - expected) / 400)
    expected = (1 + ever) / 2
    assert abs(row["membership"] - expected) < 3 * math.sqrt(ever * (1 - ever) / 400) / 2 + 0.01


def test_knowing_the_chance_of_inclusion_helps(monkeypatch):
    """The likelihood that takes the sample for present errs where its absence counts against it."""
    given = sampled(20.0, 0.3, trials=400, releases=6)
    informed_of_it = trial.measure(given, small(given)).rows[0]
    true = trial.attack_of
    monkeypatch.setattr(trial, "attack_of", lambda cell: true(trial.replace(cell, inclusion=None)))
    ignorant = trial.measure(given, small(given)).rows[0]
    assert informed_of_it["success"] > ignorant["success"] - 0.02


def test_certain_inclusion_is_the_default_and_changes_nothing():
    given = dp(8.0, trials=50, releases=2)
    rows = [
        trial.measure(cell, small(given)).rows[0] for cell in (given, trial.replace(given, inclusion=1.0))
    ]
    for name in ("success", "membership", "eps_release", "success_bound", "noise_multiplier", "eps_replace"):
        assert rows[0][name] == rows[1][name]
    assert given.release_seed() == sampled(8.0, 0.5, trials=50, releases=2).release_seed()


def test_a_sample_taken_out_is_one_that_was_never_in():
    """Against the release of the batch without it, the noise taken off both."""
    given = sampled(8.0, 0.5, batch_size=3, releases=2)
    scene = small(given)
    chain = trial.defence_of(given)
    known = draw_candidates(
        scene.victim.model, F.cross_entropy, scene.images, scene.labels, scene.others, 3, 1.0, 0
    )
    arguments = (scene.victim.model, F.cross_entropy)
    whole = combined(chain.releases(*arguments, scene.images, scene.labels, seed=7, count=2))
    less = combined(chain.releases(*arguments, scene.images[1:], scene.labels[1:], seed=7, count=2))
    found = subsampled(whole, known.gradients[0], torch.tensor([True, False]))
    assert found.each[0] is whole.each[0]
    for ours, theirs in zip(found.each[1], less.each[1], strict=True):  # same seed, same noise on the sum
        torch.testing.assert_close(ours * 3, theirs * 2, rtol=1e-4, atol=1e-5)


def test_sampled_inclusion_of_a_defence_that_is_not_additive_is_refused():
    given = sampled(8.0, 0.5, defense="dp+prune", prune_ratio=0.5, prune_scope="layer")
    with pytest.raises(InputError, match="dp and noise only"):
        trial.measure(given, small(given))


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
    given = draw_candidates(
        scene.victim.model, F.cross_entropy, scene.images, scene.labels, scene.others, 10, 1.0, seed=3
    )
    assert torch.equal(given.images[0], scene.images[0])
    assert len(np.unique(given.images.flatten(1).numpy(), axis=0)) == 10
    assert float(given.known.norm()) == 0


def test_a_batch_nobody_gave_others_for():
    scene = small(dp(1.0))
    with pytest.raises(InputError, match="outside the batch"):
        trial.measure(dp(1.0), trial.replace(scene, others=None))
