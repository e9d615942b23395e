"""Products of matrices and convolutions as a graphics card rounds them where TF32 is on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

_PRODUCTS = {
    *("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    *("aten::convolution", "aten::convolution_backward"),
}
_DROPPED = 13
"""Bits of a float32's 23 digits that TF32 has not."""


class TF32(TorchDispatchMode):
    """Within it, what products are made of is rounded to ten binary digits, to even ones halfway."""

    def __init__(self) -> None:
        super().__init__()
        self.on = True

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if self.on and func._schema.name in _PRODUCTS:
            args = tree_map(rounded, args)
        return func(*args, **(kwargs or {}))

    @contextmanager
    def off(self, device: torch.device) -> Iterator[None]:
        """In place of `full_precision`, as if the device were a card."""
        self.on = False
        try:
            yield
        finally:
            self.on = True


def rounded(x: Any) -> Any:
    """A matrix or more of float32, as TF32 has it; anything else as it is.

    Example:
        >>> rounded(torch.tensor([[1 + 2**-10, 1 + 2**-12]])).tolist() == [[1 + 2**-10, 1.0]]
        True
    """
    if not isinstance(x, Tensor) or x.dtype != torch.float32 or x.dim() < 2:
        return x
    bits = x.contiguous().view(torch.int32)
    half = (1 << (_DROPPED - 1)) - 1
    return ((bits + half + (bits >> _DROPPED & 1)) & -(1 << _DROPPED)).view(torch.float32)
