"""Epsilon of a noise multiplier, noise for an epsilon, and the full account of a release.

Adjacency is add/remove of one sample, sensitivity the clip norm C (`eps_replace`: replacement, 2C). Sampling
rates below 1 assume Poisson sampling, which training loops rarely do to the letter; the attacked releases
themselves are always judged with their batch fixed (sample rate 1), where no sampling helps. Full-batch
releases are computed exactly, whatever the accountant.
Searches are remembered on disk ($DPBENCH_CACHE, else the XDG cache folder).
"""

from __future__ import annotations

import math

from dpbench.privacy.accountants import ACCOUNTANTS, sampled_epsilon, sampled_sigma
from dpbench.privacy.bounds import reconstruction_bound
from dpbench.privacy.checks import (
    check_count,
    check_delta,
    check_positive,
    check_releases,
    check_sampling,
)
from dpbench.privacy.gaussian import analytic_epsilon, analytic_sigma
from dpbench.protocol import Guarantee, InputError
from dpbench.system.cache import remember
from dpbench.system.words import counted


def epsilon(
    noise_multiplier: float, delta: float, sample_rate: float = 1.0, steps: int = 1, accountant: str = "pld"
) -> float:
    """Epsilon spent by `steps` releases, each noised with standard deviation noise_multiplier x clip norm.

    Args:
        noise_multiplier: sigma, above 0.
        delta: from 1e-100 to 0.5.
        sample_rate: chance of a sample to be in a step's batch, in (0, 1].
        steps: number of releases, at least 1.
        accountant: `pld` (tight), `prv` (Opacus', tight, slower) or `rdp` (looser); with sample_rate 1 the
            exact analytic formula. Where rounding would decide (delta below 1e-10, or below 1e-13 times the
            steps) and above 10 million steps, `pld` gives the result of `rdp`.

    Returns:
        Epsilon, 0 or more; inf where it passes 1e9, and under sampling where sigma is below 1e-3.

    Raises:
        InputError: for a value outside its range, or where the accountant has no answer.

    Example:
        >>> round(epsilon(3.7306, 1e-5), 3)
        1.0
    """
    steps = check_releases(noise_multiplier, sample_rate, steps)
    _check(delta, accountant)
    if sample_rate == 1:
        return analytic_epsilon(noise_multiplier / math.sqrt(steps), delta)
    arguments = _arguments(delta, sample_rate, steps, accountant)
    return remember(
        "epsilon",
        {"sigma": float(noise_multiplier)} | arguments,
        lambda: sampled_epsilon(accountant, noise_multiplier, delta, sample_rate, steps),
    )


def noise_multiplier(
    eps: float, delta: float, sample_rate: float = 1.0, steps: int = 1, accountant: str = "pld"
) -> float:
    """Smallest noise multiplier whose `steps` releases spend at most `eps`.

    With sample_rate 1 it is exact. Otherwise 0.1 % less noise spends more than 0.999 of `eps`.

    Args:
        eps: from 1e-4 to 1e6; from 1e-9 with sample_rate 1.
        delta: from 1e-100 to 0.5.
        sample_rate: chance of a sample to be in a step's batch, in (0, 1].
        steps: number of releases, at least 1.
        accountant: as for `epsilon`.

    Raises:
        InputError: for a value outside its range, or an eps out of the accountant's reach; the sentence says
            what is within reach.

    Example:
        >>> round(noise_multiplier(1, 1e-5), 4)
        3.7306
    """
    steps = check_sampling(sample_rate, steps)
    _check(delta, accountant)
    check_positive("`eps`", eps)
    if sample_rate == 1:
        return _full_batch_sigma(eps, delta, steps)
    arguments = _arguments(delta, sample_rate, steps, accountant)
    return remember(
        "noise_multiplier",
        {"eps": float(eps)} | arguments,
        lambda: sampled_sigma(accountant, eps, delta, sample_rate, steps),
    )


_noise_for = noise_multiplier  # `calibrate` has an argument of that name


def eps_replace(noise_multiplier: float, delta: float, releases: int = 1) -> float:
    """Epsilon of full-batch releases where one sample is replaced by another instead of added or removed.

    Two clipped gradients differ by 2C at most, so the noise counts for half as much. It is the epsilon that
    concerns an attacker who asks which of two known samples is in the batch.

    Args and errors are those of `epsilon`.

    Example:
        >>> [round(eps_replace(noise_multiplier(eps, 1e-5), 1e-5), 2) for eps in (1, 8)]
        [2.15, 19.12]
    """
    return epsilon(noise_multiplier / 2, delta, 1.0, releases)


def calibrate(
    *,
    eps: float | None,
    noise_multiplier: float | None,
    eps_scope: str,
    delta: float,
    train_size: int,
    train_batch_size: int,
    epochs: float,
    max_grad_norm: float,
    accountant: str = "pld",
    releases: int = 1,
    inclusion: float = 1.0,
) -> Guarantee:
    """The full account of a DP release: give eps and get the noise, or the other way round.

    Args:
        eps: the budget to spend; None where `noise_multiplier` is given.
        noise_multiplier: sigma; None where `eps` is given.
        eps_scope: `training`: eps is the budget of a whole run of `epochs` over `train_size` samples;
            `release`: of the attacked releases, all of them together.
        delta: from 1e-100 to 0.5; see `delta_note`.
        train_size: samples in the client's training set.
        train_batch_size: expected batch of the training, at most `train_size`.
        epochs: passes over it.
        max_grad_norm: clip norm C, above 0.
        accountant: `pld`, `prv` or `rdp`, for the training scope.
        releases: how many noisy gradients of the same batch are attacked, at least 1.
        inclusion: chance of the attacked sample to be in each of them (Poisson), in (0, 1].

    Returns:
        A Guarantee with both epsilons; under the release scope `eps` is None. `eps_release`, `eps_replace`
        and `rero_release` are of all `releases` together, the sample being in each with chance `inclusion`;
        below 1 there is no `eps_replace`.

    Raises:
        InputError: for a value outside its range, an eps out of reach, or both or neither of eps and sigma.

    Example:
        >>> g = calibrate(eps=8, noise_multiplier=None, eps_scope="release", delta=1e-5, train_size=50_000,
        ...               train_batch_size=256, epochs=10, max_grad_norm=1.0)
        >>> g.eps, round(g.eps_release, 2), round(g.noise_multiplier, 4)
        (None, 8.0, 0.6002)
    """
    if (eps is None) == (noise_multiplier is None):
        raise InputError("Give either `eps` or `noise_multiplier`, not both: one follows from the other.")
    if eps_scope not in ("training", "release"):
        raise InputError(f"`eps_scope` must be one of training, release, not {eps_scope!r}.")
    check_positive("`max_grad_norm`", max_grad_norm)
    check_positive("`epochs`", epochs)
    train_size = check_count("`train_size`", train_size)
    train_batch_size = check_count("`train_batch_size`", train_batch_size)
    releases = check_count("`releases`", releases)
    if not 0 < inclusion <= 1:
        raise InputError(f"`inclusion` must lie above 0 and be at most 1, not {inclusion:g}.")
    rate, steps = inclusion, releases
    if eps_scope == "training":
        rate, steps = sampling(train_size, train_batch_size, epochs)
    if eps is not None:
        sigma = _noise_for(eps, delta, rate, steps, accountant)
    else:
        sigma = noise_multiplier
        eps = epsilon(sigma, delta, rate, steps, accountant)
    return Guarantee(
        eps=float(eps) if eps_scope == "training" else None,
        eps_release=float(eps)
        if eps_scope == "release"
        else epsilon(sigma, delta, inclusion, releases, accountant),
        delta=delta,
        noise_multiplier=sigma,
        max_grad_norm=max_grad_norm,
        sample_rate=rate if eps_scope == "training" else 1.0,
        steps=steps if eps_scope == "training" else 1,
        accountant=_computed_by(accountant, sigma, delta, rate, steps),
        eps_scope=eps_scope,
        rero_release=reconstruction_bound(sigma, inclusion, releases),
        releases=releases,
        eps_replace=eps_replace(sigma, delta, releases) if inclusion == 1 else None,
    )


def _computed_by(accountant: str, sigma: float, delta: float, sample_rate: float, steps: int) -> str:
    """What gave the epsilon of this noise: `pld` may have fallen back to the Rényi bound."""
    if sample_rate == 1:
        return "analytic"
    if accountant != "pld":
        return accountant
    tight, loose = (epsilon(sigma, delta, sample_rate, steps, name) for name in ("pld", "rdp"))
    return "rdp" if tight >= loose > 0 else accountant


def sampling(train_size: int, train_batch_size: int, epochs: float) -> tuple[float, int]:
    """Sample rate q and optimiser steps T of a training with Poisson sampling.

    Args:
        train_size: N, at least 1.
        train_batch_size: expected batch, from 1 to N.
        epochs: passes over the training set, above 0; a last step that is begun counts.

    Raises:
        InputError: for a value outside its range, and for 2**63 steps or more.

    Example:
        >>> sampling(20_000, 256, 30)
        (0.0128, 2344)
    """
    if not 1 <= train_batch_size <= train_size:
        raise InputError(
            f"A training set of {counted(train_size, 'sample', 'd')} has no batches of {train_batch_size}: "
            "choose a smaller `train_batch_size`, or the `train_size` of your training."
        )
    wanted = epochs * train_size / train_batch_size
    steps = check_count(
        "`epochs` x `train_size` / `train_batch_size`", math.ceil(wanted) if wanted < math.inf else wanted
    )
    return train_batch_size / train_size, steps


def delta_note(delta: float, train_size: int) -> str | None:
    """One line of warning where `delta` allows to give away a whole sample; None where it does not.

    A mechanism that publishes one of N samples at random, and nothing else, has (0, 1 / N)-DP.

    Args:
        delta: above 0.
        train_size: N, a whole number of at least 1.

    Raises:
        InputError: for another `train_size`.

    Example:
        >>> delta_note(1e-5, 50_000)
        >>> delta_note(1e-3, 50_000)
        '`delta` 0.001 is not below 1 / `train_size`, which is 2e-05: publishing a sample would be allowed.'
    """
    train_size = check_count("`train_size`", train_size)
    if delta < 1 / train_size:
        return None
    return (
        f"`delta` {delta:g} is not below 1 / `train_size`, which is {1 / train_size:.3g}: publishing a "
        "sample would be allowed."
    )


def _full_batch_sigma(eps: float, delta: float, steps: int) -> float:
    sigma, more = analytic_sigma(eps, delta) * math.sqrt(steps), 1e-15
    while analytic_epsilon(sigma / math.sqrt(steps), delta) > eps:  # the division may round
        sigma, more = sigma * (1 + more), 2 * more
    return sigma


def _check(delta: float, accountant: str) -> None:
    check_delta(delta)
    if accountant not in ACCOUNTANTS:
        raise InputError(f"`accountant` must be one of {', '.join(ACCOUNTANTS)}, not {accountant!r}.")


def _arguments(delta: float, sample_rate: float, steps: int, accountant: str) -> dict[str, float | str]:
    return {"delta": float(delta), "rate": float(sample_rate), "steps": steps, "accountant": accountant}
