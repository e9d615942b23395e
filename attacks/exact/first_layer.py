"""Images read off a first, fully connected layer with ReLU behind it, exactly and for whole batches (SPEAR).

The layer's weight gradient is D^T X: X the inputs, D the loss gradients of the layer's outputs, which are
zero wherever ReLU is off. Once D's rows are known up to their scales (`sparsity`), X is too, and the bias
gradient, the sum of D's rows, tells the scales.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks import labels as label_rules
from attacks.base import Tell
from attacks.exact.guesses import Guesses, MadeUp, Unmixed, back, output_gradients
from attacks.exact.independent import is_image
from attacks.exact.layers import Affine, Chain
from attacks.exact.separation import LARGEST_FACTOR, separated
from attacks.exact.sparsity import MANY
from attacks.exact.subspace import subspace
from dpbench.protocol import Knowledge, Release

CLAMPED = 0.1
"""Share of pixels outside [0, 1] above which what was unmixed is no image, or has a wrong scale."""


@dataclass(frozen=True)
class Images:
    """Images of a batch as the first layer's gradient tells them, in an order of their own.

    Attributes:
        images: float64 [r, C, H, W], not clamped.
        labels: int64 [r].
        factors: [r], what each sample's gradient was clipped by; 1 where it was not.
        residual: [r], how far the loss gradient of the layer's outputs, recomputed from the image and its
            label, is from the measured one, relative; where ReLU is on or off in one only, it counts in full.
            Infinite where that factor is none of a clip.
    """

    images: Tensor
    labels: Tensor
    factors: Tensor
    residual: Tensor


def takes_pixels(chain: Chain) -> bool:
    """Whether the model begins with a fully connected layer with a bias and ReLU behind it."""
    if not chain.blocks or not all(isinstance(each, Affine) for each in chain.head):
        return False
    first = chain.blocks[0]
    relu = bool(first.pointwise) and getattr(first.pointwise[0], "kind", "") == "relu"
    return first.layer.dense and first.layer.trained and first.layer.bias is not None and relu


def images(
    release: Release,
    knowledge: Knowledge,
    chain: Chain,
    generator: torch.Generator,
    starts: int,
    tell: Tell = lambda *_: None,
) -> tuple[Images | None, str]:
    """The batch's images, and why they are unmixed only, or None and why there are none, as a clause.

    The clause is empty for exact images.

    Samples whose gradient is below the rounding errors of the others' are left out. For `starts` and `tell`
    see `sparse_rows`.
    """
    layer, batch = chain.blocks[0].layer, release.batch_size
    gradients = dict(zip(release.names, release.gradients, strict=True))
    if f"{layer.name}.bias" not in gradients:
        return None, f"there is no gradient of the bias of `{layer.name}`"
    weight, bias = (gradients[f"{layer.name}.{part}"].double() for part in ("weight", "bias"))
    if min(weight.shape) <= batch:
        return None, f"the first layer is too small for {batch} samples"
    space = subspace(weight.T, batch)
    if space is None:
        return None, f"the first layer's gradient is no sum of {batch} samples', as under noise or pruning"

    def explain(rows: Tensor) -> Images | None:
        scale = torch.linalg.lstsq(rows.T, bias[:, None]).solution
        deltas = rows * scale
        inputs = torch.linalg.lstsq(deltas.T, weight).solution
        return _explained(inputs, deltas, knowledge, chain, batch) if inputs.isfinite().all() else None

    propose, statistics = None, knowledge.image_statistics
    if statistics is not None and tuple(statistics.mean_image.shape) == knowledge.image_shape:
        likely, _ = label_rules.given_or_inferred(release, knowledge)
        labels = torch.cat([likely, torch.arange(knowledge.num_classes).to(likely)])
        propose = MadeUp(knowledge, chain, weight, labels, generator)
    unmixed = None
    if is_image(knowledge.image_shape):
        unmixed = Unmixed(knowledge, chain, weight, bias, generator)
    found = separated(space, explain, generator, starts, propose=propose, near=unmixed, tell=tell)
    if found is not None:
        return found, ""
    why = "ReLU patterns of the first layer are too few or too alike to tell the samples apart"
    if unmixed is None or len(space) <= MANY:
        return None, why
    return _guessed(unmixed.unmixed(space.basis, space.basis), release, knowledge), why


def _guessed(found: Guesses, release: Release, knowledge: Knowledge) -> Images | None:
    """Those images of a whole batch that could be unmixed, with the labels that fit best; None for no image.

    The residual of an image is the part of its row that lies outside the gradient's row space.
    """
    from scipy.optimize import linear_sum_assignment  # SciPy takes a second to import

    kept = found.clamped <= CLAMPED
    if not bool(kept.any()):
        return None
    images, inside = found.images[kept], found.inside[:, kept]
    likely, _ = label_rules.given_or_inferred(release, knowledge)
    places, chosen = linear_sum_assignment(inside[likely].cpu(), maximize=True)
    labels = torch.empty_like(likely[: len(chosen)])
    labels[torch.from_numpy(chosen)] = likely[torch.from_numpy(places)]
    inside = inside[labels, torch.arange(len(labels), device=labels.device)]
    outside = (1 - inside.square()).clamp_min(0).sqrt()
    return Images(images, labels, torch.ones_like(outside), outside)


def _explained(inputs: Tensor, deltas: Tensor, knowledge: Knowledge, chain: Chain, batch: int) -> Images:
    """The images behind the layer's inputs [r, n], with the labels that explain the `deltas` [r, m] best."""
    found = back(chain, inputs).unflatten(1, knowledge.image_shape)
    residuals, factors = [], []
    model, classes = copy.deepcopy(knowledge.model).double(), torch.arange(knowledge.num_classes)
    labels = list(classes.to(found.device)[:, None].expand(-1, len(found)))
    for ideal in output_gradients(model, knowledge, chain.blocks[0].layer.name, found, labels):
        factor = batch * (deltas * ideal).sum(1) / ideal.square().sum(1).clamp_min(math.ulp(0))
        factors.append(factor)
        residuals.append((batch * deltas - factor[:, None] * ideal).norm(dim=1))
    left, labels = torch.stack(residuals).min(0)
    factors = torch.stack(factors)[labels, torch.arange(len(labels))]
    possible = (factors > 0) & (factors <= LARGEST_FACTOR)
    residual = torch.where(possible, left / (batch * deltas.norm(dim=1)), math.inf)
    return Images(found, labels, factors, residual)
