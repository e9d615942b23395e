"""What is known of images like CIFAR-10's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from dpbench.data.channels import CIFAR10_MEAN, CIFAR10_STD
from dpbench.data.datasets import Dataset
from dpbench.protocol import ImageStatistics

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


def cifar10_like(
    name: str,
    images: Tensor,
    labels: Tensor,
    training: Callable[[], tuple[Tensor, Tensor]],
    note: str = "",
) -> Dataset:
    """A data set of CIFAR-10's classes and size, with the statistics of its training images.

    Args:
        name: the word it was asked for by.
        images: uint8 [N, 3, 32, 32].
        labels: int64 [N].
        training: loads CIFAR-10's training images and their labels.
        note: see `Dataset`.
    """
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
        training,
    )
