"""What a noise multiplier is worth: epsilon, the noise for an epsilon, and the bound on reconstruction.

Adjacency is add/remove of one sample, sensitivity the clip norm C (`eps_replace`: replacement, 2C). Sampling
rates below 1 assume Poisson sampling, which training loops rarely do to the letter; the attacked releases
themselves are always judged with their batch fixed (sample rate 1), where no sampling helps. Full-batch
releases are computed exactly, whatever the accountant.
Searches are remembered on disk ($DPBENCH_CACHE, else the XDG cache folder).
"""

from __future__ import annotations

import math
from functools import partial
from importlib.metadata import version

from dpbench.privacy import accountants
from dpbench.protocol import Guarantee, InputError
from dpbench.system.cache import remember

PRIOR = 0.1
"""Prior success of the attacker that `Guarantee.rero_release` bounds."""


def epsilon(
    noise_multiplier: float, delta: float, sample_rate: float = 1.0, steps: int = 1, accountant: str = "pld"
) -> float:
    """Epsilon spent by `steps` releases, each noised with standard deviation noise_multiplier x clip norm.

    Args:
        noise_multiplier: sigma, above 0.
        delta: in (0, 1).
        sample_rate: chance of a sample to be in a step's batch, in (0, 1].
        steps: number of releases, at least 1.
        accountant: `pld` (tight), `prv` or `rdp` (Opacus'); with sample_rate 1 the exact analytic formula.

    Returns:
        Epsilon, 0 or more; inf where it passes 1e9.

    Raises:
        InputError: for a value outside its range, or where the accountant has no answer.

    Example:
        >>> round(epsilon(3.7306, 1e-5), 3)
        1.0
    """
    _check(delta, sample_rate, steps, accountant)
    _positive("The noise multiplier", noise_multiplier)
    if sample_rate == 1:
        return accountants.analytic_epsilon(noise_multiplier / math.sqrt(steps), delta)
    if accountant == "pld":
        compute = partial(accountants.pld_epsilon, noise_multiplier, delta, sample_rate, steps)
    else:
        compute = partial(accountants.opacus_epsilon, accountant, noise_multiplier, delta, sample_rate, steps)
    return remember("epsilon", _key(noise_multiplier, delta, sample_rate, steps, accountant), compute)


def noise_multiplier(
    eps: float, delta: float, sample_rate: float = 1.0, steps: int = 1, accountant: str = "pld"
) -> float:
    """Smallest noise multiplier whose `steps` releases spend at most `eps` (and at least 0.999 of it).

    Args and errors are those of `epsilon`; an eps out of the accountant's reach is an InputError too, which
    says what is within reach.

    Example:
        >>> round(noise_multiplier(1, 1e-5), 4)
        3.7306
    """
    _check(delta, sample_rate, steps, accountant)
    _positive("eps", eps)
    if sample_rate == 1:
        return accountants.analytic_sigma(eps, delta) * math.sqrt(steps)
    if accountant == "pld":
        compute = partial(accountants.pld_sigma, eps, delta, sample_rate, steps)
    else:
        compute = partial(accountants.opacus_sigma, accountant, eps, delta, sample_rate, steps)
    return remember("noise_multiplier", _key(eps, delta, sample_rate, steps, accountant), compute)


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


def reconstruction_bound(
    noise_multiplier: float, sample_rate: float = 1.0, steps: int = 1, kappa: float = PRIOR
) -> float:
    """Upper bound on an informed attacker's chance to rebuild a sample (ReRo; Hayes et al. 2023).

    The attacker knows every other sample of every batch; `kappa` is its success without the releases. Closed
    form Phi(Phi^-1(kappa) + sqrt(steps) / sigma) at sample_rate 1, else from the privacy loss distribution.

    Args:
        noise_multiplier: sigma, above 0.
        sample_rate: chance of the sample to be in a step's batch (Poisson), in (0, 1].
        steps: releases seen.
        kappa: prior success, in (0, 1).

    Returns:
        A probability, kappa or more.

    Raises:
        InputError: for a value outside its range.

    Example:
        >>> round(reconstruction_bound(noise_multiplier(8, 1e-5)), 2)
        0.65
    """
    _check(0.5, sample_rate, steps, "pld")
    _positive("The noise multiplier", noise_multiplier)
    if not 0 < kappa < 1:
        raise InputError(f"The prior success kappa must lie strictly between 0 and 1, not {kappa:g}.")
    compute = partial(accountants.blow_up, noise_multiplier, sample_rate, steps, kappa)
    if sample_rate == 1:
        return compute()
    key = _key(noise_multiplier, kappa, sample_rate, steps, "pld")
    return remember("reconstruction_bound", key, compute)


def calibrate(
    *,
    eps: float | None,
    noise_multiplier: float | None,
    eps_scope: str,
    delta: float,
    train_size: int,
    epochs: float,
    batch_size: int,
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
        delta: in (0, 1).
        train_size: samples in the client's training set.
        epochs: passes over it.
        batch_size: expected batch, at most `train_size`.
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
        ...               epochs=10, batch_size=4, max_grad_norm=1.0)
        >>> g.eps, round(g.eps_release, 2), round(g.noise_multiplier, 4)
        (None, 8.0, 0.6002)
    """
    if (eps is None) == (noise_multiplier is None):
        raise InputError("Give either `eps` or `noise_multiplier`, not both: one follows from the other.")
    if eps_scope not in ("training", "release"):
        raise InputError(f"Unknown eps scope {eps_scope!r}; known: training, release.")
    _positive("The clip norm (max_grad_norm)", max_grad_norm)
    _positive("The number of epochs", epochs)
    if not 1 <= batch_size <= train_size:
        raise InputError(
            f"A batch of {batch_size} does not fit a training set of {train_size}; adjust `batch_size` or "
            "`train_size`."
        )
    if releases != int(releases) or releases < 1:
        raise InputError(f"The number of releases must be a whole number of at least 1, not {releases:g}.")
    if not 0 < inclusion <= 1:
        raise InputError(f"The chance of inclusion must lie above 0 and be at most 1, not {inclusion:g}.")
    rate, steps = inclusion, releases
    if eps_scope == "training":
        rate, steps = batch_size / train_size, math.ceil(epochs * train_size / batch_size)
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
        accountant="analytic" if rate == 1 else accountant,
        eps_scope=eps_scope,
        rero_release=reconstruction_bound(sigma, inclusion, releases),
        releases=releases,
        eps_replace=eps_replace(sigma, delta, releases) if inclusion == 1 else None,
    )


def _check(delta: float, sample_rate: float, steps: int, accountant: str) -> None:
    if not 0 < delta < 1:
        raise InputError(f"delta must lie strictly between 0 and 1 (1e-5 is usual), not {delta:g}.")
    if not 0 < sample_rate <= 1:
        raise InputError(f"The sample rate must lie above 0 and be at most 1, not {sample_rate:g}.")
    if steps != int(steps) or steps < 1:
        raise InputError(f"The number of steps must be a whole number of at least 1, not {steps:g}.")
    if accountant not in accountants.ACCOUNTANTS:
        raise InputError(f"Unknown accountant {accountant!r}; known: {', '.join(accountants.ACCOUNTANTS)}.")


def _positive(what: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise InputError(f"{what} must be a finite number above 0, not {value:g}.")


def _key(
    value: float, delta: float, sample_rate: float, steps: int, accountant: str
) -> dict[str, float | str]:
    return {
        "value": float(value),
        "delta": delta,
        "sample_rate": sample_rate,
        "steps": int(steps),
        "accountant": accountant,
        "library": version("dp-accounting") if accountant == "pld" else version("opacus"),
    }
