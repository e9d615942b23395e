"""The full test set of CIFAR-10."""

from __future__ import annotations

from functools import partial

from safetensors import safe_open
from torch import Tensor

from dpbench import assets
from dpbench.data.cifar10_like import cifar10_like
from dpbench.data.datasets import Dataset, dataset
from dpbench.protocol import InputError


@dataset("cifar10")
def held_out(argument: str, size: int | None) -> Dataset:
    """The 10,000 test images."""
    images, labels = cifar10("test")
    return cifar10_like("cifar10", images, labels, partial(cifar10, "train"))


def cifar10(split: str) -> tuple[Tensor, Tensor]:
    """One split of CIFAR-10, fetched where it is missing.

    Args:
        split: `train` (50,000 images) or `test` (10,000).

    Returns:
        uint8 images [N, 3, 32, 32] and int64 labels [N].

    Raises:
        InputError: for another split.
        AssetUnavailable: where CIFAR-10 is not here and no source answers.
    """
    if split not in ("train", "test"):
        raise InputError(f"CIFAR-10 has no split {split!r}; known: train, test.")
    with safe_open(assets.path("cifar10"), "pt") as file:
        return file.get_tensor(f"{split}_images"), file.get_tensor(f"{split}_labels")
