"""The input of one layer, from the gradient of its weights and from its outputs; one sample, float64."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.exact.layers import Layer

ROUNDING = 1e-7
"""Relative error of what was computed in float32, at least."""
RANK = 1e-9
"""Singular values below this share of the largest count as zero."""
WEAK = 1e-2
"""Directions with singular values below this share of the largest follow from the outputs as well."""
LARGEST = 6000
"""Unknowns that are solved for at once, at most: half a minute on one core."""
SAMPLES = 64
"""Draws of the error that its standard deviations are estimated from."""

REFINEMENTS = 4
"""Rounds of iterative refinement: the normal equations square the condition number."""


class TooLargeError(Exception):
    """More unknowns than `LARGEST`."""


@dataclass(frozen=True)
class Estimate:
    """Values and the standard deviations of their errors, of one shape; infinity where nothing is known."""

    values: Tensor
    deviations: Tensor


def inputs(layer: Layer, delta: Tensor, gradient: Tensor, outputs: Estimate) -> Estimate:
    """What went into `layer`, [C * H * W].

    Two linear systems in the input x hold at once. The gradient of the weights is
    dW[o, c, k] = sum_p delta[o, p] x[c, pixel(k, p)], with the same matrix for every channel c; and the
    outputs are W x + b. The first alone fixes x along the directions of its large singular values. The
    rest follows from both by weighted least squares, with a wide Gaussian around zero as a prior.

    Args:
        layer: of which the gradient is.
        delta: gradient of the loss at the layer's outputs, [O * h * w].
        gradient: of its weights.
        outputs: of the layer, [O * h * w].

    Raises:
        TooLargeError: for a layer with too many unknowns.
    """
    found, size = [], len(layer.weight) // layer.groups
    shape = (layer.weight.shape[1], *layer.input_shape[1:])
    places = layer.output_shape[1] * layer.output_shape[2]
    delta, values, deviations = (x.view(-1, places) for x in (delta, outputs.values, outputs.deviations))
    if layer.bias is not None:
        values = values - layer.bias[:, None]
    for rows in torch.arange(len(layer.weight)).split(size):
        part = replace(
            layer,
            weight=layer.weight[rows],
            bias=None,
            groups=1,
            input_shape=shape,
            output_shape=(size, *layer.output_shape[1:]),
        )
        found.append(_of_group(part, delta[rows], gradient[rows], Estimate(values[rows], deviations[rows])))
    return Estimate(
        torch.cat([part.values.flatten() for part in found]),
        torch.cat([part.deviations.flatten() for part in found]),
    )


def _of_group(layer: Layer, delta: Tensor, gradient: Tensor, outputs: Estimate) -> Estimate:
    """`inputs` of a layer without groups and bias, [C, H * W]."""
    system, right = _gradient_system(layer, delta, gradient)
    pixels, channels = system.shape[1], right.shape[1]
    if pixels > LARGEST:
        raise TooLargeError
    _, singular, directions = torch.linalg.svd(system, full_matrices=False)
    if (missing := pixels - len(singular)) > 0:  # far quicker than singular vectors for all of them
        complement = torch.linalg.qr(directions.T, mode="complete").Q[:, -missing:]
        directions = torch.cat([directions, complement.T])
        singular = torch.cat([singular, singular.new_zeros(missing)])
    along = directions @ (system.T @ right)  # [pixels, channels]: coefficients times singular^2

    ranked = singular > RANK * singular[0]
    left = system @ (directions[ranked].T @ (along[ranked] / singular[ranked, None].square())) - right
    freedom = max(1, len(right) - int(ranked.sum()))
    noise = (left.square().sum() / (freedom * channels)).sqrt()
    noise = noise.clamp_min(ROUNDING * float(right.square().mean().sqrt()))

    generator = torch.Generator().manual_seed(0)
    strong = singular > WEAK * singular[0]
    basis, size = directions[strong].T, singular[strong]
    values = (basis @ (along[strong] / size[:, None].square())).T
    normal = torch.randn(channels, len(size), SAMPLES, generator=generator, dtype=values.dtype)
    errors = noise * (basis / size @ normal)
    if not bool(strong.all()):
        basis = directions[~strong].T
        precision, told = (singular[~strong] / noise).square(), (along[~strong] / noise**2).T
        rest, spread = _weak(layer, basis, precision, told, values, outputs, generator)
        values, errors = values + rest, errors + spread
    return Estimate(values, errors.square().mean(-1).sqrt())


def _gradient_system(layer: Layer, delta: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix [O * taps, H * W] and right-hand sides [O * taps, C] of the gradient's equations."""
    taps, pixels = layer.taps(), layer.input_shape[1] * layer.input_shape[2]
    system = delta.new_zeros(len(delta), len(taps), pixels + 1)
    for k, tap in enumerate(taps):
        system[:, k].index_add_(1, tap, delta)
    right = gradient.flatten(2).transpose(1, 2)
    return system[..., :-1].reshape(-1, pixels), right.reshape(-1, right.shape[2])


def _weak(
    layer: Layer,
    basis: Tensor,
    precision: Tensor,
    told: Tensor,
    strong: Tensor,
    outputs: Estimate,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The part of the inputs along the columns of `basis`, [C, pixels], and draws of its error.

    Args:
        layer: without groups and bias.
        basis: [pixels, w].
        precision: of the coefficients as the gradient tells them, [w].
        told: these coefficients times their precision, [C, w].
        strong: the part of the inputs that is known, [C, pixels].
        outputs: [O, places].
        generator: for the draws.
    """
    (channels, pixels), count = strong.shape, basis.shape[1]
    if channels * count > LARGEST:
        raise TooLargeError
    known = outputs.deviations.isfinite()
    weights = torch.where(known, 1 / outputs.deviations, 0.0)
    seen = torch.cat([basis, basis.new_zeros(1, count)])[layer.taps()]  # [k, places, w]; padding sees zero
    sizes = [strong.square().mean(), outputs.values[known].square().sum() / max(1, int(known.sum()))]
    prior = 1 / max(float(max(sizes)), torch.finfo(basis.dtype).tiny)
    normal = torch.diag((precision + prior).repeat(channels))
    for kernel, use, weight in zip(layer.weight.flatten(2), known, weights, strict=True):
        rows = torch.einsum("ck,kpw->pcw", kernel, seen[:, use] * weight[use, None]).flatten(1)
        normal.addmm_(rows.T, rows)
    factor = _factor(normal)

    def through(coefficients: Tensor) -> Tensor:
        return layer((coefficients @ basis.T).view(1, *layer.input_shape))[0].flatten(1)

    def back(residual: Tensor) -> Tensor:
        return layer.transposed(residual.view(1, *layer.output_shape)).reshape(channels, pixels) @ basis

    target = outputs.values - layer(strong.reshape(1, *layer.input_shape))[0].flatten(1)
    found = basis.new_zeros(channels, count)
    for _ in range(REFINEMENTS):
        rest = told - (precision + prior) * found + back(weights.square() * (target - through(found)))
        found = found + torch.cholesky_solve(rest.reshape(-1, 1), factor).view(channels, count)
    draws = torch.randn(channels * count, SAMPLES, generator=generator, dtype=basis.dtype)
    errors = torch.linalg.solve_triangular(factor.T, draws, upper=True)
    return found @ basis.T, basis @ errors.view(channels, count, SAMPLES)


def _factor(normal: Tensor) -> Tensor:
    """The Cholesky factor of a matrix that may have lost its definiteness to rounding."""
    factor, failed = torch.linalg.cholesky_ex(normal)
    jitter = torch.finfo(normal.dtype).eps * float(normal.diagonal().mean())
    while failed:
        jitter = 10 * jitter
        factor, failed = torch.linalg.cholesky_ex(
            normal + jitter * torch.eye(len(normal), dtype=normal.dtype)
        )
    return factor
