"""The inputs of a network's batch-norm layers, recorded while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from dpbench.protocol import InputError


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """The layers that keep running statistics per channel, in the order of the model's modules."""
    return [m for m in model.modules() if isinstance(getattr(m, "running_mean", None), Tensor)]


@contextmanager
def watching(model: nn.Module, wanted: bool = True) -> Iterator[list[Tensor]]:
    """Context that yields a list; the model runs inside, and the list is complete once the context ends.

    It then holds each batch-norm layer's input, in `batch_norms` order. Unless `wanted`, no hook is set and
    the list stays empty. The hooks are removed in the end.

    Raises:
        InputError: where the forward pass skipped a batch-norm layer.
    """
    layers = batch_norms(model) if wanted else []
    seen: dict[int, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, i=i: seen.__setitem__(i, inputs[0]))
        for i, layer in enumerate(layers)
    ]
    activations: list[Tensor] = []
    try:
        yield activations
        if len(seen) < len(layers):  # else statistics and layers would not line up
            raise InputError(
                "A batch-norm layer of the model took no part in its forward pass: remove it, or use "
                "`bn_stats` none."
            )
        activations += [seen[i] for i in range(len(layers))]
    finally:
        for hook in hooks:
            hook.remove()
