"""What the last, fully connected layer's gradient tells exactly: features, labels, clip factors."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.adaptation import scaled
from attacks.base import Tell
from attacks.exact.consistency import OFF, Layer
from attacks.exact.relabelled import Search
from attacks.exact.separation import CERTAIN, LARGEST_FACTOR, WEAKEST, separated
from attacks.exact.subspace import subspace
from attacks.labels import counts
from attacks.output_layer import bias_of, output_layer
from dpbench.protocol import InputError, Knowledge, Release

STARTS = 8
"""For so many of spear's starts one solution by `consistency` is begun."""


@dataclass(frozen=True)
class Samples:
    """Samples of a batch as the last layer's gradient tells them, in an order of their own.

    Attributes:
        layer: the last layer's name; where a random code lies before it, the encoder's.
        features: float64 [r, m], what that layer takes.
        deltas: float64 [r, outputs], what each sample adds to its bias gradient of the mean loss.
        labels: int64 [r].
        factors: [r], what each sample's gradient was clipped by; 1 where it was not.
        residual: [r], how far each delta is from factor * (softmax - one-hot) / B, relative; infinite where
            that factor makes a gradient longer, or where rounding errors may have moved the features too far
            (`consistency`); behind a code see `bottleneck.Draws`.
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
    release: Release,
    knowledge: Knowledge,
    generator: torch.Generator,
    starts: int,
    tell: Tell = lambda *_: None,
) -> tuple[Samples | None, str]:
    """The batch's samples, or None and why there are none, as a clause.

    The weight gradient is D^T H, H the features. After ReLU they are not negative and have zeros of each
    sample's own (`sparsity`). Once they are known up to their scales, D is too; the bias gradient, sum of D's
    rows, tells the scales, and each row of D has one negative entry, the label's. Where they have too few
    zeros or any sign, D tells them apart, because it follows from them and from the labels (`consistency`).

    Samples whose gradient is below the rounding errors of the others' are left out. One sample alone needs
    neither.

    For `starts` see `sparse_rows`; `tell` is told how far each of the two is, (done, all).
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
    found = separated(space, explain, generator, starts, one_sign=True, tell=tell)
    if found is None and batch == 1 and space.clear:
        found = explain(space.basis * (weight @ space.basis[0]).dot(bias).sign())
    if found is None and batch > 1:
        layer = Layer(batch * weight, batch * bias, *_own(names, knowledge), scaled(release))
        guesses, known = _guesses(release, knowledge, weight, bias), knowledge.labels is not None
        search = Search(space, layer, generator, max(1, starts // STARTS), exchange=not known, tell=tell)
        found = _consistent(search, guesses, explain)
    if found is None:
        return None, "neither zeros nor the outputs tell the features of the last layer apart"
    return found, ""


def _guesses(release: Release, knowledge: Knowledge, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """Labels [B] that the batch may have: the known ones, or what `counts` makes of the rows and of the bias.

    Rows tell which labels occur if the features are not negative, the bias does whatever they are.
    """
    if (known := knowledge.labels) is not None:
        fit = len(known) == release.batch_size and bool(((known >= 0) & (known < len(bias))).all())
        return [known] if fit else []
    rows = [weight, bias[:, None]]
    first, second = (counts(r, bias, release.batch_size, scaled(release)).sort().values for r in rows)
    return [first] if torch.equal(first, second) else [first, second]


def _own(names: tuple[str, str], knowledge: Knowledge) -> tuple[Tensor, Tensor]:
    """The layer's weight and bias, float64."""
    weight, bias = (knowledge.model.get_parameter(name).detach().double() for name in names)
    return weight, bias


def _consistent(
    search: Search, guesses: list[Tensor], explain: Callable[[Tensor], Samples | None]
) -> Samples | None:
    """The samples of the nearest solution; None where it leaves most of them uncertain.

    Those with the smallest entries in the bias gradient are given up first.
    """
    weakest = max(2, len(search.space) - WEAKEST)
    while len(search.space) >= weakest and search.space.clear:
        if (solution := search(guesses)) is not None:
            found = explain(solution.point[:, : len(search.space)] @ search.space.basis)
            if found is not None:
                near = solution.bound < OFF
                found = replace(found, residual=found.residual.where(near, torch.inf))
                if 2 * int((found.residual < CERTAIN).sum()) > len(found.labels):
                    return found
        search = replace(search, space=search.space.without_weakest())
    return None


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
    w, b = _own(names, knowledge)
    ideal = (features @ w.T + b).softmax(1)
    ideal[torch.arange(len(labels)), labels] -= 1
    factors = batch * (deltas * ideal).sum(1) / ideal.square().sum(1)
    left = (batch * deltas - factors[:, None] * ideal).norm(dim=1) / (batch * deltas.norm(dim=1))
    left = left.where(factors <= LARGEST_FACTOR, torch.inf)
    return Samples(names[0].removesuffix(".weight"), features, deltas, labels, factors, left)
