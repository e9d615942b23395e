"""The likeliest images, given the noisy release and what public images look like."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from attacks import parameters as shared
from attacks.base import Attack, Progress, Task, attack
from attacks.denoising import denoiser_of
from attacks.engine import warm_cosine
from attacks.linear_estimate import check_statistics, estimate
from attacks.posterior import Posterior
from attacks.public_prior import Centred, PublicPrior
from dpbench.protocol import Reconstruction, parameter

LEVEL = 0.15
"""Noise level that the denoiser takes the error of the linear estimate for; 0.1 and 0.2 are as good."""
NARROW = 0.3
"""Standard deviations about an estimate, in those of the prior; tuned, see docs/noise.md."""
SPREAD = 0.1
"""By how many standard deviations images of one label are drawn apart at first: their gradients are the same
where they are, so nothing else would ever part them."""


@attack("map")
class MaximumAPosteriori(Attack):
    """Adam on likelihood times prior, from the linear estimate: both are those of the defence's own noise.

    The prior is narrow and about the linear estimate, or about what a denoiser makes of that: then the
    release counts twice, and the result is no maximum a posteriori, but nearer to the images. About the
    label's mean image (`centre` mean) it is one. With the denoiser this is a pass of plug and play by
    half-quadratic splitting (Zhang et al. 2021).
    """

    needs = frozenset({"public_images", "image_statistics"})
    exact = True  # it may match a release to a thousandth of its norm

    iterations: int = shared.iterations(400)
    learning_rate: float = shared.learning_rate(0.1)
    public_images: int = shared.public_images()
    centre: Literal["estimate", "mean", "denoised"] = parameter(
        "estimate",
        "what the prior is centred on: the linear estimate, the label's mean image, or, for colour images of "
        "32 x 32, what a trained denoiser makes of the estimate (denoised)",
    )

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`; of several releases only the mean matters.

        Raises:
            InputError: where there are no statistics of images, too few public images of a label, or no
                denoiser for images like these.
        """
        check_statistics(task.knowledge, self.name)
        found = estimate(task.release, task.knowledge, self.public_images, task.device)
        prior = PublicPrior(task.knowledge, found.labels)
        posterior = Posterior(task.release, task.knowledge, found.labels, prior)
        images = found.images
        if self.centre == "denoised":
            denoiser = denoiser_of(task.knowledge, "`centre` estimate")
            with torch.no_grad():
                images = denoiser(images, images.new_full((len(images),), LEVEL), found.labels)
        if self.centre != "mean":
            posterior.prior = Centred(posterior.prior, images, NARROW)
        start = posterior.prior.entries(images)
        entries, nats, history = likeliest(
            posterior,
            start + SPREAD * task.noise(*start.shape) * repeated(found.labels).view(-1, 1, 1, 1),
            self.learning_rate,
            self.iterations,
            task.progress,
        )
        return Reconstruction(
            images=posterior.prior.images(entries).clamp(0, 1),
            labels=found.labels,
            label_source=found.source,
            gradient_distance=float(nats),
            start=found.means.clamp(0, 1),
            iterations=self.iterations,
            seconds=task.seconds(),
            history=history,
            note=posterior.prior.note,
        )


def repeated(labels: Tensor) -> Tensor:
    """Which labels occur more than once, bool [B].

    Example:
        >>> repeated(torch.tensor([3, 5, 3]))
        tensor([ True, False,  True])
    """
    return (labels[:, None] == labels).sum(1) > 1


def likeliest(
    posterior: Posterior, start: Tensor, rate: float, iterations: int, progress: Progress
) -> tuple[Tensor, Tensor, tuple[float, ...]]:
    """Adam on the nats of `posterior` and its prior.

    Returns:
        The best entries, the posterior's nats there, and the sum of both every so many iterations.

    Raises:
        FloatingPointError: where the sum was finite at no point.
    """
    entries = start.clone()
    adam = torch.optim.Adam([entries])
    best, least, nats = start, torch.full((), torch.inf, device=start.device), None
    history, every = [], max(1, iterations // 100)
    for i, step in enumerate(warm_cosine(rate, iterations).tolist()):
        misfit, gradient = posterior(entries)
        total = misfit + entries.square().sum() / 2
        better = total < least  # False for NaN
        best, least = torch.where(better, entries, best), torch.where(better, total, least)
        nats = misfit if nats is None else torch.where(better, misfit, nats)
        adam.param_groups[0]["lr"] = step
        entries.grad = torch.nan_to_num(gradient + entries, nan=0.0, posinf=0.0, neginf=0.0)
        adam.step()
        if (i + 1) % every == 0 or i + 1 == iterations:
            history.append(float(least))
            progress(i + 1, iterations, history[-1])
    if not bool(least.isfinite()):
        raise FloatingPointError(
            "The posterior was NaN or infinite at every point of the search; a smaller `learning_rate` may "
            "help."
        )
    return best, nats, tuple(history)
