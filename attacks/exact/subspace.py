"""The row space of a layer's gradient, with the rounding errors told apart from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
