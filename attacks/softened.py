"""An objective on gradients whose large entries count for less."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attacks.adaptation import EXACT, NOISY
from attacks.gaussian_prior import UNDEFENDED, nat_weight
from attacks.objectives import Gradients, Objective
from dpbench.protocol import Release

TOLD = EXACT | NOISY | {"prune", "topk", "soteria"}
"""Stages of which the prior's weight says how large the errors are."""
SMALL = 2
"""Up to so many times the weight of an exact release small entries are right enough to be softened; tuned."""
LOUD = 2.5
"""`outpost_noise` from which large entries are the wrong ones; tuned."""


class Softened(Objective):
    """An objective after every entry g of trial and target became g / sqrt(g^2 + w^2), a smooth clamp to +-1.

    w is the root mean square of the entry's tensor. A few large entries make up most of a gradient's
    length, and each tensor has a scale of its own. So most entries, whole layers among them, decide next to
    nothing of a plain distance. Here they do, and the scale of no tensor matters.

    Args:
        objective: what compares.
    """

    scale_free = True

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective, self.squares = objective, objective.squares

    def forward(self, trial: Gradients, target: Gradients) -> tuple[Tensor, list[Tensor]]:
        """Value and cotangent, w being a function of the trial too."""
        units, widths, lengths = _units(trial)
        softened = [u / d for u, d in zip(units, lengths, strict=True)]
        value, cotangent = self.objective(softened, _softened(target))
        found = []
        for u, w, d, v in zip(units, widths, lengths, cotangent, strict=True):
            pulled = v / d**3  # with respect to u, which is g / w
            inward = (pulled - (pulled * u).mean() * u) / w
            found.append(torch.where(w > _least(w), inward, 0.0))
        return value, found

    def residuals(self, trial: Gradients, target: Gradients) -> list[Tensor]:
        """Those of the objective."""
        return self.objective.residuals(_softened(trial), _softened(target))


def pays(release: Release) -> bool:
    """Whether softening brought tuning images nearer under such a defence.

    It does where the errors of small entries are small beside them, and where those of large entries are not.
    """
    names = [stage.name for stage in release.defense]
    if names and EXACT.issuperset(names[:-1]):
        last, given = names[-1], release.defense[-1].parameters
        if last in ("percentile", "censor"):  # no large entries; nothing of the image
            return True
        if last == "quantize":
            return given["quantize_bits"] == 1  # all entries that were sent are of one size
        if last == "outpost":
            return given["outpost_noise"] >= LOUD
    return TOLD.issuperset(names) and nat_weight(release) <= SMALL * UNDEFENDED


def may_not_pay(stages: Sequence[str]) -> bool:
    """Whether `pays` looks at what such a defence did, rather than be true whatever that was."""
    return not (EXACT | {"censor"}).issuperset(stages)


def _softened(gradients: Gradients) -> list[Tensor]:
    units, _, lengths = _units(gradients)
    return [u / d for u, d in zip(units, lengths, strict=True)]


def _units(gradients: Gradients) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Entries in units of w, w, and sqrt(1 + u^2) of these entries u."""
    widths = [g.square().mean().sqrt().clamp_min(_least(g)) for g in gradients]
    units = [g / w for g, w in zip(gradients, widths, strict=True)]
    return units, widths, [(1 + u.square()).sqrt() for u in units]


def _least(like: Tensor) -> float:
    """A number of which the square is still normal."""
    return torch.finfo(like.dtype).tiny ** 0.5
