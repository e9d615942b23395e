"""Gauss-Newton steps from where a search by Adam ended: many digits in few steps, near the answer.

The Jacobian of a gradient in the pixels is never formed: conjugate gradients take its products with vectors,
each for about the time of an iteration of Adam. Adam goes first, because far from the answer the linearised
problem says little.

The gradient of a layer jumps wherever one of its units switches on or off, and the first layer's with the
units nearest to the pixels. So its tensors are left out of the steps. In the update of several local steps
every layer jumps with them, because each step is taken at weights that the steps before it left. There the
ReLUs are rounded off (`engine.rectified`), ever less from step to step, and all tensors count. What the steps
end in has to do better by the whole objective, or Adam's point stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from attacks.engine.failures import of_the_card, out_of_memory
from attacks.engine.local_steps import Simulate
from attacks.engine.problem import Problem
from attacks.engine.rectified import Rounded
from attacks.engine.search import Found, Outcome
from attacks.engine.twice import twice_differentiable
from attacks.exact.newton import conjugate_gradients, linearised
from dpbench.protocol import full_precision

COUNT = 30
"""Conjugate gradients of a step; tuned, see docs/search.md."""
DAMPING = 1e-5
"""Weight of the squared step at first, in units of the objective for a step of one standard deviation."""
LENGTHS = (1.0, 0.5, 0.25, 0.1, 0.03, 0.01)
"""Shares of a step that are tried, until one lowers the sum of squares."""
STIFFEST = 1e6
"""Times the first damping at which it ends: no step lowers the sum any more."""
WIDEST, NARROWEST = 0.1, 0.003
"""Of an update: `width` of `Rounded` in the first step and in the last, in equal ratios between; tuned."""


def unfit(problem: Problem) -> str:
    """Why Gauss-Newton steps do not fit this problem; empty where they do.

    Objective and regularisers have to be sums of squares, and the trial gradient of the kind that was
    released; that of a `Surrogate` is only near it.
    """
    if problem.path is not None and not isinstance(problem.path, Simulate):
        return "`update` surrogate comes only near the update that was sent, and they would fit what is amiss"
    parts = (problem.objective, *problem.regularisers)
    if any(part is None or not part.squares for part in parts):
        return "this objective is no sum of squares"
    return ""


def finished(
    outcome: Outcome,
    problem: Problem,
    labels: Tensor,
    iterations: int,
    progress: Callable[[int, float], None] = lambda *_: None,
) -> tuple[Outcome, str]:
    """The outcome of a search, each start led on by Gauss-Newton steps.

    Args:
        outcome: where the search ended.
        problem: what it searched; not `unfit`.
        labels: int64 [B].
        iterations: conjugate gradients for each start.
        progress: told (iterations done over all starts, lowest objective so far).

    Returns:
        The outcome, and a sentence where the steps could not be taken; empty otherwise.
    """
    found, spent = [], 0
    for each in outcome.found:
        try:
            with full_precision(labels.device), twice_differentiable():
                better, count = _led_on(each, problem, labels, iterations)
        except RuntimeError as error:  # no third derivative, or no room for it
            if of_the_card(error) and not out_of_memory(error):
                raise
            reason = "memory ran out" if out_of_memory(error) else " ".join(str(error).split())[:120]
            left = outcome.found[len(found) :]
            ended = replace(outcome, found=(*found, *left), iterations=outcome.iterations + spent)
            return ended, f"Gauss-Newton steps at the end were left out for {len(left)} starts: {reason}."
        found.append(better)
        spent += count
        progress(len(found) * iterations, min(each.total for each in found))
    return replace(outcome, found=tuple(found), iterations=outcome.iterations + spent), ""


def _led_on(found: Found, problem: Problem, labels: Tensor, iterations: int) -> tuple[Found, int]:
    """One start's point after the steps if the objective is lower there, and the iterations spent."""
    residuals = _residuals(problem, labels, found.variables)
    flat, spent = _descend(residuals, problem, found.variables, iterations)
    point = _unflat(flat, found.variables)
    distance, total, _ = problem.gradient([v.detach().requires_grad_() for v in point], labels)
    if not float(total) < found.total:
        return found, spent
    ended = replace(
        found,
        variables=point,
        last=point,
        distance=float(distance),
        total=float(total),
        history=(*found.history, float(total)),
        steps=(*found.steps, found.steps[-1] + spent),
    )
    return ended, spent


def _descend(
    residuals: Callable[[Tensor], Tensor], problem: Problem, start: Sequence[Tensor], iterations: int
) -> tuple[Tensor, int]:
    """Damped steps, each of `COUNT` conjugate gradients and as long as the sum of squares falls."""
    point, damping, spent = _flat(start), DAMPING, 0
    for width in _widths(problem, iterations):
        if damping > STIFFEST * DAMPING:
            break
        with Rounded(width) if width else nullcontext():
            forth, back, values = linearised(residuals, point)
            total, count = float(values.square().sum()), min(COUNT, iterations - spent)
            step = conjugate_gradients(forth, back, values, count, damping)
            spent += count
            for length in LENGTHS:
                trial = _flat(problem.variables.project(_unflat(point + length * step, start)))
                if _sum(residuals, trial) < total:  # False for NaN
                    point = trial
                    damping *= 1 / 3 if length == 1 else 1 if length > 0.2 else 2
                    break
            else:
                damping *= 10
    return point, spent


def _widths(problem: Problem, iterations: int) -> list[float]:
    """How far ReLUs are rounded off in each step; 0 for not at all."""
    steps = -(-iterations // COUNT)
    if problem.path is None:
        return [0.0] * steps
    return torch.logspace(math.log10(WIDEST), math.log10(NARROWEST), steps).tolist()


def _residuals(problem: Problem, labels: Tensor, like: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
    """Of a point, those of the objective and of the regularisers, in one row.

    The first layer's are among them for an update only. A point holds variables like these, one after the
    other.
    """
    names = [name for name, p in problem.model.named_parameters() if p.requires_grad]
    first = names[0].rpartition(".")[0]
    kept = [problem.path is not None or name.rpartition(".")[0] != first for name in names]
    if not any(kept):
        kept = [True] * len(names)
    target = [problem.get_buffer(f"target{i}") for i in range(len(names))]
    target = [t if keep else torch.zeros_like(t) for t, keep in zip(target, kept, strict=True)]

    @torch.enable_grad()
    def residuals(point: Tensor) -> Tensor:
        variables = _unflat(point, like)
        z = problem.variables(variables)
        images = z * problem.std + problem.mean
        loss = problem.loss_of(problem.model(images), labels, variables) if problem.path is None else None
        made = problem.trial(variables, images, labels, loss)
        trial = [g if keep else t for g, t, keep in zip(made, target, kept, strict=True)]
        parts = [*problem.objective.residuals(trial, target), *(r.residuals(z) for r in problem.regularisers)]
        return torch.cat([part.flatten() for part in parts])

    return residuals


def _flat(variables: Sequence[Tensor]) -> Tensor:
    return torch.cat([v.flatten() for v in variables])


def _unflat(point: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = point.split([v.numel() for v in like])
    return [part.view_as(v) for part, v in zip(parts, like, strict=True)]


def _sum(residuals: Callable[[Tensor], Tensor], point: Tensor) -> float:
    return float(residuals(point).detach().square().sum())
