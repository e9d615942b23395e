"""Convolutions of one small image as products of matrices, by oneDNN.

For a batch of one with few places PyTorch multiplies matrices, too, but with MKL, and clears every gradient
before it adds to it. oneDNN's product takes half of that time on an AMD EPYC (AVX-512).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

Setting = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]
"""Stride, padding, dilation, groups of a convolution."""

LEAST = 8_000_000
"""Multiplications of a product below which the way to it costs more than it saves."""


@torch.library.custom_op(
    "dpbench::product", mutates_args=(), device_types="cpu", schema="(Tensor a, Tensor b) -> Tensor"
)
def product(a: Tensor, b: Tensor) -> Tensor:
    """The product a b^T of a [m, k] and b [n, k]; an operation of its own, which compilers leave as it is."""
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")


@product.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(len(a), len(b))


def serves(x: Tensor, weight: Tensor, setting: Setting) -> bool:
    """Whether the products are the faster way: one image on a CPU, with fewer places than output channels."""
    *_, groups = setting
    if not (len(x) == groups == 1 and on_cpu(x) and x.dtype == weight.dtype == torch.float32):
        return False
    places = math.prod(_places(x, weight, setting))
    few = places <= len(weight) and places * weight.numel() >= LEAST
    return few and torch.backends.mkldnn.is_available()


def on_cpu(x: Tensor) -> bool:
    """Whether what was found faster on CPUs is used."""
    return x.device.type == "cpu"


def output(x: Tensor, weight: Tensor, bias: Tensor | None, setting: Setting) -> Tensor:
    """`torch.conv2d`, without derivatives."""
    flat = product(_matrix(weight), _columns(x, weight, setting).t())
    y = flat.view(1, len(weight), *_places(x, weight, setting))
    return y if bias is None else y + bias[:, None, None]


def gradients(
    g: Tensor, x: Tensor, weight: Tensor, setting: Setting, of_x: bool, of_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Of the input and of the weights for the cotangent `g` of the output."""
    to_x = to_weight = None
    rows = g.reshape(len(weight), -1)  # [output channels, places]
    if of_x:
        stride, padding, dilation, _ = setting
        columns = product(rows.t(), _matrix(weight).t()).t()
        columns = _ordered(columns, weight, back=True)
        to_x = F.fold(columns[None], x.shape[2:], weight.shape[2:], dilation, padding, stride)
    if of_weight:
        flat = product(rows, _columns(x, weight, setting))
        to_weight = flat.view(_laid(weight).shape)
        to_weight = to_weight if weight.is_contiguous() else to_weight.permute(0, 3, 1, 2)
    return to_x, to_weight


def _columns(x: Tensor, weight: Tensor, setting: Setting) -> Tensor:
    """What each place of the output sees of `x`, [numbers of a filter, places]."""
    stride, padding, dilation, _ = setting
    return _ordered(F.unfold(x, weight.shape[2:], dilation, padding, stride)[0], weight)


def _ordered(columns: Tensor, weight: Tensor, back: bool = False) -> Tensor:
    """Columns in channel order and columns in the order in which `weight` is laid out."""
    if weight.is_contiguous():
        return columns
    _, channels, *kernel = weight.shape
    first, second = (kernel[0] * kernel[1], channels) if back else (channels, kernel[0] * kernel[1])
    return columns.reshape(first, second, -1).transpose(0, 1).reshape(columns.shape)


def _laid(weight: Tensor) -> Tensor:
    return weight if weight.is_contiguous() else weight.permute(0, 2, 3, 1)  # channels_last


def _matrix(weight: Tensor) -> Tensor:
    """[output channels, numbers of a filter]; no copy."""
    return _laid(weight).reshape(len(weight), -1)


def _places(x: Tensor, weight: Tensor, setting: Setting) -> list[int]:
    stride, padding, dilation, _ = setting
    sides = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    return [(size + 2 * pad - step * (kernel - 1) - 1) // jump + 1 for size, kernel, jump, pad, step in sides]
