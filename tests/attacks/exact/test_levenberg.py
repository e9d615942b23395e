"""Least squares side by side: what SciPy's own finds for each problem alone."""

import torch
from scipy.optimize import least_squares

from attacks.exact.levenberg import descended

COUNT, UNKNOWNS = 6, 4
DRAWS = torch.Generator().manual_seed(0)
MATRICES = torch.randn(COUNT, 9, UNKNOWNS, generator=DRAWS).double()
TARGETS = torch.randn(COUNT, 9, generator=DRAWS).double()
STARTS = 0.1 * torch.randn(COUNT, UNKNOWNS, generator=DRAWS).double()


def left(points, which):
    """Residuals [m, 9] of matrix * sinh(x) - target, whose least squares are not zero."""
    return (MATRICES[which] @ points.sinh()[:, :, None])[:, :, 0] - TARGETS[which]


def error(points, which):
    return left(points, which).square().sum(1)


def expanded(points, which):
    jacobian = MATRICES[which] * points.cosh()[:, None]
    gradient = (jacobian.mT @ left(points, which)[:, :, None])[:, :, 0]
    return error(points, which), gradient, jacobian.mT @ jacobian


def test_each_reaches_what_it_reaches_alone():
    errors, points = descended(error, expanded, STARTS, 100, 0.0)
    for i in range(COUNT):
        which = torch.tensor([i])
        alone = least_squares(
            lambda x, which=which: left(torch.from_numpy(x)[None], which)[0].numpy(), STARTS[i], xtol=1e-12
        )
        assert abs(float(errors[i]) - 2 * alone.cost) < 1e-4 * alone.cost
        assert abs(points[i] - torch.from_numpy(alone.x)).max() < 1e-2
    assert torch.equal(errors, error(points, torch.arange(COUNT)))


def test_few_steps_end_earlier():
    after = [descended(error, expanded, STARTS, steps, 0.0)[0] for steps in (1, 3, 100)]
    assert (after[0] >= after[1]).all()
    assert (after[1] >= after[2]).all()
    assert after[0].sum() > 1.01 * after[2].sum()


def test_the_first_that_is_exact_ends_all():
    """The first begins at its solution, which is no solution of the others."""
    targets = (MATRICES[0] @ STARTS[0].sinh()).expand(COUNT, -1)

    def exact(points, which):
        return (left(points, which) + TARGETS[which] - targets[which]).square().sum(1)

    def exactly(points, which):
        _, _, curvature = expanded(points, which)
        jacobian = MATRICES[which] * points.cosh()[:, None]
        rest = left(points, which) + TARGETS[which] - targets[which]
        return exact(points, which), (jacobian.mT @ rest[:, :, None])[:, :, 0], curvature

    errors, _ = descended(exact, exactly, STARTS, 100, 1e-9)
    whole, _ = descended(exact, exactly, STARTS, 100, 0.0)
    assert errors[0] < 1e-9
    assert (errors[1:] > 1.001 * whole[1:]).any()
