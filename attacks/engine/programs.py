"""Compiled iterations, kept for the next search of the same structure and shapes."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

KEPT = {"cpu": 32, "cuda": 4}
"""Programs kept at a time. Each holds its own memory on a graphics card. A sweep of defences has a dozen or
two, and goes through all of them for each batch."""
_programs: OrderedDict[Hashable, Any] = OrderedDict()
_durations: list[float] = []


def structure(module: nn.Module) -> Hashable:
    """Everything but registered tensors that decides what `module` computes: types, attributes, functions.

    Attributes are compared by their `repr`. Two different tensors may have the same `repr`, so a tensor that
    is not registered is compared by its identity.
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
    """Shape, dtype, device and `requires_grad` of each tensor."""
    return tuple((tuple(t.shape), t.dtype, t.device, t.requires_grad) for t in tensors)


def cached(key: Hashable, make: Callable[[], Any], device: str) -> Any:
    """The program under `key`, made now unless it is kept; the least recently used one is dropped."""
    if key not in _programs:
        while len(_programs) >= KEPT[device]:  # before the new one is made, which needs their memory
            _programs.popitem(last=False)
        begun = time.perf_counter()
        try:
            _programs[key] = make()
        finally:
            _durations.append(time.perf_counter() - begun)
    _programs.move_to_end(key)
    return _programs[key]


def seconds() -> float:
    """Seconds spent on making programs in this process, failed attempts included."""
    return sum(_durations)


def kept() -> int:
    """How many programs are kept."""
    return len(_programs)


def forget() -> None:
    """Drop all programs and free their memory."""
    _programs.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
