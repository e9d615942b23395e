"""Least squares by Levenberg-Marquardt: many problems of a few dozen unknowns, side by side.

One alone spends its time on starting operations; a hundred together take about a fifth of what they take one
after the other.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

DAMPING = 1e-2
"""At the start; ten times less after a step that makes the error smaller, ten times more after another."""
LEAST, HARDEST = 1e-14, 1e10
"""Least damping; and that from which no step makes the error smaller."""
SLOW = 1e-6
"""Relative gain of a step below which a point has come to rest, ..."""
SLOW_IF_EXACT = 0.5
"""... and below which it has where rounding errors are all that is left."""


def descended(
    error: Callable[[Tensor, Tensor], Tensor],
    expanded: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]],
    points: Tensor,
    steps: int,
    exact: float,
) -> tuple[Tensor, Tensor]:
    """The points reached, and their errors [p]; all end as soon as one has come to rest below `exact`.

    Args:
        error: of points [m, ...] of the problems [m] (int64), the sum of squares [m], infinite for no number.
        expanded: likewise, and half its gradient [m, n] and the Gauss-Newton matrices [m, n, n] beside it.
        points: float64 [p, ...], of n numbers each, where they begin: problem i at point i.
        steps: of each, at most, whether they make its error smaller or not.
        exact: the error below which there are rounding errors only.

    Example:
        >>> expanded = lambda x, i: (error(x, i), 2 * (2 * x - 6), torch.full((len(x), 1, 1), 4.0))
        >>> error = lambda x, i: (2 * x - 6).square().sum(1)
        >>> descended(error, expanded, torch.tensor([[0.0], [5.0]]), 10, 1e-9)[1].round(decimals=3).flatten()
        tensor([3., 3.])
    """
    points, live = points.clone(), torch.arange(len(points)).to(points.device)
    damping = points.new_full((len(points),), DAMPING)
    errors, gradient, curvature = expanded(points, live)
    for _ in range(steps):
        before = errors[live]
        step = _step(gradient[live], curvature[live], damping[live])
        new = points[live] - step.view_as(points[live])
        gain = before - error(new, live)
        better = gain > 0
        damping[live] = torch.where(better, (damping[live] / 10).clamp_min(LEAST), damping[live] * 10)
        if bool(better.any()):
            moved = live[better]
            points[moved] = new[better]
            errors[moved], gradient[moved], curvature[moved] = expanded(points[moved], moved)
        nearly = errors[live] < exact
        rest = (nearly & (gain < SLOW_IF_EXACT * before)) | (better & (gain < SLOW * before))
        live = live[~rest & (damping[live] < HARDEST)]
        if bool((rest & nearly).any()) or not len(live):
            break
    return errors, points


def _step(gradient: Tensor, curvature: Tensor, damping: Tensor) -> Tensor:
    """[m, n]; damped relative to the curvature's diagonal, so that units do not matter."""
    root = curvature.diagonal(dim1=1, dim2=2).clamp_min(1e-30).sqrt()
    scaled = curvature / root[:, :, None] / root[:, None]
    scaled.diagonal(dim1=1, dim2=2).add_(damping[:, None])
    factor = torch.linalg.cholesky_ex(scaled).L  # where it fails, the step makes nothing smaller
    return torch.cholesky_solve((gradient / root)[:, :, None], factor)[:, :, 0] / root
