"""What changes from iteration to iteration, as a table with one row for each iteration."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """Step sizes and weights over a search. They are numbers, so a new schedule needs no new compilation.

    Attributes:
        rates: step sizes, float [iterations], in units of the variables.
        langevin: noise added to each step, in units of the step size (GradInversion's a_n); 0 is none.
        factors: [iterations, regularisers], what each one's weight is multiplied by; None is ones.
    """

    rates: Tensor
    langevin: float = 0.0
    factors: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rates)

    def rows(self, regularisers: int, betas: tuple[float, float], like: Tensor) -> Tensor:
        """[iterations, 4 + regularisers]: step size, Adam's two bias corrections, Langevin noise, factors."""
        n = len(self.rates)
        count = torch.arange(1, n + 1, dtype=torch.float64)
        factors = torch.ones(n, regularisers) if self.factors is None else self.factors
        columns = [
            self.rates.double().cpu(),
            *(1 / (1 - beta**count) for beta in betas),
            torch.full((n,), self.langevin, dtype=torch.float64),
        ]
        rows = torch.cat([torch.stack(columns, 1), factors.double().cpu()], 1)
        return rows.to(like.device, like.dtype)


def step_decay(rate: float, iterations: int) -> Tensor:
    """Step sizes float [iterations]: a tenth from 3/8, a hundredth from 5/8, a thousandth from 7/8 on.

    Geiping et al. 2020.

    Example:
        >>> step_decay(1.0, 8)
        tensor([1.0000, 1.0000, 1.0000, 0.1000, 0.1000, 0.0100, 0.0100, 0.0010])
    """
    drops = torch.tensor([iterations * k // 8 for k in (3, 5, 7)])
    return rate * 0.1 ** (torch.arange(iterations)[:, None] >= drops).sum(1).float()


def warm_cosine(rate: float, iterations: int, warmup: int = 50) -> Tensor:
    """Step sizes float [iterations]: linear over the warm-up, then a cosine down to zero.

    GradInversion (Yin et al. 2021); a warm-up longer than a tenth of the search is cut to that.

    Example:
        >>> warm_cosine(1.0, 20, warmup=2)[[0, 1, 2, 19]]
        tensor([0.5000, 1.0000, 1.0000, 0.0076])
    """
    warmup = min(warmup, iterations // 10)
    i = torch.arange(iterations)
    decay = 0.5 * (1 + torch.cos(math.pi * (i - warmup).clamp_min(0) / max(1, iterations - warmup)))
    return rate * decay * ((i + 1) / max(1, warmup)).clamp_max(1)
