"""A release as the sum of gradients under noise, entry by entry, by what its last stage says of itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from dpbench.protocol import InputError, Reading, Release, Stage, defenses_registry

EXACT = 1e-2
"""Variance of an entry without noise, relative to the least of those with noise."""


@dataclass(frozen=True)
class Linear:
    """sum of gradients + noise, all tensors in one row.

    Attributes:
        values: [P]; 0 where nothing is known.
        kept: bool [P], the entries of which something is known; None for all of them.
        noise: standard deviation of the noise on the entries of full weight.
        weights: [P], `noise` over the standard deviation of each entry's noise, 0 where nothing is known;
            None for 1 throughout. Entries times weights have noise of one level.
    """

    values: Tensor
    kept: Tensor | None
    noise: float
    weights: Tensor | None

    def weighted(self, rows: Tensor) -> Tensor:
        """Gradients [n, P] or [P] times the weights."""
        return rows if self.weights is None else rows * self.weights


def reading_of(release: Release) -> Reading | None:
    """What the last stage says of itself; None where it says nothing or its code is not known here."""
    if not release.defense or release.defense[-1].name not in defenses_registry:
        return None
    last = made(release.defense[-1])
    return last.read(release) if hasattr(last, "read") else None


def made(stage: Stage) -> Any:
    """The defence that a stage describes.

    Raises:
        InputError: where nothing of that name is registered.
    """
    if stage.name not in defenses_registry:
        raise InputError(
            f"No defence is registered as {stage.name}, so its releases cannot be simulated: register it."
        )
    kind = defenses_registry[stage.name]
    own = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in stage.parameters.items() if name in own})


def linear(release: Release, as_sent: bool = False) -> Linear:
    """The released sum as it is known; of several releases only the mean matters.

    Args:
        release: what left the client.
        as_sent: take a release of the largest entries as it stands, its zeros included.
    """
    noise = release.noise_on_sum() / math.sqrt(len(release.each))
    seen = reading_of(release)
    if seen is None or (as_sent and seen.bounds is not None and any(bool(s.any()) for s in seen.shares)):
        return Linear(_flat(release.gradients) * release.batch_size, None, noise, None)
    shares, own = _flat(seen.shares), _flat(seen.variances) * release.batch_size**2
    kept = shares > 0
    if seen.saturated is not None:
        kept = kept & ~_flat(seen.saturated)
    values = torch.where(kept, _flat(seen.values) * release.batch_size, 0.0)
    variances = noise**2 / torch.where(kept, shares, 1.0) + own
    if not bool(kept.any()) or not bool(variances[kept].any()):
        return Linear(values, kept, 0.0, kept.to(values))
    if not bool((variances[kept] != variances[kept][0]).any()):
        return Linear(values, kept, float(variances[kept][0].sqrt()), kept.to(values))
    # an exact entry among others would have all the weight there is
    variances = variances.clamp_min(EXACT * float(variances[kept & (variances > 0)].min()))
    least = variances[kept].min()
    return Linear(values, kept, float(least.sqrt()), (least / variances).sqrt() * kept)


def _flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors])


def alone(release: Release) -> list[Release]:
    """Each of several releases by itself."""
    return [replace(release, gradients=each, repeats=()) for each in release.each]


def as_it_was(release: Release) -> Release:
    """The first of several releases that the last stage left as it was, without that stage; else `release`.

    Some stages act by chance, and a release tells whether one did.
    """
    for one in alone(release):
        seen = reading_of(one)
        if seen is None or seen.saturated is not None or any(bool(v.any()) for v in seen.variances):
            continue
        if all(bool((s == 1).all()) for s in seen.shares):
            return replace(one, defense=one.defense[:-1])
    return release
