"""What a defence makes of public images, one at a time: an attacker knows the victim and the code."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from attacks import public_gradients
from attacks.reading import made
from dpbench.protocol import Knowledge, Release, combined

Gradients = tuple[Tensor, ...]


def simulated(
    like: Release, knowledge: Knowledge, images: Tensor, labels: Tensor, generator: torch.Generator
) -> Iterator[Gradients]:
    """What would have been released of each image alone, under the defence of `like`, as often as it was.

    Args:
        like: a release of one image; its defence, names and number of releases count.
        knowledge: the victim and its loss.
        images: [n, C, H, W] in [0, 1].
        labels: int64 [n].
        generator: of the defence's random draws, on the images' device.

    Raises:
        InputError: for a stage whose code is not known here.
    """
    stages, count = [made(stage) for stage in like.defense], len(like.each)
    sees_samples = bool(stages) and hasattr(stages[0], "aggregates")
    first, others = (stages[0], stages[1:]) if sees_samples else (None, stages)
    model = copy.deepcopy(knowledge.model)  # some defences leave hooks
    sizes = [g.numel() for g in like.gradients]
    for x, y in zip(images.split(public_gradients.CHUNK), labels.split(public_gradients.CHUNK), strict=True):
        if first is None:
            rows = public_gradients.gradients(knowledge, x, y)
            each = ([_shaped(row, sizes, like)] * count for row in rows)
        else:
            each = (
                list(first.aggregates(model, knowledge.loss, x[i : i + 1], y[i : i + 1], generator, count))
                for i in range(len(x))
            )
        for released in each:
            for stage in others:
                released = stage.process_all(released, generator)
            yield combined([Release(like.names, tuple(g), 1, like.defense) for g in released]).gradients


def _shaped(row: Tensor, sizes: Sequence[int], like: Release) -> Gradients:
    parts = row.split(list(sizes))
    return tuple(part.view_as(g) for part, g in zip(parts, like.gradients, strict=True))
