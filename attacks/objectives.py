"""How far a trial gradient is from the released one: the value and its closed-form cotangent.

The cotangent d value / d trial is what the double backward needs; written out, it saves building a second
graph through the distance (about half of the operations of an iteration for a ResNet).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from dpbench.protocol import Release

Gradients = Sequence[Tensor]


def dot(a: Gradients, b: Gradients) -> Tensor:
    """Inner product over all tensors, a scalar."""
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()


class Objective(ABC):
    """A distance between gradients that is differentiable in the first one."""

    @abstractmethod
    def __call__(self, trial: Gradients, target: Gradients) -> tuple[Tensor, list[Tensor]]:
        """The value (a scalar) and the cotangent (d value / d trial, one tensor per parameter)."""


class SquaredL2(Objective):
    """sum over all parameters of (trial - target)^2 (DLG, Zhu et al. 2019, eq. 5)."""

    def __call__(self, trial: Gradients, target: Gradients) -> tuple[Tensor, list[Tensor]]:
        """Value and cotangent 2 (trial - target)."""
        difference = [g - t for g, t in zip(trial, target, strict=True)]
        return dot(difference, difference), [2 * d for d in difference]


class Cosine(Objective):
    """1 - cosine similarity over all parameters at once (Geiping et al. 2020, eq. 4)."""

    def __call__(self, trial: Gradients, target: Gradients) -> tuple[Tensor, list[Tensor]]:
        """Value in [0, 2] and cotangent (cos * trial / |trial| - target / |target|) / |trial|."""
        tiny = torch.finfo(trial[0].dtype).tiny
        n, m = dot(trial, trial).sqrt().clamp_min(tiny), dot(target, target).sqrt().clamp_min(tiny)
        # Unit vectors first: |trial|^3 overflows float32 for gradients of norm 1e13.
        units, goals = [g / n for g in trial], [t / m for t in target]
        cosine = dot(units, goals)
        return 1 - cosine, [(cosine * u - t) / n for u, t in zip(units, goals, strict=True)]


class FittedScale(Objective):
    """Squared distance to the best multiple of the trial: what is left to match once clipping hid the norm.

    min over s of |s * trial - target|^2; by the envelope theorem s counts as a constant in the cotangent.
    """

    def __call__(self, trial: Gradients, target: Gradients) -> tuple[Tensor, list[Tensor]]:
        """Value and cotangent 2 s (s * trial - target)."""
        tiny = torch.finfo(trial[0].dtype).tiny
        scale = dot(trial, target) / dot(trial, trial).clamp_min(tiny)
        difference = [scale * g - t for g, t in zip(trial, target, strict=True)]
        return dot(difference, difference), [2 * scale * d for d in difference]


class Masked(Objective):
    """An objective on the entries that pruning left: the release's zeros say little of the images."""

    def __init__(self, objective: Objective, masks: Gradients) -> None:
        self.objective, self.masks = objective, masks

    def __call__(self, trial: Gradients, target: Gradients) -> tuple[Tensor, list[Tensor]]:
        """Value on the support; the cotangent is zero off it."""
        value, cotangent = self.objective([g * m for g, m in zip(trial, self.masks, strict=True)], target)
        return value, [v * m for v, m in zip(cotangent, self.masks, strict=True)]


def adapt(objective: Objective, release: Release) -> Objective:
    """The objective that knows the defence: fitted scale after clipping, the support after pruning.

    Gaussian noise needs no change: squared distance is its likelihood already. The cosine ignores the scale,
    so clipping does not change it either.
    """
    stages = {stage.name: stage for stage in release.defense}
    clip = stages.get("clip") or stages.get("dp")
    if clip and isinstance(objective, SquaredL2):
        norm = dot(release.gradients, release.gradients).sqrt()
        # A single sample whose release is shorter than C was not clipped, and its norm says something.
        untouched = clip.name == "clip" and release.batch_size == 1 and len(stages) == 1
        if not (untouched and norm < (1 - 1e-4) * clip.parameters["max_grad_norm"]):
            objective = FittedScale()
    if release.defense and release.defense[-1].name == "prune":
        objective = Masked(objective, [(g != 0).to(g.dtype) for g in release.gradients])
    return objective
