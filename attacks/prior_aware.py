"""The prior-aware attack and membership inference, both by the likelihood of a gradient under Gaussian noise.

Their attacker knows the whole batch but one sample: the strongest one that differential privacy assumes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from attacks.base import Attack, Task, attack
from dpbench.protocol import InputError, Reconstruction, Release, parameter


def log_likelihood(
    sums: Tensor, gradients: Tensor, noise: float, inclusion: float = 1.0, kept: Tensor | None = None
) -> Tensor:
    """Log-likelihood ratio of the releases with each candidate in the batch to the releases with none.

    sum over t of log[(1 - q) + q exp((<g_t, c> - ||c||^2 / 2) / (sigma C)^2)] (Hayes et al. 2023,
    2302.07225). Without noise it is the limit of that sum times (sigma C)^2 for sigma -> 0. For q < 1 a
    release that speaks against a candidate then counts 0: the sample may have been absent from it.

    Args:
        sums: the releases times the batch size, less the gradients of the known samples, [T, P].
        gradients: the candidates' clipped gradients, [n, P].
        noise: sigma * C, 0 or more.
        inclusion: q, the chance that the sample was in a release's batch (Poisson sampling).
        kept: bool [T, P], the entries that pruning left in each release; the others are not looked at. All
            of them unless given.

    Returns:
        float64 [n]. Above 0 the sample is likelier in the batch than not: its sign infers membership.

    Example:
        >>> candidates = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> log_likelihood(torch.tensor([[1.0, 0.0]]), candidates, noise=0.5)
        tensor([ 2., -2.], dtype=torch.float64)
    """
    sums, gradients = sums.double(), gradients.double()
    if kept is None:
        norms = gradients.square().sum(1)
    else:
        sums, norms = sums * kept, kept.double() @ gradients.square().T
    exponents = sums @ gradients.T - norms / 2
    if noise == 0:
        return (exponents if inclusion == 1 else exponents.clamp(min=0)).sum(0)
    exponents = exponents / noise**2
    if inclusion == 1:
        return exponents.sum(0)
    absent = torch.full_like(exponents, 1 - inclusion).log()
    present = exponents + torch.tensor(inclusion, dtype=exponents.dtype).log()
    return torch.logaddexp(absent, present).sum(0)


def scores(release: Release, known: Tensor, gradients: Tensor, inclusion: float = 1.0) -> Tensor:
    """The log-likelihood ratio of a release with each candidate in its batch to one with none, float64 [n].

    Where pruning or top-k came last, only the entries that they kept are compared. In the others a release is
    zero, so that less the known samples it would speak of those samples alone.

    Args:
        release: of one or several gradients.
        known: the summed gradients of the known samples, [P].
        gradients: the candidates' clipped gradients, [n, P].
        inclusion: as for `log_likelihood`.
    """
    seen, noise = torch.stack([flat(each) for each in release.each]), release.noise_on_sum()
    pruned = bool(release.defense) and release.defense[-1].name in ("prune", "topk")
    if inclusion == 1 and not pruned:  # the mean with least noise says all that they do, correlated or not
        seen, noise = flat(release.gradients)[None], noise / math.sqrt(len(seen))
    return log_likelihood(
        seen * release.batch_size - known,
        gradients,
        noise,
        inclusion,
        kept=seen != 0 if pruned else None,
    )


def flat(gradients: Iterable[Tensor]) -> Tensor:
    """All entries in one row [P], in the order of the tensors."""
    return torch.cat([g.flatten() for g in gradients])


@attack("prior-aware")
class PriorAware(Attack):
    """The likeliest of n candidates for the one sample that the attacker does not know.

    It uses the noise level that the defence declares, and after pruning the entries that were kept. Its
    reconstruction is that one sample, whatever the size of the batch.
    """

    threat_models = ("informed",)
    needs = frozenset({"candidates"})
    pictures_only = False
    exact = True

    inclusion: float = parameter(
        default=1.0,
        help="chance of the attacked sample to be in each release (Poisson sampling)",
        symbol="q",
        only_if={"repeatable": True},
        above=0,
        at_most=1,
    )

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`; `gradient_distance` is minus the winner's log-likelihood ratio."""
        release, knowledge = task.release, task.knowledge
        given = knowledge.candidates
        if given is None:
            raise InputError("prior-aware needs candidates for the sample: use `threat_model` informed.")
        found = scores(release, given.known, given.gradients, self.inclusion)
        best = int(found.argmax())
        task.progress(1, 1, -float(found[best]))
        return Reconstruction(
            images=given.images[best : best + 1],
            labels=given.labels[best : best + 1],
            label_source="inferred",
            gradient_distance=-float(found[best]),
            start=given.images.mean(0, keepdim=True),
            iterations=1,
            seconds=task.seconds(),
            engine="none",
        )
