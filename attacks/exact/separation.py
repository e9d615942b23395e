"""Samples told apart in a layer's gradient: guesses from `sparsity` until one explains the gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from attacks.base import Tell
from attacks.exact.sparsity import Near, Propose, sparse_rows
from attacks.exact.subspace import Subspace

CERTAIN = 1e-3
"""The relative residual below which a sample is certified."""
LARGEST_FACTOR = 1 + 2 * CERTAIN
"""Factor of a gradient above which it is not one sample's: no clip makes it longer, but two alike add up."""
WEAKEST = 2
"""So many samples with the smallest gradients are given up where they hide the others' zeros."""
PATIENCE = 6
"""Guesses after a first answer: samples with small gradients may never be certain."""


class Found(Protocol):
    """Samples with what each of them leaves unexplained, relative: `residual` [r]."""

    @property
    def residual(self) -> Tensor:
        """[r]."""


F = TypeVar("F", bound=Found)


def separated(
    space: Subspace,
    explain: Callable[[Tensor], F | None],
    generator: torch.Generator,
    starts: int,
    one_sign: bool = False,
    propose: Propose | None = None,
    near: Near | None = None,
    tell: Tell = lambda *_: None,
) -> F | None:
    """The samples behind a guess that leaves most of them certain; None where no guess does.

    Args:
        space: row space of the layer's gradient.
        explain: the samples behind a guess [r, m]; None for one that cannot be right.
        generator: as for `sparse_rows`, as are `starts`, `one_sign` and `propose`.
        starts: for each number of samples that is tried.
        one_sign: see there.
        propose: likewise.
        near: likewise.
        tell: likewise.
    """
    weakest = max(1, len(space) - WEAKEST)
    while len(space) >= weakest and space.clear:
        best, guesses = None, 0
        for rows in sparse_rows(space, generator, starts, one_sign, propose, near, tell):
            found = explain(rows)
            if found is not None and (best is None or _certain(found) > _certain(best)):
                best = found
            guesses += best is not None
            if best is not None and (_certain(best) == len(space) or guesses > PATIENCE):
                break
        if best is not None and 2 * _certain(best) > len(space):
            return best
        space = space.without_weakest()
    return None


def _certain(found: Found) -> int:
    return int((found.residual < CERTAIN).sum())
