"""The noise for a risk that is stated outright: reconstruction, or membership, over a whole training."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.optimize import brentq
from scipy.special import ndtri

from dpbench.privacy.accountants import SIGMA_RANGE, chance_of_inclusion
from dpbench.privacy.bounds import reconstruction_bound
from dpbench.privacy.checks import check_number, check_sampling
from dpbench.privacy.tradeoff import trade_off
from dpbench.protocol import InputError
from dpbench.system.cache import remember

_STEP = 1.05
_TOLERANCE = 2e-4
_MU_RANGE = (1e-12, 40.0)
"""Where the search may begin: beyond it, differences of risks are lost to rounding."""


def noise_for_bound(bound: float, kappa: float, sample_rate: float = 1.0, steps: int = 1) -> float:
    """The smallest noise multiplier at which no attacker rebuilds a sample more often than `bound`.

    Args:
        bound: on the chance to rebuild a sample after all the releases, above `kappa` and below 1.
        kappa: the chance without the releases, above 0.
        sample_rate: chance of a sample to be in a step's batch, in (0, 1]; below 1 the attacker does not know
            which batches it was in.
        steps: releases seen.

    Returns:
        sigma, at most 0.1 % more than is needed.

    Raises:
        InputError: for a value outside its range, and where no noise multiplier within reach is right.

    Example:
        >>> sigma = noise_for_bound(0.2, 0.1)
        >>> 0.199 < trade_off(sigma).power(0.1) <= 0.2
        True
    """
    _check_bound("bound", bound, kappa)
    steps = check_sampling(sample_rate, steps)
    return _noise(
        "bound",
        (bound, kappa, sample_rate, steps),
        min(kappa + chance_of_inclusion(sample_rate, steps), 1.0),
        _central(float(ndtri(bound) - ndtri(kappa)), sample_rate, steps),
        lambda sigma: trade_off(sigma, sample_rate, steps).power(kappa),
    )


def noise_for_server_bound(bound: float, kappa: float, sample_rate: float, steps: int) -> float:
    """The smallest noise multiplier at which a server that knows the batches is held to `bound`, too.

    Args:
        bound: as for `noise_for_bound`; so are `kappa`, `steps`, the result and the errors.
        kappa: the chance without the releases.
        sample_rate: chance of a sample to be in a step's batch; the attacker knows which it was in.
        steps: releases seen.

    Example:
        >>> one, three = (noise_for_server_bound(0.2, 0.1, 1.0, steps) for steps in (1, 3))
        >>> round(three / one, 2)
        1.73
    """
    _check_bound("server_bound", bound, kappa)
    steps = check_sampling(sample_rate, steps)
    return _noise(
        "server_bound",
        (bound, kappa, sample_rate, steps),
        kappa + (1 - kappa) * chance_of_inclusion(sample_rate, steps),
        math.sqrt(max(sample_rate * steps, 1.0)) / _within(float(ndtri(bound) - ndtri(kappa))),
        lambda sigma: reconstruction_bound(sigma, sample_rate, steps, kappa, batches_known=True),
    )


def noise_for_advantage(advantage: float, sample_rate: float = 1.0, steps: int = 1) -> float:
    """The smallest noise multiplier at which no attacker's membership advantage is above `advantage`.

    Args:
        advantage: true less false positive rate in telling whether a sample was in, in (0, 1).
        sample_rate: as for `noise_for_bound`; so are the result, the steps and the errors.
        steps: releases seen.

    Example:
        >>> sigma = noise_for_advantage(0.1)
        >>> 0.0999 < trade_off(sigma).advantage <= 0.1
        True
    """
    check_number("`target_advantage`", advantage)
    if not 0 < advantage < 1:
        raise InputError(f"`target_advantage` must lie above 0 and below 1, not {advantage:g}.")
    steps = check_sampling(sample_rate, steps)
    return _noise(
        "advantage",
        (advantage, 0.0, sample_rate, steps),
        chance_of_inclusion(sample_rate, steps),
        _central(2 * float(ndtri((1 + advantage) / 2)), sample_rate, steps),
        lambda sigma: trade_off(sigma, sample_rate, steps).advantage,
    )


def _check_bound(what: str, bound: float, kappa: float) -> None:
    check_number("`kappa`", kappa)
    check_number(f"`target_{what}`", bound)
    if not 0 < kappa < bound < 1:
        raise InputError(
            f"`target_{what}` must lie above `kappa`, {kappa:g}, and below 1, not {bound:g}: without the "
            "training an attacker is right that often."
        )


def _within(mu: float) -> float:
    return min(max(mu, _MU_RANGE[0]), _MU_RANGE[1])


def _central(mu: float, rate: float, steps: int) -> float:
    """The sigma of a training whose curve is about Gaussian with this mu.

    By the central limit of many steps (Bu et al. 2020), mu = q sqrt(T (exp(1 / sigma^2) - 1)).
    """
    return math.log1p((_within(mu) / rate) ** 2 / steps) ** -0.5


def _noise(
    what: str,
    asked: tuple[float, float, float, int],
    unprotected: float,
    begin: float,
    risk: Callable[[float], float],
) -> float:
    """The least sigma whose risk is not above the target.

    Args:
        what: the name of the target.
        asked: target, kappa, sample rate and steps.
        unprotected: the risk without any noise.
        begin: a sigma to begin at.
        risk: of a sigma; falls as it grows.
    """
    target, kappa, rate, steps = asked
    if unprotected <= target:
        raise InputError(
            f"`target_{what}` {target:g} holds without any noise, as a sample is in a batch with "
            f"probability {chance_of_inclusion(rate, steps):.3g} only: choose a smaller one."
        )

    def excess(log_sigma: float) -> float:
        return risk(math.exp(log_sigma)) - target

    def search() -> float:
        low = high = math.log(begin)
        step = math.log(_STEP)
        while excess(low) <= 0:
            high, low, step = low, low - step, 2 * step
            if low < math.log(SIGMA_RANGE[0]):
                raise _out_of_reach(what, target)
        while excess(high) > 0:
            low, high, step = high, high + step, 2 * step
            if high > math.log(SIGMA_RANGE[1]):
                raise _out_of_reach(what, target)
        found = brentq(excess, low, high, xtol=_TOLERANCE)
        while excess(found) > 0:
            found += _TOLERANCE
        return math.exp(found)

    arguments = {"target": float(target), "kappa": float(kappa), "rate": float(rate), "steps": steps}
    return remember(f"noise for {what}", arguments, search)


def _out_of_reach(what: str, target: float) -> InputError:
    low, high = SIGMA_RANGE
    return InputError(
        f"`target_{what}` {target:g} is out of reach of noise multipliers from {low:g} to {high:g}: choose "
        "one further from the risk without noise, or from that without the training."
    )
