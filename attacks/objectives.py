"""The distance between a trial gradient and the released one, and its closed-form cotangent.

The cotangent is d distance / d trial, which the second backward pass starts from. Written in closed form, it
needs no graph through the distance (about half of an iteration's operations for a ResNet). Objectives are
modules whose masks and weights are buffers, so that one compiled iteration serves searches with other values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

Gradients = Sequence[Tensor]
SOFTNESS = 0.1
"""Least width of `SoftClamp`, in root mean squares of the trial's tensor."""


def dot(a: Gradients, b: Gradients) -> Tensor:
    """Inner product over all tensors, a scalar."""
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()


def norms(gradients: Gradients) -> Tensor:
    """The l2 norm of each tensor, [tensors]; never below the smallest normal number."""
    squares = torch.stack([(g * g).sum() for g in gradients])
    return squares.sqrt().clamp_min(torch.finfo(squares.dtype).tiny)


class Target(list[Tensor]):
    """What a trial is compared with, and its norms, so that no iteration computes these once more.

    Attributes:
        norms: the l2 norm of each tensor, as `norms` gives it.
    """

    def __init__(self, gradients: Gradients, known: Tensor) -> None:
        super().__init__(gradients)
        self.norms = known


def target_norms(target: Gradients) -> Tensor:
    """As `norms`, without any work for a `Target`."""
    return target.norms if isinstance(target, Target) else norms(target)


def length(target: Gradients) -> Tensor:
    """The l2 norm of a whole target, a scalar."""
    return target_norms(target).square().sum().sqrt()


class Objective(nn.Module, ABC):
    """A distance between gradients that is differentiable in the first one.

    Attributes:
        squares: it is half a sum of squares: those of `residuals(trial, target)`, differentiable in `trial`.
        scale_free: the length of the trial plays no role.
    """

    squares = False
    scale_free = False

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
            weights = weights / (target_norms(target) * len(target))
        return weights @ lengths, [
            w * d for w, d in zip((weights / lengths).unbind(), difference, strict=True)
        ]


class Cosine(Objective):
    """1 - cosine similarity over all parameters at once (Geiping et al. 2020, eq. 4)."""

    squares = True
    scale_free = True

    def forward(self, trial: Gradients, target: Gradients) -> tuple[Tensor, list[Tensor]]:
        """Value in [0, 2] and cotangent (cos * trial / |trial| - target / |target|) / |trial|."""
        n, m = self._lengths(trial, target)
        cosine = dot(trial, target) / n / m
        # two factors and one pass; |trial|^3 would overflow float32 for gradients of norm 1e13
        own, other = cosine / n / n, 1 / n / m
        return 1 - cosine, [own * g - other * t for g, t in zip(trial, target, strict=True)]

    def residuals(self, trial: Gradients, target: Gradients) -> list[Tensor]:
        """The difference of the unit vectors."""
        n, m = self._lengths(trial, target)
        return [g / n - t / m for g, t in zip(trial, target, strict=True)]

    @staticmethod
    def _lengths(trial: Gradients, target: Gradients) -> tuple[Tensor, Tensor]:
        least = torch.finfo(trial[0].dtype).tiny ** 0.5  # of which the square is still a normal number
        n, m = dot(trial, trial).sqrt(), length(target)
        return n.clamp_min(least), m.clamp_min(least)


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

    scale_free = True

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

    scale_free = True

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, trial: Gradients, target: Gradients) -> tuple[Tensor, list[Tensor]]:
        """Value and cotangent."""
        tiny = torch.finfo(trial[0].dtype).tiny
        n, m = dot(trial, trial).sqrt().clamp_min(tiny), length(target)
        units = [g / n for g in trial]
        value, cotangent = self.objective([m * u for u in units], target)
        along = dot(cotangent, units)
        return value, [m * (v - along * u) / n for v, u in zip(cotangent, units, strict=True)]


class Clipped(Objective):
    """An objective after the trial is scaled down to a norm of at most `bound`, as a clip does.

    Where a clamp comes after the clip, the trial has to be as long as the release was when it was clamped.
    It is exact for one sample; of a batch, whose samples are clipped one by one, only the bound is kept.
    """

    def __init__(self, objective: Objective, bound: float) -> None:
        super().__init__()
        self.objective = objective
        self.register_buffer("bound", torch.tensor(bound, dtype=torch.float64))

    def forward(self, trial: Gradients, target: Gradients) -> tuple[Tensor, list[Tensor]]:
        """Value and cotangent; where the trial is scaled, less the component along it."""
        n = dot(trial, trial).sqrt().clamp_min(torch.finfo(trial[0].dtype).tiny)
        factor = (self.bound.to(n.dtype) / n).clamp(max=1)
        units = [g / n for g in trial]
        value, cotangent = self.objective([factor * g for g in trial], target)
        along = torch.where(factor < 1, dot(cotangent, units), 0.0)
        return value, [factor * (v - along * u) for v, u in zip(cotangent, units, strict=True)]


class SoftClamp(Objective):
    """An objective after every entry g of the trial became m g / sqrt(g^2 + w^2), a smooth clamp to +-m.

    For a release that was clamped to +-m, or is signs of size m. w is m, or 0 for signs, but not below
    `SOFTNESS` root mean squares of the trial's tensor: a hard clamp has no gradient where it acts, and
    without any the few large entries of the trial decide, of which the release has forgotten the size. The
    released entries that were not clamped become the same function of themselves.

    Args:
        objective: what compares.
        clamp: m of a clamp; None for signs, of whatever size: they are compared as +-1.
        softness: in root mean squares of the trial's tensor.
    """

    def __init__(self, objective: Objective, clamp: float | None, softness: float = SOFTNESS) -> None:
        super().__init__()
        self.objective, self.signs = objective, clamp is None
        self.register_buffer("clamp", torch.tensor(clamp or 0.0, dtype=torch.float64))
        self.register_buffer("softness", torch.tensor(softness, dtype=torch.float64))

    def forward(self, trial: Gradients, target: Gradients) -> tuple[Tensor, list[Tensor]]:
        """Value and cotangent, w being a function of the trial too."""
        clamp, softness = self.clamp.to(trial[0].dtype), self.softness.to(trial[0].dtype)
        tiny = torch.finfo(clamp.dtype).tiny ** 0.5
        soft = [softness * g.square().mean().sqrt() for g in trial]
        widths = [torch.maximum(w, clamp).clamp_min(tiny) for w in soft]
        units = [g / w for g, w in zip(trial, widths, strict=True)]
        size = 1.0 if self.signs else clamp
        lengths = [(1 + u.square()).sqrt() for u in units]
        if self.signs:
            target = [t.sign() for t in target]
        else:
            softened = [
                clamp * t / (t.square() + w.square()).sqrt() for t, w in zip(target, widths, strict=True)
            ]
            target = [torch.where(t.abs() < clamp, s, t) for t, s in zip(target, softened, strict=True)]
        value, cotangent = self.objective(
            [size * (u / d) for u, d in zip(units, lengths, strict=True)], target
        )
        found = []
        for w, s, u, d, v in zip(widths, soft, units, lengths, cotangent, strict=True):
            pulled = size * v / d**3  # with respect to u, which is g / w
            moving = softness.square() * (pulled * u).mean() * u
            inward = torch.where(s > clamp, pulled - moving, pulled) / w
            found.append(torch.where(w > tiny, inward, 0.0))
        return value, found


class Simulated(Objective):
    """An objective after the trial went through a defence, as an attacker can do who knows its code.

    Args:
        objective: what compares.
        defence: its `differentiable(gradients)` does to a gradient what it does to a release, and autograd
            can follow.
    """

    def __init__(self, objective: Objective, defence: Any) -> None:
        super().__init__()
        self.objective, self.defence = objective, defence

    def forward(self, trial: Gradients, target: Gradients) -> tuple[Tensor, list[Tensor]]:
        """Value and cotangent, zero for a tensor that the defence's answer does not depend on."""
        with torch.enable_grad():
            leaves = [g.detach().requires_grad_() for g in trial]
            made = self.defence.differentiable(leaves)
        value, cotangent = self.objective([g.detach() for g in made], target)
        followed = [i for i, g in enumerate(made) if g.requires_grad]
        if not followed:
            return value, [torch.zeros_like(g) for g in trial]
        pulled = torch.autograd.grad(
            [made[i] for i in followed], leaves, [cotangent[i] for i in followed], materialize_grads=True
        )
        return value, list(pulled)
