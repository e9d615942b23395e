"""Many image files as one array that is read when it is indexed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from dpbench.data.decode import GREY16, header, pixels
from dpbench.data.depth import check_files
from dpbench.protocol import InputError


class ImageFiles:
    """Files of one size, read when indexed: `files[LongTensor]` gives uint8 [n, 3, H, W], RGB.

    A file that was changed after its header was read is refused.

    Attributes:
        shape: (N, 3, H, W).
        note: how many images are not plain RGB and were converted; empty where all are.
    """

    def __init__(self, files: Sequence[Path], size: int | None) -> None:
        """Looks at every file's header. `size`: pixels to resize and crop to, None where all are alike."""
        self._files, self._size = tuple(files), size
        headers = [header(file) for file in _shown(files, "looking at images")]
        self._stamps = tuple(found.stamp for found in headers)
        shapes = {}
        for file, found in zip(files, headers, strict=True):
            shapes.setdefault(found.size, file)
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
        deep = [file for file, found in zip(files, headers, strict=True) if found.kind == GREY16]
        check_files(deep, str(os.path.commonpath([file.parent for file in files])))
        self.note = _note([found.kind for found in headers])

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, indices: Tensor) -> Tensor:
        return torch.stack([self._read(i) for i in indices.tolist()])

    def listing(self) -> list[list[str | int]]:
        """The name and the size in bytes of each file, as they were when its header was read."""
        return [[file.name, size] for file, (_, _, size, _) in zip(self._files, self._stamps, strict=True)]

    def all(self) -> Tensor:
        """Every image, with a progress bar where that takes long."""
        return torch.stack([self._read(i) for i in _shown(range(len(self._files)), "reading images")])

    def _read(self, i: int) -> Tensor:
        return pixels(self._files[i], self._size, self._stamps[i])


class GreyFiles:
    """Image files of which one channel is given: `files[LongTensor]` is uint8 [n, 1, H, W].

    Attributes:
        shape: (N, 1, H, W).
    """

    def __init__(self, files: ImageFiles, name: str) -> None:
        """`name` is what to call them in messages."""
        self._files, self._name = files, name
        self.shape = (files.shape[0], 1, *files.shape[2:])

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, indices: Tensor) -> Tensor:
        return one_channel(self._files[indices], self._name)


def one_channel(images: Tensor, name: str) -> Tensor:
    """The first of three equal channels, [N, 1, H, W].

    Raises:
        InputError: where some image of `name` is in colour.
    """
    if not bool((images == images[:, :1]).all()):
        raise InputError(
            f"The model takes grey images and those of {name} are in colour: convert them to greyscale, or "
            "give a model of three channels."
        )
    return images[:, :1].clone()


def _shown(items: Sequence[Any], doing: str) -> Iterable[Any]:
    """The items, with a progress bar where that takes long."""
    console = Console(stderr=True, emoji=False)
    # a finished bar that is not shown would leave an empty line in a log
    return track(items, doing, console=console, transient=True, disable=not console.is_terminal)


def _note(kinds: Sequence[str]) -> str:
    """One clause for all conversions.

    Example:
        >>> _note(["", "greyscale", "transparent", "greyscale"])
        '3 of 4 images are not plain RGB and were converted (2 greyscale, 1 transparent, over white)'
    """
    counts = Counter(kind for kind in kinds if kind)
    if not counts:
        return ""
    are, were = ("is", "was") if counts.total() == 1 else ("are", "were")
    parts = ", ".join(
        f"{n} {kind}{', over white' if kind == 'transparent' else ''}" for kind, n in sorted(counts.items())
    )
    return f"{counts.total()} of {len(kinds)} images {are} not plain RGB and {were} converted ({parts})"
