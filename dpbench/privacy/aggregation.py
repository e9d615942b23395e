"""The noise of a sum over several clients: who adds it, and how much of it is on the sum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from dpbench.privacy.checks import check_count, check_positive
from dpbench.protocol import InputError
from dpbench.protocol.parameters import Declared, declare, parameter


@dataclass(frozen=True, kw_only=True)
class Aggregation(Declared):
    """Who adds the Gaussian noise where a release is the sum of several clients.

    Of n clients under `distributed` noise each adds sigma C / sqrt(n) to its own sum (Kairouz, Liu & Steinke
    2021), under `local` noise each adds sigma C, under `central` noise the server adds sigma C once.

    Example:
        >>> Aggregation(noise="local").on_sum(1.5, clients=4)
        3.0
        >>> Aggregation(noise="distributed").of_each(1.5, clients=4)
        (0.75, 0.75, 0.75, 0.75)
    """

    noise: Literal["distributed", "local", "central"] = parameter(
        "distributed",
        "who adds the noise of several clients: each its share (distributed), each all of it (local), or "
        "the server, once (central)",
        only_if={"aggregated": True},
    )

    def on_sum(self, noise_multiplier: float, clients: int) -> float:
        """Sigma on the sum over `clients`, of a calibrated sigma."""
        return noise_multiplier * (math.sqrt(clients) if self.noise == "local" else 1)

    def of_each(self, noise_multiplier: float, clients: int) -> tuple[float, ...]:
        """Sigma of the noise that each client's part of the sum brings along, of a calibrated sigma.

        Noise of the server counts with the first of them: the sum is the same.
        """
        if self.noise == "central":
            return noise_multiplier, *[0.0] * (clients - 1)
        share = 1 / math.sqrt(clients) if self.noise == "distributed" else 1.0
        return (noise_multiplier * share,) * clients


declare(Aggregation)  # no registry holds it


def noise_left(noise_multiplier: float, clients: int, missing: int) -> float:
    """Sigma of distributed noise on the sum where some clients drop out or tell the server their noise.

    Each of n clients added sigma C / sqrt(n), so the n - k others leave sigma sqrt((n - k) / n).

    Args:
        noise_multiplier: sigma on the sum of all clients, above 0.
        clients: n, at least 1.
        missing: k, from 0 to n - 1.

    Raises:
        InputError: for a value outside its range.

    Example:
        >>> noise_left(2.0, clients=16, missing=12)
        1.0
    """
    check_positive("`noise_multiplier`", noise_multiplier)
    clients = check_count("`clients`", clients)
    if not (0 <= missing < clients and missing == int(missing)):
        raise InputError(f"Of {clients} clients 0 to {clients - 1} can be missing, not {missing:g}.")
    return noise_multiplier * math.sqrt(1 - missing / clients)
