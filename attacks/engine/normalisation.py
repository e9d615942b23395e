"""`batch_norm` in evaluation mode with a double backward of few passes over the activations.

There it is an affine map of each channel. Composed of autograd's own products, a product and a sum, and the
products of both backward passes, read and write the activations one by one; here they are joined.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.engine.convolution import wanted


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm`; PyTorch's own in training mode and without statistics, weights or biases."""
    if training or running_mean is None or running_var is None or weight is None or bias is None:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return _Affine.apply(input, weight, bias, running_mean, torch.rsqrt(running_var + eps))


class _Affine(torch.autograd.Function):
    """(x - mean) * rate * weight + bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rate: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, bias, mean, rate)
        scale = weight * rate
        return torch.addcmul(_over(x, bias - mean * scale), x, _over(x, scale))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rate = ctx.saved_tensors
        # a search's first pass goes to the parameters alone, its second one to the images
        asked = zip(ctx.needs_input_grad, (x, weight, bias), strict=False)
        of_x, of_weight, of_bias = (needed and wanted(v) for needed, v in asked)
        return *_Gradients.apply(g, x, weight, mean, rate, of_x, of_weight or of_bias), None, None


class _Gradients(torch.autograd.Function):
    """Of the input, and of the weights and the biases."""

    @staticmethod
    def forward(
        ctx: Any,
        g: Tensor,
        x: Tensor,
        weight: Tensor,
        mean: Tensor,
        rate: Tensor,
        of_x: bool,
        of_affine: bool,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        ctx.save_for_backward(g, x, weight, mean, rate)
        ctx.set_materialize_grads(False)
        to_x = g * _over(g, weight * rate) if of_x else None
        if not of_affine:
            return to_x, None, None
        to_bias = _sums(g)
        return to_x, (_sums(g * x) - mean * to_bias) * rate, to_bias

    @staticmethod
    def backward(
        ctx: Any, to_x: Tensor | None, to_weight: Tensor | None, to_bias: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        g, x, weight, mean, rate = ctx.saved_tensors
        second_g = second_x = second_weight = None
        if to_weight is not None:
            slope = to_weight * rate
            to_bias = -mean * slope if to_bias is None else to_bias - mean * slope
            second_x = g * _over(x, slope)
        if to_bias is not None:
            second_g = _over(g, to_bias).expand_as(g)
        if to_weight is not None:
            second_g = torch.addcmul(second_g, x, _over(x, slope))
        if to_x is not None:
            scale = _over(g, weight * rate)
            second_g = to_x * scale if second_g is None else torch.addcmul(second_g, to_x, scale)
            if ctx.needs_input_grad[2] and wanted(weight):
                second_weight = _sums(g * to_x) * rate
        return second_g, second_x, second_weight, None, None, None, None


def _sums(x: Tensor) -> Tensor:
    """Of each channel."""
    return x.sum([axis for axis in range(x.dim()) if axis != 1])


def _over(x: Tensor, values: Tensor) -> Tensor:
    """One value for each channel of `x`, to be broadcast over it."""
    return values.view(-1, *[1] * (x.dim() - 2))
