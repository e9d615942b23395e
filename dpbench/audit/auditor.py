"""Runs a defence on canaries and sets what they give away, and its noise, beside what it claims."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

from defenses import Chain
from dpbench import privacy
from dpbench.audit.canaries import SIZE, TENSORS, Canary, canaries
from dpbench.audit.directions import Score, learn
from dpbench.audit.gaussian import with_claim
from dpbench.audit.limit import TRIED, affordable
from dpbench.audit.moments import Moments
from dpbench.audit.noise import checks
from dpbench.audit.releases import Source
from dpbench.audit.report import Finding, Report
from dpbench.audit.statistics import epsilon_bound, lower_bound, mu_bound
from dpbench.protocol import Guarantee, InputError
from dpbench.system.words import counted

FEWEST = 400
KEPT = 10_000
"""Releases of a world, at most, that are kept in full: to learn where to look, and to check the noise."""
NOISE_SHARE = 0.1
"""Part of the chance of error that the checks of the noise have; the bounds have the rest."""


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
    seconds: float | None = None,
    progress: Callable[[int], None] | None = None,
    planned: Callable[[int], None] | None = None,
) -> Report:
    """A lower bound on the epsilon of one release of `defense`, from releases with and without a canary.

    Adjacency is add/remove with the batch size public; the batch is fixed (sample rate 1). Canaries have
    gradients of norm C and 100 C, among random and opposed samples; Bonferroni's correction covers them all,
    both kinds of bound and every check of the noise. The checks are about the stages of a chain that the
    guarantee or claim is about, before post-processing; the bounds are about what is released.

    Args:
        defense: of `defenses.create`, or a `Chain` of your own stages.
        claimed_eps: what to check; that of the defence's own guarantee unless given, for a chain that begins
            with clip+noise that of its noise, or else what its makers claim (`Defense.claim`).
        max_grad_norm: C, by which the canaries are sized where the defence has no guarantee that says it.
        delta: in (0, 1); that of the guarantee or the makers' claim where there is one.
        batch_size: B, at least 2.
        releases: for each canary, half of them with it, at least 400; 20,000 show a sensitivity of 1.2 C
            at eps 1.
        confidence: in (0, 1): chance of an honest defence to pass, or more.
        seed: of canaries and noise.
        seconds: a limit of about so long: fewer releases are made where `releases` would take longer, by the
            speed of the first few. Fewer show less, and how many they are depends on the machine.
        progress: called with the number of releases just made.
        planned: called once with the number that will be made in all.

    Raises:
        InputError: for a value outside its range, a guarantee of several releases or of users, a release
            that is not finite, or a defence that fails.
    """
    if claimed_eps is None and defense.guarantee is None and batch_size >= 1 and 0 < delta < 1:
        defense = with_claim(defense, batch_size, delta)
    claim = defense.guarantee
    if claim is not None:
        max_grad_norm, delta = claim.max_grad_norm, claim.delta
    said = defense.claim(SIZE) if claim is None and claimed_eps is None else None
    if said is not None:
        claimed_eps, delta = said.eps, said.delta or delta
    for good, complaint in (
        (claim is None or claim.releases == 1, "The audit makes single releases: give the guarantee of one."),
        (
            claim is None or claim.unit == "record",
            "The audit adds and removes records, and this guarantee is about users: use `unit` record.",
        ),
        (0 < delta < 1, f"delta must lie strictly between 0 and 1, not {delta:g}."),
        (0 < confidence < 1, f"The confidence must lie strictly between 0 and 1, not {confidence:g}."),
        (0 < max_grad_norm < math.inf, f"The clip norm must be above 0 and finite, not {max_grad_norm:g}."),
        (claimed_eps is None or claimed_eps >= 0, f"The claimed eps must be 0 or more, not {claimed_eps}."),
        (batch_size >= 2, f"A canary needs others in its batch: give 2 samples or more, not {batch_size}."),
        (releases >= FEWEST, f"Give at least {FEWEST} releases, not {releases}: fewer show nothing."),
        (seed >= 0, f"The seed must be 0 or more, not {seed}."),
        (seconds is None or 0 < seconds < math.inf, f"`seconds` must be above 0 and finite, not {seconds}."),
    ):
        if not good:
            raise InputError(complaint)
    multiplier, sensitivity = None, max_grad_norm
    if said is not None and said.noise_multiplier is not None and said.sensitivity is not None:
        multiplier, sensitivity = said.noise_multiplier, said.sensitivity * batch_size
    elif claimed_eps is None and claim is not None and _is_gaussian(claim):
        multiplier = claim.noise_multiplier
    gaussian = multiplier is not None
    planted = canaries(max_grad_norm, batch_size, seed)
    asked = releases
    if seconds is not None:
        releases = _limited(defense, planted, releases, seconds, seed)
    if planned is not None:
        planned(2 * (releases // 2) * len(planted))
    source = Source(
        defense, seed=seed, count=releases * len(planted), portions=4 * len(planted), progress=progress
    )
    source.check_description([batch for c in planted for batch in (c.absent, c.present)], seed)
    alpha = (1 - NOISE_SHARE) * (1 - confidence) / (2 * len(planted))
    findings, moments = [], Moments(SIZE, TENSORS)
    for canary in planted:
        findings.append(_finding(canary, source, releases // 2, moments, delta, alpha))
    noise = checks(
        moments,
        multiplier,
        sensitivity,
        NOISE_SHARE * (1 - confidence),
    )
    if claimed_eps is None and claim is not None:
        claimed_eps = claim.eps_release
    never, always = np.zeros(releases // 2), np.ones(releases // 2)
    reach = lower_bound(never, always, mu_bound if gaussian else epsilon_bound(delta), alpha).value
    return Report(
        findings=tuple(findings),
        checks=noise,
        releases=releases,
        confidence=confidence,
        delta=delta,
        claimed_eps=claimed_eps,
        gaussian=gaussian,
        reach=_gaussian_eps(reach, delta) if gaussian else reach,
        asked=asked,
    )


def _limited(defense: Chain, planted: list[Canary], releases: int, seconds: float, seed: int) -> int:
    """`releases`, or as many as can be made in so many seconds.

    Raises:
        InputError: where these are too few to show anything.
    """
    batches = [batch for canary in planted for batch in (canary.absent, canary.present)]
    trial = Source(defense, seed=seed, count=sum(TRIED), portions=len(TRIED), progress=None)
    trial.check_description(batches, seed)
    found = affordable(trial, batches[0], seconds, len(planted))
    if found < min(FEWEST, releases):
        enough = math.ceil(1.2 * seconds * FEWEST / max(found, 1))
        raise InputError(
            f"{counted(seconds, 'second', 'g')} will do for {counted(found, 'release')} here, and fewer than "
            f"{FEWEST} show nothing: give `seconds` {enough} or more."
        )
    return min(found, releases)


def _is_gaussian(claim: Guarantee) -> bool:
    """The claim is what a Gaussian release with the claim's own noise multiplier spends."""
    own = privacy.epsilon(claim.noise_multiplier, claim.delta)
    return math.isclose(own, claim.eps_release, rel_tol=1e-3)


def _gaussian_eps(mu: float, delta: float) -> float:
    return privacy.epsilon(1 / mu, delta) if mu > 0 else 0.0


def _finding(
    canary: Canary, source: Source, count: int, moments: Moments, delta: float, alpha: float
) -> Finding:
    """Bounds from `count` releases with the canary and as many without; their noise goes into `moments`.

    The first quarter shows where to look, the second one chooses among these ways and sets the threshold, and
    the second half is the evidence.
    """
    learning = min(count // 4, KEPT)
    batches, streams, noised = (canary.absent, canary.present), [], []
    for images in batches:
        first = list(source.take(images, learning))
        streams.append(np.concatenate([rows.released for rows in first]))
        noised.append([rows.noised for rows in first])
    scores = learn(*streams, canary.direction.double().numpy())
    absent, present = (
        _scores(scores, source, images, count - learning, kept)
        for images, kept in zip(batches, noised, strict=True)
    )
    moments.add(*(np.concatenate(kept) for kept in noised))
    choosing = count // 2 - learning
    eps = lower_bound(absent, present, epsilon_bound(delta), alpha, choosing)
    mu = lower_bound(absent, present, mu_bound, alpha, choosing).value
    return Finding(canary.name, eps.value, mu, _gaussian_eps(mu, delta), scores[eps.column].name)


def _scores(
    scores: list[Score], source: Source, images: Tensor, count: int, kept: list[np.ndarray]
) -> np.ndarray:
    """[count, len(scores)] of as many releases; their noise is added to `kept` up to KEPT releases."""
    found, room = [], KEPT - sum(map(len, kept))
    for rows in source.take(images, count):
        found.append(np.stack([score.of(rows.released) for score in scores], axis=1))
        if room > 0:
            kept.append(rows.noised[:room])
            room -= len(kept[-1])
    return np.concatenate(found)
