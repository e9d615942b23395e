"""The sample images that come with foolbox."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from dpbench.protocol import InputError


def bundled(prefix: str) -> tuple[list[Path], Tensor]:
    """One data set's files in foolbox and the labels in their names; foolbox itself is not imported.

    Args:
        prefix: `cifar10` or `imagenet`.

    Returns:
        The files in the order of their names, and int64 labels.

    Raises:
        InputError: where foolbox is not installed.
    """
    spec = find_spec("foolbox")
    home = Path(spec.submodule_search_locations[0]) / "data" if spec else Path()
    files = sorted(home.glob(f"{prefix}_??_*.*")) if spec else []
    if not files:
        raise InputError("The sample images come with foolbox, which is missing: pip install foolbox.")
    return files, torch.tensor([int(file.stem.split("_")[-1]) for file in files])
