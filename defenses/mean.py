"""The undefended gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from defenses.checks import check_finite
from dpbench.protocol import Loss

Gradients = tuple[Tensor, ...]
"""One tensor per trainable parameter, in the order of `model.named_parameters()`."""


def mean_gradient(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> Gradients:
    """The undefended gradient of the mean loss; zero for a parameter the loss does not depend on.

    Args:
        model: a copy of the victim, in the mode its gradient is taken in.
        loss: mean-reduced.
        images: float [B, C, H, W].
        labels: int64 [B].

    Raises:
        InputError: for a gradient that is not finite.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    with torch.enable_grad():
        value = loss(model(images), labels)
    if not value.requires_grad:
        return tuple(torch.zeros_like(p) for p in trainable)
    gradients = torch.autograd.grad(value, trainable, materialize_grads=True)
    check_finite(gradients)
    return gradients
