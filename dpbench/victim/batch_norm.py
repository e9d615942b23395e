"""What the attacker is told of the inputs of the victim's batch-norm layers."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from attacks.engine.watch import batch_norms, named_batch_norms, watching
from dpbench.protocol import InputError

MOMENTUM = 0.1
"""PyTorch's default: the weight of the batch in the client's new running statistics."""
Statistics = tuple[tuple[Tensor, Tensor], ...]
"""Mean and biased variance [channels] of each batch-norm layer's input."""


def batch_norm_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The batch-norm layers of `model` by name, in its own order; all of them usable for an attack.

    Usable are PyTorch's layers in evaluation mode, with running statistics, and any other layer that keeps
    `running_mean` and `running_var` per channel.

    Raises:
        InputError: for a layer of PyTorch's that has no running statistics or is in training mode.
    """
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
            continue
        if layer.running_mean is None:
            raise InputError(
                f"The batch-norm layer {name} keeps no running statistics, so the attacker has nothing to "
                "match: make it with track_running_stats=True, or set `bn_stats` to none."
            )
        if layer.training:
            raise InputError(
                f"The batch-norm layer {name} is in training mode, where one sample's gradient depends on "
                "the others: set `bn_stats` to none, or take the gradient in evaluation mode (model.eval())."
            )
    return named_batch_norms(model)


def statistics(model: nn.Module, images: Tensor, source: str) -> Statistics:
    """What `source` tells; empty for `none` and for a network without batch-norm layers.

    Args:
        model: the victim.
        images: the attacked batch [B, C, H, W] in [0, 1]; not looked at for `running`.
        source: `running`: the model's own buffers, which are public. `exact`: of the batch itself, as
            GradInversion's headline assumes (BN_exact). `recovered`: the same from what a client that
            updates its running statistics sends (Hatamizadeh et al. 2023): x = (new - (1 - m) old) / m.

    Returns:
        For each layer of `batch_norm_layers`, in order.

    Raises:
        InputError: for a layer that cannot be used, or of which an update tells nothing.
    """
    if source == "none":
        return ()
    layers = batch_norm_layers(model)
    if source == "running":
        return tuple((layer.running_mean.clone(), layer.running_var.clone()) for layer in layers.values())
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

    Raises:
        InputError: for a layer that sees a single value per channel, which has no unbiased variance, or that
            runs more than once.
    """
    layers, runs = named_batch_norms(model), Counter()
    hooks = [
        layer.register_forward_pre_hook(lambda *_, name=name: runs.update([name]))
        for name, layer in layers.items()
    ]
    try:
        with torch.no_grad(), watching(model) as seen:
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    sent = []
    for (name, layer), x in zip(layers.items(), seen, strict=True):
        if runs[name] > 1:
            raise InputError(
                f"The batch-norm layer {name} runs {runs[name]} times, and its update mixes what it saw: set "
                "`bn_stats` to exact."
            )
        count = x.numel() // x.shape[1]
        if count < 2:
            raise InputError(
                f"The batch-norm layer {name} sees one value per channel, and the update of its statistics "
                "needs two: attack a larger batch or larger images, or set `bn_stats` to exact."
            )
        mean, variance = layer.running_mean.clone(), layer.running_var.clone()
        torch.nn.functional.batch_norm(x, mean, variance, training=True, momentum=MOMENTUM)
        sent.append((mean, variance, count))
    return sent


def recovered(model: nn.Module, sent: list[tuple[Tensor, Tensor, int]]) -> Statistics:
    """The batch's statistics out of the update; variance made biased again."""
    told = []
    for layer, (mean, variance, count) in zip(named_batch_norms(model).values(), sent, strict=True):
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
