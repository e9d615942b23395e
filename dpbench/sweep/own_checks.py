"""Whether somebody's own images, labels and model can be used; what can be put right is, the rest is said."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from dpbench.data import Dataset, draw_disjoint
from dpbench.protocol import InputError
from dpbench.sweep.own_arrays import as_inputs, as_pair
from dpbench.sweep.own_forms import Form, as_given
from dpbench.system.words import counted

_HOW_MANY = "Give `batch_size` with a data set: how many of its images are attacked at a time."
Batch = tuple[Tensor, Tensor, tuple[int, ...]]
"""Inputs in [0, 1] as `own_arrays.as_inputs` has them, labels int64 [B], and their places in the data set."""


def checked_batches(
    images: Any, labels: Any, batch_size: int | None, seeds: Sequence[int], size: int | None = None
) -> list[Batch]:
    """One batch, several, or those drawn from a data set.

    Args:
        images: an array that `own_arrays.as_inputs` takes; a list of them; or a data set that gives
            (image, label), or PyTorch's loader of one.
        labels: whole numbers [B]; a list of them; None with a data set.
        batch_size: images drawn from a data set; a loader has its own.
        seeds: which batches are drawn from it.
        size: of pictures, pixels, see `own_arrays.as_inputs`.

    Raises:
        InputError: for what is no batch of inputs in [0, 1] with a label each.
    """
    if labels is None:
        if isinstance(images, Tensor | np.ndarray):
            raise InputError("`labels` are missing: give one for each image.")
        return _drawn(images, batch_size, seeds, size)
    if batch_size is not None:
        raise InputError("`batch_size` is for a data set: the images given here are the batch.")
    if any(seeds):
        raise InputError("`batch_seed` is for a data set: the images given here are the batch.")
    if not isinstance(images, list | tuple):
        images, labels = [images], [labels]
    if not len(images) or len(images) != len(labels):
        raise InputError(f"Give as many batches of labels as of images, not {len(labels)} and {len(images)}.")
    found, first = [], 0
    for x, y in zip(images, labels, strict=True):
        pair = as_pair(x, y, size=size)
        # places of their own, so that nobody takes the images of two batches for the same ones
        found.append((*pair, tuple(range(first, first + len(pair[0])))))
        first += len(pair[0])
    return found


def checked_others(
    others: Any,
    batches: Sequence[Batch],
    num_classes: int,
    form: Form = as_given,
    size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Public images like those attacked, none of them among these, with labels in range; InputError else.

    They are brought into the same `form` and to the same `size`.
    """
    try:
        public, labels = others
    except (TypeError, ValueError):
        raise InputError("others must be a pair of images and labels.") from None
    public, labels = as_pair(public, labels, "others", size)
    public = form(public)
    shape = batches[0][0].shape[1:]
    if public.shape[1:] != shape:
        raise InputError(
            f"The images of others must be [G, {', '.join(map(str, shape))}] like those attacked, not "
            f"{tuple(public.shape)}."
        )
    if not bool(((labels >= 0) & (labels < num_classes)).all()):
        raise InputError(f"The labels of others must lie in 0 ... {num_classes - 1}, the model's outputs.")
    if any(torch.equal(image, own) for image in public for batch, _, _ in batches for own in batch):
        raise InputError(
            "others hold an attacked image: take it out, or the attacker knows what it is after."
        )
    return public, labels


def _drawn(data: Any, batch_size: int | None, seeds: Sequence[int], size: int | None) -> list[Batch]:
    collate = None
    if isinstance(data, DataLoader):
        batch_size, collate, data = batch_size or data.batch_size, data.collate_fn, data.dataset
    if isinstance(data, Dataset):
        if batch_size is None:
            raise InputError(_HOW_MANY)
        drawn = (draw_disjoint(data, batch_size, seed, "random") for seed in seeds)
        return [(as_inputs(batch.images, size=size), batch.labels, batch.indices) for batch in drawn]
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        if isinstance(data, TorchDataset):
            raise InputError("The data set can only be read in its own order: give images and labels of it.")
        raise InputError("Give labels with the images, or a data set that gives (image, label).")
    if batch_size is None:
        raise InputError(_HOW_MANY)
    found = []
    for seed in seeds:
        chosen = _draw(len(data), batch_size, seed)
        images, labels = _pairs([data[i] for i in chosen], collate)
        found.append((*as_pair(images, labels, size=size), chosen))
    return found


def _pairs(items: list[Any], collate: Any) -> tuple[Any, Any]:
    """Images and labels of a data set's items."""
    try:
        if collate is not None:
            items = [collate(items)]
        images, labels = (list(each) for each in zip(*items, strict=True))
        if collate is not None:
            return images[0], labels[0]
        return images, [int(torch.as_tensor(label).reshape(())) for label in labels]
    except (TypeError, ValueError, RuntimeError, AttributeError):
        raise InputError("The data set must give a pair (image, label) for each place.") from None


def _draw(count: int, batch_size: int, seed: int) -> tuple[int, ...]:
    """The places that `dpbench.data.draw_disjoint` takes where labels do not matter."""
    if not 1 <= batch_size <= count:
        raise InputError(
            f"A batch of {batch_size} cannot be drawn: the data set has {counted(count, 'image')}."
        )
    number, batch = divmod(seed, count // batch_size)
    order = sorted(range(count), key=lambda i: hashlib.sha256(f"dpbench pass {number} {i}".encode()).digest())
    return tuple(order[batch * batch_size :][:batch_size])
