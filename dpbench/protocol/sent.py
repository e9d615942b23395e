"""Gradients as a training really sends them, read from the model or the optimiser that holds them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dpbench.protocol.errors import InputError

_WRAPPERS = ("_module.", "module.", "_orig_mod.")
"""What Opacus, DistributedDataParallel and torch.compile put before a parameter's name."""


def of_model(model: nn.Module) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
    """Names and `.grad` of all trainable parameters, detached copies; zero where there is no gradient.

    Raises:
        InputError: where no parameter has a gradient.
    """
    held = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not any(p.grad is not None for _, p in held):
        raise InputError("The model holds no gradient: read it after `backward()` and before `zero_grad()`.")
    names = tuple(plain_name(name) for name, _ in held)
    return names, tuple(_copied(p) for _, p in held)


def of_optimizer(optimizer: Any) -> tuple[dict[str, float], int, tuple[Tensor, ...]]:
    """What an Opacus `DPOptimizer` holds after its step.

    Args:
        optimizer: of flat clipping with one clip norm.

    Returns:
        The parameters of its `dp` stage, its expected batch, and the noisy mean gradient of every trainable
        parameter.

    Raises:
        InputError: for another optimiser, another kind of clipping, or where the optimiser has not yet
            clipped and added its noise.
    """
    from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
    from opacus.optimizers.ddpoptimizer import DistributedDPOptimizer

    if not isinstance(optimizer, DPOptimizer):
        raise InputError(
            f"{type(optimizer).__name__} is no optimiser of Opacus: use "
            "`Release.from_gradients(model, batch_size=...)`."
        )
    if type(optimizer) not in (DPOptimizer, DPOptimizerFastGradientClipping, DistributedDPOptimizer):
        raise InputError(
            f"{type(optimizer).__name__} clips by another rule than one norm for the whole gradient; dpbench "
            "knows no guarantee for it. Use `Release.from_gradients` and name its defence."
        )
    trainable = [p for p in optimizer.params if p.requires_grad]
    # Opacus marks the clipped sums once it has added noise; before that, `.grad` is the plain gradient
    if not all(getattr(getattr(p, "summed_grad", None), "_processed", False) for p in trainable):
        raise InputError(
            "The optimiser has not added its noise yet: read the release after `step()` and before "
            "`zero_grad()`."
        )
    expected = optimizer.expected_batch_size
    if expected is None:
        raise InputError(
            "The optimiser has no `expected_batch_size`, so the sum has no divisor: give it one."
        )
    count = expected * optimizer.accumulated_iterations
    divisor = 1 if optimizer.loss_reduction == "mean" else count
    stage = {
        "noise_multiplier": float(optimizer.noise_multiplier),
        "max_grad_norm": float(optimizer.max_grad_norm),
    }
    return stage, count, tuple(_copied(p) / divisor for p in trainable)


def plain_name(name: str) -> str:
    """A parameter's name without what wrappers put before it.

    Example:
        >>> plain_name("_module.module.fc.weight")
        'fc.weight'
    """
    for prefix in _WRAPPERS * 2:
        name = name.removeprefix(prefix)
    return name


def numbered(gradients: Iterable[Tensor]) -> tuple[str, ...]:
    """Names for gradients whose parameters' names are not known."""
    return tuple(f"parameter {i}" for i, _ in enumerate(gradients))


def _copied(parameter: nn.Parameter) -> Tensor:
    gradient = parameter.grad
    return torch.zeros_like(parameter).detach() if gradient is None else gradient.detach().clone()
