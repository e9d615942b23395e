"""The plain backend: PyTorch operations one by one, no host synchronisation but for progress."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.base import Progress, channel_statistics
from attacks.engine.problem import Problem

REPORTS = 100
"""How often a search reports, at most; each report waits for the device once."""


@dataclass(frozen=True)
class Found:
    """A search's best point: normalised pixels, distance and distance plus priors there, and the trace."""

    z: Tensor
    distance: float
    total: float
    history: tuple[float, ...]


def adam(
    problem: Problem,
    start: Tensor,
    labels: Tensor,
    learning_rates: Tensor,
    *,
    signed: bool,
    progress: Progress,
    betas: tuple[float, float] = (0.9, 0.999),
) -> Found:
    """Adam on normalised pixels, boxed to images in [0, 1]; keeps the point of the lowest objective.

    Args:
        problem: what to minimise.
        start: normalised pixels [B, C, H, W].
        labels: int64 [B].
        learning_rates: one step size per iteration, float [iterations], in units of a channel's deviation.
        signed: feed Adam the sign of the gradient (Geiping et al. 2020).
        progress: told (done, all, best objective so far).
        betas: Adam's decay rates.

    Points where the objective is not finite are never kept and their gradient counts as zero.
    """
    mean, std = channel_statistics(problem.knowledge, start)
    low, high = (0 - mean) / std, (1 - mean) / std
    z = start.clone().requires_grad_()
    first, second = torch.zeros_like(start), torch.zeros_like(start)
    best = start.clone()
    best_total = best_distance = torch.full((), torch.inf, device=start.device, dtype=start.dtype)
    every, history = max(1, len(learning_rates) // REPORTS), []
    for i, rate in enumerate(learning_rates):
        distance, total, (way,) = problem.gradient([z], labels)
        with torch.no_grad():
            better = total < best_total  # False for NaN
            best = torch.where(better, z, best)
            best_total = torch.where(better, total, best_total)
            best_distance = torch.where(better, distance, best_distance)
            way = way.sign() if signed else way
            way = torch.nan_to_num(way, nan=0.0, posinf=0.0, neginf=0.0)
            first.lerp_(way, 1 - betas[0])
            second.lerp_(way * way, 1 - betas[1])
            step = (first / (1 - betas[0] ** (i + 1))) / ((second / (1 - betas[1] ** (i + 1))).sqrt() + 1e-8)
            z.copy_(torch.clamp(z - rate * step, low, high))
        if i % every == 0 or i + 1 == len(learning_rates):
            history.append(float(best_total))
            progress(i + 1, len(learning_rates), history[-1])
    return Found(best, float(best_distance), float(best_total), tuple(history))
