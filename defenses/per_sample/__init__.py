"""Per-sample gradients that are right, or refused.

Opacus' hooks are fast, but they see a layer's weight only where the layer itself uses it, take the first
dimension for the batch, and know zero padding only. So what they give is compared with plain backward passes
on the very batch. Where it disagrees, or where Opacus refuses a layer, functorch takes over, and after it one
backward pass for each sample. A few samples are left to functorch at once: each has weights of its own there,
so that no gradient can be another sample's, and what has to be checked costs less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from defenses.checks import check_finite
from defenses.per_sample.agreement import Own, own_gradient, picks, wrong_mean, wrong_single
from defenses.per_sample.errors import UnfitError, advice, owner
from defenses.per_sample.independence import (
    check_independent,
    constant_buffers,
    differ,
    refuse_autocast,
    refuse_batch_statistics,
)
from defenses.per_sample.plain import by_functorch, one_by_one
from defenses.per_sample.verified import is_new, remember
from dpbench.protocol import InputError, Loss

FEW = 8
"""Up to so many samples, functorch takes less time than Opacus and its check, on a CPU."""


@dataclass(frozen=True)
class PerSample:
    """Each sample's gradient.

    Attributes:
        gradients: [B, *shape] for each trainable parameter, in the model's order.
        method: what computed them: `opacus`, `functorch` or `loop`.
    """

    gradients: list[Tensor]
    method: str


def per_sample(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> PerSample:
    """The gradient of each sample's loss, checked.

    Args:
        model: in the mode the gradient is to be taken in; left as it is, but for buffers that it changes.
        loss: mean-reduced.
        images: float [B, C, H, W].
        labels: int64 [B], or soft labels [B, K].

    Raises:
        InputError: for a model that mixes samples (batch norm in training mode, say) or carries data from
            sample to sample in its buffers, for one whose gradients no method gets right, and for gradients
            that are not finite.
    """
    refuse_batch_statistics(model)
    methods = {"opacus": _opacus, "functorch": _functorch, "loop": _loop}
    if len(images) <= FEW:
        del methods["opacus"]
    if len(images) == 1:
        del methods["functorch"]  # its plain gradient is what is wanted
    failures: list[str] = []
    with constant_buffers(model):
        for name, method in methods.items():
            try:
                return PerSample(method(model, loss, images, labels), name)
            except UnfitError as error:
                failures.append(str(error))
    why = "; ".join(dict.fromkeys(failures))
    raise InputError(f"There are no per-sample gradients: {why}: {advice(model)}.")


def _opacus(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> list[Tensor]:
    """By hooks, which were compared with autograd already: in the same forward pass, for all samples."""
    from defenses.per_sample.hooks import by_hooks  # Opacus takes seconds to import

    gradients, outputs = by_hooks(model, loss, images, labels)
    refuse_autocast(model, outputs)
    check_finite(gradients)
    rows = picks(len(images))
    singles = one_by_one(model, loss, images, labels, rows)
    alone = [own.outputs for own in singles]
    if any(differ(outputs, one, row, len(images)) for row, one in zip(rows, alone, strict=True)):
        with torch.no_grad():
            check_independent(model, images, rows, model(images), alone)
        raise UnfitError("the model returns something else under Opacus' hooks")
    _check_singles(model, gradients, rows, singles)
    return gradients


def _functorch(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> list[Tensor]:
    """By weights of each sample's own; compared with plain passes once for a model and shape of batch."""
    gradients, outputs = by_functorch(model, loss, images, labels)
    check_finite(gradients)
    if not is_new(model, loss, images, labels):
        return gradients
    every, rows = range(len(images)), picks(len(images))
    batch = own_gradient(model, loss, images, labels)
    refuse_autocast(model, batch.outputs)
    if any(differ(batch.outputs, outputs[row : row + 1], row, len(images)) for row in every):
        alone = [own.outputs for own in one_by_one(model, loss, images, labels, every)]
        check_independent(model, images, every, batch.outputs, alone)
        raise UnfitError("the model returns something else under functorch")
    _agree(model, wrong_mean(batch, gradients))
    _check_singles(model, gradients, rows, one_by_one(model, loss, images, labels, rows))
    remember(model, loss, images, labels)
    return gradients


def _loop(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> list[Tensor]:
    """Right for each sample; whether they add up to the batch's gradient is to be seen."""
    singles = one_by_one(model, loss, images, labels, range(len(images)))
    gradients = [torch.stack(same) for same in zip(*(own.gradients for own in singles), strict=True)]
    alone = [own.outputs for own in singles]
    check_finite(gradients)
    if len(images) == 1:
        twins = torch.cat([images, images / 2])
        with torch.no_grad():
            check_independent(model, twins, [0], model(twins), alone)
        return gradients
    batch = own_gradient(model, loss, images, labels)
    check_independent(model, images, range(len(images)), batch.outputs, alone)
    _agree(model, wrong_mean(batch, gradients))
    return gradients


def _check_singles(
    model: nn.Module, gradients: list[Tensor], rows: Sequence[int], singles: Sequence[Own]
) -> None:
    """UnfitError where a sample's gradient is not that of its own backward pass."""
    for row, own in zip(rows, singles, strict=True):
        _agree(model, wrong_single(own, [g[row] for g in gradients]))


def _agree(model: nn.Module, wrong: int | None) -> None:
    if wrong is not None:
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        raise UnfitError(f"{owner(model, names[wrong])} has other gradients in a batch than alone")
