"""The mean of images drawn from the posterior, given the noisy release and what public images look like.

Hamiltonian Monte Carlo that knows its prior (Beskos et al. 2011, "Hybrid Monte Carlo on Hilbert spaces"):
each step is a rotation of entries and momenta, which is exact for a Gaussian prior, between two half kicks by
the gradient of the likelihood. So the step is limited by what the release says, and not by the prior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks import parameters as shared
from attacks.base import Attack, Task, attack
from attacks.maximum_a_posteriori import likeliest, posed
from attacks.posterior import Posterior
from dpbench.protocol import Reconstruction

STEPS = 4
"""Rotations to a proposal."""
ACCEPTED = 0.65
"""Share of proposals that the step is adapted to (Beskos et al. 2013)."""
ADAPTING = 0.4
"""Share of the sampling after which the step is kept and samples count."""
SEARCHING = 0.25
"""Share of all iterations that go into a search for a likely start."""


@attack("posterior-mean")
class PosteriorMean(Attack):
    """The images of least expected squared error if the prior is right.

    They are blurred where the release says little. A search as that of `map` comes first. The note says how
    many proposals were accepted.
    """

    needs = frozenset({"public_images", "image_statistics"})
    exact = True  # proposals are accepted by differences of large numbers

    iterations: int = shared.iterations(1000)
    learning_rate: float = shared.learning_rate(0.1)
    public_images: int = shared.public_images()

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`; of several releases only the mean matters.

        Raises:
            InputError: where there are no statistics of images, or too few public images of a label.
        """
        found, posterior = posed(task, self.name, self.public_images)
        start, total = posterior.prior.entries(found.images), self.iterations
        searching = max(1, int(SEARCHING * total))
        report = lambda done, _, value: task.progress(done, total, value)  # noqa: E731
        entries, nats, history = likeliest(posterior, start, self.learning_rate, searching, report)
        images = posterior.prior.images(entries).clamp(0, 1)
        note = "There were too few iterations to sample, so these are the likeliest images."
        if proposals := (total - searching) // STEPS:
            chain = sample(posterior, entries, proposals, task)
            images, nats = chain.images, chain.nats
            note = f"The sampler accepted {chain.accepted:.0%} of {proposals} proposals."
        task.progress(total, total, float(nats))
        return Reconstruction(
            images=images,
            labels=found.labels,
            label_source=found.source,
            gradient_distance=float(nats),
            start=found.means.clamp(0, 1),
            iterations=total,
            seconds=task.seconds(),
            history=history,
            note=f"{note} {posterior.prior.note}".rstrip(),
        )


@dataclass(frozen=True)
class Chain:
    """What a sampler found once its step was kept.

    Attributes:
        images: mean over the samples, [B, C, H, W] in [0, 1].
        entries: their mean.
        spread: standard deviation of each entry over the samples.
        nats: mean over the samples, a scalar.
        accepted: share of the proposals.
    """

    images: Tensor
    entries: Tensor
    spread: Tensor
    nats: Tensor
    accepted: float


def sample(posterior: Posterior, start: Tensor, proposals: int, task: Task) -> Chain:
    """Hamiltonian Monte Carlo from `start`; the step is adapted over the first of the proposals."""
    entries, angle, kept, accepted = start, 0.3, [], 0
    nats, gradient = posterior(entries)
    adapting = int(ADAPTING * proposals)
    for i in range(proposals):
        momentum = task.noise(*start.shape)
        chance, share = torch.rand(2, generator=task.generator).tolist()
        # of random length, as a direction that a fixed one turns about by half a circle would never mix
        step = angle * (0.4 + 0.6 * share)
        sine, cosine = math.sin(step), math.cos(step)
        before = nats + momentum.square().sum() / 2 + entries.square().sum() / 2
        position, slope, misfit = entries, gradient, nats
        for _ in range(STEPS):
            momentum = momentum - step / 2 * slope
            position, momentum = cosine * position + sine * momentum, cosine * momentum - sine * position
            misfit, slope = posterior(position)
            momentum = momentum - step / 2 * slope
        after = misfit + momentum.square().sum() / 2 + position.square().sum() / 2
        probability = math.exp(min(0.0, float(before - after))) if torch.isfinite(after) else 0.0
        if chance < probability:
            entries, gradient, nats = position, slope, misfit
        if i < adapting:  # Robbins-Monro on the logarithm of the step
            angle *= math.exp((probability - ACCEPTED) / (1 + i) ** 0.6)
            angle = min(angle, math.pi / 2 / STEPS)
        else:
            accepted += chance < probability
            kept.append((entries, nats))
    counted = max(1, proposals - adapting)
    stacked = torch.stack([each for each, _ in kept])
    images = torch.stack([posterior.prior.images(each).clamp(0, 1) for each, _ in kept]).mean(0)
    return Chain(
        images,
        stacked.mean(0),
        stacked.std(0, correction=0),
        torch.stack([value for _, value in kept]).mean(),
        accepted / counted,
    )
