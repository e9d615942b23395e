"""The sparse vectors of a subspace, which is how ReLU keeps the samples of a batch apart.

A layer's gradient is D^T H: one row of D (loss gradients of the outputs) and of H (inputs) for each sample.
Its row space is that of H, and any basis of it mixes the samples. Where ReLU made H (or D), each sample has
zeros of its own; a mixture is zero only where all its samples are, so the sparsest vectors are the samples
(SPEAR, Dimitrov et al. 2024). That work assumes random sets of entries to be zero and needs about 2^B sets.
Here, as in sparse dictionary learning (SPEAR++, Bakarsky et al. 2025), a smooth stand-in for the number of
entries that are not zero is minimised over the unit vectors of the subspace, from many starts at once. The
most promising ends are then polished by reweighted least squares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

Propose = Callable[[Tensor, Tensor | None], Tensor]
"""Rows [n, m] to start from, given how far each is to keep away from what was found ([n] in [0, 1]), and an
orthonormal basis [k, m] of what may be left of the subspace; None for all of it."""
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
STEPS = 30
"""Steps of polishing; each smooths the norm by DECAY times as much as the one before."""
DECAY = 0.75
NORMS = ((1, 0.3), (0, 1.0))
"""The p of sum |u|^p (0: sum log |u|) and the first smoothing, in entries' sizes; rounds take turns. The one
finds most rows fast, the other those with few zeros."""
TOLERANCE = 20.0
"""An entry counts as zero below that many standard deviations of the rounding errors ..."""
BETWEEN = (5e-6, 3e-3)
"""... but between these shares of its row's largest entry, because errors differ by entry."""
NEGATIVE = 1e-2
"""Share of a row's largest entry up to which an entry below zero may be an error."""
EXTRA = 5
"""Zeros that a candidate needs beyond the B - 1 that any vector can be given."""
SAME = 0.999
"""Cosine from which two candidates are the same."""
NEAR = 0.97
"""Cosine from which two ends of the first search lead to the same candidate."""
INDEPENDENT = 0.03
"""Length of a unit vector outside the span of others from which it is no mixture of them."""


@dataclass(frozen=True)
class Subspace:
    """The row space of a matrix of known rank, with the rounding errors told apart from it.

    Attributes:
        basis: [r, m], orthonormal rows; r is smaller than the rank should be where some are below the errors.
        values: [r], the singular values.
        floor: the largest singular value of what is left out.
        rows: of the matrix.
    """

    basis: Tensor
    values: Tensor
    floor: float
    rows: int

    def __len__(self) -> int:
        return len(self.values)

    @property
    def clear(self) -> bool:
        """Whether the rows stand out from what is left out."""
        return len(self) > 0 and self.floor < 1e-4 * float(self.values[0])

    @property
    def noise(self) -> float:
        """Standard deviation of the errors in the matrix's entries, from their largest singular value."""
        return self.floor / (self.rows**0.5 + self.basis.shape[1] ** 0.5)

    def without_weakest(self) -> Subspace:
        """One row less; what it held counts as noise."""
        return Subspace(self.basis[:-1], self.values[:-1], float(self.values[-1]), self.rows)


@dataclass(frozen=True)
class Candidate:
    """A sparse vector of a subspace.

    Attributes:
        zeros: how many entries are zero.
        q: [r], its coordinates, of norm 1.
        row: [m], the vector itself.
    """

    zeros: int
    q: Tensor
    row: Tensor


def subspace(matrix: Tensor, rank: int) -> Subspace | None:
    """The row space of `matrix`; None where it is not close to any matrix of rank `rank`.

    Args:
        matrix: float64 [n, m], n and m above `rank`.
        rank: what its rank is without rounding errors.

    Example:
        >>> found = subspace(torch.diag(torch.tensor([1.0, 1e-3, 0, 0])).double(), 2)
        >>> len(found), subspace(torch.eye(3).double(), 2)
        (2, None)
    """
    _, values, basis = torch.linalg.svd(matrix, full_matrices=False)
    floor = max(float(values[rank]), 1e-13 * float(values[0]))
    found = int((values[:rank] > 5 * floor).sum())
    floor = max(floor, float(values[found]))
    space = Subspace(basis[:found], values[:found], floor, len(matrix))
    return space if space.clear else None


def sparse_rows(
    space: Subspace,
    generator: torch.Generator,
    starts: int,
    one_sign: bool = False,
    propose: Propose | None = None,
) -> Iterator[Tensor]:
    """Guesses at the sparse rows behind a subspace, better ones later; the caller stops at the right one.

    Args:
        space: of r rows.
        generator: on the CPU.
        starts: how many searches are made before the last guess.
        one_sign: keep only candidates with entries of one sign, and make it positive.
        propose: where to start; every RANDOM-th start is random all the same. None for all.

    Yields:
        [r, m], independent rows, each up to its scale; nothing where too few candidates were found.
    """
    if len(space) == 1:
        row = space.basis * space.basis.sum().sign()
        yield without_errors(row) if one_sign else row
        return
    lengths = (space.basis * space.values[:, None]).norm(dim=0)
    used = lengths > 1e-9 * lengths.max()  # the others are zero in every sample
    basis = space.basis[:, used]
    known: list[Candidate] = []
    chosen: list[int] = []
    for i in range(-(-starts // ROUND)):
        fresh = torch.randn(ROUND, len(space), generator=generator, dtype=torch.float64).to(basis)
        away = torch.linspace(0, 1, ROUND, dtype=fresh.dtype, device=fresh.device)
        q = torch.stack([known[j].q for j in chosen[: len(space) - 1]]) if chosen else fresh[:0]
        fresh = fresh - away[:, None] * (fresh @ torch.linalg.pinv(q)) @ q
        if propose is not None:
            left = torch.linalg.qr(q.T, mode="complete").Q[:, len(q) :].T @ space.basis if chosen else None
            told = torch.arange(ROUND, device=fresh.device) % RANDOM > 0
            fresh[told] = propose(away[told], left) @ space.basis.T
        if len(space) > FEW and i < FAST:
            fresh = _promising(basis, _descended(basis, fresh), [candidate.q for candidate in known])
        for q in _distinct(_sparsest(basis, fresh, *NORMS[i % len(NORMS)]), 1 - 1e-3):
            known += _candidates(space, basis, q, one_sign)
        known = _sparsest_first(known)
        chosen = _independent([candidate.q for candidate in known])
        if len(chosen) == len(space):
            rows = space.basis.new_zeros(len(space), len(used))
            rows[:, used] = torch.stack([known[i].row for i in chosen])
            yield rows


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


def _promising(basis: Tensor, directions: Tensor, known: list[Tensor]) -> Tensor:
    """The `POLISHED` unit vectors [n, r] with the lowest values that are not close to each other or known."""
    if known:
        fresh = ((directions @ torch.stack(known).T).abs() < NEAR).all(1)
        directions = directions[fresh]
    x = (directions @ basis).abs() / _smooth(basis)
    values = (x + (-2 * x).exp().log1p()).sum(1)  # sum log cosh, but for a constant
    return _distinct(directions[values.argsort()], NEAR)[:POLISHED]


def _smooth(basis: Tensor) -> float:
    return SMOOTH * basis.shape[1] ** -0.5


def _sparsest(basis: Tensor, start: Tensor, power: int, smoothing: float) -> Tensor:
    """Local minima of sum |q basis|^power on the sphere near `start` [n, r], by reweighted least squares."""
    size, q = basis.shape[1] ** -0.5, start / start.norm(dim=1, keepdim=True)
    for step in range(STEPS):
        weights = ((q @ basis).square() + (smoothing * DECAY**step * size) ** 2) ** (power / 2 - 1)
        q = torch.linalg.eigh((basis * weights[:, None]) @ basis.T)[1][..., 0]
    return q


def _tolerance(space: Subspace, q: Tensor, row: Tensor) -> Tensor:
    """Below what an entry of `row` [m] = q basis counts as zero: errors grow where values are small."""
    low, high = (share * row.abs().max() for share in BETWEEN)
    return torch.minimum(torch.maximum(TOLERANCE * space.noise * (q / space.values).norm(), low), high)


def _candidates(space: Subspace, basis: Tensor, q: Tensor, one_sign: bool) -> list[Candidate]:
    """`q` [r] moved to the direction that is zero wherever it is about zero; nothing unless it is sparse."""
    scaled = basis * space.values[:, None]
    for widening in (10, 1, 1):
        row = q @ basis
        zero = row.abs() <= widening * _tolerance(space, q, row)
        if int(zero.sum()) < len(q) - 1 + EXTRA:
            return []
        q = torch.linalg.svd(scaled[:, zero], full_matrices=False)[0][:, -1] * space.values
        q = q / q.norm()
    row = q @ basis * (q @ basis).sum().sign()
    if one_sign and bool((row < -NEGATIVE * row.max()).any()):
        return []
    if one_sign:  # entries below zero show how large the errors are
        return [Candidate(int((row <= _tolerance(space, q, row)).sum()), q, without_errors(row))]
    row = torch.where(row.abs() <= _tolerance(space, q, row), 0, row)
    return [Candidate(int((row == 0).sum()), q, row)]


def without_errors(values: Tensor) -> Tensor:
    """`values`, which cannot be negative, with zeros where they are no larger than the errors below zero are.

    Example:
        >>> without_errors(torch.tensor([1.0, 0.01, 0.002, -0.001]))
        tensor([1.0000, 0.0100, 0.0000, 0.0000])
    """
    errors = -values[values < 0]
    if not len(errors):
        return values
    return torch.where(values <= 3 * errors.quantile(0.999), 0, values)


def _sparsest_first(candidates: list[Candidate]) -> list[Candidate]:
    """Each direction once, those with most zeros first."""
    ordered = sorted(candidates, key=lambda candidate: -candidate.zeros)
    kept: list[Candidate] = []
    for candidate in ordered:
        if all(float((candidate.q @ other.q).abs()) < SAME for other in kept):
            kept.append(candidate)
    return kept


def _distinct(directions: Tensor, same: float) -> Tensor:
    """The unit vectors [n, r] without those whose cosine with an earlier one is above `same`."""
    close = (directions @ directions.T).abs() > same
    return directions[~close.tril(-1).any(1)]


def _independent(directions: list[Tensor]) -> list[int]:
    """Indices of the directions that are no mixtures of earlier ones."""
    chosen: list[int] = []
    span = directions[0].new_zeros(0) if directions else None
    for i, q in enumerate(directions):
        left = q - span.T @ (span @ q) if chosen else q
        left = left - span.T @ (span @ left) if chosen else left
        if float(left.norm()) > INDEPENDENT:
            span = torch.cat([span, left[None] / left.norm()]) if chosen else left[None] / left.norm()
            chosen.append(i)
        if len(chosen) == len(q):
            break
    return chosen
