"""A module run with other tensors in place of its own, also where it has a part under several names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, func, nn


def functional_call(module: nn.Module, tensors: Mapping[str, Tensor], args: tuple[Any, ...]) -> Any:
    """`torch.func.functional_call`, which leaves a part that stands under two names with the tensors given.

    PyTorch swaps the tensors of such a part once for each of its names, and what it puts back at the end is
    the first swap's. Here each tensor of each part is swapped once.

    Args:
        module: stays as it is.
        tensors: by name; in a parameter that is tied to others they take the others' place, too.
        args: of the call.

    Example:
        >>> import torch
        >>> layer = nn.Linear(2, 2)
        >>> twice = nn.Sequential(layer, layer)
        >>> _ = functional_call(twice, {"0.weight": torch.eye(2)}, (torch.ones(1, 2),))
        >>> isinstance(layer.weight, nn.Parameter)
        True
    """
    given = {id(_at(module, name)): tensor for name, tensor in tensors.items()}
    every = {name: given[id(own)] for name, own in _once(module) if id(own) in given}
    return func.functional_call(module, every, args, tie_weights=False)


def _once(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The tensors of each part with a name; those that several parts hold come once for each of these."""
    for prefix, part in module.named_modules():  # each part by its first name
        for held in (part._parameters, part._buffers):
            yield from ((f"{prefix}.{name}".lstrip("."), t) for name, t in held.items() if t is not None)


def _at(module: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    return getattr(module.get_submodule(path), leaf)
