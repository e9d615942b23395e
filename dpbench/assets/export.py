"""Copies assets into a folder that can be carried to a machine with no network."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from dpbench.assets import cache, path
from dpbench.protocol import InputError


def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Floats in half precision, but batch-norm statistics, whose variances half precision overflows.

    Example:
        >>> import torch
        >>> both = halved({"weight": torch.ones(1), "running_var": torch.ones(1)})
        >>> both["weight"].dtype, both["running_var"].dtype
        (torch.float16, torch.float32)
    """
    return {k: v.half() if v.is_floating_point() and "running_" not in k else v for k, v in tensors.items()}


def export(name: str, folder: Path, half: bool) -> Path:
    """Write asset `name` into `folder` and return its file there.

    Raises:
        AssetUnavailable: where the asset is not here and no source delivers it.
        InputError: where `folder` is where assets lie already, or cannot be written.
    """
    folder = folder.expanduser()
    if folder.resolve() == cache.folder().resolve():
        raise InputError(f"{folder} is where dpbench keeps its assets: export to another folder.")
    file = path(name)
    tensors, noted = load_file(file), cache.facts(file)
    if half:
        tensors = halved(tensors)
    target = folder / file.name
    try:
        cache.write(
            target, tensors, {**noted, "half": half or noted["half"], "digest": cache.digest(tensors)}
        )
    except OSError as error:
        raise InputError(f"Cannot write to {folder} ({error.strerror}): choose another folder.") from None
    return target
