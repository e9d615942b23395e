"""Data sets to attack, by name: the registry, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from dpbench.data.channels import GREY_MEAN, GREY_STD, IMAGENET_MEAN
from dpbench.data.decode import resize, to_tensor
from dpbench.data.image_files import GreyFiles, ImageFiles, one_channel
from dpbench.protocol import ImageStatistics, InputError, Registry, meant
from dpbench.system import behaviour, digest

LARGEST = 4096
"""Pixels a side; an attack on larger images ends in no useful time."""
RESIZED_BYTES = 4 * 2**30
"""A data set that is resized as a whole must fit into this much memory."""


@dataclass(frozen=True)
class Dataset:
    """Images with labels, and what is publicly known of images like them.

    Attributes:
        name: the word it was asked for by.
        images: uint8 [N, 3, H, W], or after `in_grey` [N, 1, H, W]; or something that is indexed alike and
            reads files when it is.
        labels: int64 [N].
        num_classes: K, at least 2; labels lie in [0, K).
        mean: per-channel mean in [0, 1], of training images.
        std: per-channel standard deviation, likewise.
        mean_image: float32 [C, H, W] in [0, 1]: the mean of OTHER (training) images; for folders a public
            constant colour, ImageNet's.
        class_names: K names, or empty where nobody gave them.
        note: what a reader of a table must know about the choice of images; may be empty.
        statistics: of OTHER (training) images of this size, where they are shipped.
        public: loads OTHER (training) images, uint8 [M, 3, H, W], and their labels, where there are any.
        content: hash of all images, of labels and of what is publicly known. Images outside a batch decide
            results, too, as decoys, as candidates and as what an attacker fits a prior to. Empty where they
            are the same wherever they are loaded. None has `load_data` compute it.
    """

    name: str
    images: Tensor | ImageFiles | GreyFiles
    labels: Tensor
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mean_image: Tensor
    class_names: tuple[str, ...] = ()
    note: str = ""
    statistics: ImageStatistics | None = None
    public: Callable[[], tuple[Tensor, Tensor]] | None = None
    content: str | None = None

    def in_grey(self) -> Dataset:
        """The same images with one channel, for networks of grey images; their statistics are not known.

        Raises:
            InputError: for an image in colour; where files are read when they are indexed, only then.
        """
        whole = isinstance(self.images, Tensor)
        images = one_channel(self.images, self.name) if whole else GreyFiles(self.images, self.name)
        mean_image = self.mean_image.mean(0, keepdim=True)
        return replace(
            self,
            images=images,
            mean=GREY_MEAN,
            std=GREY_STD,
            mean_image=mean_image,
            statistics=None,
            public=None,
        )


Load = Callable[[str, int | None], Dataset]
"""(what follows the colon, pixels a side or None) -> data set; `load_data` resizes where that does not."""
datasets: Registry[Load] = Registry("data", group="dpbench.data")


def dataset(name: str, argument: str = "") -> Callable[[Load], Load]:
    """Decorator that registers the function which loads data set `name`.

    Args:
        name: what users type.
        argument: what has to follow after a colon, in capitals (`PATH`); empty where nothing may.

    Example:
        >>> @dataset("grey")
        ... def grey(argument, size):
        ...     images, half = torch.full((2, 3, 4, 4), 128, dtype=torch.uint8), (0.5,) * 3
        ...     return Dataset("grey", images, torch.arange(2), 2, half, half, torch.full((3, 4, 4), 0.5))
        >>> load_data("grey", size=8).images.shape
        torch.Size([2, 3, 8, 8])
        >>> del datasets._items["grey"]

    Raises:
        TypeError: for a name that is no word.
    """
    datasets.check_word(name, "dataset")

    def add(load: Load) -> Load:
        load.argument = argument
        datasets.add(name, load)
        return load

    return add


def load_data(spec: str, *, size: int | None = None) -> Dataset:
    """The data set that `spec` names.

    Args:
        spec: one of `datasets`: `samples` (the 20 CIFAR-10 test images that foolbox bundles),
            `imagenet-samples` (its 20 of ImageNet, 224 x 224), `cifar10` (the full test set), `folder:PATH`
            (`dpbench.data.folder`), or another package's.
        size: pixels; the short side is resized to it and the centre cropped. None keeps images as they are
            (`imagenet-samples`: 224).

    Raises:
        InputError: for what cannot be used, naming the file and what to do.
    """
    if size is not None:
        check_size(size)
    name, _, argument = spec.partition(":")
    wanted = getattr(datasets[name], "argument", argument) if name in datasets else None
    if wanted is None or bool(wanted) != bool(argument):
        known = ", ".join(
            f"{each}:{load.argument}" if getattr(load, "argument", "") else each
            for each, load in datasets.items()
        )
        raise InputError(f"Unknown data {spec!r}{meant(spec, datasets)}; known: {known}.")
    data = datasets[name](argument, size)
    if data.num_classes < 2:
        raise InputError(
            f"{spec} has a single class, and a network that knows one class only has no gradient: give "
            "images of two classes or more."
        )
    if data.content is None:
        data = replace(data, content=_content(data, datasets[name]))
    return data if size in (None, data.images.shape[-1]) else _resized(data, size)


def _content(data: Dataset, load: Load) -> str:
    """A hash of all that a data set is; of images that are read when indexed, of their names and sizes.

    The code of a loader that is not dpbench's counts, too: it may give statistics and public images.
    """
    known = {"labels": data.labels, "mean image": data.mean_image}
    known |= {"mean": torch.as_tensor(data.mean), "std": torch.as_tensor(data.std)}
    described = {"known": digest.tensors(known), "classes": data.num_classes}
    if not load.__module__.startswith("dpbench."):
        described["loader"] = behaviour.of_function(load)
    whole = isinstance(data.images, Tensor)
    images = digest.tensors({"": data.images}) if whole else data.images.listing()
    return digest.described(described | {"images": images})


def check_size(size: int) -> None:
    """InputError for a size that images cannot be resized to."""
    if not 1 <= size <= LARGEST:
        raise InputError(f"`image_size` must be a positive number of pixels up to {LARGEST}, not {size}.")


def public_colour(size: int) -> Tensor:
    """ImageNet's mean colour as an image, float32 [3, size, size]: what is known of any photograph."""
    return torch.tensor(IMAGENET_MEAN)[:, None, None].expand(3, size, size).clone()


def _resized(data: Dataset, size: int) -> Dataset:
    """`data` at another size, images and mean image alike."""
    needed = len(data.labels) * 3 * size**2
    if needed > RESIZED_BYTES:
        raise InputError(
            f"{data.name} at {size} x {size} pixels takes {needed / 2**30:.0f} GiB of memory: use a smaller "
            "--image-size."
        )
    whole = data.images[torch.arange(len(data.labels))]
    images = [to_tensor(resize(Image.fromarray(image.permute(1, 2, 0).numpy()), size)) for image in whole]
    mean_image = F.interpolate(data.mean_image[None], (size, size), mode="bilinear", antialias=True)[0]
    return replace(data, images=torch.stack(images), mean_image=mean_image, statistics=None, public=None)
