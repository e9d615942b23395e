"""The Gauss-Newton steps at the end of a search."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import attacks
from attacks.engine.local_steps import path_of
from attacks.engine.problem import Problem
from attacks.engine.search import Found, Outcome
from attacks.engine.variables import Frequencies
from attacks.finish import COUNT, finished, unfit
from attacks.gaussian_prior import GaussianPrior
from attacks.masked import Masked
from attacks.objectives import Cosine, LayerL2, SoftClamp
from attacks.regularisers import TotalVariation
from defenses.local_training import mean_of_steps
from dpbench.data import image_statistics
from dpbench.protocol import LocalTraining, Release, Stage
from tests.helpers.attacks import know, plain_release, psnr, smooth_images

LABELS = torch.tensor([2])


@pytest.fixture(scope="module")
def statistics():
    coarse = torch.rand(200, 3, 3, 3, generator=torch.Generator().manual_seed(7))
    images = nn.functional.interpolate(coarse, 8, mode="bilinear", align_corners=True)
    return image_statistics.fit((255 * images).round().byte(), images.mean(0))


@pytest.fixture
def told(tiny, statistics):
    return know(tiny, LABELS, (3, 8, 8), 4, image_statistics=statistics)


@pytest.fixture
def problem(tiny, told):
    """The tuned search's, near its answer, and the point there."""
    images = smooth_images(1)
    variables = Frequencies(told.mean, told.std, 8, 8)
    prior = GaussianPrior(1e-8, told.image_statistics, told.mean, told.std)
    made = Problem(told, plain_release(tiny, images, LABELS).gradients, Cosine(), [prior], variables)
    mean, std = (torch.tensor(values)[:, None, None] for values in (told.mean, told.std))
    near = images + 0.05 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return made, variables.inverse((near - mean) / std)


def outcome(problem, point):
    distance, total, _ = problem.gradient([point.clone().requires_grad_()], LABELS)
    found = Found([point], float(distance), float(total), [point], (float(total),), (7,))
    return Outcome((found,), "eager", 0.0, 7)


def test_few_steps_gain_many_decibels_near_the_answer(problem, told):
    problem, point = problem
    before = outcome(problem, point)
    after, said = finished(before, problem, LABELS, 90)
    assert said == ""
    assert after.found[0].total < 1e-2 * before.found[0].total
    assert after.iterations in range(7 + COUNT, 7 + 91)
    assert after.found[0].history[-1] == after.found[0].total
    assert after.found[0].steps == (7, after.iterations)
    distance, total, _ = problem.gradient([after.found[0].variables[0].requires_grad_()], LABELS)
    assert (float(distance), float(total)) == (after.found[0].distance, after.found[0].total)


@pytest.mark.parametrize("objective", [Cosine(), "masked"])
def test_residuals_are_what_the_objective_sums(objective):
    generator = torch.Generator().manual_seed(1)
    trial, target = ([torch.randn(s, generator=generator) for s in ((3, 2), (4,))] for _ in range(2))
    if objective == "masked":
        objective = Masked(Cosine(), [torch.tensor([[1.0, 0], [0, 1], [1, 1]]), torch.ones(4)])
        target = [t * m for t, m in zip(target, objective.masks, strict=True)]
    total = sum(float(r.square().sum()) for r in objective.residuals(trial, target))
    assert total / 2 == pytest.approx(float(objective(trial, target)[0]), rel=1e-5)


def test_residuals_of_the_prior_are_what_it_sums(told):
    prior = GaussianPrior(0.3, told.image_statistics, told.mean, told.std)
    z = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    assert float(prior.residuals(z).square().sum()) / 2 == pytest.approx(float(prior(z)), rel=1e-5)


def test_only_sums_of_squares_have_such_steps(problem, told, tiny):
    problem, _ = problem
    assert not unfit(problem)
    release = plain_release(tiny, smooth_images(1), LABELS)
    masks = [torch.ones_like(g) for g in release.gradients]

    def made(objective, *regularisers):
        return Problem(told, release.gradients, objective, regularisers)

    assert not unfit(made(Masked(Cosine(), masks)))
    assert unfit(made(Masked(LayerL2(), masks)))
    assert unfit(made(SoftClamp(Cosine(), None)))
    assert unfit(made(Cosine(), TotalVariation(0.1)))
    assert unfit(made(None))


def updated(model, images, local):
    """A release of what a client's local training makes of the weights."""
    names = tuple(name for name, _ in model.named_parameters())
    gradients = mean_of_steps(copy.deepcopy(model), F.cross_entropy, images, LABELS, local)
    return Release(names, gradients, len(images), local=local)


class Rectified(nn.Module):
    """Two convolutions with ReLU, 8 px, 4 classes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, 2, padding=1)
        self.fc = nn.Linear(256, 4)

    def forward(self, x):
        return self.fc(torch.relu(self.second(torch.relu(self.first((x - 0.5) / 0.25)))).flatten(1))


def test_an_update_that_is_simulated_is_a_sum_of_squares_and_a_surrogate_is_not(told, tiny):
    release = updated(tiny, smooth_images(1), LocalTraining(3, 1, 0.1))
    made = [
        Problem(told, release.gradients, Cosine(), path=path_of(release, way))
        for way in ("simulate", "surrogate")
    ]
    simulated, surrogate = map(unfit, made)
    assert not simulated
    assert "`update` surrogate" in surrogate


def test_the_steps_lead_an_update_on_where_units_switch(statistics):
    model, images = Rectified(), smooth_images(1)
    told = know(model, LABELS, (3, 8, 8), 4, image_statistics=statistics)
    release = updated(model, images, LocalTraining(3, 1, 0.05))

    def searched(share):
        attack = attacks.create("inverting-gradients", engine="eager", iterations=300, finish=share)
        return attack(release, told, seed=1)

    plain, ended = searched(0.0), searched(0.5)
    assert ended.note == ""
    assert psnr(ended.images, images) > psnr(plain.images, images) + 3
    assert ended.gradient_distance < plain.gradient_distance


def test_what_does_no_better_is_not_taken(problem, monkeypatch):
    problem, point = problem
    before = outcome(problem, point)
    monkeypatch.setattr("attacks.finish._descend", lambda *_: ((point + 1).flatten(), 30))
    after, _ = finished(before, problem, LABELS, 30)
    assert after.found == before.found
    assert after.iterations == before.iterations + 30


def test_without_a_third_derivative_the_search_stands_and_says_so(problem, monkeypatch):
    problem, point = problem
    before = outcome(problem, point)

    def underivable(*_):
        raise RuntimeError("derivative for aten::something is not implemented")

    monkeypatch.setattr("attacks.finish.linearised", underivable)
    after, said = finished(before, problem, LABELS, 60)
    assert after.found[0] is before.found[0]
    assert after.iterations == before.iterations
    assert said.startswith(
        "Gauss-Newton steps at the end were left out for 1 starts: derivative for aten::something"
    )

    def broken(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("attacks.finish.linearised", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        finished(before, problem, LABELS, 60)


def test_a_model_of_one_layer_keeps_that_layer(statistics):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    told = know(model, LABELS, (3, 8, 8), 4, image_statistics=statistics)
    images = smooth_images(1)
    problem = Problem(told, plain_release(model, images, LABELS).gradients, Cosine())
    point = torch.zeros(1, 3, 8, 8)
    after, _ = finished(outcome(problem, point), problem, LABELS, 60)
    assert after.found[0].total < 1e-3


def test_the_search_ends_with_them_and_counts_their_iterations(tiny, told):
    images = smooth_images(1)
    release, told_of = plain_release(tiny, images, LABELS), []

    def searched(**given):
        attack = attacks.create("inverting-gradients", engine="eager", **given)
        return attack(release, told, seed=1, progress=lambda done, total, _: told_of.append((done, total)))

    found = searched(iterations=200, finish=0.3, restarts=2)
    assert 2 * 140 < found.iterations <= 2 * 200
    assert told_of[-1] == (400, 400)
    assert {total for _, total in told_of} == {400}
    ended, plain = (searched(iterations=100, finish=share).images for share in (0.5, 0.0))
    assert psnr(ended, images) > psnr(plain, images) + 2
    # too few for a step, or no sum of squares: all iterations are Adam's
    assert searched(iterations=100, finish=0.2).iterations == 100
    assert searched(iterations=200, preset="paper").iterations == 200
    signs = replace(release, defense=(Stage("sign", {}),))
    signed = attacks.create("inverting-gradients", iterations=200, engine="eager")(signs, told, seed=1)
    assert signed.iterations == 200


@pytest.mark.parametrize(("ratio", "taken"), [(0.9, True), (0.99, False)])
def test_where_the_prior_decides_they_are_taken_only_if_asked_for(tiny, told, ratio, taken):
    release = plain_release(tiny, smooth_images(1), LABELS)
    size = sum(g.numel() for g in release.gradients)
    flat = torch.cat([g.flatten() for g in release.gradients])
    least = flat.abs().topk(round((1 - ratio) * size)).values[-1]
    kept = tuple(g * (g.abs() >= least) for g in release.gradients)
    release = replace(release, gradients=kept, defense=(Stage("prune", {"prune_ratio": ratio}),))
    problem = Problem(told, kept, Cosine())
    attack = attacks.create("inverting-gradients", iterations=200)
    assert attack.last(problem, release) == (40 if taken else 0)
    assert attacks.create("inverting-gradients", iterations=200, finish=0.2).last(problem, release) == 40
    assert attacks.create("inverting-gradients", iterations=200, adaptive=False).last(problem, release) == 40


def test_networks_with_batch_norm_have_none_unless_asked_for(normed, statistics):
    told = know(normed, LABELS, (3, 8, 8), 4, image_statistics=statistics)
    release = plain_release(normed, smooth_images(1), LABELS)
    problem = Problem(told, release.gradients, Cosine())
    assert attacks.create("inverting-gradients", iterations=200).last(problem, release) == 0
    assert attacks.create("inverting-gradients", iterations=200, finish=0.2).last(problem, release) == 40
