"""The prior-aware attack and membership inference, both by the likelihood of a gradient under Gaussian noise.

Their attacker knows the whole batch but one sample: the strongest one that differential privacy assumes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from attacks.base import Attack, Task, attack
from attacks.reading import alone, linear, made
from dpbench.protocol import InputError, Reconstruction, Release, defenses_registry, parameter


def log_likelihood(sums: Tensor, gradients: Tensor, noise: float, inclusion: float = 1.0) -> Tensor:
    """Log-likelihood ratio of the releases with each candidate in the batch to the releases with none.

    sum over t of log[(1 - q) + q exp((<g_t, c> - ||c||^2 / 2) / (sigma C)^2)] (Hayes et al. 2023,
    2302.07225). Without noise it is the limit of that sum times (sigma C)^2 for sigma -> 0. For q < 1 a
    release that speaks against a candidate then counts 0: the sample may have been absent from it.

    Args:
        sums: the releases times the batch size, less the gradients of the known samples, [T, P].
        gradients: the candidates' clipped gradients, [n, P].
        noise: sigma * C, 0 or more.
        inclusion: q, the chance that the sample was in a release's batch (Poisson sampling).

    Returns:
        float64 [n]. Above 0 the sample is likelier in the batch than not: its sign infers membership.

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


def scores(release: Release, known: Tensor, gradients: Tensor, inclusion: float = 1.0) -> Tensor:
    """The log-likelihood ratio of a release with each candidate in its batch to one with none, float64 [n].

    Where nothing is random, the attacker does to each candidate what was done, and compares: half the squared
    distance of the release to what would be sent without the candidate, less that with it. Where the last
    stage draws, and says how likely a release is, that is the answer. Else entries count
    as the last stage of the defence says: not at all where it sent nothing of them, or a bound only, and less
    where it rounded. A release is zero in what was not sent, so that less the known samples it would speak
    of those samples alone.

    Args:
        release: of one or several gradients.
        known: the summed gradients of the known samples, [P].
        gradients: the candidates' clipped gradients, [n, P].
        inclusion: as for `log_likelihood`.
    """
    if inclusion == 1 and (later := _certain(release)):
        return _compared(release, known, gradients, later)
    last = release.defense[-1].name if release.defense else ""
    says = last in defenses_registry and hasattr(defenses_registry[last], "log_likelihood")
    if says and (earlier := _certain(release, -1)) is not None:
        return _likely(release, known, gradients, inclusion, earlier)
    expects = last in defenses_registry and hasattr(defenses_registry[last], "expected")
    if inclusion == 1 and expects:
        return _expected(release, known, gradients)
    # all releases of one batch at once say what they do together, correlated or not
    each = [linear(one) for one in ([release] if inclusion == 1 else alone(release))]
    found = torch.zeros(len(gradients), dtype=torch.float64, device=gradients.device)
    for seen in each:
        sums, rows = seen.weighted(seen.values - known), seen.weighted(gradients)
        found += log_likelihood(sums[None], rows, seen.noise, inclusion)
    return found


def _certain(release: Release, until: int | None = None) -> list[Any] | None:
    """The stages after a clip, as far as `until`; None unless all are known and none draws at random."""
    later = [stage for stage in release.defense[:until] if stage.name != "clip"]
    kinds = [defenses_registry[stage.name] for stage in later if stage.name in defenses_registry]
    if len(kinds) < len(later) or not all(hasattr(k, "process_all") and not k.repeatable for k in kinds):
        return None
    return [made(stage) for stage in later]


def _compared(release: Release, known: Tensor, gradients: Tensor, later: list[Any]) -> Tensor:
    """How much closer to the release each candidate brings what would be sent, float64 [n]."""
    seen = torch.cat([flat(each) for each in release.each]).double()

    def distance(total: Tensor) -> Tensor:
        sent = _made(release, total, later)
        return (torch.cat([flat(each) for each in sent]) - seen).square().sum() / 2

    without = distance(known)
    return torch.stack([without - distance(known + gradient) for gradient in gradients])


def _made(release: Release, total: Tensor, stages: list[Any]) -> list[tuple[Tensor, ...]]:
    """What stages that draw nothing make of the sum `total` in each of the releases."""
    parts = (total / release.batch_size).split([g.numel() for g in release.gradients])
    sent = [tuple(v.view_as(g) for v, g in zip(parts, release.gradients, strict=True))] * len(release.each)
    for stage in stages:
        sent = stage.process_all(sent, torch.Generator(device=total.device))
    return sent


def _likely(
    release: Release, known: Tensor, gradients: Tensor, inclusion: float, earlier: list[Any]
) -> Tensor:
    """The log-likelihood ratio by what the last stage says of itself, float64 [n]."""
    stage, each = made(release.defense[-1]), alone(release)

    def told(total: Tensor) -> Tensor:
        given = _made(release, total, earlier)
        return torch.stack([stage.log_likelihood(*pair) for pair in zip(each, given, strict=True)])

    without = told(known)
    ratios = torch.stack([told(known + gradient) - without for gradient in gradients])
    if inclusion < 1:
        ratios = torch.logaddexp(torch.full_like(ratios, 1 - inclusion).log(), ratios + math.log(inclusion))
    return ratios.sum(1)


def _expected(release: Release, known: Tensor, gradients: Tensor) -> Tensor:
    """The log-likelihood ratio where the last stage says what the entries that it sends are on average.

    Half the squared distance of what was sent to what is expected without the candidate, less that with it,
    in units of the variance. Float64 [n].
    """
    stage, sizes = made(release.defense[-1]), [g.numel() for g in release.gradients]
    noise = release.noise_on_sum() / release.batch_size or 1.0

    def sent(total: Tensor) -> Tensor:
        parts = (total / release.batch_size).split(sizes)
        shaped = tuple(v.view_as(g) for v, g in zip(parts, release.gradients, strict=True))
        return flat(stage.expected(shaped)).double()

    without, found = sent(known), 0.0
    rows = torch.stack([sent(known + gradient) for gradient in gradients])
    for each in release.each:
        seen = flat(each).double()
        kept = seen != 0
        before, after = ((seen - row)[..., kept].square().sum(-1) for row in (without, rows))
        found = found + (before - after) / (2 * noise**2)
    return found


def flat(gradients: Iterable[Tensor]) -> Tensor:
    """All entries in one row [P], in the order of the tensors."""
    return torch.cat([g.flatten() for g in gradients])


@attack("prior-aware")
class PriorAware(Attack):
    """The likeliest of n candidates for the one sample that the attacker does not know.

    It uses the noise level that the defence declares, and of its last stage what each entry says. Its
    reconstruction is that one sample, whatever the size of the batch.
    """

    threat_models = ("informed",)
    needs = frozenset({"candidates"})
    pictures_only = False
    exact = True
    simulates = True  # candidates' gradients have no noise of `precode` in them

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
