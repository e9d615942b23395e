"""Clip each sample's gradient, sum, add noise, divide; and check that this is what happened."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from defenses.per_sample.agreement import norms
from dpbench.protocol import InputError

Gradients = tuple[Tensor, ...]
SLACK = 1e-6
"""How far a clipped gradient may be above C, relative to it: the rounding of one product in float32."""
SURE = 40.0
"""A correct noise is refused with a chance of exp(-40) at most."""


class ExactDPOptimizer(DPOptimizer):
    """Opacus' optimiser with norms in float64.

    Opacus sums a layer's squares in float32. For layers of millions of entries the norm is then off by up to
    1e-4, and a clipped gradient that much longer than C. The rule is Opacus': C / (norm + 1e-6), at most 1.
    """

    accumulated_iterations = 1
    """Of one gradient for each sample; Opacus would count those of all parameters for each of them."""

    def clip_and_accumulate(self) -> None:
        """The sum of the clipped gradients into `summed_grad`.

        Raises:
            InputError: where a clipped gradient is longer than C.
        """
        lengths = norms(self.grad_samples)
        factors = (self.max_grad_norm / (lengths + 1e-6)).clamp(max=1.0)
        for dtype in {samples.dtype for samples in self.grad_samples}:
            used = factors.to(dtype)
            if not bool((used.double() * lengths <= self.max_grad_norm * (1 + SLACK)).all()):
                raise InputError(
                    f"A clipped gradient is longer than {self.max_grad_norm:g}, so this release would not be "
                    "private: report it."
                )
        for p in self.params:
            samples = self._get_flat_grad_sample(p)
            p.summed_grad = torch.tensordot(factors.to(samples.dtype), samples, 1)


def clipped_means(
    gradients: Sequence[Tensor],
    *,
    max_grad_norm: float,
    noise_multiplier: float,
    generator: torch.Generator,
    count: int,
    batch_size: int | None = None,
) -> list[Gradients]:
    """(sum of per-sample gradients, each scaled to at most C, + N(0, (sigma C)^2)) / B, by Opacus.

    `count` of them: the sum is computed once, the noise is drawn anew each time. Half precision is left for
    float32 before clipping, as it could not hold a norm of C.

    Args:
        gradients: [B, *shape] for each parameter.
        max_grad_norm: C, above 0.
        noise_multiplier: sigma; 0 for no noise.
        generator: on the gradients' device.
        count: at least 1.
        batch_size: B, what the sum is divided by; as many as there are gradients unless given.

    Raises:
        InputError: where clipped norms or noise are not what they have to be.
    """
    precise = [g.float() if torch.finfo(g.dtype).bits < 32 else g for g in gradients]
    parameters = [nn.Parameter(torch.empty_like(g[0])) for g in precise]
    for p, samples in zip(parameters, precise, strict=True):
        p.grad_sample = samples
    optimizer = ExactDPOptimizer(
        torch.optim.SGD(parameters, lr=0.0),
        noise_multiplier=noise_multiplier,
        max_grad_norm=max_grad_norm,
        expected_batch_size=len(gradients[0]) if batch_size is None else batch_size,
        generator=generator,
    )
    optimizer.clip_and_accumulate()
    sums, deviation = [p.summed_grad for p in parameters], noise_multiplier * max_grad_norm
    bounds = noise_bounds(sums, deviation) if noise_multiplier else []
    released = []
    for _ in range(count):
        if noise_multiplier:
            for p, total in zip(parameters, sums, strict=True):
                p.summed_grad = total.view_as(total)  # Opacus refuses to noise the same tensor object twice
            optimizer.add_noise()
            check_noise(
                [p.grad - total for p, total in zip(parameters, sums, strict=True)], deviation, bounds
            )
        else:  # Opacus would add zeros
            for p, total in zip(parameters, sums, strict=True):
                p.grad = total.clone()
        optimizer.scale_grad()
        released.append(
            tuple(p.grad.detach().to(g.dtype) for p, g in zip(parameters, gradients, strict=True))
        )
    return released


def noise_bounds(sums: Sequence[Tensor], deviation: float) -> list[tuple[float, float]]:
    """Between which limits the noise of each tensor has its l2 norm, in units of `deviation`.

    Bounds of Laurent and Massart (2000): with probability 1 - exp(-x) each, a chi-squared variable of n
    degrees of freedom is at most n + 2 sqrt(n x) + 2 x and at least n - 2 sqrt(n x). What the noise loses to
    rounding, as it is added to the sum, is allowed for.
    """
    bounds = []
    for total in sums:
        n = total.numel()
        rounding = torch.finfo(total.dtype).eps * float(total.abs().max()) * math.sqrt(n) / deviation
        margin = 2 * math.sqrt(n * SURE)
        low, high = math.sqrt(max(n - margin, 0.0)), math.sqrt(n + margin + 2 * SURE)
        bounds.append((low - rounding, high + rounding))
    return bounds


def check_noise(noise: Sequence[Tensor], deviation: float, bounds: Sequence[tuple[float, float]]) -> None:
    """InputError where a tensor's noise has not the standard deviation it has to have."""
    # divided first: squares of very small noise are zero in float32
    lengths = torch.cat([norms([drawn[None] / deviation]) for drawn in noise]).tolist()
    for drawn, length, (low, high) in zip(noise, lengths, bounds, strict=True):
        if not low <= length <= high:
            measured = deviation * length / math.sqrt(drawn.numel())
            raise InputError(
                f"The noise on {drawn.numel()} entries has a standard deviation of {measured:.3g} where it "
                f"has to be {deviation:.3g}, so this release would not be private: report it."
            )
