"""The published rules that draw batches, the same on every machine and with every library version."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import torch
from torch import Tensor

from dpbench.data.datasets import Dataset
from dpbench.protocol import InputError
from dpbench.system.words import counted

DRAWS = ("distinct", "random")


@dataclass(frozen=True)
class Batch:
    """The attacked images: float32 [B, 3, H, W] in [0, 1], int64 labels [B], and places in the data set."""

    images: Tensor
    labels: Tensor
    indices: tuple[int, ...]


def draw_batch(data: Dataset, batch_size: int, seed: int, label_draw: str = "distinct") -> Batch:
    """The batch that `seed` stands for; those of different seeds are independent and may share images.

    The rule: order the N images by the sha256 of the text `dpbench batch SEED INDEX` (decimal numbers, ASCII;
    the 32 bytes compared as they are). `random` takes the first B of that order; `distinct` takes the first B
    whose label was not taken before. A larger batch of the same seed therefore begins with the smaller one.

    Args:
        data: what to draw from.
        batch_size: B, at least 1.
        seed: any integer.
        label_draw: `distinct` or `random`.

    Raises:
        InputError: where the data set has fewer than B images, or fewer than B classes under `distinct`.

    Example:
        >>> from dpbench.data import load_data
        >>> draw_batch(load_data("samples"), batch_size=4, seed=0).indices
        (0, 1, 14, 5)
    """
    _check(data, batch_size, label_draw)
    order = _shuffled(f"dpbench batch {seed}", len(data.labels))
    if label_draw == "distinct":
        first: dict[int, int] = {}
        for index in order:
            first.setdefault(int(data.labels[index]), index)
        order = list(first.values())
    return _batch(data, order[:batch_size])


def draw_disjoint(data: Dataset, batch_size: int, seed: int, label_draw: str = "distinct") -> Batch:
    """The batch that `seed` stands for, where batches of other seeds hold other images while there are any.

    The rule: M = `disjoint_batches(...)` seeds make one pass over the data set: seed s is batch s mod M of
    pass P = floor(s / M). A pass has its own order of the N images, by the sha256 of the text
    `dpbench pass P INDEX`, compared as in `draw_batch`. `random` gives batch b the images b * B to
    (b + 1) * B - 1 of that order. `distinct` fills the batches one after another, each with the first B
    images of the order that no earlier batch has and that differ in label. One exception keeps later batches
    possible: with m batches to fill, let c labels have r_k >= m images left and let
    spare = sum_k min(r_k, m) - m B; then at least c - spare of the B images are of those c labels, the first
    ones of the order.

    Args:
        data: what to draw from.
        batch_size: B, at least 1. Batches of two sizes may share images, whatever their seeds.
        seed: any integer.
        label_draw: `distinct` or `random`.

    Raises:
        InputError: where the data set has fewer than B images, or fewer than B classes under `distinct`.

    Example:
        >>> from dpbench.data import load_data
        >>> [draw_disjoint(load_data("samples"), batch_size=1, seed=seed).indices for seed in (0, 1)]
        [(19,), (3,)]
    """
    number, batch = divmod(seed, disjoint_batches(data, batch_size, label_draw))
    order = _shuffled(f"dpbench pass {number}", len(data.labels))
    if label_draw == "random":
        return _batch(data, order[batch * batch_size :][:batch_size])
    return _batch(data, _pass(tuple(data.labels.tolist()), number, batch_size)(batch))


def disjoint_batches(data: Dataset, batch_size: int, label_draw: str = "distinct") -> int:
    """How many batches can be drawn before an image comes a second time: the M of `draw_disjoint`.

    That is floor(N / B), and less only under `distinct`, where a few labels have most of the images.

    Args:
        data: what to draw from.
        batch_size: B, at least 1.
        label_draw: `distinct` or `random`.

    Raises:
        InputError: as `draw_disjoint`.

    Example:
        >>> from dpbench.data import load_data
        >>> disjoint_batches(load_data("samples"), 4, "random"), disjoint_batches(load_data("samples"), 8)
        (5, 2)
    """
    _check(data, batch_size, label_draw)
    if label_draw == "random":
        return len(data.labels) // batch_size
    return _fillable(list(Counter(data.labels.tolist()).values()), batch_size)


def disjoint_places(
    data: Dataset, batch_size: int, first_seed: int, most: int, label_draw: str = "distinct"
) -> list[tuple[int, ...]]:
    """The places that `draw_disjoint` draws for consecutive seeds, none of them twice.

    Args:
        data: what to draw from.
        batch_size: B, at least 1.
        first_seed: the first of the seeds.
        most: how many seeds at most; fewer where an image would come a second time.
        label_draw: `distinct` or `random`.

    Raises:
        InputError: as `draw_disjoint`.

    Example:
        >>> from dpbench.data import load_data
        >>> disjoint_places(load_data("samples"), 1, first_seed=18, most=5)
        [(9,), (14,)]
    """
    number, first = divmod(first_seed, disjoint_batches(data, batch_size, label_draw))
    order = _shuffled(f"dpbench pass {number}", len(data.labels))
    if label_draw == "random":
        starts = range(0, len(order) - batch_size + 1, batch_size)
        filled = (order[start:][:batch_size] for start in starts)
    else:
        filled = _distinct(data.labels.tolist(), order, batch_size)
    return [tuple(chosen) for chosen in islice(filled, first, first + most)]


def _fillable(counts: list[int], batch_size: int) -> int:
    """The largest m with sum_k min(counts_k, m) >= m * batch_size: that many batches of different labels."""
    low, high = 1, sum(counts) // batch_size  # the caller saw that one batch can be filled
    while low < high:
        middle = (low + high + 1) // 2
        enough = sum(min(count, middle) for count in counts) >= middle * batch_size
        low, high = (middle, high) if enough else (low, middle - 1)
    return low


def _distinct(labels: list[int], order: list[int], batch_size: int) -> Iterator[list[int]]:
    """Batches of `batch_size` different labels, as many as can be filled, in the rule's order."""
    left: dict[int, list[int]] = {}
    for place in reversed(range(len(order))):
        left.setdefault(labels[order[place]], []).append(place)  # the next one at the end
    batches = _fillable([len(places) for places in left.values()], batch_size)
    for remaining in range(batches, 0, -1):
        full = [label for label, places in left.items() if len(places) >= remaining]
        spare = sum(min(len(places), remaining) for places in left.values()) - remaining * batch_size
        chosen = heapq.nsmallest(min(max(0, len(full) - spare), batch_size), full, key=lambda k: left[k][-1])
        others = [label for label, places in left.items() if places and label not in chosen]
        chosen += heapq.nsmallest(batch_size - len(chosen), others, key=lambda k: left[k][-1])
        yield [order[place] for place in sorted(left[label].pop() for label in chosen)]


@lru_cache(maxsize=4)
def _pass(labels: tuple[int, ...], number: int, batch_size: int) -> Callable[[int], list[int]]:
    """The batches of a pass by their number, each filled once: a sweep asks for one after the other."""
    filled = _distinct(list(labels), _shuffled(f"dpbench pass {number}", len(labels)), batch_size)
    known: list[list[int]] = []

    def of(batch: int) -> list[int]:
        try:
            known.extend(islice(filled, max(0, batch + 1 - len(known))))
        except BaseException:  # Ctrl-C ends the iterator, and a notebook's next call needs another one
            _pass.cache_clear()
            raise
        return known[batch]

    return of


@lru_cache(maxsize=4)
def _shuffled(text: str, count: int) -> list[int]:
    return sorted(range(count), key=lambda i: hashlib.sha256(f"{text} {i}".encode()).digest())


def _batch(data: Dataset, chosen: list[int]) -> Batch:
    return Batch(data.images[torch.tensor(chosen)].float() / 255, data.labels[chosen], tuple(chosen))


def _check(data: Dataset, batch_size: int, label_draw: str) -> None:
    if label_draw not in DRAWS:
        raise InputError(f"Unknown label draw {label_draw!r}; known: {', '.join(DRAWS)}.")
    count = len(data.labels)
    if not 1 <= batch_size <= count:
        raise InputError(
            f"A batch of {batch_size} cannot be drawn: {data.name} has {counted(count, 'image')}."
        )
    covered = len(set(data.labels.tolist()))
    if label_draw == "distinct" and batch_size > covered:
        raise InputError(
            f"{batch_size} distinct labels cannot be drawn: {data.name} covers {covered} classes; "
            "take a smaller `batch_size` or `label_draw` random."
        )
