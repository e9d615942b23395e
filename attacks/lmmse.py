"""Linear Bayes: what a linear estimator makes of a release, having learnt from public images."""

from __future__ import annotations

import math

from attacks import parameters as shared
from attacks.base import Attack, Task, attack
from attacks.linear_estimate import check_public_images, estimate
from dpbench.protocol import Reconstruction


@attack("lmmse")
class LMMSE(Attack):
    """The linear minimum-mean-square estimate; without information it is the mean public image of the label.

    It knows the defence's noise and clip norm. Images of one label in a batch get one and the same estimate.
    """

    needs = frozenset({"public_images"})
    exact = True  # TF32 would move inner products by as much as the ridge

    public_images: int = shared.public_images()

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`; of several releases only the mean matters.

        Raises:
            InputError: where there are too few public images of a label, or they are of another size.
        """
        check_public_images(task.knowledge, self.name)
        found = estimate(task.release, task.knowledge, self.public_images, task.device)
        return Reconstruction(
            images=found.images.clamp(0, 1),
            labels=found.labels,
            label_source=found.source,
            gradient_distance=math.nan,
            start=found.means.clamp(0, 1),
            iterations=1,
            seconds=task.seconds(),
            engine="none",
        )
