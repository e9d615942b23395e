import pytest
import torch

from attacks.adaptation import adapt, adapts
from attacks.masked import Masked
from attacks.objectives import (
    Cosine,
    FittedScale,
    LayerL2,
    MatchedNorm,
    SoftClamp,
    SquaredL2,
    Target,
    norms,
)
from attacks.softened import Softened
from benchmarks.measure import Operations
from defenses import create
from dpbench.protocol import Release, Stage, combined

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


def soft(size, least):
    """The trial clamped smoothly to `size`, or a smooth sign where it is None, then the cosine."""

    def value(a, b):
        widths = [(0.0625 * x.square().mean()).clamp_min(least**2) for x in a]
        if size is None:
            b = [y.sign() for y in b]
        else:  # by the width that the trial happens to have
            pairs = [(y, size * y / (y**2 + w.detach()).sqrt()) for y, w in zip(b, widths, strict=True)]
            b = [torch.where(y.abs() < size, soft, y) for y, soft in pairs]
        return cosine([x / (x**2 + w).sqrt() for x, w in zip(a, widths, strict=True)], b)

    return value


def softened(a, b):
    """The cosine of smooth signs, each as wide as the root mean square of its own tensor."""
    (x, y) = ([t / (t**2 + t.square().mean()).sqrt() for t in gradients] for gradients in (a, b))
    return cosine(x, y)


BOUNDS = [torch.full_like(m, bound) for m, bound in zip(MASKS, (0.2, 0.0, 3.0), strict=True)]


def within(compare, scaled):
    """What was sent, and what the rest exceeds its bounds by, compared with the release."""

    def value(a, b):
        sent = [x * m for x, m in zip(a, MASKS, strict=True)]
        scale = flat(sent).norm() / flat(b).norm() if scaled else 1.0
        rest = [
            torch.where(m > 0, 0.0, x.sign() * torch.relu(x.abs() - scale * c))
            for x, m, c in zip(a, MASKS, BOUNDS, strict=True)
        ]
        return compare([s + r for s, r in zip(sent, rest, strict=True)], b)

    return value


CASES = [
    (Masked(Cosine(), MASKS, BOUNDS), within(cosine, scaled=True)),
    (Masked(Softened(Cosine()), MASKS, BOUNDS), within(softened, scaled=True)),
    (Masked(SquaredL2(), MASKS, BOUNDS), within(squared, scaled=False)),
    (Masked(FittedScale(), MASKS, BOUNDS), within(fitted, scaled=True)),
    (Masked(MatchedNorm(LayerL2()), MASKS, BOUNDS), within(norm_matched, scaled=True)),
    (SoftClamp(Cosine(), None, 0.25), soft(None, 0)),
    (SoftClamp(Cosine(), 1.5, 0.25), soft(1.5, 1.5)),
    (SoftClamp(Cosine(), 0.03125, 0.25), soft(0.03125, 0.03125)),
    (Softened(Cosine()), softened),
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
        objective = objective.to(dtype)
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


def test_a_trial_of_zeros_has_a_finite_cotangent():
    value, cotangent = Cosine()([0 * t for t in draw(1, torch.float32)], draw(2, torch.float32))
    assert float(value) == 1
    assert all(torch.isfinite(v).all() for v in cotangent)


@pytest.mark.parametrize("objective", [Cosine(), LayerL2(relative=True), MatchedNorm(LayerL2())])
def test_the_norms_of_a_target_are_not_computed_again(objective):
    trial, target = draw(1), draw(2)
    with Operations() as plain:
        expected = objective(trial, target)
    known = Target(target, norms(target))
    with Operations() as lean:
        found = objective(trial, known)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert plain.count - lean.count > 2 * len(SHAPES)


def test_the_cosine_is_two_dots_and_one_pass():
    """A product and a sum for each dot, two products and a difference for the cotangent."""
    counts = []
    for times in (1, 2):
        trial, target = times * draw(1), times * draw(2)
        known = Target(target, norms(target))
        with Operations() as counted:
            Cosine()(trial, known)
        counts.append(counted.count)
    assert counts[1] - counts[0] == (2 * 2 + 3) * len(SHAPES)


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


def test_entries_that_were_not_sent_are_held_to_the_smallest_that_was():
    """The gradient itself is at distance 0, and one whose pruned entries are large is not."""
    gradients = [t * 2 for t in draw(2)]
    for last in (
        Stage("prune", {"prune_ratio": 0.5}),
        Stage("prune", {"prune_ratio": 0.5, "prune_scope": "global"}),
    ):
        sent = create("prune", **last.parameters).stages[0].process(tuple(gradients), torch.Generator())
        objective = adapt(Cosine(), make([last], sent))
        assert float(objective([3 * g for g in gradients], sent)[0]) == pytest.approx(0, abs=1e-9)
        louder = [torch.where(s == 0, 50 * g, g) for s, g in zip(sent, gradients, strict=True)]
        assert float(objective(louder, sent)[0]) > 0.1


def test_residuals_square_to_the_value():
    masked = Masked(Cosine(), MASKS, BOUNDS), Masked(Cosine(), MASKS)
    for objective in (*masked, Masked(Softened(Cosine()), MASKS, BOUNDS), Softened(Cosine()), Cosine()):
        parts = objective.residuals(draw(1), draw(2))
        value = float(flat(parts).square().sum()) / 2
        assert value == pytest.approx(float(objective(draw(1), draw(2))[0]), rel=1e-9)


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


def test_a_soft_clamp_survives_extreme_norms_and_dead_tensors():
    trial, target = draw(1, torch.float32), [t.sign() for t in draw(2, torch.float32)]
    usual, _ = SoftClamp(Cosine(), None)(trial, target)
    for scale in (1e13, 1e-13):
        value, cotangent = SoftClamp(Cosine(), None)([scale * t for t in trial], target)
        assert float(value) == pytest.approx(float(usual), rel=1e-4)
        assert all(torch.isfinite(v).all() for v in cotangent)
    _, cotangent = SoftClamp(Cosine(), None)([torch.zeros_like(trial[0]), *trial[1:]], target)
    assert cotangent[0].count_nonzero() == 0
    assert all(torch.isfinite(v).all() for v in cotangent)


def test_softening_minds_no_scale_of_a_tensor_and_survives_dead_ones():
    trial, target = draw(1, torch.float32), draw(2, torch.float32)
    usual, _ = Softened(Cosine())(trial, target)
    for scales in ((1e13, 1.0, 1e-13), (0.5, 1e-9, 3.0)):
        scaled = [scale * t for scale, t in zip(scales, trial, strict=True)]
        value, cotangent = Softened(Cosine())(scaled, target)
        assert float(value) == pytest.approx(float(usual), rel=1e-4)
        assert all(torch.isfinite(v).all() for v in cotangent)
    for dead in (trial, target):
        kept, dead[0] = dead[0], torch.zeros_like(dead[0])
        value, cotangent = Softened(Cosine())(trial, target)
        assert all(torch.isfinite(v).all() for v in (value, *cotangent))
        dead[0] = kept


def test_softened_small_entries_count():
    """Of one large entry and many small ones, the small ones decide nothing unless softened."""
    target = [torch.cat([torch.tensor([100.0]), torch.ones(99)])]
    other = [torch.cat([torch.tensor([100.0]), -torch.ones(99)])]
    assert float(Cosine()(other, target)[0]) < 0.02
    assert float(Softened(Cosine())(other, target)[0]) > 0.5


def stage(name, **given):
    return Stage(name, given)


def test_signs_and_clamped_entries_are_compared_with_the_same_of_the_trial():
    gradients = draw(2)
    signs = adapt(Cosine(), make([stage("sign", sign_scale="none")], [g.sign() for g in gradients]))
    assert isinstance(signs, SoftClamp)
    for size in (1, 7):  # of each tensor's signs, which says nothing of a sign
        sent = [gradients[0].sign(), *(size * g.sign() for g in gradients[1:])]
        assert float(signs([1e-9 * g for g in gradients], sent)[0]) < 0.02
    cut = [torch.where(g.abs() > 0.3, g, 0.0).clamp(-0.8, 0.8) for g in gradients]
    clamped = adapt(Cosine(), make([stage("percentile", percentile=10.0, percentile_gamma=0.8)], cut))
    assert isinstance(clamped, SoftClamp)
    assert isinstance(clamped.objective, Masked)
    assert float(clamped(gradients, cut)[0]) < 0.02 < float(Cosine()(gradients, cut)[0])


def test_several_top_k_releases_tell_which_share_of_an_entry_was_sent():
    """Three releases of one gradient with error feedback, by hand: 8 is twice 4, sent in the second."""
    gradient = torch.tensor([5.0, 4.0, 1.0])
    sent = [[5.0, 0.0, 0.0], [0.0, 8.0, 0.0], [10.0, 0.0, 0.0]]
    releases = [Release(("a",), (torch.tensor(each),), 1, (stage("topk", topk_ratio=0.3),)) for each in sent]
    found = combined(releases)
    objective = adapt(SquaredL2(), found)
    torch.testing.assert_close(objective.masks, [torch.tensor([1.0, 2 / 3, 0.0])])
    assert float(objective([gradient], found.gradients)[0]) == pytest.approx(0, abs=1e-10)
    assert adapt(SquaredL2(), releases[0]).masks[0].tolist() == [1, 0, 0]


def test_soteria_s_columns_are_left_out_for_one_image_and_its_tensor_for_several():
    gradients = draw(2)
    gradients[0][:, 1] = 0
    gradients[2][0] = 0
    (first, *rest) = adapt(Cosine(), make([stage("soteria", soteria_ratio=0.3)], gradients)).masks
    assert first.tolist() == [[1, 0, 1]] * 4
    assert all(bool((m == 1).all()) for m in rest)
    masks = adapt(Cosine(), make([stage("soteria", soteria_ratio=0.3)], gradients, batch=2)).masks
    assert [float(m.mean()) for m in masks] == [0, 1, 1]


@pytest.mark.parametrize("kind", [Cosine, SquaredL2, LayerL2])
@pytest.mark.parametrize(
    "names",
    [
        *[(name,) for name in ("clip", "dp", "dp-ftrl", "noise", "prune", "topk", "percentile", "soteria")],
        *[(name,) for name in ("outpost", "sign", "quantize", "censor")],
        *[(name,) for name in ("local-dp", "sparse-vector")],
        ("local-dp", "prune"),
        ("clip", "prune"),
        ("prune", "noise"),
    ],
)
def test_what_is_said_to_adapt_is_what_adapts(kind, names):
    given = {
        "max_grad_norm": 0.1,
        "percentile_gamma": 0.1,
        "svt_gamma": 0.1,
        "bands": 2,
        "noise_multiplier": 1.0,
    }
    objective = kind()
    changed = adapt(objective, make([stage(name, **given) for name in names], draw(2))) is not objective
    assert changed == adapts(names, kind)
