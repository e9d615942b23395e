"""20 test images of CIFAR-10 that are there without a download."""

from __future__ import annotations

from functools import cache

from dpbench.data.bundled import bundled
from dpbench.data.cifar10_like import cifar10_like
from dpbench.data.datasets import Dataset, dataset
from dpbench.data.image_files import ImageFiles


@dataset("samples")
def samples(argument: str, size: int | None) -> Dataset:
    """The images in the order of the test set."""
    return _samples()


@cache
def _samples() -> Dataset:
    files, labels = bundled("cifar10")
    note = f"{len(files)} bundled test images covering {len(set(labels.tolist()))} classes: a demonstration"
    return cifar10_like("samples", ImageFiles(files, None).all(), labels, note)
