"""A folder of the user's own images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from dpbench.data.channels import IMAGENET_MEAN, IMAGENET_STD
from dpbench.data.datasets import Dataset, dataset, public_colour
from dpbench.data.image_files import ImageFiles
from dpbench.data.listing import Labelled, listed
from dpbench.protocol import InputError
from dpbench.system.paths import expanded

EAGER_BYTES = 256 * 2**20
"""Folders up to this size in memory are read at once, so that a damaged file is found before the run."""
SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
"""What folders are called that hold parts of a data set, each with the same classes."""
_NO_CONTENT = ("__MACOSX", "Thumbs.db", "desktop.ini")
"""What file managers leave behind, beside names that begin with a dot."""


@dataset("folder", argument="PATH")
def folder(argument: str, size: int | None) -> Dataset:
    """The images below a folder.

    Labels come from a `labels.csv` in it (columns `file`, `label` and optionally `name`; a label is a number
    or the name of a class), else from its sub-folders, one for each class, numbered in the order of their
    names as torchvision's ImageFolder does. Hidden files and folders are not looked at.

    Args:
        argument: the folder.
        size: pixels; None where all images are square and of one size.

    Raises:
        InputError: where the folder, its listing or an image cannot be used, and where the sub-folders are
            called train, test and the like.
    """
    home = expanded(argument)
    if not os.path.isdir(home):
        raise InputError(f"There is no folder {home}.")
    listing = home / "labels.csv"
    found = listed(listing) if os.path.isfile(listing) else _by_class(home)
    if not found.files:
        raise InputError(f"{home} has no images: it needs one sub-folder per class, or a labels.csv.")
    images = ImageFiles(found.files, size)
    small = np.prod(images.shape) <= EAGER_BYTES
    num_classes = max(found.labels) + 1
    names = tuple(found.names.get(i, str(i)) for i in range(num_classes)) if found.names else ()
    return Dataset(
        f"folder:{argument}",
        images.all() if small else images,
        torch.tensor(found.labels),
        num_classes,
        IMAGENET_MEAN,
        IMAGENET_STD,
        public_colour(images.shape[-1]),
        names,
        images.note,
    )


def _by_class(home: Path) -> Labelled:
    files, labels, names = [], [], {}
    _check_not_splits(home)
    for entry in sorted(home / name for name in _visible(_entries(home))):
        if not os.path.isdir(entry):
            continue
        here = _files_below(entry)
        if not here:
            raise InputError(f"The class folder {entry} is empty: remove it or put images in.")
        files += here
        labels += [len(names)] * len(here)
        names[len(names)] = entry.name
    return Labelled(files, labels, names)


def _check_not_splits(home: Path) -> None:
    """InputError where the sub-folders are parts of a data set, which would be taken for classes."""
    folders = [name for name in sorted(_visible(_entries(home))) if os.path.isdir(home / name)]
    if folders and {name.lower() for name in folders} <= SPLITS:
        raise InputError(
            f"{home} is divided into {' and '.join(folders)}, which are no classes: name the part to attack, "
            f"folder:{home / folders[-1]}, or give a labels.csv if they are."
        )


def _files_below(entry: Path) -> list[Path]:
    found = []
    for name in _visible(_entries(entry)):
        path = entry / name
        if os.path.isdir(path):
            found += [] if path.is_symlink() else _files_below(path)  # a link may lead back up
        elif os.path.isfile(path):
            found.append(path)
    return sorted(found)


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be read ({error.strerror}).") from None


def _visible(names: list[str]) -> list[str]:
    return [name for name in names if not name.startswith(".") and name not in _NO_CONTENT]
