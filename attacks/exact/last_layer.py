"""What the last, fully connected layer's gradient tells exactly: features, labels, clip factors."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.exact.separation import separated
from attacks.exact.subspace import subspace
from attacks.output_layer import bias_of, output_layer
from dpbench.protocol import InputError, Knowledge, Release


@dataclass(frozen=True)
class Samples:
    """Samples of a batch as the last layer's gradient tells them, in an order of their own.

    Attributes:
        layer: the last layer's name; where a random code lies before it, the encoder's.
        features: float64 [r, m], what that layer takes.
        deltas: float64 [r, outputs], what each sample adds to its bias gradient of the mean loss.
        labels: int64 [r].
        factors: [r], what each sample's gradient was clipped by; 1 where it was not.
        residual: [r], how far each delta is from factor * (softmax - one-hot) / B, relative; behind a code
            see `bottleneck.Draws`.
    """

    layer: str
    features: Tensor
    deltas: Tensor
    labels: Tensor
    factors: Tensor
    residual: Tensor


def last_layer(release: Release, knowledge: Knowledge) -> tuple[str, str]:
    """The names of its weight and bias.

    Raises:
        InputError: where no gradient of a fully connected layer with K outputs and a bias was sent.
    """
    classes, weight, bias = knowledge.num_classes, None, None
    with suppress(InputError):
        weight, bias = output_layer(release, knowledge)
    sizes = {name: g.shape for name, g in zip(release.names, release.gradients, strict=True)}
    if weight is None or bias != bias_of(weight) or sizes[weight][0] != classes:
        raise InputError(
            f"No gradients of a last, fully connected layer with {classes} outputs and a bias were sent."
        )
    return weight, bias


def samples(
    release: Release, knowledge: Knowledge, generator: torch.Generator, starts: int
) -> tuple[Samples | None, str]:
    """The batch's samples, or None and why there are none, as a clause.

    The weight gradient is D^T H, H the features, which are not negative and have zeros of each sample's own
    (`sparsity`). Once they are known up to their scales, D is too; the bias gradient, sum of D's rows, tells
    the scales, and each row of D has one negative entry, the label's.

    Samples whose gradient is below the rounding errors of the others' are left out. One sample alone needs no
    zeros, and its features may have any sign.
    """
    batch, classes = release.batch_size, knowledge.num_classes
    if batch > classes - 1:
        return None, f"the last layer tells at most {classes - 1} samples of {classes} classes apart"
    try:
        names = last_layer(release, knowledge)
    except InputError as error:
        return None, str(error).rstrip(".").replace("No", "no", 1)
    gradients = dict(zip(release.names, release.gradients, strict=True))
    weight, bias = (gradients[name].double() for name in names)
    if weight.shape[1] <= batch:
        return None, f"the last layer takes {weight.shape[1]} features only"
    space = subspace(weight, batch)
    if space is None:
        return None, f"the last layer's gradient is no sum of {batch} samples', as under noise or pruning"
    explain = lambda rows: _scaled(rows, weight, bias, names, knowledge, batch)  # noqa: E731
    found = separated(space, explain, generator, starts, one_sign=True)
    if found is None and batch == 1 and space.clear:
        found = explain(space.basis * (weight @ space.basis[0]).dot(bias).sign())
    if found is None:
        return None, "the features of the last layer have no zeros that would tell the samples apart"
    return found, ""


def _scaled(
    rows: Tensor, weight: Tensor, bias: Tensor, names: tuple[str, str], knowledge: Knowledge, batch: int
) -> Samples | None:
    """The samples whose features are multiples of `rows`; None where the scales are no positive numbers."""
    mixed = weight @ torch.linalg.pinv(rows)  # [K, r]: each delta times its sample's scale
    inverse = torch.linalg.lstsq(mixed, bias[:, None]).solution[:, 0]
    if not bool((inverse > 0).all() and inverse.isfinite().all()):
        return None
    features, deltas = rows / inverse[:, None], (mixed * inverse).T
    labels = deltas.argmin(1)
    w, b = (knowledge.model.get_parameter(name).detach().double() for name in names)
    ideal = (features @ w.T + b).softmax(1)
    ideal[torch.arange(len(labels)), labels] -= 1
    factors = batch * (deltas * ideal).sum(1) / ideal.square().sum(1)
    left = (batch * deltas - factors[:, None] * ideal).norm(dim=1) / (batch * deltas.norm(dim=1))
    return Samples(names[0].removesuffix(".weight"), features, deltas, labels, factors, left)
