"""Somebody's own model, made ready to be attacked: a copy in single precision that returns logits."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from defenses.copies import untouched
from dpbench.protocol import InputError, Loss
from dpbench.sweep.own_checks import Batch
from dpbench.victim.outputs import TwoLogits, logits_among, single_logit_loss


def copied(model: nn.Module) -> nn.Module:
    """A copy of `model` on the CPU, in single precision and in the same mode.

    Warns:
        UserWarning: where the weights are of another precision.

    Raises:
        InputError: for what is no model, or cannot be copied.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"The model must be a torch.nn.Module, not {type(model).__name__}.")
    kinds = sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()} - {"float32"})
    if kinds:
        warnings.warn(
            f"The model's weights are {' and '.join(kinds)}; all is computed in float32.", stacklevel=3
        )
    return untouched(model).cpu().float()


def suited(model: nn.Module, loss: Loss, batches: Sequence[Batch]) -> tuple[Loss, int]:
    """Lets `model` return logits [B, K], and gives the loss of these and K.

    A forward hook picks the logits out of what the model returns. One for a single logit makes two of it; its
    usual loss is the binary cross-entropy. A model that changes images in place gets a copy of them.

    Args:
        model: changed in place, by hooks only.
        loss: mean-reduced, of what the model returns.
        batches: what it is to take.

    Raises:
        InputError: for a model that cannot be trained, or does not take the images or the labels.
    """
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("The model has no trainable parameter, so there is no gradient to attack.")
    images = batches[0][0]
    _, changes = _run(model, images)
    if changes:
        model.register_forward_pre_hook(_cloned)
    output, _ = _run(model, images)
    if (pick := logits_among(output, len(images))) is not None:
        model.register_forward_hook(pick)
        output = pick(model, (images,), output)
    if output.numel() == len(output) == len(images) and output.ndim in (1, 2):
        model.register_forward_hook(TwoLogits())
        given = F.binary_cross_entropy_with_logits if loss is F.cross_entropy else loss
        loss = single_logit_loss(given, flat=output.ndim == 1)
    return loss, max(_classes(model, *batch[:2]) for batch in batches)


def _cloned(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Forward pre-hook of a model that would overwrite its input."""
    return (inputs[0].clone(), *inputs[1:])


def _run(model: nn.Module, images: Tensor) -> tuple[object, bool]:
    """What a copy of `model` returns, and whether it changes its input in place."""
    given = images.clone()
    before = given._version
    try:
        with torch.no_grad():
            output = copy.deepcopy(model)(given)
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        advice = " (repeat a grey channel three times if it wants colours)" if images.shape[1] == 1 else ""
        raise InputError(
            f"The model does not take images of shape {tuple(images.shape)}{advice}: "
            f"{' '.join(str(error).split())}"
        ) from error
    return output, given._version != before


def _classes(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    logits, _ = _run(model, images)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        raise InputError("The model must return logits [B, K], one row for each image.")
    classes = logits.shape[1]
    if not bool(((labels >= 0) & (labels < classes)).all()):
        raise InputError(
            f"labels must lie in 0 ... {classes - 1}, the model's outputs; theirs reach from "
            f"{int(labels.min())} to {int(labels.max())}."
        )
    return classes
