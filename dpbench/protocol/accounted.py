"""What Opacus' accountant was told of a training, and whether its batches were drawn as it assumes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from dpbench.protocol.sent import bare


@dataclass(frozen=True)
class Accounted:
    """The training of a release, as Opacus' `PrivacyEngine` knows it.

    Attributes:
        steps: (sigma, sample rate q, number of steps) for each stretch of equal steps so far, in their order;
            the last one has the step that was read.
        poisson: whether the engine drew the batches by Poisson sampling; None where it is not known.
    """

    steps: tuple[tuple[float, float, int], ...]
    poisson: bool | None


def accounted(optimizer: Any, model: nn.Module | None) -> Accounted | None:
    """What is known of the training behind an Opacus optimiser that has made a step.

    Args:
        optimizer: a `DPOptimizer`.
        model: the one it steps, wrapped by Opacus or not; None where it is not at hand.

    Returns:
        None where no accountant of Opacus counts the steps.
    """
    from opacus.accountants.accountant import IAccountant

    if not inspect.isfunction(optimizer.step_hook):
        return None
    # the hook of `IAccountant.get_optimizer_hook_fn` holds the accountant, and nothing else does
    accountant = inspect.getclosurevars(optimizer.step_hook).nonlocals.get("self")
    if not isinstance(accountant, IAccountant) or not accountant.history:
        return None
    steps = tuple((float(sigma), float(rate), int(count)) for sigma, rate, count in accountant.history)
    # an engine forbids its hooks to accumulate gradients just where it samples by Poisson
    allowed = [
        hooks.grad_accumulation_allowed
        for hooks in ([] if model is None else opacus_hooks(model))
        if hasattr(hooks, "grad_accumulation_allowed")
    ]
    return Accounted(steps, not any(allowed) if allowed else None)


def opacus_hooks(model: nn.Module) -> Iterator[Any]:
    """What of Opacus computes the per-sample gradients of a model: the owners of the hooks in it."""
    for module in bare(model).modules():
        for hooks in (module._forward_hooks, module._backward_hooks):
            yield from (owner for hook in hooks.values() if (owner := owner_in_opacus(hook)) is not None)


def owner_in_opacus(hook: Any) -> Any:
    """The object of Opacus that a hook is a method of; None for any other hook.

    Example:
        >>> owner_in_opacus(nn.Linear(1, 1).forward)
    """
    if isinstance(hook, functools.partial):
        hook = hook.func
    owner = getattr(hook, "__self__", None)
    return owner if type(owner).__module__.startswith("opacus.") else None
