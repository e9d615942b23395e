"""The distance between a trial gradient and the released one, and its closed-form cotangent.

The cotangent is d distance / d trial, which the second backward pass starts from. Written in closed form, it
needs no graph through the distance (about half of an iteration's operations for a ResNet). Objectives are
modules whose masks and weights are buffers, so that one compiled iteration serves searches with other values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dpbench.protocol import Release

Gradients = Sequence[Tensor]


def dot(a: Gradients, b: Gradients) -> Tensor:
    """Inner product over all tensors, a scalar."""
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()


def norms(gradients: Gradients) -> Tensor:
    """The l2 norm of each tensor, [tensors]; never below the smallest normal number."""
    squares = torch.stack([(g * g).sum() for g in gradients])
    return squares.sqrt().clamp_min(torch.finfo(squares.dtype).tiny)


class Objective(nn.Module, ABC):
    """A distance between gradients that is differentiable in the first one."""

    @abstractmethod
    def forward(self, trial: Gradients, target: Gradients) -> tuple[Tensor, list[Tensor]]:
        """The value (a scalar) and the cotangent (d value / d trial, one tensor per parameter)."""


class SquaredL2(Objective):
    """sum over all parameters of (trial - target)^2 (DLG, Zhu et al. 2019, eq. 5)."""

    def forward(self, trial: Gradients, target: Gradients) -> tuple[Tensor, list[Tensor]]:
        """Value and cotangent 2 (trial - target)."""
        difference = [g - t for g, t in zip(trial, target, strict=True)]
        return dot(difference, difference), [2 * d for d in difference]


class LayerL2(Objective):
    """weight * sum over tensors of |trial - target|, the norms not squared (GradInversion, eq. 3).

    With `relative` each norm is divided by the target's norm and averaged over the tensors, so that one
    weight suits any network; without, it is the paper's sum.
    """

    def __init__(self, weight: float = 1.0, relative: bool = False) -> None:
        super().__init__()
        self.relative = relative
        self.register_buffer("weight", torch.tensor(float(weight)))

    def forward(self, trial: Gradients, target: Gradients) -> tuple[Tensor, list[Tensor]]:
        """Value and cotangent weight_l (trial - target) / |trial - target|."""
        difference = [g - t for g, t in zip(trial, target, strict=True)]
        lengths = norms(difference)
        weights = self.weight.to(lengths.dtype).expand_as(lengths)
        if self.relative:
            weights = weights / (norms(target) * len(target))
        return weights @ lengths, [
            w * d for w, d in zip((weights / lengths).unbind(), difference, strict=True)
        ]


class Cosine(Objective):
    """1 - cosine similarity over all parameters at once (Geiping et al. 2020, eq. 4)."""

    def forward(self, trial: Gradients, target: Gradients) -> tuple[Tensor, list[Tensor]]:
        """Value in [0, 2] and cotangent (cos * trial / |trial| - target / |target|) / |trial|."""
        tiny = torch.finfo(trial[0].dtype).tiny
        n, m = dot(trial, trial).sqrt().clamp_min(tiny), dot(target, target).sqrt().clamp_min(tiny)
        # Unit vectors first: |trial|^3 overflows float32 for gradients of norm 1e13.
        units, targets = [g / n for g in trial], [t / m for t in target]
        cosine = dot(units, targets)
        return 1 - cosine, [(cosine * u - t) / n for u, t in zip(units, targets, strict=True)]


class Scaled(Objective):
    """An objective times a weight."""

    def __init__(self, objective: Objective, weight: float) -> None:
        super().__init__()
        self.objective = objective
        self.register_buffer("weight", torch.tensor(float(weight)))

    def forward(self, trial: Gradients, target: Gradients) -> tuple[Tensor, list[Tensor]]:
        """Value and cotangent, both times the weight."""
        value, cotangent = self.objective(trial, target)
        weight = self.weight.to(value.dtype)
        return weight * value, [weight * v for v in cotangent]


class FittedScale(Objective):
    """Squared distance of the target to the closest multiple of the trial, for releases of unknown scale.

    min over s of |s * trial - target|^2; by the envelope theorem s is a constant in the cotangent.
    """

    def forward(self, trial: Gradients, target: Gradients) -> tuple[Tensor, list[Tensor]]:
        """Value and cotangent 2 s (s * trial - target)."""
        tiny = torch.finfo(trial[0].dtype).tiny
        scale = dot(trial, target) / dot(trial, trial).clamp_min(tiny)
        difference = [scale * g - t for g, t in zip(trial, target, strict=True)]
        return dot(difference, difference), [2 * scale * d for d in difference]


class MatchedNorm(Objective):
    """An objective after the trial is rescaled to the target's norm, for releases of unknown scale.

    With v the objective's cotangent at |target| / |trial| * trial, the cotangent is |target| / |trial| times
    v less its component along the trial.
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, trial: Gradients, target: Gradients) -> tuple[Tensor, list[Tensor]]:
        """Value and cotangent."""
        tiny = torch.finfo(trial[0].dtype).tiny
        n, m = dot(trial, trial).sqrt().clamp_min(tiny), dot(target, target).sqrt()
        units = [g / n for g in trial]
        value, cotangent = self.objective([m * u for u in units], target)
        along = dot(cotangent, units)
        return value, [m * (v - along * u) / n for v, u in zip(cotangent, units, strict=True)]


class Masked(Objective):
    """An objective on the entries that pruning kept: the zeros it put in say little about the images."""

    def __init__(self, objective: Objective, masks: Gradients) -> None:
        super().__init__()
        self.objective = objective
        for i, mask in enumerate(masks):
            self.register_buffer(f"mask{i}", mask)

    @property
    def masks(self) -> list[Tensor]:
        """One per parameter, ones and zeros."""
        return list(self.buffers(recurse=False))

    def forward(self, trial: Gradients, target: Gradients) -> tuple[Tensor, list[Tensor]]:
        """Value on the support; the cotangent is zero off it."""
        masks = self.masks
        value, cotangent = self.objective([g * m for g, m in zip(trial, masks, strict=True)], target)
        return value, [v * m for v, m in zip(cotangent, masks, strict=True)]


def adapt(objective: Objective, release: Release) -> Objective:
    """The objective adapted to the defence: scale-free after clipping, on the support after pruning.

    Gaussian noise changes no distance: the squared one is its negative log-likelihood, and so is the cosine
    for a trial of the right norm. How much a prior weighs beside it does follow from the noise: see
    `gaussian_prior.nat_weight`. The cosine ignores the scale, so clipping does not change it either.
    """
    stages = {stage.name: stage for stage in release.defense}
    clip = stages.get("clip") or stages.get("dp")
    if clip and isinstance(objective, SquaredL2 | LayerL2):
        norm = dot(release.gradients, release.gradients).sqrt()
        # One sample's release of a norm below C was not clipped: its norm is the gradient's own.
        untouched = clip.name == "clip" and release.batch_size == 1 and len(stages) == 1
        if not (untouched and norm < (1 - 1e-4) * clip.parameters["max_grad_norm"]):
            objective = FittedScale() if isinstance(objective, SquaredL2) else MatchedNorm(objective)
    if release.defense and release.defense[-1].name == "prune":
        objective = Masked(objective, [(g != 0).to(g.dtype) for g in release.gradients])
    return objective
