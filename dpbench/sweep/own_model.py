"""Somebody's own model, made ready to be attacked: a copy in single precision that returns logits."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch import Tensor, nn

from dpbench.protocol import InputError, Loss
from dpbench.sweep.own_checks import Batch
from dpbench.victim.fitting import check_weights, fit, outputs, run
from dpbench.victim.unwrapped import unwrapped


def copied(model: nn.Module) -> nn.Module:
    """A copy of `model` on the CPU, in single precision and in the same mode; `unwrapped`.

    Warns:
        UserWarning: where the weights are of another precision.

    Raises:
        InputError: for what is no model, cannot be copied, or has weights without values or complex ones.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"The model must be a torch.nn.Module, not {type(model).__name__}.")
    check_weights(model)
    kinds = sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()} - {"float32"})
    if kinds:
        warnings.warn(
            f"The model's weights are {' and '.join(kinds)}; all is computed in float32.", stacklevel=3
        )
    return unwrapped(model).cpu().float()


def suited(model: nn.Module, loss: Loss, batches: Sequence[Batch]) -> tuple[Loss, int]:
    """Lets `model` return logits [B, K], as `dpbench.victim.fitting.fit`; gives the loss of these, and K.

    Args:
        model: changed in place, by hooks only.
        loss: mean-reduced, of what the model returns.
        batches: what it is to take.

    Raises:
        InputError: for a model that cannot be trained, or does not take the images or the labels, and for a
            loss that does not take these with the logits.
    """
    if not callable(loss):
        raise InputError(f"`loss` must be a function of logits and labels, not {loss!r}.")
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("The model has no trainable parameter, so there is no gradient to attack.")
    loss = fit(model, loss, batches[0][0])
    classes = max(_classes(model, *batch[:2]) for batch in batches)
    _check_loss(model, loss, *batches[0][:2])
    return loss, classes


def _check_loss(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> None:
    logits, _ = run(model, images)
    try:
        value = loss(logits, labels)
    except Exception as error:  # whatever its author got wrong
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"`loss` does not take logits {list(logits.shape)} with the labels, int64 {list(labels.shape)} "
            f"({reason})."
        ) from error
    if not isinstance(value, Tensor):
        raise InputError(f"`loss` must return a tensor, not {type(value).__name__}.")


def _classes(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    classes = outputs(model, images)
    if not bool(((labels >= 0) & (labels < classes)).all()):
        raise InputError(
            f"labels must lie in 0 ... {classes - 1}, the model's outputs; theirs reach from "
            f"{int(labels.min())} to {int(labels.max())}."
        )
    return classes
