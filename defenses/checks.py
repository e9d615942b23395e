"""What must hold of a victim, its loss and a batch before a gradient means what it says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dpbench.protocol import InputError, Loss

RELATIVE = 1e-3
"""How far the loss of two samples may be from the mean of their losses; rounding is below 1e-5."""
TELLING = 1e-6
"""Losses below it, as those of a converged victim, say nothing about how they are averaged."""


def check_batch(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """InputError unless there is a batch to speak of, one label per image, and something to train."""
    if len(images) == 0:
        raise InputError("The batch is empty; give at least one image.")
    if len(images) != len(labels):
        raise InputError(
            f"There are {len(images)} images but {len(labels)} labels; give one label per image."
        )
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("The model has no trainable parameter, so it has no gradient to release.")


def check_handed_back(name: str, gradients: Any, shapes: Sequence[torch.Size]) -> None:
    """That a stage made a gradient: a tuple of one dense tensor of floats for each trainable parameter.

    Args:
        name: the stage's.
        gradients: one release of it.
        shapes: of the trainable parameters.

    Raises:
        TypeError: for anything but a tuple or list of such tensors.
        ValueError: for other shapes.
    """
    if not isinstance(gradients, tuple | list):
        raise TypeError(f"{name} must hand back a tuple of tensors, not {type(gradients).__name__}.")
    for each in gradients:
        if not isinstance(each, Tensor):
            raise TypeError(f"{name} must hand back a tuple of tensors, not of {type(each).__name__}.")
        if not each.is_floating_point() or each.layout != torch.strided or each.is_meta:
            raise TypeError(
                f"{name} must hand back dense tensors of floats, not {each.dtype}, {each.layout} on "
                f"{each.device}."
            )
    found = [each.shape for each in gradients]
    if found != list(shapes):
        raise ValueError(
            f"{name} hands back gradients of shapes {_listed(found)}, and those of the model are "
            f"{_listed(shapes)}: give one for each trainable parameter, in its shape."
        )


def _listed(shapes: Sequence[torch.Size]) -> str:
    few = [str(list(shape)) for shape in shapes[:4]]
    return ", ".join([*few, "..."] if len(shapes) > len(few) else few) or "no tensor"


def check_loss(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> None:
    """InputError unless the model's outputs are finite and not random, and `loss` is the mean over the batch.

    A summed loss under Opacus' mean reduction would scale every per-sample gradient by the batch size.

    Args:
        model: a copy of the victim, in the mode its gradient is taken in.
        loss: the victim's.
        images: the batch; its first and last image are looked at.
        labels: of the whole batch.
    """
    pair = torch.cat([images[:1], images[-1:]])
    with torch.no_grad():
        before = _random_state(images)
        outputs = model(pair)
        if not isinstance(outputs, Tensor):
            raise InputError(
                f"The model must return one tensor, a row for each image, not {type(outputs).__name__}."
            )
        if not bool(outputs.isfinite().all()):
            raise InputError(
                "The victim's output is not finite on this batch: check its weights and the images."
            )
        drawn = not torch.equal(before, _random_state(images))
        if drawn and not torch.allclose(
            outputs, model(pair), rtol=1e-3, atol=1e-4 * float(outputs.abs().max())
        ):
            raise InputError(
                "The victim's output is random though dropout is off, so its gradients do not compare: call "
                "its eval(), or switch off what draws random numbers, such as F.dropout without "
                "training=self.training."
            )
        _check_mean(loss, outputs, labels)


def _random_state(images: Tensor) -> Tensor:
    return torch.cuda.get_rng_state(images.device) if images.is_cuda else torch.get_rng_state()


def _check_mean(loss: Loss, outputs: Tensor, labels: Tensor) -> None:
    """Of the outputs of the first and the last image, and of made-up ones with all labels."""
    ends = torch.cat([labels[:1], labels[-1:]])
    value = loss(outputs, ends)
    if value.ndim:
        raise InputError("The loss must be one number, the mean over the batch: use reduction='mean'.")
    if not bool(value.isfinite()):
        raise InputError(
            "The loss is not finite on the victim's outputs: check that it takes what the model returns "
            "(logits or probabilities) and these labels."
        )
    labels = labels if len(labels) > 1 else ends
    tolerance = max(RELATIVE, 8 * torch.finfo(value.dtype).eps)
    each = labels.split(1)
    for rows in _comparable(outputs[torch.arange(len(labels), device=outputs.device) % 2]):
        try:
            together, *single = torch.stack([loss(rows, labels), *map(loss, rows.split(1), each)]).tolist()
        except (RuntimeError, ValueError):  # a loss on probabilities may refuse other numbers
            continue
        mean = sum(single) / len(single)
        both = math.isfinite(together) and math.isfinite(mean)
        if both and abs(together - mean) > TELLING + tolerance * abs(mean):
            raise InputError(
                f"The loss must be the mean over the batch, but for {len(rows)} samples with a mean loss of "
                f"{mean:.4g} it is {together:.4g}: use reduction='mean' and no class weights."
            )


def _comparable(outputs: Tensor) -> Iterator[Tensor]:
    """The outputs, and others, as those of a converged victim give no loss to compare.

    Rolled by one class, probabilities stay probabilities; made-up numbers suit losses that take any.
    """
    yield outputs
    if outputs.ndim > 1 and outputs.shape[1] > 1:
        yield outputs.roll(1, 1)
    made_up = torch.linspace(-1, 2, outputs.numel(), device=outputs.device, dtype=outputs.dtype)
    yield made_up.reshape(outputs.shape)


def check_finite(gradients: Iterable[Tensor]) -> None:
    """InputError where an entry is inf or nan, naming neither a layer nor a sample: the model is to blame."""
    # whatever is not finite shows in the sums, many times as fast; but a sum of finite numbers may overflow
    gradients = list(gradients)
    sums = torch.stack([g.sum() for g in gradients])
    if not bool(sums.isfinite().all()) and not all(bool(g.isfinite().all()) for g in gradients):
        raise InputError(
            "The victim's gradient is not finite on this batch: check its weights and the images."
        )
