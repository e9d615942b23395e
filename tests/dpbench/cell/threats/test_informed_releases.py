"""The releases of an informed attacker's trials: who is in them, and whose noise they have."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import norm

from dpbench.cell.candidates import draw_candidates
from dpbench.cell.spec import Cell
from dpbench.protocol import Factorisation, InputError
from tests.helpers.cells import part, small_scene
from tests.helpers.informed import dp, informed, row_of, threat


def releases_of(given: Cell, truth: int | None, trials: int):
    """The releases of an informed attacker's trials, and what it is told."""
    scene, attacker = small_scene(given.batch.batch_size), threat(given)
    told = draw_candidates(
        scene.victim.model, scene.victim.loss, scene.images, scene.labels, scene.others, 3, 1.0, 0
    )
    return told, [attacker._release(given, scene, told, truth, trial) for trial in range(trials)]


def test_a_sample_is_in_each_release_with_its_chance_and_else_was_never_in():
    given = dp(None, noise=1e-5, batch_size=3, releases=5, inclusion=0.3)
    told, made = releases_of(given, 0, 60)
    states = []
    for release in made:
        assert release.batch_size == 3
        for gradients in release.each:
            sums = torch.cat([g.flatten() for g in gradients]) * 3 - told.known
            distances = [float(sums.norm()), float((sums - told.gradients[0]).norm())]
            assert min(distances) < 0.01
            states.append(distances[1] < 0.01)
    assert abs(sum(states) / 300 - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 300)


def test_nobody_is_in_the_releases_of_the_other_world():
    told, made = releases_of(dp(None, noise=1e-5, batch_size=3, releases=2), None, 3)
    for release in made:
        for gradients in release.each:
            sums = torch.cat([g.flatten() for g in gradients]) * 3
            torch.testing.assert_close(sums, told.known, rtol=0, atol=1e-3)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("truth", [0, None])
def test_what_was_pruned_says_nothing_in_either_world(batch_size, truth):
    """Version 0.1 took the absent sample off after pruning, and so left it behind where all else was zero."""
    defence = part("dp+prune", eps_scope="release", noise_multiplier=1.0, prune_ratio=0.5)
    _, made = releases_of(informed(defence, batch_size, releases=2, inclusion=0.5), truth, 3)
    for release in made:
        for weight, bias in release.each:
            assert int((weight == 0).sum()) >= 480
            assert int((bias == 0).sum()) >= 2


def test_both_worlds_and_all_trials_have_noise_of_their_own():
    given = dp(None, noise=1.0, batch_size=3, releases=2, inclusion=0.5)
    streams = []
    for truth in (0, None):
        told, made = releases_of(given, truth, 4)
        for release in made:
            for gradients in release.each:
                sums = torch.cat([g.flatten() for g in gradients]) * 3 - told.known
                streams.append(sums.double())
    streams = torch.stack(streams)
    streams = (streams - streams.mean(1, keepdim=True)) / streams.std(1, keepdim=True)
    found = streams @ streams.T / streams.shape[1]
    # the sample itself is a part of the releases that it is in, of norm 1 beside noise of norm sqrt(P)
    assert float((found - torch.eye(len(found))).abs().max()) < 5 / math.sqrt(streams.shape[1])


@pytest.mark.parametrize("bands", [1, 4])
def test_bounds_know_that_noise_is_correlated(bands):
    """Noise that later releases take back hides less of a sample that is in all of them."""
    given = informed(
        part("dp-ftrl", noise_multiplier=2.0, eps=None, eps_scope="release", bands=bands),
        releases=4,
        candidates=2,
        trials=2,
    )
    row = row_of(given)
    far = Factorisation(4, bands).sensitivity() / 2.0
    assert row["success_bound"] == pytest.approx(norm.cdf(norm.ppf(0.5) + far))
    assert row["membership_bound"] == pytest.approx(norm.cdf(far / 2))
    assert (far > 1.2) == (bands > 1)  # of independent noise it is 1


def test_releases_keep_their_order():
    """The first one of dp-ftrl has a draw of noise of its own, the last one parts of earlier draws, too."""
    defence = part("dp-ftrl", noise_multiplier=1.0, eps=None, eps_scope="release")
    told, made = releases_of(informed(defence, 3, releases=6), None, 4)
    first, last = (
        torch.stack([torch.cat([g.flatten() for g in r.each[t]]) * 3 - told.known for r in made]).std()
        for t in (0, -1)
    )
    assert float(first) == pytest.approx(1, rel=0.05)
    assert float(last) > 1.08


def test_releases_that_depend_on_earlier_ones_are_not_sampled():
    defence = part("dp+topk", noise_multiplier=1.0, eps=None, eps_scope="release")
    with pytest.raises(InputError, match="depend on earlier ones: use `inclusion` 1"):
        row_of(informed(defence, releases=2, inclusion=0.5, candidates=2, trials=2))
    row = row_of(informed(defence, releases=2, candidates=2, trials=2))
    assert row["success_bound"] == pytest.approx(norm.cdf(math.sqrt(2)))
