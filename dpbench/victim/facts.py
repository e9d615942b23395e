"""What a file of weights says about its network besides the tensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Facts:
    """Facts that weights made elsewhere need; None where the file says nothing.

    Attributes:
        stride_in: which convolution of a bottleneck carries the stride: `conv1` or `conv2`.
        bn_eps: of the batch norms, in (0, 1).
        mean: per-channel mean of the images, between -1000 and 1000.
        std: per-channel standard deviation, between 0 and 1000.
    """

    stride_in: str | None = None
    bn_eps: float | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


def parsed(text: str) -> Facts:
    """The facts in the JSON object `text`; other keys are left alone.

    Raises:
        ValueError: where it is no such object or a value is of another kind or out of range; the message is a
            clause that says which.

    Example:
        >>> parsed('{"bn_eps": 0.001, "source": "npm"}').bn_eps
        0.001
        >>> parsed('{"std": [1, 0, 1]}')
        Traceback (most recent call last):
        ...
        ValueError: std must be three numbers between 0 and 1000
    """
    try:
        noted = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("its facts are not JSON") from None
    if not isinstance(noted, dict):
        raise ValueError("its facts are not a JSON object")
    stride, eps = noted.get("stride_in"), noted.get("bn_eps")
    if "stride_in" in noted and stride not in ("conv1", "conv2"):
        raise ValueError("stride_in must be conv1 or conv2")
    if "bn_eps" in noted and not _number(eps, 0, 1):
        raise ValueError("bn_eps must be a number between 0 and 1")
    if "mean" in noted and not _three(noted["mean"], -1000, 1000):
        raise ValueError("mean must be three numbers between -1000 and 1000")
    if "std" in noted and not _three(noted["std"], 0, 1000):
        raise ValueError("std must be three numbers between 0 and 1000")
    mean, std = (tuple(map(float, noted[name])) if name in noted else None for name in ("mean", "std"))
    return Facts(stride, None if eps is None else float(eps), mean, std)


def _number(value: Any, low: float, high: float) -> bool:
    return type(value) in (int, float) and low < value < high  # NaN is nowhere between


def _three(value: Any, low: float, high: float) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_number(v, low, high) for v in value)
