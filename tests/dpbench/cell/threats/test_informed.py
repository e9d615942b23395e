"""Trials of the informed attacker through the real defence: what the Gram matrix predicts, and the bounds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from dpbench import privacy
from dpbench.cell import parts
from dpbench.cell.candidates import clipped_gradients, draw_candidates
from dpbench.cell.rows import describe
from dpbench.cell.run import measure, run_cell
from dpbench.cell.scene import prepare
from dpbench.cell.spec import Cell
from dpbench.cell.threats import threat_models
from dpbench.privacy.intervals import clopper_pearson
from dpbench.protocol import InputError
from tests.helpers.candidates import candidate_success
from tests.helpers.cells import dp as budget
from tests.helpers.cells import part, small_scene
from tests.helpers.informed import below_the_bound, dp, informed, row_of, threat


def predicted(given: Cell, scene) -> float:
    chain = parts.defence_of(given)
    bound = chain.guarantee.max_grad_norm
    known = draw_candidates(
        scene.victim.model,
        scene.victim.loss,
        scene.images,
        scene.labels,
        scene.others,
        threat(given).candidates,
        bound,
        given.seed("candidates"),
    ).gradients.double()
    gram = (known @ known.T / bound**2).numpy()
    return candidate_success(gram, chain.guarantee.noise_multiplier, threat(given).releases)[0]


def check(cells: list[Cell], scene_of) -> None:
    """Each success within 3 standard errors of its prediction, and none above the bound."""
    for given in cells:
        scene = scene_of(given)
        row = measure(given, scene).rows[0]
        expected = predicted(given, scene)
        error = math.sqrt(max(expected * (1 - expected), 1e-4) / threat(given).trials)
        assert abs(row["success"] - expected) < 3 * error + 0.005, (describe(given), row["success"], expected)
        below_the_bound(row, given)
        assert row["success_low"] < row["success"] < row["success_high"] or row["success"] == 1
        assert row["membership_low"] < row["membership"] <= row["membership_high"]


def test_success_is_what_the_gram_matrix_predicts_and_under_the_bound():
    check(
        [dp(eps, trials=300) for eps in (1.0, 8.0)] + [dp(8.0, trials=200, batch_size=3, releases=2)],
        lambda given: small_scene(given.batch.batch_size),
    )


@pytest.mark.slow
def test_photographs_and_shipped_victims():
    grid = [dp(eps, trials=1000) for eps in (1.0, 2.0, 4.0, 8.0, 16.0)]
    grid += [dp(8.0, trials=500, victim="trained"), dp(8.0, trials=500, batch_size=4, releases=3)]
    grid += [dp(8.0, trials=500, batch_size=4, max_grad_norm=0.1, candidates=5)]
    check(grid, lambda given: prepare(given.batch))


def test_undefended_the_truth_is_always_found():
    result = run_cell(informed(trials=20))
    row = result.rows[0]
    assert row["status"] == "ok"
    assert (row["success"], row["membership"]) == (1, 1)
    assert not {"success_bound", "membership_bound"} & set(row)
    assert len(result.rows) == 1
    assert len(result.images) == len(result.originals) == 0


NOISELESS = [
    "none",
    "clip",
    part("prune", prune_ratio=0.5),
    part("prune", prune_ratio=0.9),
    part("prune", prune_ratio=0.99, prune_scope="global"),
    part("topk", topk_ratio=0.01),
    part("clip+prune", prune_ratio=0.5),
    part("clip+prune", prune_ratio=0.9),
    part("noise", noise_std=0.0),
    part("clip+noise", noise_std=0.0),
    part("dp", eps_scope="release", noise_multiplier=1e-4),
    part("dp+prune", eps_scope="release", noise_multiplier=1e-4, prune_ratio=0.5),
]


@pytest.mark.parametrize("defence", NOISELESS, ids=lambda d: getattr(d, "name", d))
@pytest.mark.parametrize("batch_size", [1, 4])
def test_without_noise_everything_is_told(defence, batch_size):
    given = informed(defence, batch_size, trials=30)
    row = row_of(given)
    assert (row["success"], row["membership"]) == (1, 1)
    assert row["membership_high"] == 1
    drawn = parts.defence_of(given).repeatable
    assert row["trials"] == (30 if drawn else 10)
    assert row["membership_low"] == clopper_pearson(2 * row["trials"], 2 * row["trials"])[0]


BOUNDED = [
    part("dp", eps=1.0, eps_scope="release"),
    part("dp+prune", eps=1.0, eps_scope="release", prune_ratio=0.5),
    part("dp+prune", eps=1.0, eps_scope="release", prune_ratio=0.9),
    part("clip+noise", noise_std=0.5),
    part("clip+noise+prune", noise_std=0.5, prune_ratio=0.7),
]


@pytest.mark.parametrize("defence", BOUNDED, ids=lambda d: f"{d.name} {d.given.get('prune_ratio', '')}")
@pytest.mark.parametrize("batch_size", [1, 4])
def test_membership_stays_below_its_bound(defence, batch_size):
    """Version 0.1 was measured above it under dp+prune: .632, where .553 are possible."""
    given = informed(defence, batch_size, trials=200)
    row = row_of(given)
    below_the_bound(row, given)
    if defence.name.startswith("dp"):
        assert row["membership_bound"] == pytest.approx(0.5533, abs=1e-4)
    sigma = row["noise_multiplier"]
    assert row["membership_bound"] == pytest.approx(privacy.membership_bound(sigma), abs=1e-12)
    assert row["membership_bound"] == pytest.approx(
        torch.special.ndtr(torch.tensor(0.5 / sigma)).item(), abs=1e-6
    )
    if defence.name.startswith("clip"):
        assert sigma == 0.5 * batch_size


def test_membership_is_a_coin_at_no_budget_and_certain_at_a_large_one():
    low, high = (row_of(dp(eps, trials=100)) for eps in (0.01, 1000.0))
    assert abs(low["membership"] - 0.5) < 3 * 0.5 / math.sqrt(200)
    assert high["membership"] == 1


def test_membership_at_one_is_its_closed_form():
    """Right with chance Phi(||c|| / (2 sigma C)), and every gradient is clipped to C."""
    given, scene = dp(2.0, trials=300), small_scene()
    norms = clipped_gradients(scene.victim.model, scene.victim.loss, scene.others[0], scene.others[1], None)
    assert (norms.norm(dim=1) > 1).all()
    expected = privacy.reconstruction_bound(2 * privacy.noise_multiplier(2.0, 1e-5), kappa=0.5)
    found = row_of(given)
    assert found["membership_bound"] == pytest.approx(expected, abs=1e-6)
    assert abs(found["membership"] - expected) < 3 * math.sqrt(expected * (1 - expected) / 600)


def test_sampled_inclusion_stays_below_the_subsampled_bound():
    """And the guarantee of the row is that of (q, T), whose noise is less than that of certain inclusion."""
    for eps, q in ((1.0, 0.5), (8.0, 0.5), (50.0, 0.2)):
        given = dp(eps, trials=150, releases=4, inclusion=q)
        row = row_of(given)
        sigma = row["noise_multiplier"]
        assert sigma < privacy.noise_multiplier(eps, 1e-5, steps=4)
        assert sigma == privacy.noise_multiplier(eps, 1e-5, q, 4)
        assert row["eps_release"] == pytest.approx(eps, rel=2e-3)
        assert row["success_bound"] == privacy.reconstruction_bound(sigma, q, 4, 0.1)
        assert row["rero_release"] == row["success_bound"]  # ten candidates: the same prior
        assert row["success_bound"] < privacy.reconstruction_bound(sigma, 1, 4, 0.1)
        assert row["membership_bound"] == privacy.membership_bound(sigma, q, 4)
        assert row["membership_bound"] < privacy.membership_bound(sigma, 1, 4)
        assert row.get("eps_replace") is None
        below_the_bound(row, given)


BARELY_NOISY = [
    budget(None, noise_multiplier=0.05),
    part("dp+prune", eps_scope="release", noise_multiplier=0.01, prune_ratio=0.5),
    part("noise", noise_std=0.01),
    part("noise+prune", noise_std=0.001, prune_ratio=0.5),
    part("clip+noise", noise_std=0.01),
    part("clip+noise+prune", noise_std=0.001, prune_ratio=0.5),
]


@pytest.mark.parametrize(
    ("defence", "q"),
    [
        *((each, 0.5) for each in BARELY_NOISY),
        *((each, 0.25) for each in (BARELY_NOISY[0], BARELY_NOISY[-1])),
    ],
    ids=lambda d: getattr(d, "name", d),
)
def test_at_hardly_any_noise_success_is_the_chance_of_ever_being_in(defence, q):
    """For every chain that draws noise; version 0.1 refused all but dp and noise."""
    trials = 120
    given = informed(defence, trials=trials, releases=2, inclusion=q)
    row = row_of(given)
    ever = 1 - (1 - q) ** 2
    expected = ever + (1 - ever) / 10
    assert abs(row["success"] - expected) < 3 * math.sqrt(expected * (1 - expected) / trials)
    expected = (1 + ever) / 2
    assert abs(row["membership"] - expected) < 3 * math.sqrt(ever * (1 - ever) / trials) / 2 + 0.01


def test_the_release_does_not_give_away_who_is_in_it():
    """The coins have a stream of their own: at much noise and q = 0.1 membership is what its bound allows."""
    given = informed(budget(0.05), trials=200, inclusion=0.1, releases=2)
    row = row_of(given)
    assert row["membership_bound"] < 0.53
    below_the_bound(row, given)


def test_knowing_the_chance_of_inclusion_helps(monkeypatch):
    """The likelihood that takes the sample for present errs where its absence counts against it."""
    given = dp(20.0, trials=150, releases=6, inclusion=0.3)
    knowing = row_of(given)
    true = parts.attack_of
    certain = part("informed", trials=150, releases=6)
    monkeypatch.setattr(parts, "attack_of", lambda cell: true(replace(cell, threat=certain)))
    ignorant = row_of(given)
    assert knowing["success"] > ignorant["success"] - 0.02


def test_certain_inclusion_is_the_default_and_changes_nothing():
    given = dp(8.0, trials=50, releases=2)
    one, same = (row_of(each) for each in (given, dp(8.0, trials=50, releases=2, inclusion=1.0)))
    for name in ("success", "membership", "eps_release", "success_bound", "noise_multiplier", "eps_replace"):
        assert one[name] == same[name]
    assert given.release_seed() == dp(8.0, trials=50, releases=2, inclusion=0.5).release_seed()


def test_every_candidate_is_the_truth_equally_often(monkeypatch):
    given, seen = informed(part("noise", noise_std=0.1), trials=21, candidates=4), []
    true = type(threat(given))._release

    def watched(self, cell, scene, told, truth, trial):
        seen.append((truth, trial))
        return true(self, cell, scene, told, truth, trial)

    monkeypatch.setattr(threat_models["informed"], "_release", watched)
    row_of(given)
    truths = [truth for truth, _ in seen if truth is not None]
    assert [truths.count(i) for i in range(4)] == [6, 5, 5, 5]
    assert [truth for truth, _ in seen].count(None) == 21
    assert sorted(trial for truth, trial in seen if truth is not None) == list(range(21))


def test_where_nothing_is_drawn_each_truth_is_tried_once():
    """More trials would narrow the interval without new evidence; fewer are what was asked for."""
    few, once, more = (row_of(informed("sign", trials=trials, candidates=4)) for trials in (3, 4, 1000))
    assert (few["trials"], once["trials"]) == (3, 4)
    for name in ("trials", "success", "success_low", "success_high", "membership", "membership_low"):
        assert more[name] == once[name], name


def test_a_candidate_with_the_gradient_of_another_one_is_not_found():
    """Both look alike, so whoever picks the first one listed knows nothing."""
    scene = small_scene(1)
    others, labels = scene.others
    twin = (torch.cat([scene.images, others[:3]]), torch.cat([scene.labels, labels[:3]]))
    assert measure(informed(trials=1, candidates=5), replace(scene, others=twin)).rows[0]["success"] == 0
    distinct = replace(scene, others=(others[:4], labels[:4]))
    assert measure(informed(trials=1, candidates=5), distinct).rows[0]["success"] == 1


def test_a_batch_nobody_gave_others_for():
    with pytest.raises(InputError, match=r"needs candidates.*`others`"):
        measure(dp(1.0), replace(small_scene(), others=None))
