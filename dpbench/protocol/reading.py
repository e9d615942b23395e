"""What a release says of the gradient that the last stage of its defence was given, entry by entry."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Reading:
    """A release read as the gradient itself under noise, one tensor per parameter in each field.

    Attributes:
        values: gradient + noise, on the gradient's own scale.
        shares: how much of an entry was sent, 0 to 1: noise that earlier stages put on each release has its
            variance divided by this. An entry with 0 says nothing.
        variances: of the noise that the stage itself is, such as rounding.
        saturated: bool, entries of which only a bound is known; None where there are none.
        bounds: the most that an entry of share 0 is in size, a scalar or one for each entry: the largest
            entries were sent, so that zero is no bad guess of the others. The largest finite number where
            their size hid itself, too; None where they were chosen by something else.
    """

    values: tuple[Tensor, ...]
    shares: tuple[Tensor, ...]
    variances: tuple[Tensor, ...]
    saturated: tuple[Tensor, ...] | None = None
    bounds: tuple[Tensor, ...] | None = None
