"""The update of several local steps: what is compared with it, and what comes back."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import attacks
from attacks.engine import steps
from attacks.engine.iteration import Iteration, State
from attacks.engine.local_steps import SLOW, Simulate, Surrogate, path_of, with_path
from attacks.engine.problem import Problem
from attacks.engine.runners import Inputs
from attacks.engine.schedule import Schedule
from attacks.objectives import Cosine, SquaredL2
from attacks.regularisers import TotalVariation
from dpbench.metrics.floors import noise_release
from dpbench.protocol import InputError, LocalTraining, Release
from tests.helpers.attacks import know, plain_release, psnr, smooth_images

LABELS = torch.tensor([2, 0, 3, 1])
LOCAL = LocalTraining(epochs=1, batch_size=2, lr=0.5)


def trained(model, images, labels, local):
    """A copy of the model after its local steps, as anybody would write them."""
    model = copy.deepcopy(model)
    for _ in range(local.epochs):
        for i in range(0, len(images), local.batch_size):
            rows = slice(i, i + local.batch_size)
            parameters = list(model.parameters())
            gradients = torch.autograd.grad(F.cross_entropy(model(images[rows]), labels[rows]), parameters)
            with torch.no_grad():
                for p, g in zip(parameters, gradients, strict=True):
                    p -= local.lr * g
    return model


def update(model, images, labels, local=LOCAL):
    after = trained(model, images, labels, local)
    count = local.steps(len(images))
    return Release.from_update(
        model,
        after,
        lr=local.lr,
        local_steps=count,
        batch_size=local.batch_size,
        images=len(images),
    )


def double(release):
    return replace(release, gradients=tuple(g.double() for g in release.gradients))


def problem_of(model, release, way="simulate", objective=None, regularisers=(), limit=None):
    told = know(model, LABELS[: release.batch_size], (3, 8, 8), 4)
    path = path_of(release, way)
    problem = Problem(told, release.gradients, objective or SquaredL2(), regularisers, limit=limit, path=path)
    return problem, path


@pytest.mark.parametrize("local", [(1, 1), (1, 2), (3, 2), (2, 3), (3, 4)], ids=str)
def test_the_simulation_of_the_originals_is_the_release(tiny, local):
    """Also where the last batch of an epoch has fewer images, and over several epochs."""
    tiny, images = tiny.double(), smooth_images(4).double()
    local = LocalTraining(*local, lr=0.5)
    release = double(update(tiny, images, LABELS, local))
    problem, path = problem_of(tiny, release)
    pixels = ((images - problem.mean) / problem.std).requires_grad_()
    assert isinstance(path, Simulate)
    assert float(problem.gradient([pixels], LABELS)[0]) < 1e-12  # what single precision left of the release
    single, _ = problem_of(tiny, release, "single-gradient")
    assert float(single.gradient([pixels], LABELS)[0]) > 1e-6


def test_the_simulation_takes_a_layer_that_stands_in_two_places():
    torch.manual_seed(0)
    layer, images = nn.Linear(192, 192), smooth_images(4).double()
    model = nn.Sequential(nn.Flatten(), layer, nn.Sigmoid(), layer, nn.Linear(192, 4)).double()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    release, names = double(update(model, images, LABELS, LOCAL)), [n for n, _ in model.named_parameters()]
    once = tuple(g for n, g in zip(release.names, release.gradients, strict=True) if n in names)
    problem, _ = problem_of(model, replace(release, names=tuple(names), gradients=once))
    pixels = ((images - problem.mean) / problem.std).requires_grad_()
    for _ in range(2):  # what the first run leaves behind would show in the second
        assert float(problem.gradient([pixels], LABELS)[0]) < 1e-12
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize("limit", [None, 2.0])
@pytest.mark.parametrize("way", ["simulate", "surrogate"])
def test_the_gradient_is_the_slope(tiny, way, limit):
    """Along images and alpha together, by central differences; a limit may change its length only."""
    tiny, images = tiny.double(), smooth_images(4).double()
    release = double(update(tiny, images, LABELS))
    problem, path = problem_of(tiny, release, way, Cosine(), [TotalVariation(0.01)], limit)
    generator = torch.Generator().manual_seed(1)
    start = with_path([torch.randn(images.shape, generator=generator, dtype=torch.float64)], path)
    start = [v + 0.3 for v in start]
    ways = [torch.randn(v.shape, generator=generator, dtype=torch.float64) for v in start]
    if limit is not None:  # alpha alone, which it leaves as it is
        ways[0] = torch.zeros_like(ways[0])

    def at(step):
        point = [(v + step * d).requires_grad_() for v, d in zip(start, ways, strict=True)]
        return problem.gradient(point, LABELS)

    slope = sum(float((g * d).sum()) for g, d in zip(at(0.0)[2], ways, strict=True))
    assert slope == pytest.approx(float(at(1e-5)[1] - at(-1e-5)[1]) / 2e-5, rel=1e-5, abs=1e-9)
    assert (slope != 0) == (limit is None or way == "surrogate")


def test_the_surrogate_is_a_gradient_on_the_way(tiny):
    """Of all images at (1 - alpha) before + alpha after, alpha being 1/2 at the start."""
    tiny, images = tiny.double(), smooth_images(4).double()
    release = update(tiny, images, LABELS)
    problem, path = problem_of(tiny, release, "surrogate")
    middle, after = copy.deepcopy(tiny), trained(tiny, images, LABELS, LOCAL)
    with torch.no_grad():
        for p, q in zip(middle.parameters(), after.parameters(), strict=True):
            p.lerp_(q, 0.5)
    other = smooth_images(8)[4:].double()
    wanted = plain_release(middle, other, LABELS).gradients
    pixels = ((other - problem.mean) / problem.std).requires_grad_()
    start = [v.requires_grad_() for v in with_path([pixels], path)]
    distance = sum((w - g).square().sum() for w, g in zip(wanted, release.gradients, strict=True))
    assert isinstance(path, Surrogate)
    assert float(problem.gradient(start, LABELS)[0]) == pytest.approx(float(distance), rel=1e-6)


@pytest.mark.parametrize("name", ["inverting-gradients", "dlg", "idlg"])
def test_one_local_step_is_a_gradient(tiny, name):
    """Whatever the way to match it: the answer is, to the last bit, that to the same gradient."""
    images = smooth_images(2)
    release = update(tiny, images, LABELS[:2], LocalTraining(epochs=1, batch_size=2, lr=0.5))
    expected = plain_release(tiny, images, LABELS[:2])
    for found, wanted in zip(release.gradients, expected.gradients, strict=True):
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-7)
    told = know(tiny, LABELS[:2], (3, 8, 8), 4)
    plain = replace(release, local=None)
    for way in ("simulate", "surrogate", "single-gradient"):
        attack = attacks.create(name, iterations=6, restarts=2, update=way)
        assert torch.equal(attack(release, told, seed=1).images, attack(plain, told, seed=1).images)


LEAST = {"iterations": 120, "restarts": 1}


@pytest.mark.parametrize("local", [(1, 1), (3, 2)], ids=str)
def test_simulation_recovers_what_one_gradient_does_not(tiny, local):
    """Two and three steps, at a rate that takes the later ones far from the weights that were sent out."""
    images, local = smooth_images(2), LocalTraining(*local, lr=0.3)
    release, told = update(tiny, images, LABELS[:2], local), know(tiny, LABELS[:2], (3, 8, 8), 4)
    found = {
        way: psnr(attacks.create("idlg", update=way, **LEAST)(release, told, seed=1).images, images)
        for way in ("simulate", "single-gradient")
    }
    assert found["simulate"] > 45
    assert found["single-gradient"] < 15


@pytest.mark.parametrize("way", ["simulate", "surrogate"])
def test_of_noise_nothing_is_recovered(tiny, way):
    """As an update: no better than grey."""
    images = smooth_images(2)
    release = noise_release(update(tiny, images, LABELS[:2], LocalTraining(3, 1, 0.3)), seed=5)
    assert release.local is not None
    told = know(tiny, LABELS[:2], (3, 8, 8), 4)
    found = attacks.create("inverting-gradients", update=way, **LEAST)(release, told, seed=1)
    assert psnr(found.images, images) < psnr(torch.full_like(images, 0.5), images)


def test_some_point_on_the_way_explains_the_release_better_than_its_start(tiny):
    """At the originals, of ten small steps; so there is something for the search of alpha to find."""
    images = smooth_images(4)
    release = update(tiny, images, LABELS, LocalTraining(epochs=10, batch_size=4, lr=0.005))
    problem, _ = problem_of(tiny, release, "surrogate", Cosine())
    pixels = (images - problem.mean) / problem.std
    distances = {}
    for alpha in (0.0, 0.25, 0.5, 0.75, 1.0):
        v = SLOW * torch.asin(torch.tensor(2 * alpha - 1))
        point = [pixels.clone().requires_grad_(), v.requires_grad_()]
        distances[alpha] = float(problem.gradient(point, LABELS)[0])
    assert min(distances, key=distances.get) in (0.25, 0.5)
    assert min(distances.values()) < distances[0.0] / 5


@pytest.mark.parametrize("way", ["simulate", "surrogate"])
def test_the_traced_iteration_is_the_plain_one(tiny, way, traces):
    """Compiled programs and graphs are made from this trace; here it runs as it is."""
    images = smooth_images(4)
    problem, path = problem_of(tiny, update(tiny, images, LABELS), way, Cosine(), [TotalVariation(0.01)])
    start = with_path([torch.rand(images.shape, generator=torch.Generator().manual_seed(1))], path)
    iteration = Iteration(problem, signed=False, betas=(0.9, 0.999))
    row = Schedule(torch.tensor([0.1])).rows(1, (0.9, 0.999), start[0])[0]
    inputs = Inputs(steps.tensors_of(iteration), State.at(start).flat(), row, LABELS, [])
    found, wanted = steps.compiled(iteration, inputs)(*inputs), steps.plain(iteration)(*inputs)
    for new, old in zip(found, wanted, strict=True):
        assert torch.allclose(new, old, rtol=1e-4, atol=1e-6)
    moved = State.unflat(found).variables
    assert len(moved) == 1 + path.searched
    assert all(not torch.equal(new, old) for new, old in zip(moved, start, strict=True))


def test_an_attack_on_a_gradient_refuses_an_update(tiny):
    release = update(tiny, smooth_images(4), LABELS)
    with pytest.raises(
        InputError, match=r"peel needs the gradient of one step, .* of 2 local steps: use inv"
    ):
        attacks.create("peel")(release, know(tiny, LABELS, (3, 8, 8), 4), seed=0)
