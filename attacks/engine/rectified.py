"""Victims whose ReLUs are rounded off, so that a least-squares search sees where units switch.

The gradient of a layer jumps wherever a unit behind it switches on or off, and no derivative tells of the
jump. A ReLU averaged over a Gaussian error of its input has a slope that is the share of errors for which the
unit is on. Narrowed step by step, as the errors of the trial images shrink, it ends as the ReLU itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_RELUS = frozenset({F.relu, torch.relu, Tensor.relu})


class Rounded(TorchFunctionMode):
    """Context in which every ReLU is `rounded`.

    Args:
        width: standard deviation of the errors, in root mean squares of what the ReLU is given.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        self.width = width

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in _RELUS:
            return func(*args, **(kwargs or {}))
        given = args[0] if args else (kwargs or {})["input"]
        size = given.detach().square().mean().sqrt().clamp_min(torch.finfo(given.dtype).tiny)
        return rounded(given, self.width * size)


def rounded(z: Tensor, deviation: Tensor | float) -> Tensor:
    """The mean of max(z + e, 0) over errors e of a normal distribution with this standard deviation.

    Example:
        >>> rounded(torch.tensor([-1.0, 0.0, 9.0]), 1.0)
        tensor([0.0833, 0.3989, 9.0000])
    """
    u = z / deviation
    share = (1 + torch.erf(u / math.sqrt(2))) / 2
    return z * share + deviation * torch.exp(-u.square() / 2) / math.sqrt(2 * math.pi)
