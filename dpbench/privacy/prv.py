"""Epsilon from Opacus' `prv` accountant (Gopi, Lee & Wutschitz 2021)."""

from __future__ import annotations

import math
import warnings

from dpbench.privacy.pld import is_sound
from dpbench.privacy.renyi import renyi_epsilon
from dpbench.protocol import InputError

EPS_ERROR = 0.01
"""Opacus adds it to its estimate, so no smaller epsilon comes out."""
MOST_POINTS = 2**24
"""Of the discretised loss: a quarter of a gigabyte for each array of complex numbers."""
LARGEST = 700.0
"""Opacus counts losses beyond the largest exponential, 709.78, as if they were no larger."""


def prv_epsilon(sigma: float, delta: float, sample_rate: float, steps: int) -> float:
    """Opacus' upper bound on epsilon, at its usual error of 0.01.

    Raises:
        InputError: where `prv` gives no answer, or one that rounding decides.
    """
    refusal = InputError(
        f"The prv accountant gives no answer at noise multiplier {sigma:.3g}, delta {delta:g}, sample rate "
        f"{sample_rate:.3g} and {steps} steps; use pld."
    )
    # What Opacus is going to allocate: twice the largest loss, in intervals that shrink with the steps.
    largest = renyi_epsilon(sigma, delta / 4000, sample_rate, steps)
    points = 2 * (largest + 3) * math.sqrt(steps * math.log(12_000 / delta) / 2) / EPS_ERROR
    above = renyi_epsilon(sigma, delta, sample_rate, steps)
    if not is_sound(delta, steps) or not points < MOST_POINTS or above < EPS_ERROR:
        raise refusal
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(sigma, sample_rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            eps = float(accountant.get_epsilon(delta, eps_error=EPS_ERROR))
        except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
            raise refusal from error
    if not eps < LARGEST or eps > above + 2 * EPS_ERROR:
        raise refusal  # both are upper bounds, and this one should be tight
    return eps
