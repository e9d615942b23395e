"""Logits out of whatever a classifier returns, so that attacks and defences only know [B, K].

Both changes are forward hooks: the model keeps its class and the names of its parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpbench.protocol import InputError, Loss

_ADVICE = "return the logits alone, or as `.logits`, or under the key `logits`"


@dataclass(frozen=True)
class Pick:
    """Forward hook that returns one part of a tuple, a mapping or an object.

    Attributes:
        part: its place, key or attribute.
    """

    part: int | str

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> Tensor:
        """The part of `output`; all of it if it is a tensor, as of a network with more heads in training."""
        if isinstance(output, Tensor):
            return output
        if isinstance(output, Mapping) or isinstance(self.part, int):
            return output[self.part]
        return getattr(output, self.part)


def logits_among(output: object, count: int) -> Pick | None:
    """Which part of a model's output the logits are; None where it is a tensor and so the logits themselves.

    What is called `logits` is taken. Without it, the only part of the shape [B, K] is.

    Args:
        output: what the model returned.
        count: B, the images it was given.

    Raises:
        InputError: where no part or several could be the logits.

    Example:
        >>> logits_among((torch.zeros(2, 10), torch.zeros(2, 7, 3)), 2)
        Pick(part=0)
        >>> logits_among((torch.zeros(2, 10), torch.zeros(2, 5)), 2)
        Traceback (most recent call last):
        ...
        dpbench.protocol.errors.InputError: The model returns 2 tensors that may be the logits, of shapes \
(2, 10), (2, 5): return the logits alone, or as `.logits`, or under the key `logits`.
    """
    if isinstance(output, Tensor):
        return None
    if isinstance(getattr(output, "logits", None), Tensor):
        return Pick("logits")
    if isinstance(output, Mapping):
        if isinstance(output.get("logits"), Tensor):
            return Pick("logits")
        parts = dict(output)
    elif isinstance(output, tuple | list):
        parts = dict(enumerate(output))
    else:
        raise InputError(f"The model returns {type(output).__name__}, not logits [B, K]: {_ADVICE}.")
    found = {key: each for key, each in parts.items() if _may_be_logits(each, count)}
    if len(found) != 1:
        shapes = ", ".join(str(tuple(each.shape)) for each in found.values())
        many = f"{len(found)} tensors that may be the logits, of shapes {shapes}"
        raise InputError(f"The model returns {many if found else 'no logits [B, K]'}: {_ADVICE}.")
    return Pick(next(iter(found)))


def _may_be_logits(part: object, count: int) -> bool:
    return isinstance(part, Tensor) and part.is_floating_point() and part.ndim == 2 and len(part) == count


@dataclass(frozen=True)
class TwoLogits:
    """Forward hook that makes a single logit z, [B] or [B, 1], two logits (0, z).

    The softmax of (0, z) is the sigmoid of z, and their cross-entropy is the binary one of z. So attacks that
    search class probabilities, or read labels off the last layer, need to know nothing of single logits.
    """

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """[B, 2]."""
        z = output.reshape(-1, 1)
        return torch.cat([torch.zeros_like(z), z], 1)


@dataclass(frozen=True)
class SingleLogitLoss:
    """A loss on single logits, as one on the two logits of `TwoLogits`.

    Attributes:
        loss: mean-reduced, of logits and of labels in `form`.
        flat: it takes logits [B], otherwise [B, 1].
        form: how it takes labels: `classes`, int64 [B]; `floats`, of the logits' shape; `flat floats`, [B].
    """

    loss: Loss
    flat: bool
    form: str

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The loss of outputs [B, 2]; labels int64 [B], or probabilities [B, 2]."""
        z = outputs[:, 1:] - outputs[:, :1]
        z = z[:, 0] if self.flat else z
        if labels.ndim == 2:
            labels = labels[:, 1]
        if self.form != "classes":
            labels = labels.to(z.dtype)
        return self.loss(z, labels.reshape(z.shape) if self.form == "floats" else labels)


def single_logit_loss(loss: Loss, flat: bool) -> SingleLogitLoss:
    """`loss` with labels in the first form that it takes, and is a mean over the batch with.

    Args:
        loss: what the model is trained with.
        flat: the model returns [B], not [B, 1].

    Raises:
        InputError: where it takes none.

    Example:
        >>> single_logit_loss(nn.BCEWithLogitsLoss(), flat=False).form
        'floats'
    """
    outputs, labels = torch.tensor([[0.0, 0.4], [0.0, -1.3]]), torch.tensor([0, 1])
    for form in ("classes", "floats", "flat floats"):
        found = SingleLogitLoss(loss, flat, form)
        try:
            together = found(outputs, labels)
            alone = [found(outputs[i : i + 1], labels[i : i + 1]) for i in (0, 1)]
            # logits [B, 1] and labels [B] broadcast to [B, B] in silence
            if together.ndim == 0 and torch.isclose(together, torch.stack(alone).mean(), rtol=1e-4):
                return found
        except (RuntimeError, ValueError, TypeError, IndexError):
            continue
    raise InputError(
        "The model returns a single logit for each image, and the loss takes none with labels 0 and 1: leave "
        "out a sigmoid at its end, and give "
        "loss=torch.nn.functional.binary_cross_entropy_with_logits."
    )
