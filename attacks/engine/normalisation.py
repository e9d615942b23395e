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

_backward = torch.ops.aten.native_batch_norm_backward.default


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
    return _Affine.apply(input, weight, bias, running_mean, running_var, eps)


class _Affine(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        out, *saved = torch.ops.aten.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, eps)
        ctx.save_for_backward(x, weight, mean, variance, *saved)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        # a search's first pass goes to the parameters alone, its second one to the images
        of_affine = wanted(ctx, 1) or wanted(ctx, 2)
        found = _Gradients.apply(g, *ctx.saved_tensors, ctx.eps, wanted(ctx, 0), of_affine)
        return *found, None, None, None


class _Gradients(torch.autograd.Function):
    """Of the input, and of the weights and the biases."""

    @staticmethod
    def forward(
        ctx: Any,
        g: Tensor,
        x: Tensor,
        weight: Tensor,
        mean: Tensor,
        variance: Tensor,
        saved_mean: Tensor,
        saved_rate: Tensor,
        eps: float,
        of_x: bool,
        of_affine: bool,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        ctx.save_for_backward(g, x, weight, mean, variance)
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        if not of_affine:
            return g * _over(g, weight * torch.rsqrt(variance + eps)) if of_x else None, None, None
        of = [of_x, True, True]
        # a graphics card insists on what the forward pass saved, though in evaluation mode it is empty
        found = _backward(g, x, weight, mean, variance, saved_mean, saved_rate, False, eps, of)
        return found[0] if of_x else None, *found[1:]

    @staticmethod
    def backward(
        ctx: Any, to_x: Tensor | None, to_weight: Tensor | None, to_bias: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        g, x, weight, mean, variance = ctx.saved_tensors
        rate = torch.rsqrt(variance + ctx.eps)
        second_g = second_x = second_weight = None
        if to_weight is not None:
            slope = to_weight * rate
            to_bias = -mean * slope if to_bias is None else to_bias - mean * slope
            second_x, second_g = g * _over(g, slope), x * _over(x, slope)
        if to_x is not None:
            along = to_x * _over(g, weight * rate)
            second_g = along if second_g is None else second_g.add_(along)
            if wanted(ctx, 2):
                second_weight = (g * to_x).sum([axis for axis in range(g.dim()) if axis != 1]) * rate
        if to_bias is not None:
            to_bias = _over(g, to_bias)
            second_g = to_bias.expand_as(g) if second_g is None else second_g.add_(to_bias)
        return second_g, second_x, second_weight, *[None] * 7


def _over(x: Tensor, values: Tensor) -> Tensor:
    """One value for each channel of `x`, to be broadcast over it."""
    return values.view(-1, *[1] * (x.dim() - 2))
