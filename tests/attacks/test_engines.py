"""The compiled iteration against the plain one, and the plain one against autograd without closed forms."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attacks.engine import Schedule, programs, search, steps
from attacks.engine.iteration import Iteration, State
from attacks.engine.problem import Problem
from attacks.engine.runners import Inputs
from attacks.engine.variables import Frequencies
from attacks.engine.watch import watching
from attacks.held import WithFeatures
from attacks.masked import Masked
from attacks.objectives import Cosine, FittedScale, LayerL2, MatchedNorm, Objective, Scaled, SquaredL2
from attacks.regularisers import L2, BatchNormStatistics, GroupConsistency, TotalVariation
from attacks.softened import Softened
from dpbench.data.channels import CIFAR10_MEAN, CIFAR10_STD
from dpbench.protocol import Knowledge
from dpbench.victim.networks import FrozenBatchNorm2d
from tests.helpers.attacks import plain_release


class Normed(nn.Module):
    """Two convolutions with frozen batch norm, smooth, 8 px."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), FrozenBatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, stride=2, padding=1), FrozenBatchNorm2d(4)
        self.fc = nn.Linear(4 * 16, 4)

    def forward(self, x):
        h = torch.tanh(self.bn1(self.conv1(x)))
        return self.fc(torch.tanh(self.bn2(self.conv2(h))).flatten(1))


@pytest.fixture(autouse=True)
def _no_programs():
    programs.forget()
    yield
    programs.forget()


def cosine(a, b):
    return 1 - F.cosine_similarity(a, b, dim=0)


def masks(target):
    return [(t > 0).to(t.dtype) for t in target]


def pairs(trial, target):
    return list(zip(trial, target, strict=True))


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors])


def softened(tensors):
    return torch.cat([(t / (t**2 + t.square().mean()).sqrt()).flatten() for t in tensors])


DELTAS = torch.tensor([[0.3, -0.8, 0.1, 0.4], [0.02, 0.03, 0.01, -0.06]])


def told_apart(gradients):
    """With the features that the last weight's gradient is made of, if `DELTAS` are the loss gradients."""
    return torch.cat([flat(gradients), flat(torch.linalg.pinv(DELTAS.double().T) @ gradients[-2])])


OBJECTIVES = {
    "squared": (lambda t: SquaredL2(), lambda g, t: (flat(g) - flat(t)).square().sum()),
    "layer-l2": (lambda t: LayerL2(0.3), lambda g, t: 0.3 * sum((a - b).norm() for a, b in pairs(g, t))),
    "relative": (
        lambda t: LayerL2(0.3, relative=True),
        lambda g, t: 0.3 * sum((a - b).norm() / b.norm() for a, b in pairs(g, t)) / len(t),
    ),
    "cosine": (lambda t: Cosine(), lambda g, t: cosine(flat(g), flat(t))),
    "softened": (lambda t: Softened(Cosine()), lambda g, t: cosine(*(softened(part) for part in (g, t)))),
    "features": (
        lambda t: WithFeatures(Cosine(), len(t) - 2, DELTAS.to(t[0])),
        lambda g, t: cosine(told_apart(g), told_apart(t)),
    ),
    "scaled": (lambda t: Scaled(Cosine(), 0.3), lambda g, t: 0.3 * cosine(flat(g), flat(t))),
    "fitted": (
        lambda t: FittedScale(),
        lambda g, t: flat(t) @ flat(t) - (flat(g) @ flat(t)) ** 2 / (flat(g) @ flat(g)),
    ),
    "matched-norm": (
        lambda t: MatchedNorm(LayerL2(0.3)),
        lambda g, t: 0.3 * sum((flat(t).norm() / flat(g).norm() * a - b).norm() for a, b in pairs(g, t)),
    ),
    "masked": (
        lambda t: Masked(SquaredL2(), masks(t)),
        lambda g, t: ((flat(g) - flat(t)) * flat(masks(t))).square().sum(),
    ),
}


def statistics(model, images):
    with torch.no_grad(), watching(model) as seen:
        model(images)
    return [(x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)) for x in seen]


def penalty(model, images, z, told, consensus):
    """All regularisers, written once more and naively."""
    with watching(model) as seen:
        model(images)
    terms = []
    for x, (mean, variance) in zip(seen, told, strict=True):
        means = x.mean((0, 2, 3)) - mean
        variances = ((x - x.mean((0, 2, 3), keepdim=True)) ** 2).mean((0, 2, 3)) - variance
        terms.append((means.norm(), variances.norm(), mean.norm(), variance.norm()))
    absolute = sum(a + b for a, b, _, _ in terms)
    relative = sum(a / c + b / d for a, b, c, d in terms) / len(terms)
    tv = (z[:, :, 1:] - z[:, :, :-1]).abs().mean() + (z[..., 1:] - z[..., :-1]).abs().mean()
    return (
        0.1 * tv
        + 0.2 * (z * z).mean()
        + 0.3 * absolute
        + 0.4 * relative
        + 0.05 * (z - consensus).square().sum().sqrt()
    )


def scene(dtype, seed=0, labels=(1, 3)):
    """Drawn in float64, so that float32 has the same numbers."""
    model = Normed(seed).double()
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, 3, 8, 8, generator=generator, dtype=torch.float64)
    z, consensus = (torch.randn(images.shape, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.tensor(labels)
    told = [(m.to(dtype), v.to(dtype)) for m, v in statistics(model, images)]
    target = [g.to(dtype) for g in plain_release(model, images, labels).gradients]
    regularisers = [
        *(TotalVariation(0.1), L2(0.2), BatchNormStatistics(0.3, told)),
        *(BatchNormStatistics(0.4, told, relative=True), GroupConsistency(0.05, consensus.to(dtype))),
    ]
    model = model.to(dtype)
    knowledge = Knowledge(model, F.cross_entropy, (3, 8, 8), 4, CIFAR10_MEAN, CIFAR10_STD, labels)
    return knowledge, target, regularisers, z.to(dtype), labels, told, consensus


def relative_error(found, truth):
    return float((found.double() - truth.double()).norm() / truth.double().norm())


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float32, 1e-3)])
def test_the_plain_iteration_is_autograds(name, dtype, tolerance):
    """Every objective together with every regulariser; the reference is computed in float64."""
    make, reference = OBJECTIVES[name]
    prune = (lambda t: [g.clamp_min(0) for g in t]) if name == "masked" else list
    knowledge, target, regularisers, z, labels, *_ = scene(dtype)
    target = prune(target)
    _, total, gradients = Problem(knowledge, target, make(target), regularisers).gradient(
        [z.requires_grad_()], labels
    )

    knowledge, target, _, z, labels, told, consensus = scene(torch.float64)
    z.requires_grad_()
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (CIFAR10_MEAN, CIFAR10_STD))
    images, model = z * std + mean, knowledge.model
    loss = F.cross_entropy(model(images), labels)
    trial = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    whole = reference(trial, prune(target)) + penalty(model, images, z, told, consensus)
    assert float(total) == pytest.approx(whole.item(), rel=10 * tolerance)
    assert relative_error(gradients[0], torch.autograd.grad(whole, z)[0]) < tolerance


class Sum(Objective):
    """Several objectives in one program."""

    def __init__(self, objectives):
        super().__init__()
        self.objectives = nn.ModuleList(objectives)

    def forward(self, trial, target):
        values, cotangents = zip(*(objective(trial, target) for objective in self.objectives), strict=True)
        return sum(values), [sum(same) for same in zip(*cotangents, strict=True)]


def parts(dtype, names, seed=0, labels=(1, 3), variables=None, limit=None):
    """An iteration with these objectives and all regularisers, its tensors, state, row, labels and noise."""
    knowledge, target, regularisers, z, labels, *_ = scene(dtype, seed, labels)
    objectives = [OBJECTIVES[name][0](target) for name in names]
    problem = Problem(knowledge, target, Sum(objectives), regularisers, variables, limit=limit)
    iteration = Iteration(problem, signed=False, betas=(0.9, 0.999))
    row = Schedule(torch.tensor([0.1]), langevin=0.2).rows(len(regularisers), (0.9, 0.999), z)[0]
    return iteration, steps.tensors_of(iteration), State.at([z]).flat(), row, labels, [torch.ones_like(z)]


def agree(dtype, names, tolerance, variables=None, limit=None):
    iteration, *inputs = parts(dtype, names, variables=variables, limit=limit)
    step = steps.compiled(iteration, Inputs(*inputs))
    for seed, labels in ((0, (1, 3)), (1, (2, 2))):
        iteration, *inputs = parts(dtype, names, seed, labels, variables, limit)
        found, truth = State.unflat(step(*inputs)), State.unflat(steps.plain(iteration)(*inputs))
        for name in ("variables", "first", "second", "best", "gradient"):
            assert relative_error(getattr(found, name)[0], getattr(truth, name)[0]) < tolerance, name
        assert float(found.total) == pytest.approx(float(truth.total), rel=tolerance)
        assert float(found.distance) == pytest.approx(float(truth.distance), rel=tolerance)


PRECISIONS = [(torch.float64, 1e-5), (torch.float32, 1e-3)]


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_the_traced_iteration_is_the_plain_one(dtype, tolerance, traces):
    """With everything in it; and it serves other weights, releases, labels and points."""
    agree(dtype, list(OBJECTIVES), tolerance)


def test_the_traced_iteration_on_frequencies_is_the_plain_one(traces):
    agree(torch.float64, ["cosine"], 1e-5, Frequencies(CIFAR10_MEAN, CIFAR10_STD, 8, 8))


def test_the_traced_iteration_with_a_limit_is_the_plain_one(traces):
    agree(torch.float64, ["cosine"], 1e-5, limit=1.0)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS[1:])
def test_inductors_program_is_the_plain_iteration(dtype, tolerance):
    agree(dtype, ["cosine"], tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_inductors_program_is_the_plain_iteration_with_everything_in_it(dtype, tolerance):
    agree(dtype, list(OBJECTIVES), tolerance)


def searched(engine, seed=0, labels=(1, 3), rate=0.05, weight=0.1, **options):
    knowledge, target, _, z, labels, told, _ = scene(torch.float32, seed, labels)
    regularisers = [TotalVariation(weight), BatchNormStatistics(2 * weight, told)]
    problem = Problem(knowledge, target, Cosine(), regularisers)
    rates = torch.linspace(rate, 0, 12)
    return search(problem, [[z]], labels, Schedule(rates, langevin=0.01), engine=engine, seed=3, **options)


def test_one_program_serves_all_searches_of_a_shape(traces):
    """Weights of victim and terms, releases, labels and step sizes are inputs: nothing is traced again."""
    for seed, labels, rate, weight in (
        (0, (1, 3), 0.05, 0.1),
        (1, (0, 0), 0.02, 0.3),
        (2, (2, 1), 0.05, 0.0),
    ):
        found = searched("compiled", seed, labels, rate, weight)
        plain = searched("eager", seed, labels, rate, weight)
        assert found.engine == "compiled"
        assert relative_error(found.found[0].last[0], plain.found[0].last[0]) < 1e-3
        assert plain.compile_seconds == 0
    assert len(traces) == 1


def test_another_structure_is_another_program(traces):
    searched("compiled")
    searched("compiled", signed=True)
    searched("compiled", betas=(0.5, 0.9))
    assert len(traces) == 2  # betas are numbers, the sign is code


def test_a_program_that_computes_something_else_is_not_used(monkeypatch):
    def wrong(traced, _):
        return lambda *inputs: [t + 0.1 for t in traced(*inputs)]

    monkeypatch.setattr("torch._inductor.compile", wrong)
    with pytest.warns(UserWarning, match="off the plain iteration's"):
        found = searched("compiled")
    assert found.engine.startswith("eager (compiled failed: ArithmeticError")
    torch.testing.assert_close(found.found[0].last, searched("eager").found[0].last)


def test_same_seed_same_result(traces):
    assert torch.equal(searched("compiled").found[0].last[0], searched("compiled").found[0].last[0])


def test_compile_seconds_are_those_of_compiling_and_it_is_announced(traces):
    said = []
    first = searched("compiled", progress=lambda *call: said.append(call))
    assert first.compile_seconds > 0
    assert said[0][0] == 0
    assert math.isnan(said[0][2])
    assert said[1] == (0, 12, math.inf)
    del said[:]
    again = searched("compiled", progress=lambda *call: said.append(call))
    assert again.compile_seconds == 0
    assert said[0] == (0, 12, math.inf)
    assert searched("eager").compile_seconds == 0
