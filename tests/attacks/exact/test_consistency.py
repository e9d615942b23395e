"""Features without zeros, told apart by the outputs that they lead to: found, and never made up."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import attacks
from attacks.exact import relabelled
from attacks.exact.consistency import OFF, Equations, Layer
from attacks.exact.last_layer import samples
from attacks.exact.relabelled import Search
from attacks.exact.separation import CERTAIN
from attacks.exact.subspace import subspace
from dpbench.protocol import Release, Stage
from tests.helpers.attacks import know, plain_release

SHAPE, CLASSES = (3, 8, 8), 10


def network(activation):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 128), activation, nn.Linear(128, CLASSES))


def batch(size, distinct=False):
    images = torch.rand(size, *SHAPE, generator=torch.Generator().manual_seed(size))
    labels = torch.arange(size) if distinct else torch.arange(size).mul(3) % 5  # with repeats from six on
    return images, labels


def clipped(model, images, labels, bound):
    """The mean of clipped gradients as a release, and what each was clipped by."""
    single = [plain_release(model, x[None], y[None]).gradients for x, y in zip(images, labels, strict=True)]
    factors = [min(1.0, bound / float(torch.stack([g.norm() for g in s]).norm())) for s in single]
    mean = tuple(
        sum(f * g for f, g in zip(factors, same, strict=True)) / len(images)
        for same in zip(*single, strict=True)
    )
    names = tuple(name for name, _ in model.named_parameters())
    defense = (Stage("clip", {"max_grad_norm": bound}),)
    return Release(names, mean, len(images), defense), torch.tensor(factors).double()


def matched(found, features):
    """For each true row the nearest one that was found, and the relative distance to it."""
    distances = torch.cdist(features, found)
    return distances.argmin(1), distances.min(1).values / features.norm(dim=1)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.GELU(), nn.Tanh()])
@pytest.mark.parametrize("size", [2, 4, 7])
def test_features_of_any_sign_are_found_and_labels_with_them(size, activation, known):
    model, (images, labels) = network(activation), batch(size)
    release = plain_release(model, images, labels)
    knowledge = know(model, labels if known else None, SHAPE, CLASSES)
    found, why = samples(release, knowledge, torch.Generator().manual_seed(0), 2048)
    assert why == ""
    places, errors = matched(found.features, model[:3](images).double())
    assert errors.max() < 1e-3
    assert torch.equal(found.labels[places], labels)
    assert found.residual.max() < 1e-3


@pytest.mark.parametrize("size", [2, 4])
def test_clip_factors_are_found_with_them(size):
    model, (images, labels) = network(nn.Tanh()), batch(size)
    release, factors = clipped(model, images, labels, 1.0)
    assert factors.unique().numel() == size
    found, _ = samples(release, know(model, labels, SHAPE, CLASSES), torch.Generator().manual_seed(0), 2048)
    places, errors = matched(found.features, model[:3](images).double())
    assert errors.max() < 1e-3
    assert torch.allclose(found.factors[places], factors, rtol=1e-3)


def test_clip_factors_taken_for_1_are_not_fitted_by_other_features():
    """The release does not say that it was clipped, so there are no features that explain it."""
    model, (images, labels) = network(nn.Tanh()), batch(4)
    release, _ = clipped(model, images, labels, 0.2)
    knowledge = know(model, labels, SHAPE, CLASSES)
    found, why = samples(replace(release, defense=()), knowledge, torch.Generator().manual_seed(0), 256)
    assert found is None
    assert "neither zeros nor the outputs" in why


@pytest.mark.parametrize("wrong", ["labels", "noise", "loss"])
def test_nothing_is_made_up(wrong):
    """Labels that did not occur, a random matrix of the right rank, another loss than cross-entropy."""
    model, (images, labels) = network(nn.Tanh()), batch(4, distinct=True)
    release = plain_release(model, images, labels)
    told = labels
    if wrong == "labels":
        told = labels + 4
    elif wrong == "loss":
        loss = F.mse_loss(model(images).softmax(1), F.one_hot(labels, CLASSES).float())
        release = replace(release, gradients=torch.autograd.grad(loss, list(model.parameters())))
    else:
        torch.manual_seed(1)
        *others, weight, _ = release.gradients
        deltas = torch.randn(4, CLASSES)
        deltas -= deltas.mean(1, keepdim=True)
        drawn = deltas.T @ torch.randn(4, weight.shape[1]), deltas.sum(0)
        release = replace(release, gradients=(*others, *drawn))
    found, why = samples(release, know(model, told, SHAPE, CLASSES), torch.Generator().manual_seed(0), 512)
    assert found is None
    assert "neither zeros nor the outputs" in why


@pytest.mark.parametrize("size", [1e-4, 1e-9])
def test_a_sample_that_does_not_fit_is_given_up(size):
    model, (images, labels) = network(nn.Tanh()), batch(3, distinct=True)
    with torch.no_grad():
        features = model[:3](images).double()
        deltas = model(images).double().softmax(1) - F.one_hot(labels, CLASSES)
        deltas[0] = deltas[0] / deltas[0].norm() * size
    gradients = tuple(t.float() for t in (deltas.T @ features / 3, deltas.mean(0)))
    release = plain_release(model, images, labels)
    release = replace(release, gradients=(*release.gradients[:2], *gradients))
    knowledge = know(model, labels, SHAPE, CLASSES)
    found, _ = samples(release, knowledge, torch.Generator().manual_seed(0), 2048)
    places, errors = matched(found.features, features)
    assert len(found.labels) == 2
    assert errors[1:].max() < 1e-3
    assert found.labels[places[1:]].tolist() == [1, 2]
    assert int((found.residual < CERTAIN).sum()) == 2


@pytest.mark.parametrize("is_clipped", [False, True])
def test_gradient_and_curvature_are_those_of_the_equations(is_clipped):
    model, (images, labels) = network(nn.Tanh()), batch(3)
    with torch.no_grad():
        features = model[:3](images).double()
        deltas = model(images).double().softmax(1) - F.one_hot(labels, CLASSES)
    own = model[3].weight.detach().double(), model[3].bias.detach().double()
    layer = Layer(deltas.T @ features, deltas.sum(0), *own, is_clipped)
    equations = Equations(subspace(layer.weight, 3), layer)
    points = torch.randn(2, 3, 3 + is_clipped, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.stack([labels, labels.flip(0)])
    expanded = equations.expanded(labels, points)
    assert torch.allclose(expanded[0], equations.error(labels, points))
    for own, point, error, gradient, curvature in zip(labels, points, *expanded, strict=True):

        def left(at, own=own):
            rows = torch.cat([at[:, :3], torch.ones(3, 1)], 1)
            softmax = (at[:, :3] @ equations.inner.T + equations.bias).softmax(1)
            factors = at[:, 3:].exp() if is_clipped else 1
            deltas = factors * (softmax - F.one_hot(own, CLASSES))
            return (deltas.T @ rows / equations.scale - equations.target).flatten()

        jacobian = torch.autograd.functional.jacobian(left, point).flatten(1)
        assert float(error) == pytest.approx(float(left(point).square().sum()))
        assert torch.allclose(gradient, jacobian.T @ left(point), atol=1e-10)
        assert torch.allclose(curvature, jacobian.T @ jacobian, atol=1e-10)


def drawn_layer(seed, size, classes, is_clipped):
    """A layer of 12 drawn features and the gradient of `size` samples in float32; these, and their labels."""
    draws = torch.Generator().manual_seed(seed)
    weight = 0.5 * torch.randn(classes, 12, generator=draws).double()
    bias = 0.1 * torch.randn(classes, generator=draws).double()
    features = torch.randn(size, 12, generator=draws).tanh().double()
    labels = torch.randint(classes, (size,), generator=draws)
    deltas = (features @ weight.T + bias).softmax(1) - F.one_hot(labels, classes)
    if is_clipped:
        deltas = deltas * (0.1 + 0.9 * torch.rand(size, 1, generator=draws))
    gradients = (t.float().double() for t in (deltas.T @ features, deltas.sum(0)))
    return Layer(*gradients, weight, bias, is_clipped), features, labels


@pytest.mark.parametrize("is_clipped", [False, True])
def test_the_bound_holds_for_what_errors_do_to_a_solution(is_clipped):
    """Errors of known size move a solution from the true coordinates, and not by much more than it says."""
    ratios = []
    for seed in range(12):
        layer, features, labels = drawn_layer(seed, 3, 8, is_clipped)
        noise = torch.Generator().manual_seed(seed)
        layer = replace(layer, weight=layer.weight + 1e-6 * torch.randn(8, 12, generator=noise))
        space = subspace(layer.weight, 3)
        equations = Equations(space, layer)
        point = features @ space.basis.T
        deltas = (features @ layer.own_weight.T + layer.own_bias).softmax(1) - F.one_hot(labels, 8)
        if is_clipped:
            mixed = torch.linalg.lstsq(torch.cat([point, torch.ones(3, 1)], 1).T, equations.target.T).solution
            factors = equations.scale * (mixed * deltas).sum(1) / deltas.square().sum(1)
            point = torch.cat([point, factors.clamp_min(1e-3).log()[:, None]], 1)
        solution = equations.solution(labels[None], point[None])
        moved = (solution.point[:, :3] @ space.basis - features).norm(dim=1) / features.norm(dim=1)
        ratios.append(moved / solution.bound)
    ratios = torch.cat(ratios)
    assert ratios.max() < 1.5  # the errors' norm is told by what is left over, and that is a draw
    assert ratios.median() > 0.1  # and it is not idly large


def test_as_many_unknowns_as_equations_tell_nothing_of_errors():
    layer, features, labels = drawn_layer(0, 3, 4, True)
    space = subspace(layer.weight, 3)
    equations = Equations(space, layer)
    bound = equations.bound(labels, torch.cat([features @ space.basis.T, torch.zeros(3, 1)], 1))
    assert bound.isinf().all()


@pytest.mark.parametrize("is_clipped", [False, True])
def test_no_solution_is_certain_that_is_off(is_clipped, monkeypatch):
    """Nearly as many samples as classes, with labels right and wrong."""
    monkeypatch.setattr(relabelled, "EXCHANGES", 10)
    certain = 0
    for seed in range(12):
        classes = 4 + seed % 3
        layer, features, labels = drawn_layer(seed, classes - 1 - seed % 2, classes, is_clipped)
        space = subspace(layer.weight, len(labels))
        if space is None:
            continue
        search = Search(space, layer, torch.Generator().manual_seed(0), 2, exchange=True)
        wrong = labels.clone()
        wrong[0] = (wrong[0] + 1) % classes
        for solution in (search.solved(labels, 2), search.solved(wrong, 2), search([wrong])):
            found = solution.point[:, : len(space)] @ space.basis
            errors = torch.cdist(found, features).min(1).values / found.norm(dim=1)
            sure = solution.bound < OFF
            assert (errors[sure] < OFF).all()
            certain += int(sure.sum())
    assert certain > 5


@pytest.mark.parametrize("labels", [[0, 1, 10], [0, 1, -1], [0, 1]])
def test_known_labels_that_do_not_fit_are_no_guess(labels):
    model, (images, own) = network(nn.Tanh()), batch(3)
    knowledge = know(model, torch.tensor(labels), SHAPE, CLASSES)
    release = plain_release(model, images, own)
    found, why = samples(release, knowledge, torch.Generator().manual_seed(0), 64)
    assert found is None
    assert "neither zeros nor the outputs" in why


def test_spear_says_that_labels_are_exact_without_relu():
    model, (images, labels) = network(nn.Tanh()), batch(4)
    model = nn.Sequential(nn.Conv2d(3, 3, 1), *model)
    release = plain_release(model, images, labels)
    found = attacks.create("spear", iterations=3)(release, know(model, None, SHAPE, CLASSES), seed=0)
    assert "labels are exact" in found.note
    assert sorted(found.labels.tolist()) == sorted(labels.tolist())
