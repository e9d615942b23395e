"""The sparse vectors of a subspace, which is how ReLU keeps the samples of a batch apart.

A layer's gradient is D^T H: one row of D (loss gradients of the outputs) and of H (inputs) for each sample.
Its row space is that of H, and any basis of it mixes the samples. Where ReLU made H (or D), each sample has
zeros of its own; a mixture is zero only where all its samples are, so the sparsest vectors are the samples
(SPEAR, Dimitrov et al. 2024). That work assumes random sets of entries to be zero and needs about 2^B sets.
Here, as in sparse dictionary learning (SPEAR++, Bakarsky et al. 2025), a smooth stand-in for the number of
entries that are not zero is minimised over the unit vectors of the subspace, from many starts at once. The
most promising ends are then polished by reweighted least squares.
Guesses at the samples themselves, where there are any, are polished first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from attacks.base import Tell
from attacks.exact.candidates import Candidates, distinct, without_errors
from attacks.exact.subspace import Subspace

Propose = Callable[[Tensor, Tensor | None], Tensor]
"""Rows [n, m] to start from, given how far each is to keep away from what was found ([n] in [0, 1]), and an
orthonormal basis [k, m] of what may be left of the subspace; None for all of it."""
Near = Callable[[Tensor, Tensor], Tensor]
"""Rows [k, m] near those that are missing, given an orthonormal basis [k, m] of what may be left of the
subspace, and one [r, m] of all of it."""
ROUND = 256
"""Starts that are searched side by side."""
FEW = 16
"""Up to so many rows all starts are polished at once. Beyond, a faster search goes before ..."""
FAST = 3
"""... in so many rounds, because it finds most rows soon and some never; its starts are ROUND ..."""
POLISHED = 64
"""... and so many are polished, those with the lowest values."""
DESCENT = 150
"""Steps of that search (Adam on the sphere, length falling to zero) ..."""
LENGTH = 0.05
"""... the change of each coordinate in the first, about ..."""
SMOOTH = 0.1
"""... of sum log cosh(u / smooth), in entries' sizes."""
RANDOM = 4
"""Of so many starts one is random where others are proposed."""
NORMS = ((1, 0.3), (0, 1.0))
"""The p of sum |u|^p (0: sum log |u|) and the first smoothing, in entries' sizes; rounds take turns. The one
finds most rows fast, the other those with few zeros."""
NEARBY = (0, 0.2)
"""The same for starts that are near the rows."""
MANY = 64
"""Rows beyond which starts that are not near any find no more in minutes."""
NEAR = 0.97
"""Cosine from which two ends of the first search lead to the same candidate."""


def sparse_rows(
    space: Subspace,
    generator: torch.Generator,
    starts: int,
    one_sign: bool = False,
    propose: Propose | None = None,
    near: Near | None = None,
    tell: Tell = lambda *_: None,
) -> Iterator[Tensor]:
    """Guesses at the sparse rows behind a subspace, better ones later; the caller stops at the right one.

    Args:
        space: of r rows.
        generator: on the CPU.
        starts: how many searches are made before the last guess.
        one_sign: keep only candidates with entries of one sign, and make it positive.
        propose: where to start; every RANDOM-th start is random all the same. None for all.
        near: guesses at the rows themselves. They are polished before each round, for as long as that finds
            more rows; what is missing then is guessed to be as they are.
        tell: told how many rows were found, and how many there are.

    Yields:
        [r, m], independent rows, each up to its scale; nothing where too few candidates were found.
    """
    if len(space) == 1:
        row = space.basis * space.basis.sum().sign()
        yield without_errors(row) if one_sign else row
        return
    found, before = Candidates(space, one_sign), -1
    for i in range(-(-starts // ROUND)):
        while near is not None and before < len(found.chosen) < len(space):
            before = len(found.chosen)
            guessed = near(found.missing(), space.basis) @ space.basis.T
            found.add(guessed, *NEARBY)
            tell(len(found.chosen), len(space))
            if found.complete:
                yield found.rows()
            elif len(found.chosen) == before:
                yield torch.cat([found.rows(), guessed @ space.basis])
        if near is not None and len(space) > MANY:
            return
        fresh = _starts(found, generator, propose)
        if len(space) > FEW and i < FAST:
            fresh = _promising(found, _descended(found.basis, fresh))
        found.add(fresh, *NORMS[i % len(NORMS)])
        tell(len(found.chosen), len(space))
        if found.complete:
            yield found.rows()


def _starts(found: Candidates, generator: torch.Generator, propose: Propose | None) -> Tensor:
    """[ROUND, r], more and more orthogonal to what was found."""
    basis = found.space.basis
    fresh = torch.randn(ROUND, len(basis), generator=generator, dtype=torch.float64).to(basis)
    away = torch.linspace(0, 1, ROUND, dtype=fresh.dtype, device=fresh.device)
    q = found.coordinates()[: len(basis) - 1]
    fresh = fresh - away[:, None] * (fresh @ torch.linalg.pinv(q)) @ q
    if propose is not None:
        left = torch.linalg.qr(q.T, mode="complete").Q[:, len(q) :].T @ basis if len(q) else None
        told = torch.arange(ROUND, device=fresh.device) % RANDOM > 0
        fresh[told] = propose(away[told], left) @ basis.T
    return fresh


def _descended(basis: Tensor, start: Tensor) -> Tensor:
    """Unit vectors [n, r] near local minima of sum log cosh(q basis / smooth), from `start` [n, r]."""
    q = start / start.norm(dim=1, keepdim=True)
    mean, square = torch.zeros_like(q), torch.zeros_like(q[:, :1])
    for step in range(DESCENT):
        slope = torch.tanh(q @ basis / _smooth(basis)) @ basis.T
        slope = slope - (slope * q).sum(1, keepdim=True) * q
        mean = 0.9 * mean + 0.1 * slope
        square = 0.99 * square + 0.01 * slope.square().mean(1, keepdim=True)
        size = (square / (1 - 0.99 ** (step + 1))).sqrt().clamp_min(torch.finfo(q.dtype).tiny)
        length = LENGTH * (1 - step / DESCENT) / (1 - 0.9 ** (step + 1))
        q = q - length * mean / size
        q = q / q.norm(dim=1, keepdim=True)
    return q


def _promising(found: Candidates, directions: Tensor) -> Tensor:
    """The `POLISHED` unit vectors [n, r] with the lowest values that are not close to each other or known."""
    if found.known:
        known = torch.stack([each.q for each in found.known])
        directions = directions[((directions @ known.T).abs() < NEAR).all(1)]
    x = (directions @ found.basis).abs() / _smooth(found.basis)
    values = (x + (-2 * x).exp().log1p()).sum(1)  # sum log cosh, but for a constant
    return distinct(directions[values.argsort()], NEAR)[:POLISHED]


def _smooth(basis: Tensor) -> float:
    return SMOOTH * basis.shape[1] ** -0.5
