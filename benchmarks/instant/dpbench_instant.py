"""An attack that does nothing, as a third-party package: this folder on PYTHONPATH installs it."""

from __future__ import annotations

import time

import torch

from attacks.base import Attack, Progress, to_images
from dpbench.protocol import Knowledge, Reconstruction, Release


class Instant(Attack):
    """Hands back its start.

    Args:
        iterations: milliseconds of sleep; one, by default.
        restarts: of no effect.
        adaptive: of no effect.
        engine: of no effect.
    """

    def __init__(
        self, *, iterations: int = 1, restarts: int = 1, adaptive: bool = True, engine: str = "auto"
    ) -> None:
        self.iterations, self.restarts, self.adaptive, self.engine = iterations, restarts, adaptive, engine

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
        for i in range(self.iterations):
            time.sleep(1e-3)
            progress(i + 1, self.iterations, 0.0)
        start = torch.randn(release.batch_size, *knowledge.image_shape, generator=generator)
        images = to_images(start.to(device), knowledge)
        labels = knowledge.labels
        if labels is None:
            labels = torch.zeros(release.batch_size, dtype=torch.int64, device=device)
        return Reconstruction(
            images=images,
            labels=labels,
            label_source="known" if knowledge.labels is not None else "inferred",
            gradient_distance=0.0,
            start=images,
            iterations=self.iterations,
            seconds=time.perf_counter() - begun,
        )
