"""The mean of images drawn from the posterior, given the noisy release and what images look like."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks import parameters as shared
from attacks.annealed import PRODUCTS, draw, in_order, levels
from attacks.base import Attack, Task, attack
from attacks.bounded import Bounded
from attacks.denoising import WITHOUT_DENOISER, denoiser_or_wiener, tried_on
from attacks.gaussian_prior import Whitening
from attacks.linear_estimate import check_statistics, estimate
from dpbench.protocol import Reconstruction


@attack("posterior-mean")
class PosteriorMean(Attack):
    """The mean of images drawn from the posterior, of least expected squared error if the prior is right.

    The prior is that of a trained denoiser. Where there is none, as for all but colour images of 32 x 32, it
    is a Gaussian field about the label's mean image, and the note says so.
    """

    needs = frozenset({"public_images", "image_statistics"})
    exact = True  # it may match a release to a thousandth of its norm

    iterations: int = shared.iterations(160)
    restarts: int = shared.restarts(8)
    public_images: int = shared.public_images()

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`; of several releases only the mean matters.

        Raises:
            InputError: where there are no statistics of images, or too few public images of a label.
        """
        knowledge = task.knowledge
        check_statistics(knowledge, self.name)
        found = estimate(task.release, knowledge, self.public_images, task.device)
        misfit = Bounded(task.release, knowledge, found.labels)
        whitening = Whitening(knowledge.image_statistics).to(task.device)
        denoiser = denoiser_or_wiener(knowledge, whitening, found.labels, found.means)
        whole, total = self.restarts * self.iterations, torch.zeros_like(found.images)
        with torch.no_grad():
            count = max(1, self.iterations // PRODUCTS)
            steps = levels(count, denoiser, whitening, *tried_on(knowledge, found.labels), task.noise)
            for done in range(1, self.restarts + 1):
                drawn = draw(misfit, found.images, steps, denoiser, whitening, task.noise)
                total += in_order(drawn, total, found.labels)
                task.progress(done * self.iterations, whole, _nats(misfit, total / done))
        images = (total / self.restarts).clamp(0, 1)
        return Reconstruction(
            images=images,
            labels=found.labels,
            label_source=found.source,
            gradient_distance=_nats(misfit, images),
            start=found.means.clamp(0, 1),
            iterations=whole,
            seconds=task.seconds(),
            note="" if knowledge.image_denoiser is not None else WITHOUT_DENOISER,
        )

    def wants(self) -> frozenset[str]:
        """See `Attack.wants`; it does without a denoiser, too."""
        return super().wants() | {"image_denoiser"}


def _nats(misfit: Bounded, images: Tensor) -> float:
    with torch.enable_grad():  # a gradient is taken
        return float(misfit.residuals(images).detach().square().sum() / 2)
