"""The inputs of a network's batch-norm layers, seen while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """The layers that keep running statistics per channel, in the order of the model's modules."""
    return [m for m in model.modules() if isinstance(getattr(m, "running_mean", None), Tensor)]


@contextmanager
def watching(model: nn.Module, wanted: bool = True) -> Iterator[list[Tensor]]:
    """A list that holds, after the model ran inside, each batch-norm layer's input in `batch_norms` order.

    Nothing is hooked, and the list stays empty, unless `wanted`. The hooks are gone afterwards.
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
        activations += [seen[i] for i in sorted(seen)]
    finally:
        for hook in hooks:
            hook.remove()
