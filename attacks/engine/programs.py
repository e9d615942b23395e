"""Compiled iterations, kept for the next search of the same structure and shapes."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

KEPT = 4
"""Programs kept at a time; each holds its own memory on a graphics card."""
_programs: OrderedDict[Hashable, Any] = OrderedDict()
_took: list[float] = []


def structure(module: nn.Module) -> Hashable:
    """All that decides what `module` computes but its registered tensors: types, attributes, functions.

    Attributes are compared by their `repr`: what shows as the same and is not would be mistaken, so a tensor
    that is not registered counts by its identity.
    """
    found = []
    for name, part in module.named_modules():
        attributes = tuple(
            (key, id(value) if isinstance(value, Tensor) else repr(value))
            for key, value in sorted(vars(part).items())
            if key not in ("_parameters", "_buffers", "_modules")
        )
        found.append((name, type(part), attributes))
    return tuple(found)


def shapes(tensors: Sequence[Tensor]) -> Hashable:
    """Shape, type and place of each tensor."""
    return tuple((tuple(t.shape), t.dtype, t.device, t.requires_grad) for t in tensors)


def cached(key: Hashable, make: Callable[[], Any]) -> Any:
    """The program under `key`, made now unless it is kept; the one unused for longest is dropped."""
    if key not in _programs:
        begun = time.perf_counter()
        try:
            _programs[key] = make()
        finally:
            _took.append(time.perf_counter() - begun)
        while len(_programs) > KEPT:
            _programs.popitem(last=False)
    _programs.move_to_end(key)
    return _programs[key]


def seconds() -> float:
    """Spent in this process on making programs, those that failed included."""
    return sum(_took)


def kept() -> int:
    """How many programs are kept."""
    return len(_programs)


def forget() -> None:
    """Drop all programs and give their memory back."""
    _programs.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
