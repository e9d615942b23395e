"""Runs a defence on canaries and sets what they give away beside what it claims."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from defenses import Chain
from dpbench import privacy
from dpbench.audit.canaries import Canary, Probe, canaries, mean_output
from dpbench.audit.statistics import epsilon_bound, lower_bound, mu_bound
from dpbench.protocol import InputError

CHUNK = 500
"""Releases made at a time."""
FEWEST = 400


@dataclass(frozen=True)
class Finding:
    """What one canary gives away; both bounds hold together with those of all other canaries.

    Attributes:
        canary: its name.
        eps: lower bound on epsilon, at the report's delta, of any mechanism.
        mu: lower bound on mu, for a mechanism that claims to be a Gaussian release.
        eps_gaussian: the epsilon of a Gaussian release with that mu.
    """

    canary: str
    eps: float
    mu: float
    eps_gaussian: float


@dataclass(frozen=True)
class Report:
    """The outcome of an audit.

    Attributes:
        findings: one for each canary.
        releases: made for each canary, half of them with it.
        confidence: that no bound is above the truth.
        delta: of all epsilons.
        claimed_eps: for one release; None where nothing is claimed.
        gaussian: the claim is that of a Gaussian release, so a bound on mu counts.
        reach: the epsilon so many releases would show if they gave the canary away every time; no claim above
            it can be refuted.
    """

    findings: tuple[Finding, ...]
    releases: int
    confidence: float
    delta: float
    claimed_eps: float | None
    gaussian: bool
    reach: float

    @property
    def eps(self) -> float:
        """The audited epsilon: the highest lower bound that counts.

        Where a Gaussian release is claimed, bounds on mu count: they refute the claim whatever was released,
        but are about the epsilon spent only if that was a Gaussian release.
        """
        return max(max(f.eps, f.eps_gaussian if self.gaussian else 0.0) for f in self.findings)

    @property
    def exceeded(self) -> bool:
        """The audited epsilon is above the claimed one: the defence has a bug, or its claim has."""
        return self.claimed_eps is not None and self.eps > self.claimed_eps


def audit(
    defense: Chain,
    *,
    claimed_eps: float | None = None,
    max_grad_norm: float = 1.0,
    delta: float = 1e-5,
    batch_size: int = 4,
    releases: int = 20_000,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """A lower bound on the epsilon of one release of `defense`, from releases with and without a canary.

    Adjacency is add/remove with the batch size public; the batch is fixed (sample rate 1). Canaries have
    gradients of norm C and 100 C, among random and opposed samples; Bonferroni's correction covers them all
    and both kinds of bound.

    Args:
        defense: of `defenses.create`, or a `Chain` of your own stages.
        claimed_eps: what to check; that of the defence's own guarantee unless given.
        max_grad_norm: C, by which the canaries are sized where the defence has no guarantee that says it.
        delta: in (0, 1); that of the guarantee where there is one.
        batch_size: B, at least 2.
        releases: for each canary, half of them with it, at least 400; 20,000 tell eps 1 from 2.15.
        confidence: in (0, 1): chance of an honest defence to pass, or more.
        seed: of canaries and noise.
        progress: called with the number of releases just made.

    Raises:
        InputError: for a value outside its range, a guarantee of several releases, or a release that is not
            finite.
    """
    claim = defense.guarantee
    if claim is not None:
        max_grad_norm, delta = claim.max_grad_norm, claim.delta
    for good, complaint in (
        (claim is None or claim.releases == 1, "The audit makes single releases: give the guarantee of one."),
        (0 < delta < 1, f"delta must lie strictly between 0 and 1, not {delta:g}."),
        (0 < confidence < 1, f"The confidence must lie strictly between 0 and 1, not {confidence:g}."),
        (0 < max_grad_norm < math.inf, f"The clip norm must be above 0 and finite, not {max_grad_norm:g}."),
        (claimed_eps is None or claimed_eps >= 0, f"The claimed eps must be 0 or more, not {claimed_eps}."),
        (batch_size >= 2, f"A canary needs others in its batch: give 2 samples or more, not {batch_size}."),
        (releases >= FEWEST, f"{releases} releases show nothing: give at least {FEWEST}."),
        (seed >= 0, f"The seed must be 0 or more, not {seed}."),
    ):
        if not good:
            raise InputError(complaint)
    planted = canaries(max_grad_norm, batch_size, seed)
    alpha = (1 - confidence) / (2 * len(planted))
    findings = []
    for i, canary in enumerate(planted):
        absent, present = (
            _scores(defense, canary, images, releases // 2, [seed, i, world], progress)
            for world, images in enumerate((canary.absent, canary.present))
        )
        findings.append(_finding(canary.name, absent, present, delta, alpha))
    gaussian = claimed_eps is None and claim is not None
    if gaussian:
        claimed_eps = claim.eps_release
        own = privacy.epsilon(claim.noise_multiplier, delta)
        gaussian = math.isclose(own, claimed_eps, rel_tol=1e-3)
    plain = _finding("told apart every time", np.zeros(releases // 2), np.ones(releases // 2), delta, alpha)
    reach = plain.eps_gaussian if gaussian else plain.eps
    return Report(tuple(findings), releases, confidence, delta, claimed_eps, gaussian, reach)


def _finding(name: str, absent: np.ndarray, present: np.ndarray, delta: float, alpha: float) -> Finding:
    mu = lower_bound(absent, present, mu_bound, alpha)
    return Finding(
        canary=name,
        eps=lower_bound(absent, present, epsilon_bound(delta), alpha),
        mu=mu,
        eps_gaussian=privacy.epsilon(1 / mu, delta) if mu > 0 else 0.0,
    )


def _scores(
    defense: Chain,
    canary: Canary,
    images: Tensor,
    count: int,
    entropy: list[int],
    progress: Callable[[int], None] | None,
) -> np.ndarray:
    """`count` releases of `images`, each as its sum of gradients along the canary."""
    model, labels = Probe(), torch.zeros(len(images), dtype=torch.int64)
    seeds, scores = np.random.SeedSequence(entropy), []
    for seed in seeds.generate_state(-(-count // CHUNK), np.uint64):
        size = min(CHUNK, count - sum(map(len, scores)))
        made = defense.releases(model, mean_output, images, labels, seed=int(seed >> 1), count=size)
        flat = torch.stack([torch.cat([g.flatten() for g in release.gradients]) for release in made])
        scores.append((flat.double() @ canary.direction.double() * len(images)).numpy())
        if progress is not None:
            progress(size)
    found = np.concatenate(scores)
    if not np.isfinite(found).all():
        raise InputError("The defence releases numbers that are not finite, on finite gradients.")
    return found
