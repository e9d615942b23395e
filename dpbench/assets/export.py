"""Copies assets into a folder that can be carried to a machine with no network."""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors.torch import load_file

from dpbench.assets import cache, path, record
from dpbench.protocol import InputError
from dpbench.system.paths import expanded


def export(name: str, folder: Path, half: bool) -> Path:
    """Write asset `name` into `folder` and return its file there; a kept download goes with it.

    Raises:
        AssetUnavailable: where the asset is not here and no source delivers it.
        InputError: where `folder` is where assets lie already, or cannot be written.
    """
    folder = expanded(folder)
    if folder.resolve() == cache.folder().resolve():
        raise InputError(f"{folder} is where dpbench keeps its assets: export to another folder.")
    file, asset = path(name), record(name)
    tensors, noted = load_file(file), cache.facts(file)
    if half:
        tensors = cache.halved(tensors)
    target, download = folder / file.name, cache.kept_download(file)
    noted = cache.note(asset, cache.source_of(asset, noted), tensors, half or noted["half"])
    try:
        cache.write(target, tensors, noted)
        if download.is_file():
            shutil.copyfile(download, cache.kept_download(target))
    except OSError as error:
        raise InputError(f"Cannot write to {folder} ({error.strerror}): choose another folder.") from None
    return target
