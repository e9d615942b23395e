"""How long the gradients were that a step of Opacus clipped."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dpbench.protocol.accounted import opacus_hooks


def lengths(optimizer: Any, model: nn.Module | None) -> tuple[float, ...]:
    """The l2 norm of each gradient before it was clipped, in the order of the batch.

    Of a batch that was taken in parts, Opacus still holds those of the last part; of several processes, each
    holds its own.

    Args:
        optimizer: a `DPOptimizer` after its step, and before `zero_grad()`.
        model: the one it steps, which holds them under ghost clipping; None where it is not at hand.
    """
    from opacus.optimizers import DPOptimizerFastGradientClipping

    if isinstance(optimizer, DPOptimizerFastGradientClipping):
        hooks = () if model is None else opacus_hooks(model)
        found = next((h.per_sample_gradient_norms for h in hooks if hasattr(h, "get_clipping_coef")), None)
        return () if found is None else tuple(found.tolist())
    rows = (g.unsqueeze(-1).flatten(1) for g in optimizer.grad_samples)  # parameters may have no dimension
    each = [torch.linalg.vector_norm(g, dim=1).double().cpu() for g in rows]
    return tuple(torch.stack(each).norm(dim=0).tolist())
