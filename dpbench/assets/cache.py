"""Converted assets on the disk: where they lie, how they are written and checked before every use."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import tempfile
from functools import cache
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from dpbench.assets.errors import AssetUnavailable
from dpbench.assets.records import Asset, Source
from dpbench.protocol import InputError, cache_folder
from dpbench.system.paths import expanded, open_file


def folder() -> Path:
    """Where converted assets lie: $DPBENCH_ASSETS, else `assets` in dpbench's cache folder.

    Raises:
        AssetUnavailable: none of these is set, and there is no home folder.
    """
    if chosen := os.environ.get("DPBENCH_ASSETS"):
        return expanded(chosen)
    try:
        return expanded(cache_folder() / "assets")
    except RuntimeError:
        raise AssetUnavailable(
            "There is no home folder to keep downloads in: set DPBENCH_ASSETS to a folder."
        ) from None


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
        # written by us, as safetensors has an error of its own for a full disk
        Path(temporary).write_bytes(save(tensors, {"dpbench": json.dumps(facts, sort_keys=True)}))
        os.chmod(temporary, 0o644)
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def facts(file: Path) -> dict[str, object]:
    """What was noted about `file` as it was written; empty where nothing was.

    Raises:
        ValueError: where the note is not a JSON object.
    """
    with safe_open(file, "pt") as opened:
        text = (opened.metadata() or {}).get("dpbench", "{}")
    try:
        noted = json.loads(text)
    except RecursionError:
        raise ValueError("its note is nested too deeply") from None
    if not isinstance(noted, dict):
        raise ValueError("its note is not a JSON object")
    return noted


def kept_download(file: Path) -> Path:
    """Where the download of an asset is kept that has no pinned digest; beside the converted `file`."""
    return file.with_suffix(".download")


def store(asset: Asset, source: Source, tensors: dict[str, Tensor], download: Path) -> Path:
    """Write a freshly converted asset into the cache and return its file."""
    file = location(asset.name)
    if digest(tensors) not in asset.digests and not source.digests:
        os.replace(download, kept_download(file))
    else:
        kept_download(file).unlink(missing_ok=True)
    write(file, tensors, note(asset, source, tensors, half=False))
    return file


def note(asset: Asset, source: Source, tensors: dict[str, Tensor], half: bool) -> dict[str, object]:
    """What is written beside the tensors of an asset: facts for its users, and whence it comes."""
    return {
        **source.facts,
        "asset": asset.name,
        "source": source.name,
        "half": half,
        "digest": digest(tensors),
    }


def source_of(asset: Asset, noted: dict[str, object]) -> Source | None:
    """The source of `asset` that a note names; None where it names none."""
    known = (source for source in asset.sources if source.name == noted.get("source"))
    return next(known, None) if noted.get("asset") == asset.name else None


def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Floats in half precision, but batch-norm statistics, whose variances half precision overflows.

    Example:
        >>> import torch
        >>> both = halved({"weight": torch.ones(1), "running_var": torch.ones(1)})
        >>> both["weight"].dtype, both["running_var"].dtype
        (torch.float16, torch.float32)
    """
    return {k: v.half() if v.is_floating_point() and "running_" not in k else v for k, v in tensors.items()}


def check(asset: Asset, file: Path) -> None:
    """Raise AssetUnavailable unless `file` holds exactly what one source of `asset` converts to.

    What it says of itself counts for nothing: tensors are compared with the record's digests, or where the
    record has none with a new conversion of the download, whose sha256 every record has.
    """
    _check(asset.name, asset, file, _stamp(file), _stamp(kept_download(file)))


def _stamp(file: Path) -> tuple[int, ...]:
    """Changes whenever a file is written or replaced, whatever time it is given afterwards."""
    try:
        status = file.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@cache  # so that a process hashes each file once
def _check(name: str, asset: Asset, file: Path, stamp: tuple[int, ...], of_download: tuple[int, ...]) -> None:
    again = f"delete it and run `python -m dpbench.assets fetch {name}`"
    try:
        noted, tensors = facts(file), load_file(file)
        found = digest(tensors)
    except (SafetensorError, ValueError, OSError) as error:
        raise AssetUnavailable(f"{file} is damaged ({error}): {again}.") from None
    source = source_of(asset, noted)
    if source is None:
        raise AssetUnavailable(f"{file} does not come from a known source of {name}: {again}.")
    if found not in (source.digests or asset.digests | _converted(source, kept_download(file))):
        raise AssetUnavailable(
            f"{file} does not hold what {source.name} holds (its sha256 differs): {again}."
        )
    if noted != note(asset, source, tensors, half=noted.get("half") is True):
        raise AssetUnavailable(f"{file} says other things of itself than the record of {name}: {again}.")


def _converted(source: Source, download: Path) -> frozenset[str]:
    """The digests of what a kept download converts to; none where it is not the source's own file."""
    try:
        with open_file(download) as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != source.sha256:
                return frozenset()
        tensors = source.convert(download)
    except (InputError, OSError, ValueError, KeyError, pickle.UnpicklingError):
        return frozenset()
    return frozenset({digest(tensors), digest(halved(tensors))})
