"""20 images of ImageNet that are there without a download."""

from __future__ import annotations

from functools import cache

from dpbench.data.bundled import bundled
from dpbench.data.channels import IMAGENET_MEAN, IMAGENET_STD
from dpbench.data.datasets import Dataset, dataset, public_colour
from dpbench.data.image_files import ImageFiles


@dataset("imagenet-samples")
def imagenet_samples(argument: str, size: int | None) -> Dataset:
    """The images in the order of their names; 224 x 224 pixels unless `size` says otherwise."""
    return _imagenet_samples(224 if size is None else size)


@cache
def _imagenet_samples(size: int) -> Dataset:
    files, labels = bundled("imagenet")
    note = f"{len(files)} bundled images: a demonstration"
    images = ImageFiles(files, size).all()
    return Dataset(
        "imagenet-samples",
        images,
        labels,
        1000,
        IMAGENET_MEAN,
        IMAGENET_STD,
        public_colour(size),
        note=note,
        content="",
    )
