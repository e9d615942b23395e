"""Images to attack (bundled samples, CIFAR-10, folders) and the published rule that draws batches."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from dpbench import assets
from dpbench.data.channels import CIFAR10_MEAN, CIFAR10_STD, IMAGENET_MEAN, IMAGENET_STD
from dpbench.data.image_files import ImageFiles, folder, resize, to_tensor
from dpbench.protocol import ImagePrior, InputError

CIFAR10_CLASSES = (
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
SPECS = "samples, imagenet-samples, cifar10, folder:PATH"
DRAWS = ("distinct", "random")


@dataclass(frozen=True)
class Dataset:
    """Images with labels, and what is publicly known of images like them.

    Attributes:
        name: the word it was asked for by.
        images: uint8 [N, 3, H, W], or something that is indexed alike and reads files when it is.
        labels: int64 [N].
        num_classes: K; labels lie in [0, K).
        mean: per-channel mean in [0, 1], of training images.
        std: per-channel standard deviation, likewise.
        mean_image: float32 [3, H, W] in [0, 1]: the mean of OTHER (training) images; for folders a public
            constant colour, ImageNet's.
        class_names: K names, or empty where nobody gave them.
        note: what a reader of a table must know about the choice of images; may be empty.
        prior: statistics of OTHER (training) images of this size, where they are shipped.
    """

    name: str
    images: Tensor | ImageFiles
    labels: Tensor
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mean_image: Tensor
    class_names: tuple[str, ...] = ()
    note: str = ""
    prior: ImagePrior | None = None


@dataclass(frozen=True)
class Batch:
    """The attacked images: float32 [B, 3, H, W] in [0, 1], int64 labels [B], and places in the data set."""

    images: Tensor
    labels: Tensor
    indices: tuple[int, ...]


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


def load_data(spec: str, *, size: int | None = None) -> Dataset:
    """The data set that `spec` names.

    Args:
        spec: `samples` (the 20 CIFAR-10 test images that foolbox bundles), `imagenet-samples` (its 20 of
            ImageNet, 224 x 224), `cifar10` (the full test set) or `folder:PATH` (class sub-folders, numbered
            in the order of their names as torchvision's ImageFolder does, or a labels.csv with columns
            file, label and optionally name).
        size: pixels; the short side is resized to it and the centre cropped. None keeps images as they are
            (`imagenet-samples`: 224).

    Raises:
        InputError: for what cannot be used, naming the file and what to do.
    """
    if size is not None and size < 1:
        raise InputError(f"--image-size must be a positive number of pixels, not {size}.")
    kind, colon, where = spec.partition(":")
    if kind == "folder" and colon:
        return _folder(where, size)
    if spec == "samples":
        data = _samples()
    elif spec == "imagenet-samples":
        data = _imagenet_samples(224 if size is None else size)
    elif spec == "cifar10":
        images, labels = cifar10("test")
        data = _like_cifar10("cifar10", images, labels, "")
    else:
        raise InputError(f"Unknown data {spec!r}; known: {SPECS}.")
    return data if size in (None, data.images.shape[-1]) else _resized(data, size)


def draw_batch(data: Dataset, batch_size: int, seed: int, label_draw: str = "distinct") -> Batch:
    """The batch that `seed` stands for, on every machine and with every library version.

    The rule: order the N images by the sha256 of the text `dpbench batch SEED INDEX` (decimal numbers, ASCII;
    the 32 bytes compared as they are). `random` takes the first B of that order; `distinct` takes the first B
    whose label was not taken before. A larger batch of the same seed therefore begins with the smaller one.

    Args:
        data: what to draw from.
        batch_size: B, at least 1.
        seed: any integer.
        label_draw: `distinct` or `random`.

    Raises:
        InputError: where the data set has fewer than B images, or fewer than B classes under `distinct`.

    Example:
        >>> draw_batch(load_data("samples"), batch_size=4, seed=0).indices
        (0, 1, 14, 5)
    """
    if label_draw not in DRAWS:
        raise InputError(f"Unknown label draw {label_draw!r}; known: {', '.join(DRAWS)}.")
    count = len(data.labels)
    if not 1 <= batch_size <= count:
        raise InputError(f"A batch of {batch_size} cannot be drawn: {data.name} has {count} images.")
    order = sorted(range(count), key=lambda i: hashlib.sha256(f"dpbench batch {seed} {i}".encode()).digest())
    if label_draw == "distinct":
        first: dict[int, int] = {}
        for index in order:
            first.setdefault(int(data.labels[index]), index)
        if batch_size > len(first):
            raise InputError(
                f"{batch_size} distinct labels cannot be drawn: {data.name} covers {len(first)} classes; "
                f"take a smaller batch or --label-draw random."
            )
        order = list(first.values())
    chosen = order[:batch_size]
    return Batch(data.images[torch.tensor(chosen)].float() / 255, data.labels[chosen], tuple(chosen))


def _like_cifar10(name: str, images: Tensor, labels: Tensor, note: str) -> Dataset:
    prior = ImagePrior(**load_file(Path(__file__).parent / "statistics" / "cifar10.safetensors"))
    return Dataset(
        name, images, labels, 10, CIFAR10_MEAN, CIFAR10_STD, prior.mean_image, CIFAR10_CLASSES, note, prior
    )


def _bundled(prefix: str) -> tuple[list[Path], Tensor]:
    """One data set's files in foolbox and the labels in their names; foolbox itself is not imported."""
    spec = find_spec("foolbox")
    home = Path(spec.submodule_search_locations[0]) / "data" if spec else Path()
    files = sorted(home.glob(f"{prefix}_??_*.*")) if spec else []
    if not files:
        raise InputError("The sample images come with foolbox, which is missing: pip install foolbox.")
    return files, torch.tensor([int(file.stem.split("_")[-1]) for file in files])


@cache
def _samples() -> Dataset:
    files, labels = _bundled("cifar10")
    note = f"{len(files)} bundled test images covering {len(set(labels.tolist()))} classes: a demonstration"
    return _like_cifar10("samples", ImageFiles(files, None).all(), labels, note)


@cache
def _imagenet_samples(size: int) -> Dataset:
    files, labels = _bundled("imagenet")
    note = f"{len(files)} bundled images: a demonstration"
    images = ImageFiles(files, size).all()
    return Dataset(
        "imagenet-samples", images, labels, 1000, IMAGENET_MEAN, IMAGENET_STD, _public_colour(size), (), note
    )


def _public_colour(size: int) -> Tensor:
    return torch.tensor(IMAGENET_MEAN)[:, None, None].expand(3, size, size).clone()


def _folder(where: str, size: int | None) -> Dataset:
    found = folder(Path(where).expanduser(), size)
    return Dataset(
        f"folder:{where}",
        found.images,
        found.labels,
        found.num_classes,
        IMAGENET_MEAN,
        IMAGENET_STD,
        _public_colour(found.images.shape[-1]),
        found.class_names,
    )


def _resized(data: Dataset, size: int) -> Dataset:
    """`data` at another size, images and mean image alike."""
    pixels = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in data.images]
    images = torch.stack([to_tensor(resize(image, size)) for image in pixels])
    mean_image = F.interpolate(data.mean_image[None], (size, size), mode="bilinear", antialias=True)[0]
    return replace(data, images=images, mean_image=mean_image, prior=None)
