"""Ranges that every question about privacy shares; each complaint is one sentence."""

from __future__ import annotations

import sys
from numbers import Real
from typing import Any

from dpbench.protocol import InputError

LARGEST_DELTA = 0.5
SMALLEST_DELTA = 1e-100


def check_releases(noise_multiplier: float, sample_rate: float, steps: int) -> int:
    """The number of steps as an integer, where all three are within range.

    Raises:
        InputError: where one is not.
    """
    check_positive("`noise_multiplier`", noise_multiplier)
    return check_sampling(sample_rate, steps)


def check_sampling(sample_rate: float, steps: int) -> int:
    """The number of steps as an integer, where both are within range.

    Raises:
        InputError: where one is not.
    """
    check_number("The sample rate", sample_rate)
    if not 0 < sample_rate <= 1:
        raise InputError(f"The sample rate must lie above 0 and be at most 1, not {sample_rate:g}.")
    return check_count("The number of steps", steps)


def check_delta(delta: float) -> None:
    """Refuse a delta that promises nothing, or that no arithmetic reaches.

    Raises:
        InputError: outside 1e-100 ... 0.5.
    """
    check_number("`delta`", delta)
    if not SMALLEST_DELTA <= delta <= LARGEST_DELTA:
        raise InputError(
            f"`delta` must lie from {SMALLEST_DELTA:g} to {LARGEST_DELTA:g} (1e-5 is usual), not {delta:g}."
        )


def check_count(what: str, value: float) -> int:
    """`value` as an integer.

    Raises:
        InputError: for one that is not a whole number from 1 to 2**63 - 1.
    """
    check_number(what, value)
    if not (1 <= value < 2**63 and value == int(value)):
        raise InputError(f"{what} must be a whole number of at least 1 and below 2**63, not {_shown(value)}.")
    return int(value)


def check_number(what: str, value: Any) -> None:
    """Refuse text, None, True and whatever else is no number.

    Raises:
        InputError: for any of them.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"{what} must be a number, not {value!r}.")


def check_positive(what: str, value: float) -> None:
    """Refuse NaN, infinity, 0 and less.

    Raises:
        InputError: for any of them.
    """
    check_number(what, value)
    if not 0 < value <= sys.float_info.max:
        raise InputError(f"{what} must be a finite number above 0, not {_shown(value)}.")


def _shown(value: float) -> str:
    return "a number beyond 1e308" if abs(value) > sys.float_info.max else f"{value:g}"
