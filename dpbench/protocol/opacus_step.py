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
    """Raises InputError where ghost clipping clips to another norm than the noise is for, or not at all.

    Its model clips and its optimiser adds the noise, each by a C of its own. A scheduler changes only the
    optimiser's. The model's part is done by the loss that Opacus made, for the parameters that trained when
    Opacus wrapped it: another loss, or parameters that were unfrozen since, are noised but not clipped.

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
    ghosts = {id(hooks): hooks for hooks in opacus_hooks(model) if hasattr(hooks, "get_clipping_coef")}
    if not ghosts:
        raise InputError(
            f"{type(optimizer).__name__} leaves the clipping to a model that Opacus wrapped for ghost "
            "clipping, and this one is not, so nothing was clipped and no epsilon holds."
        )
    for hooks in ghosts.values():
        _check_clipped(optimizer, hooks)
        norm = hooks.max_grad_norm
        if not math.isclose(norm, optimizer.max_grad_norm, rel_tol=_TINY):
            raise InputError(
                f"Ghost clipping clips to {norm:g} in the model, and the optimiser adds noise for "
                f"{optimizer.max_grad_norm:g}, so its epsilon does not hold: schedulers of the clip norm "
                "change the optimiser alone. Use one clip norm throughout, or clip without ghost clipping."
            )


def _check_clipped(optimizer: Any, hooks: Any) -> None:
    """Raises InputError where ghost clipping left out a parameter, or the whole gradient of this step."""
    clipped = hooks.trainable_parameters
    if not {id(p) for p in optimizer.params if p.requires_grad} <= {id(p) for p in clipped}:
        raise InputError(
            "Under ghost clipping, parameters that are unfrozen after Opacus wrapped the model do not count "
            "for the norm that it clips to, so the epsilon does not hold: make the model private anew."
        )
    used = getattr(hooks, "per_sample_gradient_norms", None)  # by the last loss of Opacus
    found = [] if used is None else [p._norm_sample.to(used.device) for p in clipped]  # of the last pass
    same = bool(found) and all(norms.shape == used.shape for norms in found)
    if not same or not torch.equal(torch.stack(found).norm(2, dim=0), used):
        raise InputError(
            "Ghost clipping clips in the `backward()` of the loss that Opacus made, and this step was made "
            "with another, so nothing was clipped and no epsilon holds: use the criterion that "
            "`make_private` returns."
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
