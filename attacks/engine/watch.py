"""The inputs of a network's batch-norm layers, recorded while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dpbench.protocol import InputError


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """The layers that keep running statistics per channel, in the order of the model's modules."""
    return list(named_batch_norms(model).values())


def named_batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """The same layers by their names in the model."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(getattr(module, "running_mean", None), Tensor)
    }


@contextmanager
def watching(model: nn.Module, wanted: bool = True) -> Iterator[list[Tensor]]:
    """Context that yields a list; the model runs inside, and the list is complete once the context ends.

    It then holds each batch-norm layer's input, in `batch_norms` order, as [B, channels, H, W]: images as
    they are, [B, channels] with H = W = 1, and sequences with W = 1. The inputs of a layer that ran several
    times are joined to [1, channels, values, 1]. Unless `wanted`, no hook is set and the list stays empty.
    The hooks are removed in the end.

    Raises:
        InputError: where the forward pass skipped a batch-norm layer.
    """
    layers = named_batch_norms(model) if wanted else {}
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(_kept(inputs[0])))
        for name, layer in layers.items()
    ]
    activations: list[Tensor] = []
    try:
        yield activations
        if idle := [name for name, inputs in seen.items() if not inputs]:
            # else statistics and layers would not line up
            raise InputError(
                f"The batch-norm layer {idle[0]} took no part in the model's forward pass: remove it, or set "
                "`bn_stats` to none."
            )
        activations += [_joined(inputs) for inputs in seen.values()]
    finally:
        for hook in hooks:
            hook.remove()


def _kept(x: Tensor) -> Tensor:
    """`x`, or a copy without gradients: with them, autograd itself notices that `x` is overwritten."""
    return x if torch.is_grad_enabled() else x.clone()


def _joined(inputs: list[Tensor]) -> Tensor:
    if len(inputs) > 1:
        return torch.cat([x.transpose(0, 1).flatten(1) for x in inputs], 1)[None, :, :, None]
    (x,) = inputs
    return x if x.ndim == 4 else x.flatten(2)[..., None] if x.ndim > 2 else x[:, :, None, None]
