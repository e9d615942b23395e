"""Convolutions of one by one pixel as products of matrices, in place of `attacks.engine.products`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.engine.products import Setting


def serves(x: Tensor, weight: Tensor, setting: Setting) -> bool:
    """Whether the kernel is one by one, without padding and groups."""
    _, padding, _, groups = setting
    return groups == 1 and weight.shape[2:] == (1, 1) and not any(padding)


def output(x: Tensor, weight: Tensor, bias: Tensor | None, setting: Setting) -> Tensor:
    """`torch.conv2d`, without derivatives; [B, C, H, W] in channels_last."""
    seen = _strided(x, setting)
    return _image(F.linear(_pixels(seen), weight.flatten(1), bias), seen)


def gradients(
    g: Tensor, x: Tensor, weight: Tensor, setting: Setting, of_x: bool, of_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Of the input and of the weights for the cotangent `g` of the output."""
    to_x = to_weight = None
    seen = _strided(x, setting)
    if of_x:
        to_seen = _image(_pixels(g) @ weight.flatten(1), seen)
        to_x = to_seen if seen.shape == x.shape else _spread(to_seen, x, setting)
    if of_weight:
        to_weight = (_pixels(g).t() @ _pixels(seen))[:, :, None, None]
    return to_x, to_weight


def _strided(x: Tensor, setting: Setting) -> Tensor:
    (down, along), *_ = setting
    return x[:, :, ::down, ::along]


def _pixels(x: Tensor) -> Tensor:
    """[B H W, C]."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _image(flat: Tensor, like: Tensor) -> Tensor:
    """[B, C, H, W] in channels_last."""
    return flat.view(len(like), *like.shape[2:], -1).permute(0, 3, 1, 2)


def _spread(values: Tensor, like: Tensor, setting: Setting) -> Tensor:
    """Zeros but for the pixels that a stride leaves."""
    (down, along), *_ = setting
    whole = torch.zeros_like(like, memory_format=torch.channels_last)
    whole[:, :, ::down, ::along] = values
    return whole
