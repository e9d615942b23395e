"""Privacy of a person with several samples, from the trade-off function of one sample (group privacy)."""

from __future__ import annotations

import numpy as np

from dpbench.privacy.checks import check_count
from dpbench.privacy.tradeoff import TradeOff
from dpbench.protocol import InputError

MOST = 1000
_NEARLY_ONE = 1 - 1e-15


def grouped(curve: TradeOff, samples: int) -> TradeOff:
    """The trade-off function for adding or removing `samples` samples of one person.

    1 - f of the group is 1 - f of one sample, applied as often as there are samples (Dong, Roth & Su 2022,
    theorem 2.14). For a Gaussian curve mu is multiplied by the number; epsilon grows differently.

    Args:
        curve: of one sample.
        samples: 1 to 1000.

    Raises:
        InputError: for a number outside its range.

    Example:
        >>> from dpbench.privacy.tradeoff import trade_off
        >>> three = grouped(trade_off(3.0), 3)
        >>> round(three.power(0.1), 4), round(trade_off(1.0).power(0.1), 4)
        (0.3891, 0.3891)
    """
    samples = check_count("The number of samples of a person", samples)
    if samples > MOST:
        raise InputError(f"Groups of more than {MOST} samples are not computed: choose a smaller number.")
    whole: TradeOff | None = None
    while True:  # by repeated squaring
        if samples % 2:
            whole = curve if whole is None else _after(curve, whole)
        samples //= 2
        if not samples:
            return whole
        curve = _after(curve, curve)


def _after(outer: TradeOff, inner: TradeOff) -> TradeOff:
    """`outer` of `inner`: its corners are those of `inner`, and where `inner` meets those of `outer`."""
    met = np.interp(outer.false_positive, inner.true_positive, inner.false_positive)
    false = np.union1d(inner.false_positive, met)
    reached = np.interp(false, inner.false_positive, inner.true_positive)
    true = np.interp(reached, outer.false_positive, outer.true_positive)
    last = int(np.searchsorted(true, _NEARLY_ONE)) + 1  # beyond it nothing is left to lose
    return TradeOff(np.append(false[:last], 1.0), np.append(true[:last], 1.0))
