"""Training and test images as tensors, checked before hours are spent on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from dpbench.protocol import InputError
from dpbench.system import digest, seeds

Split = tuple[Tensor, Tensor]
"""Images [N, ...] and labels int64 [N]."""


@dataclass(frozen=True)
class Images:
    """What is trained and tested on.

    Attributes:
        train: uint8 images, or float ones, [N, ...], and int64 labels [N].
        test: likewise.
        digest: hash of all of it.
    """

    train: Split
    test: Split
    digest: str

    @property
    def num_classes(self) -> int:
        """One more than the largest label."""
        return 1 + max(int(labels.max()) for _, labels in (self.train, self.test))

    @property
    def chance(self) -> float:
        """Accuracy of always naming the commonest class of the test set."""
        labels = self.test[1]
        return float(labels.bincount().max()) / len(labels)

    def subset(self, size: int) -> Images:
        """The same test set, and `size` training images drawn at random: the same ones every time.

        Raises:
            InputError: where there are fewer.
        """
        images, labels = self.train
        if size == len(labels):
            return self
        if size > len(labels):
            raise InputError(
                f"`train_size` {size} is more than the {len(labels)} training images that there are: give at "
                "most as many."
            )
        generator = torch.Generator().manual_seed(seeds.seed("training set", size))
        chosen = torch.randperm(len(labels), generator=generator)[:size].sort().values
        kept = digest.described({"of": self.digest, "train_size": size})
        return replace(self, train=(images[chosen], labels[chosen]), digest=kept)


def checked(train: Any, test: Any) -> Images:
    """Training and test set as tensors.

    Args:
        train: a pair of tensors, images [N, ...] (uint8, or float) and labels [N]; or a map-style data set of
            (image tensor, label), which is read into memory.
        test: likewise.

    Raises:
        InputError: for what is neither, for sets that do not fit each other, and for labels or images that
            cannot be used.
    """
    both = _split(train, "train"), _split(test, "test")
    shapes = [tuple(images.shape[1:]) for images, _ in both]
    if shapes[0] != shapes[1] or both[0][0].dtype != both[1][0].dtype:
        raise InputError(
            f"The images of `train` are {both[0][0].dtype} {list(shapes[0])} and those of `test` "
            f"{both[1][0].dtype} {list(shapes[1])}: give both in the same shape and type."
        )
    named = {
        f"{name} {kind}": values
        for name, split in zip(("train", "test"), both, strict=True)
        for kind, values in zip(("images", "labels"), split, strict=True)
    }
    return Images(*both, digest.tensors(named))


def _split(given: Any, name: str) -> Split:
    if isinstance(given, TensorDataset):
        given = given.tensors
    elif not isinstance(given, Sequence) and hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        given = _read(given, name)
    if not (isinstance(given, Sequence) and len(given) == 2 and all(isinstance(t, Tensor) for t in given)):
        raise InputError(f"`{name}` must be a pair of tensors, images and labels, or a PyTorch data set.")
    images, labels = (each.detach().cpu() for each in given)
    if len(images) == 0 or labels.shape != images.shape[:1]:
        raise InputError(
            f"`{name}` has {len(images)} images and labels of shape {list(labels.shape)}: give one label for "
            "each image, and at least one image."
        )
    if labels.is_floating_point() or int(labels.min()) < 0:
        raise InputError(f"The labels of `{name}` must be whole numbers from 0 on.")
    if images.dtype != torch.uint8:
        images = images.float()
        if not bool(images.isfinite().all()):
            raise InputError(f"Some image of `{name}` is not finite: check how the images are read.")
    return images, labels.long()


def _read(dataset: Any, name: str) -> Split:
    """A data set's samples, one after the other."""
    try:
        samples = [dataset[i] for i in range(len(dataset))]
        return torch.stack([image for image, _ in samples]), torch.tensor([int(k) for _, k in samples])
    except (TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(
            f"`{name}` must give (image, label) with images as tensors of one shape ({reason}): add "
            "torchvision's ToTensor as its transform."
        ) from error


def scaled(images: Tensor) -> Tensor:
    """Bytes as float32 in [0, 1]; half precision as float32; what is float32 as it is.

    Example:
        >>> scaled(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([0., 1.])
    """
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()
