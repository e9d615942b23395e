"""The shrunk covariance against a plain loop, and what is learned where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from dpbench.audit.directions import learn, ledoit_wolf


@pytest.mark.parametrize(("n", "d"), [(30, 8), (6, 8)])
def test_ledoit_wolf_is_the_published_formula(n, d):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n, d)) * np.linspace(1, 3, d)
    sample = sum(np.outer(row, row) for row in rows) / n
    mean = np.trace(sample) / d
    dispersion = np.linalg.norm(sample - mean * np.eye(d)) ** 2 / d
    error = sum(np.linalg.norm(np.outer(row, row) - sample) ** 2 / d for row in rows) / n**2
    shrunk = min(error, dispersion) / dispersion * mean * np.eye(d)
    shrunk += (dispersion - min(error, dispersion)) / dispersion * sample
    np.testing.assert_allclose(ledoit_wolf(rows), shrunk)


def test_shrinkage_brings_the_covariance_nearer_to_the_truth_and_vanishes_with_many_rows():
    rng = np.random.default_rng(1)
    truth = np.diag(np.linspace(1, 4, 20))
    few, many = (rng.standard_normal((n, 20)) * np.sqrt(np.diag(truth)) for n in (25, 100_000))
    plain = few.T @ few / len(few)
    assert np.linalg.norm(ledoit_wolf(few) - truth) < 0.7 * np.linalg.norm(plain - truth)
    np.testing.assert_allclose(ledoit_wolf(many), many.T @ many / len(many), atol=5e-3)


def separation(score, absent, present):
    scores = score.of(absent), score.of(present)
    return abs(scores[1].mean() - scores[0].mean()) / (np.concatenate(scores).std() + 1e-300)


def worlds(seed, n=300, d=12):
    rng = np.random.default_rng(seed)
    canary = np.full(d, d**-0.5)
    return canary, rng.standard_normal((n, d)), rng.standard_normal((n, d)) + canary


def best(canary, learned, tried):
    scores = learn(*learned, canary)
    return max(scores, key=lambda score: separation(score, *tried)).name


def test_a_direction_without_noise_is_found():
    canary, *first = worlds(0)
    _, *second = worlds(1)
    for absent, present in (first, second):
        absent[:, 1] = absent[:, 0]  # the same noise twice
        present[:, 1] = present[:, 0] + 0.01
    scores = {score.name: separation(score, *second) for score in learn(*first, canary)}
    assert scores["whitened"] > 1.9 > 0.9 > scores["canary"]


def test_noise_that_depends_on_the_world_is_found():
    canary, *first = worlds(2)
    _, *second = worlds(3)
    for rows in (first[1], second[1]):
        rows *= 2
    assert best(canary, first, second) == "likelihood ratio"


def test_published_numbers_are_scores_where_they_vary():
    canary, *first = worlds(4)
    constant, varying = np.full((300, 1), 4.0), np.arange(300.0)[:, None]
    absent = np.hstack([first[0], constant, varying])
    present = np.hstack([first[1], constant, varying + 300])
    scores = [score for score in learn(absent, present, canary) if score.name == "published number"]
    assert len(scores) == 1
    np.testing.assert_array_equal(scores[0].of(present), present[:, -1])


def test_releases_without_any_noise_or_any_difference_give_finite_scores():
    canary = np.eye(5)[0]
    rows = np.tile(np.arange(5.0), (20, 1))
    for present in (rows, rows + canary):
        for score in learn(rows, present, canary):
            assert np.isfinite(score.of(present)).all()
