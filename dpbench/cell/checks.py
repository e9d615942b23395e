"""What can be checked of a release without an attack: its length, and whether it can be made again."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dpbench.cell import aggregation
from dpbench.cell.release import released
from dpbench.cell.scene import Scene
from dpbench.cell.spec import Cell
from dpbench.protocol import Release

SURE = 40.0
"""A correct release is longer than its limit with a chance of exp(-40) at most."""
ROUNDED = 1e-3
"""Share by which two lengths or releases may differ for rounding alone."""


def of_release(cell: Cell, scene: Scene, release: Release) -> dict[str, float | bool | None]:
    """The columns `release_norm`, `release_norm_limit` and `release_repeats` of a cell's rows.

    Args:
        cell: what is attacked.
        scene: its batch and victim.
        release: `dpbench.cell.release.released(cell, scene)`.
    """
    same = None
    if cell.defence.name != "none":
        same = _equal(release.gradients, released(cell, scene).gradients)
    return {
        "release_norm": _norm(release.gradients),
        "release_norm_limit": norm_limit(cell, release, len(scene.images)),
        "release_repeats": same,
    }


def norm_limit(cell: Cell, release: Release, present: int) -> float | None:
    """The most that the l2 norm of a release can be if each unit's gradient was clipped to C.

    The mean of clipped gradients is no longer than C. The length of the noise has the bound of Laurent and
    Massart (2000): of n entries with standard deviation s it is at most s sqrt(n + 2 sqrt(n x) + 2 x) with
    probability 1 - exp(-x).

    Args:
        cell: what is attacked.
        release: what left the client, of one batch.
        present: images in the batch.

    Returns:
        None where nothing says C or how much noise there is, or where a later stage than the first does
        something else than add noise.
    """
    stages = aggregation.seen(cell).stages
    clip_norm = getattr(stages[0], "max_grad_norm", None) if stages else None
    if clip_norm is None or any(stage.name != "noise" for stage in stages[1:]):
        return None
    deviation = release.noise_on_sum()
    if stages[0].repeatable and not deviation:  # somebody's own noise: its guarantee says how much
        if release.guarantee is None or stages[0].remembers:
            return None
        deviation = release.guarantee.noise_multiplier * clip_norm
    entries = sum(gradient.numel() for gradient in release.gradients)
    if getattr(stages[0], "unit", "record") == "user":
        present = release.clients
    deviation /= math.sqrt(len(release.each))  # of their mean
    noise = deviation * math.sqrt(entries + 2 * math.sqrt(entries * SURE) + 2 * SURE)
    return (present * clip_norm + noise) * (1 + ROUNDED) / release.batch_size


def _equal(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> bool:
    """The same but for rounding: on a graphics card sums have no fixed order."""
    apart = _norm(tuple(a - b for a, b in zip(first, second, strict=True)))
    return apart <= ROUNDED * max(_norm(first), _norm(second))


def _norm(gradients: tuple[Tensor, ...]) -> float:
    return float(torch.stack([gradient.double().norm() for gradient in gradients]).norm())
