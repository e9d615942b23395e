"""`conv2d` with a double backward that computes only what is asked for.

PyTorch's own always computes the weights' second derivative, too: one convolution of seven, which no search
reads. The values are PyTorch's: each pass calls its convolutions, or for one small image the same sums as
`products`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attacks.engine import products
from attacks.engine.products import Setting

_backward = torch.ops.aten.convolution_backward.default


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | str | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    """`F.conv2d`; PyTorch's own where `padding` is a word or there is no batch, and under autocast.

    There the output has another precision than the weights, and the passes back are taken without autocast.
    """
    if isinstance(padding, str) or input.dim() != 4 or _autocast(input.device.type):
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    setting = (_pair(stride), _pair(padding), _pair(dilation), groups)
    return _Convolution.apply(input, weight, bias, setting)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, setting: Setting) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.setting = setting
        return _output(x, weight, bias, setting)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (of_x, of_weight, of_bias, _) = ctx.saved_tensors, ctx.needs_input_grad
        # a search's first pass goes to the parameters alone, its second one to the images
        of_x, of_weight = of_x and wanted(ctx, 0), of_weight and wanted(ctx, 1)
        along = _Gradients.apply(g, x, weight, ctx.setting, of_x, of_weight)
        return *along, g.sum((0, 2, 3)) if of_bias else None, None


class _Gradients(torch.autograd.Function):
    """Of the input and of the weights."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor, setting: Setting, of_x: bool, of_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        ctx.save_for_backward(g, x, weight)
        ctx.setting = setting
        ctx.set_materialize_grads(False)
        return _gradients(g, x, weight, setting, of_x, of_weight)

    @staticmethod
    def backward(ctx: Any, to_x: Tensor | None, to_weight: Tensor | None) -> tuple[Tensor | None, ...]:
        (g, x, weight), (of_g, of_x, of_weight, *_) = ctx.saved_tensors, ctx.needs_input_grad
        second_g = _to_output(to_x, to_weight, x, weight, ctx.setting) if of_g else None
        second_x = second_weight = None
        if to_weight is not None and of_x:
            second_x, _ = _gradients(g, x, to_weight, ctx.setting, True, False)
        if to_x is not None and of_weight and wanted(ctx, 2):
            _, second_weight = _gradients(g, to_x, weight, ctx.setting, False, True)
        return second_g, second_x, second_weight, None, None, None


def _to_output(
    to_x: Tensor | None, to_weight: Tensor | None, x: Tensor, weight: Tensor, setting: Setting
) -> Tensor | None:
    """The gradient of the output's cotangent: a convolution for each gradient that it led to."""
    if to_x is None or to_weight is None:
        parts = [(to_x, weight), (x, to_weight)]
        found = [_output(a, b, None, setting) for a, b in parts if a is not None and b is not None]
        return found[0] if found else None
    if joins(x, weight, setting[-1]):
        return torch.conv2d(torch.cat([to_x, x], 1), torch.cat([weight, to_weight], 1), None, *setting)
    return _output(to_x, weight, None, setting) + _output(x, to_weight, None, setting)


def joins(x: Tensor, weight: Tensor, groups: int) -> bool:
    """Whether one convolution of twice the channels is faster than two. It is on CPUs; no card was asked."""
    return groups == 1 and products.on_cpu(x) and weight.numel() <= x.numel()


def _output(x: Tensor, weight: Tensor, bias: Tensor | None, setting: Setting) -> Tensor:
    if not torch.is_grad_enabled() and products.serves(x, weight, setting):
        return products.output(x, weight, bias, setting)
    return torch.conv2d(x, weight, bias, *setting)


def _gradients(
    g: Tensor, x: Tensor, weight: Tensor, setting: Setting, of_x: bool, of_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    if not torch.is_grad_enabled() and products.serves(x, weight, setting):
        return products.gradients(g, x, weight, setting, of_x, of_weight)
    stride, padding, dilation, groups = setting
    of = [of_x, of_weight, False]
    return _backward(g, x, weight, None, stride, padding, dilation, False, [0, 0], groups, of)[:2]


def wanted(node: Any, number: int) -> bool:
    """Whether the backward pass that is running leads to the gradient of a Function's tensor `number`."""
    following, _ = node.next_functions[number]
    try:
        return following is not None and torch._C._will_engine_execute_node(following)
    except RuntimeError:  # a leaf that autograd.grad was asked for
        return True


def _autocast(device: str) -> bool:
    """Whether it is on; a kind of device that has none, such as `meta`, cannot be asked."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value) * (2 // len(value))
