"""Gauss-Newton by conjugate gradients: least squares with many unknowns, without the Jacobian itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
FIRST = 10
"""Conjugate gradients of the first step. Few of them keep to what is well determined, like a prior ..."""
GROWTH = 1.12
"""... and each step takes more, by this factor."""


def least_squares(
    residuals: Callable[[Tensor], Tensor],
    start: Tensor,
    iterations: int,
    progress: Callable[[int, float], None] = lambda *_: None,
) -> Tensor:
    """A point where sum of squared residuals is small.

    Args:
        residuals: of a point; twice differentiable.
        start: the first point.
        iterations: conjugate gradients over all steps; each takes two backward passes.
        progress: told how many were spent, and the sum.

    Returns:
        The best of the points after each step, and of the start.

    Example:
        >>> least_squares(lambda x: 2 * x - 6, torch.zeros(2), 10)
        tensor([3., 3.])
    """
    point, best, lowest = start, start, float("inf")
    spent, planned = 0, float(FIRST)
    while spent < iterations:
        forth, back, values = linearised(residuals, point)
        total = float(values.square().sum())
        if total < lowest:
            best, lowest = point, total
        progress(spent, lowest)
        count = min(int(planned), iterations - spent)
        step = conjugate_gradients(forth, back, values, count)
        if not bool(step.isfinite().all()) or not bool(step.any()):
            break
        point, spent, planned = point + step, spent + count, planned * GROWTH
    with torch.no_grad():
        total = float(residuals(point).square().sum())
    return point if total < lowest else best


def linearised(residuals: Callable[[Tensor], Tensor], point: Tensor) -> tuple[Product, Product, Tensor]:
    """Products with the Jacobian at `point` and with its transpose, and the residuals there."""
    with torch.enable_grad():
        at = point.detach().requires_grad_()
        values = residuals(at)
        weights = torch.zeros_like(values, requires_grad=True)
        (transposed,) = torch.autograd.grad(values, at, weights, create_graph=True)

    def forth(v: Tensor) -> Tensor:  # the transpose is linear in the weights, and this is its own transpose
        return torch.autograd.grad(transposed, weights, v, retain_graph=True)[0]

    def back(w: Tensor) -> Tensor:
        return torch.autograd.grad(values, at, w, retain_graph=True)[0]

    return forth, back, values.detach()


def conjugate_gradients(
    forth: Product, back: Product, values: Tensor, count: int, damping: float = 0.0
) -> Tensor:
    """The step that `count` conjugate gradients from zero make of the linearised problem.

    Args:
        forth: product with the Jacobian.
        back: product with its transpose.
        values: residuals.
        count: each takes one of both products.
        damping: weight of the squared step (Levenberg and Marquardt).
    """
    tiny = torch.finfo(values.dtype).tiny
    # residuals of 1e12 standard deviations would overflow when squared; a power of two rounds nothing
    scale = torch.exp2(-values.abs().max().clamp_min(1).log2().floor())
    scaled = lambda v: scale * back(scale * v)  # noqa: E731
    left = -scaled(values)
    step, direction, squared = torch.zeros_like(left), left, left.square().sum()
    for _ in range(count):
        curved = scaled(forth(direction)) + scale**2 * damping * direction
        size = squared / (direction * curved).sum().clamp_min(tiny)
        step, left = step + size * direction, left - size * curved
        before, squared = squared, left.square().sum()
        direction = left + squared / before.clamp_min(tiny) * direction
    return step
