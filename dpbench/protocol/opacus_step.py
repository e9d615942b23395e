"""Whether a step of Opacus clipped to the norm, and added the noise, that its optimiser says."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from dpbench.protocol.accounted import Accounted, opacus_hooks
from dpbench.protocol.errors import InputError

_TINY = 1e-6
_DEVIATIONS = 5.0
"""Standard errors by which the noise that was drawn may differ from its level, and 2 % beside them."""


def check_norm(optimizer: Any, model: nn.Module | None) -> None:
    """Raises InputError where ghost clipping clips to another norm than the noise is for, or none is known.

    Its model clips and its optimiser adds the noise, each by a C of its own. A scheduler changes only the
    optimiser's.

    Args:
        optimizer: a `DPOptimizer`.
        model: the one it steps; None where it is not at hand.
    """
    from opacus.optimizers import DPOptimizerFastGradientClipping

    if not isinstance(optimizer, DPOptimizerFastGradientClipping):
        return
    if model is None:
        raise InputError(
            "Under ghost clipping the model holds the clip norm: give the `model`, as Opacus made it."
        )
    for hooks in opacus_hooks(model):
        norm = getattr(hooks, "max_grad_norm", optimizer.max_grad_norm)
        if not math.isclose(norm, optimizer.max_grad_norm, rel_tol=_TINY):
            raise InputError(
                f"Ghost clipping clips to {norm:g} in the model, and the optimiser adds noise for "
                f"{optimizer.max_grad_norm:g}, so its epsilon does not hold: schedulers of the clip norm "
                "change the optimiser alone. Use one clip norm throughout, or clip without ghost clipping."
            )


def check_noise(optimizer: Any) -> None:
    """Raises InputError where a step added another amount of noise than sigma times C of the optimiser.

    Schedulers change both after a step. Of several processes none has the sum of all before the noise.

    Args:
        optimizer: a `DPOptimizer` after its step.
    """
    level = optimizer.noise_multiplier * optimizer.max_grad_norm
    trained = [p for p in optimizer.params if p.requires_grad]
    if level == 0 or getattr(optimizer, "world_size", 1) > 1 or any(p.grad is None for p in trained):
        return
    mean = optimizer.loss_reduction == "mean"
    divisor = optimizer.expected_batch_size * optimizer.accumulated_iterations if mean else 1
    squares, entries, rounding = 0.0, 0, 0.0
    for p in trained:
        noised, clipped = p.grad.detach().double() * divisor, p.summed_grad.double().view_as(p)
        squares += float((noised - clipped).square().sum())
        entries += p.numel()
        rounding = max(rounding, 2 * torch.finfo(p.dtype).eps * float(noised.abs().max()))
    found = math.sqrt(squares / entries)
    room = _DEVIATIONS / math.sqrt(2 * entries) + 0.02
    if not (1 - room) * level - rounding <= found <= (1 + room) * level + rounding:
        raise InputError(
            f"The step added {found / level:.3g} times the noise that sigma {optimizer.noise_multiplier:g} "
            f"and C {optimizer.max_grad_norm:g} of the optimiser make: read the release before a scheduler "
            "changes them, and before anything else changes the gradient; `capture` reads it in time."
        )


def check_counted(optimizer: Any, known: Accounted | None) -> None:
    """Raises InputError where the accountant counted the step with another sigma than the optimiser has now.

    Of several processes, in which the noise cannot be measured, this alone shows that a scheduler came first.

    Args:
        optimizer: a `DPOptimizer` after its step.
        known: what its accountant was told; None where none counts.
    """
    if known is not None and not math.isclose(known.steps[-1][0], optimizer.noise_multiplier, rel_tol=_TINY):
        raise InputError(
            f"Opacus counted the step with sigma {known.steps[-1][0]:g}, and the optimiser has "
            f"{optimizer.noise_multiplier:g} now: read the release before a scheduler changes it; `capture` "
            "reads it in time."
        )
