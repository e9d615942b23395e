"""An objective on the entries that a defence let through, and on what is known of the others."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.objectives import Gradients, Objective, dot, length


class Masked(Objective):
    """An objective on what a defence let through.

    Of the entries that were not sent either nothing is known, or a bound is: then as much as they exceed it
    by is compared with zero, so that a bound of 0 is the plain objective and a large one a mask.

    Args:
        objective: what compares.
        masks: what each entry of the trial is multiplied by, a tensor per parameter; 0 where it was not sent.
        bounds: the most that an entry of mask 0 is in size, on the release's scale, likewise or scalars; None
            where nothing is known.
    """

    def __init__(self, objective: Objective, masks: Gradients, bounds: Gradients | None = None) -> None:
        super().__init__()
        self.objective, self.squares, self.bounded = objective, objective.squares, bounds is not None
        self.count = len(masks)
        for i, mask in enumerate(masks):
            self.register_buffer(f"mask{i}", mask)
        for i, bound in enumerate(bounds or ()):
            self.register_buffer(f"bound{i}", bound)

    @property
    def masks(self) -> list[Tensor]:
        """One per parameter, what each entry of the trial is multiplied by."""
        return [self.get_buffer(f"mask{i}") for i in range(self.count)]

    def forward(self, trial: Gradients, target: Gradients) -> tuple[Tensor, list[Tensor]]:
        """Value and cotangent."""
        masks = self.masks
        sent = [g * m for g, m in zip(trial, masks, strict=True)]
        if not self.bounded:
            value, cotangent = self.objective(sent, target)
            return value, [v * m for v, m in zip(cotangent, masks, strict=True)]
        scale = self._scale(sent, target)
        beyond = self._beyond(trial, scale)
        value, cotangent = self.objective([s + b for s, b in zip(sent, beyond, strict=True)], target)
        found = [v * torch.where(b != 0, 1.0, m) for v, m, b in zip(cotangent, masks, beyond, strict=True)]
        if not self.objective.scale_free:
            return value, found
        # the bounds grow with what of the trial was sent
        pulled = [
            (v * b.sign() * self.get_buffer(f"bound{i}")).sum()
            for i, (v, b) in enumerate(zip(cotangent, beyond, strict=True))
        ]
        along = torch.stack(pulled).sum() * scale / dot(sent, sent).clamp_min(torch.finfo(scale.dtype).tiny)
        return value, [f - along * m * s for f, m, s in zip(found, masks, sent, strict=True)]

    def residuals(self, trial: Gradients, target: Gradients) -> list[Tensor]:
        """Those of the objective."""
        sent = [g * m for g, m in zip(trial, self.masks, strict=True)]
        if self.bounded:
            beyond = self._beyond(trial, self._scale(sent, target))
            sent = [s + b for s, b in zip(sent, beyond, strict=True)]
        return self.objective.residuals(sent, target)

    def _scale(self, sent: Gradients, target: Gradients) -> Tensor:
        """How many times as long as the release the trial is, where the objective does not mind."""
        if not self.objective.scale_free:
            return torch.ones_like(target[0].sum())
        tiny = torch.finfo(target[0].dtype).tiny
        return dot(sent, sent).sqrt() / length(target).clamp_min(tiny)

    def _beyond(self, trial: Gradients, scale: Tensor) -> list[Tensor]:
        """What entries that were not sent exceed their bounds by; 0 elsewhere."""
        found = []
        for i, (g, mask) in enumerate(zip(trial, self.masks, strict=True)):
            bound = scale * self.get_buffer(f"bound{i}")
            found.append(torch.where(mask == 0, g - torch.clamp(g, -bound, bound), 0.0))
        return found
