"""Samples told apart by the victim's own outputs, whatever its activations.

The last layer's gradient is D^T H, one row of D (loss gradients of the logits) and of H (features) for each
sample. Of cross-entropy, D follows from H: a row is factor * (softmax(W h + b) - one-hot), the factor 1
unless the sample was clipped. B samples in the row space of the gradient have B^2 coordinates there, and the
gradient has K (B + 1) entries, so the coordinates are solved for (`levenberg`). Zeros, as ReLU makes
them (`sparsity`), play no part.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.exact.levenberg import descended
from attacks.exact.subspace import Subspace

STEPS = 100
"""Of a solution, at most."""
SPREAD = (0.1, 0.3, 1.0)
"""How far the others begin from there, relative to a row's length; they take turns."""
EXACT = 1e-13
"""Relative squared error of the gradient below which rounding errors are left."""
OFF = 0.01
"""How far a sample's features may be off, relative, for it to be certified."""
COARSE = 1e-6
"""Relative squared error from which a solution is none, however well its equations are conditioned."""
ROUNDING = 1e-7
"""Relative error of a gradient in float32, at least."""
ENTRIES = 2**19
"""Of the largest tensors that are made at a time, roughly: 4 MB."""
LONGEST = 3
"""Largest length of a row that a solution begins at, relative to the median."""
TINY = 1e-12
"""What stands for zero as a divisor."""


@dataclass(frozen=True)
class Layer:
    """The last layer's gradient of the summed loss and, beside it, the layer itself, float64.

    Attributes:
        weight: gradient of its weight, [K, m].
        bias: of its bias, [K].
        own_weight: the weight, [K, m].
        own_bias: the bias, [K].
        clipped: each sample's gradient was scaled by a factor of its own.
    """

    weight: Tensor
    bias: Tensor
    own_weight: Tensor
    own_bias: Tensor
    clipped: bool


@dataclass(frozen=True)
class Solution:
    """Samples that nearly have the gradient.

    Attributes:
        labels: int64 [r], what they were taken to be.
        point: float64 [r, r], coordinates in the row space; [r, r + 1] with the logarithms of the factors.
        error: relative squared error of the gradient.
        bound: [r], how far the coordinates of each may be off, relative (`Equations.bound`).
    """

    labels: Tensor
    point: Tensor
    error: float
    bound: Tensor

    @property
    def certain(self) -> bool:
        """Whether all of them are near."""
        return bool((self.bound < OFF).all())


class Equations:
    """What coordinates in the row space leave over of a gradient: p points [p, r, r] with labels [p, r].

    Behind the coordinates stand the logarithms of the factors where samples were clipped: [p, r, r + 1].

    Args:
        space: row space of the layer's weight gradient, of r rows.
        layer: the gradient.
    """

    def __init__(self, space: Subspace, layer: Layer) -> None:
        basis = space.basis
        self.size, self.clipped = len(basis), layer.clipped
        target = torch.cat([layer.weight @ basis.T, layer.bias[:, None]], 1)
        self.scale = target.norm()
        self.outside = space.floor / float(self.scale)
        self.target = target / self.scale
        self.inner, self.bias = layer.own_weight @ basis.T, layer.own_bias

    def begin(self, labels: Tensor, attempts: Tensor, generator: torch.Generator) -> Tensor:
        """Points for attempts [p]: each label's row of the gradient, or points around it after the first."""
        own = self.target[labels]
        entries = own[:, :, -1:]
        rows = own[:, :, :-1] / torch.where(entries.abs() < TINY, TINY, entries)
        lengths = rows.norm(dim=2, keepdim=True)  # too long where the batch's entry nearly cancels
        median = lengths.median(1, keepdim=True).values
        rows = rows * (LONGEST * median / lengths.clamp_min(TINY)).clamp(max=1)
        ordered = labels.sort(1).values
        repeated = (ordered[:, 1:] == ordered[:, :-1]).any(1)
        spread = rows.new_tensor(SPREAD)[attempts % len(SPREAD)] / self.size**0.5
        spread = spread.where(repeated | (attempts > 0), 0)
        noise = torch.randn(rows.shape, generator=generator, dtype=torch.float64).to(rows)
        rows = rows + spread[:, None, None] * rows.norm(dim=2, keepdim=True) * noise
        return torch.cat([rows, torch.zeros_like(rows[:, :, :1])], 2) if self.clipped else rows

    def solution(
        self, labels: Tensor, points: Tensor, steps: int = STEPS, tell: Callable[[int], None] = lambda _: None
    ) -> Solution:
        """The nearest of the solutions that begin at `points`; the first exact one ends them all.

        Args:
            labels: int64 [p, r].
            points: float64 [p, r, r or r + 1].
            steps: of each, at most.
            tell: told how many were begun.
        """
        best, error, begun = (labels[0], points[0]), math.inf, 0
        unknowns = points[0].numel()
        together = max(1, ENTRIES // (unknowns * max(unknowns, len(self.bias))))
        for own, starts in zip(labels.split(together), points.split(together), strict=True):
            errors, reached = descended(
                lambda at, i, own=own: self.error(own[i], at),
                lambda at, i, own=own: self.expanded(own[i], at),
                starts,
                steps,
                EXACT,
            )
            nearest = int(errors.argmin())
            if errors[nearest] < error:
                best, error = (own[nearest], reached[nearest]), float(errors[nearest])
            begun += len(own)
            tell(begun)
            if error < EXACT:
                break
        return Solution(*best, error, self.bound(*best))

    def bound(self, labels: Tensor, point: Tensor) -> Tensor:
        """How far each sample's coordinates may be from those that the gradient was made of, relative, [r].

        To first order, errors of the gradient move a sample's coordinates by at most their norm times the
        largest singular value of its rows of the Jacobian's pseudoinverse, which the curvature tells. That
        norm is told by what is left over and by what lies outside the row space. Of the former n unknowns
        have taken their share, and of as many equations as unknowns nothing is left that could tell.
        Infinite where that is so, or where too much is left over for a first order.

        Args:
            labels: int64 [r].
            point: float64 [r, r or r + 1].
        """
        error, _, curvature = (each[0] for each in self.expanded(labels[None], point[None]))
        equations, unknowns = (len(self.bias) - 1) * (self.size + 1), len(curvature)  # columns of D sum to 0
        lost = point.new_full((self.size,), math.inf)
        if not error <= COARSE or equations <= unknowns:
            return lost
        norm = float(error * equations / (equations - unknowns)) ** 0.5 + max(self.outside, ROUNDING)
        root = curvature.diagonal().clamp_min(1e-30).sqrt()
        inverse, failed = torch.linalg.inv_ex(curvature / root[:, None] / root)
        if failed or not inverse.isfinite().all():
            return lost
        inverse = (inverse / root[:, None] / root).view(*point.shape, *point.shape)
        own = torch.stack([inverse[i, : self.size, i, : self.size] for i in range(self.size)])
        largest = own.square().sum((1, 2)) ** 0.25  # no smaller than the root of the largest eigenvalue
        return norm * largest / point[:, : self.size].norm(dim=1)

    def error(self, labels: Tensor, points: Tensor) -> Tensor:
        """The squared norm of what is left over, [p]; infinite where it is not a number."""
        deltas, ones, _, _ = self._deltas(labels, points)
        return _finite((deltas.mT @ ones - self.target).square().sum((1, 2)))

    def expanded(self, labels: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The error, half its gradient [p, n] and the Gauss-Newton matrix [p, n, n] of points of n numbers.

        With d_i a sample's row of D, P_i the derivatives of that, and a_i its coordinates and a 1, what is
        left over has the derivative P_ik a_i^T + d_i e_k^T by its coordinate k, and d_i a_i^T by the
        logarithm of its factor.
        """
        deltas, ones, softmax, factors = self._deltas(labels, points)
        left = deltas.mT @ ones - self.target  # [p, K, r + 1]
        inner = self.inner - (softmax @ self.inner)[:, :, None]  # [p, r, K, r]
        slopes = factors[:, :, None, None] * softmax[..., None] * inner / self.scale
        places = torch.eye(self.size).to(points)
        rows = ones[:, :, :-1]
        if self.clipped:
            slopes = torch.cat([slopes, deltas[..., None]], 3)
            places = torch.cat([places, places.new_zeros(1, self.size)])
            rows = torch.cat([rows, torch.zeros_like(rows[:, :, :1])], 2)
        count, size, width = points.shape
        along_ones = (ones @ left.mT)[:, :, None] @ slopes  # [p, r, 1, width]
        gradient = along_ones[:, :, 0] + deltas @ left[:, :, :-1] @ places.T
        flat = slopes.transpose(1, 2).flatten(2)  # [p, K, n]
        gram = (flat.mT @ flat).view(count, size, width, size, width) * (ones @ ones.mT)[:, :, None, :, None]
        along = (deltas @ flat).view(count, size, size, width)  # [p, j, i, k]: d_j . P_ik
        mixed = along.permute(0, 2, 3, 1)[..., None] * rows[:, :, None, None, :]  # [p, i, k, j, l]
        gram += mixed + mixed.permute(0, 3, 4, 1, 2)
        gram += (deltas @ deltas.mT)[:, :, None, :, None] * (places @ places.T)[:, None, :]
        matrix = gram.flatten(3).flatten(1, 2)
        return _finite(left.square().sum((1, 2))), gradient.flatten(1), matrix

    def _deltas(self, labels: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """D, divided so that the gradient has length 1, the coordinates with a 1, softmax, and factors."""
        rows = points[:, :, : self.size]
        softmax = (rows @ self.inner.T + self.bias).softmax(2)
        factors = points[:, :, self.size].exp() if self.clipped else points.new_ones(points.shape[:2])
        own = torch.zeros_like(softmax).scatter_(2, labels[:, :, None], 1)
        deltas = factors[:, :, None] * (softmax - own) / self.scale
        return deltas, torch.cat([rows, torch.ones_like(rows[:, :, :1])], 2), softmax, factors


def _finite(errors: Tensor) -> Tensor:
    return errors.where(errors.isfinite(), math.inf)
