"""Labels that were guessed wrong, exchanged one at a time until the samples explain the gradient.

A wrong label leaves an error in the gradient that no features undo, and the right one in its place makes it
vanish. So each label of a guess is exchanged for each other one, the others' coordinates being kept as a
start, and the exchange with the smallest error is made; and again, until the gradient is explained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from attacks.exact.consistency import Equations, Layer, Solution
from attacks.exact.subspace import Subspace

LARGEST = 32
"""Samples beyond which nothing is begun: of 1,000 classes, a solution takes seconds."""
SMALL = 8
"""Samples beyond which fewer solutions are begun: the time of a step grows with the cube of their number."""
FEW = 6
"""Solutions begun for labels that may be wrong, at most."""
EXCHANGES = 192
"""That are tried for one guess, at most."""
QUICK = 30
"""Steps of a solution after an exchange."""
OTHERS = 8
"""Labels that are exchanged for, besides those that the bias gradient shows: those with its least entries."""
PRESENT = 1e-5
"""An entry of the bias gradient as far below zero, relative to the largest, is no rounding error."""


@dataclass(frozen=True)
class Search:
    """For the samples behind a last layer's gradient.

    Attributes:
        space: row space of the layer's weight gradient, of r rows.
        layer: the gradient.
        generator: on the CPU; decides where solutions begin.
        tries: solutions begun for a guess of the labels, at most; only the first begins at their own rows.
        exchange: the labels are guessed, and wrong ones may be exchanged.
    """

    space: Subspace
    layer: Layer
    generator: torch.Generator
    tries: int
    exchange: bool

    def __call__(self, guesses: Sequence[Tensor]) -> Solution | None:
        """The nearest solution; None where there are too many samples, or no guess.

        Args:
            guesses: labels int64 [at least r] each. Those with the largest entries in the bias gradient are
                taken.
        """
        size = len(self.space)
        if size > LARGEST:
            return None
        best = None
        for guess in guesses:
            labels = guess[self.layer.bias[guess].abs().argsort(descending=True)][:size]
            found = self.solved(labels, min(self.tries, FEW) if self.exchange else self.tries)
            best = found if best is None else nearer(best, found)
            if best.certain:
                break
        if best is not None and self.exchange:
            best = self.relabelled(best)
            if not best.certain and self.tries > FEW:
                best = nearer(best, self.solved(best.labels, self.tries))
        return best

    def solved(self, labels: Tensor, tries: int, *points: Tensor) -> Solution:
        """The nearest of the solutions with these labels; they begin at `points` and then at starts."""
        equations = Equations(self.space, self.layer, labels)
        starts = (equations.begin(i, self.generator) for i in range(max(1, self._scaled(tries))))
        return equations.solution(chain(points, starts))

    def relabelled(self, best: Solution) -> Solution:
        """The solution after exchanges of labels; `best` where none comes nearer."""
        left, seen = self._scaled(EXCHANGES), {_multiset(best.labels)}
        while not best.certain and left > 0:
            nearest = None
            for place, labels in self.exchanged(best.labels):
                if left == 0 or (nearest is not None and nearest.certain):
                    break
                if (key := _multiset(labels)) in seen:
                    continue
                seen.add(key)
                left -= 1
                equations = Equations(self.space, self.layer, labels)
                point = best.point.clone()
                point[place] = equations.begin(0, self.generator)[place]
                found = equations.solution([point], QUICK)
                nearest = found if nearest is None else nearer(nearest, found)
            if nearest is None:
                break
            if not nearest.certain:
                nearest = self.solved(nearest.labels, min(self.tries, FEW), nearest.point)
            if nearest.error >= best.error:
                break
            best = nearest
        return best

    def exchanged(self, labels: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Labels [r] of which one is another, and its place; those that surely occur are kept once.

        Whatever the features, an entry of the bias gradient is negative only where its label occurs.
        """
        bias = self.layer.bias
        present = bias < -PRESENT * bias.abs().max()
        least = bias.argsort()[: int(present.sum()) + OTHERS].tolist()
        for place, label in enumerate(labels.tolist()):
            if present[label] and int((labels == label).sum()) == 1:
                continue
            for other in least:
                if other != label:
                    exchanged = labels.clone()
                    exchanged[place] = other
                    yield place, exchanged

    def _scaled(self, solutions: int) -> int:
        """As many solutions as take the time of that many with few samples."""
        return min(solutions, solutions * SMALL**3 // len(self.space) ** 3)


def nearer(first: Solution, second: Solution) -> Solution:
    """The one with the smaller error."""
    return second if second.error < first.error else first


def _multiset(labels: Tensor) -> tuple[int, ...]:
    return tuple(sorted(labels.tolist()))
