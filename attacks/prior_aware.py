"""The prior-aware attack and membership inference: one likelihood, of a known gradient under Gaussian noise.

Both are as strong as an attacker gets against the mechanism: they know all of the batch but one sample.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from attacks.base import Attack, Task, attack
from dpbench.protocol import InputError, Reconstruction


def log_likelihood(sums: Tensor, gradients: Tensor, noise: float, inclusion: float = 1.0) -> Tensor:
    """How much likelier the releases are with each candidate in the batch than with none.

    sum over t of log[(1 - q) + q exp((<g_t, c> - ||c||^2 / 2) / (sigma C)^2)], the log of the likelihood
    ratio (Hayes et al. 2023, 2302.07225). Without noise: the limit, up to its infinite factor (where the
    sample may be absent, what speaks against its presence in a release speaks for its absence, at no cost).

    Args:
        sums: the releases on the scale of the SUM, known samples taken out, [T, P].
        gradients: the candidates' clipped gradients, [n, P].
        noise: sigma * C, 0 or more.
        inclusion: q, the chance that the sample was in a release's batch at all (Poisson); 1 where it was.

    Returns:
        float64 [n]. Above 0 the sample is likelier in than out: membership inference is this sign.

    Example:
        >>> candidates = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> log_likelihood(torch.tensor([[1.0, 0.0]]), candidates, noise=0.5)
        tensor([ 2., -2.], dtype=torch.float64)
    """
    sums, gradients = sums.double(), gradients.double()
    exponents = sums @ gradients.T - gradients.square().sum(1) / 2
    if noise == 0:
        return (exponents if inclusion == 1 else exponents.clamp(min=0)).sum(0)
    exponents = exponents / noise**2
    if inclusion == 1:
        return exponents.sum(0)
    absent = torch.full_like(exponents, 1 - inclusion).log()
    present = exponents + torch.tensor(inclusion, dtype=exponents.dtype).log()
    return torch.logaddexp(absent, present).sum(0)


def flat(gradients: Iterable[Tensor]) -> Tensor:
    """All entries in one row [P], in the order of the tensors."""
    return torch.cat([g.flatten() for g in gradients])


@attack("prior-aware")
class PriorAware(Attack):
    """Of n candidates for the one sample it does not know, the likeliest; needs `knowledge.candidates`.

    Its reconstruction is that one sample, whatever the size of the batch.

    Args:
        inclusion: chance of the sample to be in each release (Poisson sampling); 1 where it is known to be.
        adaptive: accepted for uniformity; the attack always uses what it knows of the noise.
    """

    threat_models = ("informed",)

    def __init__(
        self,
        *,
        inclusion: float = 1.0,
        adaptive: bool = True,
    ) -> None:
        if not 0 < inclusion <= 1:
            raise InputError(f"The chance of inclusion must lie above 0 and be at most 1, not {inclusion:g}.")
        self.inclusion, self.adaptive = inclusion, adaptive

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`; `gradient_distance` is minus the winner's log-likelihood ratio."""
        release, knowledge = task.release, task.knowledge
        given = knowledge.candidates
        if given is None:
            raise InputError("prior-aware needs candidates for the sample: use --threat-model informed.")
        sums = torch.stack([flat(each) for each in release.each]) * release.batch_size - given.known
        scores = log_likelihood(sums, given.gradients, release.noise_on_sum(), self.inclusion)
        best = int(scores.argmax())
        task.progress(1, 1, -float(scores[best]))
        return Reconstruction(
            images=given.images[best : best + 1],
            labels=given.labels[best : best + 1],
            label_source="inferred",
            gradient_distance=-float(scores[best]),
            start=given.images.mean(0, keepdim=True),
            iterations=1,
            seconds=task.seconds(),
            engine="none",
        )
