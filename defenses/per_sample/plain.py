"""Per-sample gradients without hooks: by functorch, or one backward pass for each sample."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from defenses.copies import untouched
from defenses.per_sample.agreement import own_gradient
from defenses.per_sample.errors import UnfitError, culprit, in_brief
from dpbench.protocol import Loss

CHUNK = 8
"""Samples whose activations are held at a time."""


def by_functorch(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> list[Tensor]:
    """[B, *shape] for each trainable parameter, each sample as a batch of its own; see `by_hooks`."""
    copy = untouched(model)
    trainable = {name: p.detach() for name, p in copy.named_parameters() if p.requires_grad}

    def of_one(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return loss(functional_call(copy, parameters, (image[None],)), label[None])

    size = min(CHUNK, len(images))
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.filterwarnings(
                "ignore", message="There is a performance drop"
            )  # a slow way is still a way
            each = vmap(grad(of_one), in_dims=(None, 0, 0), chunk_size=size)(trainable, images, labels)
    except Exception as error:  # whatever functorch cannot trace
        raise UnfitError(f"functorch refuses {culprit(error, copy)}: {in_brief(error)}") from error
    return [each[name].detach() for name in trainable]


def by_loop(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> list[Tensor]:
    """[B, *shape] for each trainable parameter, one backward pass for each sample; see `by_hooks`."""
    copy = untouched(model)
    rows = []
    try:
        for i in range(len(images)):
            rows.append(own_gradient(copy, loss, images[i : i + 1], labels[i : i + 1])[0])
    except Exception as error:  # a model that cannot take a batch of one
        raise UnfitError(f"{culprit(error, copy)} fails on a single image: {in_brief(error)}") from error
    return [torch.stack(same) for same in zip(*rows, strict=True)]
