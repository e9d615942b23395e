"""Convolutions of half precision in place of `attacks.engine.convolution`'s; they return float32.

Half precision has as many digits as TF32 and moves half the bytes, but ends at 65,504 and loses digits below
6e-5. So what may be small is multiplied first, and the result divided: the loss's gradients by `LOSS`, the
second pass's weights by `WEIGHTS` and its activations by `ACTIVATIONS`. They suit a ResNet-50 on photographs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attacks.engine import convolution
from attacks.engine.products import Setting

LOSS, WEIGHTS, ACTIVATIONS = 2.0**10, 2.0**12, 2.0**2
_output, _gradients = convolution._output, convolution._gradients


def output(x: Tensor, weight: Tensor, bias: Tensor | None, setting: Setting) -> Tensor:
    """`convolution._output` of the victim itself."""
    y = _scaled(x, weight, setting)
    return y if bias is None else y + bias[:, None, None]


def gradients(
    g: Tensor, x: Tensor, weight: Tensor, setting: Setting, of_x: bool, of_weight: bool
) -> tuple[Tensor | None, ...]:
    """`convolution._gradients` of the victim's own weights."""
    return _back(g, x, weight, setting, of_x, of_weight)


def to_output(
    to_x: Tensor | None, to_weight: Tensor | None, x: Tensor, weight: Tensor, setting: Setting
) -> Tensor | None:
    """`convolution._to_output`."""
    if to_x is None or to_weight is None:
        if to_x is not None:
            return _scaled(to_x, weight, setting, ACTIVATIONS)
        return None if to_weight is None else _scaled(x, to_weight, setting, 1.0, WEIGHTS)
    if convolution.joins(x, weight, setting[-1]):
        ratio = WEIGHTS / ACTIVATIONS  # of both halves the product is scaled alike
        joint = torch.cat([to_x * ACTIVATIONS, x], 1), torch.cat([weight * ratio, to_weight * WEIGHTS], 1)
        return _scaled(*joint, setting) / WEIGHTS
    return to_output(to_x, None, x, weight, setting) + to_output(None, to_weight, x, weight, setting)


def second(ctx: Any, to_x: Tensor | None, to_weight: Tensor | None) -> tuple[Tensor | None, ...]:
    """`convolution._Gradients.backward`."""
    (g, x, weight), (of_g, of_x, of_weight, *_) = ctx.saved_tensors, ctx.needs_input_grad
    second_g = to_output(to_x, to_weight, x, weight, ctx.setting) if of_g else None
    second_x = second_weight = None
    if to_weight is not None and of_x:
        second_x, _ = _back(g, x, to_weight, ctx.setting, True, False, WEIGHTS)
    if to_x is not None and of_weight and convolution.wanted(ctx, 2):
        _, second_weight = _back(g, to_x, weight, ctx.setting, False, True)
    return second_g, second_x, second_weight, None, None, None


def _scaled(x: Tensor, weight: Tensor, setting: Setting, on_x: float = 1.0, on_weight: float = 1.0) -> Tensor:
    y = _output(_half(x, on_x), _half(weight, on_weight), None, setting).float()
    return y if on_x * on_weight == 1 else y / (on_x * on_weight)


def _back(
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    setting: Setting,
    of_x: bool,
    of_weight: bool,
    on_weight: float = 1.0,
) -> tuple[Tensor | None, ...]:
    found = _gradients(_half(g, LOSS), _half(x), _half(weight, on_weight), setting, of_x, of_weight)
    scales = (LOSS * on_weight, LOSS)
    return tuple(None if t is None else t.float() / by for t, by in zip(found, scales, strict=True))


def _half(x: Tensor, scale: float = 1.0) -> Tensor:
    return (x if scale == 1 else x * scale).to(torch.half, memory_format=torch.channels_last)
