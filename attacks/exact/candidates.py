"""Sparse vectors of a subspace: polished from starts nearby, kept where enough of their entries are zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.exact.subspace import Subspace

STEPS = 30
"""Steps of polishing; each smooths the norm by DECAY times as much as the one before."""
DECAY = 0.75
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
INDEPENDENT = 0.03
"""Length of a unit vector outside the span of others from which it is no mixture of them."""


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


class Candidates:
    """The sparse vectors that were found in a subspace so far.

    Args:
        space: of r rows.
        one_sign: keep only candidates with entries of one sign, and make it positive.

    Attributes:
        basis: [r, m'], that of the space where the samples are not all zero.
        known: the candidates, those with most zeros first.
        chosen: those of `known` that are no mixtures of earlier ones; r of them are a guess at all rows.
    """

    def __init__(self, space: Subspace, one_sign: bool) -> None:
        lengths = (space.basis * space.values[:, None]).norm(dim=0)
        self.used = lengths > 1e-9 * lengths.max()
        self.space, self.one_sign, self.basis = space, one_sign, space.basis[:, self.used]
        self.known: list[Candidate] = []
        self.chosen: list[Candidate] = []

    def add(self, starts: Tensor, power: int, smoothing: float) -> None:
        """What polishing makes of `starts` [n, r] (see `sparsest`), as far as it is sparse and new."""
        for q in distinct(sparsest(self.basis, starts, power, smoothing), 1 - 1e-3):
            self.known += _candidates(self.space, self.basis, q, self.one_sign)
        self.known = _sparsest_first(self.known)
        self.chosen = _independent(self.known)

    @property
    def complete(self) -> bool:
        """Whether there is one candidate for each row."""
        return len(self.chosen) == len(self.space)

    def coordinates(self) -> Tensor:
        """[k, r], of the k that were chosen."""
        return (
            torch.stack([each.q for each in self.chosen])
            if self.chosen
            else self.basis.new_zeros(0, len(self.basis))
        )

    def missing(self) -> Tensor:
        """[r - k, m], an orthonormal basis of what is orthogonal to those that were chosen."""
        q = self.coordinates()
        return torch.linalg.qr(q.T, mode="complete").Q[:, len(q) :].T @ self.space.basis

    def rows(self) -> Tensor:
        """[k, m], those that were chosen."""
        found = self.space.basis.new_zeros(len(self.chosen), len(self.used))
        if self.chosen:
            found[:, self.used] = torch.stack([each.row for each in self.chosen])
        return found


def sparsest(basis: Tensor, start: Tensor, power: int, smoothing: float) -> Tensor:
    """Local minima of sum |q basis|^power on the sphere near `start` [n, r], by reweighted least squares.

    Args:
        basis: [r, m].
        start: of any length.
        power: 0 stands for sum log |q basis|.
        smoothing: in the first step, in entries' sizes.
    """
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


def distinct(directions: Tensor, same: float) -> Tensor:
    """The unit vectors [n, r] without those whose cosine with an earlier one is above `same`."""
    close = (directions @ directions.T).abs() > same
    return directions[~close.tril(-1).any(1)]


def _independent(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that are no mixtures of earlier ones."""
    chosen: list[Candidate] = []
    span = candidates[0].q.new_zeros(0, len(candidates[0].q)) if candidates else None
    for each in candidates:
        left = each.q - span.T @ (span @ each.q)
        left = left - span.T @ (span @ left)
        if float(left.norm()) > INDEPENDENT:
            span = torch.cat([span, left[None] / left.norm()])
            chosen.append(each)
        if len(chosen) == len(each.q):
            break
    return chosen
