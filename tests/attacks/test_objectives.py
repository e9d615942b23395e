import pytest
import torch

from attacks.objectives import Cosine, FittedScale, LayerL2, Masked, MatchedNorm, SquaredL2, adapt
from dpbench.protocol import Release, Stage

SHAPES = [(4, 3), (4,), (2, 3, 5)]


def draw(seed, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=g, dtype=dtype) for s in SHAPES]


MASKS = [(m > 0).double() for m in draw(9)]


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors])


def squared(a, b):
    return (flat(a) - flat(b)).square().sum()


def cosine(a, b):
    return 1 - torch.nn.functional.cosine_similarity(flat(a), flat(b), dim=0)


def fitted(a, b):
    a, b = flat(a), flat(b)
    return b @ b - (a @ b) ** 2 / (a @ a)


def norm_matched(a, b):
    scale = flat(b).norm() / flat(a).norm()
    return sum((scale * x - y).norm() for x, y in zip(a, b, strict=True))


CASES = [
    (SquaredL2(), squared),
    (Cosine(), cosine),
    (FittedScale(), fitted),
    (MatchedNorm(LayerL2()), norm_matched),
    (Masked(SquaredL2(), MASKS), lambda a, b: squared([x * m for x, m in zip(a, MASKS, strict=True)], b)),
    (Masked(Cosine(), MASKS), lambda a, b: cosine([x * m for x, m in zip(a, MASKS, strict=True)], b)),
]


@pytest.mark.parametrize(("objective", "reference"), CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_value_and_cotangent_are_autograds(objective, reference, dtype, tolerance):
    trial = [t.to(dtype).requires_grad_() for t in draw(1)]
    target = [t.to(dtype) for t in draw(2)]
    if isinstance(objective, Masked):
        objective = Masked(objective.objective, [m.to(dtype) for m in MASKS])
    value, cotangent = objective([t.detach() for t in trial], target)
    double = [t.detach().double().requires_grad_() for t in trial]
    expected = reference(double, [t.double() for t in target])
    gradients = torch.autograd.grad(expected, double)
    assert float(value) == pytest.approx(float(expected), rel=tolerance, abs=tolerance)
    torch.testing.assert_close(
        [v.double() for v in cotangent], list(gradients), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("scale", [1e13, 1e-13])
def test_cosine_survives_extreme_norms(scale):
    trial, target = draw(1, torch.float32), draw(2, torch.float32)
    value, cotangent = Cosine()([scale * t for t in trial], target)
    assert float(value) == pytest.approx(float(cosine(trial, target)), abs=1e-5)
    assert all(torch.isfinite(v).all() for v in cotangent)


def test_fitted_scale_does_not_see_the_norm():
    trial, target = draw(1), draw(2)
    one, other = FittedScale()(trial, target)[0], FittedScale()([7 * t for t in trial], target)[0]
    assert float(one) == pytest.approx(float(other))
    assert float(SquaredL2()(trial, target)[0]) != pytest.approx(
        float(SquaredL2()([7 * t for t in trial], target)[0])
    )


def make(stages, gradients, batch=1):
    return Release(("a", "b", "c"), tuple(gradients), batch, tuple(stages))


def test_adapt_masks_the_support_of_a_pruned_release():
    pruned = [t * m for t, m in zip(draw(2), MASKS, strict=True)]
    objective = adapt(Cosine(), make([Stage("prune", {"prune_ratio": 0.5})], pruned))
    assert isinstance(objective, Masked)
    torch.testing.assert_close(objective.masks, MASKS)


def test_adapt_fits_the_scale_only_of_what_was_clipped():
    gradients = draw(2)
    norm = float(flat(gradients).norm())
    clip = lambda bound: Stage("clip", {"max_grad_norm": bound})  # noqa: E731
    assert isinstance(adapt(SquaredL2(), make([clip(norm)], gradients)), FittedScale)
    assert isinstance(adapt(SquaredL2(), make([clip(2 * norm)], gradients)), SquaredL2)
    assert isinstance(adapt(SquaredL2(), make([clip(2 * norm)], gradients, batch=4)), FittedScale)
    assert isinstance(adapt(SquaredL2(), make([], gradients)), SquaredL2)
    assert isinstance(adapt(Cosine(), make([clip(norm)], gradients)), Cosine)
    assert isinstance(adapt(LayerL2(), make([clip(norm)], gradients)), MatchedNorm)
    assert isinstance(adapt(LayerL2(), make([clip(2 * norm)], gradients)), LayerL2)
