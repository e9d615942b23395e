"""What must hold of a victim, its loss and a batch before a gradient means what it says."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dpbench.protocol import InputError, Loss


def untouched(model: nn.Module) -> nn.Module:
    """A copy to work on, in the same modes: forward passes in training mode would change the victim."""
    return copy.deepcopy(model)


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


def check_mean_loss(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> None:
    """InputError unless `loss` of two samples is the mean of their losses.

    A summed loss under Opacus' mean reduction would scale every per-sample gradient by the batch size. The
    logits are made up, as those of a converged victim give no loss to compare.
    """
    first, last = labels[:1], labels[-1:]
    with torch.no_grad():
        shape = untouched(model).eval()(images[:1]).shape[1:]
        logits = torch.linspace(-1, 2, 2 * shape.numel(), device=images.device).reshape(2, *shape)
        pair = loss(logits, torch.cat([first, last]))
        if pair.ndim:
            raise InputError("The loss must be one number, the mean over the batch: use reduction='mean'.")
        mean = (loss(logits[:1], first) + loss(logits[1:], last)) / 2
    if not torch.isclose(pair, mean, rtol=1e-3, atol=1e-6):
        raise InputError(
            f"The loss must be the mean over the batch, but for two samples with a mean loss of {mean:.4g} "
            f"it is {pair:.4g}: use reduction='mean' and no class weights."
        )


def check_independent(model: nn.Module, images: Tensor) -> None:
    """InputError where a sample's output depends on the other samples: it then has no gradient of its own.

    Args:
        model: in the modes the gradient is to be taken in.
        images: the batch; a single image is paired with a dimmed copy of itself.
    """
    pair = images[:2] if len(images) > 1 else torch.cat([images, images / 2])
    with torch.no_grad():
        together, apart = model(pair), torch.cat([model(pair[:1]), model(pair[1:])])
    slack = 1e-2 * float(apart.abs().nan_to_num().max())
    if not torch.allclose(together, apart, rtol=1e-2, atol=slack, equal_nan=True):
        raise InputError(
            "The model's output for an image depends on the other images of the batch, so per-sample "
            "gradients do not exist: remove what mixes samples."
        )


def check_finite(gradients: Iterable[Tensor]) -> None:
    """InputError where an entry is inf or nan, naming neither a layer nor a sample: the model is to blame."""
    # whatever is not finite shows in the sum, many times as fast; but a sum of finite numbers may overflow
    if not all(bool(g.sum().isfinite()) or bool(g.isfinite().all()) for g in gradients):
        raise InputError(
            "The victim's gradient is not finite on this batch: check its weights and the images."
        )
