"""What a product says of its filter, which is another thing than what is proven of it."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """The privacy that one release is said to have. Nobody here vouches for it: see `Guarantee`.

    Attributes:
        eps: the epsilon that is claimed.
        delta: the delta that goes with it; 0 for pure differential privacy.
        noise_multiplier: standard deviation of the noise over `sensitivity` where Gaussian noise is claimed.
        sensitivity: how far one sample is said to move the released gradient; None where nobody says.
    """

    eps: float
    delta: float = 0.0
    noise_multiplier: float | None = None
    sensitivity: float | None = None


def classical_noise_multiplier(eps: float, delta: float) -> float:
    """sqrt(2 log(1.25 / delta)) / eps: Gaussian noise in units of the sensitivity.

    Proven for eps below 1 only (Dwork & Roth 2014, theorem A.1).

    Args:
        eps: above 0.
        delta: in (0, 1).

    Example:
        >>> round(classical_noise_multiplier(10, 1e-5), 4)
        0.4845
    """
    return math.sqrt(2 * math.log(1.25 / delta)) / eps
