"""An attack that does nothing, as a third-party package. To install it, put this folder on PYTHONPATH."""

from __future__ import annotations

import time

from attacks import labels as label_rules
from attacks import parameters as shared
from attacks.base import Attack, Task, attack, to_images
from dpbench.protocol import Reconstruction


@attack("instant")
class Instant(Attack):
    """Returns its start; each iteration sleeps for a millisecond."""

    iterations: int = shared.iterations(1)

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`."""
        for i in range(self.iterations):
            time.sleep(1e-3)
            task.progress(i + 1, self.iterations, 0.0)
        images = to_images(task.noise(task.release.batch_size, *task.knowledge.image_shape), task.knowledge)
        labels, source = label_rules.given_or_inferred(task.release, task.knowledge)
        return Reconstruction(
            images=images,
            labels=labels,
            label_source=source,
            gradient_distance=0.0,
            start=images,
            iterations=self.iterations,
            seconds=task.seconds(),
        )
