"""What a client of federated averaging computes: several steps of SGD, and the update that it sends."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from defenses.checks import check_finite
from dpbench.protocol import InputError, LocalTraining, Loss


def mean_of_steps(
    model: nn.Module, loss: Loss, images: Tensor, labels: Tensor, local: LocalTraining
) -> tuple[Tensor, ...]:
    """(weights before - weights after) / (lr K), from weights that were really updated and so rounded.

    Args:
        model: a copy of the victim, in the mode its gradient is taken in; it gets its weights back.
        loss: mean-reduced.
        images: all the client's, float [B, C, H, W].
        labels: int64 [B].
        local: the local training.

    Raises:
        InputError: where the weights do not stay finite.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    optimizer = torch.optim.SGD(trained, lr=local.lr)
    with torch.enable_grad():
        for rows in local.batches(len(images)):
            optimizer.zero_grad()
            value = loss(model(images[rows]), labels[rows])
            if value.requires_grad:
                value.backward()
            optimizer.step()
    length = local.length(len(images))
    with torch.no_grad():
        update = tuple(
            ((old.double() - p.double()) / length).to(p.dtype) for old, p in zip(before, trained, strict=True)
        )
        for old, p in zip(before, trained, strict=True):
            p.copy_(old)
    optimizer.zero_grad()
    try:
        check_finite(update)
    except InputError as error:
        raise InputError("The local training diverged: use a smaller `local_lr`.") from error
    return update
