"""Batches of further clients, whose gradients are summed with the attacked one's."""

from __future__ import annotations

import hashlib

import torch

from dpbench.data.datasets import Dataset
from dpbench.data.draws import Batch
from dpbench.protocol import InputError


def with_clients(data: Dataset, batch: Batch, clients: int, seed: int, label_draw: str) -> Batch:
    """`batch`, and after it as many images of each of `clients` - 1 others, none of them twice.

    The rule: order the other images by the sha256 of the text `dpbench clients SEED INDEX`, compared as in
    `draw_batch`. `random` deals them out in this order. `distinct` gives each client in turn the first images
    left that differ in label from each other; clients may share labels. So the attacked batch is the same
    whatever the number of clients, and more clients begin with the fewer ones.

    Args:
        data: what to draw from.
        batch: of the attacked client, [B, 3, H, W].
        clients: n, the attacked one included, at least 1; 1 leaves the batch as it is.
        seed: of the batch.
        label_draw: `distinct` or `random`.

    Returns:
        n * B images, client after client.

    Raises:
        InputError: where the data set has too few images.

    Example:
        >>> from dpbench.data import draw_disjoint, load_data
        >>> data = load_data("samples")
        >>> with_clients(data, draw_disjoint(data, 2, seed=0), 3, 0, "distinct").indices
        (19, 3, 13, 0, 10, 14)
    """
    if clients == 1:
        return batch
    taken, size = set(batch.indices), len(batch.indices)
    left = [index for index in range(len(data.labels)) if index not in taken]
    left.sort(key=lambda index: hashlib.sha256(f"dpbench clients {seed} {index}".encode()).digest())
    chosen = list(batch.indices)
    for _ in range(clients - 1):
        own = _first(left, [int(data.labels[index]) for index in left], size, label_draw == "distinct")
        if len(own) < size:
            raise InputError(
                f"{data.name} has too few images for {clients} clients of {size} each: use fewer `clients`, "
                "a smaller `batch_size` or `label_draw` random."
            )
        chosen += own
        left = [index for index in left if index not in set(own)]
    return Batch(data.images[torch.tensor(chosen)].float() / 255, data.labels[chosen], tuple(chosen))


def _first(left: list[int], labels: list[int], count: int, distinct: bool) -> list[int]:
    """The first `count` images; of different labels where these have to be distinct."""
    found, seen = [], set()
    for index, label in zip(left, labels, strict=True):
        if len(found) < count and not (distinct and label in seen):
            found.append(index)
            seen.add(label)
    return found
