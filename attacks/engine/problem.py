"""One attack's question: how well do these pixels explain the release, and which way is better?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.base import channel_statistics
from attacks.objectives import Gradients, Objective
from attacks.priors import Prior
from dpbench.protocol import Knowledge


@dataclass(frozen=True)
class Problem:
    """What to match and what to believe.

    Attributes:
        knowledge: the victim, its loss, and the public channel statistics.
        target: the released gradients.
        objective: their distance to a trial gradient.
        priors: penalties on the normalised pixels.
    """

    knowledge: Knowledge
    target: Gradients
    objective: Objective
    priors: Sequence[Prior] = ()

    def gradient(self, inputs: Sequence[Tensor], labels: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Distance, distance plus priors (detached scalars), and the latter's gradient to `inputs`.

        Args:
            inputs: normalised pixels [B, C, H, W] first, then whatever else `labels` was computed from; all
                require gradients.
            labels: int64 [B], or soft labels [B, K] that depend on `inputs`.
        """
        z = inputs[0]
        mean, std = channel_statistics(self.knowledge, z)
        parameters = [p for p in self.knowledge.model.parameters() if p.requires_grad]
        loss = self.knowledge.loss(self.knowledge.model(z * std + mean), labels)
        trial = torch.autograd.grad(loss, parameters, create_graph=True)
        distance, cotangent = self.objective([g.detach() for g in trial], self.target)
        ways = torch.autograd.grad(trial, inputs, grad_outputs=cotangent)
        total = distance
        if self.priors:
            penalty = torch.stack([prior(z) for prior in self.priors]).sum()
            pull = torch.autograd.grad(penalty, z)[0]
            total, ways = distance + penalty.detach(), (ways[0] + pull, *ways[1:])
        return distance, total, ways
