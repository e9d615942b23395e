"""Per-sample gradients without hooks: by functorch, or one backward pass for each sample."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from defenses.per_sample.agreement import Own, own_gradient
from defenses.per_sample.errors import UnfitError, culprit, in_brief
from dpbench.protocol import Loss

CHUNK = 8
"""Samples whose activations are held at a time."""


def by_functorch(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> list[Tensor]:
    """[B, *shape] for each trainable parameter, each sample as a batch of its own; see `by_hooks`."""
    trainable = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def of_one(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return loss(functional_call(model, parameters, (image[None],)), label[None])

    size = min(CHUNK, len(images))
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.filterwarnings(
                "ignore", message="There is a performance drop"
            )  # a slow way is still a way
            each = vmap(grad(of_one), in_dims=(None, 0, 0), chunk_size=size)(trainable, images, labels)
    except Exception as error:  # whatever functorch cannot trace
        raise UnfitError(f"functorch refuses {culprit(error, model)}: {in_brief(error)}") from error
    return [each[name].detach() for name in trainable]


def one_by_one(
    model: nn.Module, loss: Loss, images: Tensor, labels: Tensor, rows: Sequence[int]
) -> list[Own]:
    """A backward pass for each of these images alone.

    Raises:
        UnfitError: for a model or a loss that cannot take a batch of one.
    """
    try:
        return [own_gradient(model, loss, images[i : i + 1], labels[i : i + 1]) for i in rows]
    except Exception as error:  # whatever the model stumbles over
        raise UnfitError(f"{culprit(error, model)} fails on a single image: {in_brief(error)}") from error
