"""One iteration as a pure function of tensors: gradient, Adam, Langevin noise, box, best so far.

Nothing in it waits for the device or depends on a value read from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attacks.engine.problem import Problem

RATE, FIRST, SECOND, LANGEVIN, FACTORS = 0, 1, 2, 3, 4
"""Columns of a schedule's row: see `schedule.Schedule.rows`."""


class State(NamedTuple):
    """State of a search; each list holds one tensor per variable.

    Attributes:
        variables: the current point.
        first: Adam's first moment.
        second: Adam's second moment.
        best: the point of the lowest objective so far.
        total: the objective there, a scalar; infinite before the first finite one.
        distance: the gradient distance there, a scalar.
        gradient: the last one, before its sign was taken.
    """

    variables: list[Tensor]
    first: list[Tensor]
    second: list[Tensor]
    best: list[Tensor]
    total: Tensor
    distance: Tensor
    gradient: list[Tensor]

    @classmethod
    def at(cls, start: Sequence[Tensor]) -> State:
        """The state before the first iteration."""
        copies = [[v.clone() for v in start] for _ in range(2)]
        zeros = [[torch.zeros_like(v) for v in start] for _ in range(3)]
        unknown = torch.full((), torch.inf, device=start[0].device, dtype=start[0].dtype)
        return cls(copies[0], zeros[0], zeros[1], copies[1], unknown, unknown.clone(), zeros[2])

    def flat(self) -> list[Tensor]:
        """All tensors in one list."""
        return [
            *(*self.variables, *self.first, *self.second, *self.best),
            *(self.total, self.distance, *self.gradient),
        ]

    @classmethod
    def unflat(cls, flat: Sequence[Tensor]) -> State:
        """The inverse of `flat`."""
        n = (len(flat) - 2) // 5
        groups = [list(flat[i * n : (i + 1) * n]) for i in range(4)]
        return cls(*groups, flat[4 * n], flat[4 * n + 1], list(flat[4 * n + 2 :]))


class Iteration(nn.Module):
    """Adam on `problem`; keeps the point of the lowest objective.

    A point where the objective is not finite is never kept, and what is not finite in its gradient is zero.

    Args:
        problem: what to minimise.
        signed: feed Adam the sign of the gradient (Geiping et al. 2020).
        betas: Adam's decay rates.
    """

    def __init__(self, problem: Problem, signed: bool, betas: tuple[float, float]) -> None:
        super().__init__()
        self.problem, self.signed = problem, signed
        self.register_buffer("betas", torch.tensor(betas, dtype=torch.float64))

    def forward(self, flat: list[Tensor], row: Tensor, labels: Tensor, noise: list[Tensor]) -> list[Tensor]:
        """The next state.

        Args:
            flat: `State.flat`.
            row: this iteration's row of the schedule, [FACTORS + regularisers].
            labels: int64 [B].
            noise: standard normal, one tensor per variable; empty where the schedule has no Langevin noise.
        """
        state = State.unflat(flat)
        variables = [v.detach().requires_grad_() for v in state.variables]
        with torch.enable_grad():
            distance, total, raw = self.problem.gradient(variables, labels, row[FACTORS:])
        with torch.no_grad():
            better = total < state.total  # False for NaN
            best = [torch.where(better, v, b) for v, b in zip(state.variables, state.best, strict=True)]
            gradient = [torch.nan_to_num(g, nan=0.0, posinf=0.0, neginf=0.0) for g in raw]
            first, second, moved = [], [], []
            decay = self.betas.to(row.dtype)
            for i, v in enumerate(state.variables):
                g = gradient[i].sign() if self.signed else gradient[i]
                first.append(state.first[i] + (1 - decay[0]) * (g - state.first[i]))
                second.append(state.second[i] + (1 - decay[1]) * (g * g - state.second[i]))
                step = (first[i] * row[FIRST]) / ((second[i] * row[SECOND]).sqrt() + 1e-8)
                if noise:
                    step = step - row[LANGEVIN] * noise[i]
                moved.append(v - row[RATE] * step)
            new = State(
                self.problem.variables.project(moved),
                first,
                second,
                best,
                torch.where(better, total, state.total),
                torch.where(better, distance, state.distance),
                gradient,
            )
        return new.flat()
