"""Converted assets on the disk: where they lie, how they are written and checked before every use."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from functools import cache
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dpbench.assets.errors import AssetUnavailable
from dpbench.assets.records import Asset, Source


def folder() -> Path:
    """Where converted assets lie: $DPBENCH_ASSETS, else `assets` in dpbench's cache folder."""
    if chosen := os.environ.get("DPBENCH_ASSETS"):
        return Path(chosen).expanduser()
    if chosen := os.environ.get("DPBENCH_CACHE"):
        return Path(chosen).expanduser() / "assets"
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "dpbench" / "assets"


def location(name: str) -> Path:
    """The file of asset `name`, whether it exists or not."""
    return folder() / f"{name}.safetensors"


def digest(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes; the same whatever wrote the file around them.

    Example:
        >>> import torch
        >>> digest({"a": torch.zeros(2)})[:8]
        '16edfb67'
    """
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.numpy())
    return total.hexdigest()


def write(file: Path, tensors: dict[str, Tensor], facts: dict[str, object]) -> None:
    """Write tensors and facts to `file` in one step: readers see the old file, the new one, or none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    os.close(descriptor)
    try:
        save_file(tensors, temporary, metadata={"dpbench": json.dumps(facts, sort_keys=True)})
        os.chmod(temporary, 0o644)
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def facts(file: Path) -> dict[str, object]:
    """What the converter noted about `file`; empty where it noted nothing."""
    with safe_open(file, "pt") as opened:
        return json.loads((opened.metadata() or {}).get("dpbench", "{}"))


def store(asset: Asset, source: Source, tensors: dict[str, Tensor], extra: dict[str, object]) -> Path:
    """Write a freshly converted asset into the cache and return its file."""
    file = location(asset.name)
    noted = {"asset": asset.name, "source": source.name, "half": False, "digest": digest(tensors), **extra}
    write(file, tensors, noted)
    return file


def check(asset: Asset, file: Path) -> None:
    """Raise AssetUnavailable unless `file` holds exactly what one source of `asset` converts to."""
    status = file.stat()
    _check(asset.name, asset.sources, file, status.st_size, status.st_mtime_ns)


@cache  # by size and time of the last change, so that a process hashes each file once
def _check(name: str, sources: tuple[Source, ...], file: Path, size: int, changed: int) -> None:
    again = f"delete it and run `python -m dpbench.assets fetch {name}`"
    try:
        noted, found = facts(file), digest(load_file(file))
    except (SafetensorError, ValueError, OSError) as error:
        raise AssetUnavailable(f"{file} is damaged ({error}): {again}.") from None
    source = next((s for s in sources if s.name == noted.get("source")), None)
    if source is None or noted.get("asset") != name:
        raise AssetUnavailable(f"{file} does not come from a known source of {name}: {again}.")
    if found != noted.get("digest") or (source.digests and found not in source.digests):
        raise AssetUnavailable(
            f"{file} does not hold what {source.name} holds (its sha256 differs): {again}."
        )
