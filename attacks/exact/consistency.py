"""Samples told apart by the victim's own outputs, whatever its activations.

The last layer's gradient is D^T H, one row of D (loss gradients of the logits) and of H (features) for each
sample. Of cross-entropy, D follows from H: a row is factor * (softmax(W h + b) - one-hot), the factor 1
unless the sample was clipped. B samples in the row space of the gradient have B^2 coordinates there, and the
gradient has K (B + 1) entries, so the coordinates are solved for (Levenberg-Marquardt). Zeros, as ReLU makes
them (`sparsity`), play no part.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.exact.subspace import Subspace

STEPS = 100
"""Of a solution, at most."""
SPREAD = (0.1, 0.3, 1.0)
"""How far the others begin from there, relative to a row's length; they take turns."""
SLOW = 1e-6
"""Relative gain of a step below which a solution has come to rest, unless it is nearly exact."""
EXACT = 1e-13
"""Relative squared error of the gradient below which rounding errors are left."""
OFF = 0.01
"""How far a sample's features may be off, relative, for it to be certified."""
COARSE = 1e-6
"""Relative squared error from which a solution is none, however well its equations are conditioned."""
ROUNDING = 1e-7
"""Relative error of a gradient in float32, at least."""
LONGEST = 3
"""Largest length of a row that a solution begins at, relative to the median."""
TINY = 1e-12
"""What stands for zero as a divisor."""
HARDEST = 1e10
"""Damping from which no step makes the error smaller."""


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
    """What coordinates [r, r] in the row space, and behind them the logarithms of the factors, leave over.

    Args:
        space: row space of the layer's weight gradient, of r rows.
        layer: the gradient.
        labels: int64 [r], of the samples.
    """

    def __init__(self, space: Subspace, layer: Layer, labels: Tensor) -> None:
        basis = space.basis
        self.size, self.clipped = len(basis), layer.clipped
        target = torch.cat([layer.weight @ basis.T, layer.bias[:, None]], 1)
        self.scale = target.norm()
        self.outside = space.floor / float(self.scale)
        self.target = target / self.scale
        self.inner, self.bias = layer.own_weight @ basis.T, layer.own_bias
        self.labels, self.own = labels, target[labels]

    def begin(self, attempt: int, generator: torch.Generator) -> Tensor:
        """[r, r], with factors [r, r + 1]: each label's row of the gradient, and then points around it."""
        entries = self.own[:, -1:]
        rows = self.own[:, :-1] / torch.where(entries.abs() < TINY, TINY, entries)
        lengths = rows.norm(dim=1, keepdim=True)  # too long where the batch's entry nearly cancels
        rows = rows * (LONGEST * lengths.median() / lengths.clamp_min(TINY)).clamp(max=1)
        if attempt or len(self.labels.unique()) < self.size:
            noise = torch.randn(rows.shape, generator=generator, dtype=torch.float64).to(rows)
            spread = SPREAD[attempt % len(SPREAD)] / self.size**0.5
            rows = rows + spread * rows.norm(dim=1, keepdim=True) * noise
        return torch.cat([rows, rows.new_zeros(self.size, 1)], 1) if self.clipped else rows

    def solution(self, points: Iterable[Tensor], steps: int = STEPS) -> Solution:
        """The nearest of the solutions that begin at `points`; the first exact one ends it."""
        best, error = None, math.inf
        for point in points:
            reached, at = self.descended(point, steps)
            if best is None or reached < error:
                best, error = at, reached
            if error < EXACT:
                break
        return Solution(self.labels, best, error, self.bound(best))

    def descended(self, point: Tensor, steps: int) -> tuple[float, Tensor]:
        """The relative squared error of the gradient, and the point reached in so many steps at most."""
        damping, (error, gradient, curvature) = 1e-2, self.expanded(point)
        for _ in range(steps):
            root = curvature.diagonal().clamp_min(1e-30).sqrt()
            scaled = curvature / root[:, None] / root
            while damping < HARDEST:
                damped = scaled + damping * torch.eye(len(root)).to(scaled)
                step = torch.linalg.solve_ex(damped, gradient / root).result / root  # not finite: damped more
                new = point - step.view_as(point)
                ahead = self.error(new)
                if ahead < error:
                    break
                damping *= 10
            else:
                break
            slow = error - ahead < SLOW * error and ahead > EXACT
            point, damping = new, max(damping / 10, 1e-14)
            error, gradient, curvature = self.expanded(point)
            if slow or error < EXACT**2:
                break
        return error, point

    def bound(self, point: Tensor) -> Tensor:
        """How far each sample's coordinates may be from those that the gradient was made of, relative, [r].

        To first order, errors of the gradient move a sample's coordinates by at most their norm times the
        largest singular value of its rows of the Jacobian's pseudoinverse, which the curvature tells. That
        norm is told by what is left over and by what lies outside the row space. Of the former n unknowns
        have taken their share, and of as many equations as unknowns nothing is left that could tell.
        Infinite where that is so, or where too much is left over for a first order.
        """
        error, _, curvature = self.expanded(point)
        equations, unknowns = (len(self.bias) - 1) * (self.size + 1), len(curvature)  # columns of D sum to 0
        lost = point.new_full((self.size,), math.inf)
        if not error <= COARSE or equations <= unknowns:
            return lost
        norm = (error * equations / (equations - unknowns)) ** 0.5 + max(self.outside, ROUNDING)
        root = curvature.diagonal().clamp_min(1e-30).sqrt()
        inverse, failed = torch.linalg.inv_ex(curvature / root[:, None] / root)
        if failed or not inverse.isfinite().all():
            return lost
        inverse = (inverse / root[:, None] / root).view(*point.shape, *point.shape)
        own = torch.stack([inverse[i, : self.size, i, : self.size] for i in range(self.size)])
        largest = own.square().sum((1, 2)) ** 0.25  # no smaller than the root of the largest eigenvalue
        return norm * largest / point[:, : self.size].norm(dim=1)

    def error(self, point: Tensor) -> float:
        """The squared norm of what is left over; infinite where it is not a number."""
        found = float(self._left(*self._deltas(point)[:2]).square().sum())
        return found if math.isfinite(found) else math.inf

    def expanded(self, point: Tensor) -> tuple[float, Tensor, Tensor]:
        """The error, half its gradient [n] and the Gauss-Newton matrix [n, n] of a point of n numbers.

        With d_i a sample's row of D, P_i the derivatives of that, and a_i its coordinates and a 1, what is
        left over has the derivative P_ik a_i^T + d_i e_k^T by its coordinate k, and d_i a_i^T by the
        logarithm of its factor.
        """
        deltas, ones, softmax, factors = self._deltas(point)
        left = self._left(deltas, ones)
        mean = softmax @ self.inner  # [r, r]
        slopes = factors[:, None, None] * softmax[:, :, None] * (self.inner - mean[:, None]) / self.scale
        places = torch.eye(self.size).to(point)
        rows = ones[:, :-1]
        if self.clipped:
            slopes = torch.cat([slopes, deltas[:, :, None]], 2)
            places = torch.cat([places, places.new_zeros(1, self.size)])
            rows = torch.cat([rows, rows.new_zeros(self.size, 1)], 1)
        gradient = torch.einsum("ick,cn,in->ik", slopes, left, ones) + deltas @ left[:, :-1] @ places.T
        flat = slopes.transpose(0, 1).flatten(1)  # [K, n]
        count = point.numel()
        gram = (flat.T @ flat).view(*point.shape, *point.shape) * (ones @ ones.T)[:, None, :, None]
        along = (deltas @ flat).view(self.size, *point.shape)  # [j, i, k]: d_j . P_ik
        mixed = torch.einsum("jik,il->ikjl", along, rows)
        gram = gram + mixed + mixed.permute(2, 3, 0, 1)
        gram = gram + (deltas @ deltas.T)[:, None, :, None] * (places @ places.T)[None, :, None, :]
        return float(left.square().sum()), gradient.flatten(), gram.reshape(count, count)

    def _deltas(self, point: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """D, divided so that the gradient has length 1, the coordinates with a 1, softmax, and factors."""
        rows = point[:, : self.size]
        softmax = (rows @ self.inner.T + self.bias).softmax(1)
        factors = point[:, self.size].exp() if self.clipped else point.new_ones(self.size)
        one_hot = F.one_hot(self.labels, softmax.shape[1])
        deltas = factors[:, None] * (softmax - one_hot) / self.scale
        return deltas, torch.cat([rows, rows.new_ones(self.size, 1)], 1), softmax, factors

    def _left(self, deltas: Tensor, ones: Tensor) -> Tensor:
        return deltas.T @ ones - self.target
