"""The full test set of CIFAR-10."""

from __future__ import annotations

from dpbench.data.cifar10_like import cifar10, cifar10_like
from dpbench.data.datasets import Dataset, dataset


@dataset("cifar10")
def held_out(argument: str, size: int | None) -> Dataset:
    """The 10,000 test images."""
    images, labels = cifar10("test")
    return cifar10_like("cifar10", images, labels)
