"""What no attacker can do, whatever it knows: bounds that follow from the noise alone."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from dpbench.privacy.accountants import SIGMA_RANGE, chance_of_inclusion
from dpbench.privacy.checks import check_number, check_positive, check_releases
from dpbench.privacy.pld import GRIDS, loss_distribution
from dpbench.privacy.renyi import renyi_blow_up, renyi_variation
from dpbench.protocol import InputError
from dpbench.system.cache import remember

PRIOR_SUCCESS = 0.1
"""Success, before the releases are seen, of the attacker that `Guarantee.rero_release` bounds."""


_COUNTS = 20_000
"""Numbers of batches with a sample that are told apart; of more, neighbours count as the largest of them."""
_RARE = 1e-12
"""Chance of more batches with a sample than are counted: they count as certain success."""


def reconstruction_bound(
    noise_multiplier: float,
    sample_rate: float = 1.0,
    steps: int = 1,
    kappa: float = PRIOR_SUCCESS,
    *,
    batches_known: bool = False,
) -> float:
    """Upper bound on an informed attacker's chance to rebuild a sample (ReRo; Hayes et al. 2023).

    The attacker knows every other sample of every batch; `kappa` is its success without the releases. Closed
    form Phi(Phi^-1(kappa) + sqrt(steps) / sigma) at sample_rate 1, else from the privacy loss distribution;
    above 10 million steps, by the looser Rényi bound. Where the batches are known, the mean of the closed
    form over the number of batches that hold the sample, which is binomial.

    Args:
        noise_multiplier: sigma, above 0.
        sample_rate: chance of the sample to be in a step's batch (Poisson), in (0, 1].
        steps: releases seen.
        kappa: success without the releases, in (0, 1).
        batches_known: whether the attacker knows which batches hold the sample, as a server may.

    Returns:
        A probability, kappa or more.

    Raises:
        InputError: for a value outside its range.

    Example:
        >>> round(reconstruction_bound(0.6002), 2)  # eps 8 at delta 1e-5
        0.65
        >>> training = {"noise_multiplier": 2.451, "sample_rate": 256 / 20_000, "steps": 2_344}  # eps 1
        >>> [round(reconstruction_bound(**training, batches_known=known), 2) for known in (False, True)]
        [0.15, 0.82]
    """
    steps = check_releases(noise_multiplier, sample_rate, steps)
    check_number("The prior success kappa", kappa)
    if not 0 < kappa < 1:
        raise InputError(f"The prior success kappa must lie strictly between 0 and 1, not {kappa:g}.")
    if sample_rate == 1:
        return float(ndtr(ndtri(kappa) + _separation(noise_multiplier, steps)))
    if batches_known:
        return _known_reconstruction(noise_multiplier, sample_rate, steps, kappa)
    arguments = {"sigma": float(noise_multiplier), "rate": float(sample_rate), "steps": steps}
    return remember(
        "reconstruction_bound",
        arguments | {"kappa": float(kappa)},
        lambda: max(_sampled_reconstruction(noise_multiplier, sample_rate, steps, kappa), kappa),
    )


def membership_bound(noise_multiplier: float, sample_rate: float = 1.0, steps: int = 1) -> float:
    """Highest accuracy in telling whether a sample is in, where both answers are equally likely beforehand.

    The attacker knows everything else. It is (1 + V) / 2 for the total variation V between the releases with
    and without the sample: Phi(sqrt(steps) / (2 sigma)) at sample_rate 1, else from the privacy loss
    distribution (V is delta at eps 0), and by the looser Rényi bound above 10 million steps.

    Args:
        noise_multiplier: sigma, above 0.
        sample_rate: chance of the sample to be in a step's batch (Poisson), in (0, 1].
        steps: releases seen.

    Returns:
        A share from 0.5 to 1.

    Raises:
        InputError: for a value outside its range.

    Example:
        >>> round(membership_bound(3.7306), 3)  # eps 1 at delta 1e-5
        0.553
    """
    steps = check_releases(noise_multiplier, sample_rate, steps)
    if sample_rate == 1:
        return float(ndtr(_separation(noise_multiplier, steps) / 2))
    arguments = {"sigma": float(noise_multiplier), "rate": float(sample_rate), "steps": steps}
    return remember(
        "membership_bound", arguments, lambda: _sampled_membership(noise_multiplier, sample_rate, steps)
    )


def gaussian_claim(noise_std: float, batch_size: int, max_grad_norm: float) -> float:
    """The noise multiplier of noise on the mean of clipped gradients, as in `clip+noise`.

    Noise of standard deviation s on the mean is noise of s B on the sum, so sigma = s B / C: the chain is the
    Gaussian mechanism, and `calibrate(noise_multiplier=...)` gives its epsilon.

    Args:
        noise_std: standard deviation on each entry of the mean gradient, above 0.
        batch_size: expected batch B that the sum is divided by, at least 1.
        max_grad_norm: clip norm C, above 0.

    Raises:
        InputError: for a value outside its range.

    Example:
        >>> gaussian_claim(0.5, batch_size=4, max_grad_norm=2.0)
        1.0
    """
    check_positive("`noise_std`", noise_std)
    check_positive("`batch_size`", batch_size)
    check_positive("`max_grad_norm`", max_grad_norm)
    sigma = noise_std * batch_size / max_grad_norm
    if not 0 < sigma < math.inf:
        raise InputError("`noise_std` and `max_grad_norm` are too far apart: choose values of similar size.")
    return sigma


def _known_reconstruction(sigma: float, sample_rate: float, steps: int, kappa: float) -> float:
    """Mean over the number of batches with the sample, which says nothing of what it is like."""
    counts = binom(steps, sample_rate)
    least, most = counts.ppf(_RARE), counts.isf(_RARE)
    ends = np.unique(np.linspace(least, most, int(min(most - least, _COUNTS)) + 1).round())
    chances = np.diff(counts.cdf(ends), prepend=0.0)
    success = ndtr(ndtri(kappa) + np.minimum(np.sqrt(ends) / max(sigma, 1e-300), 1e300))
    return min(float(chances @ success) + _RARE, 1.0)


def _separation(sigma: float, steps: int) -> float:
    """Distance of the two means in standard deviations, all releases together."""
    return min(math.sqrt(steps) / max(sigma, 1e-300), 1e300)


def _sampled_reconstruction(sigma: float, sample_rate: float, steps: int, kappa: float) -> float:
    """Duality: min over eps of delta(eps) + e^eps kappa, every term of which is an upper bound.

    Eps below 0 is included; above -log kappa the second term passes 1.
    """
    low, high = SIGMA_RANGE
    if sigma < low:
        return 1.0
    sigma = min(sigma, high)  # more noise never helps the attacker
    bound = renyi_blow_up(sigma, sample_rate, steps, kappa)
    composed = loss_distribution(sigma, sample_rate, steps, GRIDS[1])
    if composed is None:
        return bound
    dual = minimize_scalar(
        lambda eps: composed.get_delta_for_epsilon(eps) + math.exp(eps) * kappa,
        bounds=(-40.0, -math.log(kappa)),
        method="bounded",
    )
    return min(bound, float(dual.fun), 1.0)


def _sampled_membership(sigma: float, sample_rate: float, steps: int) -> float:
    low, high = SIGMA_RANGE
    variation = chance_of_inclusion(sample_rate, steps)
    if sigma >= low:
        sigma = min(sigma, high)
        variation = min(variation, renyi_variation(sigma, sample_rate, steps))
        composed = loss_distribution(sigma, sample_rate, steps, GRIDS[1])
        if composed is not None:
            variation = min(variation, float(composed.get_delta_for_epsilon(0.0)))
    return 0.5 + max(variation, 0.0) / 2
