"""The linear part of a learned inversion: ridge regression of images on sketches of their releases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGES = tuple(10.0 ** (k / 2) for k in range(-8, 9))
"""Tried, in units of the mean eigenvalue of the sketches' inner products."""


@dataclass(frozen=True)
class BackProjection:
    """A linear estimate: `(sketch - centre) @ weights` is that of the targets, less their mean.

    Attributes:
        centre: mean sketch, [F].
        weights: [F, D].
        alone: what each sample's target is estimated as from all other samples, less the mean, [n, D].
    """

    centre: Tensor
    weights: Tensor
    alone: Tensor


def fitted(sketches: Tensor, targets: Tensor, blocks: Sequence[int]) -> BackProjection:
    """Ridge regression of the targets on sketches, with the ridge of least leave-one-out error.

    Columns of each block are divided by their common root mean square, so that every tensor of the gradient
    counts, whatever its scale. Leaving one out has a closed form (Golub, Heath and Wahba 1979, section 2).

    Args:
        sketches: [n, F], n at least 2.
        targets: [n, D], centred.
        blocks: lengths of the blocks, F in all.
    """
    centre = sketches.mean(0)
    rows = sketches - centre
    spread = torch.cat([b.square().mean().sqrt().expand(b.shape[1]) for b in rows.split(list(blocks), 1)])
    rows = rows / spread.clamp_min(torch.finfo(rows.dtype).tiny ** 0.5)
    values, vectors = torch.linalg.eigh((rows @ rows.T).double())
    values = values.clamp_min(0)
    along, exact = vectors.T @ targets.double(), targets.double()
    mean = values.mean().clamp_min(torch.finfo(values.dtype).tiny)
    tried = []
    for ridge in RIDGES:
        shrunk = values / (values + ridge * mean)
        # of the mean, every sample has a share of 1 / n
        own = (vectors.square() @ shrunk + 1 / len(rows)).clamp(max=1 - 1e-6)
        residuals = (exact - vectors @ (shrunk[:, None] * along)) / (1 - own)[:, None]
        tried.append((float(residuals.square().mean()), ridge * mean, residuals))
    _, ridge, residuals = min(tried, key=lambda each: each[0])
    dual = (vectors @ (along / (values + ridge)[:, None])).to(rows)
    weights = (rows.T @ dual) / spread.clamp_min(torch.finfo(rows.dtype).tiny ** 0.5)[:, None]
    return BackProjection(centre, weights, (exact - residuals).to(targets))


def principal(rows: Tensor, count: int) -> Tensor:
    """Orthonormal directions [at most count, D] that hold most of the variance of centred rows [n, D]."""
    with torch.random.fork_rng(devices=[rows.device] if rows.is_cuda else []):
        torch.manual_seed(0)  # of the randomised decomposition
        _, _, found = torch.svd_lowrank(rows, min(count, *rows.shape), niter=2)
    return found.T
