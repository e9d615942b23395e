"""Clipping several images scales each one's gradient by its own factor, which the search looks for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import attacks
from attacks.adaptation import weighs
from attacks.engine.problem import Problem
from attacks.engine.search import Found, Outcome
from attacks.finish import finished
from attacks.objectives import Cosine
from defenses import create
from dpbench.data import image_statistics
from dpbench.protocol import Release, Stage
from tests.helpers.attacks import know, plain_release, psnr, smooth_images

LABELS = torch.tensor([2, 0, 3])
SHARES = torch.tensor([0.6, 0.1, 0.3])


@pytest.fixture(scope="module")
def statistics():
    coarse = torch.rand(200, 3, 3, 3, generator=torch.Generator().manual_seed(7))
    images = F.interpolate(coarse, 8, mode="bilinear", align_corners=True)
    return image_statistics.fit((255 * images).round().byte(), images.mean(0))


@pytest.fixture
def told(tiny, statistics):
    return know(tiny, LABELS, (3, 8, 8), 4, image_statistics=statistics)


@pytest.fixture
def images():
    """One is nearly grey and one has hard contrast, so that their gradients differ in length."""
    return smooth_images(3).sub(0.5).mul(torch.tensor([0.3, 1.0, 1.0])[:, None, None, None]).add(0.5)


def pixels(images, told):
    mean, std = (torch.tensor(values)[:, None, None] for values in (told.mean, told.std))
    return (images - mean) / std


def shared(model, images):
    """The gradients of the images, summed with `SHARES`."""
    each = [plain_release(model, x[None], y[None]) for x, y in zip(images, LABELS, strict=True)]
    sums = [
        sum(s * g for s, g in zip(SHARES, parts, strict=True))
        for parts in zip(*(r.gradients for r in each), strict=True)
    ]
    return replace(each[0], gradients=tuple(sums), batch_size=3)


def test_the_images_and_their_shares_explain_the_release(tiny, told, images):
    """To rounding, as no other shares do."""
    release, z = shared(tiny, images), pixels(images, told).requires_grad_()
    problem = Problem(told, release.gradients, Cosine(), weighted=True)
    right = problem.gradient([z, (SHARES.log() + 5).requires_grad_()], LABELS)
    equal = problem.gradient([z, torch.zeros(3, requires_grad=True)], LABELS)
    plain = Problem(told, release.gradients, Cosine()).gradient([z], LABELS)
    assert float(right[0]) < 1e-6 < 1e-3 < float(equal[0])
    assert float(equal[0]) == pytest.approx(float(plain[0]), abs=1e-6)
    assert torch.allclose(equal[2][0], plain[2][0], rtol=1e-3, atol=1e-7)
    assert float(equal[2][1] @ (SHARES - 1 / 3)) < 0  # downhill, towards the shares


def test_the_last_steps_find_the_shares_too(tiny, told, images):
    release = shared(tiny, images)
    problem = Problem(told, release.gradients, Cosine(), weighted=True)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    start = [pixels(images, told) + 0.02 * noise, torch.zeros(3)]
    distance, total, _ = problem.gradient([v.clone().requires_grad_() for v in start], LABELS)
    found = Found(start, float(distance), float(total), start, (float(total),), (1,))
    after, said = finished(Outcome((found,), "eager", 0.0, 1), problem, LABELS, 240)
    assert said == ""
    assert after.found[0].total < 0.02 * float(total)
    assert torch.allclose(after.found[0].variables[1].softmax(0), SHARES, atol=0.05)


def test_a_clipped_batch_is_rebuilt_better_with_the_factors_than_without(tiny, told, images):
    """With the same iterations from the same start."""
    release = create("clip", max_grad_norm=0.05).release(tiny, F.cross_entropy, images, LABELS, seed=0)
    factors = [
        0.05 / torch.cat([g.flatten() for g in plain_release(tiny, x[None], y[None]).gradients]).norm()
        for x, y in zip(images, LABELS, strict=True)
    ]
    assert max(factors) > 1.2 * min(factors)
    found = {
        adaptive: attacks.create("inverting-gradients", iterations=150, adaptive=adaptive)(
            release, told, seed=0
        )
        for adaptive in (True, False)
    }
    assert psnr(found[True].images, images) > psnr(found[False].images, images) + 1
    assert found[True].gradient_distance < found[False].gradient_distance


@pytest.mark.parametrize(("sigma", "searched"), [(1e-4, True), (1.0, False)])
def test_under_heavy_noise_no_shares_are_searched(sigma, searched, tiny, told, images, monkeypatch):
    """They would go to one image, and the prior would paint the others."""
    asked = []
    kind = "attacks.inverting_gradients.Problem"
    monkeypatch.setattr(kind, lambda *given, **named: asked.append(named) or Problem(*given, **named))
    noisy = create("dp", max_grad_norm=1.0, noise_multiplier=sigma)
    release = noisy.release(tiny, F.cross_entropy, images, LABELS, seed=0)
    attacks.create("inverting-gradients", iterations=2)(release, told, seed=0)
    assert asked[0]["weighted"] is searched


@pytest.mark.parametrize(
    ("stages", "images", "clients", "expected"),
    [
        ((), 4, 1, False),
        ((Stage("prune", {"prune_ratio": 0.9}),), 4, 1, False),
        ((Stage("clip", {"max_grad_norm": 1.0, "unit": "record"}),), 1, 1, False),
        ((Stage("clip", {"max_grad_norm": 1.0, "unit": "record"}),), 4, 1, True),
        ((Stage("dp", {"max_grad_norm": 1.0}), Stage("prune", {"prune_ratio": 0.9})), 2, 1, True),
        ((Stage("clip", {"max_grad_norm": 1.0, "unit": "user"}),), 4, 1, False),
        ((Stage("clip", {"max_grad_norm": 1.0, "unit": "user"}),), 4, 4, True),
    ],
)
def test_only_images_clipped_one_by_one_have_shares(stages, images, clients, expected):
    release = Release(("w",), (torch.zeros(3),), images, stages, clients=clients)
    assert weighs(release) is expected
    given = {
        "several": images > 1 and not (stages and stages[0].parameters.get("unit") == "user" and clients == 1)
    }
    kind = attacks.kind("inverting-gradients")
    if stages and stages[-1].name == "clip":
        assert kind.adapts([stage.name for stage in stages], given) is expected
