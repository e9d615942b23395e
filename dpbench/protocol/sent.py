"""Gradients as a training really sends them, read from the model or the optimiser that holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dpbench.protocol.errors import InputError

Names = tuple[str, ...]
Tensors = tuple[Tensor, ...]
Setting = dict[str, float]

_ROUNDING = 1e-6
"""Of the batch that several processes expect together."""
_LOOPS = ("accelerate", "lightning", "lightning_fabric", "pytorch_lightning")
"""Packages of training loops that put the user's optimiser into one of theirs, as its `optimizer`."""


def of_model(model: nn.Module) -> tuple[Names, Tensors]:
    """Names and `.grad` of all trainable parameters, detached copies; zero where there is no gradient.

    Raises:
        InputError: where no parameter has a gradient.
    """
    return of_parameters({name: p for name, p in bare(model).named_parameters() if p.requires_grad})


def of_parameters(held: Mapping[str, nn.Parameter]) -> tuple[Names, Tensors]:
    """Likewise of some parameters by name."""
    if not any(p.grad is not None for p in held.values()):
        raise InputError("The model holds no gradient: read it after `backward()` and before `zero_grad()`.")
    return tuple(held), tuple(_copied(p) for p in held.values())


def of_optimizer(optimizer: Any, model: nn.Module | None = None) -> tuple[Names, Tensors, int, Setting]:
    """What an Opacus `DPOptimizer` holds after its step.

    Args:
        optimizer: of flat clipping with one clip norm.
        model: whose parameters it steps; None where they are in the model's order, in one group.

    Returns:
        Names and noisy mean gradients of its trainable parameters, in the model's order if there is one; the
        expected batch, over all processes; and the parameters of a `dp` stage, those of `clip` without noise.

    Raises:
        InputError: for another optimiser, another kind of clipping, parameters whose order is not known,
            where the optimiser has not yet clipped and added its noise, where it steps a gradient that it
            did neither to, where it expects no whole number of images, and as `check_alone`.
    """
    check_kind(optimizer)
    _check_frozen(optimizer)
    trained = [p for p in optimizer.params if p.requires_grad]
    # Opacus marks the clipped sums once it has added noise; before that, `.grad` is the plain gradient
    if not all(getattr(getattr(p, "summed_grad", None), "_processed", False) for p in trained):
        raise InputError(
            "The optimiser has not added its noise yet: read the release after `step()` and before "
            "`zero_grad()`."
        )
    if optimizer.expected_batch_size is None:
        raise InputError(
            "The optimiser has no `expected_batch_size`, so the sum has no divisor: give it one."
        )
    # of several processes each expects its share, and the gradient is that of all of them
    shares = getattr(optimizer, "world_size", 1)
    expected = optimizer.expected_batch_size * optimizer.accumulated_iterations * shares
    count = round(expected)
    if count < 1 or not math.isclose(expected, count, rel_tol=_ROUNDING):
        raise InputError(
            f"The optimiser expects {expected:g} images in a batch, which is no whole number: give it one "
            "as `expected_batch_size`, rounded up so that the epsilon is not too small."
        )
    divisor = 1 if optimizer.loss_reduction == "mean" else count
    if model is not None:
        check_alone(model, optimizer)
        held = stepped(model, optimizer)
    elif len(optimizer.param_groups) == 1:
        held = {f"parameter {i}": p for i, p in enumerate(trained)}
    else:
        raise InputError(
            "The optimiser has several groups of parameters, whose order need not be the model's: give the "
            "`model`."
        )
    gradients = tuple(_copied(p) / divisor for p in held.values())
    setting = {"noise_multiplier": optimizer.noise_multiplier, "max_grad_norm": optimizer.max_grad_norm}
    return tuple(held), gradients, count, {name: float(value) for name, value in setting.items() if value}


def check_kind(optimizer: Any) -> None:
    """Raises InputError for what is not an Opacus optimiser whose noise and clip norm are what they say."""
    from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
    from opacus.optimizers.ddpoptimizer import DistributedDPOptimizer
    from opacus.optimizers.ddpoptimizer_fast_gradient_clipping import (
        DistributedDPOptimizerFastGradientClipping,
    )

    if not isinstance(optimizer, DPOptimizer):
        raise InputError(
            f"{type(optimizer).__name__} is no optimiser of Opacus: use "
            "`Release.from_gradients(model, batch_size=...)`."
        )
    if type(optimizer).__name__.startswith("FSDP"):
        raise InputError(
            f"{type(optimizer).__name__} holds a shard of each gradient and not the whole: train under "
            "DifferentiallyPrivateDistributedDataParallel, or in one process, for the step to be captured."
        )
    distributed = (DistributedDPOptimizer, DistributedDPOptimizerFastGradientClipping)
    flat = type(optimizer) in (DPOptimizer, DPOptimizerFastGradientClipping, *distributed)
    # Opacus' adaptive clipping changes the noise and the norm of an optimiser from outside
    if not flat or hasattr(optimizer, "_adjusted_noise_multiplier"):
        raise InputError(
            f"{type(optimizer).__name__} clips by another rule than one fixed norm for the whole gradient; "
            "dpbench knows no guarantee for it. Use `Release.from_gradients` and name its defence."
        )
    if type(optimizer) in distributed and optimizer.rank != 0:
        raise InputError("Only the process of rank 0 adds noise: read the release there.")


def _check_frozen(optimizer: Any) -> None:
    """Raises InputError for a frozen parameter with a gradient: it is stepped with it as it is."""
    held = [p for group in optimizer.param_groups for p in group["params"]]
    if any(not p.requires_grad and p.grad is not None and bool(p.grad.any()) for p in held):
        raise InputError(
            "A parameter was frozen between `backward()` and `step()`: the optimiser steps it with its plain "
            "gradient, neither clipped nor noised, so no epsilon holds. Freeze it before `backward()`."
        )


def check_alone(model: nn.Module, optimizer: Any, other: Any = None) -> None:
    """Raises InputError where another optimiser steps parameters of the model that this one does not.

    Where both are of Opacus, each clips its own part of a sample's gradient to C, so that both parts together
    move by up to sqrt(2) C.

    Args:
        model: whose parameters they step.
        optimizer: of Opacus.
        other: one that makes a step, if that is known; another one of Opacus is noticed without it.
    """
    own = stepped(model, optimizer)
    held = set() if other is None else {id(p) for group in other.param_groups for p in group["params"]}
    for name, parameter in bare(model).named_parameters():
        # a `DPOptimizer` gives the attribute to all its parameters as it is made
        another = id(parameter) in held or hasattr(parameter, "summed_grad")
        if name not in own and parameter.requires_grad and another:
            raise InputError(
                f"Another optimiser steps `{name}`, so more is sent than what this one clips to C, and its "
                "epsilon does not hold: step all parameters with one `DPOptimizer`, or freeze those that are "
                "not trained any more."
            )


def stepped(model: nn.Module, optimizer: Any) -> dict[str, nn.Parameter]:
    """The parameters of `model` that train and that `optimizer` steps, by name, in the model's order.

    Raises:
        InputError: where there are none, or where the optimiser steps others as well.
    """
    held = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    own = {id(p) for p in held}
    found = {name: p for name, p in bare(model).named_parameters() if id(p) in own}
    if not found or len(found) < len(own):
        raise InputError("The optimiser steps parameters that are not the model's: give the model it steps.")
    return found


def bare(model: Any) -> nn.Module:
    """`model` without what Opacus, DataParallel or torch.compile put around it.

    Example:
        >>> bare(nn.DataParallel(nn.Linear(2, 1)))
        Linear(in_features=2, out_features=1, bias=True)
    """
    while (name := _child(model)) is not None:
        model = getattr(model, name)
    return model


def bare_optimizer(optimizer: Any) -> Any:
    """`optimizer` without what Lightning or Accelerate put around it: both leave its gradients as they are.

    Example:
        >>> sgd = torch.optim.SGD([nn.Parameter(torch.ones(1))])
        >>> bare_optimizer(sgd) is sgd
        True
    """
    while type(optimizer).__module__.partition(".")[0] in _LOOPS and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def _child(model: Any) -> str | None:
    """The name of the module that a wrapper wraps; None for any other module."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return "module"
    if type(model).__module__.startswith("opacus."):
        # hooks that Opacus did not wrap the model in are no module themselves
        held = model._modules if isinstance(model, nn.Module) else vars(model)
        return next((name for name in ("_module", "module") if name in held), None)
    # by name: to import torch.compile's machinery takes seconds
    return "_orig_mod" if type(model).__name__ == "OptimizedModule" else None


def _copied(parameter: nn.Parameter) -> Tensor:
    gradient = parameter.grad
    return torch.zeros_like(parameter).detach() if gradient is None else gradient.detach().clone()
