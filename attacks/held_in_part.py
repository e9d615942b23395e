"""One image's loss gradient of the outputs, from a last layer that was sent in part or with noise on it.

That layer's gradient is an outer product: of the loss gradient and, with a one for the bias, the features. So
it says the same many times over. A few of its entries tell the loss gradient that pruning cut out of the
bias, and noise on all of them averages out.
"""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor

from attacks.adaptation import EXACT, NOISY
from attacks.exact import last_layer
from attacks.output_layer import of_logits
from attacks.reading import reading_of
from dpbench.protocol import InputError, Knowledge, Loss, Release

STEPS = 30
"""Alternating least squares; without noise two or three are enough."""
RIGHT = 0.1
"""Expected error of a loss gradient, relative to it, up to which it is worth holding. Likewise of
what was sent, as an outer product, beyond its noise."""
BALANCED = 1e-3
"""Sum of a loss gradient, relative to its norm, up to which it is zero."""
LEAST = torch.finfo(torch.float32).tiny
"""What is divided by is not below it."""
SURE = 3
"""Standard deviations by which the bias gradient has to say which of two opposite loss gradients it is."""


def loss_gradient(release: Release, knowledge: Knowledge) -> tuple[Tensor, str] | None:
    """The gradient of one image's loss at the outputs, [K], and the last layer's name.

    None where too little is known of it (`RIGHT`), or stages before the last one may have changed what the
    last one says of itself.
    """
    names = [stage.name for stage in release.defense]
    seen = reading_of(release)
    if not (names and EXACT.issuperset(names[:-1]) and (seen or names[-1] in NOISY)):
        return None
    with suppress(InputError):
        weight, bias = last_layer.last_layer(release, knowledge)
        found = _read(release, [release.names.index(name) for name in (weight, bias)], knowledge.loss)
        if found is not None and bias in of_logits(knowledge, [bias]):
            return found.to(release.gradients[0]), weight.removesuffix(".weight")
    return None


def _read(release: Release, places: list[int], loss: Loss) -> Tensor | None:
    """Of the gradients of weight and bias at these places; float64 [K]."""
    values, variances = (_beside(each, places) for each in _sent(release))
    delta, features = _outer(values, variances)
    known = variances.isfinite()
    spread = torch.where(known, variances, 0.0)
    off = torch.where(known, values - torch.outer(delta, features), 0.0).square().sum()
    if not float(off) <= float(RIGHT**2 * values.square().sum() + 2 * spread.sum()):  # False for NaN
        return None
    # a release may show less than all of its noise
    louder = float(off / spread.sum()) if bool(spread.any()) else 1.0
    errors = max(1.0, louder) / _information(variances, features).clamp_min(LEAST)
    unsaid = ~(known & (features != 0)).any(1)
    if bool(unsaid.any()):
        if not _sums_to_zero(loss, release.gradients[0].new_zeros(1, len(delta))):
            return None
        rest = -delta[~unsaid].sum() / unsaid.sum()
        delta, errors = torch.where(unsaid, rest, delta), torch.where(unsaid, rest.square(), errors)
    right = float(errors.sum()) <= RIGHT**2 * float(delta.square().sum())
    precision = float(_information(variances.T, delta)[-1])
    sure = float(features[-1].square()) * precision > SURE**2
    return delta * features[-1] if right and sure else None


def _sent(release: Release) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors, and the variances of their entries, infinite where nothing is known; float64."""
    seen, noise = reading_of(release), (release.noise_on_sum() / release.batch_size) ** 2 / len(release.each)
    if seen is None:
        values = [g.double() for g in release.gradients]
        return values, [torch.full_like(g, noise) for g in values]
    hidden = seen.saturated or [torch.zeros_like(s, dtype=torch.bool) for s in seen.shares]
    return [v.double() for v in seen.values], [
        torch.where((share > 0) & ~h, noise / share.double() + own.double(), torch.inf)
        for share, own, h in zip(seen.shares, seen.variances, hidden, strict=True)
    ]


def _beside(tensors: list[Tensor], places: list[int]) -> Tensor:
    """A weight, [K, m], and its bias as one more column."""
    weight, bias = (tensors[place] for place in places)
    return torch.cat([weight, bias[:, None]], 1)


def _outer(values: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """The unit vector [K] and the vector [m] of which the outer product is closest, in units of the noise.

    From the row that is largest on. An entry of either of which nothing is known is 0.
    """
    weighted = torch.where(variances.isfinite(), values, 0.0)
    delta = torch.zeros_like(values[:, 0])
    delta[weighted.square().sum(1).argmax()] = 1
    features = delta
    for _ in range(STEPS):
        features = _fitted(weighted.T, variances.T, delta)
        delta = _fitted(weighted, variances, features)
        size = delta.norm().clamp_min(LEAST)
        delta, features = delta / size, features * size
    return delta, features


def _fitted(values: Tensor, variances: Tensor, along: Tensor) -> Tensor:
    """Of each row [m] of values its closest multiple of `along`; 0 where nothing is known of it."""
    precision = _precision(variances)
    known = precision @ along.square()
    return torch.where(known > 0, (precision * values) @ along / known, 0.0)


def _precision(variances: Tensor) -> Tensor:
    """The inverse of the variances, in units of the largest; of entries without noise all alike."""
    noisy = variances[variances.isfinite() & (variances > 0)]
    least = noisy.min() if noisy.numel() else variances.new_ones(())
    return least / variances.clamp_min(least)


def _information(variances: Tensor, along: Tensor) -> Tensor:
    """The inverse variance of each row's multiple of `along`."""
    return along.square() @ (1 / variances.clamp_min(LEAST)).T


def _sums_to_zero(loss: Loss, outputs: Tensor) -> bool:
    """Whether the gradient of one image's loss at the outputs, [1, K], does, as of a softmax."""
    with torch.enable_grad():
        outputs = torch.linspace(-1, 1, outputs.shape[1]).to(outputs)[None].requires_grad_()
        labels = torch.zeros(1, dtype=torch.int64, device=outputs.device)
        (slope,) = torch.autograd.grad(loss(outputs, labels), outputs)
    return abs(float(slope.sum())) <= BALANCED * float(slope.norm())
