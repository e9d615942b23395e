"""Inverting Gradients (Geiping et al., NeurIPS 2020): cosine similarity, total variation, signed Adam."""

from __future__ import annotations

import time

import torch

from attacks import labels as label_rules
from attacks.base import Attack, Progress, attack, positive, to_images
from attacks.engine import choose
from attacks.engine.problem import Problem
from attacks.objectives import Cosine, adapt
from attacks.priors import TotalVariation
from dpbench.protocol import Knowledge, Reconstruction, Release


@attack("inverting-gradients")
class InvertingGradients(Attack):
    """Matches the direction of the gradient; the step falls tenfold at 3/8, 5/8 and 7/8 of the iterations.

    Args:
        iterations: per restart.
        restarts: independent random starts; the one with the lowest objective is handed back.
        learning_rate: first step, in units of a channel's standard deviation.
        tv: weight of total variation.
        adaptive: match on the support of a pruned release.
        engine: backend of the search.
    """

    def __init__(
        self,
        *,
        iterations: int = 1500,
        restarts: int = 1,
        learning_rate: float = 0.1,
        tv: float = 0.03,
        adaptive: bool = True,
        engine: str = "auto",
    ) -> None:
        positive(iterations=iterations, restarts=restarts)
        self.iterations, self.restarts, self.learning_rate = iterations, restarts, learning_rate
        self.tv, self.adaptive, self.engine = tv, adaptive, engine

    def run(
        self,
        release: Release,
        knowledge: Knowledge,
        generator: torch.Generator,
        device: torch.device,
        progress: Progress,
        begun: float,
    ) -> Reconstruction:
        """See `Attack.__call__`."""
        known = knowledge.labels
        labels = label_rules.infer(release, knowledge) if known is None else known
        objective = adapt(Cosine(), release) if self.adaptive else Cosine()
        problem = Problem(knowledge, release.gradients, objective, [TotalVariation(self.tv)])
        rates = step_decay(self.learning_rate, self.iterations).to(device)
        name, search = choose(self.engine)
        all_iterations = self.iterations * self.restarts
        found, starts = [], []
        for r in range(self.restarts):
            start = torch.randn(release.batch_size, *knowledge.image_shape, generator=generator).to(device)
            starts.append(start)
            done = r * self.iterations
            found.append(
                search(
                    problem,
                    start,
                    labels,
                    rates,
                    signed=True,
                    progress=lambda i, _, value, done=done: progress(done + i, all_iterations, value),
                )
            )
        best = min(range(self.restarts), key=lambda r: found[r].total)
        return Reconstruction(
            images=to_images(found[best].z, knowledge),
            labels=labels,
            label_source="inferred" if known is None else "known",
            gradient_distance=found[best].distance,
            start=to_images(starts[best], knowledge),
            iterations=all_iterations,
            seconds=time.perf_counter() - begun,
            engine=name,
            history=found[best].history,
        )


def step_decay(rate: float, iterations: int) -> torch.Tensor:
    """Step sizes float [iterations]: a tenth from 3/8, a hundredth from 5/8, a thousandth from 7/8 on.

    Example:
        >>> step_decay(1.0, 8)
        tensor([1.0000, 1.0000, 1.0000, 0.1000, 0.1000, 0.0100, 0.0100, 0.0010])
    """
    drops = torch.tensor([iterations * k // 8 for k in (3, 5, 7)])
    return rate * 0.1 ** (torch.arange(iterations)[:, None] >= drops).sum(1).float()
