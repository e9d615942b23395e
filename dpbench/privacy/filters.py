"""What the epsilon of a product's filter is worth, from its rule alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dpbench.privacy.calibration import epsilon
from dpbench.privacy.checks import check_count, check_delta, check_positive
from dpbench.protocol import InputError, classical_noise_multiplier

_ORDERS = 1 + np.geomspace(1e-4, 1e5, 2000)


def local_dp_epsilon(
    nominal_eps: float = 10.0,
    nominal_delta: float = 1e-5,
    nominal_sensitivity: float = 1e-4,
    clipping_norm: float = 1.0,
    distance: float = 2.0,
) -> float:
    """The exact epsilon, at `nominal_delta`, of the noise that Flower's local DP adds to a clipped update.

    The noise has standard deviation `nominal_sensitivity` * sqrt(2 log(1.25 / delta)) / `nominal_eps`, and
    two inputs move the update by `distance` clipping norms. The rest is Balle & Wang 2018, theorem 8.

    Args:
        nominal_eps: what is typed in, above 0.
        nominal_delta: from 1e-100 to 0.5.
        nominal_sensitivity: above 0.
        clipping_norm: S, above 0.
        distance: 2 for any two updates, which is what local differential privacy is about, and for one sample
            among others, which can turn the clipped update round; 1 for an update against none.

    Returns:
        Epsilon, 0 or more; inf above 1e9.

    Raises:
        InputError: for a value outside its range.

    Example:
        >>> f"{local_dp_epsilon():.2g}", f"{local_dp_epsilon(distance=1):.2g}"
        ('8.5e+08', '2.1e+08')
        >>> [round(local_dp_epsilon(eps, nominal_sensitivity=2.0), 1) for eps in (1, 10, 50)]
        [0.8, 10.4, 96.4]
    """
    for name, value in (
        ("`nominal_eps`", nominal_eps),
        ("`nominal_sensitivity`", nominal_sensitivity),
        ("`clipping_norm`", clipping_norm),
        ("`distance`", distance),
    ):
        check_positive(name, value)
    check_delta(nominal_delta)
    noise = nominal_sensitivity * classical_noise_multiplier(nominal_eps, nominal_delta)
    return epsilon(noise / (distance * clipping_norm), nominal_delta)


@dataclass(frozen=True)
class SparseVectorEpsilon:
    """What one release of NVFlare's sparse vector filter spends; any two updates, whatever their length.

    Attributes:
        sent: c, the entries that leave at most.
        selection: a bound on the pure epsilon of the choice of entries.
        values: the pure epsilon of the values, reached by two updates: gamma and -gamma everywhere.
        values_at_delta: a bound on their epsilon at the delta that was asked for, at most `values`.
        claimed: what NVFlare's accountant reports.
    """

    sent: int
    selection: float
    values: float
    values_at_delta: float
    claimed: float

    @property
    def pure(self) -> float:
        """A bound on the pure epsilon of the release, of which `values` is spent for certain."""
        return self.selection + self.values

    @property
    def at_delta(self) -> float:
        """A bound on the epsilon of the release at the delta that was asked for."""
        return self.selection + self.values_at_delta


def sparse_vector_epsilon(
    entries: int,
    *,
    svt_fraction: float = 0.1,
    nominal_eps: float = 0.1,
    svt_noise_var: float = 0.1,
    delta: float = 1e-5,
) -> SparseVectorEpsilon:
    """What is proven of NVFlare's sparse vector filter for an update of so many entries.

    Selection: shifting the threshold by gamma costs eps_1, and each accepted entry 2 gamma over the scale of
    its noise, eps_2 / c (Lyu, Su & Li 2017, algorithm 7). Their algorithm stops after c accepted ones. The
    filter goes on to the end of a pass, so up to n may be accepted: eps_1 + eps_2 n / c. Which of them leave
    is chosen blindly. Values: c Laplace mechanisms of epsilon `svt_noise_var` each; at `delta` by Rényi's
    divergence (Mironov 2017, table II, and Canonne et al. 2020, proposition 12).

    Args:
        entries: n, at least 1.
        svt_fraction: c / n, in (0, 1].
        nominal_eps: eps_1 + eps_2, above 0.
        svt_noise_var: epsilon of each value, above 0.
        delta: from 1e-100 to 0.5.

    Raises:
        InputError: for a value outside its range.

    Example:
        >>> found = sparse_vector_epsilon(48)
        >>> found.sent, round(found.claimed, 2), round(found.pure, 2)
        (5, 0.6, 1.31)
    """
    entries = check_count("The number of entries", entries)
    for name, value in (
        ("`svt_fraction`", svt_fraction),
        ("`nominal_eps`", nominal_eps),
        ("`svt_noise_var`", svt_noise_var),
    ):
        check_positive(name, value)
    if svt_fraction > 1:
        raise InputError(f"`svt_fraction` must be at most 1, not {svt_fraction:g}.")
    check_delta(delta)
    sent = min(math.ceil(entries * svt_fraction), entries)
    first = nominal_eps / (1 + (2 * sent) ** (2 / 3))
    values = sent * svt_noise_var
    return SparseVectorEpsilon(
        sent=sent,
        selection=first + (nominal_eps - first) * entries / sent,
        values=values,
        values_at_delta=min(values, _laplace_epsilon(svt_noise_var, sent, delta)),
        claimed=nominal_eps + values,
    )


def _laplace_epsilon(each: float, count: int, delta: float) -> float:
    """A bound at `delta` for `count` Laplace mechanisms of epsilon `each`, by the best of many orders."""
    a = _ORDERS
    divergence = np.logaddexp(
        np.log(a / (2 * a - 1)) + (a - 1) * each, np.log((a - 1) / (2 * a - 1)) - a * each
    ) / (a - 1)
    bound = count * divergence - (math.log(delta) + np.log(a)) / (a - 1) + np.log1p(-1 / a)
    return max(float(bound.min()), 0.0)
