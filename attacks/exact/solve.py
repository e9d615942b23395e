"""The input of one layer, from the gradient of its weights and from its outputs; one sample, float64."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.exact.layers import Layer
from attacks.exact.priors import Prior, Wide

ROUNDING = 1e-7
"""Relative error of what was computed in float32, at least."""
RANK = 1e-9
"""Singular values below this share of the largest count as zero."""
WEAK = 1e-2
"""Directions with singular values below this share of the largest follow from the outputs as well."""
LARGEST = 6000
"""Unknowns that are solved for at once, at most: half a minute on one core."""
LEAST = 1e-100
"""Keeps a gradient of zero, which says nothing, from being divided by."""
SAMPLES = 64
"""Draws of the error that its standard deviations are estimated from."""

HINGE = 1e-3
"""How far below their bound outputs are held that would exceed it, relative to the size of others."""
ROUNDS = 10
"""Rounds of finding those that are, at most."""
REFINEMENTS = 4
"""Rounds of iterative refinement: the normal equations square the condition number."""


class TooLargeError(Exception):
    """More unknowns than `LARGEST`."""


@dataclass(frozen=True)
class Estimate:
    """Values and the standard deviations of their errors, of one shape.

    Attributes:
        values: as good as they are known.
        deviations: infinity where nothing is known.
        bound: where the value is only known not to be exceeded; None for nowhere.
        believed: how many directions follow from the prior instead of the release: trace of prior precision
            times posterior covariance. Below 1/2 each of them follows from the release for the most part.
    """

    values: Tensor
    deviations: Tensor
    bound: Tensor | None = None
    believed: float = 0.0


def inputs(
    layer: Layer, delta: Tensor, gradient: Tensor, outputs: Estimate, prior: Prior | None = None
) -> Estimate:
    """What went into `layer`, [C * H * W].

    Two linear systems in the input x hold at once. The gradient of the weights is
    dW[o, c, k] = sum_p delta[o, p] x[c, pixel(k, p)], with the same matrix for every channel c; and the
    outputs are W x + b. The first alone fixes x along the directions of its large singular values. The
    rest follows from both by weighted least squares, with a Gaussian prior.

    Args:
        layer: of which the gradient is.
        delta: gradient of the loss at the layer's outputs, [O * h * w].
        gradient: of its weights.
        outputs: of the layer, [O * h * w].
        prior: of the inputs; None for a wide Gaussian around zero.

    Raises:
        TooLargeError: for a layer with too many unknowns.
        ArithmeticError: for equations that are not finite.
    """
    found, size = [], len(layer.weight) // layer.groups
    shape = (layer.weight.shape[1], *layer.input_shape[1:])
    places = layer.output_shape[1] * layer.output_shape[2]
    delta, values, deviations = (x.view(-1, places) for x in (delta, outputs.values, outputs.deviations))
    bound = torch.zeros_like(values, dtype=torch.bool)
    if outputs.bound is not None:
        bound = outputs.bound.view(-1, places)
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
        known = Estimate(values[rows], deviations[rows], bound[rows])
        found.append(
            _of_group(part, delta[rows], gradient[rows], known, prior if layer.groups == 1 else None)
        )
    return Estimate(
        torch.cat([part.values.flatten() for part in found]),
        torch.cat([part.deviations.flatten() for part in found]),
        believed=sum(part.believed for part in found),
    )


def _of_group(
    layer: Layer, delta: Tensor, gradient: Tensor, outputs: Estimate, prior: Prior | None
) -> Estimate:
    """`inputs` of a layer without groups and bias, [C, H * W]."""
    system, right = gradient_system(layer, delta, gradient)
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
    noise = noise.clamp_min(ROUNDING * float(right.square().mean().sqrt()) + LEAST)

    generator = torch.Generator().manual_seed(0)
    strong = singular > WEAK * singular[0]
    basis, size = directions[strong].T, singular[strong]
    values = (basis @ (along[strong] / size[:, None].square())).T
    normal = torch.randn(channels, len(size), SAMPLES, generator=generator, dtype=values.dtype)
    errors = noise * (basis / size @ normal)
    believed = 0.0
    if not bool(strong.all()):
        basis = directions[~strong].T
        precision, told = (singular[~strong] / noise).square(), (along[~strong] / noise**2).T
        rest, spread, believed = _weak(layer, basis, precision, told, values, outputs, generator, prior)
        values, errors = values + rest, errors + spread
    return Estimate(values, errors.square().mean(-1).sqrt(), believed=believed)


def gradient_system(layer: Layer, delta: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
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
    prior: Prior | None,
) -> tuple[Tensor, Tensor, float]:
    """The part of the inputs along the columns of `basis`, [C, pixels], draws of its error, and `believed`.

    Args:
        layer: without groups and bias.
        basis: [pixels, w].
        precision: of the coefficients as the gradient tells them, [w].
        told: these coefficients times their precision, [C, w].
        strong: the part of the inputs that is known, [C, pixels].
        outputs: [O, places].
        generator: for the draws.
        prior: of the inputs.
    """
    (channels, pixels), count = strong.shape, basis.shape[1]
    if channels * count > LARGEST:
        raise TooLargeError
    known = outputs.deviations.isfinite()
    weights = torch.where(known, 1 / outputs.deviations, 0.0)
    seen = torch.cat([basis, basis.new_zeros(1, count)])[layer.taps()]  # [k, places, w]; padding sees zero
    if prior is None:
        sizes = [strong.square().mean(), outputs.values[known].square().sum() / max(1, int(known.sum()))]
        prior = Wide(float(max(sizes)), channels)
    belief = prior.precision(basis)
    normal = belief.clone()
    normal.diagonal().add_(precision.repeat(channels))
    kernels, wrong = layer.weight.flatten(2), torch.zeros_like(known)
    _add_rows(normal, kernels, seen, known, weights)

    def through(coefficients: Tensor) -> Tensor:
        return layer((coefficients @ basis.T).view(1, *layer.input_shape))[0].flatten(1)

    def back(residual: Tensor) -> Tensor:
        return layer.transposed(residual.view(1, *layer.output_shape)).reshape(channels, pixels) @ basis

    target = outputs.values - layer(strong.reshape(1, *layer.input_shape))[0].flatten(1)
    scale = float(target[known].square().mean().sqrt()) if bool(known.any()) else 1.0
    margin = HINGE * scale
    target = torch.where(outputs.bound, target - margin, target)
    found = basis.new_zeros(channels, count)
    for _ in range(ROUNDS):
        held, total = weights + wrong / margin, normal
        if bool(wrong.any()):
            total = normal.clone()
            _add_rows(total, kernels, seen, wrong, held)
        factor = _factor(total)
        for _ in range(REFINEMENTS):
            rest = told - precision * found + back(held.square() * (target - through(found)))
            rest = rest + prior.pull(strong + found @ basis.T) @ basis
            found = found + torch.cholesky_solve(rest.reshape(-1, 1), factor).view(channels, count)
        excess = through(found) - target
        before, wrong = wrong, outputs.bound & (excess > torch.where(wrong, 0.0, margin))
        if torch.equal(before, wrong):
            break
    draws = torch.randn(channels * count, SAMPLES, generator=generator, dtype=basis.dtype)
    errors = torch.linalg.solve_triangular(factor.T, draws, upper=True)
    believed = float((errors * (belief @ errors)).sum()) / SAMPLES
    return found @ basis.T, basis @ errors.view(channels, count, SAMPLES), believed


def _add_rows(normal: Tensor, kernels: Tensor, seen: Tensor, use: Tensor, weights: Tensor) -> None:
    """Add to the normal matrix the equations of those outputs [O, places] that `use` selects."""
    for kernel, places, weight in zip(kernels, use, weights, strict=True):
        if bool(places.any()):
            rows = torch.einsum("ck,kpw->pcw", kernel, seen[:, places] * weight[places, None]).flatten(1)
            normal.addmm_(rows.T, rows)


def _factor(normal: Tensor) -> Tensor:
    """The Cholesky factor of a matrix that may have lost its definiteness to rounding.

    Raises:
        ArithmeticError: for a matrix that is not finite.
    """
    if not bool(normal.isfinite().all()):
        raise ArithmeticError
    factor, failed = torch.linalg.cholesky_ex(normal)
    jitter = torch.finfo(normal.dtype).eps * float(normal.diagonal().mean())
    while failed:
        jitter = 10 * jitter
        factor, failed = torch.linalg.cholesky_ex(
            normal + jitter * torch.eye(len(normal), dtype=normal.dtype)
        )
    return factor
