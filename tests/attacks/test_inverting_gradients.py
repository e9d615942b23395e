"""The two presets of Inverting Gradients, and what a nat of the prior weighs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import attacks
import defenses
from attacks import inverting_gradients
from attacks.base import Task, to_images
from attacks.engine import Schedule, search, step_decay
from attacks.engine.problem import Problem
from attacks.gaussian_prior import UNDEFENDED, nat_weight
from attacks.objectives import Cosine
from attacks.regularisers import TotalVariation
from dpbench.data import image_statistics, load_data
from dpbench.protocol import Release, Stage
from dpbench.victim import load
from tests.helpers.attacks import know, noise_release, photograph, plain_release, psnr, smooth_images

LABELS = torch.tensor([2])


@pytest.fixture(scope="module")
def statistics():
    """Of 200 images as smooth as the attacked one, which is not among them."""
    coarse = torch.rand(200, 3, 3, 3, generator=torch.Generator().manual_seed(7))
    images = torch.nn.functional.interpolate(coarse, 8, mode="bilinear", align_corners=True)
    return image_statistics.fit((255 * images).round().byte(), images.mean(0))


@pytest.fixture
def told(tiny, statistics):
    return know(tiny, LABELS, (3, 8, 8), 4, image_statistics=statistics)


def under(stages, norm=3.0, size=40_000, batch_size=1, **more):
    """A release of the given norm under defence `stages`."""
    gradient = torch.randn(size, generator=torch.Generator().manual_seed(0))
    return Release(("w",), (norm * gradient / gradient.norm(),), batch_size, stages, **more)


def test_the_published_preset_is_the_published_search(tiny, told):
    """Pixels, signed Adam, step decay and total variation, as they were before there were presets."""
    images = smooth_images(1)
    release = plain_release(tiny, images, LABELS)
    found = attacks.create("inverting-gradients", preset="paper", iterations=40)(release, told, seed=3)
    start = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    problem = Problem(told, release.gradients, Cosine(), [TotalVariation(0.03)])
    expected = search(problem, [[start]], LABELS, Schedule(step_decay(0.1, 40)), signed=True).found[0]
    assert torch.equal(found.images, to_images(expected.variables[0], told))
    assert found.gradient_distance == expected.distance
    assert found.note == ""


@pytest.mark.parametrize("preset", ["paper", "tuned"])
def test_a_search_sets_out_from_the_guess_it_is_given(preset, tiny, told):
    """In whatever variables it searches."""
    guess = 0.2 + 0.6 * smooth_images(1)
    release, generator = plain_release(tiny, smooth_images(1), LABELS), torch.Generator().manual_seed(0)
    task = Task(release, told, generator, torch.device("cpu"), lambda *_: None, 0.0, guess)
    found = attacks.create("inverting-gradients", preset=preset, iterations=1, learning_rate=1e-6).run(task)
    assert torch.allclose(found.start, guess, atol=1e-5)
    assert torch.allclose(found.images, guess, atol=1e-4)


def test_the_prior_helps_where_gradients_are_few(tiny, told):
    """Of a pruned gradient the tuned search rebuilds more than without its prior, and than `paper` does."""
    images = smooth_images(1)
    release = plain_release(tiny, images, LABELS)
    kept = tuple(g * (g.abs() >= g.abs().flatten().quantile(0.95)) for g in release.gradients)
    release = replace(release, gradients=kept, defense=(Stage("prune", {"prune_ratio": 0.95}),))

    def score(**given):
        attack = attacks.create("inverting-gradients", iterations=300, **given)
        return psnr(attack(release, told, seed=1).images, images)

    tuned = score()
    assert tuned > score(prior_weight=0.0) + 3
    assert tuned > score(preset="paper") + 3


def test_the_tuned_preset_inverts_a_tiny_net(tiny, told):
    images = smooth_images(1)
    found = attacks.create("inverting-gradients", iterations=300)(
        plain_release(tiny, images, LABELS), told, seed=1
    )
    assert psnr(found.images, images) > 30


@pytest.mark.parametrize("noise_multiplier", [1.0, 30.0])
def test_under_heavy_noise_the_answer_is_the_mean_image(tiny, told, noise_multiplier):
    images = smooth_images(1)
    plain = plain_release(tiny, images, LABELS)
    norm = math.sqrt(sum(float(g.square().sum()) for g in plain.gradients))
    generator = torch.Generator().manual_seed(5)
    noisy = tuple(
        g / norm + noise_multiplier * torch.randn(g.shape, generator=generator) for g in plain.gradients
    )
    stage = Stage("dp", {"noise_multiplier": noise_multiplier, "max_grad_norm": 1.0})
    release = replace(plain, gradients=noisy, defense=(stage,))
    floor = psnr(told.image_statistics.mean_image[None], images)
    found = attacks.create("inverting-gradients", iterations=300)(release, told, seed=1)
    assert psnr(found.images, images) > floor - 0.3
    naive = attacks.create("inverting-gradients", iterations=300, adaptive=False)(release, told, seed=1)
    assert psnr(naive.images, images) < floor - 3


def test_undefended_noise_is_not_inverted(tiny, told):
    images = smooth_images(1)
    release = noise_release(plain_release(tiny, images, LABELS))
    found = attacks.create("inverting-gradients", iterations=300)(release, told, seed=1)
    assert psnr(found.images, images) <= psnr(told.image_statistics.mean_image[None], images) + 1


def test_without_statistics_it_says_so_and_uses_total_variation(tiny, told):
    images = smooth_images(1)
    release, attack = plain_release(tiny, images, LABELS), attacks.create("inverting-gradients", iterations=5)
    other_size = replace(told.image_statistics, mean_image=torch.zeros(3, 4, 4))
    answers = [attack(release, replace(told, image_statistics=known), seed=0) for known in (None, other_size)]
    assert all("total variation" in found.note for found in answers)
    assert attack(release, told, seed=0).note == ""
    without = attacks.create("inverting-gradients", iterations=5, prior_weight=0.0, tv=0.003)
    assert torch.equal(answers[0].images, without(release, told, seed=0).images)


def test_a_nat_weighs_what_the_defence_makes_it_weigh():
    assert nat_weight(under(())) == UNDEFENDED
    assert nat_weight(under((Stage("clip", {"max_grad_norm": 1.0}),))) == UNDEFENDED
    dp = Stage("dp", {"noise_multiplier": 0.5, "max_grad_norm": 2.0})
    # noise of norm 200 hides the gradient, whose norm is then taken for C: sigma^2 C^2 / (C |g|)
    assert nat_weight(under((dp,), norm=200.0)) == pytest.approx(1.0 / (2.0 * 200.0))
    # of a batch of four the noise on the mean is a quarter
    assert nat_weight(under((dp,), norm=50.0, batch_size=4)) == pytest.approx(0.0625 / (2.0 * 50.0))
    # noise of norm 2 beneath |g| = 3: the gradient's own norm is sqrt(9 - 4)
    noise = Stage("noise", {"noise_std": 0.01})
    assert nat_weight(under((noise,))) == pytest.approx(1e-4 / (math.sqrt(5.0) * 3.0), rel=1e-5)
    # the mean of four releases has half the noise
    four = under((noise,))
    four = replace(four, repeats=(four.gradients,) * 4)
    assert nat_weight(four) == pytest.approx(0.25e-4 / (math.sqrt(8.0) * 3.0), rel=1e-5)
    assert nat_weight(under((Stage("noise", {"noise_std": 1e-7}),))) == UNDEFENDED


def test_a_nat_weighs_more_the_fewer_entries_pruning_keeps():
    full = under(())
    pruned = torch.where(torch.arange(40_000) < 400, full.gradients[0], 0.0)
    release = replace(full, gradients=(pruned,), defense=(Stage("prune", {"prune_ratio": 0.99}),))
    assert nat_weight(release) == pytest.approx(10 * UNDEFENDED)


def test_small_entries_count_only_where_they_are_right(tiny, told, monkeypatch):
    """Softened where errors are small, and told; the plain cosine elsewhere, for an attack that knows."""
    images = smooth_images(1)
    plain = plain_release(tiny, images, LABELS)
    softened = []

    class Seen(inverting_gradients.Softened):
        def __init__(self, objective):
            softened.append(True)
            super().__init__(objective)

    monkeypatch.setattr(inverting_gradients, "Softened", Seen)

    def is_softened(*stages, knowledge=told, gradients=plain.gradients, **given):
        softened.clear()
        attack = attacks.create("inverting-gradients", engine="eager", iterations=2, **given)
        attack(replace(plain, gradients=gradients, defense=stages), knowledge, seed=1)
        return bool(softened)

    def pruned(share):
        kept = [g * (g.abs() >= g.abs().flatten().quantile(share)) for g in plain.gradients]
        return is_softened(Stage("prune", {"prune_ratio": share}), gradients=tuple(kept))

    rounded = Stage("quantize", {"quantize_bits": 4})
    assert is_softened()
    assert is_softened(Stage("clip", {"max_grad_norm": 1.0}))
    assert is_softened(rounded, adaptive=False)
    assert not is_softened(rounded)
    assert is_softened(Stage("quantize", {"quantize_bits": 1}))
    assert is_softened(Stage("percentile", {"percentile": 10.0, "percentile_gamma": 0.01}))
    loud = Stage("noise", {"noise_std": 1.0})
    assert not is_softened(loud, Stage("percentile", {"percentile": 10.0, "percentile_gamma": 0.01}))
    assert is_softened(Stage("outpost", {"outpost_noise": 8.0}))
    assert not is_softened(Stage("outpost", {"outpost_noise": 0.8}))
    assert is_softened(Stage("censor", {"censor_trials": 1}))
    assert not is_softened(preset="paper")
    assert not is_softened(knowledge=replace(told, image_statistics=None))
    assert pruned(0.5)
    assert not pruned(0.9)
    assert is_softened(Stage("noise", {"noise_std": 1e-5}))
    assert not is_softened(Stage("noise", {"noise_std": 1.0}))
    kind = attacks.kind("inverting-gradients")
    assert kind.adapts(["quantize"], {})
    assert not kind.adapts(["clip"], {})
    assert not kind.adapts(["clip", "censor"], {})
    assert not kind.adapts(["quantize"], {"preset": "paper"})


def test_rounding_is_weighed_against_the_prior():
    """Four bits, one photograph: without the weight of its noise the search fits the rounding."""
    model = load("convnet", "none", "early", None, load_data("samples"), 32).model
    images, labels = photograph(2)
    chain = defenses.create("quantize", quantize_bits=4)
    release = chain.release(model, F.cross_entropy, images, labels, seed=0)
    knowledge = know(model, labels, image_statistics=load_data("samples").statistics)
    told, blind = (
        attacks.create("inverting-gradients", iterations=200, adaptive=on)(release, knowledge, seed=0)
        for on in (True, False)
    )
    assert psnr(told.images, images) > psnr(blind.images, images) + 1.5
