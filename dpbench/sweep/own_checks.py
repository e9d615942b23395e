"""Whether somebody's own images, labels and model can be used; what can be put right is, the rest is said."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from dpbench.data import Dataset, draw_disjoint
from dpbench.protocol import InputError

_HOW_MANY = "Give `batch_size` with a data set: how many of its images are attacked at a time."
Batch = tuple[Tensor, Tensor, tuple[int, ...]]
"""Images float32 [B, 3, H, W] in [0, 1], labels int64 [B], and their places in the data set."""


def checked_batches(images: Any, labels: Any, batch_size: int | None, seeds: Sequence[int]) -> list[Batch]:
    """One batch, several, or those drawn from a data set.

    Args:
        images: an array [B, 3, H, W]; a list of them; or a data set that gives (image, label).
        labels: whole numbers [B]; a list of them; None with a data set.
        batch_size: images drawn from a data set.
        seeds: which batches are drawn from it.

    Raises:
        InputError: for what is no batch of images in [0, 1] with a label each.
    """
    if labels is None:
        return _drawn(images, batch_size, seeds)
    if batch_size is not None:
        raise InputError("`batch_size` is for a data set: the images given here are the batch.")
    if not isinstance(images, list | tuple):
        images, labels = [images], [labels]
    if not len(images) or len(images) != len(labels):
        raise InputError(f"Give as many batches of labels as of images, not {len(labels)} and {len(images)}.")
    found, first = [], 0
    for x, y in zip(images, labels, strict=True):
        pair = _pair(x, y)
        # places of their own, so that nobody takes the images of two batches for the same ones
        found.append((*pair, tuple(range(first, first + len(pair[0])))))
        first += len(pair[0])
    return found


def checked_others(others: Any, batches: Sequence[Batch], num_classes: int) -> tuple[Tensor, Tensor]:
    """Public images like those attacked, none of them among these, with labels in range; InputError else."""
    try:
        public, labels = others
    except (TypeError, ValueError):
        raise InputError("others must be a pair of images and labels.") from None
    public, labels = _pair(public, labels, "others")
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


def _drawn(data: Any, batch_size: int | None, seeds: Sequence[int]) -> list[Batch]:
    if isinstance(data, Dataset):
        if batch_size is None:
            raise InputError(_HOW_MANY)
        drawn = (draw_disjoint(data, batch_size, seed, "random") for seed in seeds)
        return [(batch.images, batch.labels, batch.indices) for batch in drawn]
    if not isinstance(data, TorchDataset) and not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise InputError("Give labels with the images, or a data set that gives (image, label).")
    if batch_size is None:
        raise InputError(_HOW_MANY)
    found = []
    for seed in seeds:
        chosen = _draw(len(data), batch_size, seed)
        items = [data[i] for i in chosen]
        try:
            images, labels = (list(each) for each in zip(*items, strict=True))
        except (TypeError, ValueError):
            raise InputError("The data set must give a pair (image, label) for each place.") from None
        stacked = np.stack([np.asarray(image) for image in images])
        found.append((*_pair(stacked, [int(label) for label in labels]), chosen))
    return found


def _draw(count: int, batch_size: int, seed: int) -> tuple[int, ...]:
    """The places that `dpbench.data.draw_disjoint` takes where labels do not matter."""
    if not 1 <= batch_size <= count:
        raise InputError(f"A batch of {batch_size} cannot be drawn: the data set has {count} images.")
    number, batch = divmod(seed, count // batch_size)
    order = sorted(range(count), key=lambda i: hashlib.sha256(f"dpbench pass {number} {i}".encode()).digest())
    return tuple(order[batch * batch_size :][:batch_size])


def _pair(images: Any, labels: Any, what: str = "images") -> tuple[Tensor, Tensor]:
    try:
        images, labels = torch.as_tensor(images).detach().cpu(), torch.as_tensor(labels).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} and labels must be tensors or arrays ({error}).") from None
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images) or not images.is_floating_point():
        raise InputError(
            f"{what} must be a float tensor [B, 3, H, W], or [B, 1, H, W] for grey images, with values in "
            f"[0, 1], not {images.dtype} of shape {tuple(images.shape)}; divide bytes by 255."
        )
    if not bool(((images >= 0) & (images <= 1)).all()):  # NaN is neither
        raise InputError(
            f"{what} must lie in [0, 1] and theirs reach from {float(images.min()):.3g} to "
            f"{float(images.max()):.3g}; hand over plain images and normalise inside the model."
        )
    if labels.is_floating_point() or labels.is_complex() or labels.shape != images.shape[:1]:
        raise InputError(
            f"labels must be whole numbers, one for each of the {len(images)} images, not {labels.dtype} of "
            f"shape {tuple(labels.shape)}."
        )
    return images.float().clone(), labels.long().clone()  # not the caller's, nor tensors of inference mode
