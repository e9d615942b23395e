"""CIFAR-10, and what is known of images like its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from dpbench import assets
from dpbench.data.channels import CIFAR10_MEAN, CIFAR10_STD
from dpbench.data.datasets import Dataset
from dpbench.protocol import ImageStatistics, InputError

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def cifar10_like(name: str, images: Tensor, labels: Tensor, note: str = "") -> Dataset:
    """A data set of CIFAR-10's classes and size; its training images and their statistics are public."""
    statistics = ImageStatistics(**load_file(Path(__file__).parent / "statistics" / "cifar10.safetensors"))
    return Dataset(
        name,
        images,
        labels,
        10,
        CIFAR10_MEAN,
        CIFAR10_STD,
        statistics.mean_image,
        CLASSES,
        note,
        statistics,
        partial(cifar10, "train"),
        content="",
    )


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
