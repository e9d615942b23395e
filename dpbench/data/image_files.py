"""Reads the user's image files, and refuses what is not a plain RGB image with a sentence that names it."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor

from dpbench.protocol import InputError

EAGER_BYTES = 256 * 2**20
"""Folders up to this size in memory are read at once, so that a damaged file is found before the run."""


def resize(image: Image.Image, size: int) -> Image.Image:
    """The short side resized to `size` pixels (bilinear, antialiased), then the centre square cut out."""
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))


def to_tensor(image: Image.Image) -> Tensor:
    """uint8 [3, H, W] of an RGB image."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _open(file: Path, decode: bool) -> Image.Image:
    """The image in `file`, RGB; its pixels are only read if asked for."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(file)
            if image.mode == "RGB" and decode:
                image.load()
    except FileNotFoundError:
        raise InputError(f"There is no file {file}.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(
            f"{file} claims more than {Image.MAX_IMAGE_PIXELS:,} pixels, more than is safe: shrink it first."
        ) from None
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"{file} is not an image that can be read ({error}): remove or replace it."
        ) from None
    if image.mode != "RGB":
        kind = (
            "greyscale" if image.mode in ("1", "L", "LA", "I", "F") or image.mode[:2] == "I;" else "not RGB"
        )
        raise InputError(
            f"{file} is {kind} (mode {image.mode}), dpbench attacks RGB images: "
            f"convert it, for example with Pillow's Image.open(FILE).convert('RGB').save(FILE)."
        )
    return image


class ImageFiles:
    """RGB files of one size, read when indexed: `files[LongTensor]` gives uint8 [n, 3, H, W]."""

    def __init__(self, files: Sequence[Path], size: int | None) -> None:
        """Looks at every file's header. `size`: pixels to resize and crop to, None where all are alike."""
        self._files, self._size = tuple(files), size
        shapes = {}
        for file in files:
            with _open(file, decode=False) as image:
                shapes.setdefault(image.size, file)
        if size is None and len(shapes) > 1:
            (a, first), (b, second) = list(shapes.items())[:2]
            raise InputError(
                f"{second} is {b[0]} x {b[1]} pixels where {first} is {a[0]} x {a[1]}: "
                f"choose one size for all with --image-size."
            )
        ((width, height),) = list(shapes)[:1]
        if size is None and width != height:
            raise InputError(f"{files[0]} is {width} x {height} pixels, not square: choose --image-size.")
        side = width if size is None else size
        self.shape = (len(files), 3, side, side)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, indices: Tensor) -> Tensor:
        return torch.stack([self._read(self._files[i]) for i in indices.tolist()])

    def all(self) -> Tensor:
        """Every image, with a progress bar where that takes long."""
        files = track(self._files, "reading images", console=Console(stderr=True), transient=True)
        return torch.stack([self._read(file) for file in files])

    def _read(self, file: Path) -> Tensor:
        with _open(file, decode=True) as image:
            return to_tensor(image if self._size is None else resize(image, self._size))


@dataclass(frozen=True)
class Folder:
    """What a folder of images holds."""

    images: Tensor | ImageFiles
    labels: Tensor
    num_classes: int
    class_names: tuple[str, ...]


def folder(home: Path, size: int | None) -> Folder:
    """The images under `home`: by labels.csv where there is one, else by class sub-folder.

    Raises:
        InputError: where the folder or its listing cannot be used.
    """
    if not home.is_dir():
        raise InputError(f"There is no folder {home}.")
    listing = home / "labels.csv"
    files, labels, names = _listed(listing) if listing.is_file() else _by_class(home)
    if not files:
        raise InputError(f"{home} has no images: it needs one sub-folder per class, or a labels.csv.")
    images = ImageFiles(files, size)
    small = np.prod(images.shape) <= EAGER_BYTES
    num_classes = max(labels) + 1
    class_names = tuple(names.get(i, str(i)) for i in range(num_classes)) if names else ()
    return Folder(images.all() if small else images, torch.tensor(labels), num_classes, class_names)


def _by_class(home: Path) -> tuple[list[Path], list[int], dict[int, str]]:
    classes = sorted(entry for entry in home.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files, labels = [], []
    for label, entry in enumerate(classes):
        here = sorted(f for f in entry.rglob("*") if f.is_file() and not f.name.startswith("."))
        if not here:
            raise InputError(f"The class folder {entry} is empty: remove it or put images in.")
        files += here
        labels += [label] * len(here)
    return files, labels, {i: entry.name for i, entry in enumerate(classes)}


def _listed(listing: Path) -> tuple[list[Path], list[int], dict[int, str]]:
    files, labels, names = [], [], {}
    try:
        with open(listing, newline="", encoding="utf-8-sig") as opened:
            rows = list(csv.DictReader(opened))
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{listing} is not a CSV file that can be read ({error}).") from None
    for number, row in enumerate(rows, 2):
        if not row.get("file") or row.get("label") is None:
            raise InputError(
                f"{listing}, line {number}, needs a file and a label: columns file,label[,name]."
            )
        text = row["label"].strip()
        if not (text.isascii() and text.isdigit() and len(text) <= 6):
            raise InputError(f"{listing}, line {number}: label {text!r} is not an integer from 0 to 999999.")
        files.append(listing.parent / row["file"])
        labels.append(int(text))
        if row.get("name"):
            names[int(text)] = row["name"]
    return files, labels, names
