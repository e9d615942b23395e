"""Weights and data sets that dpbench can use but does not ship: fetched once, checked before every use.

`path(name)` gives the local safetensors file; `python -m dpbench.assets` lists, fetches, verifies, exports.
Nothing is unpickled but numpy arrays (`safe_pickle`) and tensors (`torch.load(weights_only=True)`).
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

from dpbench.assets import cache, clients
from dpbench.assets.errors import AssetUnavailable, SourceFailed
from dpbench.assets.records import ASSETS, Asset, record
from dpbench.assets.working import working_folder

__all__ = ["ASSETS", "Asset", "AssetUnavailable", "path", "record", "refresh"]

_failed: dict[str, str] = {}  # one process asks a dead network once, not once a cell


def path(name: str, fetch: bool = True) -> Path:
    """The local file of an asset, its content checked; fetched first where it is missing.

    Args:
        name: one of `ASSETS`.
        fetch: whether to ask the sources when the file is not there.

    Returns:
        A safetensors file: convolutions as `features.0.weight`, ... (`lpips-alex`, `lpips-vgg`);
        `train_images` uint8 [50000, 3, 32, 32], `train_labels` int64 [50000], `test_images`, `test_labels`
        (`cifar10`); torchvision's names (`resnet50-imagenet`). Half precision where it was exported so.

    Raises:
        AssetUnavailable: where no source answers or the file is not what it should be.
        InputError: for an unknown name.
    """
    asset, file = record(name), cache.location(name)
    if os.path.isfile(file):
        cache.check(asset, file)
        return file
    if not fetch:
        raise AssetUnavailable(f"{name} is not on this machine: run `python -m dpbench.assets fetch {name}`.")
    if name in _failed:
        raise AssetUnavailable(_failed[name])
    try:
        return _fetch(asset)
    except AssetUnavailable as error:
        _failed[name] = str(error)
        raise


def refresh(name: str) -> Path:
    """Like `path`, but fetches a damaged file again, and asks the network even if it was dead before."""
    _failed.pop(name, None)
    try:
        return path(name)
    except AssetUnavailable:
        if not os.path.isfile(cache.location(name)):
            raise
    return _fetch(record(name))


def _fetch(asset: Asset) -> Path:
    """Ask the sources of `asset` in order; the first that delivers is converted into the cache."""
    home = cache.folder()
    try:
        home.mkdir(parents=True, exist_ok=True)
        return _asked(asset, home)
    except OSError as error:
        raise AssetUnavailable(
            f"Cannot write to {home} ({error.strerror}): set DPBENCH_ASSETS elsewhere."
        ) from None


def _asked(asset: Asset, home: Path) -> Path:
    """The file of `asset` from the first source that delivers.

    Raises:
        AssetUnavailable: none does.
        OSError: nothing can be written below `home`.
    """
    reasons = []
    for source in asset.sources:
        with working_folder(home) as work:
            try:
                download = clients.download(source, work)
                file = cache.store(asset, source, source.convert(download), download)
                cache.check(asset, file)
                return file
            except SourceFailed as failure:
                reasons.append(f"{source.name}: {failure}")
            except AssetUnavailable:
                raise
            except (ValueError, KeyError, OSError, pickle.UnpicklingError) as error:
                reasons.append(f"{source.name}: its file cannot be read ({error})")
    raise AssetUnavailable(
        f"{asset.name} is not on this machine and no source delivered it ({'; '.join(reasons)}): "
        f"copy a folder made by `python -m dpbench.assets export` here and set DPBENCH_ASSETS to it."
    )
