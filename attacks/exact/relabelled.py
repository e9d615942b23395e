"""Labels that were guessed wrong, exchanged one at a time until the samples explain the gradient.

A wrong label leaves an error in the gradient that no features undo, and the right one in its place makes it
vanish. So each label of a guess is exchanged for each other one, the others' coordinates being kept as a
start, and the exchange with the smallest error is made; and again, until the gradient is explained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor

from attacks.base import Tell
from attacks.exact.consistency import Equations, Layer, Solution
from attacks.exact.subspace import Subspace

LARGEST = 32
"""Samples beyond which nothing is begun: of 1,000 classes, a solution takes seconds."""
SMALL = 8
"""Samples beyond which fewer solutions are begun: the time of a step grows with the cube of their number."""
FEW = 12
"""Solutions begun for labels that may be wrong, at most."""
AGAIN = 64
"""For so many tries, labels that may be wrong are begun with once more."""
EXCHANGES = 400
"""That are tried for one guess, at most."""
QUICK = 60
"""Steps of a solution after an exchange, at most."""
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
        tell: told how many exchanges were tried, and of how many at most.
    """

    space: Subspace
    layer: Layer
    generator: torch.Generator
    tries: int
    exchange: bool
    tell: Tell = lambda *_: None

    @cached_property
    def equations(self) -> Equations:
        """Of the gradient."""
        return Equations(self.space, self.layer)

    def __call__(self, guesses: Sequence[Tensor]) -> Solution | None:
        """The nearest solution; None where there are too many samples, or no guess.

        Args:
            guesses: labels int64 [at least r] each. Those with the largest entries in the bias gradient are
                taken.
        """
        size = len(self.space)
        if size > LARGEST:
            return None
        order = [guess[self.layer.bias[guess].abs().argsort(descending=True)][:size] for guess in guesses]
        begun, rounds = (min(self.tries, FEW), 1 + self.tries // AGAIN) if self.exchange else (self.tries, 1)
        best = None
        for labels in order * rounds:
            found = self.solved(labels, begun)
            if self.exchange:
                found = self.relabelled(found)
            best = found if best is None else nearer(best, found)
            if best.certain:
                break
        return best

    def solved(self, labels: Tensor, tries: int, *points: Tensor) -> Solution:
        """The nearest of the solutions with these labels; they begin at `points` and then at starts."""
        attempts = torch.arange(max(1, self._scaled(tries))).to(labels.device)
        many = labels.expand(len(points) + len(attempts), -1)
        starts = self.equations.begin(many[len(points) :], attempts, self.generator)
        starts = torch.cat([*(point[None] for point in points), starts])
        first = self.equations.solution(many[:1], starts[:1])  # often it is the one
        if first.certain or len(starts) == 1:
            return first
        return nearer(first, self.equations.solution(many[1:], starts[1:]))

    def relabelled(self, best: Solution) -> Solution:
        """The solution after exchanges of labels; `best` where none comes nearer."""
        whole = left = self._scaled(EXCHANGES)
        seen = {_multiset(best.labels)}
        while not best.certain and left > 0:
            fresh = list(islice(self.exchanged(best.labels, seen), left))
            if not fresh:
                break
            places, labels = (torch.stack(each) for each in zip(*fresh, strict=True))
            own = self.equations.begin(labels, torch.zeros_like(places), self.generator)
            exchanged = torch.arange(self.equations.size).to(places.device) == places[:, None]
            points = own.where(exchanged[:, :, None], best.point)
            done = whole - left
            tell = lambda begun, done=done: self.tell(done + begun, whole)  # noqa: E731
            nearest = self.equations.solution(labels, points, QUICK, tell)
            left -= len(fresh)
            if not nearest.certain:
                nearest = self.solved(nearest.labels, min(self.tries, FEW), nearest.point)
            if nearest.error >= best.error:
                break
            best = nearest
        return best

    def exchanged(self, labels: Tensor, seen: set[tuple[int, ...]]) -> Iterator[tuple[Tensor, Tensor]]:
        """A place, and labels [r] which have another one there; those that surely occur are kept once.

        Whatever the features, an entry of the bias gradient is negative only where its label occurs.

        Args:
            labels: [r].
            seen: labels in their order, which are left out and to which these are added.
        """
        bias = self.layer.bias
        present = bias < -PRESENT * bias.abs().max()
        least = bias.argsort()[: int(present.sum()) + OTHERS]
        for place, label in enumerate(labels):
            if present[label] and int((labels == label).sum()) == 1:
                continue
            for other in least:
                exchanged = labels.clone()
                exchanged[place] = other
                if (key := _multiset(exchanged)) not in seen:
                    seen.add(key)
                    yield torch.tensor(place).to(labels.device), exchanged

    def _scaled(self, solutions: int) -> int:
        """As many solutions as take the time of that many with few samples."""
        return min(solutions, solutions * SMALL**3 // len(self.space) ** 3)


def nearer(first: Solution, second: Solution) -> Solution:
    """The one with the smaller error."""
    return second if second.error < first.error else first


def _multiset(labels: Tensor) -> tuple[int, ...]:
    return tuple(sorted(labels.tolist()))
