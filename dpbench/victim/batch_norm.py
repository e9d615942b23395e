"""What the attacker is told of the inputs of the victim's batch-norm layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attacks.engine.watch import batch_norms, watching

ORACLES = ("exact", "recovered")
"""Sources that are un-noised outputs of the private batch: no differential privacy survives them."""
MOMENTUM = 0.1
"""PyTorch's default: the weight of the batch in the client's new running statistics."""
Statistics = tuple[tuple[Tensor, Tensor], ...]
"""Mean and biased variance [channels] of each batch-norm layer's input."""


def statistics(model: nn.Module, images: Tensor, source: str) -> Statistics:
    """What `source` tells; empty for `none` and for a network without batch-norm layers.

    Args:
        model: the victim.
        images: the attacked batch [B, C, H, W] in [0, 1]; not looked at for `running`.
        source: `running`: the model's own buffers, which are public. `exact`: of the batch itself, as
            GradInversion's headline assumes (BN_exact). `recovered`: the same from what a client that
            updates its running statistics sends (Hatamizadeh et al. 2023): x = (new - (1 - m) old) / m.
    """
    if source == "none":
        return ()
    if source == "running":
        return tuple((layer.running_mean.clone(), layer.running_var.clone()) for layer in batch_norms(model))
    told = exact(model, images)
    return told if source == "exact" else recovered(model, updated(model, images))


def exact(model: nn.Module, images: Tensor) -> Statistics:
    """Mean and biased variance of each layer's input over the batch, the model in the mode it is in."""
    with torch.no_grad(), watching(model) as seen:
        model(images)
    return tuple((x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)) for x in seen)


def updated(model: nn.Module, images: Tensor) -> list[tuple[Tensor, Tensor, int]]:
    """What the client sends: each layer's running mean and variance after the batch, and values per channel.

    The update is that of `nn.BatchNorm2d`, whose running variance takes the unbiased one in.
    """
    with torch.no_grad(), watching(model) as seen:
        model(images)
    sent = []
    for layer, x in zip(batch_norms(model), seen, strict=True):
        mean, variance = layer.running_mean.clone(), layer.running_var.clone()
        torch.nn.functional.batch_norm(x, mean, variance, training=True, momentum=MOMENTUM)
        sent.append((mean, variance, x.numel() // x.shape[1]))
    return sent


def recovered(model: nn.Module, sent: list[tuple[Tensor, Tensor, int]]) -> Statistics:
    """The batch's statistics out of the update; variance made biased again."""
    told = []
    for layer, (mean, variance, count) in zip(batch_norms(model), sent, strict=True):
        was = (layer.running_mean.double(), layer.running_var.double())
        batch = [
            (new.double() - (1 - MOMENTUM) * old) / MOMENTUM
            for new, old in zip((mean, variance), was, strict=True)
        ]
        told.append((batch[0].to(mean), (batch[1] * (count - 1) / count).to(variance)))
    return tuple(told)


def has_batch_norm(model: nn.Module) -> bool:
    """Whether the model has batch-norm layers, whose statistics would tell an attacker something."""
    return bool(batch_norms(model))
